//! Shape ops: the same elements under another shape. All but a reshape of a scattered view are O(1).

use crate::array::{Array, Dims, Layout, MAX_DIMS, Slice, normalize_axis, room};
use crate::autograd::{Inputs, Op, Tensor, linear};
use crate::kernels::{join, map, parts};
use crate::{Result, bail};
use smallvec::SmallVec;

pub(super) type Axes = SmallVec<[usize; MAX_DIMS]>;
type Refs<'a> = SmallVec<[&'a Tensor; MAX_DIMS]>;

struct Reshape {
    from: Dims,
}
impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || to_shape(dy, self.from))
    }
}

/// [`reshape`] to a shape of as many elements.
pub(super) fn to_shape(x: &Tensor, shape: Dims) -> Result<Tensor> {
    if *x.shape() == shape {
        return Ok(linear::unchanged(x));
    }
    let y = match x.array().reshape_view(shape) {
        Some(view) => view,
        None => map::copy(x.array())?.reshape_view(shape).expect("a copy is contiguous"),
    };
    Ok(Tensor::record(y, &[x], || Reshape { from: *x.shape() }))
}

/// The same elements in the same order under another shape; one size may be −1 and is inferred.
pub fn reshape(x: &Tensor, sizes: &[isize]) -> Result<Tensor> {
    let wanted = || format!("({})", sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    // Zeros first: sizes beside one may be too many to multiply.
    let factors = || sizes.iter().filter(|&&s| s != -1);
    if factors().any(|&s| s < 0) {
        bail!(Value, "reshape: expected sizes of at least 0 (or one -1), got {}", wanted());
    }
    let any_zero = factors().any(|&s| s == 0);
    let known = if any_zero { 0 } else { factors().fold(1, |n: usize, &s| n.saturating_mul(s as usize)) };
    let holes = sizes.iter().filter(|&&s| s == -1).count();
    let fits = match holes {
        0 => known == x.size(),
        1 => known > 0 && x.size().is_multiple_of(known),
        _ => bail!(Value, "reshape: expected at most one -1, got {}", wanted()),
    };
    if !fits {
        bail!(Value, "reshape: expected a shape of {} elements for {}, got {}", x.size(), x.shape(), wanted());
    }
    let filled: Axes = sizes.iter().map(|&s| if s == -1 { x.size() / known } else { s as usize }).collect();
    to_shape(x, Dims::new(&filled)?)
}

/// Axes `start..=end` merged into one.
pub fn flatten(x: &Tensor, start: isize, end: isize) -> Result<Tensor> {
    if x.ndim() == 0 {
        return reshape(x, &[1]);
    }
    let (start, end) = (normalize_axis(start, x.ndim(), "flatten")?, normalize_axis(end, x.ndim(), "flatten")?);
    if start > end {
        bail!(Value, "flatten: expected start ≤ end, got axes {start} and {end}");
    }
    let shape = x.shape();
    let merged = Dims::new(&shape[start..=end])?.size()?;
    to_shape(x, Dims::concat(&[&shape[..start], &[merged], &shape[end + 1..]])?)
}

/// y = x with axes in another order; dx = dy with the order undone.
struct Permute {
    order: Axes,
}
impl Op for Permute {
    fn name(&self) -> &'static str {
        "permute"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || Ok(ordered(dy, inverse(&self.order))))
    }
}

/// The order that undoes an order.
pub(super) fn inverse(order: &[usize]) -> Axes {
    let mut inverse: Axes = SmallVec::from_elem(0, order.len());
    order.iter().enumerate().for_each(|(i, &axis)| inverse[axis] = i);
    inverse
}

/// [`permute`] by distinct axes.
pub(super) fn ordered(x: &Tensor, order: Axes) -> Tensor {
    if order.is_sorted() {
        return linear::unchanged(x);
    }
    Tensor::record(x.array().permute(&order), &[x], || Permute { order })
}

/// The axes in the given order.
pub fn permute(x: &Tensor, axes: &[isize]) -> Result<Tensor> {
    let mut order = Axes::new();
    for &axis in axes {
        let axis = normalize_axis(axis, x.ndim(), "permute")?;
        if order.contains(&axis) {
            bail!(Value, "permute: expected distinct axes, got axis {axis} twice");
        }
        order.push(axis);
    }
    if order.len() != x.ndim() {
        let how = if order.len() == 2 { "; swapaxes exchanges two" } else { "" };
        bail!(Value, "permute: expected {} axes for shape {}, got {}{how}", x.ndim(), x.shape(), order.len());
    }
    Ok(ordered(x, order))
}

