//! Losses over elements. Each is written as its definition over tensors, but for the binary cross-entropy, which is one sweep.

use super::binary::{add, constant, mul, sub};
use super::reduce::{mean, sum};
use super::unary;
use super::value::{Formula, Value};
use crate::array::Array;
use crate::autograd::{Inputs, Op, Tensor, linear};
use crate::kernels::map::{self, Binary};
use crate::kernels::math::Math;
use crate::kernels::simd::Isa;
use crate::{Result, bail, with_float};

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
    let losses = match constant(delta, &error)?.item()? {
        // No error is beyond it, not even an infinite one.
        f64::INFINITY => mul(&constant(0.5, &error)?, &unary::square(&error)?)?,
        _ => unary::huber(&error, delta)?,
    };
    reduction.of(&losses)
}

/// (1 − y)·x for x above 0, −y·x for others, and log(1 + e^−|x|), which loses nothing however sure x is; dx = σ(x) − y, dy = −x.
struct BceWithLogits {
    x: Array,
    y: Array,
}
impl Op for BceWithLogits {
    fn name(&self) -> &'static str {
        "bce_with_logits"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let (x, y) = (dx.input(0, &self.x), dx.input(1, &self.y));
        dx.give(0, || (Formula::from(dy) * (Formula::from(&x).sigmoid() - Formula::from(&y))).tensor())?;
        dx.give(1, || (Formula::from(dy) * -Formula::from(&x)).tensor())
    }
}

/// The same, of one element.
#[derive(Clone, Copy)]
struct Bce;
impl<T: Math> Binary<T, T> for Bce {
    const COST: usize = 14;
    #[inline(always)]
    fn apply<I: Isa>(self, x: T, y: T) -> T {
        let wrong = if x > T::ZERO { T::ONE - y } else { -y };
        wrong * x + (-x.abs()).exp_down_on::<I>().log1p_on::<I>()
    }
}

/// Binary cross-entropy of logits, with `pos_weight` on the positive term, p·y·softplus(−x), and `weight` on all.
pub fn bce_with_logits(x: &Tensor, y: &Tensor, weight: Option<&Tensor>, pos_weight: Option<&Tensor>, reduction: Reduction) -> Result<Tensor> {
    let y = same_shape(x, y, "bce_with_logits")?;
    let mut losses = match pos_weight {
        None => {
            let dtype = x.dtype().promote(y.dtype());
            let (x, y) = (linear::cast(x, dtype)?, linear::cast(&y, dtype)?);
            let run = |x: &Array, y: &Array| -> Result<Array> {
                with_float!(dtype, T => map::binary::<T, T, _>(Bce, x, y, "bce_with_logits"), else unreachable!("checked to be floats"))
            };
            let losses = run(x.array(), y.array())?;
            Tensor::record(losses, &[&x, &y], || BceWithLogits { x: x.array().clone(), y: y.array().clone() })
        }
        Some(p) => {
            let positive = mul(&mul(p, &y)?, &unary::softplus(&unary::neg(x)?)?)?;
            add(&positive, &mul(&sub(&constant(1.0, &y)?, &y)?, &unary::softplus(x)?)?)?
        }
    };
    if let Some(weight) = weight {
        losses = mul(&losses, weight)?;
    }
    reduction.of(&losses)
}
