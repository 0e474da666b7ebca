//! Reductions along any axes of any layout.
//!
//! Invariant: a reduction is cut into blocks fixed by shape; a block is folded over a fixed number of lanes, and blocks are
//! merged in order. Neither threads nor the vector width decide the order of summation.

mod extreme;
mod fold;
mod short;

use super::arith;
use super::finite;
use super::interrupt;
use super::map::{self, Binary, cast, contiguous};
use super::parallel;
use super::plan::Plan;
use super::simd::Float;
use super::turn::Rows;
use crate::array::{Array, DType, Dims, Element, MAX_DIMS, Slice};
use crate::{Error, Result, bail, with_dtype, with_float};
pub use extreme::arg_extreme;
pub use fold::{Fold, Sum};
use fold::{Max, Min, Prod, fold_columns, fold_part, fold_row};
use short::{SHORT, fold_short_rows};
use smallvec::SmallVec;

/// Most partial results at a time: a view may have more elements than memory has room for parts of them.
const PARTS: usize = 1 << 20;
/// Elements of one output that one unit of parallel work folds.
const SPAN: usize = 1 << 16;
/// Elements folded between two questions whether to stop.
const UNASKED: usize = 1 << 22;
/// Columns of one tile when the kept axis is the contiguous one.
const TILE: usize = 256;
/// Elements of another type that are cast at a time.
const CAST: usize = 1 << 18;
/// Rows folded in `T` before they are merged into the wide accumulator.
const ROWS: usize = 128;

type Axes = SmallVec<[usize; MAX_DIMS]>;

/// The axes of a reduction: sorted, distinct, in range. `None` means all.
pub fn reduced_axes(axes: Option<&[isize]>, ndim: usize, op: &str) -> Result<Axes> {
    let Some(axes) = axes else {
        return Ok((0..ndim).collect());
    };
    let mut out = Axes::new();
    for &axis in axes {
        let axis = crate::array::normalize_axis(axis, ndim, op)?;
        if out.contains(&axis) {
            bail!(Value, "{op}: expected distinct axes, got axis {axis} twice");
        }
        out.push(axis);
    }
    out.sort_unstable();
    Ok(out)
}

/// The shape left after reducing `axes`: without them, or with size 1 in their place.
pub fn reduced_shape(shape: &Dims, axes: &[usize], keepdims: bool) -> Dims {
    let mut out = *shape;
    for &axis in axes.iter().rev() {
        if keepdims {
            out[axis] = 1;
        } else {
            out.remove(axis);
        }
    }
    out
}

/// Folds `x` along `axes` (sorted and distinct). The result has the kept axes, or all with `keepdims`.
fn fold<T: Element, F: Fold<T>>(f: F, x: &Array, axes: &[usize], keepdims: bool) -> Result<Array> {
    let kept: Axes = (0..x.ndim()).filter(|a| !axes.contains(a)).collect();
    if let Some(order) = as_they_lie(x, &kept, axes) {
        let near = fold(f, &x.permute(&order), &(kept.len()..x.ndim()).collect::<Axes>(), false)?;
        let mut back: Axes = (0..kept.len()).collect();
        back.sort_unstable_by_key(|&i| order[i]);
        let out = contiguous(&near.permute(&back))?;
        return Ok(out.reshape_view(reduced_shape(x.shape(), axes, keepdims)).expect("made contiguous"));
    }
    let mut out = Array::unfilled(T::DTYPE, reduced_shape(x.shape(), axes, keepdims))?;
    let y = out.fresh::<T>();
    if y.is_empty() {
        return Ok(out);
    }
    // Sizes beside a zero may be anything.
    let span = axes.iter().fold(1, |n: usize, &a| n.saturating_mul(x.shape()[a]));
    if span == 0 {
        y.fill(F::finish(F::wide_id()));
        return Ok(out);
    }
    if let (Some(data), true) = (x.as_slice::<T>(), kept.is_empty())
        && span <= SPAN
    {
        y[0] = F::finish(fold_row(f, data));
        return Ok(out);
    }
    let work = y.len().saturating_mul(span) / 4;
    if let (Some(data), true) = (x.as_slice::<T>(), y.len() > 1 && axes.iter().enumerate().all(|(i, &a)| i == a))
        && work < parallel::WORTH_SHARING_NS
        && span <= block_rows(y.len(), span, y.len())
    {
        let width = y.len() as isize;
        fold_tiles(f, y, |tile, first| tile.rows(f, data, first as isize, width, span));
        return Ok(out);
    }
    let outer = Plan::new([&sub_layout(x, &kept, true)]);
    let inner = Plan::new([&sub_layout(x, axes, false)]);
    if inner.inner_stride(0) != 1 && outer.inner_stride(0) == 1 && outer.inner() > 1 {
        fold_by_columns(f, x.data(), (&outer, &inner), span, y);
    } else {
        fold_by_rows(f, x.data(), (&outer, &inner), span, y);
    }
    Ok(out)
}

