//! Reductions along axes. `axes: None` means all; `keepdims` leaves them with size 1.

use super::binary::{choose, div, equal, match_weak, mul, sub};
use super::{shape, unary};
use crate::array::{Array, DType, Dims, MAX_DIMS, Scalar, normalize_axis};
use crate::autograd::{Inputs, Op, Tensor, linear};
use crate::kernels::reduce as kernel;
use crate::{Result, bail};
use smallvec::SmallVec;

type Axes = SmallVec<[usize; MAX_DIMS]>;

/// `dy` with the reduced axes back in place as size 1: it then broadcasts to the input.
fn restore(dy: &Tensor, from: &Dims, axes: &[usize]) -> Result<Tensor> {
    let kept: SmallVec<[isize; MAX_DIMS]> = kernel::reduced_shape(from, axes, true).iter().map(|&n| n as isize).collect();
    shape::reshape(dy, &kept)
}

/// y = Σx; dx = dy, broadcast back.
struct Sum {
    from: Dims,
    axes: Axes,
}
impl Op for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || linear::broadcast_to(&restore(dy, &self.from, &self.axes)?, &self.from))
    }
}

/// Sum along axes; bools and uint8 are summed as int64.
pub fn sum(x: &Tensor, axes: Option<&[isize]>, keepdims: bool) -> Result<Tensor> {
    let axes = kernel::reduced_axes(axes, x.ndim(), "sum")?;
    let y = kernel::sum(x.array(), &axes, keepdims)?;
    Ok(Tensor::record(y, &[x], || Sum { from: *x.shape(), axes }))
}

fn count(x: &Tensor, axes: &[usize]) -> f64 {
    axes.iter().map(|&a| x.shape()[a]).product::<usize>() as f64
}

/// Mean along axes; integers are averaged as float64. The mean of nothing is NaN.
pub fn mean(x: &Tensor, axes: Option<&[isize]>, keepdims: bool) -> Result<Tensor> {
    let x = if x.dtype().is_float() { x.clone() } else { linear::cast(x, DType::F64)? };
    let n = count(&x, &kernel::reduced_axes(axes, x.ndim(), "mean")?);
    let total = sum(&x, axes, keepdims)?;
    div(&total, &match_weak(Scalar::Float(n), x.dtype())?)
}

/// x less its mean, to the precision of what is left rather than of x: first less the mean as it comes, rounded, which is a constant
/// and so leaves the gradient alone, and then less the mean of that.
pub(super) fn centred(x: &Tensor, mean: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let near = sub(x, &mean(x)?.detach())?;
    sub(&near, &mean(&near)?)
}

/// Variance along axes, [`centred`] first: Σ(x − mean)² / (n − correction).
pub fn var(x: &Tensor, axes: Option<&[isize]>, keepdims: bool, correction: f64) -> Result<Tensor> {
    let x = if x.dtype().is_float() { x.clone() } else { linear::cast(x, DType::F64)? };
    let n = count(&x, &kernel::reduced_axes(axes, x.ndim(), "var")?);
    let centred = centred(&x, |x| mean(x, axes, true))?;
    let total = sum(&unary::square(&centred)?, axes, keepdims)?;
    div(&total, &match_weak(Scalar::Float((n - correction).max(0.0)), x.dtype())?)
}

/// Standard deviation: the square root of [`var`]. Where that is 0, where a root has no slope, the gradient is 0.
pub fn std(x: &Tensor, axes: Option<&[isize]>, keepdims: bool, correction: f64) -> Result<Tensor> {
    let var = var(x, axes, keepdims, correction)?;
    if !var.requires_grad() {
        return unary::sqrt(&var);
    }
    let zero = match_weak(Scalar::Float(0.0), var.dtype())?;
    let constant = equal(&var, &zero)?;
    choose(&constant, &zero, &unary::sqrt(&choose(&constant, &match_weak(Scalar::Float(1.0), var.dtype())?, &var)?)?)
}

