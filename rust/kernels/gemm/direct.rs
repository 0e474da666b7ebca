//! Products of small and thin matrices without packing: tiles of the output stay in registers while the inner dimension goes by.
//!
//! Invariant: whether a product is computed here depends on the shape and strides of the whole alone, and every element is one
//! chain of multiply-adds in the order of the inner dimension. So neither threads nor the size of the tiles decide a bit.

use super::{Gemm, Matrix, SHARED};
use crate::array::{Array, Dims};
use crate::kernels::simd::{Isa, Level, level};
use crate::simd;

/// Multiply-adds up to which packing costs more than it saves, if the columns fill the tiles: of few rows, and of many.
const MOST_OF_FEW_ROWS: usize = 1 << 20;
const MOST: usize = 1 << 18;
/// Multiply-adds up to which it does even where the last tile is nearly empty.
const TINY: usize = 1 << 15;
/// Elements of an output up to which the packed product is a few inner products, which it does well.
const FEW: usize = 256;
/// Rows and inner dimension from which on a b that lies transposed is packed into panels, if one thread computes the product: that
/// the memory of panels is there does then not depend on which thread got which part before.
const PANELS: usize = 12;
/// Longest inner dimension of an output that is worth a copy of b that lies transposed.
const SHORT: usize = 4;

/// Rows of an output that lie `stride` apart; each tile is written once.
#[derive(Clone, Copy)]
pub struct Target<T> {
    pub start: *mut T,
    pub stride: isize,
    pub accumulate: bool,
}

/// How a product is best computed here.
#[derive(Clone, Copy)]
pub enum Way {
    /// Rows of b are read where they lie.
    Rows,
    /// cᵀ = bᵀ·aᵀ, since aᵀ has rows that fill tiles.
    Transposed,
    /// Rows of b are copied, and made as wide as a tile.
    Copied,
    /// Columns of b, which lie in one piece each, are packed into panels.
    Panels,
}

/// How a product is computed here, if that is faster than packing.
pub fn way<T: Gemm>(a: &Matrix<T>, b: &Matrix<T>) -> Option<Way> {
    let (m, k, n, width) = (a.rows, a.cols, b.cols, T::NARROW);
    let work = m.saturating_mul(k).saturating_mul(n);
    if level() == Level::Baseline {
        return None;
    }
    let lie = a.col_stride == 1 && b.row_stride == 1 && b.col_stride > 1;
    if lie && T::has_panels() && m.min(k) >= PANELS && n > 1 && m * n > FEW && work < SHARED {
        return Some(Way::Panels);
    }
    if n < width {
        return match () {
            _ if n == 1 => None,
            _ if a.row_stride == 1 && m >= width => Some(Way::Transposed),
            _ if m * n > FEW => Some(Way::Copied),
            _ => None,
        };
    }
    if b.col_stride != 1 {
        return (k <= SHORT && m >= 4 * width).then_some(Way::Copied);
    }
    let filled = n.next_multiple_of(width) * 8 <= n * 9;
    let most = if m <= width { MOST_OF_FEW_ROWS } else { MOST };
    (work <= TINY || (filled && work <= most)).then_some(Way::Rows)
}

