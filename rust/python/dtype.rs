//! Element types as Python objects.

use super::convert::{repr, text};
use crate::array::DType;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};

/// An element type: float32, float64, int64, uint8 or bool. Equal to its own name and to NumPy's dtype.
#[pyclass(name = "DType", module = "treadle", frozen)]
#[derive(Clone, Copy)]
pub struct PyDType(pub DType);

#[pymethods]
impl PyDType {
    /// NumPy's name of the type.
    #[getter]
    fn name(&self) -> &'static str {
        self.0.name()
    }
    /// Bytes per element.
    #[getter]
    fn itemsize(&self) -> usize {
        self.0.size()
    }
    /// Whether tensors of this type can require a gradient.
    #[getter]
    fn is_floating_point(&self) -> bool {
        self.0.is_float()
    }
    fn __repr__(&self) -> String {
        format!("treadle.{}", self.0.name())
    }
    fn __str__(&self) -> &'static str {
        self.0.name()
    }
    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        PyString::new(py, self.0.name()).hash()
    }
    fn __eq__(&self, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        match dtype(other) {
            Err(error) if error.is_instance_of::<PyTypeError>(other.py()) => Ok(false),
            named => Ok(named? == self.0),
        }
    }
    /// The name of a global of treadle, so that copies are the same object.
    fn __reduce__(&self) -> &'static str {
        global_name(self.0)
    }
}

/// What treadle calls an element type; NumPy's name, but for the builtin `bool`.
pub fn global_name(dtype: DType) -> &'static str {
    if dtype == DType::Bool { "bool_" } else { dtype.name() }
}

/// The element type that a Python object names.
pub fn dtype(object: &Bound<'_, PyAny>) -> PyResult<DType> {
    if let Ok(d) = object.cast::<PyDType>() {
        return Ok(d.get().0);
    }
    let name = if let Ok(name) = object.cast::<PyString>() {
        name.to_string_lossy().into_owned()
    } else if let Ok(class) = object.cast::<PyType>() {
        match &*class.name()?.to_string_lossy() {
            "float" => "float32".into(),
            "int" => "int64".into(),
            other => other.trim_end_matches('_').to_string(),
        }
    } else {
        match object.getattr_opt("name")? {
            Some(name) if name.is_instance_of::<PyString>() => text(&name)?,
            _ => repr(object)?,
        }
    };
    DType::from_name(&name).ok_or_else(|| PyTypeError::new_err(format!("dtype: expected float32, float64, int64, uint8 or bool, got {name}")))
}

pub fn optional_dtype(object: Option<&Bound<'_, PyAny>>) -> PyResult<Option<DType>> {
    object.filter(|o| !o.is_none()).map(dtype).transpose()
}

/// The one `DType` object of an element type.
pub fn dtype_object(py: Python<'_>, dtype: DType) -> PyResult<Py<PyAny>> {
    static OBJECTS: PyOnceLock<Vec<Py<PyDType>>> = PyOnceLock::new();
    let all = OBJECTS.get_or_try_init(py, || DType::ALL.into_iter().map(|d| Py::new(py, PyDType(d))).collect::<PyResult<_>>())?;
    let at = DType::ALL.iter().position(|&d| d == dtype).expect("ALL has every type");
    Ok(all[at].clone_ref(py).into_any())
}
