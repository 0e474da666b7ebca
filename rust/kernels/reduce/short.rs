//! Short rows: [`W`] of them at once, each in a lane of its own, so that what a row costs beside its elements is paid once for all.
//!
//! Invariant: elements meet in the order in which [`super::fold::fold_row`] has them meet, whatever rows are beside theirs.

use super::fold::Fold;
use crate::array::Element;
use crate::kernels::simd::{LANES, lanes_only};
use crate::kernels::turn::{BLOCK, Rows, turn_few};
use crate::simd;

/// Rows at once.
pub const W: usize = BLOCK;
/// Rows of as many elements fill lanes of their own.
pub const SHORT: usize = LANES;

/// Runs `f(results, columns)` for blocks of the rows of `x`, of 1 to `N` elements. Lanes of rows that are not there hold anything.
#[inline(always)]
pub fn by_columns<T: Element, Y, const N: usize>(x: Rows<T>, y: &mut [Y], mut f: impl FnMut(&mut [Y], &[[T; W]])) {
    let mut columns = [[T::default(); W]; N];
    for (b, y) in y.chunks_mut(W).enumerate() {
        turn_few(Rows { from: x.from + b * W * x.stride, rows: y.len(), ..x }, &mut columns);
        f(y, &columns[..x.cols]);
    }
}

simd! {
    /// Folds every `step`th element of each of the rows of `x`, which have fewer than [`SHORT`].
    pub fn fold_short_rows<T: Element, F: Fold<T>>(f: F, x: Rows<T>, step: usize, y: &mut [T]) {
        let _ = f;
        let mut wide = [[F::wide_id(); W]; SHORT];
        by_columns::<T, T, SHORT>(x, y, |y, columns| {
            let mut count = 0;
            for column in columns.iter().step_by(step) {
                for l in 0..W {
                    wide[count][l] = F::widen(F::step(F::start(), column[l]));
                }
                count += 1;
                lanes_only();
            }
            merge::<T, F>(&mut wide[..count]);
            for (l, y) in y.iter_mut().enumerate() {
                *y = F::finish(F::merge(F::wide_id(), wide[0][l]));
            }
        });
    }
}

/// Merges columns into the first, halves first.
#[inline(always)]
fn merge<T: Element, F: Fold<T>>(columns: &mut [[F::Wide; W]]) {
    let (mut n, mut half) = (columns.len(), LANES / 2);
    while half > 0 {
        let (low, high) = columns[..n].split_at_mut(half.min(n));
        for (a, b) in low.iter_mut().zip(high) {
            for l in 0..W {
                a[l] = F::merge(a[l], b[l]);
            }
            lanes_only();
        }
        (n, half) = (low.len(), half / 2);
    }
}