/// The axes in reverse order.
pub fn transpose(x: &Tensor) -> Tensor {
    ordered(x, (0..x.ndim()).rev().collect())
}

/// Two axes exchanged.
pub fn swapaxes(x: &Tensor, a: isize, b: isize) -> Result<Tensor> {
    let (a, b) = (normalize_axis(a, x.ndim(), "swapaxes")?, normalize_axis(b, x.ndim(), "swapaxes")?);
    let mut order: Axes = (0..x.ndim()).collect();
    order.swap(a, b);
    Ok(ordered(x, order))
}

/// A view broadcast to `shape`.
pub fn broadcast_to(x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let shape = Dims::new(shape)?;
    shape.size()?;
    linear::broadcast_to(x, &shape)
}

/// Without the axes of size one: those given, or all.
pub fn squeeze(x: &Tensor, axes: Option<&[isize]>) -> Result<Tensor> {
    let mut shape = *x.shape();
    let axes: Axes = match axes {
        None => (0..x.ndim()).filter(|&a| x.shape()[a] == 1).collect(),
        Some(_) => crate::kernels::reduce::reduced_axes(axes, x.ndim(), "squeeze")?,
    };
    for &axis in axes.iter().rev() {
        if x.shape()[axis] != 1 {
            bail!(Value, "squeeze: expected size 1 at axis {axis}, got shape {}", x.shape());
        }
        shape.remove(axis);
    }
    to_shape(x, shape)
}

/// With an axis of size one at `axis`.
pub fn unsqueeze(x: &Tensor, axis: isize) -> Result<Tensor> {
    let axis = normalize_axis(axis, x.ndim() + 1, "unsqueeze")?;
    let mut shape = *x.shape();
    shape.insert(axis, 1)?;
    to_shape(x, shape)
}

/// y = part of x along each axis; dx = dy put back where it came from, zeros elsewhere.
struct SliceOp {
    from: Dims,
    parts: SmallVec<[Slice; MAX_DIMS]>,
}
impl Op for SliceOp {
    fn name(&self) -> &'static str {
        "slice"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give_part(0, dy, |whole| cut(whole, &self.parts), || place(dy, self.from, self.parts.clone()))
    }
}

/// y = zeros with x at some slices; dx = those slices of dy.
struct Place {
    parts: SmallVec<[Slice; MAX_DIMS]>,
}
impl Op for Place {
    fn name(&self) -> &'static str {
        "place"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || slice(dy, &self.parts))
    }
}

/// One slice per axis (all in range).
pub fn slice(x: &Tensor, parts: &[Slice]) -> Result<Tensor> {
    assert!(parts.len() == x.ndim(), "one slice per axis");
    if parts.iter().zip(x.shape().iter()).all(|(&part, &len)| part == Slice { start: 0, len, step: 1 }) {
        return Ok(linear::unchanged(x));
    }
    let view = parts.iter().enumerate().fold(x.array().clone(), |view, (axis, &part)| view.slice(axis, part));
    Ok(Tensor::record(view, &[x], || SliceOp { from: *x.shape(), parts: parts.into() }))
}

fn cut(layout: &Layout, parts: &[Slice]) -> Layout {
    parts.iter().enumerate().fold(*layout, |layout, (axis, &part)| layout.slice(axis, part))
}

/// Zeros of shape `shape` with `x` at the given slices.
fn place(x: &Tensor, shape: Dims, parts: SmallVec<[Slice; MAX_DIMS]>) -> Result<Tensor> {
    let mut y = Array::zeros(&shape, x.dtype())?;
    let target = cut(y.layout(), &parts);
    parts::write(&mut y, &target, x.array());
    Ok(Tensor::record(y, &[x], || Place { parts }))
}

/// The order of elements reversed along `axes` (all if `None`).
pub fn flip(x: &Tensor, axes: Option<&[isize]>) -> Result<Tensor> {
    let axes = crate::kernels::reduce::reduced_axes(axes, x.ndim(), "flip")?;
    let whole = |(axis, &n): (usize, &usize)| {
        if axes.contains(&axis) { Slice { start: n.max(1) - 1, len: n, step: -1 } } else { Slice { start: 0, len: n, step: 1 } }
    };
    slice(x, &x.shape().iter().enumerate().map(whole).collect::<SmallVec<[Slice; MAX_DIMS]>>())
}

