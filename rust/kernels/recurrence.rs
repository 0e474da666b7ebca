//! The linear recurrence yᵢ₊₁ = aᵢ·yᵢ + bᵢ₊₁ down the rows of matrices, of which running products are a case; and running products along
//! rows, both ways at once.
//!
//! Invariant: an element takes as many roundings as there are rows before it, in their order, whatever threads there are.

use super::interrupt;
use super::map::dense;
use super::parallel::{self, ColumnsMut};
use super::simd::Float;
use crate::array::{Array, Dims};
use crate::{Result, simd, with_float};

/// Elements of rows that are one unit of work.
const BLOCK: usize = 4096;
/// Columns that go by the rows together.
const TILE: usize = 256;
/// Rows between two questions whether to stop.
const UNASKED: usize = 1 << 16;

/// y, (n, k), of a, (n − 1, k), and b, (n, k), from y₀ = b₀ on; or `upwards`, yᵢ = aᵢ·yᵢ₊₁ + bᵢ from yₙ₋₁ = bₙ₋₁ on. Without b that is 1
/// where y begins and 0 elsewhere, so y holds the products of the rows of a up to each.
pub fn recurrence(a: &Array, b: Option<&Array>, upwards: bool) -> Result<Array> {
    let mut out = Array::unfilled(a.dtype(), Dims::new(&[a.shape()[0] + 1, a.shape()[1]])?)?;
    let k = a.shape()[1];
    let b = b.map(|b| dense(b, a.dtype())).transpose()?;
    let a = dense(a, a.dtype())?;
    with_float!(a.dtype(), T => {
        let (a, b) = (a.as_slice::<T>().expect("dense"), b.as_ref().map(|b| b.as_slice::<T>().expect("dense")));
        let y = out.fresh::<T>();
        let work = y.len();
        parallel::drive(ColumnsMut::new(y, k, TILE), work, |first, y| columns(a, b, k, first * TILE, upwards, y));
    }, else unreachable!("only floats are recorded"));
    Ok(out)
}

simd! {
    /// Fills columns of a matrix, those from `first` on, beside the same of a and b, whose rows have `k` elements.
    fn columns<T: Float>(a: &[T], b: Option<&[T]>, k: usize, first: usize, upwards: bool, y: ColumnsMut<T>) {
        match k {
            1 => tiles::<T, 1>(a, b, k, first, upwards, y),
            _ => tiles::<T, TILE>(a, b, k, first, upwards, y),
        }
    }
}

#[inline(always)]
fn tiles<T: Float, const TILE: usize>(a: &[T], b: Option<&[T]>, k: usize, first: usize, upwards: bool, mut y: ColumnsMut<T>) {
    let n = y.rows();
    for t in 0..y.cols().div_ceil(TILE) {
        let (mut y, first) = (y.chunk_mut(t), first + t * TILE);
        let cols = y.cols().min(TILE);
        let mut last = [if b.is_some() { T::ZERO } else { T::from_f64(1.0) }; TILE];
        for i in 0..n {
            let row = if upwards { n - 1 - i } else { i };
            if i > 0 {
                let a = &a[(if upwards { row } else { row - 1 }) * k + first..][..cols];
                last.iter_mut().zip(a).for_each(|(y, &a)| *y *= a);
            }
            if let Some(b) = b {
                last.iter_mut().zip(&b[row * k + first..][..cols]).for_each(|(y, &b)| *y += b);
            }
            y.row_mut(row).iter_mut().zip(&last).for_each(|(y, &last)| *y = last);
            if i % UNASKED == UNASKED - 1 && interrupt::stops() {
                return;
            }
        }
    }
}

/// For each element of x, (k, n), the product of the others in its row: the running product of those before it times that of those after
/// it, with the bits that [`recurrence`] gives them.
pub fn others(x: &Array) -> Result<Array> {
    let mut out = Array::unfilled(x.dtype(), *x.shape())?;
    let n = x.shape()[1];
    let x = dense(x, x.dtype())?;
    with_float!(x.dtype(), T => {
        let (x, y) = (x.as_slice::<T>().expect("dense"), out.fresh::<T>());
        let (each, work) = (n * (BLOCK / n).max(1), y.len().saturating_mul(2));
        parallel::for_chunks(y, each, work, |i, y| {
            x[i * each..].chunks(n).zip(y.chunks_mut(n)).for_each(|(x, y)| others_in_row(x, y));
        });
    }, else unreachable!("only floats are recorded"));
    Ok(out)
}

/// Goes from both ends at once, since each product waits for the one before it: the way that comes by an element first leaves its product
/// there, the other multiplies it by its own.
fn others_in_row<T: Float>(x: &[T], y: &mut [T]) {
    let (mut before, mut after) = (T::from_f64(1.0), T::from_f64(1.0));
    for first in (0..x.len()).step_by(UNASKED) {
        if first > 0 && interrupt::stops() {
            return;
        }
        for i in first..x.len().min(first + UNASKED) {
            let j = x.len() - 1 - i;
            y[i] = if i > j { before * y[i] } else { before };
            y[j] = if i >= j { y[j] * after } else { after };
            (before, after) = (before * x[i], after * x[j]);
        }
    }
}
