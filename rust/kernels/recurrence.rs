//! The linear recurrence yᵢ₊₁ = aᵢ·yᵢ + bᵢ₊₁ down the rows of matrices, of which running products are a case.
//!
//! Invariant: an element takes as many roundings as there are rows before it, in their order, whatever threads there are.

use super::interrupt;
use super::map::dense;
use super::parallel::{self, ColumnsMut};
use super::simd::Float;
use crate::array::{Array, Dims};
use crate::{Result, simd, with_float};

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
