//! Short rows: [`W`] of them at once, each in a lane of its own, column after column.
//!
//! Invariant: columns are added up in their order, whatever rows are beside them.

use super::{Lanes, W};
use crate::kernels::simd::{Float, lanes_only};
use crate::kernels::turn::{Rows, turn, turn_few};

/// Rows of so many elements are better read in windows; if they are to be written as well, those of [`W`].
pub(super) const WIDE: usize = 2 * W;

/// Columns of [`W`] rows, of fewer than `N` elements each.
type Columns<T, const N: usize> = [Lanes<T>; N];

/// Runs `f(first row, columns)` for blocks of rows of `c` elements. Lanes of rows that are not there hold anything.
#[inline(always)]
pub(super) fn read<T: Float>(c: usize, x: &[T], mut f: impl FnMut(usize, &[Lanes<T>])) {
    let mut columns = [[T::ZERO; W]; WIDE];
    for first in (0..x.len() / c).step_by(W) {
        take(c, &x[first * c..], &mut columns);
        f(first, &columns[..c]);
    }
}

/// Runs `f(columns of x, columns of y)` for blocks of rows of `c < W` elements, and writes the rows of y.
#[inline(always)]
pub(super) fn map<T: Float, const K: usize>(c: usize, x: [&[T]; K], y: &mut [T], f: impl Fn(&[Columns<T, W>; K], &mut [Lanes<T>])) {
    let (mut columns, mut out) = ([[[T::ZERO; W]; W]; K], [[T::ZERO; W]; W]);
    for first in (0..y.len() / c).step_by(W) {
        for k in 0..K {
            take(c, &x[k][first * c..], &mut columns[k]);
        }
        f(&columns, &mut out[..c]);
        put(c, &out, &mut y[first * c..]);
    }
}

fn take<T: Float, const N: usize>(c: usize, x: &[T], columns: &mut Columns<T, N>) {
    turn_few(Rows { data: x, from: 0, stride: c, rows: W.min(x.len() / c), cols: c }, columns);
}

fn put<T: Float>(c: usize, columns: &Columns<T, W>, y: &mut [T]) {
    let mut rows = [[T::ZERO; W]; W];
    turn(Rows { data: columns.as_flattened(), from: 0, stride: W, rows: c, cols: W }, rows.as_flattened_mut(), W, W);
    for (r, row) in rows.iter().enumerate().take(y.len() / c) {
        // What a whole window writes beyond its row's end is written over by the next.
        match y[r * c..].first_chunk_mut() {
            Some(whole) => *whole = *row,
            None => y[r * c..][..c].copy_from_slice(&row[..c]),
        }
    }
}

/// Fills columns with what `f` makes of what they held, of each column and lane.
#[inline(always)]
pub(super) fn fill<T: Float>(columns: &mut [Lanes<T>], f: impl Fn(T, usize, usize) -> T) {
    for (j, column) in columns.iter_mut().enumerate() {
        for l in 0..W {
            column[l] = f(column[l], j, l);
        }
        lanes_only();
    }
}

/// The sums of `term` over so many columns.
#[inline(always)]
pub(super) fn sum<T: Float>(c: usize, term: impl Fn(usize, usize) -> T) -> Lanes<T> {
    let mut sums = [T::ZERO; W];
    for j in 0..c {
        for l in 0..W {
            sums[l] += term(j, l);
        }
        lanes_only();
    }
    sums
}

/// The largest numbers, 0 where that is infinite. NaNs are passed over.
#[inline(always)]
pub(super) fn peaks<T: Float>(columns: &[Lanes<T>]) -> Lanes<T> {
    let mut tops = [-T::INFINITY; W];
    for x in columns {
        for l in 0..W {
            tops[l] = if x[l] > tops[l] { x[l] } else { tops[l] };
        }
        lanes_only();
    }
    for top in &mut tops {
        *top = if top.is_finite() { *top } else { T::ZERO };
    }
    tops
}
