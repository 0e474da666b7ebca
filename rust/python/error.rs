//! The gateway between Python and the core: errors become exceptions, panics become RuntimeError, long work releases the GIL.

use crate::Error;
use crate::autograd::anomaly;
use crate::autograd::mode::Mode;
use crate::error::Foreign;
use crate::kernels::{fork, interrupt};
use pyo3::exceptions::{PyFloatingPointError, PyIndexError, PyKeyboardInterrupt, PyMemoryError, PyOverflowError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

impl From<Error> for PyErr {
    fn from(error: Error) -> PyErr {
        match error {
            Error::Value(message) => PyValueError::new_err(message),
            Error::Type(message) => PyTypeError::new_err(message),
            Error::Index(message) => PyIndexError::new_err(message),
            Error::Graph(message) => PyRuntimeError::new_err(message),
            Error::NonFinite(message) => PyFloatingPointError::new_err(message),
            Error::Memory(message) => PyMemoryError::new_err(message),
            Error::Interrupted => PyKeyboardInterrupt::new_err(()),
            Error::Foreign(inner) => match inner.0.downcast_ref::<PyErr>() {
                Some(error) => Python::attach(|py| error.clone_ref(py)),
                None => PyRuntimeError::new_err(inner.to_string()),
            },
        }
    }
}

/// Whether Python refuses an object with this error, for its kind or its value. Any other, such as what the handler of a signal
/// raised meanwhile, is the caller's and must not be taken for an answer.
pub fn is_refusal(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyTypeError>(py) || error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyOverflowError>(py)
}

/// Work of fewer elements than this is over in about ten microseconds and keeps the GIL.
pub const LONG: usize = 1 << 15;

/// Runs core work that touches about `elements` elements and changes nothing that was there before: a signal may end it.
#[inline]
pub fn run<R: Send>(py: Python<'_>, elements: usize, work: impl FnOnce() -> crate::Result<R> + Send) -> PyResult<R> {
    if elements < LONG {
        return run_short(work);
    }
    let main = is_main_thread(py)?;
    py.detach(|| if main { interruptible(work) } else { run_short(work) })
}

/// As [`run`], for work that changes something: it is never left half done.
pub fn run_whole<R: Send>(py: Python<'_>, elements: usize, work: impl FnOnce() -> crate::Result<R> + Send) -> PyResult<R> {
    if elements < LONG { run_short(work) } else { py.detach(|| run_short(work)) }
}

thread_local! {
    /// Whether this is the main thread, and the process where it was asked: a child has the thread that forked as its main one.
    static MAIN: Cell<Option<(usize, bool)>> = const { Cell::new(None) };
    /// The mode that watched work was begun in: what handlers of signals in the middle of it see.
    static BEGUN: Cell<Option<Mode>> = const { Cell::new(None) };
    /// What the handler of a signal raised.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// Whether this is the thread that handlers of signals run on.
fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let process = fork::generation();
    if let Some((_, known)) = MAIN.get().filter(|known| known.0 == process) {
        return Ok(known);
    }
    // What is asked runs code of Python, and with it the handlers of signals that came before.
    let threading = py.import("threading")?;
    let asked = threading.call_method0("main_thread")?.getattr("ident")?.eq(threading.call_method0("get_ident")?)?;
    MAIN.set(Some((process, asked)));
    Ok(asked)
}

/// Runs the handlers of signals that came, and says whether one of them raised.
fn signals() -> bool {
    let check = || Python::attach(|py| py.check_signals()).err();
    let raised = BEGUN.get().map_or_else(check, |mode| mode.run(check));
    let any = raised.is_some();
    RAISED.set(raised);
    any
}

fn interruptible<R>(work: impl FnOnce() -> crate::Result<R>) -> PyResult<R> {
    let outer = BEGUN.replace(Some(Mode::current()));
    let outcome = interrupt::watched(signals, || run_short(work));
    BEGUN.set(outer);
    match outcome {
        (result, false) => result,
        (_, true) => {
            anomaly::forget();
            Err(RAISED.take().unwrap_or_else(|| PyKeyboardInterrupt::new_err(())))
        }
    }
}

/// Calls Python from inside core work, which may have released the GIL. What the call does is not part of that work.
pub fn call_back<R>(call: impl FnOnce(Python<'_>) -> PyResult<R>) -> crate::Result<R> {
    interrupt::whole(|| Python::attach(call)).map_err(|error| Error::Foreign(Foreign(Arc::new(error))))
}

/// Runs core work that keeps the GIL.
#[inline]
pub fn run_short<R>(work: impl FnOnce() -> crate::Result<R>) -> PyResult<R> {
    let result = run_locked(work);
    if anomaly::is_watching() {
        match &result {
            Ok(_) => anomaly::check()?,
            Err(_) => anomaly::forget(),
        }
    }
    result
}

/// As [`run_short`], for work that records nothing and runs under locks of tensors: no anomaly is looked for, since code of Python
/// puts it into words.
#[inline]
pub fn run_locked<R>(work: impl FnOnce() -> crate::Result<R>) -> PyResult<R> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => Ok(result?),
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
