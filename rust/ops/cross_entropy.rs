//! Cross-entropy and negative log-likelihood of classes.
//!
//! q = −log_softmax(x), loss = (1 − s)·w_t·q_t + s/C·Σ_c w_c·q_c for class number t; for class numbers the whole runs as one
//! fused node: dx = dy·((…)·softmax(x) − …), as written out in `kernels::rows::cross_entropy`.
//!
//! Invariant: targets are checked before anything is computed, so kernels may index by them.

use super::binary::{add, choose, constant, div, match_weak, mul, not_equal};
use super::loss::Reduction;
use super::reduce::{mean, sum};
use super::shape::{squeeze, unsqueeze};
use super::softmax::log_softmax;
use super::take::{gather, take};
use super::unary;
use crate::array::{Array, DType, Dims, Scalar, filled};
use crate::autograd::{Inputs, Op, Tensor, linear};
use crate::kernels::map::{cast, contiguous};
use crate::kernels::math::Math;
use crate::kernels::reduce::{Fold, Sum, total};
use crate::kernels::rows::{self, Classes, Scale};
use crate::{Result, bail, with_float};

/// What a classification loss was asked to do.
#[derive(Clone, Copy, Debug)]
pub struct ClassLoss {
    pub reduction: Reduction,
    /// Share of every target that is spread evenly over all classes (Szegedy et al. 2016).
    pub label_smoothing: f64,
    /// Class number whose rows do not count.
    pub ignore_index: i64,
}

/// Checks scores (N, C) against targets (N,) and class weights (C,); answers the targets as contiguous int64. Ignored targets
/// may be any number.
fn check_classes(scores: &Tensor, target: &Tensor, weight: Option<&Tensor>, ignore: i64, op: &str) -> Result<Array> {
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
    let target = contiguous(&cast(target.array(), DType::I64)?)?;
    let labels = target.as_slice::<i64>().expect("made contiguous");
    let fits = |t: i64| t == ignore || (0..c as i64).contains(&t);
    if let Some(i) = labels.iter().position(|&t| !fits(t)) {
        bail!(Index, "{op}: expected class numbers in [0, {c}), got {} at position {i}", labels[i]);
    }
    Ok(target)
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
    if scores.shape()[1] == 0 {
        bail!(Value, "{op}: expected at least one class, got scores of shape {}", scores.shape());
    }
    if !scores.dtype().is_float() {
        bail!(Type, "{op}: expected float scores, got {}", scores.dtype());
    }
    Ok(())
}

/// `−w[t]·logp[t]` per row, averaged over the weights of the rows that count.
pub fn nll_loss(logp: &Tensor, target: &Tensor, weight: Option<&Tensor>, how: ClassLoss) -> Result<Tensor> {
    check_scores(logp, "nll_loss")?;
    let target = check_classes(logp, target, weight, how.ignore_index, "nll_loss")?;
    from_log_probabilities(logp, &Tensor::constant(target), weight, how)
}

/// The shared definition of [`nll_loss`] and [`cross_entropy`] for int64 class numbers.
fn from_log_probabilities(logp: &Tensor, target: &Tensor, weight: Option<&Tensor>, how: ClassLoss) -> Result<Tensor> {
    let counted = not_equal(target, &match_weak(Scalar::Int(how.ignore_index), DType::I64)?)?;
    let safe = choose(&counted, target, &match_weak(Scalar::Int(0), DType::I64)?)?;
    let zero = constant(0.0, logp)?;
    let picked = squeeze(&gather(logp, &unsqueeze(&safe, 1)?, 1)?, Some(&[1]))?;
    let row_weight = match weight {
        Some(w) => take(w, &safe, 0)?,
        None => Tensor::constant(Array::full(safe.shape(), Scalar::Int(1), logp.dtype())?),
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
    let target = check_classes(logits, target, weight, how.ignore_index, "cross_entropy")?;
    // The fused node takes class weights as constants.
    if weight.is_some_and(Tensor::requires_grad) {
        return composed(logits, &Tensor::constant(target), weight, how);
    }
    let dtype = weight.map_or(logits.dtype(), |w| logits.dtype().promote(w.dtype()));
    let x = linear::cast(logits, dtype)?;
    let weight = weight.map(|w| contiguous(&cast(w.array(), dtype)?)).transpose()?;
    with_float!(dtype, T => fused::<T>(&x, target, weight, how), else unreachable!("floats promote to floats"))
}

/// The definition for int64 class numbers: `nll_loss(log_softmax(logits), target)`.
pub fn composed(logits: &Tensor, target: &Tensor, weight: Option<&Tensor>, how: ClassLoss) -> Result<Tensor> {
    from_log_probabilities(&log_softmax(logits, 1)?, target, weight, how)
}

struct CrossEntropy<T> {
    x: Array,
    target: Array,
    weight: Option<Array>,
    how: ClassLoss,
    /// What the mean divides by.
    total_weight: f64,
    /// The largest logit m and Σe^(x − m) of every row.
    stats: Vec<[T; 2]>,
}

impl<T: Math> CrossEntropy<T> {
    fn classes(&self) -> Classes<'_, T> {
        Classes {
            target: self.target.as_slice().expect("made contiguous"),
            weight: self.weight.as_ref().map(|w| w.as_slice().expect("made contiguous")),
            smoothing: self.how.label_smoothing,
            ignore: self.how.ignore_index,
        }
    }

    fn gradient(&self, dy: &Array) -> Result<Array> {
        let dy = contiguous(dy)?;
        let dy = dy.as_slice::<T>().expect("made contiguous");
        let scale = match self.how.reduction {
            Reduction::None => Scale::Each(dy),
            Reduction::Sum => Scale::All(dy[0]),
            Reduction::Mean => Scale::All(T::from_f64(dy[0].to_f64() / self.total_weight)),
        };
        let mut dx = Array::unfilled(T::DTYPE, *self.x.shape())?;
        let x = self.x.as_slice().expect("made contiguous");
        rows::cross_entropy_backward(x, self.x.shape()[1], &self.classes(), scale, &self.stats, dx.fresh());
        Ok(dx)
    }
}

impl<T: Math> Op for CrossEntropy<T> {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        if !dx.recording() {
            return dx.give(0, || self.gradient(dy.array()).map(Tensor::constant));
        }
        let target = Tensor::constant(self.target.clone());
        let weight = self.weight.clone().map(Tensor::constant);
        dx.give_through(dy, &[&self.x], |i| composed(&i[0], &target, weight.as_ref(), self.how))
    }
}

fn fused<T: Math>(x: &Tensor, target: Array, weight: Option<Array>, how: ClassLoss) -> Result<Tensor>
where
    Sum: Fold<T, Wide = f64>,
{
    let n = x.shape()[0];
    let mut op = CrossEntropy::<T> { x: contiguous(x.array())?, target, weight, how, total_weight: 1.0, stats: filled(n, [T::ZERO; 2])? };
    let mut losses = Array::unfilled(T::DTYPE, Dims::new(&[n])?)?;
    let mut stats = std::mem::take(&mut op.stats);
    rows::cross_entropy(op.x.as_slice().expect("made contiguous"), x.shape()[1], &op.classes(), losses.fresh(), &mut stats);
    op.stats = stats;
    let y = match how.reduction {
        Reduction::None => losses,
        Reduction::Sum => Array::scalar(T::from_f64(total(losses.fresh::<T>())))?,
        Reduction::Mean => {
            op.total_weight = op.classes().total_weight();
            Array::scalar(T::from_f64(total(losses.fresh::<T>()) / op.total_weight))?
        }
    };
    Ok(Tensor::record(y, &[x], || op))
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
