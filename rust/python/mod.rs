//! The Python module `treadle._core`: conversion, naming, errors and the GIL. No arithmetic.

/// Adds functions to a module.
macro_rules! add_all {
    ($m:expr, $($name:path),+ $(,)?) => { $($m.add_function(pyo3::wrap_pyfunction!($name, $m)?)?;)+ };
}

/// Methods that are functions of the module as well, but for what is no Tensor: `ops.exp(x)` is `x.exp()`. Each has its signature
/// as Python sees it, then its arguments.
macro_rules! shared_methods {
    ($register:ident: $($(#[$m:meta])* fn $name:ident($($signature:tt)*) |$self:ident, $py:ident $(, $arg:ident: $type:ty)*| -> $out:ty $body:block)+) => {
        #[pymethods]
        impl PyTensor {
            $($(#[$m])*
            #[pyo3(signature = ($($signature)*))]
            fn $name(&$self, $py: Python<'_>, $($arg: $type),*) -> PyResult<$out> $body)+
        }
        pub fn $register(m: &Bound<'_, PyModule>) -> PyResult<()> {
            $({
                #[pyfunction]
                $(#[$m])*
                #[pyo3(signature = (x, /, $($signature)*))]
                fn $name(py: Python<'_>, x: &Bound<'_, PyAny>, $($arg: $type),*) -> PyResult<$out> {
                    super::convert::cell(x, stringify!($name).trim_end_matches('_'))?.$name(py, $($arg),*)
                }
                m.add_function(pyo3::wrap_pyfunction!($name, m)?)?;
            })+
            Ok(())
        }
    };
}

mod arrays;
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
    // From here on children are known as such.
    crate::kernels::fork::generation();
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add_class::<tensor::PyTensor>()?;
    m.add_class::<PyDType>()?;
    for dtype in DType::ALL {
        m.add(global_name(dtype), dtype_object(m.py(), dtype)?)?;
    }
    functions::register(m)?;
    tape::register(m)?;
    nn::register(m)?;
    methods::register(m)?;
    shape::register(m)?;
    optim::register(m)?;
    random::register(m)?;
    runtime::register(m)?;
    // The stub says what is public.
    m.delattr("__all__")
}
