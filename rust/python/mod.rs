//! The Python module `treadle._core`: conversion, naming, errors and the GIL. No arithmetic.

mod convert;
mod error;
mod functions;
mod interop;
mod methods;
mod nn;
mod optim;
mod random;
mod runtime;
mod shape;
mod tape;
mod tensor;

use crate::array::DType;
use convert::PyDType;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// The one `DType` object of an element type.
fn dtype_object(py: Python<'_>, dtype: DType) -> PyResult<Py<PyAny>> {
    static OBJECTS: PyOnceLock<Vec<Py<PyDType>>> = PyOnceLock::new();
    let all = OBJECTS.get_or_try_init(py, || DType::ALL.into_iter().map(|d| Py::new(py, PyDType(d))).collect::<PyResult<_>>())?;
    let at = DType::ALL.iter().position(|&d| d == dtype).expect("ALL has every type");
    Ok(all[at].clone_ref(py).into_any())
}

/// The compiled core of treadle.
#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    error::silence_panics();
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add_class::<tensor::PyTensor>()?;
    m.add_class::<PyDType>()?;
    for dtype in DType::ALL {
        let name = if dtype == DType::Bool { "bool_" } else { dtype.name() };
        m.add(name, dtype_object(m.py(), dtype)?)?;
    }
    functions::register(m)?;
    tape::register(m)?;
    nn::register(m)?;
    optim::register(m)?;
    random::register(m)?;
    runtime::register(m)?;
    // The stub says what is public.
    m.delattr("__all__")
}
