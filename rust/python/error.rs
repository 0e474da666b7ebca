//! The gateway between Python and the core: errors become exceptions, panics become RuntimeError, long work releases the GIL.

use crate::Error;
use crate::autograd::anomaly;
use pyo3::exceptions::{PyFloatingPointError, PyIndexError, PyMemoryError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

impl From<Error> for PyErr {
    fn from(error: Error) -> PyErr {
        match error {
            Error::Value(message) => PyValueError::new_err(message),
            Error::Type(message) => PyTypeError::new_err(message),
            Error::Index(message) => PyIndexError::new_err(message),
            Error::Graph(message) => PyRuntimeError::new_err(message),
            Error::NonFinite(message) => PyFloatingPointError::new_err(message),
            Error::Memory(message) => PyMemoryError::new_err(message),
            Error::Foreign(inner) => match inner.0.downcast_ref::<PyErr>() {
                Some(error) => Python::attach(|py| error.clone_ref(py)),
                None => PyRuntimeError::new_err(inner.to_string()),
            },
        }
    }
}

/// Work of fewer elements than this is over in about ten microseconds and keeps the GIL.
pub const LONG: usize = 1 << 15;

/// Runs core work that touches about `elements` elements.
#[inline]
pub fn run<R: Send>(py: Python<'_>, elements: usize, work: impl FnOnce() -> crate::Result<R> + Send) -> PyResult<R> {
    if elements < LONG { run_short(work) } else { py.detach(|| run_short(work)) }
}

/// Runs core work that keeps the GIL.
#[inline]
pub fn run_short<R>(work: impl FnOnce() -> crate::Result<R>) -> PyResult<R> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => {
            let result = result?;
            if anomaly::is_watching() {
                anomaly::check()?;
            }
            Ok(result)
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            let text = text.unwrap_or("no message");
            Err(PyRuntimeError::new_err(format!("treadle: expected to finish, got an internal error ({text}); please report it")))
        }
    }
}

/// Panics of this library are reported as exceptions, never printed.
pub fn silence_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}
