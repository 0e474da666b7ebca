//! How far the elements of rows are from their mean: Σ(x − mean)² = Σ(x − p)² − (Σ(x − p))²/n, for any pivot p.
//!
//! Invariant: the pivot is the mean, rounded, or the nearest number to it there is; what is taken off is no more than half.

use super::sums;
use crate::Result;
use crate::array::Array;
use crate::kernels::parallel;
use crate::kernels::simd::Float;
use crate::{simd, with_float};

/// Elements of a row that one unit of work takes in.
const SPAN: usize = 1 << 16;

/// Σ(x − mean)² of the rows of `x`, floats in row-major order, that have these means.
pub fn spread(x: &Array, means: &Array) -> Result<Array> {
    let mut out = Array::unfilled(x.dtype(), *means.shape())?;
    with_float!(x.dtype(), T => {
        let (x, means) = (x.as_slice::<T>().expect("in row-major order"), means.as_slice::<T>().expect("as they came"));
        of_rows(x, means, out.fresh::<T>());
    }, else unreachable!("floats"));
    Ok(out)
}

fn of_rows<T: Float>(x: &[T], means: &[T], y: &mut [T]) {
    let n = x.len() / y.len().max(1);
    if n > SPAN {
        let rows = y.iter_mut().zip(means).zip(x.chunks(n));
        return rows.for_each(|((y, &mean), row)| *y = T::from_f64(of_row(row, mean)));
    }
    let group = (SPAN / n.max(1)).max(1);
    parallel::for_chunks(y, group, x.len() / 4, |i, y| {
        let rows = y.iter_mut().zip(&means[i * group..]).zip(x[i * group * n..].chunks(n));
        rows.for_each(|((y, &mean), row)| *y = T::from_f64(of_row(row, mean)));
    });
}

fn of_row<T: Float>(row: &[T], mean: T) -> f64 {
    let n = row.len() as f64;
    let [mut first, mut second] = moments(row, mean);
    if first * first > 0.5 * n * second {
        // Almost all of the spread is the rounding of the mean.
        [first, second] = moments(row, mean + T::from_f64(first / n));
    }
    let spread = second - first * first / n;
    // Not `max`, which would answer 0 for NaN.
    if spread < 0.0 { 0.0 } else { spread }
}

/// The sums of x − pivot and of its square, of a long row in pieces that are merged in their order.
fn moments<T: Float>(row: &[T], pivot: T) -> [f64; 2] {
    if row.len() <= SPAN {
        return piece(row, pivot);
    }
    let mut parts = vec![[0.0; 2]; row.len().div_ceil(SPAN)];
    parallel::for_chunks(&mut parts, 1, row.len() / 4, |i, part| part[0] = piece(&row[i * SPAN..row.len().min((i + 1) * SPAN)], pivot));
    parts.iter().fold([0.0; 2], |[first, second], part| [first + part[0], second + part[1]])
}

simd! {
    fn piece<T: Float>(x: &[T], pivot: T) -> [f64; 2] {
        sums(x.len(), [x], |[x]| [x - pivot, (x - pivot) * (x - pivot)])
    }
}