/// `c = a·b`, or `c += a·b`; false, and nothing done, if there is no memory for a copy.
///
/// # Safety
/// `c` must be valid for reads and writes at every element of its rows; `a` and `b` must have passed `check`, and be parts, at
/// least as wide as a tile where the whole is, of what `way` was chosen for.
pub unsafe fn product<T: Gemm>(c: Target<T>, a: Matrix<T>, b: Matrix<T>, way: Way) -> bool {
    let scratch = |size: usize| Dims::new(&[size]).and_then(|shape| Array::unfilled(T::DTYPE, shape));
    match way {
        // SAFETY: rows of b are at least as wide as a tile, and their columns lie side by side; the caller vouches for the rest.
        Way::Rows => unsafe { T::tiles(c, a, b) },
        // SAFETY: `way` saw how a and b lie, and that there are panels; the caller vouches for the rest.
        Way::Panels => return unsafe { T::panels(c, a, b) },
        Way::Copied => {
            let width = b.cols.max(T::NARROW);
            let Ok(mut copy) = scratch(b.rows * width) else { return false };
            let copy = copy.fresh::<T>();
            for (p, row) in copy.chunks_exact_mut(width).enumerate() {
                row.fill(T::ZERO);
                row[..b.cols].iter_mut().enumerate().for_each(|(j, x)| *x = b.data[b.at(p, j)]);
            }
            // SAFETY: the copy's rows are as wide as a tile at least; the caller vouches for the rest.
            unsafe { T::tiles(c, a, Matrix { cols: b.cols, ..Matrix::row_major(copy, b.rows, width) }) }
        }
        Way::Transposed => {
            let (m, n) = (a.rows, b.cols);
            let Ok(mut turned) = scratch(m * n) else { return false };
            let turned = turned.fresh::<T>();
            let out = Target { start: turned.as_mut_ptr(), stride: m as isize, accumulate: false };
            // SAFETY: `out` is a whole row-major (n, m) matrix; rows of aᵀ are as wide as a tile at least, side by side.
            unsafe { T::tiles(out, b.transposed(), a.transposed()) }
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                // SAFETY: an element of the m rows and n columns that the caller vouches for.
                let at = unsafe { &mut *c.start.offset(i as isize * c.stride + j as isize) };
                *at = if c.accumulate { *at + turned[j * m + i] } else { turned[j * m + i] };
            }
        }
    }
    true
}

/// Columns of b that a tile is as wide as, and of those the ones it writes.
#[derive(Clone, Copy)]
struct Window {
    first: usize,
    from: usize,
    to: usize,
}

/// `start` plus `R` rows of a, from row `i` on, times `W` columns of b, from column `j` on. The sums are returned, so that no
/// index that is not known at compile time keeps them out of registers.
///
/// # Safety
/// Those rows and columns must be there to be read.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // loops by index are unrolled
unsafe fn sums<I: Isa, T: Gemm, const R: usize, const W: usize>(start: [[T; W]; R], a: &Matrix<T>, b: &Matrix<T>, i: usize, j: usize) -> [[T; W]; R] {
    let mut sums = start;
    let (rows, cols, step) = (a.row_stride, a.col_stride, b.row_stride);
    // SAFETY: the caller vouches for rows and columns.
    unsafe {
        let (x, y) = (a.data.as_ptr().add(a.at(i, 0)), b.data.as_ptr().add(b.at(0, j)));
        for p in 0..a.cols as isize {
            let y: &[T; W] = &*y.offset(p * step).cast();
            for r in 0..R {
                let x = *x.offset(r as isize * rows + p * cols);
                for j in 0..W {
                    sums[r][j] = x.mul_add_on::<I>(y[j], sums[r][j]);
                }
            }
        }
    }
    sums
}

/// A tile of `R` rows, from row `i` on; `WHOLE` if the window is written whole.
///
/// # Safety
/// As for [`product`]; rows `i..i + R` must exist, and the window's `W` columns be there to be read in every row of b.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn tile<I: Isa, T: Gemm, const R: usize, const W: usize, const WHOLE: bool>(c: Target<T>, a: &Matrix<T>, b: &Matrix<T>, i: usize, window: Window) {
    let row = |r: usize| c.start.wrapping_offset((i + r) as isize * c.stride).wrapping_add(window.first);
    let (from, to) = (window.from, window.to);
    let mut start = [[T::ZERO; W]; R];
    // SAFETY: the caller vouches for rows and columns.
    unsafe {
        if c.accumulate {
            for r in 0..R {
                if WHOLE {
                    start[r] = *row(r).cast();
                } else {
                    row(r).add(from).copy_to_nonoverlapping(start[r][from..].as_mut_ptr(), to - from);
                }
            }
        }
        let sums = sums::<I, T, R, W>(start, a, b, i, window.first);
        for r in 0..R {
            if WHOLE {
                *row(r).cast() = sums[r];
            } else {
                row(r).add(from).copy_from_nonoverlapping(sums[r][from..].as_ptr(), to - from);
            }
        }
    }
}

