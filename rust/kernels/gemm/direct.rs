//! Products of small and thin matrices without packing: tiles of the output stay in registers while the inner dimension goes by.
//!
//! Invariant: every element is one chain of multiply-adds in the order of the inner dimension of the call, added to c at the end, so that
//! the size of tiles decides no bit.

use super::{Matrix, dots, thin};
use crate::kernels::map::gather;
use crate::kernels::simd::{Isa, Level, Ring};
use crate::kernels::turn::{Rows, turn};
use crate::simd;

/// Rows that a product is added to, `stride` apart: those of the output itself, or one for all of them.
#[derive(Clone, Copy)]
pub struct Onto<T> {
    pub start: *const T,
    pub stride: isize,
}

/// Rows of an output that lie `stride` apart; each tile is written once.
#[derive(Clone, Copy)]
pub struct Target<T> {
    pub start: *mut T,
    pub stride: isize,
    pub onto: Option<Onto<T>>,
}

impl<T: Copy> Target<T> {
    /// A matrix at `start` to be overwritten.
    #[inline(always)]
    pub fn fresh(start: *mut T, stride: usize) -> Self {
        Target { start, stride: stride as isize, onto: None }
    }

    /// The same with products added to what is there.
    #[must_use]
    #[inline(always)]
    pub fn accumulating(self) -> Self {
        Target { onto: Some(Onto { start: self.start, stride: self.stride }), ..self }
    }

    /// The part that begins so many rows and columns further on.
    #[must_use]
    #[inline(always)]
    pub fn from(self, row: usize, col: usize) -> Self {
        let skip = |stride: isize| row as isize * stride + col as isize;
        let onto = self.onto.map(|onto| Onto { start: onto.start.wrapping_offset(skip(onto.stride)), ..onto });
        Target { start: self.start.wrapping_offset(skip(self.stride)), onto, ..self }
    }

    /// Writes the one row that the product is added to, if that is so, into each. Returns whether there is anything to be added to.
    ///
    /// # Safety
    /// That many rows and columns must be there to be read and written.
    #[inline(always)]
    pub unsafe fn prepared(self, rows: usize, cols: usize) -> bool {
        if let Some(Onto { start, stride: 0 }) = self.onto {
            // SAFETY: the caller vouches for it; a row that is added to all is none of them.
            (0..rows).for_each(|i| unsafe { self.start.offset(i as isize * self.stride).copy_from_nonoverlapping(start, cols) });
        }
        self.onto.is_some()
    }
}

/// `c = a·b`, or onto what is said, reading rows of b where they lie.
///
/// # Safety
/// `c` must be valid for reads and writes at every element of its rows; `a` and `b` must have passed `check`; columns of b must lie
/// side by side, if there are several.
pub unsafe fn rows<T: Tiles>(c: Target<T>, a: Matrix<T>, b: Matrix<T>) {
    // SAFETY: the caller vouches for it.
    unsafe { T::tiles(c, a, b, b.cols) }
}

/// The same by a copy of b with rows of `width` elements, for which there must be room.
///
/// # Safety
/// `c` must be valid for reads and writes at every element of its rows; `a` and `b` must have passed `check`.
pub unsafe fn copied<T: Tiles>(c: Target<T>, a: Matrix<T>, b: Matrix<T>, width: usize, scratch: &mut [T]) {
    let copy = &mut scratch[..b.rows * width];
    if width > b.cols {
        copy.fill(T::ZERO);
    }
    if b.row_stride == 1 && b.col_stride > 0 {
        turn(Rows { data: b.data, from: b.offset, stride: b.col_stride as usize, rows: b.cols, cols: b.rows }, copy, width, b.cols);
    } else {
        for (p, row) in copy.chunks_exact_mut(width).enumerate() {
            gather(b.data, b.at(p, 0), b.col_stride, &mut row[..b.cols]);
        }
    }
    // SAFETY: the copy's rows are `width` elements; the caller vouches for the rest.
    unsafe { T::tiles(c, a, Matrix { cols: b.cols, ..Matrix::row_major(copy, b.rows, width) }, width) }
}

/// The same as cᵀ = bᵀ·aᵀ, turned over at the end; there must be room for it, unless there is a single row, which is a column as it lies.
///
/// # Safety
/// `c` must be valid for reads and writes at every element of its rows; `a` and `b` must have passed `check`; the elements of a's
/// columns must lie side by side, if there are several rows.
pub unsafe fn transposed<T: Tiles>(c: Target<T>, a: Matrix<T>, b: Matrix<T>, scratch: &mut [T]) {
    let (m, n) = (a.rows, b.cols);
    if m == 1 {
        let column = Target { start: c.start, stride: 1, onto: c.onto.map(|onto| Onto { stride: 1, ..onto }) };
        // SAFETY: the caller vouches for it.
        return unsafe { T::tiles(column, b.transposed(), a.transposed(), 1) };
    }
    let turned = &mut scratch[..m * n];
    // SAFETY: the target is a whole row-major (n, m) matrix; the caller vouches for the rest.
    unsafe { T::tiles(Target::fresh(turned.as_mut_ptr(), m), b.transposed(), a.transposed(), m) }
    for i in 0..m {
        for (j, column) in turned.chunks_exact(m).enumerate() {
            let to = c.from(i, j);
            // SAFETY: an element of the rows that the caller vouches for.
            unsafe { *to.start = to.onto.map_or(column[i], |onto| (*onto.start).plus(column[i])) };
        }
    }
}

