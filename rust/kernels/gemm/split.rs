//! Products of float32 by a processor's matrix unit (AMX), which multiplies bfloat16 and adds up in float32.
//!
//! Every number is the sum of three of bfloat16, high, middle and low, without a remainder: 8 bits each of the 24 there are. Of the nine
//! products of their parts the six largest are added up; the other three are at most 2⁻²⁴ of the whole, what one product is rounded by in
//! float32. Sums are rounded less often than in a chain of multiply-adds, so they are more accurate, while the unit has 16 times the speed.
//!
//! Invariant: an element is added up in steps of [`SIDE`] terms from the call's first on, whatever part of the output is computed.
//! Blocks of it whose operands reach to where parts over- or underflow are left to multiply-adds: what decides is in the rows and
//! columns of the block alone.

#![cfg_attr(not(target_arch = "x86_64"), allow(unused))]

use super::direct::Target;
use super::{Gemm, Matrix};
use crate::kernels::turn::{Rows, turn};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Rows and columns of a block of the output, two tiles by two, and terms of a step.
pub const SIDE: usize = 32;
/// Numbers that a vector holds, and a tile is wide and high, of pairs of bfloat16 or sums.
const LANES: usize = 16;
/// Elements that a tile takes the room of.
const TILE: usize = LANES * LANES;
/// Elements that the parts of [`SIDE`] rows or columns take the room of, for one step: two tiles of each.
const STEP: usize = 6 * TILE;
/// Most terms of a call.
pub const DEEPEST: usize = 416;
/// Most columns of b that are kept in parts, in the second-level cache.
const COLUMNS: usize = 512;
/// Steps whose numbers are asked for ahead.
const AHEAD: usize = 2;

/// Elements that [`product`] works in, for at most so many rows and columns and an inner dimension of `depth`.
pub fn scratch(depth: usize, cols: usize) -> usize {
    (1 + cols.min(COLUMNS).div_ceil(SIDE)) * depth.div_ceil(SIDE) * STEP + SIDE * SIDE
}

/// Of the numbers of some rows or columns, the upper halves of the largest absolute value, and of the least but zero, less one.
#[derive(Clone, Copy)]
struct Reach {
    largest: u16,
    least: u16,
}

impl Reach {
    const NONE: Reach = Reach { largest: 0, least: u16::MAX };
    /// Of numbers that three parts are too few for, as the last would be subnormal.
    const BEYOND: Reach = Reach { largest: u16::MAX, least: 0 };

    /// Powers of two that the numbers are between; where there are only zeros, the lower is above all others.
    fn exponents(self) -> (i32, i32) {
        (i32::from(self.least >> 7) - 127, i32::from(self.largest >> 7) - 127)
    }

    /// Whether parts and their products neither overflow, summed up, nor underflow where it would be seen.
    fn is_safe_with(self, other: Reach) -> bool {
        let ((a, a_most), (b, b_most)) = (self.exponents(), other.exponents());
        a.min(b) >= -100 && a + b >= -96 && a_most.max(b_most) <= 125 && a_most + b_most <= 112
    }
}

/// `c = a·b`, or onto what is said.
///
/// # Safety
/// The processor must have AMX, and the process be allowed to use it. Either rows or columns of a must lie in one piece each, and of b,
/// with a positive stride where it is rows of b or columns of a that do not; there may be at most [`DEEPEST`] terms; `c`
/// must be valid for reads and writes at every element of its rows; `a` and `b` must have passed `check`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn product(c: Target<f32>, a: Matrix<f32>, b: Matrix<f32>, scratch: &mut [f32]) {
    let (m, n, steps) = (a.rows, b.cols, a.cols.div_ceil(SIDE));
    let (buffer, scratch) = scratch.split_at_mut(SIDE * SIDE);
    let (rows, columns) = scratch.split_at_mut(steps * STEP);
    let mut along = [Reach::NONE; COLUMNS / SIDE];
    // SAFETY: the caller vouches for the processor and the operands; rows and columns are counted.
    unsafe {
        let _tiles = Tiles::new();
        for left in (0..n).step_by(COLUMNS) {
            let b = b.part(false, left, n.min(left + COLUMNS)).transposed();
            let all = b.rows.div_ceil(SIDE);
            for (j, columns) in columns.chunks_exact_mut(steps * STEP).enumerate().take(all) {
                along[j] = split::<false>(group(b, j), columns, buffer);
            }
            for i in 0..m.div_ceil(SIDE) {
                let a = group(a, i);
                let down = split::<true>(a, rows, buffer);
                for (j, columns) in columns.chunks_exact(steps * STEP).enumerate().take(all) {
                    let (c, b) = (c.from(i * SIDE, left + j * SIDE), group(b, j));
                    if down.is_safe_with(along[j]) {
                        multiply(rows, columns, buffer, steps);
                        write(c, buffer, a.rows, b.rows);
                    } else {
                        f32::packed(c, a, b.transposed());
                    }
                }
            }
        }
    }
}

