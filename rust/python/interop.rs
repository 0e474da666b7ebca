//! Tensors on their way to Python, NumPy and other libraries, and in their memory: values, printing, copying, pickling.

use super::arrays::to_numpy;
use super::convert::{element, kind, numpy};
use super::tensor::PyTensor;
use crate::Tensor;
use crate::array::{Array, DType, Scalar};
use pyo3::exceptions::{PyBufferError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

/// What `Tensor(...)` is called with when a pickle is read: array, element type, requires_grad.
type Arguments = (Py<PyAny>, &'static str, bool);

/// A tensor in the memory of a NumPy array, which it keeps alive; `None` where a tensor cannot lie so: another element type
/// (bool as well, since its bytes may hold more than 0 and 1) or byte order, or elements apart by parts of themselves.
#[pyfunction]
pub fn shared(array: &Bound<'_, PyAny>) -> PyResult<Option<PyTensor>> {
    let np = numpy(array.py())?;
    if !array.is_instance(&np.getattr("ndarray")?)? {
        return Err(PyTypeError::new_err(format!("shared: expected an array of NumPy, got {}", kind(array)?)));
    }
    let interface = array.getattr("__array_interface__")?;
    let dtype = match interface.get_item("typestr")?.extract::<String>()?.as_str() {
        "<f4" => DType::F32,
        "<f8" => DType::F64,
        "<i8" => DType::I64,
        "|u1" => DType::U8,
        _ => return Ok(None),
    };
    let shape: Vec<usize> = array.getattr("shape")?.extract()?;
    let bytes: Vec<isize> = array.getattr("strides")?.extract()?;
    let size = dtype.size() as isize;
    let aligned: bool = array.getattr("flags")?.getattr("aligned")?.extract()?;
    if !aligned || bytes.iter().any(|step| step % size != 0) || cfg!(target_endian = "big") {
        return Ok(None);
    }
    let strides: Vec<isize> = bytes.iter().map(|step| step / size).collect();
    let (address, _): (usize, bool) = interface.get_item("data")?.extract()?;
    // SAFETY: NumPy says that its elements of this type lie there, aligned, and the array is kept. That others write to them
    // only between operations is what the caller of `from_dlpack` answers for; a wrong number is the worst that can come of it.
    let made = unsafe { Array::borrowed(dtype, &shape, &strides, address as *const u8, Box::new(array.clone().unbind()))? };
    Ok(Some(PyTensor::new(Tensor::constant(made))))
}

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
        let copy = options.map(|options| options.get_item("copy")).transpose()?.flatten();
        let forbidden = copy.filter(|copy| !copy.is_none()).map_or(Ok(false), |copy| copy.is_truthy().map(|copies| !copies))?;
        // PyTorch takes no memory that runs backwards.
        if forbidden || self.lock().array().layout().strides().iter().all(|&step| step >= 0) {
            match view.call_method("__dlpack__", (), options) {
                Err(error) if !forbidden && error.is_instance_of::<PyBufferError>(py) => {}
                given => return given,
            }
        }
        // Older consumers cannot be told that memory is read-only; they get a copy of their own, too.
        view.call_method0("copy")?.call_method("__dlpack__", (), options)
    }
    fn __dlpack_device__(&self) -> (i32, i32) {
        (1, 0)
    }
    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let py = slf.py();
        let t = slf.get().tensor();
        let class = kind(slf)?;
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
        if spec.is_empty() {
            return Self::__repr__(slf);
        }
        let t = slf.get().tensor();
        if t.size() != 1 {
            return Err(PyTypeError::new_err(format!("format: expected one element for '{spec}', got shape {}", t.shape())));
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
        let t = self.tensor();
        match t.item_exact()? {
            Scalar::Bool(b) => Ok(b as i64),
            Scalar::Int(i) => Ok(i),
            Scalar::Float(_) => Err(PyTypeError::new_err(format!("index: expected an integer tensor, got {}", t.dtype()))),
        }
    }
    fn __hash__(slf: &Bound<'_, Self>) -> usize {
        slf.as_ptr() as usize >> 4
    }
    fn __iter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let builtins = slf.py().import("builtins")?;
        builtins.call_method1("map", (slf.getattr("__getitem__")?, builtins.call_method1("range", (slf.len()?,))?))
    }
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyType>, Arguments)> {
        let t = slf.get().tensor();
        // A copy, so that the pickle holds the elements and not a view of them.
        let array = to_numpy(slf.py(), t.array())?.call_method0("copy")?;
        Ok((slf.get_type(), (array.unbind(), t.dtype().name(), t.requires_grad())))
    }
    /// A leaf is copied to a leaf of its own, as by a deep copy; the result of a recorded operation stays on its graph.
    fn __copy__(&self) -> PyResult<PyTensor> {
        let t = self.tensor();
        Ok(PyTensor::new(if t.op_name().is_none() && t.requires_grad() { t.requiring_grad()? } else { t }))
    }
    /// RuntimeError for the result of a recorded operation, which a copy would silently take off its graph.
    fn __deepcopy__<'py>(slf: &Bound<'py, Self>, memo: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
        let op = slf.get().lock().op_name();
        if let Some(op) = op {
            let message = format!("deepcopy: expected a tensor made by the user, got the result of a recorded {op}; use detach() first");
            return Err(PyRuntimeError::new_err(message));
        }
        let (class, arguments) = slf.call_method0("__reduce__")?.extract::<(Bound<'py, PyAny>, Bound<'py, PyTuple>)>()?;
        let fresh = class.call1(arguments)?;
        memo.set_item(slf.as_ptr() as usize, &fresh)?;
        Ok(fresh)
    }
}
