//! The product of packed panels: a tile of `c` stays in registers while the inner dimension goes by.
//!
//! Invariant: an element of `c` is a chain of multiply-adds along the inner dimension, cut into stretches by its length alone.
//! Neither the tile, nor how `c` is cut, nor the instruction set (where it has fused multiply-adds) decides a bit.

use super::pack::pack;
use super::{Gemm, Matrix, Start};
use crate::array::{Array, Dims};
use crate::kernels::interrupt;
use crate::kernels::parallel::ColumnsMut;
use crate::kernels::simd::{Isa, Level, Vector, level, prefetch};
use crate::simd;
use std::ops::Range;

/// Longest stretch of the inner dimension: a panel of `a` that long stays in the first-level cache.
const DEEP: usize = 384;
/// Bytes of packed `b` that stay in the second-level cache.
const NEAR: usize = 512 << 10;
/// Most rows and columns of a tile.
const TALL: usize = 12;
const WIDE: usize = 32;

/// Columns by which outputs are cut: whole tiles.
pub(super) const CUT: usize = 64;

/// Length of the stretches a product of inner dimension `k` is summed in.
fn stretch(k: usize) -> usize {
    k.div_ceil(k.div_ceil(DEEP))
}

fn scratch<T: Gemm>(len: usize) -> Array {
    let shape = Dims::new(&[len]).expect("one dimension");
    Array::unfilled(T::DTYPE, shape).expect("memory for a panel")
}

/// Rows and columns of the largest tile that the registers hold, with two vectors of columns.
#[derive(Clone, Copy)]
struct Tiles {
    rows: usize,
    cols: usize,
}

impl Tiles {
    fn of<T>(level: Level) -> Self {
        Tiles { rows: if level.registers() == 32 { TALL } else { 6 }, cols: 2 * level.vector_bytes() / size_of::<T>() }
    }
}

/// `c = a·b` on the calling thread, from what `start` says. `a` and `b` must have been checked to lie inside their slices.
pub(super) fn product<T: Gemm>(c: &mut ColumnsMut<T>, a: Matrix<T>, b: Matrix<T>, start: Start<T>) {
    let (k, n, tiles) = (a.cols, b.cols, Tiles::of::<T>(level()));
    let stretch = stretch(k);
    let most = (NEAR / size_of::<T>() / stretch).max(tiles.cols);
    let chunk = n.div_ceil(n.div_ceil(most)).next_multiple_of(tiles.cols);
    let (mut columns, mut rows) = (scratch::<T>(chunk * stretch), scratch::<T>(TALL * stretch));
    let (columns, rows) = (columns.fresh::<T>(), rows.fresh::<T>());
    for from in (0..k).step_by(stretch) {
        let deep = from..(from + stretch).min(k);
        let start = if from == 0 { start } else { Start::Add };
        for left in (0..n).step_by(chunk) {
            let cols = left..(left + chunk).min(n);
            pack_columns(&b, cols.clone(), deep.clone(), tiles, columns);
            for top in (0..a.rows).step_by(tiles.rows) {
                if interrupt::stops() {
                    return;
                }
                let down = top..(top + tiles.rows).min(a.rows);
                band(c, &a, down, deep.clone(), Panels { packed: columns, cols: cols.clone(), tiles }, rows, start);
            }
        }
    }
}

/// Packed columns of `b`: panels of two vectors each, the last one maybe of one.
struct Panels<'a, T> {
    packed: &'a [T],
    cols: Range<usize>,
    tiles: Tiles,
}

/// Columns of `b` as panels.
fn pack_columns<T: Gemm>(b: &Matrix<T>, cols: Range<usize>, deep: Range<usize>, tiles: Tiles, into: &mut [T]) {
    let b = b.transposed();
    for (left, panel) in cols.clone().step_by(tiles.cols).zip(into.chunks_mut(tiles.cols * deep.len())) {
        let part = left..(left + tiles.cols).min(cols.end);
        match if part.len() > tiles.cols / 2 { tiles.cols } else { tiles.cols / 2 } {
            32 => pack::<T, 32>(&b, part, deep.clone(), panel),
            16 => pack::<T, 16>(&b, part, deep.clone(), panel),
            8 => pack::<T, 8>(&b, part, deep.clone(), panel),
            4 => pack::<T, 4>(&b, part, deep.clone(), panel),
            _ => pack::<T, 2>(&b, part, deep.clone(), panel),
        }
    }
}

/// The rows `down` of `a` against some columns of `b`.
fn band<T: Gemm>(c: &mut ColumnsMut<T>, a: &Matrix<T>, down: Range<usize>, deep: Range<usize>, panels: Panels<T>, rows: &mut [T], start: Start<T>) {
    match (panels.tiles.rows, down.len()) {
        (TALL, 9..) => band_of::<T, 12>(c, a, down, deep, panels, rows, start),
        (TALL, 5..) => band_of::<T, 8>(c, a, down, deep, panels, rows, start),
        (_, 5..) => band_of::<T, 6>(c, a, down, deep, panels, rows, start),
        (_, 3..) => band_of::<T, 4>(c, a, down, deep, panels, rows, start),
        _ => band_of::<T, 2>(c, a, down, deep, panels, rows, start),
    }
}

