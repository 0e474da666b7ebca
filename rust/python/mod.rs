//! The Python module `treadle._core`: conversion, naming, errors and the GIL. No arithmetic.

/// Adds functions to a module.
macro_rules! add_all {
    ($m:expr, $($name:path),+ $(,)?) => { $($m.add_function(pyo3::wrap_pyfunction!($name, $m)?)?;)+ };
}

mod convert;
mod dtype;
mod error;
mod functions;
mod interop;
mod methods;
mod nn;
mod operand;
mod optim;
mod random;
mod runtime;
mod shape;
mod tape;
mod tensor;

use crate::array::DType;
use dtype::{PyDType, dtype_object, global_name};
use pyo3::prelude::*;

/// The compiled core of treadle.
#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    error::silence_panics();
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add_class::<tensor::PyTensor>()?;
    m.add_class::<PyDType>()?;
    for dtype in DType::ALL {
        m.add(global_name(dtype), dtype_object(m.py(), dtype)?)?;
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