/// y = Πx; dx = dy · Π of the others, computed as y/x where no factor is zero and explicitly where one is.
struct Prod {
    x: Array,
    axes: Axes,
}
impl Op for Prod {
    fn name(&self) -> &'static str {
        "prod"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let x = dx.input(0, &self.x);
        dx.give(0, || {
            let dy = restore(dy, x.shape(), &self.axes)?;
            mul(&dy, &product_of_others(&x, &self.axes)?)
        })
    }
}

/// For each element the product of the others along `axes`: prefixes times suffixes, so zeros need no special case.
fn product_of_others(x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let kept: Vec<isize> = (0..x.ndim()).filter(|a| !axes.contains(a)).map(|a| a as isize).collect();
    let order: Vec<isize> = kept.iter().copied().chain(axes.iter().map(|&a| a as isize)).collect();
    let moved = shape::permute(x, &order)?;
    let n = axes.iter().map(|&a| x.shape()[a]).product::<usize>();
    let mut flat: Vec<isize> = kept.iter().map(|&a| x.shape()[a as usize] as isize).collect();
    let row = kept.len();
    flat.push(n as isize);
    let rows = shape::reshape(&moved, &flat)?;
    let column = |i: usize| shape::narrow(&rows, row, i, 1);
    let one = {
        let mut size = *rows.shape();
        size[row] = 1;
        Tensor::constant(Array::full(&size, Scalar::Int(1), x.dtype())?)
    };
    let (mut before, mut after) = (vec![one.clone()], vec![one]);
    for i in 1..n {
        before.push(mul(&before[i - 1], &column(i - 1)?)?);
        after.push(mul(&after[i - 1], &column(n - i)?)?);
    }
    let others = (0..n).map(|i| mul(&before[i], &after[n - 1 - i])).collect::<Result<Vec<_>>>()?;
    if others.is_empty() {
        return Ok(x.clone());
    }
    let sizes: Vec<isize> = moved.shape().iter().map(|&n| n as isize).collect();
    let moved = shape::reshape(&shape::concatenate(&others, row as isize)?, &sizes)?;
    let mut inverse = vec![0isize; order.len()];
    order.iter().enumerate().for_each(|(i, &axis)| inverse[axis as usize] = i as isize);
    shape::permute(&moved, &inverse)
}

/// Product along axes; bools and uint8 are multiplied as int64.
pub fn prod(x: &Tensor, axes: Option<&[isize]>, keepdims: bool) -> Result<Tensor> {
    let axes = kernel::reduced_axes(axes, x.ndim(), "prod")?;
    let y = kernel::prod(x.array(), &axes, keepdims)?;
    Ok(Tensor::record(y, &[x], || Prod { x: x.array().clone(), axes }))
}

/// y = the extreme of x; dx = dy shared evenly among the elements that reach it.
struct Extreme {
    x: Array,
    y: Array,
    axes: Axes,
    largest: bool,
}
impl Op for Extreme {
    fn name(&self) -> &'static str {
        if self.largest { "max" } else { "min" }
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || {
            let y = restore(&Tensor::constant(self.y.clone()), self.x.shape(), &self.axes)?;
            let reached = linear::cast(&equal(&Tensor::constant(self.x.clone()), &y)?, dy.dtype())?;
            let axes: SmallVec<[isize; MAX_DIMS]> = self.axes.iter().map(|&a| a as isize).collect();
            let share = div(&reached, &sum(&reached, Some(&axes), true)?)?;
            mul(&restore(dy, self.x.shape(), &self.axes)?, &share)
        })
    }
}

fn extreme(x: &Tensor, axes: Option<&[isize]>, keepdims: bool, largest: bool) -> Result<Tensor> {
    let op = if largest { "max" } else { "min" };
    let axes = kernel::reduced_axes(axes, x.ndim(), op)?;
    let y = if largest { kernel::max } else { kernel::min }(x.array(), &axes, keepdims)?;
    let kept = y.clone();
    Ok(Tensor::record(y, &[x], || Extreme { x: x.array().clone(), y: kept, axes, largest }))
}

/// Largest element along axes; NaN if there is one.
pub fn max(x: &Tensor, axes: Option<&[isize]>, keepdims: bool) -> Result<Tensor> {
    extreme(x, axes, keepdims, true)
}