/// The `i`-th [`SIDE`] rows.
fn group(x: Matrix<f32>, i: usize) -> Matrix<f32> {
    x.part(true, i * SIDE, x.rows.min(i * SIDE + SIDE))
}

/// Tiles of 16 rows of 64 bytes, for as long as this is there.
#[cfg(target_arch = "x86_64")]
struct Tiles;

#[cfg(target_arch = "x86_64")]
impl Tiles {
    /// # Safety
    /// The processor must have AMX, and the process be allowed to use it.
    unsafe fn new() -> Tiles {
        let mut shapes = [0_u8; 64];
        shapes[0] = 1;
        for tile in 0..8 {
            shapes[16 + 2 * tile] = 64;
            shapes[48 + tile] = LANES as u8;
        }
        // SAFETY: the caller vouches for the processor; 64 bytes are read.
        unsafe { std::arch::asm!("ldtilecfg [{0}]", in(reg) shapes.as_ptr(), options(nostack, readonly, preserves_flags)) }
        Tiles
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: there are tiles; without them the system has less to save.
        unsafe { std::arch::asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }
}

/// A block of sums: the products of so many steps of 32 rows and 32 columns in parts.
///
/// # Safety
/// There must be [`Tiles`].
#[cfg(target_arch = "x86_64")]
unsafe fn multiply(rows: &[f32], columns: &[f32], sums: &mut [f32], steps: usize) {
    assert!(rows.len().min(columns.len()) >= steps * STEP && sums.len() >= SIDE * SIDE && steps > 0, "blocks reach outside their slices");
    // Sums are in tiles 0 to 3. For both tiles of rows (4 and 5) and of columns (6 and 7), high by low, high by middle, middle by middle,
    // middle by high, low by high, high by high: from one to the next only one side is loaded.
    // SAFETY: the caller vouches for tiles; slices are as long as what is read and written.
    unsafe {
        std::arch::asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a} + {line}*1]",
            "tileloadd tmm6, [{b} + {line}*1 + 4096]",
            "tileloadd tmm5, [{a} + {line}*1 + 1024]",
            "tileloadd tmm7, [{b} + {line}*1 + 5120]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm6, [{b} + {line}*1 + 2048]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm7, [{b} + {line}*1 + 3072]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm4, [{a} + {line}*1 + 2048]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm5, [{a} + {line}*1 + 3072]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm6, [{b} + {line}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm7, [{b} + {line}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm4, [{a} + {line}*1 + 4096]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm5, [{a} + {line}*1 + 5120]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm4, [{a} + {line}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm5, [{a} + {line}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 6144",
            "add {b}, 6144",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c} + {wide}*1], tmm0",
            "tilestored [{c} + {wide}*1 + 64], tmm1",
            "tilestored [{c} + {wide}*1 + 2048], tmm2",
            "tilestored [{c} + {wide}*1 + 2112], tmm3",
            a = inout(reg) rows.as_ptr() => _,
            b = inout(reg) columns.as_ptr() => _,
            c = in(reg) sums.as_mut_ptr(),
            steps = inout(reg) steps => _,
            line = in(reg) 64_usize,
            wide = in(reg) 128_usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// The columns that are there, of both vectors of a block.
fn masks(cols: usize) -> [u16; SIDE / LANES] {
    let all = u32::MAX >> (SIDE - cols);
    [all as u16, (all >> LANES) as u16]
}

/// Writes so many rows and columns of a block to c, or onto what is said.
///
/// # Safety
/// The processor must have AVX-512; they must be there, to be written and to be read.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn write(c: Target<f32>, sums: &[f32], rows: usize, cols: usize) {
    let masks = masks(cols);
    for (r, sums) in sums.chunks_exact(SIDE).enumerate().take(rows) {
        for (v, mask) in masks.into_iter().enumerate() {
            let at = |start: *mut f32, stride: isize| start.wrapping_offset(r as isize * stride).wrapping_add(v * LANES);
            // SAFETY: the caller vouches for rows and columns, of which the mask leaves out those that are not there.
            unsafe {
                let sum = _mm512_loadu_ps(sums[v * LANES..].as_ptr());
                let sum = match c.onto {
                    Some(onto) => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, at(onto.start.cast_mut(), onto.stride)), sum),
                    None => sum,
                };
                _mm512_mask_storeu_ps(at(c.start, c.stride), mask, sum);
            }
        }
    }
}

