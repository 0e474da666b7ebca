//! y = eˣ / Σeˣ along an axis; dx = y·(dy − Σ dy·y). And its logarithm: dx = dy − eʸ·Σdy.

use super::binary::{mul, sub};
use super::reduce::{logsumexp, sum};
use super::unary;
use crate::Result;
use crate::array::{Array, normalize_axis};
use crate::autograd::{Inputs, Op, Tensor, linear, no_grad};

struct Softmax {
    y: Array,
    axis: isize,
}
impl Op for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let y = dx.output(&self.y);
        dx.give(0, || {
            let weighted = mul(dy, &y)?;
            sub(&weighted, &mul(&y, &sum(&weighted, Some(&[self.axis]), true)?)?)
        })
    }
}

/// eˣ / Σeˣ along an axis, without overflow.
pub fn softmax(x: &Tensor, axis: isize) -> Result<Tensor> {
    let x = linear::cast(x, x.dtype().to_float())?;
    let axis = normalize_axis(axis, x.ndim(), "softmax")? as isize;
    let y = no_grad(|| unary::exp(&log_softmax(&x.detach(), axis)?))?.into_array();
    let kept = y.clone();
    Ok(Tensor::record(y, &[&x], || Softmax { y: kept, axis }))
}

struct LogSoftmax {
    y: Array,
    axis: isize,
}
impl Op for LogSoftmax {
    fn name(&self) -> &'static str {
        "log_softmax"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let y = dx.output(&self.y);
        dx.give(0, || sub(dy, &mul(&unary::exp(&y)?, &sum(dy, Some(&[self.axis]), true)?)?))
    }
}

/// x − log Σeˣ along an axis.
pub fn log_softmax(x: &Tensor, axis: isize) -> Result<Tensor> {
    let x = linear::cast(x, x.dtype().to_float())?;
    let axis = normalize_axis(axis, x.ndim(), "log_softmax")? as isize;
    let y = no_grad(|| sub(&x.detach(), &logsumexp(&x.detach(), Some(&[axis]), true)?))?.into_array();
    let kept = y.clone();
    Ok(Tensor::record(y, &[&x], || LogSoftmax { y: kept, axis }))
}
