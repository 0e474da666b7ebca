//! Matrices turned over, y = xᵀ, by whole cache lines on both sides.

#![cfg_attr(not(target_arch = "x86_64"), allow(unused))]

use super::simd::{Level, level};
use crate::array::Element;

/// A matrix inside a slice: its first row begins at `from`, the others `stride` elements apart.
#[derive(Clone, Copy)]
pub struct Rows<'a, T> {
    pub data: &'a [T],
    pub from: usize,
    pub stride: usize,
    pub rows: usize,
    pub cols: usize,
}

/// Rows and columns of a block that is turned at once: a line of float32.
pub const BLOCK: usize = 16;
/// Bytes of elements that blocks of are turned in registers.
const SHUFFLED: usize = 4;
/// Rows and columns that compilers make shuffles of.
const QUAD: usize = 4;

/// Writes column `c` of `x` to `y[c * stride..][..x.rows]`. What is beyond it, up to `width`, may be written over with anything.
/// Panics if one reaches outside its slice, or columns overlap.
pub fn turn<T: Element>(x: Rows<T>, y: &mut [T], stride: usize, width: usize) {
    if x.rows == 0 || x.cols == 0 {
        return;
    }
    assert!(x.rows <= width && width <= stride, "columns overlap");
    let end = |from: usize, before: usize, stride: usize, len: usize| before.checked_mul(stride)?.checked_add(from)?.checked_add(len);
    assert!(end(x.from, x.rows - 1, x.stride, x.cols).is_some_and(|end| end <= x.data.len()), "matrix reaches outside its slice");
    assert!(end(0, x.cols - 1, stride, width).is_some_and(|end| end <= y.len()), "turned matrix reaches outside its slice");
    #[cfg(target_arch = "x86_64")]
    if size_of::<T>() == SHUFFLED && level() >= Level::Avx512 {
        return blocks(x, y, stride, width);
    }
    plain(x, y, stride);
}

/// Writes the columns of up to [`BLOCK`] rows, each to lanes of its own; those of rows that are not there hold anything.
#[inline(never)]
pub fn turn_few<T: Element>(x: Rows<T>, columns: &mut [[T; BLOCK]]) {
    if const { size_of::<T>() != SHUFFLED } {
        // So few are done one by one before blocks and quads of them would have been told apart.
        for r in 0..x.rows {
            for (column, &value) in columns.iter_mut().zip(&x.data[x.from + r * x.stride..][..x.cols]) {
                column[r] = value;
            }
        }
        return;
    }
    // Whole windows, where there are, are turned faster.
    let whole = x.cols.next_multiple_of(BLOCK);
    let fits = x.from + (x.rows - 1) * x.stride + whole <= x.data.len() && whole <= columns.len();
    turn(Rows { cols: if fits { whole } else { x.cols }, ..x }, columns.as_flattened_mut(), BLOCK, BLOCK);
}

/// Turns 4-byte elements, block by block. There must be AVX-512.
#[cfg(target_arch = "x86_64")]
fn blocks<T: Element>(x: Rows<T>, y: &mut [T], stride: usize, width: usize) {
    for (r, c) in (0..x.rows).step_by(BLOCK).flat_map(|r| (0..x.cols).step_by(BLOCK).map(move |c| (r, c))) {
        let (rows, cols) = (BLOCK.min(x.rows - r), BLOCK.min(x.cols - c));
        let (from, to) = (&x.data[x.from + r * x.stride + c..], &mut y[c * stride + r..]);
        let (from, to) = (from.as_ptr().cast(), to.as_mut_ptr().cast());
        // SAFETY: there is AVX-512; what is read lies inside `x`, what is written inside `y`, as `turn` saw; elements have 4 bytes.
        unsafe {
            // Rows up to a multiple of a block, if what is beyond the last may be written.
            if cols == BLOCK && r + BLOCK <= width {
                block::<true>(from, x.stride, [rows, cols], to, stride);
            } else {
                block::<false>(from, x.stride, [rows, cols], to, stride);
            }
        }
    }
}

