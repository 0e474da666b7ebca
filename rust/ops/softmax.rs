//! y = eˣ / Σeˣ along an axis; dx = y·(dy − Σ dy·y). And its logarithm: dx = dy − eʸ·Σdy.

use super::binary::{mul, sub};
use super::reduce::{logsumexp, sum_axes};
use super::unary;
use crate::array::{Array, normalize_axis};
use crate::autograd::{Inputs, Op, Tensor, linear};
use crate::kernels::map::contiguous;
use crate::kernels::rows::{self, down};
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
            let fused = with_float!(dy.dtype(), T => along(&[&self.y, dy.array()], self.axis, |x, how, dx: &mut [T]| match how {
                (c, 1) => rows::softmax_backward(x[0], x[1], c, dx),
                matrix => down::softmax_backward(x[0], x[1], matrix, dx),
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
            let fused = with_float!(dy.dtype(), T => along(&[&self.y, dy.array()], self.axis, |x, how, dx: &mut [T]| match how {
                (c, 1) => rows::log_softmax_backward(x[0], x[1], c, dx),
                matrix => down::log_softmax_backward(x[0], x[1], matrix, dx),
            }), else unreachable!("only floats are recorded"))?;
            return dx.give(0, || Ok(Tensor::constant(fused)));
        }
        let y = dx.output(&self.y);
        dx.give(0, || sub(dy, &mul(&unary::exp(&y)?, &sum_axes(dy, &[self.axis], true)?)?))
    }
}

/// Elements behind the axis from which on a kernel goes down columns; fewer would leave its lanes empty.
const COLUMNS: usize = 16;

/// A kernel along any axis of arrays of one shape, which is told how many elements there are along it and how many behind each:
/// one, or enough to go by columns.
fn along<T: crate::array::Element>(xs: &[&Array], axis: usize, kernel: impl FnOnce(&[&[T]], (usize, usize), &mut [T])) -> Result<Array> {
    let shape = xs[0].shape();
    let inner = shape[axis + 1..].iter().product::<usize>();
    if inner > 1 && inner < COLUMNS {
        // As the last axis, behind the others in their order, so that neighbours merge when they are turned.
        let order: Vec<usize> = (0..shape.len()).filter(|&a| a != axis).chain([axis]).collect();
        let back: Vec<usize> = (0..axis).chain([shape.len() - 1]).chain(axis..shape.len() - 1).collect();
        let xs: Vec<Array> = xs.iter().map(|x| x.permute(&order)).collect();
        let y = along(&xs.iter().collect::<Vec<_>>(), shape.len() - 1, kernel)?;
        return contiguous(&y.permute(&back));
    }
    let xs = xs.iter().map(|x| contiguous(x)).collect::<Result<Vec<Array>>>()?;
    let slices: Vec<&[T]> = xs.iter().map(|x| x.as_slice().expect("made contiguous")).collect();
    let mut y = Array::unfilled(T::DTYPE, *shape)?;
    kernel(&slices, (shape[axis], inner), y.fresh());
    Ok(y)
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
    let y = with_float!(x.dtype(), T => along(&[x.array()], axis, |x, how, y: &mut [T]| match how {
        (c, 1) => rows::softmax(x[0], c, y),
        matrix => down::softmax(x[0], matrix, y),
    }), else unreachable!("cast to float"))?;
    let kept = y.clone();
    Ok(Tensor::record(y, &[&x], || Softmax { y: kept, axis }))
}

/// x − log Σeˣ along an axis.
pub fn log_softmax(x: &Tensor, axis: isize) -> Result<Tensor> {
    let (x, axis) = prepare(x, axis, "log_softmax")?;
    let y = with_float!(x.dtype(), T => along(&[x.array()], axis, |x, how, y: &mut [T]| match how {
        (c, 1) => rows::log_softmax(x[0], c, y),
        matrix => down::log_softmax(x[0], matrix, y),
    }), else unreachable!("cast to float"))?;
    let kept = y.clone();
    Ok(Tensor::record(y, &[&x], || LogSoftmax { y: kept, axis }))
}

/// The definition of [`log_softmax`], over tensors; that of [`softmax`] is its exponential.
pub fn composed(x: &Tensor, axis: isize) -> Result<Tensor> {
    sub(x, &logsumexp(x, Some(&[axis]), true)?)
}
