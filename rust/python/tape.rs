//! The tape from Python: functions of the caller's own on it, whether it is recorded, and the search for anomalies.

use super::convert::{kind, only_tensor};
use super::error::{call_back, run};
use super::tensor::PyTensor;
use crate::autograd::anomaly::{self, Layer};
use crate::{Tensor, autograd, ops};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use std::any::Any;
use std::sync::Arc;

/// `function(*inputs)`, run again in backward instead of keeping what it saved.
#[pyfunction]
#[pyo3(signature = (function, *inputs))]
fn _checkpoint(py: Python<'_>, function: Py<PyAny>, inputs: Vec<Bound<'_, PyAny>>) -> PyResult<PyTensor> {
    let inputs: Vec<Tensor> = inputs.iter().map(|x| only_tensor(x, "checkpoint")).collect::<PyResult<_>>()?;
    let call = move |xs: &[Tensor]| {
        call_back(|py| {
            let args = PyTuple::new(py, xs.iter().map(|x| PyTensor::new(x.clone())).collect::<Vec<_>>())?;
            let y = function.bind(py).call1(args)?;
            match y.cast::<PyTensor>() {
                Ok(y) => Ok(y.get().tensor()),
                Err(_) => Err(PyTypeError::new_err(format!("checkpoint: expected a function that returns one Tensor, got {}", kind(&y)?))),
            }
        })
    };
    run(py, 0, move || ops::checkpoint(Arc::new(call), &inputs)).map(PyTensor::new)
}

/// `value` on the tape as a function of `inputs`; `backward(gradient, output or None)` answers a gradient or None for each.
#[pyfunction]
fn _custom(py: Python<'_>, value: Bound<'_, PyAny>, inputs: Vec<Bound<'_, PyAny>>, keep: bool, backward: Py<PyAny>) -> PyResult<PyTensor> {
    let value = only_tensor(&value, "function")?;
    let inputs: Vec<Tensor> = inputs.iter().map(|x| only_tensor(x, "function")).collect::<PyResult<_>>()?;
    let call = move |dy: &Tensor, y: Option<Tensor>| {
        call_back(|py| {
            let answer = backward.bind(py).call1((PyTensor::new(dy.clone()), y.map(PyTensor::new)))?;
            let grads: Vec<Option<Bound<'_, PyAny>>> = answer.extract()?;
            let grads = grads.into_iter().map(|g| g.map(|g| only_tensor(&g, "function")).transpose());
            grads.collect::<PyResult<Vec<_>>>()
        })
    };
    run(py, 0, move || Ok(ops::custom(&value, &inputs, keep, Arc::new(call)))).map(PyTensor::new)
}

/// The value of a tensor as it is now, at the same place on the tape, in a cell that nobody else can change.
#[pyfunction]
fn _held(tensor: &Bound<'_, PyTensor>) -> PyTensor {
    PyTensor::new(tensor.get().tensor())
}

/// Whether operations are recorded on this thread.
#[pyfunction]
fn is_grad_enabled() -> bool {
    autograd::is_recording()
}

/// Turns recording on or off on this thread and returns what it was.
#[pyfunction]
fn _set_grad_enabled(on: bool) -> bool {
    autograd::mode::set_recording(on)
}

/// Whether this thread is in backward and runs the function of a checkpoint again: running statistics stay then.
#[pyfunction]
fn _is_recomputing() -> bool {
    autograd::mode::is_recomputing()
}

/// Turns the search for anomalies on this thread on or off and returns what it was.
#[pyfunction]
fn _set_watching(on: bool) -> bool {
    anomaly::set_watching(on)
}

/// A module that is being called.
struct Called(Py<PyAny>);

impl Layer for Called {
    fn label(&self, outermost: &dyn Layer) -> String {
        let Some(outermost) = (outermost as &dyn Any).downcast_ref::<Called>() else { return String::new() };
        Python::attach(|py| LABEL.get(py)?.bind(py).call1((&outermost.0, &self.0)).ok()?.extract().ok()).unwrap_or_default()
    }
}

/// `label(outermost, module)`: what a module is called in errors.
static LABEL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

#[pyfunction]
fn _set_label(py: Python<'_>, label: Py<PyAny>) {
    // Set once, when the package is imported.
    _ = LABEL.set(py, label);
}

/// `forward(*args, **kwargs)`, known as the computation of `module` if this thread looks for anomalies.
#[pyfunction]
fn _call_layer<'py>(module: Py<PyAny>, forward: &Bound<'py, PyAny>, args: &Bound<'py, PyTuple>, kwargs: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
    let call = || forward.call(args, (!kwargs.is_empty()).then_some(kwargs));
    if anomaly::is_watching() { anomaly::inside(Box::new(Called(module)), call) } else { call() }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    add_all!(
        m,
        super::convert::_expect_tensor,
        _checkpoint,
        _custom,
        _held,
        is_grad_enabled,
        _set_grad_enabled,
        _is_recomputing,
        _set_watching,
        _set_label,
        _call_layer
    );
    Ok(())
}