/// The kept axes and after them the others, each as they lie in memory, the farthest apart first; none if they are so already.
fn as_they_lie(x: &Array, kept: &[usize], axes: &[usize]) -> Option<Axes> {
    if x.is_contiguous() {
        return None;
    }
    let strides = x.layout().strides();
    // Axes of one element, or of one again and again, are no part of an inner loop.
    let key = |&a: &usize| if x.shape()[a] == 1 || strides[a] == 0 { isize::MIN } else { -strides[a].abs() };
    if kept.is_sorted_by_key(key) && axes.is_sorted_by_key(key) {
        return None;
    }
    let mut order: Axes = kept.iter().chain(axes).copied().collect();
    order[..kept.len()].sort_by_key(key);
    order[kept.len()..].sort_by_key(key);
    Some(order)
}

/// The layout of some axes of `x` alone; the offset goes to the kept ones.
fn sub_layout(x: &Array, axes: &[usize], with_offset: bool) -> crate::array::Layout {
    let mut layout = *x.layout();
    for axis in (0..x.ndim()).rev().filter(|a| !axes.contains(a)) {
        layout = layout.remove_axis(axis);
    }
    layout.offset = if with_offset { x.layout().offset } else { 0 };
    layout
}

type Plans<'a> = (&'a Plan<1>, &'a Plan<1>);

fn fold_by_rows<T: Element, F: Fold<T>>(f: F, data: &[T], (outer, inner): Plans, span: usize, y: &mut [T]) {
    let stride = inner.inner_stride(0);
    let piece = |base: isize, first: usize, len: usize| {
        let (mut total, mut from, end) = (F::wide_id(), first, first + len);
        let mut run = |at: isize, n: usize| {
            let part = match stride {
                1 => fold_part(f, data, at as usize, n),
                _ => fold_strided(f, data, at, stride, n),
            };
            total = F::merge(total, part);
        };
        while from < end && (from == first || !interrupt::stops()) {
            let count = UNASKED.min(end - from);
            match inner.is_one_run() {
                true => run(base + from as isize * stride, count),
                false => inner.walk(from, count, |[at], _, n| run(base + at, n)),
            }
            from += count;
        }
        total
    };
    let work = y.len().saturating_mul(span) / 4;
    let length = SPAN.max(least(span, y.len()));
    let pieces = span.div_ceil(length);
    if pieces == 1 {
        let group = (SPAN / span).max(1);
        let is_short = span <= SHORT && stride == 1 && inner.is_one_run();
        return parallel::for_chunks(y, group, work, |g, y| {
            outer.for_range(g * group, y.len(), |[at], first, n| {
                let apart = outer.inner_stride(0);
                if is_short && n > 1 && apart > 0 {
                    let rows = Rows { data, from: at, stride: apart as usize, rows: n, cols: span };
                    return fold_short_rows(f, rows, &mut y[first..first + n]);
                }
                for (i, y) in y[first..first + n].iter_mut().enumerate() {
                    *y = F::finish(piece(at as isize + i as isize * apart, 0, span));
                }
            });
        });
    }
    let mut parts = vec![F::wide_id(); y.len() * pieces];
    parallel::for_chunks(&mut parts, 1, work, |i, part| {
        let first = i % pieces * length;
        outer.for_range(i / pieces, 1, |[at], _, _| part[0] = piece(at as isize, first, length.min(span - first)));
    });
    for (y, parts) in y.iter_mut().zip(parts.chunks(pieces)) {
        *y = F::finish(parts.iter().copied().fold(F::wide_id(), F::merge));
    }
}

/// The least length of parts of `span` with which those of all n results are no more than [`PARTS`].
fn least(span: usize, n: usize) -> usize {
    span.div_ceil((PARTS / n.max(1)).max(1))
}

