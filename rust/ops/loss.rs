//! Losses over elements. Each is written as its definition over tensors.

use super::binary::{add, choose, greater, match_weak, mul, sub};
use super::reduce::{mean, sum};
use super::unary;
use crate::array::Scalar;
use crate::autograd::{Tensor, linear};
use crate::{Result, bail};

/// How the losses of single elements become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reduction {
    None,
    Mean,
    Sum,
}

impl Reduction {
    pub fn from_name(name: &str) -> Result<Reduction> {
        match name {
            "none" => Ok(Reduction::None),
            "mean" => Ok(Reduction::Mean),
            "sum" => Ok(Reduction::Sum),
            other => bail!(Value, "reduction: expected \"mean\", \"sum\" or \"none\", got \"{other}\""),
        }
    }

    pub(super) fn of(self, losses: &Tensor) -> Result<Tensor> {
        match self {
            Reduction::None => Ok(losses.clone()),
            Reduction::Mean => mean(losses, None, false),
            Reduction::Sum => sum(losses, None, false),
        }
    }
}

pub(super) fn constant(x: f64, like: &Tensor) -> Result<Tensor> {
    match_weak(Scalar::Float(x), like.dtype())
}

/// Prediction and target of a loss over elements: one shape, float.
fn same_shape(x: &Tensor, y: &Tensor, op: &str) -> Result<Tensor> {
    if x.shape() != y.shape() {
        bail!(Value, "{op}: expected a target of shape {}, got {}", x.shape(), y.shape());
    }
    if !x.dtype().is_float() {
        bail!(Type, "{op}: expected float predictions, got {}", x.dtype());
    }
    let dtype = if y.dtype().is_float() { y.dtype() } else { x.dtype() };
    linear::cast(y, dtype)
}

/// (x − y)².
pub fn mse_loss(x: &Tensor, y: &Tensor, reduction: Reduction) -> Result<Tensor> {
    let y = same_shape(x, y, "mse_loss")?;
    reduction.of(&unary::square(&sub(x, &y)?)?)
}

/// |x − y|.
pub fn l1_loss(x: &Tensor, y: &Tensor, reduction: Reduction) -> Result<Tensor> {
    let y = same_shape(x, y, "l1_loss")?;
    reduction.of(&unary::abs(&sub(x, &y)?)?)
}

/// (x − y)²/2 within `delta` of the target, delta·(|x − y| − delta/2) beyond (Huber 1964).
pub fn huber_loss(x: &Tensor, y: &Tensor, delta: f64, reduction: Reduction) -> Result<Tensor> {
    if delta.is_nan() || delta <= 0.0 {
        bail!(Value, "huber_loss: expected delta above 0, got {delta}");
    }
    let y = same_shape(x, y, "huber_loss")?;
    let error = sub(x, &y)?;
    let size = unary::abs(&error)?;
    let delta_of = constant(delta, &error)?;
    let is_far = greater(&size, &delta_of)?;
    // An infinite error must not come to the square, whose slope there would be 0·∞.
    let near = mul(&constant(0.5, &error)?, &unary::square(&choose(&is_far, &constant(0.0, &error)?, &error)?)?)?;
    let far = mul(&delta_of, &sub(&size, &constant(0.5 * delta, &error)?)?)?;
    reduction.of(&choose(&is_far, &far, &near)?)
}

/// Binary cross-entropy of logits: y·softplus(−x) + (1 − y)·softplus(x), which loses nothing however sure x is, with `pos_weight` on the
/// positive term and `weight` on all.
pub fn bce_with_logits(x: &Tensor, y: &Tensor, weight: Option<&Tensor>, pos_weight: Option<&Tensor>, reduction: Reduction) -> Result<Tensor> {
    let y = same_shape(x, y, "bce_with_logits")?;
    let positive = mul(&y, &unary::softplus(&unary::neg(x)?)?)?;
    let positive = pos_weight.map_or(Ok(positive.clone()), |p| mul(p, &positive))?;
    let negative = mul(&sub(&constant(1.0, &y)?, &y)?, &unary::softplus(x)?)?;
    let mut losses = add(&positive, &negative)?;
    if let Some(weight) = weight {
        losses = mul(&losses, weight)?;
    }
    reduction.of(&losses)
}
