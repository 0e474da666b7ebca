//! Losses. Each is written as its definition over tensors; cross-entropy, the hot one, also runs as one fused node.

use super::binary::{add, choose, div, greater, match_weak, mul, not_equal, sub};
use super::index::{gather, take};
use super::reduce::{mean, sum};
use super::shape::{squeeze, unsqueeze};
use super::softmax::log_softmax;
use super::unary;
use crate::array::{DType, Scalar};
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

    fn of(self, losses: &Tensor) -> Result<Tensor> {
        match self {
            Reduction::None => Ok(losses.clone()),
            Reduction::Mean => mean(losses, None, false),
            Reduction::Sum => sum(losses, None, false),
        }
    }
}

fn constant(x: f64, like: &Tensor) -> Result<Tensor> {
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
    let near = mul(&constant(0.5, &error)?, &unary::square(&error)?)?;
    let far = mul(&delta_of, &sub(&size, &constant(0.5 * delta, &error)?)?)?;
    reduction.of(&choose(&greater(&size, &delta_of)?, &far, &near)?)
}

/// Binary cross-entropy of logits: softplus(x) − x·y, with `pos_weight` on the positive term and `weight` on all.
pub fn bce_with_logits(x: &Tensor, y: &Tensor, weight: Option<&Tensor>, pos_weight: Option<&Tensor>, reduction: Reduction) -> Result<Tensor> {
    let y = same_shape(x, y, "bce_with_logits")?;
    let mut losses = match pos_weight {
        None => sub(&unary::softplus(x)?, &mul(x, &y)?)?,
        Some(p) => {
            // −p·y·log σ(x) − (1 − y)·log σ(−x), with log σ(−x) = log σ(x) − x.
            let log_sigmoid = unary::log_sigmoid(x)?;
            let negative = mul(&sub(&constant(1.0, &y)?, &y)?, &sub(x, &log_sigmoid)?)?;
            sub(&negative, &mul(&mul(p, &y)?, &log_sigmoid)?)?
        }
    };
    if let Some(weight) = weight {
        losses = mul(&losses, weight)?;
    }
    reduction.of(&losses)
}

/// What a classification loss was asked to do.
#[derive(Clone, Copy, Debug)]
pub struct ClassLoss {
    pub reduction: Reduction,
    /// Share of every target that is spread evenly over all classes (Szegedy et al. 2016).
    pub label_smoothing: f64,
    /// Class number whose rows do not count.
    pub ignore_index: i64,
}

/// Checks scores (N, C) against targets (N,) and class weights (C,); ignored targets may be any number.
fn check_classes(scores: &Tensor, target: &Tensor, weight: Option<&Tensor>, ignore: i64, op: &str) -> Result<()> {
    let (n, c) = (scores.shape()[0], scores.shape()[1]);
    if target.dtype().is_float() || target.dtype() == DType::Bool {
        bail!(
            Type,
            "{op}: expected int64 class numbers of shape ({n},) or probabilities of shape ({n}, {c}), got {} of shape {}",
            target.dtype(),
            target.shape()
        );
    }
    if target.shape()[..] != [n] {
        bail!(Value, "{op}: expected a target of shape ({n},), got {}", target.shape());
    }
    check_weight(weight, c, op)?;
    let labels = crate::kernels::map::contiguous(&crate::kernels::map::cast(target.array(), DType::I64)?)?;
    let labels = labels.as_slice::<i64>().expect("made contiguous");
    if let Some(bad) = labels.iter().find(|&&t| t != ignore && !(0..c as i64).contains(&t)) {
        bail!(Index, "{op}: expected class numbers in [0, {c}), got {bad}");
    }
    Ok(())
}

fn check_weight(weight: Option<&Tensor>, c: usize, op: &str) -> Result<()> {
    match weight {
        Some(w) if w.shape()[..] != [c] => bail!(Value, "{op}: expected class weights of shape ({c},), got {}", w.shape()),
        _ => Ok(()),
    }
}

fn check_scores(scores: &Tensor, op: &str) -> Result<()> {
    if scores.ndim() != 2 {
        bail!(Value, "{op}: expected scores of shape (N, C), got {}", scores.shape());
    }
    if !scores.dtype().is_float() {
        bail!(Type, "{op}: expected float scores, got {}", scores.dtype());
    }
    Ok(())
}

