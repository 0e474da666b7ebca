//! y = eˣ / Σeˣ along an axis; dx = y·(dy − Σ dy·y). And its logarithm: dx = dy − eʸ·Σdy.

use super::binary::{mul, sub};
use super::reduce::{logsumexp, sum_axes};
use super::unary;
use crate::array::{Array, normalize_axis};
use crate::autograd::{Inputs, Op, Tensor, linear};
use crate::kernels::map::contiguous;
use crate::kernels::rows;
use crate::{Result, bail, with_float};

struct Softmax {
    y: Array,
    axis: usize,
}
impl Op for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        if !dx.recording() {
            let fused = with_float!(dy.dtype(), T => by_rows(&[&self.y, dy.array()], self.axis, |x, c, dx: &mut [T]| {
                rows::softmax_backward(x[0], x[1], c, dx);
            }), else unreachable!("only floats are recorded"))?;
            return dx.give(0, || Ok(Tensor::constant(fused)));
        }
        let y = dx.output(&self.y);
        dx.give(0, || {
            let weighted = mul(dy, &y)?;
            sub(&weighted, &mul(&y, &sum_axes(&weighted, &[self.axis], true)?)?)
        })
    }
}

struct LogSoftmax {
    y: Array,
    axis: usize,
}
impl Op for LogSoftmax {
    fn name(&self) -> &'static str {
        "log_softmax"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        if !dx.recording() {
            let fused = with_float!(dy.dtype(), T => by_rows(&[&self.y, dy.array()], self.axis, |x, c, dx: &mut [T]| {
                rows::log_softmax_backward(x[0], x[1], c, dx);
            }), else unreachable!("only floats are recorded"))?;
            return dx.give(0, || Ok(Tensor::constant(fused)));
        }
        let y = dx.output(&self.y);
        dx.give(0, || sub(dy, &mul(&unary::exp(&y)?, &sum_axes(dy, &[self.axis], true)?)?))
    }
}

/// A kernel over rows, run over the rows along any axis of arrays of one shape.
fn by_rows<T: crate::array::Element>(xs: &[&Array], axis: usize, kernel: impl FnOnce(&[&[T]], usize, &mut [T])) -> Result<Array> {
    let last = xs[0].ndim() - 1;
    let xs = xs.iter().map(|x| contiguous(&x.swap_axes(axis, last))).collect::<Result<Vec<Array>>>()?;
    let slices: Vec<&[T]> = xs.iter().map(|x| x.as_slice().expect("made contiguous")).collect();
    let mut y = Array::unfilled(T::DTYPE, *xs[0].shape())?;
    kernel(&slices, xs[0].shape()[last], y.fresh());
    contiguous(&y.swap_axes(axis, last))
}

/// `x` as a float and the axis in range, with something along it.
fn prepare(x: &Tensor, axis: isize, op: &str) -> Result<(Tensor, usize)> {
    let axis = normalize_axis(axis, x.ndim(), op)?;
    if x.shape()[axis] == 0 {
        bail!(Value, "{op}: expected at least one element along axis {axis}, got shape {}", x.shape());
    }
    Ok((linear::cast(x, x.dtype().to_float())?, axis))
}

/// eˣ / Σeˣ along an axis, without overflow.
pub fn softmax(x: &Tensor, axis: isize) -> Result<Tensor> {
    let (x, axis) = prepare(x, axis, "softmax")?;
    let y = with_float!(x.dtype(), T => by_rows(&[x.array()], axis, |x, c, y: &mut [T]| rows::softmax(x[0], c, y)), else unreachable!("cast to float"))?;
    let kept = y.clone();
    Ok(Tensor::record(y, &[&x], || Softmax { y: kept, axis }))
}

/// x − log Σeˣ along an axis.
pub fn log_softmax(x: &Tensor, axis: isize) -> Result<Tensor> {
    let (x, axis) = prepare(x, axis, "log_softmax")?;
    let y = with_float!(x.dtype(), T => by_rows(&[x.array()], axis, |x, c, y: &mut [T]| rows::log_softmax(x[0], c, y)), else unreachable!("cast to float"))?;
    let kept = y.clone();
    Ok(Tensor::record(y, &[&x], || LogSoftmax { y: kept, axis }))
}

/// The definition of [`log_softmax`], over tensors; that of [`softmax`] is its exponential.
pub fn composed(x: &Tensor, axis: isize) -> Result<Tensor> {
    sub(x, &logsumexp(x, Some(&[axis]), true)?)
}
