//! Tensors on their way to Python, NumPy and other libraries: values, printing, copying, pickling.

use super::convert::{element, numpy, to_numpy};
use super::tensor::PyTensor;
use crate::array::DType;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

/// What `Tensor(...)` is called with when a pickle is read: array, element type, requires_grad.
type Arguments = (Py<PyAny>, &'static str, bool);

#[pymethods]
impl PyTensor {
    /// A read-only NumPy array that shares the storage; it keeps its value when the tensor is updated.
    fn numpy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_numpy(py, self.tensor().array())
    }
    /// The only element as a Python number.
    fn item<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let t = self.tensor();
        if t.size() != 1 {
            return Err(PyValueError::new_err(format!("item: expected one element, got shape {}", t.shape())));
        }
        element(py, t.array(), t.array().layout().offset)
    }
    /// The elements as nested lists of Python numbers; a number if there are no axes.
    fn tolist<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.numpy(py)?.call_method0("tolist")
    }
    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(&self, py: Python<'py>, dtype: Option<&Bound<'py, PyAny>>, copy: Option<bool>) -> PyResult<Bound<'py, PyAny>> {
        let view = self.numpy(py)?;
        let options = PyDict::new(py);
        match copy {
            Some(true) => options.set_item("copy", true)?,
            Some(false) if dtype.is_some() => options.set_item("copy", false)?,
            _ => {
                return match dtype {
                    None => Ok(view),
                    Some(dtype) => numpy(py)?.call_method1("asarray", (view, dtype)),
                };
            }
        }
        if let Some(dtype) = dtype {
            options.set_item("dtype", dtype)?;
        }
        numpy(py)?.call_method("array", (view,), Some(&options))
    }
    /// NumPy's ufuncs do not take tensors: `array * tensor` becomes a tensor, `np.exp(tensor)` is a TypeError.
    #[classattr]
    fn __array_ufunc__() -> Option<bool> {
        None
    }
    #[pyo3(signature = (**options))]
    fn __dlpack__<'py>(&self, py: Python<'py>, options: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyAny>> {
        let view = self.numpy(py)?;
        // Older consumers cannot be told that memory is read-only; they get a copy of their own.
        view.call_method("__dlpack__", (), options).or_else(|_| view.call_method0("copy")?.call_method("__dlpack__", (), options))
    }
    fn __dlpack_device__(&self) -> (i32, i32) {
        (1, 0)
    }
    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let py = slf.py();
        let t = slf.get().tensor();
        let class = slf.get_type().name()?.to_string();
        let name = if class == "Tensor" { "tensor".to_string() } else { class };
        let options = PyDict::new(py);
        options.set_item("separator", ", ")?;
        options.set_item("prefix", format!("{name}("))?;
        let body = numpy(py)?.call_method("array2string", (to_numpy(py, t.array())?,), Some(&options))?;
        let mut out = format!("{name}({body}");
        if t.size() == 0 {
            out += &format!(", shape={}", t.shape());
        }
        if matches!(t.dtype(), DType::F64 | DType::U8) || (t.size() == 0 && t.dtype() != DType::F32) {
            out += &format!(", dtype={}", t.dtype());
        }
        match t.op_name() {
            Some(op) => out += &format!(", grad_fn={op}"),
            None if t.requires_grad() => out += ", requires_grad=True",
            None => {}
        }
        Ok(out + ")")
    }
    /// What notebooks show: see `treadle/notebook.py`.
    fn _repr_html_<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("treadle.notebook")?.call_method1("tensor", (slf,))
    }
    fn __format__(slf: &Bound<'_, Self>, spec: &str) -> PyResult<String> {
        if spec.is_empty() || slf.get().lock().size() != 1 {
            return Self::__repr__(slf);
        }
        slf.get().item(slf.py())?.call_method1("__format__", (spec,))?.extract()
    }
    fn __bool__(&self, py: Python<'_>) -> PyResult<bool> {
        let t = self.lock();
        if t.size() != 1 {
            return Err(PyValueError::new_err(format!("bool: expected one element, got shape {}; use any() or all()", t.shape())));
        }
        drop(t);
        self.item(py)?.is_truthy()
    }
    fn __float__(&self) -> PyResult<f64> {
        Ok(self.lock().item()?)
    }
    fn __int__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.item(py)?.call_method0("__int__")
    }
    fn __index__(&self) -> PyResult<i64> {
        let t = self.lock();
        if t.dtype().is_float() {
            return Err(PyTypeError::new_err(format!("index: expected an integer tensor, got {}", t.dtype())));
        }
        Ok(t.item()? as i64)
    }
    fn __hash__(slf: &Bound<'_, Self>) -> usize {
        slf.as_ptr() as usize >> 4
    }
    fn __iter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let rows: Vec<Bound<'py, PyAny>> = (0..slf.len()?).map(|i| slf.get_item(i)).collect::<PyResult<_>>()?;
        pyo3::types::PyList::new(slf.py(), rows)?.call_method0("__iter__")
    }
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyType>, Arguments)> {
        let t = slf.get().tensor();
        // A copy, so that the pickle holds the elements and not a view of them.
        let array = to_numpy(slf.py(), t.array())?.call_method0("copy")?;
        Ok((slf.get_type(), (array.unbind(), t.dtype().name(), t.requires_grad())))
    }
    fn __copy__(&self) -> PyTensor {
        PyTensor::new(self.tensor())
    }
    fn __deepcopy__<'py>(slf: &Bound<'py, Self>, memo: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
        let (class, arguments) = slf.call_method0("__reduce__")?.extract::<(Bound<'py, PyAny>, Bound<'py, PyTuple>)>()?;
        let fresh = class.call1(arguments)?;
        memo.set_item(slf.as_ptr() as usize, &fresh)?;
        Ok(fresh)
    }
}
