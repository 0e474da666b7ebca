//! Products of float32 by packed panels, where there is AVX-512: columns of b are packed, by the first rows of a that need them where
//! they can, and a is read where it lies. Columns are taken as many at a time as the second-level cache holds, and rows so that every
//! panel reads their part of a from there.
//!
//! Invariant: every element is one chain of multiply-adds over the inner dimension of the call, added to c at the end.

#![cfg_attr(not(target_arch = "x86_64"), allow(unused))]

use super::Matrix;
use super::direct::Target;
use super::plan::CLOSE;
use crate::kernels::turn::{Rows, turn};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Columns of one register.
const LANES: usize = 16;
/// Registers that a row of the widest panel fills. The wider, the fewer loads for each multiply-add; and the more loads, the lower
/// a processor's clock.
const WIDEST: usize = 3;
/// Most rows of a tile.
pub const TALL: usize = 12;
/// Rows of the tiles that are left when those do not fit.
const FEW: usize = 4;
/// Steps along the inner dimension between two looks at where it ends.
const UNROLLED: usize = 4;
/// Columns of b that are packed at once: one megabyte of the longest.
const COLUMNS: usize = 512;
/// Rows of a that meet every panel before the next rows do: whole tiles of every width.
const ROWS: usize = 96;
/// Columns of an `a` that lies transposed are copied from this distance on, at which they meet in the same few sets of the first-level
/// cache; from the second on if b has no more than [`FEW_COLUMNS`], which hardly pay for a copy.
const FAR: isize = 256;
const FAR_FOR_FEW: isize = 4096;
const FEW_COLUMNS: usize = 128;
/// Rows that a pointer of a tile serves: one for every row would not fit the registers.
const SERVED: usize = 3;

/// Registers that a row of the next panel fills, if so many columns are left: never a single one after others.
fn registers(columns: usize) -> usize {
    match columns.div_ceil(LANES) {
        4 => 2,
        all => all.min(WIDEST),
    }
}

/// Where panels of so many columns begin, and their registers.
fn panels(columns: usize) -> impl Iterator<Item = (usize, usize)> {
    std::iter::successors(Some((0, registers(columns))), move |&(at, wide)| {
        let at = at + wide * LANES;
        (at < columns).then(|| (at, registers(columns - at)))
    })
}

/// Rows of a tile that is so many registers wide: with their sums, and a row of b, it fills the register file.
const fn tall(registers: usize) -> usize {
    if registers == WIDEST { 8 } else { TALL }
}

/// How the operands of a call are packed.
struct Packing {
    /// Whether a, which then lies transposed, is copied, [`ROWS`] at a time.
    copied: bool,
    /// Whether rows of b are packed before the first tile needs them.
    ahead: bool,
    /// Columns whose panels are kept for the next rows.
    kept: usize,
}

impl Packing {
    fn of<T>(a: &Matrix<T>, b: &Matrix<T>, depth: usize, (rows, cols): (usize, usize)) -> Packing {
        let far = if cols <= FEW_COLUMNS { FAR_FOR_FEW } else { FAR };
        let copied = !(0..far).contains(&a.col_stride);
        let ahead = b.row_stride != 1 && depth * b.row_stride.unsigned_abs() > CLOSE;
        Packing { copied, ahead, kept: if rows > ROWS || ahead { cols.min(COLUMNS) } else { WIDEST * LANES } }
    }
}

/// Elements that [`product`] works in, for at most so many rows and columns and an inner dimension of `depth`.
pub fn scratch<T>(a: &Matrix<T>, b: &Matrix<T>, depth: usize, output: (usize, usize)) -> usize {
    let packing = Packing::of(a, b, depth, output);
    depth * (packing.kept.next_multiple_of(LANES) + if packing.copied { ROWS } else { 0 })
}