/// All rows of a times the columns of a window.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn panel<I: Isa, T: Gemm, const R: usize, const W: usize, const WHOLE: bool>(c: Target<T>, a: &Matrix<T>, b: &Matrix<T>, window: Window) {
    let mut i = 0;
    // SAFETY: rows are counted; the caller vouches for the rest.
    unsafe {
        while i + R <= a.rows {
            tile::<I, T, R, W, WHOLE>(c, a, b, i, window);
            i += R;
        }
        if R > 4 && i + 4 <= a.rows {
            tile::<I, T, 4, W, WHOLE>(c, a, b, i, window);
            i += 4;
        }
        if i + 2 <= a.rows {
            tile::<I, T, 2, W, WHOLE>(c, a, b, i, window);
            i += 2;
        }
        if i < a.rows {
            tile::<I, T, 1, W, WHOLE>(c, a, b, i, window);
        }
    }
}

/// All of the product: wide windows, then narrow ones, the last of which ends where b does and writes what is new.
///
/// # Safety
/// As for [`product`]; at least `NARROW` columns must be there to be read in every row of b, whose columns lie side by side.
#[inline(always)]
unsafe fn tiles<I: Isa, T: Gemm, const R: usize, const WIDE: usize, const NARROW: usize>(c: Target<T>, a: &Matrix<T>, b: &Matrix<T>) {
    let n = b.cols;
    let mut at = 0;
    // SAFETY: windows end at column n, or at NARROW where there are fewer; the caller vouches for the rest.
    unsafe {
        while WIDE > NARROW && at + WIDE <= n {
            panel::<I, T, R, WIDE, true>(c, a, b, Window { first: at, from: 0, to: WIDE });
            at += WIDE;
        }
        while at + NARROW <= n {
            panel::<I, T, R, NARROW, true>(c, a, b, Window { first: at, from: 0, to: NARROW });
            at += NARROW;
        }
        if at < n {
            let first = n.max(NARROW) - NARROW;
            panel::<I, T, R, NARROW, false>(c, a, b, Window { first, from: at - first, to: n - first });
        }
    }
}

macro_rules! tiles_of {
    ($t:ident, $wide:literal, $narrow:literal) => {
        impl Tiles for $t {
            const NARROW: usize = $narrow;
            // SAFETY: what the trait asks for.
            unsafe fn tiles(c: Target<$t>, a: Matrix<$t>, b: Matrix<$t>) {
                simd! {
                    fn run(c: Target<$t>, a: &Matrix<'_, $t>, b: &Matrix<'_, $t>) {
                        // SAFETY: nobody else can call `run`, and whoever called `tiles` vouches for it.
                        unsafe {
                            if I::REGISTERS >= 32 {
                                tiles::<I, $t, 8, $wide, $narrow>(c, a, b);
                            } else {
                                tiles::<I, $t, 4, $narrow, $narrow>(c, a, b);
                            }
                        }
                    }
                }
                run(c, &a, &b);
            }
        }
    };
}
tiles_of!(f32, 32, 16);
tiles_of!(f64, 16, 8);

/// float32 and float64: a narrow tile is as wide as one AVX-512 register.
pub trait Tiles: Sized {
    /// Elements of the narrow tile.
    const NARROW: usize;
    /// `c = a·b`, or `c += a·b`.
    ///
    /// # Safety
    /// As for [`tiles`].
    unsafe fn tiles(c: Target<Self>, a: Matrix<Self>, b: Matrix<Self>);
}