/// Smallest element along axes; NaN if there is one.
pub fn min(x: &Tensor, axes: Option<&[isize]>, keepdims: bool) -> Result<Tensor> {
    extreme(x, axes, keepdims, false)
}

fn arg_extreme(x: &Tensor, axis: Option<isize>, keepdims: bool, largest: bool) -> Result<Tensor> {
    let Some(axis) = axis else {
        let y = arg_extreme(&shape::reshape(&x.detach(), &[-1])?, Some(0), false, largest)?;
        return if keepdims { shape::reshape(&y, &vec![1; x.ndim()]) } else { Ok(y) };
    };
    let axis = normalize_axis(axis, x.ndim(), if largest { "argmax" } else { "argmin" })?;
    Ok(Tensor::constant(kernel::arg_extreme(x.array(), axis, keepdims, largest)?))
}

/// Index of the first largest element along an axis, or of the flattened tensor.
pub fn argmax(x: &Tensor, axis: Option<isize>, keepdims: bool) -> Result<Tensor> {
    arg_extreme(x, axis, keepdims, true)
}

/// Index of the first smallest element along an axis, or of the flattened tensor.
pub fn argmin(x: &Tensor, axis: Option<isize>, keepdims: bool) -> Result<Tensor> {
    arg_extreme(x, axis, keepdims, false)
}

/// Whether any element is non-zero.
pub fn any(x: &Tensor, axes: Option<&[isize]>, keepdims: bool) -> Result<Tensor> {
    let axes = kernel::reduced_axes(axes, x.ndim(), "any")?;
    Ok(Tensor::constant(kernel::truth(x.array(), &axes, keepdims, false)?))
}

/// Whether every element is non-zero.
pub fn all(x: &Tensor, axes: Option<&[isize]>, keepdims: bool) -> Result<Tensor> {
    let axes = kernel::reduced_axes(axes, x.ndim(), "all")?;
    Ok(Tensor::constant(kernel::truth(x.array(), &axes, keepdims, true)?))
}

/// y = log Σeˣ; dx = dy · e^(x − y).
struct LogSumExp {
    x: Array,
    y: Array,
    axes: Axes,
}
impl Op for LogSumExp {
    fn name(&self) -> &'static str {
        "logsumexp"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let (x, y) = (dx.input(0, &self.x), dx.output(&self.y));
        dx.give(0, || {
            let y = restore(&y, x.shape(), &self.axes)?;
            // Where all of a row is −∞ the weights are 0/0; they are zero, as in PyTorch and JAX. Those of +∞ are NaN.
            let [zero, lowest] = [0.0, f64::NEG_INFINITY].map(|c| match_weak(Scalar::Float(c), y.dtype()));
            let y = choose(&equal(&y, &lowest?)?, &zero?, &y)?;
            mul(&restore(dy, x.shape(), &self.axes)?, &unary::exp(&sub(&x, &y)?)?)
        })
    }
}

/// log Σeˣ along axes, without overflow.
pub fn logsumexp(x: &Tensor, axes: Option<&[isize]>, keepdims: bool) -> Result<Tensor> {
    let x = linear::cast(x, x.dtype().to_float())?;
    let axes = kernel::reduced_axes(axes, x.ndim(), "logsumexp")?;
    if axes.iter().any(|&a| x.shape()[a] == 0) {
        bail!(Value, "logsumexp: expected at least one element to reduce, got shape {}", x.shape());
    }
    let y = crate::autograd::no_grad(|| {
        let signed: SmallVec<[isize; MAX_DIMS]> = axes.iter().map(|&a| a as isize).collect();
        let top = max(&x.detach(), Some(&signed), true)?;
        let top = super::binary::choose(&unary::isinf(&top)?, &match_weak(Scalar::Float(0.0), top.dtype())?, &top)?;
        let total = sum(&unary::exp(&sub(&x.detach(), &top)?)?, Some(&signed), true)?;
        super::binary::add(&unary::log(&total)?, &top)
    })?;
    let y = y.array().reshape_view(kernel::reduced_shape(x.shape(), &axes, keepdims)).expect("a fresh result is contiguous");
    let kept = y.clone();
    Ok(Tensor::record(y, &[&x], || LogSumExp { x: x.array().clone(), y: kept, axes }))
}