/// `c = a·b`, or onto what is said. Panics if there are fewer rows than [`TALL`] and b does not lie transposed.
///
/// # Safety
/// The processor must have AVX-512. Either rows or columns of a must lie in one piece each, and rows of b, or else columns, one after
/// another; `c` must be valid for reads and writes at every element of its rows; `a` and `b` must have passed `check`.
#[cfg(target_arch = "x86_64")]
pub unsafe fn product(c: Target<f32>, a: Matrix<f32>, b: Matrix<f32>, scratch: &mut [f32]) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert!(m >= TALL || b.row_stride == 1, "panels are packed by whole tiles");
    let Packing { copied, ahead, kept } = Packing::of(&a, &b, k, (m, n));
    let (copy, panels) = scratch.split_at_mut(if copied { ROWS * k } else { 0 });
    for (left, top) in (0..n).step_by(COLUMNS).flat_map(|left| (0..m).step_by(ROWS).map(move |top| (left, top))) {
        let (rows, right) = (a.part(true, top, m.min(top + ROWS)), n.min(left + COLUMNS));
        let rows = if copied { in_order(rows, copy) } else { rows };
        if ahead && top == 0 {
            pack(b.part(false, left, right), panels);
        }
        for (at, wide) in self::panels(right - left) {
            let columns = b.part(false, left + at, right.min(left + at + wide * LANES));
            let panel = &mut panels[if kept > WIDEST * LANES { at * k } else { 0 }..];
            let c = c.from(top, left + at);
            // SAFETY: rows and columns are counted, and there is a whole tile in the first rows; the caller vouches for the rest.
            unsafe {
                match (wide, a.col_stride) {
                    (1, 1) => band::<1, { tall(1) }, false>(c, &rows, &columns, panel, top == 0 && !ahead),
                    (1, _) => band::<1, { tall(1) }, true>(c, &rows, &columns, panel, top == 0 && !ahead),
                    (2, 1) => band::<2, { tall(2) }, false>(c, &rows, &columns, panel, top == 0 && !ahead),
                    (2, _) => band::<2, { tall(2) }, true>(c, &rows, &columns, panel, top == 0 && !ahead),
                    (_, 1) => band::<3, { tall(3) }, false>(c, &rows, &columns, panel, top == 0 && !ahead),
                    (_, _) => band::<3, { tall(3) }, true>(c, &rows, &columns, panel, top == 0 && !ahead),
                }
            }
        }
    }
}

/// Packs rows of b into panels.
fn pack(b: Matrix<f32>, panels: &mut [f32]) {
    for p in 0..b.rows {
        let row = &b.data[b.at(p, 0)..][..b.cols];
        for (at, wide) in self::panels(b.cols) {
            let (from, to) = (&row[at..], &mut panels[at * b.rows + p * wide * LANES..]);
            for (from, to) in from.chunks(LANES).zip(to[..wide * LANES].chunks_exact_mut(LANES)) {
                match from.as_array::<LANES>() {
                    Some(whole) => to.copy_from_slice(whole),
                    None => {
                        to[..from.len()].copy_from_slice(from);
                        to[from.len()..].fill(0.0);
                    }
                }
            }
        }
    }
}

/// Rows of an `a` that lies transposed, with columns of [`ROWS`] elements one after another.
fn in_order<'a>(a: Matrix<f32>, copy: &'a mut [f32]) -> Matrix<'a, f32> {
    for (p, to) in copy.chunks_exact_mut(ROWS).enumerate() {
        let from = &a.data[a.at(0, p)..][..a.rows];
        match from.first_chunk::<ROWS>() {
            Some(whole) => to.copy_from_slice(whole),
            None => to[..a.rows].copy_from_slice(from),
        }
    }
    Matrix { data: copy, offset: 0, row_stride: 1, col_stride: ROWS as isize, ..a }
}

/// The same pointer, of which compilers know nothing: they would else make one for every row of those that are kept.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[allow(clippy::pointers_in_nomem_asm_block)] // nothing is read through it
fn kept(mut x: *const f32) -> *const f32 {
    // SAFETY: there is only a comment in it.
    unsafe { std::arch::asm!("/* {0} */", inout(reg) x, options(pure, nomem, nostack, preserves_flags)) }
    x
}

/// All rows of a times a panel of `V` registers, which is packed first if `pack` says so. `TURNED` says that a lies transposed.
///
/// # Safety
/// As for [`product`]; there must be a whole tile if the panel is to be packed.
#[target_feature(enable = "avx512f")]
#[cfg(target_arch = "x86_64")]
unsafe fn band<const V: usize, const TALL: usize, const TURNED: bool>(c: Target<f32>, a: &Matrix<f32>, b: &Matrix<f32>, panel: &mut [f32], pack: bool) {
    let width = V * LANES;
    let panel = &mut panel[..a.cols * width];
    let mut i = 0;
    // SAFETY: rows are counted; the caller vouches for the rest.
    unsafe {
        if pack && b.row_stride == 1 {
            let columns = Rows { data: b.data, from: b.offset, stride: b.col_stride as usize, rows: b.cols, cols: b.rows };
            turn(columns, panel, width, width);
        } else if pack {
            tile::<TALL, V, TURNED, true>(c, a, i, b, panel);
            i = TALL;
        }
        while i + TALL <= a.rows {
            tile::<TALL, V, TURNED, false>(c, a, i, b, panel);
            i += TALL;
        }
        while i + FEW <= a.rows {
            tile::<FEW, V, TURNED, false>(c, a, i, b, panel);
            i += FEW;
        }
        while i < a.rows {
            tile::<1, V, TURNED, false>(c, a, i, b, panel);
            i += 1;
        }
    }
}

