//! Fused layers and losses.

use super::arrays::tensor_like;
use super::convert::{cell, one_shape_of, only_tensor};
use super::error::{run, run_short};
use super::tensor::{PyTensor, short};
use crate::Tensor;
use crate::array::Array;
use crate::ops::{self, BatchNormConfig, ClassLoss, Reduction, Running};
use pyo3::exceptions::{PyRuntimeWarning, PyValueError};
use pyo3::prelude::*;
use smallvec::SmallVec;

type Cells<'a> = SmallVec<[&'a PyTensor; 6]>;
type MaybeTensor<'a, 'py> = Option<&'a Bound<'py, PyTensor>>;

fn optional(t: MaybeTensor<'_, '_>) -> Option<Tensor> {
    t.map(|t| t.get().tensor())
}

/// x @ weight.T + bias as one operation; weight is (out, in).
#[pyfunction]
#[pyo3(signature = (x, weight, bias=None))]
fn linear(py: Python<'_>, x: &Bound<'_, PyAny>, weight: &Bound<'_, PyTensor>, bias: MaybeTensor<'_, '_>) -> PyResult<PyTensor> {
    affine(py, x, weight, bias, ops::linear)
}

/// max(x @ weight.T + bias, 0) as one operation; weight is (out, in).
#[pyfunction]
#[pyo3(signature = (x, weight, bias=None))]
fn linear_relu(py: Python<'_>, x: &Bound<'_, PyAny>, weight: &Bound<'_, PyTensor>, bias: MaybeTensor<'_, '_>) -> PyResult<PyTensor> {
    affine(py, x, weight, bias, ops::linear_relu)
}

#[inline(always)]
fn affine(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    weight: &Bound<'_, PyTensor>,
    bias: MaybeTensor<'_, '_>,
    apply: impl Fn(&Tensor, &Tensor, Option<&Tensor>) -> crate::Result<Tensor> + Send,
) -> PyResult<PyTensor> {
    let work = |x: &Tensor, w: &Tensor| x.size().saturating_mul(w.shape().first().copied().unwrap_or(0)) / 64;
    let cells: Cells<'_> = [Some(cell(x, "linear")?), Some(weight.get()), bias.map(Bound::get)].into_iter().flatten().collect();
    if let Some(held) = short(&cells, |held| work(&held[0], &held[1])) {
        return run_short(|| apply(&held[0], &held[1], held.get(2).map(|b| &**b))).map(PyTensor::new);
    }
    let (x, w, b) = (only_tensor(x, "linear")?, weight.get().tensor(), optional(bias));
    run(py, work(&x, &w), move || apply(&x, &w, b.as_ref())).map(PyTensor::new)
}

/// The cells a batch norm reads and writes.
struct BatchNormCells<'a> {
    x: &'a PyTensor,
    weight: Option<&'a PyTensor>,
    bias: Option<&'a PyTensor>,
    /// Running mean and variance.
    running: Option<(&'a PyTensor, &'a PyTensor)>,
    batches: Option<&'a PyTensor>,
}

impl BatchNormCells<'_> {
    /// Short work updates the running statistics where they are; `None` if the work is long.
    fn in_place(&self, mask: Option<&Tensor>, config: BatchNormConfig) -> Option<PyResult<(Tensor, usize)>> {
        let (mean, var) = self.running.unzip();
        let batches = self.batches.filter(|_| mean.is_some());
        let cells: Cells<'_> = [Some(self.x), self.weight, self.bias, mean, var, batches].into_iter().flatten().collect();
        // What is replaced is dropped after the locks, since memory of others may be an object of Python.
        let _before: Vec<Array>;
        let mut held = short(&cells, |held| held[0].size())?.into_iter();
        let mut next = |given: bool| if given { held.next() } else { None };
        let (x, w, b) = (next(true)?, next(self.weight.is_some()), next(self.bias.is_some()));
        let (mut mean, mut var, mut batches) = (next(mean.is_some()), next(var.is_some()), next(batches.is_some()));
        _before = [&mean, &var, &batches].into_iter().flatten().filter_map(|cell| cell.array().if_shared()).collect();
        Some(run_short(|| {
            let batches = batches.as_mut().map(|n| n.array_mut());
            let running = mean.as_mut().zip(var.as_mut()).map(|(m, v)| Running { mean: m.array_mut(), var: v.array_mut(), batches });
            ops::batch_norm(&x, w.as_deref(), b.as_deref(), running, mask, config)
        }))
    }

    /// Long work holds no lock while the GIL is released: it updates copies and puts them back.
    fn apart(&self, py: Python<'_>, mask: Option<Tensor>, config: BatchNormConfig) -> PyResult<(Tensor, usize)> {
        let (x, w, b) = (self.x.tensor(), self.weight.map(PyTensor::tensor), self.bias.map(PyTensor::tensor));
        let array = |cell: &PyTensor| cell.lock().array().clone();
        let mut running = self.running.map(|(mean, var)| (array(mean), array(var), self.batches.map(array)));
        let (y, broken, running) = run(py, x.size(), move || {
            let given = running.as_mut().map(|(mean, var, batches)| Running { mean, var, batches: batches.as_mut() });
            let (y, broken) = ops::batch_norm(&x, w.as_ref(), b.as_ref(), given, mask.as_ref(), config)?;
            Ok((y, broken, running))
        })?;
        if config.training
            && let (Some((mean, var)), Some(new)) = (self.running, running)
        {
            mean.put(new.0);
            var.put(new.1);
            if let (Some(cell), Some(n)) = (self.batches, new.2) {
                cell.put(n);
            }
        }
        Ok((y, broken))
    }
}