/// Splits up to [`SIDE`] rows of x into parts, step by step: tiles of rows with pairs of terms side by side, or else, not `BY_ROWS`, of
/// pairs of terms with rows side by side. A pair is 16 terms apart. What is not there counts as zero. Returns how far the numbers reach.
///
/// # Safety
/// The processor must have AVX-512; `x` must have passed `check`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn split<const BY_ROWS: bool>(x: Matrix<f32>, parts: &mut [f32], buffer: &mut [f32]) -> Reach {
    let lies = if BY_ROWS { x.col_stride == 1 } else { x.row_stride == 1 };
    let mut seen = Seen { largest: _mm512_setzero_si512(), least: _mm512_set1_epi16(-1), low: _mm512_setzero_si512() };
    for (s, parts) in parts.chunks_exact_mut(STEP).enumerate() {
        let x = x.part(false, s * SIDE, x.cols.min(s * SIDE + SIDE));
        let x = if BY_ROWS { x } else { x.transposed() };
        let x = if lies {
            x
        } else {
            turn(Rows { data: x.data, from: x.offset, stride: x.col_stride as usize, rows: x.cols, cols: x.rows }, buffer, SIDE, SIDE);
            Matrix { data: &*buffer, offset: 0, row_stride: SIDE as isize, col_stride: 1, ..x }
        };
        // SAFETY: the caller vouches for the processor and x.
        unsafe { seen.step::<BY_ROWS>(x, parts) }
    }
    let (largest, least) = (halves(seen.largest).into_iter().max(), halves(seen.least).into_iter().min());
    if _mm512_test_epi32_mask(seen.low, _mm512_set1_epi32(u16::MAX.into())) != 0 {
        return Reach::BEYOND;
    }
    Reach { largest: largest.expect("halves"), least: least.expect("halves") }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn halves(x: __m512i) -> [u16; 2 * LANES] {
    let mut halves = [0; 2 * LANES];
    // SAFETY: there is room for a vector.
    unsafe { _mm512_storeu_si512(halves.as_mut_ptr().cast(), x) }
    halves
}

/// What numbers were split, by their high parts.
#[cfg(target_arch = "x86_64")]
struct Seen {
    largest: __m512i,
    least: __m512i,
    /// Bits of all low parts.
    low: __m512i,
}

#[cfg(target_arch = "x86_64")]
impl Seen {
    /// Splits up to [`SIDE`] rows and columns.
    ///
    /// # Safety
    /// The processor must have AVX-512; columns of `x` must lie side by side, and inside its slice.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn step<const BY_ROWS: bool>(&mut self, x: Matrix<f32>, parts: &mut [f32]) {
        let (start, masks) = (x.data.as_ptr().wrapping_add(x.offset), masks(x.cols));
        let ahead = (AHEAD * SIDE) as isize * if BY_ROWS { 1 } else { x.row_stride };
        macro_rules! load {
            ($r:expr, $v:expr) => {{
                let from = start.wrapping_offset($r as isize * x.row_stride).wrapping_add($v * LANES);
                // SAFETY: rows and columns that are not there are masked out; a prefetch reads nothing.
                unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(from.wrapping_offset(ahead).cast());
                    _mm512_maskz_loadu_ps(if $r < x.rows { masks[$v] } else { 0 }, from)
                }
            }};
        }
        let parts: &mut [[f32; LANES]; STEP / LANES] = parts.as_chunks_mut().0.try_into().expect("a step");
        for r in 0..SIDE {
            let (tile, line) = (r / LANES, r % LANES);
            let pair = if BY_ROWS { [load!(r, 0), load!(r, 1)] } else { [load!(line, tile), load!(line + LANES, tile)] };
            let pairs = self.split(pair);
            for part in 0..3 {
                // SAFETY: a line has room for a vector.
                unsafe { _mm512_storeu_si512(parts[(2 * part + tile) * LANES + line].as_mut_ptr().cast(), pairs[part]) }
            }
        }
    }

    /// Pairs of high, middle and low parts. Each is the nearest there is to what those before left.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn split(&mut self, x: [__m512; 2]) -> [__m512i; 3] {
        // Not closures: the compiler calls those instead of inlining them, as it does iterators.
        let upper = _mm512_set1_epi32(-1 << 16);
        macro_rules! nearest {
            ($x:expr) => {
                _mm512_castsi512_ps(_mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512($x), _mm512_set1_epi32(1 << 15)), upper))
            };
        }
        macro_rules! pair {
            ($x:expr, $y:expr) => {
                // The one, shifted, or what is in the other and the mask.
                _mm512_ternarylogic_epi32::<0xf8>(_mm512_srli_epi32::<16>(_mm512_castps_si512($x)), _mm512_castps_si512($y), upper)
            };
        }
        let (x, y) = (x[0], x[1]);
        let (high, high2) = (nearest!(x), nearest!(y));
        let (rest, rest2) = (_mm512_sub_ps(x, high), _mm512_sub_ps(y, high2));
        let (middle, middle2) = (nearest!(rest), nearest!(rest2));
        let (low, low2) = (_mm512_sub_ps(rest, middle), _mm512_sub_ps(rest2, middle2));
        let parts = [pair!(high, high2), pair!(middle, middle2), pair!(low, low2)];
        let size = _mm512_and_si512(parts[0], _mm512_set1_epi16(i16::MAX));
        self.largest = _mm512_max_epu16(self.largest, size);
        self.low = _mm512_or_si512(self.low, _mm512_or_si512(_mm512_castps_si512(low), _mm512_castps_si512(low2)));
        self.least = _mm512_min_epu16(self.least, _mm512_sub_epi16(size, _mm512_set1_epi16(1)));
        parts
    }
}