/// −w[t]·logp[t] per row, averaged over the weights of the rows that count.
pub fn nll_loss(logp: &Tensor, target: &Tensor, weight: Option<&Tensor>, how: ClassLoss) -> Result<Tensor> {
    check_scores(logp, "nll_loss")?;
    check_classes(logp, target, weight, how.ignore_index, "nll_loss")?;
    from_log_probabilities(logp, target, weight, how)
}

/// The shared definition of [`nll_loss`] and [`cross_entropy`] for class numbers.
fn from_log_probabilities(logp: &Tensor, target: &Tensor, weight: Option<&Tensor>, how: ClassLoss) -> Result<Tensor> {
    let target = linear::cast(target, DType::I64)?;
    let counted = not_equal(&target, &match_weak(Scalar::Int(how.ignore_index), DType::I64)?)?;
    let safe = choose(&counted, &target, &match_weak(Scalar::Int(0), DType::I64)?)?;
    let zero = constant(0.0, logp)?;
    let picked = squeeze(&gather(logp, &unsqueeze(&safe, 1)?, 1)?, Some(&[1]))?;
    let row_weight = match weight {
        Some(w) => take(w, &safe, 0)?,
        None => linear::cast(&Tensor::constant(crate::array::Array::full(safe.shape(), Scalar::Int(1), DType::I64)?), logp.dtype())?,
    };
    let row_weight = choose(&counted, &row_weight, &zero)?;
    let mut losses = unary::neg(&mul(&row_weight, &choose(&counted, &picked, &zero)?)?)?;
    if how.label_smoothing > 0.0 {
        let spread = match weight {
            Some(w) => mul(logp, w)?,
            None => logp.clone(),
        };
        let even = unary::neg(&mean(&spread, Some(&[1]), false)?)?;
        let even = choose(&counted, &even, &zero)?;
        let (keep, share) = (constant(1.0 - how.label_smoothing, logp)?, constant(how.label_smoothing, logp)?);
        losses = add(&mul(&keep, &losses)?, &mul(&share, &even)?)?;
    }
    match how.reduction {
        Reduction::Mean => div(&sum(&losses, None, false)?, &sum(&row_weight, None, false)?),
        other => other.of(&losses),
    }
}

/// Cross-entropy of logits (N, C) against class numbers (N,) or probabilities (N, C).
pub fn cross_entropy(logits: &Tensor, target: &Tensor, weight: Option<&Tensor>, how: ClassLoss) -> Result<Tensor> {
    check_scores(logits, "cross_entropy")?;
    if !(0.0..=1.0).contains(&how.label_smoothing) {
        bail!(Value, "cross_entropy: expected label_smoothing in [0, 1], got {}", how.label_smoothing);
    }
    if target.shape() == logits.shape() && target.dtype().is_float() {
        return soft_cross_entropy(logits, target, weight, how);
    }
    check_classes(logits, target, weight, how.ignore_index, "cross_entropy")?;
    composed(logits, target, weight, how)
}

/// The definition for class numbers: `nll_loss(log_softmax(logits), target)`.
pub fn composed(logits: &Tensor, target: &Tensor, weight: Option<&Tensor>, how: ClassLoss) -> Result<Tensor> {
    from_log_probabilities(&log_softmax(logits, 1)?, target, weight, how)
}

/// −Σ_c w_c p_c log q_c per row; the mean is over rows.
fn soft_cross_entropy(logits: &Tensor, target: &Tensor, weight: Option<&Tensor>, how: ClassLoss) -> Result<Tensor> {
    let classes = logits.shape()[1];
    check_weight(weight, classes, "cross_entropy")?;
    let mut p = target.clone();
    if how.label_smoothing > 0.0 {
        let even = constant(how.label_smoothing / classes as f64, &p)?;
        p = add(&mul(&p, &constant(1.0 - how.label_smoothing, target)?)?, &even)?;
    }
    if let Some(w) = weight {
        p = mul(&p, w)?;
    }
    let losses = unary::neg(&sum(&mul(&p, &log_softmax(logits, 1)?)?, Some(&[1]), false)?)?;
    how.reduction.of(&losses)
}
