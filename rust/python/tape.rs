//! The tape from Python: functions of the caller's own on it, whether it is recorded, and the search for anomalies.

use super::convert::only_tensor;
use super::error::run;
use super::tensor::PyTensor;
use crate::error::{Error, Foreign};
use crate::{Tensor, autograd, ops};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::sync::Arc;

/// `function(*inputs)`, run again in backward instead of keeping what it saved.
#[pyfunction]
#[pyo3(signature = (function, *inputs))]
fn _checkpoint(py: Python<'_>, function: Py<PyAny>, inputs: Vec<Bound<'_, PyAny>>) -> PyResult<PyTensor> {
    let inputs: Vec<Tensor> = inputs.iter().map(|x| only_tensor(x, "checkpoint")).collect::<PyResult<_>>()?;
    let call = move |xs: &[Tensor]| {
        Python::attach(|py| {
            let args = PyTuple::new(py, xs.iter().map(|x| PyTensor::new(x.clone())).collect::<Vec<_>>())?;
            only_tensor(&function.bind(py).call1(args)?, "checkpoint")
        })
        .map_err(|e| Error::Foreign(Foreign(Arc::new(e))))
    };
    run(py, 0, move || ops::checkpoint(Arc::new(call), &inputs)).map(PyTensor::new)
}

/// `value` on the tape as a function of `inputs`; `backward(gradient, output or None)` answers a gradient or None for each.
#[pyfunction]
fn _custom(py: Python<'_>, value: Bound<'_, PyAny>, inputs: Vec<Bound<'_, PyAny>>, keep: bool, backward: Py<PyAny>) -> PyResult<PyTensor> {
    let value = only_tensor(&value, "function")?;
    let inputs: Vec<Tensor> = inputs.iter().map(|x| only_tensor(x, "function")).collect::<PyResult<_>>()?;
    let call = move |dy: &Tensor, y: Option<Tensor>| {
        Python::attach(|py| {
            let answer = backward.bind(py).call1((PyTensor::new(dy.clone()), y.map(PyTensor::new)))?;
            let grads: Vec<Option<Bound<'_, PyAny>>> = answer.extract()?;
            let grads = grads.into_iter().map(|g| g.map(|g| only_tensor(&g, "function")).transpose());
            grads.collect::<PyResult<Vec<_>>>()
        })
        .map_err(|e| Error::Foreign(Foreign(Arc::new(e))))
    };
    run(py, 0, move || Ok(ops::custom(&value, &inputs, keep, Arc::new(call)))).map(PyTensor::new)
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

/// Turns the search for anomalies on this thread on or off and returns what it was.
#[pyfunction]
fn _set_watching(on: bool) -> bool {
    autograd::anomaly::set_watching(on)
}

/// Says that a layer's computation begins; nothing where no anomalies are looked for.
#[pyfunction]
fn _enter_layer(name: &str) {
    autograd::anomaly::enter(name.into());
}

/// Says that it ended.
#[pyfunction]
fn _leave_layer() {
    autograd::anomaly::leave();
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(_checkpoint, m)?)?;
    m.add_function(wrap_pyfunction!(_custom, m)?)?;
    m.add_function(wrap_pyfunction!(is_grad_enabled, m)?)?;
    m.add_function(wrap_pyfunction!(_set_grad_enabled, m)?)?;
    m.add_function(wrap_pyfunction!(_set_watching, m)?)?;
    m.add_function(wrap_pyfunction!(_enter_layer, m)?)?;
    m.add_function(wrap_pyfunction!(_leave_layer, m)?)
}