/// The same by inner products; where columns of b do not lie in one piece each, by a copy of b, for which there must be room.
///
/// # Safety
/// `c` must be valid for reads and writes at every element of its rows; `a` and `b` must have passed `check`; the elements of a row of a
/// must lie side by side, and those of a column of b, or of a row.
pub unsafe fn by_dots<T: Tiles>(c: Target<T>, a: Matrix<T>, b: Matrix<T>, scratch: &mut [T]) {
    if b.cols == 1 && b.row_stride == 1 && c.stride == 1 {
        // A column is a row of the transpose, of which a tile takes several columns.
        // SAFETY: the caller vouches for it; the elements of `c` lie side by side.
        unsafe {
            let c = if c.prepared(a.rows, 1) { c.accumulating() } else { c };
            return T::dots(Target { stride: a.rows as isize, ..c }, b.transposed(), a.transposed());
        }
    }
    if b.row_stride == 1 {
        // SAFETY: the caller vouches for it.
        return unsafe { T::dots(c, a, b) };
    }
    let (k, n) = (b.rows, b.cols);
    turn(Rows { data: b.data, from: b.offset, stride: b.row_stride as usize, rows: k, cols: n }, &mut scratch[..k * n], k, k);
    // SAFETY: the copy's columns are `k` elements each; the caller vouches for the rest.
    unsafe { T::dots(c, a, Matrix::row_major(&scratch[..k * n], n, k).transposed()) }
}

/// Columns of b that a tile is as wide as, and of those the ones it writes.
#[derive(Clone, Copy)]
struct Window {
    first: usize,
    from: usize,
    to: usize,
}

/// `R` rows of a, from row `i` on, times `W` columns of b, from column `j` on. The sums are returned, so that no index that is not
/// known at compile time keeps them out of registers.
///
/// # Safety
/// Those rows and columns must be there to be read.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // loops by index are unrolled
unsafe fn sums<I: Isa, T: Tiles, const R: usize, const W: usize>(a: &Matrix<T>, b: &Matrix<T>, i: usize, j: usize) -> [[T; W]; R] {
    let mut sums = [[T::ZERO; W]; R];
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
/// As for [`rows`]; rows `i..i + R` must exist, and the window's `W` columns be there to be read in every row of b.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn tile<I: Isa, T: Tiles, const R: usize, const W: usize, const WHOLE: bool>(c: Target<T>, a: &Matrix<T>, b: &Matrix<T>, i: usize, window: Window) {
    let row = |r: usize| c.start.wrapping_offset((i + r) as isize * c.stride).wrapping_add(window.first);
    let (from, to) = (window.from, window.to);
    // SAFETY: the caller vouches for rows and columns.
    unsafe {
        let mut sums = sums::<I, T, R, W>(a, b, i, window.first);
        if let Some(onto) = c.from(i, window.first).onto {
            for r in 0..R {
                let (mut before, start) = ([T::ZERO; W], onto.start.offset(r as isize * onto.stride));
                if WHOLE {
                    before = *start.cast();
                } else {
                    copy_few(start.add(from), before[from..].as_mut_ptr(), to - from);
                }
                for j in 0..W {
                    sums[r][j] = before[j].plus(sums[r][j]);
                }
            }
        }
        for r in 0..R {
            if WHOLE {
                *row(r).cast() = sums[r];
            } else {
                copy_few(sums[r][from..].as_ptr(), row(r).add(from), to - from);
            }
        }
    }
}

/// Copies up to 16 elements, by two moves whose sizes are known: a call costs more than it copies.
///
/// # Safety
/// That many must be there at `from` and at `to`, and not overlap.
#[inline(always)]
unsafe fn copy_few<T: Copy>(from: *const T, to: *mut T, n: usize) {
    // SAFETY: both moves lie inside the `n` elements that the caller vouches for.
    unsafe {
        macro_rules! twice {
            ($w:literal) => {{
                let (first, last): ([T; $w], [T; $w]) = (*from.cast(), *from.add(n - $w).cast());
                *to.cast() = first;
                *to.add(n - $w).cast() = last;
            }};
        }
        match n {
            8.. => twice!(8),
            4.. => twice!(4),
            2.. => twice!(2),
            1 => *to = *from,
            0 => {}
        }
    }
}