fn fold_strided<T: Element, F: Fold<T>>(f: F, data: &[T], at: isize, stride: isize, n: usize) -> F::Wide {
    let mut total = F::wide_id();
    let mut part = [T::default(); 256];
    for first in (0..n).step_by(part.len()) {
        let len = part.len().min(n - first);
        for (i, p) in part[..len].iter_mut().enumerate() {
            *p = data[(at + (first + i) as isize * stride) as usize];
        }
        total = F::merge(total, fold_row(f, &part[..len]));
    }
    total
}

/// Accumulators of neighbouring columns, stepped row by row.
struct Tile<'a, L, W> {
    acc: [L; TILE],
    /// Rows in `acc` that are not in `out` yet.
    pending: usize,
    out: &'a mut [W],
}

impl<L: Copy, W: Copy> Tile<'_, L, W> {
    fn new<T: Element, F: Fold<T, Lane = L, Wide = W>>(out: &mut [W]) -> Tile<'_, L, W> {
        Tile { acc: [F::start(); TILE], pending: 0, out }
    }

    /// Takes in `n` rows of `data`, `stride` apart from `at` on.
    fn rows<T: Element, F: Fold<T, Lane = L, Wide = W>>(&mut self, f: F, data: &[T], at: isize, stride: isize, n: usize) {
        let mut first = 0;
        while first < n {
            let part = (n - first).min(ROWS - self.pending);
            fold_columns(f, &mut self.acc[..self.out.len()], data, at + first as isize * stride, stride, part);
            (first, self.pending) = (first + part, self.pending + part);
            if self.pending == ROWS {
                self.flush(f);
                if interrupt::stops() {
                    return;
                }
            }
        }
    }

    fn flush<T: Element, F: Fold<T, Lane = L, Wide = W>>(&mut self, _: F) {
        for (out, acc) in self.out.iter_mut().zip(&mut self.acc) {
            *out = F::merge(*out, F::widen(*acc));
            *acc = F::start();
        }
        self.pending = 0;
    }
}

/// Rows of one unit of work, where there are `width` columns to a row: by shape alone.
fn block_rows(width: usize, span: usize, outputs: usize) -> usize {
    (SPAN / width.min(TILE)).max(ROWS).max(least(span, outputs))
}

/// Folds the columns that belong to `y` tile by tile; `fill(tile, first)` gives the tile that begins at column `first` its rows.
fn fold_tiles<T: Element, F: Fold<T>>(f: F, y: &mut [T], fill: impl Fn(&mut Tile<F::Lane, F::Wide>, usize)) {
    for (t, y) in y.chunks_mut(TILE).enumerate() {
        let mut wide = [F::wide_id(); TILE];
        let mut tile = Tile::new::<T, F>(&mut wide[..y.len()]);
        fill(&mut tile, t * TILE);
        tile.flush(f);
        y.iter_mut().zip(wide).for_each(|(y, w)| *y = F::finish(w));
    }
}

fn fold_by_columns<T: Element, F: Fold<T>>(f: F, data: &[T], (outer, inner): Plans, span: usize, y: &mut [T]) {
    let width = outer.inner();
    let work = y.len().saturating_mul(span) / 4;
    // Row blocks are cut only where there is more than one span of work.
    let rows = block_rows(width, span, y.len());
    let (tiles, blocks) = (width.div_ceil(TILE), span.div_ceil(rows));
    let mut parts = vec![F::wide_id(); if blocks > 1 { y.len() * blocks } else { 0 }];
    let fill = |tile: &mut Tile<F::Lane, F::Wide>, y_first: usize, block: usize| {
        let mut base = 0;
        outer.for_range(y_first, 1, |[at], _, _| base = at as isize);
        let (stride, first) = (inner.inner_stride(0), block * rows);
        inner.walk(first, rows.min(span - first), |[at], _, n| tile.rows(f, data, base + at, stride, n));
    };
    if blocks == 1 {
        // One unit of work is a row of tiles of one outer index.
        return parallel::for_chunks(y, width, work, |o, y| fold_tiles(f, y, |tile, first| fill(tile, o * width + first, 0)));
    }
    let outers = y.len() / width;
    parallel::for_chunks(&mut parts, width, work, |i, parts| {
        for (t, part) in (0..tiles).zip(parts.chunks_mut(TILE)) {
            let mut tile = Tile::new::<T, F>(part);
            fill(&mut tile, i / blocks * width + t * TILE, i % blocks);
            tile.flush(f);
        }
    });
    for o in 0..outers {
        for c in 0..width {
            let column = (0..blocks).map(|b| parts[(o * blocks + b) * width + c]);
            y[o * width + c] = F::finish(column.fold(F::wide_id(), F::merge));
        }
    }
}