/// `R` rows of a, from row `i` on, times a panel. With `PACK` it comes from b, and is packed by the way.
///
/// # Safety
/// As for [`product`]; the rows must exist, and the panel have `V` registers for each column of a.
#[inline]
#[target_feature(enable = "avx512f")]
#[allow(clippy::needless_range_loop)] // loops by index are unrolled
#[cfg(target_arch = "x86_64")]
unsafe fn tile<const R: usize, const V: usize, const TURNED: bool, const PACK: bool>(
    c: Target<f32>,
    a: &Matrix<f32>,
    i: usize,
    b: &Matrix<f32>,
    panel: &mut [f32],
) {
    let row = |r: usize| c.start.wrapping_offset((i + r) as isize * c.stride);
    let mask = |v: usize| u16::MAX >> (LANES - LANES.min(b.cols - v * LANES));
    let (down, along) = if TURNED { (1, a.col_stride as usize) } else { (a.row_stride, 1) };
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    // SAFETY: the caller vouches for rows and columns; masks leave out columns that are not there, a prefetch reads nothing.
    unsafe {
        for r in 0..R {
            for v in 0..V {
                _mm_prefetch::<_MM_HINT_T0>(row(r).wrapping_add(v * LANES).cast());
            }
        }
        let first = a.data.as_ptr().add(a.at(i, 0));
        let mut x: [*const f32; TALL / SERVED] = std::array::from_fn(|q| first.wrapping_offset((SERVED * q) as isize * down));
        let (mut y, mut z, stride) = (panel.as_mut_ptr(), b.data.as_ptr().add(b.offset), b.row_stride);
        // Not a closure: where the compiler calls one instead of inlining it, sums go through memory.
        macro_rules! step {
            ($p:expr, $z:expr) => {{
                let mut b = [_mm512_setzero_ps(); V];
                for v in 0..V {
                    let y = y.add(($p * V + v) * LANES);
                    if PACK {
                        b[v] = _mm512_maskz_loadu_ps(mask(v), $z.add(v * LANES));
                        _mm512_storeu_ps(y, b[v]);
                    } else {
                        b[v] = _mm512_loadu_ps(y);
                    }
                }
                for r in 0..R {
                    let x = _mm512_set1_ps(*x[r / SERVED].offset((r % SERVED) as isize * down).add($p * along));
                    for v in 0..V {
                        sums[r][v] = _mm512_fmadd_ps(x, b[v], sums[r][v]);
                    }
                }
            }};
        }
        for _ in 0..a.cols / UNROLLED {
            for p in 0..UNROLLED {
                step!(p, z.wrapping_offset(p as isize * stride));
            }
            for q in 0..R.div_ceil(SERVED) {
                x[q] = kept(x[q].wrapping_add(UNROLLED * along));
            }
            (y, z) = (y.add(UNROLLED * V * LANES), z.wrapping_offset(UNROLLED as isize * stride));
        }
        for _ in 0..a.cols % UNROLLED {
            step!(0, z);
            for q in 0..R.div_ceil(SERVED) {
                x[q] = x[q].wrapping_add(along);
            }
            (y, z) = (y.add(V * LANES), z.wrapping_offset(stride));
        }
        for v in 0..V {
            for r in 0..R {
                let to = row(r).add(v * LANES);
                let sum = match c.onto {
                    Some(onto) => {
                        let from = onto.start.wrapping_offset((i + r) as isize * onto.stride).wrapping_add(v * LANES);
                        _mm512_add_ps(_mm512_maskz_loadu_ps(mask(v), from), sums[r][v])
                    }
                    None => sums[r][v],
                };
                _mm512_mask_storeu_ps(to, mask(v), sum);
            }
        }
    }
}
