//! Products of small and thin matrices without packing: tiles of the output stay in registers while the inner dimension goes by.
//!
//! Invariant: whether a product is computed here depends on its shape and strides alone, and every element is one chain of
//! multiply-adds in the order of the inner dimension. So neither threads nor the size of the tiles decide a bit.

use super::{Gemm, Matrix};
use crate::array::{Array, Dims};
use crate::kernels::simd::{Isa, Level, level};
use crate::simd;

/// Multiply-adds up to which packing costs more than it saves, if the columns fill the tiles.
const MOST: usize = 1 << 20;
/// Multiply-adds up to which it does even where the last tile is nearly empty.
const TINY: usize = 1 << 15;
/// Elements of an output up to which the packed product is a few inner products, which it does well.
const FEW: usize = 256;
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
enum Way {
    /// Rows of b are read where they lie.
    Rows,
    /// cᵀ = bᵀ·aᵀ, since aᵀ has rows that fill tiles.
    Transposed,
    /// Rows of b are copied, and made as wide as a tile.
    Copied,
}

fn way<T: Gemm>(a: &Matrix<T>, b: &Matrix<T>) -> Option<Way> {
    let (m, k, n, width) = (a.rows, a.cols, b.cols, T::NARROW);
    let work = m * k * n;
    if level() == Level::Baseline {
        return None;
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
    (work <= TINY || (work <= MOST && filled)).then_some(Way::Rows)
}

/// `c = a·b`, or `c += a·b`, if that is faster than packing; says whether it is done.
///
/// # Safety
/// `c` must be valid for reads and writes at every element of its rows; `a` and `b` must have passed `check`.
pub unsafe fn product<T: Gemm>(c: Target<T>, a: Matrix<T>, b: Matrix<T>) -> bool {
    let scratch = |size: usize| Dims::new(&[size]).and_then(|shape| Array::unfilled(T::DTYPE, shape));
    match way(&a, &b) {
        None => return false,
        Some(Way::Rows) => T::tiles(c, a, b),
        Some(Way::Copied) => {
            let width = b.cols.max(T::NARROW);
            let Ok(mut copy) = scratch(b.rows * width) else { return false };
            let copy = copy.fresh::<T>();
            for (p, row) in copy.chunks_exact_mut(width).enumerate() {
                row.fill(T::ZERO);
                row[..b.cols].iter_mut().enumerate().for_each(|(j, x)| *x = b.data[b.at(p, j)]);
            }
            T::tiles(c, a, Matrix { cols: b.cols, ..Matrix::row_major(copy, b.rows, width) });
        }
        Some(Way::Transposed) => {
            let (m, n) = (a.rows, b.cols);
            let Ok(mut turned) = scratch(m * n) else { return false };
            let turned = turned.fresh::<T>();
            T::tiles(Target { start: turned.as_mut_ptr(), stride: m as isize, accumulate: false }, b.transposed(), a.transposed());
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                // SAFETY: an element of the m rows and n columns that the caller vouches for.
                unsafe { c.put(c.start.offset(i as isize * c.stride + j as isize), turned[j * m + i]) }
            }
        }
    }
    true
}

impl<T: Gemm> Target<T> {
    /// # Safety
    /// `at` must be valid for reads and writes.
    #[inline(always)]
    unsafe fn put(&self, at: *mut T, x: T) {
        // SAFETY: the caller vouches for it.
        unsafe { *at = if self.accumulate { *at + x } else { x } }
    }
}

/// Columns of b that a tile is as wide as, and of those the ones it writes.
#[derive(Clone, Copy)]
struct Window {
    first: usize,
    from: usize,
    to: usize,
}

/// `R` rows of a, from row `i` on, times `W` columns of b.
///
/// # Safety
/// As for [`product`]; rows `i..i + R` must exist, and the window's `W` columns be there to be read in every row of b.
#[inline(always)]
unsafe fn tile<I: Isa, T: Gemm, const R: usize, const W: usize>(c: Target<T>, a: &Matrix<T>, b: &Matrix<T>, i: usize, window: Window) {
    let mut sums = [[T::ZERO; W]; R];
    // SAFETY: rows, columns and windows are those that the caller vouches for.
    unsafe {
        let (x, y) = (a.data.as_ptr().add(a.at(i, 0)), b.data.as_ptr().add(b.at(0, window.first)));
        for p in 0..a.cols as isize {
            let y: &[T; W] = &*y.offset(p * b.row_stride).cast();
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = *x.offset(r as isize * a.row_stride + p * a.col_stride);
                for (sum, &y) in sums.iter_mut().zip(y) {
                    *sum = x.mul_add_on::<I>(y, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let row = c.start.offset((i + r) as isize * c.stride).add(window.first);
            if window.to - window.from == W {
                (0..W).for_each(|j| c.put(row.add(j), sums[j]));
            } else {
                (window.from..window.to).for_each(|j| c.put(row.add(j), sums[j]));
            }
        }
    }
}

/// All rows of a times the columns of a window.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn panel<I: Isa, T: Gemm, const R: usize, const W: usize>(c: Target<T>, a: &Matrix<T>, b: &Matrix<T>, window: Window) {
    let mut i = 0;
    // SAFETY: rows are counted; the caller vouches for the rest.
    unsafe {
        while i + R <= a.rows {
            tile::<I, T, R, W>(c, a, b, i, window);
            i += R;
        }
        if R > 4 && i + 4 <= a.rows {
            tile::<I, T, 4, W>(c, a, b, i, window);
            i += 4;
        }
        if i + 2 <= a.rows {
            tile::<I, T, 2, W>(c, a, b, i, window);
            i += 2;
        }
        if i < a.rows {
            tile::<I, T, 1, W>(c, a, b, i, window);
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
            panel::<I, T, R, WIDE>(c, a, b, Window { first: at, from: 0, to: WIDE });
            at += WIDE;
        }
        while at < n {
            let first = at.min(n.max(NARROW) - NARROW);
            let to = n.min(first + NARROW);
            panel::<I, T, R, NARROW>(c, a, b, Window { first, from: at - first, to: to - first });
            at = to;
        }
    }
}

macro_rules! tiles_of {
    ($t:ident, $wide:literal, $narrow:literal) => {
        impl Tiles for $t {
            const NARROW: usize = $narrow;
            fn tiles(c: Target<$t>, a: Matrix<$t>, b: Matrix<$t>) {
                simd! {
                    fn run(c: Target<$t>, a: &Matrix<'_, $t>, b: &Matrix<'_, $t>) {
                        // SAFETY: `product` vouches for it.
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
    /// `c = a·b`, or `c += a·b`, as [`product`] has checked it.
    fn tiles(c: Target<Self>, a: Matrix<Self>, b: Matrix<Self>);
}
