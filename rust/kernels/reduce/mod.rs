//! Reductions along any axes of any layout.
//!
//! Invariant: a reduction is cut into blocks fixed by shape; a block is folded over a fixed number of lanes, and blocks are
//! merged in order. Neither threads nor the vector width decide the order of summation.

mod by_columns;
mod by_rows;
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
use crate::array::{Array, DType, Dims, Element, MAX_DIMS, Slice};
use crate::{Error, Result, bail, with_dtype, with_float};
use by_columns::{Columns, block_rows, fold_by_columns, fold_small};
use by_rows::fold_by_rows;
pub use extreme::arg_extreme;
pub use fold::{Fold, Sum};
use fold::{Max, Min, Prod, fold_row};
use smallvec::SmallVec;

/// Most partial results at a time: a view may have more elements than memory has room for parts of them.
const PARTS: usize = 1 << 20;
/// Elements of one output that one unit of parallel work folds.
const SPAN: usize = 1 << 16;
/// The longest rows that are gathered element by element.
const SCATTERED: usize = 256;
/// Elements of another type that are cast at a time.
const CAST: usize = 1 << 16;

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

fn kept_axes(x: &Array, axes: &[usize]) -> Axes {
    (0..x.ndim()).filter(|a| !axes.contains(a)).collect()
}

/// What was folded of kept axes that [`as_they_lie`] put in this order, in the order of `shape`.
fn turned_back(near: &Array, order: &[usize], shape: Dims) -> Result<Array> {
    let mut back: Axes = (0..near.ndim()).collect();
    back.sort_unstable_by_key(|&i| order[i]);
    Ok(contiguous(&near.permute(&back))?.reshape_view(shape).expect("made contiguous"))
}

/// Folds `x` along `axes` (sorted and distinct). The result has the kept axes, or all with `keepdims`.
fn fold<T: Element, F: Fold<T>>(f: F, x: &Array, axes: &[usize], keepdims: bool) -> Result<Array> {
    let kept = kept_axes(x, axes);
    if let Some(order) = as_they_lie(x, &kept, axes) {
        let near = fold(f, &x.permute(&order), &(kept.len()..x.ndim()).collect::<Axes>(), false)?;
        return turned_back(&near, &order, reduced_shape(x.shape(), axes, keepdims));
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
        fold_small(f, data, span, y);
        return Ok(out);
    }
    // No more than x reaches, since what is large is read otherwise than what is near.
    let (before, after) = x.layout().ends();
    let data = &x.data::<T>()[x.layout().offset - before.unsigned_abs()..][..(after - before) as usize + 1];
    let outer = Plan::new([&sub_layout(x, &kept, before.unsigned_abs())]);
    let inner = Plan::new([&sub_layout(x, axes, 0)]);
    match Columns::of(&outer, &inner, span) {
        Some(columns) if columns == Columns::PLAIN => fold_by_columns(f, data, (outer, inner), columns, y),
        Some(columns) => fold_by_columns(F::Exact::default(), data, (outer, inner), columns, y),
        None => fold_by_rows(f, data, (&outer, &inner), span, y),
    }
    Ok(out)
}

/// The kept axes and after them the others, each as they lie in memory, the farthest apart first; none if they are so already.
fn as_they_lie(x: &Array, kept: &[usize], axes: &[usize]) -> Option<Axes> {
    if x.is_contiguous() {
        return None;
    }
    let key = |&a: &usize| distance(x, a);
    if kept.is_sorted_by_key(key) && axes.is_sorted_by_key(key) {
        return None;
    }
    let mut order: Axes = kept.iter().chain(axes).copied().collect();
    order[..kept.len()].sort_by_key(key);
    order[kept.len()..].sort_by_key(key);
    Some(order)
}

/// What axes are put in order by: the farthest apart come first. Those of one element, or of one again and again, are no part of an
/// inner loop.
fn distance(x: &Array, axis: usize) -> isize {
    let stride = x.layout().strides()[axis];
    if x.shape()[axis] == 1 || stride == 0 { isize::MIN } else { -stride.abs() }
}

/// The layout of some axes of `x` alone, from `offset` on.
fn sub_layout(x: &Array, axes: &[usize], offset: usize) -> crate::array::Layout {
    let mut layout = *x.layout();
    for axis in (0..x.ndim()).rev().filter(|a| !axes.contains(a)) {
        layout = layout.remove_axis(axis);
    }
    layout.offset = offset;
    layout
}

/// A plan without its innermost axis: where each of that begins.
fn without_innermost(mut plan: Plan<1>) -> Plan<1> {
    plan.sizes.pop();
    plan.strides[0].pop();
    if plan.sizes.is_empty() {
        plan.sizes.push(1);
        plan.strides[0].push(0);
    }
    plan
}

/// The least length of parts of `span` with which those of all n results are no more than [`PARTS`].
fn least(span: usize, n: usize) -> usize {
    span.div_ceil((PARTS / n.max(1)).max(1))
}

/// Folds `x` as another type, cast part by part: a whole copy may be eight times as large, or, of a view, larger than memory.
fn fold_as<T: Element, F: Fold<T>>(f: F, merge: impl Binary<T, T>, x: &Array, axes: &[usize], keepdims: bool) -> Result<Array> {
    let mut order: Axes = (0..x.ndim()).collect();
    if x.dtype() != T::DTYPE && !x.is_contiguous() && !order.is_sorted_by_key(|&a| distance(x, a)) {
        // A cast keeps what lies side by side there, and its parts lie side by side, if axes come in the order of their strides.
        order.sort_by_key(|&a| distance(x, a));
        let (near, kept): (Axes, Axes) = (0..x.ndim()).partition(|&i| axes.contains(&order[i]));
        let kept: Axes = kept.iter().map(|&i| order[i]).collect();
        let near = fold_as(f, merge, &x.permute(&order), &near, false)?;
        return turned_back(&near, &kept, reduced_shape(x.shape(), axes, keepdims));
    }
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
    if x.dtype() == DType::U8 {
        // The largest is zero where all are.
        let extreme = if every { fold::<u8, _>(Min, x, axes, keepdims) } else { fold::<u8, _>(Max, x, axes, keepdims) };
        return cast(&extreme?, DType::Bool);
    }
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
