//! Products of float32 by a matrix that lies transposed, as a layer's weight does, where there is AVX-512: b is packed panel by panel,
//! turned on the way, and a is read where it lies.
//!
//! Invariant: every element is one chain of multiply-adds over the inner dimension of the call, added to c at the end.

use super::Matrix;
use super::direct::Target;
use crate::array::{Array, DType, Dims};
use crate::kernels::turn::{Rows, turn};
use std::arch::x86_64::*;

/// Columns of a panel: two registers.
const WIDE: usize = 32;
/// Columns of one register.
const LANES: usize = 16;
/// Rows of a tile. With two registers for each, and those of b, they fill the register file.
const TALL: usize = 12;
/// Rows of the tiles that are left when those do not fit.
const FEW: usize = 4;
/// Steps along the inner dimension between two looks at where it ends.
const UNROLLED: usize = 4;

/// `c = a·b`, or `c += a·b`; false, and nothing done, if there is no memory for a panel.
///
/// # Safety
/// The processor must have AVX-512. Rows of a, and columns of b, must lie in one piece each, columns of b one after another; `c` must
/// be valid for reads and writes at every element of its rows; `a` and `b` must have passed `check`.
pub unsafe fn product(c: Target<f32>, a: Matrix<f32>, b: Matrix<f32>) -> bool {
    let (k, n) = (a.cols, b.cols);
    let panel = Dims::new(&[WIDE * k]).and_then(|shape| Array::unfilled(DType::F32, shape));
    let Ok(mut panel) = panel else { return false };
    let panel = panel.fresh::<f32>();
    for left in (0..n).step_by(WIDE) {
        let cols = WIDE.min(n - left);
        let width = cols.next_multiple_of(LANES);
        turn(Rows { data: b.data, from: b.at(0, left), stride: b.col_stride as usize, rows: cols, cols: k }, panel, width, width);
        let c = Target { start: c.start.wrapping_add(left), ..c };
        // SAFETY: the panel's columns are part of `c`; the caller vouches for the rest.
        unsafe {
            match width {
                LANES => band::<1>(c, &a, panel, cols),
                _ => band::<2>(c, &a, panel, cols),
            }
        }
    }
    true
}

/// All rows of a times a panel of `V` registers, of which `cols` columns are there.
///
/// # Safety
/// As for [`product`].
#[target_feature(enable = "avx512f")]
unsafe fn band<const V: usize>(c: Target<f32>, a: &Matrix<f32>, panel: &[f32], cols: usize) {
    let mut i = 0;
    // SAFETY: rows are counted; the caller vouches for the rest.
    unsafe {
        while i + TALL <= a.rows {
            tile::<TALL, V>(c, a, i, panel, cols);
            i += TALL;
        }
        while i + FEW <= a.rows {
            tile::<FEW, V>(c, a, i, panel, cols);
            i += FEW;
        }
        while i < a.rows {
            tile::<1, V>(c, a, i, panel, cols);
            i += 1;
        }
    }
}

/// `R` rows of a, from row `i` on, times a panel.
///
/// # Safety
/// As for [`product`]; the rows must exist, and the panel have `V` registers for each column of a.
#[inline]
#[target_feature(enable = "avx512f")]
#[allow(clippy::needless_range_loop)] // loops by index are unrolled
unsafe fn tile<const R: usize, const V: usize>(c: Target<f32>, a: &Matrix<f32>, i: usize, panel: &[f32], cols: usize) {
    let row = |r: usize| c.start.wrapping_offset((i + r) as isize * c.stride);
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    // SAFETY: the caller vouches for rows and columns; masks leave out what is beyond `cols`, a prefetch reads nothing.
    unsafe {
        for r in 0..R {
            for v in 0..V {
                _mm_prefetch::<_MM_HINT_T0>(row(r).wrapping_add(v * LANES).cast());
            }
        }
        let (mut x, mut y) = (a.data.as_ptr().add(a.at(i, 0)), panel.as_ptr());
        let mut step = |x: *const f32, y: *const f32, p: usize| {
            let mut b = [_mm512_setzero_ps(); V];
            for v in 0..V {
                b[v] = _mm512_loadu_ps(y.add((p * V + v) * LANES));
            }
            for r in 0..R {
                let x = _mm512_set1_ps(*x.offset(r as isize * a.row_stride).add(p));
                for v in 0..V {
                    sums[r][v] = _mm512_fmadd_ps(x, b[v], sums[r][v]);
                }
            }
        };
        for _ in 0..a.cols / UNROLLED {
            (0..UNROLLED).for_each(|p| step(x, y, p));
            (x, y) = (x.add(UNROLLED), y.add(UNROLLED * V * LANES));
        }
        for _ in 0..a.cols % UNROLLED {
            step(x, y, 0);
            (x, y) = (x.add(1), y.add(V * LANES));
        }
        for v in 0..V {
            let mask = u16::MAX >> (LANES - LANES.min(cols - v * LANES));
            for r in 0..R {
                let to = row(r).add(v * LANES);
                let sum = if c.accumulate { _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), sums[r][v]) } else { sums[r][v] };
                _mm512_mask_storeu_ps(to, mask, sum);
            }
        }
    }
}