fn warn_of_broken(py: Python<'_>, broken: usize, channels: usize) -> PyResult<()> {
    let message = format!(
        "batch_norm: expected finite batch statistics, got non-finite ones in {broken} of {channels} channels; their running statistics keep their last finite value"
    );
    PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &std::ffi::CString::new(message).expect("no NUL in it"), callers_level(py)?)
}

/// How many frames up the first line is that is not treadle's own: where a warning belongs.
fn callers_level(py: Python<'_>) -> PyResult<i32> {
    let mut frame = py.import("sys")?.call_method0("_getframe")?;
    let mut level = 1;
    while frame.getattr("f_globals")?.get_item("__name__").and_then(|name| name.extract::<String>()).is_ok_and(|name| name.starts_with("treadle.")) {
        frame = frame.getattr("f_back")?;
        if frame.is_none() {
            break;
        }
        level += 1;
    }
    Ok(level)
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
    if running_mean.is_some() != running_var.is_some() {
        return Err(PyValueError::new_err("batch_norm: expected running_mean and running_var together, got only one of them"));
    }
    if training {
        [running_mean, running_var].into_iter().flatten().try_for_each(|cell| cell.get().expect_own("batch_norm"))?;
    }
    let mask = mask.map(|m| tensor_like(m, None)).transpose()?;
    let config = BatchNormConfig { training, momentum, eps, unbiased, relu };
    let cells = BatchNormCells {
        x: cell(x, "batch_norm")?,
        weight: weight.map(Bound::get),
        bias: bias.map(Bound::get),
        running: running_mean.map(Bound::get).zip(running_var.map(Bound::get)),
        batches: num_batches_tracked.map(Bound::get),
    };
    let (y, broken) = match cells.in_place(mask.as_ref(), config) {
        Some(done) => done?,
        None => cells.apart(py, mask, config)?,
    };
    if broken > 0 {
        warn_of_broken(py, broken, y.shape()[1])?;
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
    let normalized_shape = one_shape_of(normalized_shape)?;
    run(py, x.size(), move || ops::layer_norm(&x, &normalized_shape, w.as_ref(), b.as_ref(), eps)).map(PyTensor::new)
}

/// x / sqrt(mean(x**2) + eps) * weight over the trailing axes `normalized_shape`.
#[pyfunction]
#[pyo3(signature = (x, normalized_shape, weight=None, eps=1e-6))]
fn rms_norm(py: Python<'_>, x: &Bound<'_, PyAny>, normalized_shape: &Bound<'_, PyAny>, weight: MaybeTensor<'_, '_>, eps: f64) -> PyResult<PyTensor> {
    let (x, w) = (only_tensor(x, "rms_norm")?, optional(weight));
    let normalized_shape = one_shape_of(normalized_shape)?;
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
    run(py, ops::take_work(&w, &index, 0), move || ops::embedding(&index, &w, padding_idx)).map(PyTensor::new)
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
    let how = class_loss(reduction, label_smoothing, ignore_index)?;
    if let Ok(target) = target.cast::<PyTensor>() {
        let cells: Cells<'_> = [Some(cell(logits, "cross_entropy")?), Some(target.get()), weight.map(Bound::get)].into_iter().flatten().collect();
        if let Some(held) = short(&cells, |held| held[0].size() * 4) {
            return run_short(|| ops::cross_entropy(&held[0], &held[1], held.get(2).map(|w| &**w), how)).map(PyTensor::new);
        }
    }
    let (x, t, w) = (only_tensor(logits, "cross_entropy")?, tensor_like(target, None)?, optional(weight));
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
            let y = tensor_like(y, None)?;
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
    let (x, y, reduction) = (only_tensor(x, "huber_loss")?, tensor_like(y, None)?, Reduction::from_name(reduction)?);
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
    let (x, y, reduction) = (only_tensor(x, "bce_with_logits")?, tensor_like(y, None)?, Reduction::from_name(reduction)?);
    let (w, p) = (optional(weight), optional(pos_weight));
    run(py, x.size(), move || ops::bce_with_logits(&x, &y, w.as_ref(), p.as_ref(), reduction)).map(PyTensor::new)
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    add_all!(m, linear, linear_relu, batch_norm, layer_norm, rms_norm, group_norm, embedding);
    add_all!(m, cross_entropy, nll_loss, mse_loss, l1_loss, huber_loss, bce_with_logits);
    Ok(())
}