/// A block of 4-byte elements, of which so many rows and columns are there; the last row stands for those that are not. Quarters of rows
/// that are four apart fill the lanes of a register, so that turning four by four inside the lanes leaves columns in order. `WHOLE` if
/// there are 16 columns, and 16 elements of each may be written; else masks leave out what is not there.
///
/// # Safety
/// The processor must have AVX-512; from one to 16 rows and columns must be there to be read from `x` on, and as many columns to be written
/// from `y` on.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl")]
#[allow(clippy::needless_range_loop)] // loops by index are unrolled
unsafe fn block<const WHOLE: bool>(x: *const f32, x_stride: usize, [rows, cols]: [usize; 2], y: *mut f32, y_stride: usize) {
    use std::arch::x86_64::*;
    let last = if WHOLE { BLOCK / QUAD } else { cols.div_ceil(QUAD) };
    let mut quarters = [[_mm512_setzero_ps(); QUAD]; BLOCK / QUAD];
    // SAFETY: the caller vouches for rows and columns; masks leave out what is not there.
    unsafe {
        for r in 0..QUAD {
            let row = |l: usize| x.add((QUAD * l + r).min(rows - 1) * x_stride);
            let four = [row(0), row(1), row(2), row(3)];
            for q in 0..last {
                let mask = if WHOLE { 0xf } else { 0xf >> (QUAD - QUAD.min(cols - QUAD * q)) };
                let at = |l: usize| {
                    let from = four[l].add(QUAD * q);
                    if WHOLE { _mm_loadu_ps(from) } else { _mm_maskz_loadu_ps(mask, from) }
                };
                let two = _mm512_insertf32x4::<1>(_mm512_castps128_ps512(at(0)), at(1));
                quarters[q][r] = _mm512_insertf32x4::<3>(_mm512_insertf32x4::<2>(two, at(2)), at(3));
            }
        }
        for q in 0..last {
            let [a, b, c, d] = quarters[q];
            let pairs = |x, y| (_mm512_castps_pd(_mm512_unpacklo_ps(x, y)), _mm512_castps_pd(_mm512_unpackhi_ps(x, y)));
            let ((ab, ab2), (cd, cd2)) = (pairs(a, b), pairs(c, d));
            let columns = [_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd), _mm512_unpacklo_pd(ab2, cd2), _mm512_unpackhi_pd(ab2, cd2)];
            for j in 0..QUAD {
                let (to, column) = (y.wrapping_add((QUAD * q + j) * y_stride), _mm512_castpd_ps(columns[j]));
                match WHOLE {
                    true => _mm512_storeu_ps(to, column),
                    false if QUAD * q + j < cols => _mm512_mask_storeu_ps(to, u16::MAX >> (BLOCK - rows), column),
                    false => return,
                }
            }
        }
    }
}

/// The same by any instructions, four by four.
fn plain<T: Element>(x: Rows<T>, y: &mut [T], stride: usize) {
    for band in (0..x.rows).step_by(BLOCK).map(|top| top..x.rows.min(top + BLOCK)) {
        for (c, r) in (0..x.cols).step_by(QUAD).flat_map(|c| band.clone().step_by(QUAD).map(move |r| (c, r))) {
            let row = |i: usize| &x.data[x.from + (r + i) * x.stride + c..];
            if r + QUAD <= band.end && c + QUAD <= x.cols {
                let quad: [[T; QUAD]; QUAD] = std::array::from_fn(|i| *row(i).first_chunk().expect("four columns"));
                for j in 0..QUAD {
                    y[(c + j) * stride + r..][..QUAD].copy_from_slice(&quad.map(|row| row[j]));
                }
                continue;
            }
            for i in 0..QUAD.min(band.end - r) {
                for (j, &value) in row(i)[..QUAD.min(x.cols - c)].iter().enumerate() {
                    y[(c + j) * stride + r + i] = value;
                }
            }
        }
    }
}
