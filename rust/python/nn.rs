//! Fused layers and losses.

use super::convert::{only_tensor, shape_of, tensor_like};
use super::error::run;
use super::tensor::PyTensor;
use crate::Tensor;
use crate::array::Array;
use crate::ops::{self, BatchNormConfig, ClassLoss, Reduction, Running};
use pyo3::exceptions::{PyRuntimeWarning, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

type MaybeTensor<'a, 'py> = Option<&'a Bound<'py, PyTensor>>;

fn optional(t: MaybeTensor<'_, '_>) -> Option<Tensor> {
    t.map(|t| t.get().tensor())
}

/// x @ weight.T + bias as one operation; weight is (out, in).
#[pyfunction]
#[pyo3(signature = (x, weight, bias=None))]
fn linear(py: Python<'_>, x: &Bound<'_, PyAny>, weight: &Bound<'_, PyTensor>, bias: MaybeTensor<'_, '_>) -> PyResult<PyTensor> {
    let (x, w, b) = (only_tensor(x, "linear")?, weight.get().tensor(), optional(bias));
    let work = x.size().saturating_mul(w.shape().first().copied().unwrap_or(0)) / 64;
    run(py, work, move || ops::linear(&x, &w, b.as_ref())).map(PyTensor::new)
}

/// The cells of running statistics, taken out while a forward updates them, so that no lock is held meanwhile.
struct Buffers {
    mean: Array,
    var: Array,
    batches: Option<Array>,
}

/// Batch normalisation per channel; see `treadle.nn.BatchNorm1d`.
#[pyfunction]
#[pyo3(signature = (x, weight, bias, running_mean, running_var, num_batches_tracked, training, momentum, eps, unbiased=false, mask=None, relu=false))]
#[allow(clippy::too_many_arguments)]
fn batch_norm(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    weight: MaybeTensor<'_, '_>,
    bias: MaybeTensor<'_, '_>,
    running_mean: MaybeTensor<'_, '_>,
    running_var: MaybeTensor<'_, '_>,
    num_batches_tracked: MaybeTensor<'_, '_>,
    training: bool,
    momentum: Option<f64>,
    eps: f64,
    unbiased: bool,
    mask: Option<&Bound<'_, PyAny>>,
    relu: bool,
) -> PyResult<PyTensor> {
    if eps < 0.0 || (training && eps == 0.0) || eps.is_nan() {
        return Err(PyValueError::new_err(format!("batch_norm: expected eps above 0 in training (at least 0 in eval), got {eps}")));
    }
    if running_mean.is_some() != running_var.is_some() {
        return Err(PyValueError::new_err("batch_norm: expected running_mean and running_var together, got only one of them"));
    }
    let (x, w, b) = (only_tensor(x, "batch_norm")?, optional(weight), optional(bias));
    let mask = mask.map(|m| tensor_like(m, None)).transpose()?;
    let config = BatchNormConfig { training, momentum, eps, unbiased, relu };
    let held = running_mean.zip(running_var);
    let mut buffers = held.map(|(mean, var)| Buffers {
        mean: mean.get().lock().array().clone(),
        var: var.get().lock().array().clone(),
        batches: num_batches_tracked.map(|n| n.get().lock().array().clone()),
    });
    let size = x.size();
    let (y, broken, buffers) = run(py, size, move || {
        let running = buffers.as_mut().map(|r| Running { mean: &mut r.mean, var: &mut r.var, batches: r.batches.as_mut() });
        let (y, broken) = ops::batch_norm(&x, w.as_ref(), b.as_ref(), running, mask.as_ref(), config)?;
        Ok((y, broken, buffers))
    })?;
    if training && let (Some((mean, var)), Some(new)) = (held, buffers) {
        *mean.get().lock().array_mut() = new.mean;
        *var.get().lock().array_mut() = new.var;
        if let (Some(cell), Some(n)) = (num_batches_tracked, new.batches) {
            *cell.get().lock().array_mut() = n;
        }
    }
    if broken > 0 {
        let channels = y.shape()[1];
        let message = format!(
            "batch_norm: expected finite batch statistics, got non-finite ones in {broken} of {channels} channels; their running statistics keep their last finite value"
        );
        PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &std::ffi::CString::new(message).expect("no NUL in it"), 1)?;
    }
    Ok(PyTensor::new(y))
}