fn band_of<T: Gemm, const M: usize>(
    c: &mut ColumnsMut<T>,
    a: &Matrix<T>,
    down: Range<usize>,
    deep: Range<usize>,
    panels: Panels<T>,
    rows: &mut [T],
    start: Start<T>,
) {
    let (depth, cols, step) = (deep.len(), panels.cols, panels.tiles.cols);
    pack::<T, M>(a, down.clone(), deep, rows);
    for (i, left) in cols.clone().step_by(step).enumerate() {
        let across = left..(left + step).min(cols.end);
        let panel = &panels.packed[i * step * depth..];
        if across.len() > step / 2 {
            tile::<T, M, 2>(rows, panel, depth, c, down.clone(), across, start);
        } else {
            tile::<T, M, 1>(rows, panel, depth, c, down.clone(), across, start);
        }
    }
}

simd! {
    /// `M` rows and `W` vectors of columns: of `c` those at `down` and `across`.
    fn tile<T: Gemm>[M, W](rows: &[T], cols: &[T], depth: usize, c: &mut ColumnsMut<T>, down: Range<usize>, across: Range<usize>, start: Start<T>) {
        let lanes = T::Vector::<I>::LANES;
        assert!(rows.len() >= depth * M && cols.len() >= depth * W * lanes && down.len() <= M && across.len() <= W * lanes);
        for i in 0..down.len() {
            let row = c.row_mut(down.start + i);
            prefetch(&row[across.start]);
            prefetch(&row[across.end - 1]);
        }
        // SAFETY: this is an instance for `I`; both panels hold `depth` columns, as asserted.
        let sums = unsafe { chain::<I, T, M, W>(rows.as_ptr(), cols.as_ptr(), depth) };
        for (i, sums) in sums.iter().enumerate() {
            if i >= down.len() {
                break;
            }
            finish::<I, T, W>(&mut c.row_mut(down.start + i)[across.clone()], *sums, start.part(across.start));
        }
    }
}

/// Sums of `depth` products each.
///
/// # Safety
/// `a` must be valid for `depth·M` reads, `b` for `depth·W` vectors, and the CPU must have the instruction set.
#[inline(always)]
unsafe fn chain<I: Isa, T: Gemm, const M: usize, const W: usize>(mut a: *const T, mut b: *const T, depth: usize) -> [[T::Vector<I>; W]; M] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[T::Vector::<I>::splat(T::ZERO); W]; M];
        for _ in 0..depth {
            // A loop: the closure of `from_fn` would stay a function without the instruction set.
            let mut columns = [T::Vector::<I>::splat(T::ZERO); W];
            for w in 0..W {
                columns[w] = T::Vector::<I>::load(b.add(w * T::Vector::<I>::LANES));
            }
            for i in 0..M {
                let x = T::Vector::<I>::splat(*a.add(i));
                for w in 0..W {
                    sums[i][w] = x.mul_add(columns[w], sums[i][w]);
                }
            }
            a = a.add(M);
            b = b.add(W * T::Vector::<I>::LANES);
        }
        sums
    }
}

/// Adds sums to what a row of a tile starts from.
#[inline(always)]
fn finish<I: Isa, T: Gemm, const W: usize>(row: &mut [T], sums: [T::Vector<I>; W], start: Start<T>) {
    let lanes = T::Vector::<I>::LANES;
    if row.len() < W * lanes {
        let mut all = [T::ZERO; WIDE];
        for (sum, to) in sums.iter().zip(all.chunks_exact_mut(lanes)) {
            // SAFETY: a slice of `lanes` elements, in an instance for `I`.
            unsafe { sum.store(to.as_mut_ptr()) };
        }
        for (j, (to, sum)) in row.iter_mut().zip(all).enumerate() {
            *to = match start {
                Start::Zero => sum,
                Start::Add => *to + sum,
                Start::Bias(b) => b[j] + sum,
            };
        }
        return;
    }
    for (w, (sum, to)) in sums.into_iter().zip(row.chunks_exact_mut(lanes)).enumerate() {
        // SAFETY: slices of `lanes` elements, in an instance for `I`.
        unsafe {
            let sum = match start {
                Start::Zero => sum,
                Start::Add => T::Vector::<I>::load(to.as_ptr()).add(sum),
                Start::Bias(b) => T::Vector::<I>::load(b[w * lanes..(w + 1) * lanes].as_ptr()).add(sum),
            };
            sum.store(to.as_mut_ptr());
        }
    }
}
