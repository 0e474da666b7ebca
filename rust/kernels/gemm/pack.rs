//! Copies parts of a matrix into panels, which a tile of the product reads from front to back.
//!
//! Invariant: element (i, p) of a panel of `N` rows is `panel[p * N + i]`; rows the matrix does not have are zeros.

use super::{Gemm, Matrix};
use crate::simd;
use std::ops::Range;

/// Columns that are turned at a time: a cache line of float32.
const LINE: usize = 16;

simd! {
    /// Copies `rows` (at most `N`) and `cols` of `x` into a panel.
    pub(super) fn pack<T: Gemm>[N](x: &Matrix<T>, rows: Range<usize>, cols: Range<usize>, panel: &mut [T]) {
        let (have, start) = (rows.len(), x.at(rows.start, cols.start));
        let (panel, _) = panel[..cols.len() * N].as_chunks_mut::<N>();
        if have < N {
            panel.fill([T::ZERO; N]);
        }
        match (x.row_stride, x.col_stride) {
            (1, step) if have == N => copy_columns(x.data, start, step as usize, panel),
            (step, 1) => turn_rows(x.data, start, step as usize, have, panel),
            _ => {
                for (p, column) in panel.iter_mut().enumerate() {
                    for i in 0..have {
                        column[i] = x.data[x.at(rows.start + i, cols.start + p)];
                    }
                }
            }
        }
    }
}

/// Columns that are contiguous, the first at `start`, the others `step` elements apart (wrapping round if that is negative).
#[inline(always)]
fn copy_columns<T: Gemm, const N: usize>(x: &[T], start: usize, step: usize, panel: &mut [[T; N]]) {
    let mut at = start;
    for column in panel {
        *column = *x[at..].first_chunk().expect("whole columns");
        at = at.wrapping_add(step);
    }
}

/// The same for `have` rows that are contiguous: turned in blocks of 4 by 4, a cache line of each row at a time.
#[inline(always)]
fn turn_rows<T: Gemm, const N: usize>(x: &[T], start: usize, step: usize, have: usize, panel: &mut [[T; N]]) {
    let (square, length) = (have / 4 * 4, panel.len() / 4 * 4);
    let row = |i: usize, p: usize| &x[i.wrapping_mul(step).wrapping_add(start + p)..];
    for line in (0..length).step_by(LINE) {
        for i in (0..square).step_by(4) {
            for p in (line..length.min(line + LINE)).step_by(4) {
                let four = |i: usize| row(i, p).first_chunk().expect("whole rows");
                let turned = T::turn([four(i), four(i + 1), four(i + 2), four(i + 3)]);
                for (q, turned) in turned.iter().enumerate() {
                    panel[p + q][i..i + 4].copy_from_slice(turned);
                }
            }
        }
    }
    for p in 0..panel.len() {
        for i in if p < length { square } else { 0 }..have {
            panel[p][i] = row(i, p)[0];
        }
    }
}