/// (x - mean) / sqrt(var + eps) * weight + bias over the trailing axes `normalized_shape`.
#[pyfunction]
#[pyo3(signature = (x, normalized_shape, weight=None, bias=None, eps=1e-5))]
fn layer_norm(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    normalized_shape: &Bound<'_, PyAny>,
    weight: MaybeTensor<'_, '_>,
    bias: MaybeTensor<'_, '_>,
    eps: f64,
) -> PyResult<PyTensor> {
    let (x, w, b) = (only_tensor(x, "layer_norm")?, optional(weight), optional(bias));
    let normalized_shape = shape_of(&PyTuple::new(py, [normalized_shape])?)?;
    run(py, x.size(), move || ops::layer_norm(&x, &normalized_shape, w.as_ref(), b.as_ref(), eps)).map(PyTensor::new)
}

/// x / sqrt(mean(x**2) + eps) * weight over the trailing axes `normalized_shape`.
#[pyfunction]
#[pyo3(signature = (x, normalized_shape, weight=None, eps=1e-6))]
fn rms_norm(py: Python<'_>, x: &Bound<'_, PyAny>, normalized_shape: &Bound<'_, PyAny>, weight: MaybeTensor<'_, '_>, eps: f64) -> PyResult<PyTensor> {
    let (x, w) = (only_tensor(x, "rms_norm")?, optional(weight));
    let normalized_shape = shape_of(&PyTuple::new(py, [normalized_shape])?)?;
    run(py, x.size(), move || ops::rms_norm(&x, &normalized_shape, w.as_ref(), eps)).map(PyTensor::new)
}

/// Normalises (N, C, ...) over each of `groups` equal groups of channels; weight and bias are (C,).
#[pyfunction]
#[pyo3(signature = (x, groups, weight=None, bias=None, eps=1e-5))]
fn group_norm(py: Python<'_>, x: &Bound<'_, PyAny>, groups: i64, weight: MaybeTensor<'_, '_>, bias: MaybeTensor<'_, '_>, eps: f64) -> PyResult<PyTensor> {
    let (x, w, b) = (only_tensor(x, "group_norm")?, optional(weight), optional(bias));
    let groups = usize::try_from(groups).map_err(|_| PyValueError::new_err(format!("group_norm: expected at least one group, got {groups}")))?;
    run(py, x.size(), move || ops::group_norm(&x, groups, w.as_ref(), b.as_ref(), eps)).map(PyTensor::new)
}

/// Rows of a table: weight[index].
#[pyfunction]
#[pyo3(signature = (index, weight, padding_idx=None))]
fn embedding(py: Python<'_>, index: &Bound<'_, PyAny>, weight: &Bound<'_, PyTensor>, padding_idx: Option<i64>) -> PyResult<PyTensor> {
    let (index, w) = (tensor_like(index, None)?, weight.get().tensor());
    run(py, index.size() * 16, move || ops::embedding(&index, &w, padding_idx)).map(PyTensor::new)
}

fn class_loss(reduction: &str, label_smoothing: f64, ignore_index: i64) -> PyResult<ClassLoss> {
    Ok(ClassLoss { reduction: Reduction::from_name(reduction)?, label_smoothing, ignore_index })
}