/// Folds `x` as another type, cast part by part: a whole copy may be eight times as large, or, of a view, larger than memory.
fn fold_as<T: Element, F: Fold<T>>(f: F, merge: impl Binary<T, T>, x: &Array, axes: &[usize], keepdims: bool) -> Result<Array> {
    let outer = (0..x.ndim()).find(|&axis| x.shape()[axis] > 1);
    let Some(axis) = outer.filter(|_| x.dtype() != T::DTYPE && x.size() > CAST) else {
        return fold(f, &cast(x, T::DTYPE)?, axes, keepdims);
    };
    let n = x.shape()[axis];
    let len = (CAST / (x.size() / n)).max(1);
    let mut parts = (0..n).step_by(len).map(|start| match interrupt::stops() {
        true => Err(Error::Interrupted),
        false => fold_as(f, merge, &x.slice(axis, Slice { start, len: len.min(n - start), step: 1 }), axes, keepdims),
    });
    if axes.contains(&axis) {
        let first = parts.next().expect("an axis of more than one")?;
        return parts.try_fold(first, |total, part| map::binary_owned::<T, _>(merge, total, &part?, "reduce"));
    }
    let mut out = Array::unfilled(T::DTYPE, reduced_shape(x.shape(), axes, keepdims))?;
    let each = out.size() / n * len;
    for (y, part) in out.fresh::<T>().chunks_mut(each).zip(parts) {
        map::copy_into(&part?, y);
    }
    Ok(out)
}

/// Sum along `axes`. Bool and uint8 are summed as int64.
pub fn sum(x: &Array, axes: &[usize], keepdims: bool) -> Result<Array> {
    match x.dtype() {
        DType::F32 => fold::<f32, _>(Sum, x, axes, keepdims),
        DType::F64 => fold::<f64, _>(Sum, x, axes, keepdims),
        _ => fold_as::<i64, _>(Sum, arith::Add, x, axes, keepdims),
    }
}

/// Product along `axes`. Bool and uint8 are multiplied as int64.
pub fn prod(x: &Array, axes: &[usize], keepdims: bool) -> Result<Array> {
    match x.dtype() {
        DType::F32 => fold::<f32, _>(Prod, x, axes, keepdims),
        DType::F64 => fold::<f64, _>(Prod, x, axes, keepdims),
        _ => fold_as::<i64, _>(Prod, arith::Mul, x, axes, keepdims),
    }
}

fn check_not_empty(x: &Array, axes: &[usize], op: &str) -> Result<()> {
    if axes.iter().any(|&a| x.shape()[a] == 0) {
        bail!(Value, "{op}: expected at least one element to reduce, got shape {}", x.shape());
    }
    Ok(())
}

/// Largest element along `axes`; NaN if there is one.
pub fn max(x: &Array, axes: &[usize], keepdims: bool) -> Result<Array> {
    check_not_empty(x, axes, "max")?;
    with_dtype!(x.dtype(), T => fold::<T, _>(Max, x, axes, keepdims))
}

/// Smallest element along `axes`; NaN if there is one.
pub fn min(x: &Array, axes: &[usize], keepdims: bool) -> Result<Array> {
    check_not_empty(x, axes, "min")?;
    with_dtype!(x.dtype(), T => fold::<T, _>(Min, x, axes, keepdims))
}

/// Whether any element (`every == false`) or every element is non-zero, along `axes`.
pub fn truth(x: &Array, axes: &[usize], keepdims: bool, every: bool) -> Result<Array> {
    if every { fold_as::<bool, _>(Min, arith::And, x, axes, keepdims) } else { fold_as::<bool, _>(Max, arith::Or, x, axes, keepdims) }
}

/// Sum of all elements in float64, for norms and checks.
pub fn total<T: Float>(x: &[T]) -> f64
where
    Sum: Fold<T, Wide = f64>,
{
    x.chunks(SPAN).map(|part| fold_row(Sum, part)).sum()
}

/// Whether every element is finite.
pub fn all_finite(x: &Array) -> Result<bool> {
    let x = contiguous(x)?;
    Ok(with_float!(x.dtype(), T => finite::all_finite(x.as_slice::<T>().expect("made contiguous")), else true))
}
