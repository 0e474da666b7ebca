//! Reductions along axes. `axes: None` means all; `keepdims` leaves them with size 1.

use super::binary::{add, choose, clip, constant, div, equal, mul, sub};
use super::shape::Axes;
use super::{shape, unary};
use crate::array::{Array, DType, Dims, Scalar, normalize_axis};
use crate::autograd::{Inputs, Op, Tensor, linear};
use crate::kernels::{reduce as kernel, rows};
use crate::{Result, bail};

/// `dy` with the reduced axes back in place as size 1: it then broadcasts to the input.
pub(super) fn restore(dy: &Tensor, from: &Dims, axes: &[usize]) -> Result<Tensor> {
    shape::to_shape(dy, kernel::reduced_shape(from, axes, true))
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
    sum_axes(x, &kernel::reduced_axes(axes, x.ndim(), "sum")?, keepdims)
}

/// [`sum`] along distinct axes in ascending order.
pub(super) fn sum_axes(x: &Tensor, axes: &[usize], keepdims: bool) -> Result<Tensor> {
    let y = kernel::sum(x.array(), axes, keepdims)?;
    Ok(Tensor::record(y, &[x], || Sum { from: *x.shape(), axes: axes.into() }))
}

fn count(x: &Tensor, axes: &[usize]) -> f64 {
    axes.iter().map(|&a| x.shape()[a]).product::<usize>() as f64
}

/// Mean along axes; integers are averaged as float64. The mean of nothing is NaN.
pub fn mean(x: &Tensor, axes: Option<&[isize]>, keepdims: bool) -> Result<Tensor> {
    let x = if x.dtype().is_float() { x.clone() } else { linear::cast(x, DType::F64)? };
    let n = count(&x, &kernel::reduced_axes(axes, x.ndim(), "mean")?);
    let total = sum(&x, axes, keepdims)?;
    div(&total, &constant(n, &x)?)
}

/// x less its mean, to the precision of what is left rather than of x: first less the mean as it comes, rounded, which is a constant
/// and so leaves the gradient alone, and then less the mean of that.
pub(super) fn centred(x: &Tensor, mean: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let near = sub(x, &mean(x)?.detach())?;
    sub(&near, &mean(&near)?)
}

/// y = Σ(x − mean)² of rows; dx = 2 dy (x − mean), as what is left of the mean's own is Σ(x − mean) = 0.
struct Spread {
    x: Array,
    axes: Axes,
}
impl Op for Spread {
    fn name(&self) -> &'static str {
        "var"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let x = dx.input(0, &self.x);
        dx.give(0, || {
            let n = constant(count(&x, &self.axes), &x)?;
            let centred = centred(&x, |x| div(&sum_axes(x, &self.axes, true)?, &n))?;
            mul(&restore(&mul(dy, &constant(2.0, dy)?)?, x.shape(), &self.axes)?, &centred)
        })
    }
}

/// Rows of fewer elements are centred sixteen at a time, as reductions read them.
const SHORT: f64 = 32.0;

/// Whether each result along these axes comes from a row of elements that lie side by side.
fn is_rows(x: &Array, axes: &[usize]) -> bool {
    x.is_contiguous() && x.size() > 0 && axes.iter().rev().zip((0..x.ndim()).rev()).all(|(&axis, last)| axis == last)
}

/// Variance along axes, centred twice, so that it is exact far from 0 too: Σ(x − mean)² / (n − correction).
pub fn var(x: &Tensor, axes: Option<&[isize]>, keepdims: bool, correction: f64) -> Result<Tensor> {
    let x = if x.dtype().is_float() { x.clone() } else { linear::cast(x, DType::F64)? };
    let along = kernel::reduced_axes(axes, x.ndim(), "var")?;
    let n = count(&x, &along);
    let total = if n >= SHORT && is_rows(x.array(), &along) {
        let total = rows::spread(x.array(), mean(&x.detach(), axes, keepdims)?.array())?;
        Tensor::record(total, &[&x], || Spread { x: x.array().clone(), axes: along[..].into() })
    } else {
        sum(&unary::square(&centred(&x, |x| mean(x, axes, true))?)?, axes, keepdims)?
    };
    div(&total, &constant(if n < correction { 0.0 } else { n - correction }, &x)?)
}

/// Standard deviation: the square root of [`var`]. Where that is 0, where a root has no slope, the gradient is 0.
pub fn std(x: &Tensor, axes: Option<&[isize]>, keepdims: bool, correction: f64) -> Result<Tensor> {
    let var = var(x, axes, keepdims, correction)?;
    if !var.requires_grad() {
        return unary::sqrt(&var);
    }
    let zero = constant(0.0, &var)?;
    let is_zero = equal(&var, &zero)?;
    choose(&is_zero, &zero, &unary::sqrt(&choose(&is_zero, &constant(1.0, &var)?, &var)?)?)
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
            let share = div(&reached, &sum_axes(&reached, &self.axes, true)?)?;
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
        let flat = shape::to_shape(&x.detach(), Dims::new(&[x.array().size()])?)?;
        let y = kernel::arg_extreme(flat.array(), 0, false, largest)?;
        let shape = kernel::reduced_shape(x.shape(), &kernel::reduced_axes(None, x.ndim(), "argmax")?, keepdims);
        return Ok(Tensor::constant(y.reshape_view(shape).expect("one element")));
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

/// y = log Σeˣ; dx = dy · e^(x − m) / Σe^(x − m) for the largest element m, since far from 0 x − y has lost its digits.
struct LogSumExp {
    x: Array,
    top: Array,
    axes: Axes,
}
impl Op for LogSumExp {
    fn name(&self) -> &'static str {
        "logsumexp"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let x = dx.input(0, &self.x);
        dx.give(0, || {
            let parts = unary::exp(&sub(&x, &Tensor::constant(self.top.clone()))?)?;
            let total = sum_axes(&parts, &self.axes, true)?;
            // Where all of a row is −∞ the weights are 0/0; they are zero, as in PyTorch and JAX. Those of +∞ are NaN.
            let total = choose(&equal(&total, &constant(0.0, &total)?)?, &constant(1.0, &total)?, &total)?;
            mul(&parts, &div(&restore(dy, x.shape(), &self.axes)?, &total)?)
        })
    }
}

/// The largest elements along axes, kept, off the tape; finite, so that x less them is no NaN.
fn finite_top(x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let most = if x.dtype() == DType::F32 { f32::MAX.into() } else { f64::MAX };
    let top = Tensor::constant(kernel::max(x.array(), axes, true)?);
    clip(&top, Some(Scalar::Float(-most)), Some(Scalar::Float(most)))
}

/// log Σeˣ along axes, without overflow.
pub fn logsumexp(x: &Tensor, axes: Option<&[isize]>, keepdims: bool) -> Result<Tensor> {
    let x = linear::cast(x, x.dtype().to_float())?;
    let axes = kernel::reduced_axes(axes, x.ndim(), "logsumexp")?;
    if axes.iter().any(|&a| x.shape()[a] == 0) {
        bail!(Value, "logsumexp: expected at least one element to reduce, got shape {}", x.shape());
    }
    let top = finite_top(&x, &axes)?;
    let total = sum_axes(&unary::exp(&sub(&x.detach(), &top)?)?, &axes, true)?;
    let y = add(&unary::log(&total)?, &top)?;
    let y = y.array().reshape_view(kernel::reduced_shape(x.shape(), &axes, keepdims)).expect("a fresh result is contiguous");
    Ok(Tensor::record(y, &[&x], || LogSumExp { x: x.array().clone(), top: top.into_array(), axes }))
}