/// Cross-entropy of logits (N, C) against class numbers (N,) or probabilities (N, C).
#[pyfunction]
#[pyo3(signature = (logits, target, weight=None, reduction="mean", label_smoothing=0.0, ignore_index=-100))]
fn cross_entropy(
    py: Python<'_>,
    logits: &Bound<'_, PyAny>,
    target: &Bound<'_, PyAny>,
    weight: MaybeTensor<'_, '_>,
    reduction: &str,
    label_smoothing: f64,
    ignore_index: i64,
) -> PyResult<PyTensor> {
    let (x, t, w) = (only_tensor(logits, "cross_entropy")?, tensor_like(target, None)?, optional(weight));
    let how = class_loss(reduction, label_smoothing, ignore_index)?;
    run(py, x.size() * 4, move || ops::cross_entropy(&x, &t, w.as_ref(), how)).map(PyTensor::new)
}

/// Negative log-likelihood of log-probabilities (N, C) for class numbers (N,).
#[pyfunction]
#[pyo3(signature = (logp, target, weight=None, reduction="mean", ignore_index=-100))]
fn nll_loss(
    py: Python<'_>,
    logp: &Bound<'_, PyAny>,
    target: &Bound<'_, PyAny>,
    weight: MaybeTensor<'_, '_>,
    reduction: &str,
    ignore_index: i64,
) -> PyResult<PyTensor> {
    let (x, t, w) = (only_tensor(logp, "nll_loss")?, tensor_like(target, None)?, optional(weight));
    let how = class_loss(reduction, 0.0, ignore_index)?;
    run(py, x.size(), move || ops::nll_loss(&x, &t, w.as_ref(), how)).map(PyTensor::new)
}

macro_rules! regression_losses {
    ($($(#[$m:meta])* $name:ident;)+) => {$(
        $(#[$m])*
        #[pyfunction]
        #[pyo3(signature = (x, y, reduction="mean"))]
        fn $name(py: Python<'_>, x: &Bound<'_, PyAny>, y: &Bound<'_, PyAny>, reduction: &str) -> PyResult<PyTensor> {
            let (x, reduction) = (only_tensor(x, stringify!($name))?, Reduction::from_name(reduction)?);
            let y = only_tensor(y, stringify!($name))?;
            run(py, x.size(), move || ops::$name(&x, &y, reduction)).map(PyTensor::new)
        }
    )+};
}
regression_losses! {
    /// (x - y)**2.
    mse_loss;
    /// |x - y|.
    l1_loss;
}

/// Squared within `delta` of the target, linear beyond (Huber 1964).
#[pyfunction]
#[pyo3(signature = (x, y, delta=1.0, reduction="mean"))]
fn huber_loss(py: Python<'_>, x: &Bound<'_, PyAny>, y: &Bound<'_, PyAny>, delta: f64, reduction: &str) -> PyResult<PyTensor> {
    let (x, y, reduction) = (only_tensor(x, "huber_loss")?, only_tensor(y, "huber_loss")?, Reduction::from_name(reduction)?);
    run(py, x.size(), move || ops::huber_loss(&x, &y, delta, reduction)).map(PyTensor::new)
}

/// Binary cross-entropy of logits, without overflow.
#[pyfunction]
#[pyo3(signature = (x, y, weight=None, pos_weight=None, reduction="mean"))]
fn bce_with_logits(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    y: &Bound<'_, PyAny>,
    weight: MaybeTensor<'_, '_>,
    pos_weight: MaybeTensor<'_, '_>,
    reduction: &str,
) -> PyResult<PyTensor> {
    let (x, y, reduction) = (only_tensor(x, "bce_with_logits")?, only_tensor(y, "bce_with_logits")?, Reduction::from_name(reduction)?);
    let (w, p) = (optional(weight), optional(pos_weight));
    run(py, x.size(), move || ops::bce_with_logits(&x, &y, w.as_ref(), p.as_ref(), reduction)).map(PyTensor::new)
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    macro_rules! add_all {
        ($($name:ident),+ $(,)?) => { $(m.add_function(wrap_pyfunction!($name, m)?)?;)+ };
    }
    add_all!(linear, batch_norm, layer_norm, rms_norm, group_norm, embedding);
    add_all!(cross_entropy, nll_loss, mse_loss, l1_loss, huber_loss, bce_with_logits,);
    Ok(())
}