/// All rows of a times the columns of a window.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn panel<I: Isa, T: Tiles, const R: usize, const W: usize, const WHOLE: bool>(c: Target<T>, a: &Matrix<T>, b: &Matrix<T>, window: Window) {
    let mut i = 0;
    // SAFETY: rows are counted; the caller vouches for the rest.
    unsafe {
        // Ten are six and four: two alone would wait for their own sums.
        while i + R <= a.rows && (R <= 6 || a.rows - i != 10) {
            tile::<I, T, R, W, WHOLE>(c, a, b, i, window);
            i += R;
        }
        if R > 6 && i + 6 <= a.rows {
            tile::<I, T, 6, W, WHOLE>(c, a, b, i, window);
            i += 6;
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

/// Whole windows from column `at` on; returns where they end.
///
/// # Safety
/// As for [`rows`].
#[inline(always)]
unsafe fn windows<I: Isa, T: Tiles, const R: usize, const W: usize>(c: Target<T>, a: &Matrix<T>, b: &Matrix<T>, mut at: usize) -> usize {
    while at + W <= b.cols {
        // SAFETY: the window ends before the last column; the caller vouches for the rest.
        unsafe { panel::<I, T, R, W, true>(c, a, b, Window { first: at, from: 0, to: W }) };
        at += W;
    }
    at
}

/// All of the product: wide windows, then narrow ones, the last of which ends where b does and writes what is new, or is masked; where no
/// narrow one can be read, parts of registers. Up to three rows need wider ones, `MOST` or `MORE`, to have enough sums that do not wait
/// for each other.
///
/// # Safety
/// As for [`rows`]; `readable` columns must be there to be read in every row of b, at least those that it has.
#[inline(always)]
unsafe fn tiles<I: Isa, T: Tiles, const R: usize, const WIDE: usize, const NARROW: usize, const MORE: usize, const MOST: usize>(
    c: Target<T>,
    a: &Matrix<T>,
    b: &Matrix<T>,
    readable: usize,
) {
    let n = b.cols;
    // SAFETY: windows end at column n, or at NARROW where that many can be read; the caller vouches for the rest.
    unsafe {
        if readable < NARROW && I::LEVEL != Level::Avx512 {
            let at = windows::<I, T, R, 4>(c, a, b, windows::<I, T, R, 8>(c, a, b, 0));
            windows::<I, T, R, 1>(c, a, b, windows::<I, T, R, 2>(c, a, b, at));
            return;
        }
        let mut at = match a.rows {
            1 => windows::<I, T, 1, MORE>(c, a, b, windows::<I, T, 1, MOST>(c, a, b, 0)),
            2 => windows::<I, T, 2, MORE>(c, a, b, 0),
            3 => windows::<I, T, 3, MORE>(c, a, b, 0),
            _ => 0,
        };
        if WIDE > NARROW {
            at = windows::<I, T, R, WIDE>(c, a, b, at);
        }
        at = windows::<I, T, R, NARROW>(c, a, b, at);
        #[cfg(target_arch = "x86_64")]
        if I::LEVEL == Level::Avx512 {
            if at < n {
                thin::product(&c, a, b, at);
            }
            return;
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
            unsafe fn tiles(c: Target<$t>, a: Matrix<$t>, b: Matrix<$t>, readable: usize) {
                simd! {
                    fn run(c: Target<$t>, a: &Matrix<'_, $t>, b: &Matrix<'_, $t>, readable: usize) {
                        // SAFETY: nobody else can call `run`, and whoever called `tiles` vouches for it.
                        unsafe {
                            if I::REGISTERS >= 32 {
                                tiles::<I, $t, 8, $wide, $narrow, { 4 * $narrow }, { 8 * $narrow }>(c, a, b, readable);
                            } else {
                                tiles::<I, $t, 6, $narrow, $narrow, { 2 * $narrow }, { 4 * $narrow }>(c, a, b, readable);
                            }
                        }
                    }
                }
                run(c, &a, &b, readable);
            }
            // SAFETY: what the trait asks for.
            unsafe fn dots(c: Target<$t>, a: Matrix<$t>, b: Matrix<$t>) {
                simd! {
                    fn run(c: Target<$t>, a: &Matrix<'_, $t>, b: &Matrix<'_, $t>) {
                        // SAFETY: nobody else can call `run`, and whoever called `dots` vouches for it.
                        unsafe {
                            if I::REGISTERS >= 32 {
                                dots::product::<I, $t, 4, $narrow, { $narrow / 4 }>(c, a, b);
                            } else {
                                dots::product::<I, $t, 1, $narrow, { $narrow / 4 }>(c, a, b);
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
tiles_of!(i64, 16, 8);

/// What is multiplied directly: a narrow tile is as wide as one AVX-512 register.
pub trait Tiles: Ring + thin::Lanes {
    /// Elements of the narrow tile.
    const NARROW: usize;
    /// `c = a·b`, or onto what is said.
    ///
    /// # Safety
    /// As for [`tiles`].
    unsafe fn tiles(c: Target<Self>, a: Matrix<Self>, b: Matrix<Self>, readable: usize);
    /// The same by inner products.
    ///
    /// # Safety
    /// As for [`dots::product`].
    unsafe fn dots(c: Target<Self>, a: Matrix<Self>, b: Matrix<Self>);
}
