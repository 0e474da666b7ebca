//! Products of rows by rows: every element is the inner product of two stretches of memory. That is a layer of few examples, whose
//! weights are read once, where they lie.
//!
//! Invariant: an inner product is summed in `L` lanes, and the lanes in one order, so that the size of tiles decides no bit.

use super::Matrix;
use super::direct::{Target, Tiles};
#[cfg(target_arch = "x86_64")]
use crate::array::DType;
use crate::kernels::simd::{Isa, lanes_only};

/// Columns of a tile.
pub const COLUMNS: usize = 4;

/// The sums of all lanes of each column.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // loops by index are unrolled
fn totals<T: Tiles, const L: usize, const Q: usize>(lanes: [[T; L]; COLUMNS]) -> [T; COLUMNS] {
    // Through memory, so that the compiler holds lanes in whole registers where they are summed.
    let lanes = std::hint::black_box(lanes);
    #[cfg(target_arch = "x86_64")]
    if T::DTYPE == DType::F32 {
        // SAFETY: the types are the same; tiles of float32 have 16 lanes.
        return unsafe { std::mem::transmute_copy(&totals_of_float32(&*lanes.as_ptr().cast())) };
    }
    let mut sums = [T::ZERO; COLUMNS];
    for c in 0..COLUMNS {
        let mut q = [T::ZERO; Q];
        for l in 0..Q {
            q[l] = lanes[c][l].plus(lanes[c][l + 2 * Q]).plus(lanes[c][l + Q].plus(lanes[c][l + 3 * Q]));
        }
        sums[c] = if Q == 2 { q[0].plus(q[1]) } else { q[0].plus(q[2]).plus(q[1].plus(q[Q - 1])) };
    }
    sums
}

/// The same, in the same order: the compiler would turn quarters one number at a time, which takes as long as 256 products.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[allow(clippy::needless_range_loop)] // loops by index are unrolled
fn totals_of_float32(lanes: &[[f32; 16]; COLUMNS]) -> [f32; COLUMNS] {
    use std::arch::x86_64::*;
    // SAFETY: there is SSE on every x86-64; each load reads four of a column's lanes; four lanes are four columns.
    unsafe {
        let mut quarters = [_mm_setzero_ps(); COLUMNS];
        for c in 0..COLUMNS {
            let from = lanes[c].as_ptr();
            let even = _mm_add_ps(_mm_loadu_ps(from), _mm_loadu_ps(from.add(8)));
            quarters[c] = _mm_add_ps(even, _mm_add_ps(_mm_loadu_ps(from.add(4)), _mm_loadu_ps(from.add(12))));
        }
        let [a, b, c, d] = quarters;
        let ab = _mm_add_ps(_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
        let cd = _mm_add_ps(_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
        std::mem::transmute(_mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab)))
    }
}

/// What `at` more elements of each of `R` rows and of the columns add to their sums.
///
/// # Safety
/// `L` elements must lie at each pointer plus `at`.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // loops by index are unrolled
unsafe fn step<I: Isa, T: Tiles, const R: usize, const L: usize>(
    sums: [[[T; L]; COLUMNS]; R],
    x: &[*const T; R],
    y: &[*const T; COLUMNS],
    at: usize,
) -> [[[T; L]; COLUMNS]; R] {
    let mut sums = sums;
    // SAFETY: the caller vouches for it.
    unsafe {
        for q in 0..COLUMNS {
            let y: &[T; L] = &*y[q].add(at).cast();
            for r in 0..R {
                let x: &[T; L] = &*x[r].add(at).cast();
                for l in 0..L {
                    sums[r][q][l] = x[l].mul_add_on::<I>(y[l], sums[r][q][l]);
                }
            }
        }
    }
    sums
}

/// The last elements of a row or column, fewer than `L`, and zeros.
///
/// # Safety
/// `count` elements must lie at `from`.
#[inline(always)]
unsafe fn padded<T: Tiles, const L: usize>(from: *const T, count: usize) -> [T; L] {
    let mut lanes = [T::ZERO; L];
    // SAFETY: the caller vouches for it; there are fewer than `L`.
    unsafe { from.copy_to_nonoverlapping(lanes.as_mut_ptr(), count) };
    lanes
}

/// A tile of `R` rows of a and [`COLUMNS`] columns of b, from row `i` and column `j` on. The last column stands for those that are not
/// there.
///
/// # Safety
/// As for [`product`]; those rows, and column `j`, must exist.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn tile<I: Isa, T: Tiles, const R: usize, const L: usize, const Q: usize>(c: Target<T>, a: &Matrix<T>, b: &Matrix<T>, i: usize, j: usize) {
    let whole = a.cols / L * L;
    let (mut x, mut y) = ([a.data.as_ptr(); R], [b.data.as_ptr(); COLUMNS]);
    let mut sums = [[[T::ZERO; L]; COLUMNS]; R];
    // SAFETY: rows of a and columns of b are `a.cols` elements side by side; the caller vouches for them and for `c`.
    unsafe {
        for r in 0..R {
            x[r] = x[r].add(a.at(i + r, 0));
        }
        for q in 0..COLUMNS {
            y[q] = y[q].add(b.at(0, (j + q).min(b.cols - 1)));
        }
        let mut p = 0;
        while p < whole {
            lanes_only();
            sums = step::<I, T, R, L>(sums, &x, &y, p);
            p += L;
        }
        if whole < a.cols {
            let (mut ends, mut ys) = ([[T::ZERO; L]; R], [[T::ZERO; L]; COLUMNS]);
            for r in 0..R {
                ends[r] = padded(x[r].add(whole), a.cols - whole);
                x[r] = ends[r].as_ptr();
            }
            for q in 0..COLUMNS {
                ys[q] = padded(y[q].add(whole), a.cols - whole);
                y[q] = ys[q].as_ptr();
            }
            sums = step::<I, T, R, L>(sums, &x, &y, 0);
        }
        for r in 0..R {
            let (to, sums) = (c.from(i + r, j), totals::<T, L, Q>(sums[r]));
            for q in 0..COLUMNS {
                if j + q < b.cols {
                    *to.start.add(q) = to.onto.map_or(sums[q], |onto| (*onto.start.add(q)).plus(sums[q]));
                }
            }
        }
    }
}

/// `c = a·b`, or onto what is said, in tiles of `R` rows. Columns of b stay in the cache while the rows go by.
///
/// # Safety
/// `c` must be valid for reads and writes at every element of its rows; `a` and `b` must have passed `check`; the elements of a row of
/// a, and those of a column of b, must lie side by side.
#[inline(always)]
pub unsafe fn product<I: Isa, T: Tiles, const R: usize, const L: usize, const Q: usize>(c: Target<T>, a: &Matrix<T>, b: &Matrix<T>) {
    for j in (0..b.cols).step_by(COLUMNS) {
        let mut i = 0;
        // SAFETY: rows and columns are counted; the caller vouches for the rest.
        unsafe {
            while i + R <= a.rows {
                tile::<I, T, R, L, Q>(c, a, b, i, j);
                i += R;
            }
            if R > 2 && i + 2 <= a.rows {
                tile::<I, T, 2, L, Q>(c, a, b, i, j);
                i += 2;
            }
            if i < a.rows {
                tile::<I, T, 1, L, Q>(c, a, b, i, j);
            }
        }
    }
}