/// `len` elements of one axis from `start` on.
pub fn narrow(x: &Tensor, axis: usize, start: usize, len: usize) -> Result<Tensor> {
    let mut parts: SmallVec<[Slice; MAX_DIMS]> = x.shape().iter().map(|&n| Slice { start: 0, len: n, step: 1 }).collect();
    parts[axis] = Slice { start, len, step: 1 };
    slice(x, &parts)
}

/// y = the inputs one after another along an axis; each dx = its part of dy.
struct Concatenate {
    axis: usize,
    sizes: Vec<usize>,
}
impl Op for Concatenate {
    fn name(&self) -> &'static str {
        "concatenate"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let mut start = 0;
        for (i, &len) in self.sizes.iter().enumerate() {
            dx.give(i, || narrow(dy, self.axis, start, len))?;
            start += len;
        }
        Ok(())
    }
}

/// The tensors one after another along `axis`; other sizes must agree.
pub fn concatenate(xs: &[Tensor], axis: isize) -> Result<Tensor> {
    let Some(first) = xs.first() else {
        bail!(Value, "concatenate: expected at least one tensor, got none");
    };
    let axis = normalize_axis(axis, first.ndim(), "concatenate")?;
    let mut shape = *first.shape();
    shape[axis] = 0;
    let mut dtype = first.dtype();
    for x in xs {
        let same = x.ndim() == first.ndim() && (0..shape.len()).all(|a| a == axis || x.shape()[a] == shape[a]);
        if !same {
            bail!(Value, "concatenate: expected shapes equal outside axis {axis}, got {} and {}", first.shape(), x.shape());
        }
        shape[axis] = shape[axis].saturating_add(x.shape()[axis]);
        dtype = dtype.promote(x.dtype());
    }
    let out = join::join(xs.iter().map(Tensor::array), axis, dtype, shape)?;
    let refs: Refs = xs.iter().collect();
    Ok(Tensor::record(out, &refs, || Concatenate { axis, sizes: xs.iter().map(|x| x.shape()[axis]).collect() }))
}

/// y = the inputs beside each other along a new axis; each dx = its place in dy.
struct Stack {
    axis: usize,
}
impl Op for Stack {
    fn name(&self) -> &'static str {
        "stack"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let mut shape = *dy.shape();
        shape.remove(self.axis);
        (0..dx.edges().len()).try_for_each(|i| dx.give(i, || to_shape(&narrow(dy, self.axis, i, 1)?, shape)))
    }
}

/// The tensors, all of one shape, along a new axis.
pub fn stack(xs: &[Tensor], axis: isize) -> Result<Tensor> {
    let Some(first) = xs.first() else {
        bail!(Value, "stack: expected at least one tensor, got none");
    };
    if let Some(other) = xs.iter().find(|x| x.shape() != first.shape()) {
        bail!(Value, "stack: expected tensors of one shape, got {} and {}", first.shape(), other.shape());
    }
    let axis = normalize_axis(axis, first.ndim() + 1, "stack")?;
    let mut shape = *first.shape();
    shape.insert(axis, xs.len())?;
    let dtype = xs.iter().fold(first.dtype(), |dtype, x| dtype.promote(x.dtype()));
    let out = join::join(xs.iter().map(Tensor::array), axis, dtype, shape)?;
    let refs: Refs = xs.iter().collect();
    Ok(Tensor::record(out, &refs, || Stack { axis }))
}

/// The sizes of consecutive parts of `each` out of `n`; the last may be smaller. Nothing is one part of nothing.
pub fn even_sizes(n: usize, each: usize) -> Result<Vec<usize>> {
    let (all, step) = (n.max(1), if each == 0 { n.max(1) } else { each });
    let mut sizes = room(all.div_ceil(step))?;
    sizes.extend((0..all).step_by(step).map(|start| each.min(n - start)));
    Ok(sizes)
}

/// Consecutive parts of the given sizes along one axis.
pub fn split(x: &Tensor, sizes: &[usize], axis: isize) -> Result<Vec<Tensor>> {
    let axis = normalize_axis(axis, x.ndim(), "split")?;
    let total = sizes.iter().try_fold(0usize, |n, &s| n.checked_add(s));
    if total != Some(x.shape()[axis]) {
        bail!(Value, "split: expected sizes that add up to {}, got {sizes:?}", x.shape()[axis]);
    }
    let (mut parts, mut start) = (room(sizes.len())?, 0);
    for &len in sizes {
        parts.push(narrow(x, axis, start, len)?);
        start += len;
    }
    Ok(parts)
}
