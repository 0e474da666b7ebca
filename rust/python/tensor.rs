//! `treadle.Tensor`: a cell that holds a core tensor.
//!
//! Invariant: core tensors are values; only the cell can change, as a whole, under its lock.

use super::convert::{self, Axes, Other, check_device, numpy, optional_dtype, tensor_like, to_numpy};
use super::error::run;
use crate::array::DType;
use crate::{Tensor, ops};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// An n-dimensional array that remembers how it was computed.
///
/// Args:
///     data: A tensor, NumPy array, number or nested list. Floats in lists become float32.
///     dtype: Element type; None keeps the data's own.
///     requires_grad: Whether gradients are accumulated in `grad`.
///     device: None or "cpu".
///
/// Raises:
///     TypeError: Data of another kind, or `requires_grad` on integers.
///     ValueError: A ragged list or another device.
///
/// Example:
///     >>> x = treadle.tensor([1.0, 2.0], requires_grad=True)
///     >>> (x * x).sum().backward()
///     >>> x.grad
///     tensor([2., 4.])
#[pyclass(name = "Tensor", module = "treadle", subclass, frozen, weakref)]
pub struct PyTensor {
    cell: Mutex<Tensor>,
}

impl PyTensor {
    pub fn new(tensor: Tensor) -> PyTensor {
        PyTensor { cell: Mutex::new(tensor) }
    }

    pub fn lock(&self) -> MutexGuard<'_, Tensor> {
        self.cell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value and its place on the tape.
    #[inline]
    pub fn tensor(&self) -> Tensor {
        self.lock().clone()
    }
}

impl From<Tensor> for PyTensor {
    fn from(tensor: Tensor) -> PyTensor {
        PyTensor::new(tensor)
    }
}

/// Runs `f` on this tensor in the gateway.
pub fn apply(py: Python<'_>, x: &PyTensor, f: impl FnOnce(&Tensor) -> crate::Result<Tensor> + Send) -> PyResult<PyTensor> {
    let x = x.tensor();
    run(py, x.size(), move || f(&x)).map(PyTensor::new)
}

pub fn apply2(py: Python<'_>, a: Tensor, b: Tensor, f: impl FnOnce(&Tensor, &Tensor) -> crate::Result<Tensor> + Send) -> PyResult<PyTensor> {
    let size = a.size().max(b.size());
    run(py, size, move || f(&a, &b)).map(PyTensor::new)
}

#[pymethods]
impl PyTensor {
    #[new]
    #[pyo3(signature = (data, dtype=None, requires_grad=false, device=None))]
    fn build(data: &Bound<'_, PyAny>, dtype: Option<&Bound<'_, PyAny>>, requires_grad: bool, device: Option<&Bound<'_, PyAny>>) -> PyResult<PyTensor> {
        check_device(device)?;
        let value = tensor_like(data, optional_dtype(dtype)?)?.detach();
        Ok(PyTensor::new(if requires_grad { value.requiring_grad()? } else { value }))
    }

    // Facts ------------------------------------------------------------

    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.lock().shape().iter())
    }
    #[getter]
    fn ndim(&self) -> usize {
        self.lock().ndim()
    }
    #[getter]
    fn size(&self) -> usize {
        self.lock().size()
    }
    #[getter]
    fn dtype(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        super::dtype_object(py, self.lock().dtype())
    }
    #[getter]
    fn device(&self) -> &'static str {
        "cpu"
    }
    /// Bytes of the elements.
    #[getter]
    fn nbytes(&self) -> usize {
        let t = self.lock();
        t.size() * t.dtype().size()
    }
    fn numel(&self) -> usize {
        self.size()
    }
    fn dim(&self) -> usize {
        self.ndim()
    }
    fn __len__(&self) -> PyResult<usize> {
        self.lock().shape().first().copied().ok_or_else(|| PyTypeError::new_err("len: expected at least one dimension, got a tensor of shape ()"))
    }

    // The tape -----------------------------------------------------------

    /// Whether the tensor was made by the user rather than by a recorded operation.
    #[getter]
    fn is_leaf(&self) -> bool {
        self.lock().op_name().is_none()
    }
    /// The name of the operation that made the tensor, None for leaves.
    #[getter]
    fn grad_fn(&self) -> Option<&'static str> {
        self.lock().op_name()
    }
    #[getter]
    fn get_requires_grad(&self) -> bool {
        self.lock().requires_grad()
    }
    #[setter]
    fn set_requires_grad(&self, value: bool) -> PyResult<()> {
        let mut t = self.lock();
        if t.op_name().is_some() {
            if value {
                return Ok(());
            }
            return Err(PyRuntimeError::new_err("requires_grad: expected a leaf, got the result of a recorded operation; use detach()"));
        }
        if value != t.requires_grad() {
            let changed = if value { t.requiring_grad()? } else { t.detach() };
            *t = changed;
        }
        Ok(())
    }
    /// Sets `requires_grad` and returns the tensor itself.
    #[pyo3(signature = (requires_grad=true))]
    fn requires_grad_(slf: PyRef<'_, Self>, requires_grad: bool) -> PyResult<PyRef<'_, Self>> {
        slf.set_requires_grad(requires_grad)?;
        Ok(slf)
    }
    /// The accumulated gradient, None before the first backward.
    #[getter]
    fn get_grad(&self) -> Option<PyTensor> {
        self.lock().grad().map(PyTensor::new)
    }
    #[setter]
    fn set_grad(&self, value: Option<&Bound<'_, PyTensor>>) -> PyResult<()> {
        if value.is_none() && !self.lock().requires_grad() {
            return Ok(());
        }
        let grad = value.map(|g| g.get().tensor());
        Ok(self.lock().set_grad(grad)?)
    }
    /// The value without its place on the tape; assigning replaces the value and keeps `requires_grad`.
    #[getter]
    fn get_data(&self) -> PyTensor {
        self.detach()
    }
    #[setter]
    fn set_data(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut value = tensor_like(value, Some(self.lock().dtype()))?.detach();
        let mut t = self.lock();
        if value.shape() == t.shape() {
            *t.array_mut() = value.into_array();
            return Ok(());
        }
        if t.requires_grad() {
            value = value.requiring_grad()?;
        }
        *t = value;
        Ok(())
    }
    /// Overwrites the value in place; `value` is broadcast and cast. Not recorded.
    ///
    /// Raises:
    ///     ValueError: A shape that does not broadcast to this tensor's.
    ///     RuntimeError: This tensor is the result of a recorded operation.
    fn copy_<'py>(slf: Bound<'py, Self>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let dtype = slf.get().lock().dtype();
        let value = tensor_like(value, Some(dtype))?;
        {
            let mut t = slf.get().lock();
            if t.op_name().is_some() {
                return Err(PyRuntimeError::new_err("copy_: expected a leaf, got the result of a recorded operation; use detach() first"));
            }
            let wide = value
                .array()
                .broadcast_to(t.shape())
                .map_err(|_| PyValueError::new_err(format!("copy_: expected a value that broadcasts to {}, got {}", t.shape(), value.shape())))?;
            *t.array_mut() = crate::kernels::map::contiguous(&wide)?;
        }
        Ok(slf)
    }
    /// The same value off the tape.
    fn detach(&self) -> PyTensor {
        PyTensor::new(self.lock().detach())
    }
    /// The same value as a recorded operation; since tensors are values no memory is copied.
    fn clone(&self) -> PyTensor {
        PyTensor::new(crate::autograd::linear::identity(&self.tensor()))
    }
    /// Accumulates gradients into `.grad` of the leaves this tensor was computed from.
    ///
    /// Args:
    ///     gradient: Gradient of the final quantity with respect to this tensor; None only for one element.
    ///     retain_graph: Keep what backward needs, so that it can run again.
    ///     create_graph: Record backward itself, for higher derivatives.
    ///
    /// Raises:
    ///     RuntimeError: Nothing was recorded, or backward already freed the graph.
    ///     ValueError: A gradient of another shape, or none for more than one element.
    #[pyo3(signature = (gradient=None, retain_graph=false, create_graph=false))]
    fn backward(&self, py: Python<'_>, gradient: Option<&Bound<'_, PyAny>>, retain_graph: bool, create_graph: bool) -> PyResult<()> {
        let y = self.tensor();
        let gradient = gradient.map(|g| tensor_like(g, Some(y.dtype()))).transpose()?;
        run(py, usize::MAX, move || y.backward(gradient, retain_graph, create_graph))
    }

    // To Python and NumPy --------------------------------------------------

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
        convert::element(py, t.array(), t.array().layout().offset)
    }
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
    fn __format__(slf: &Bound<'_, Self>, spec: &str) -> PyResult<String> {
        if spec.is_empty() || slf.get().size() != 1 {
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
        let rows: Vec<Bound<'py, PyAny>> = (0..slf.get().__len__()?).map(|i| slf.get_item(i)).collect::<PyResult<_>>()?;
        pyo3::types::PyList::new(slf.py(), rows)?.call_method0("__iter__")
    }
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyType>, (Py<PyAny>, &'static str, bool))> {
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

    // Element types ----------------------------------------------------

    /// The same values as another element type.
    fn astype(&self, py: Python<'_>, dtype: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
        let dtype = convert::dtype(dtype)?;
        apply(py, self, |x| ops::cast(x, dtype))
    }
    fn float(&self, py: Python<'_>) -> PyResult<PyTensor> {
        apply(py, self, |x| ops::cast(x, DType::F32))
    }
    fn double(&self, py: Python<'_>) -> PyResult<PyTensor> {
        apply(py, self, |x| ops::cast(x, DType::F64))
    }
    fn long(&self, py: Python<'_>) -> PyResult<PyTensor> {
        apply(py, self, |x| ops::cast(x, DType::I64))
    }
    fn bool(&self, py: Python<'_>) -> PyResult<PyTensor> {
        apply(py, self, |x| ops::cast(x, DType::Bool))
    }

    // Indexing -----------------------------------------------------------

    fn __getitem__(&self, py: Python<'_>, index: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
        let index = convert::index(index)?;
        apply(py, self, |x| ops::get(x, &index))
    }
    fn __setitem__(&self, py: Python<'_>, index: &Bound<'_, PyAny>, value: Other) -> PyResult<()> {
        let index = convert::index(index)?;
        let x = self.tensor();
        let value = value.beside(x.dtype())?;
        let leaf = x.op_name().is_none() && x.requires_grad();
        if leaf && crate::autograd::is_recording() {
            return Err(PyRuntimeError::new_err("index: expected no assignment into a leaf that requires grad, got one; use no_grad() or where()"));
        }
        let changed = run(py, x.size(), move || ops::set(&x, &index, &value))?;
        let mut cell = self.lock();
        if leaf {
            *cell.array_mut() = changed.into_array();
        } else {
            *cell = changed;
        }
        Ok(())
    }

    // Shapes -----------------------------------------------------------

    #[getter(T)]
    fn transposed(&self) -> PyTensor {
        PyTensor::new(ops::transpose(&self.tensor()))
    }
    /// The same elements in the same order under another shape; one size may be -1.
    #[pyo3(signature = (*shape))]
    fn reshape(&self, py: Python<'_>, shape: &Bound<'_, PyTuple>) -> PyResult<PyTensor> {
        let sizes = convert::signed_shape_of(shape)?;
        apply(py, self, |x| ops::reshape(x, &sizes))
    }
    #[pyo3(signature = (*shape))]
    fn view(&self, py: Python<'_>, shape: &Bound<'_, PyTuple>) -> PyResult<PyTensor> {
        self.reshape(py, shape)
    }
    #[pyo3(signature = (start=0, end=-1))]
    fn flatten(&self, py: Python<'_>, start: isize, end: isize) -> PyResult<PyTensor> {
        apply(py, self, |x| ops::flatten(x, start, end))
    }
    /// The axes in the given order; reversed if none is given.
    #[pyo3(signature = (*axes))]
    fn permute(&self, axes: &Bound<'_, PyTuple>) -> PyResult<PyTensor> {
        if axes.is_empty() {
            return Ok(self.transposed());
        }
        let axes = convert::signed_shape_of(axes)?;
        Ok(PyTensor::new(ops::permute(&self.tensor(), &axes)?))
    }
    #[pyo3(signature = (*axes))]
    fn transpose(&self, axes: &Bound<'_, PyTuple>) -> PyResult<PyTensor> {
        self.permute(axes)
    }
    fn swapaxes(&self, a: isize, b: isize) -> PyResult<PyTensor> {
        Ok(PyTensor::new(ops::swapaxes(&self.tensor(), a, b)?))
    }
    #[pyo3(signature = (*shape))]
    fn broadcast_to(&self, shape: &Bound<'_, PyTuple>) -> PyResult<PyTensor> {
        Ok(PyTensor::new(ops::broadcast_to(&self.tensor(), &convert::shape_of(shape)?)?))
    }
    /// Broadcast to a shape in which -1 keeps the size there is.
    #[pyo3(signature = (*shape))]
    fn expand(&self, shape: &Bound<'_, PyTuple>) -> PyResult<PyTensor> {
        let (sizes, t) = (convert::signed_shape_of(shape)?, self.tensor());
        let lead = sizes.len().saturating_sub(t.ndim());
        let filled: PyResult<Vec<usize>> = sizes
            .iter()
            .enumerate()
            .map(|(i, &n)| match n {
                -1 if i >= lead => Ok(t.shape()[i - lead]),
                n => usize::try_from(n).map_err(|_| PyValueError::new_err(format!("expand: expected sizes of at least 0 (or -1 to keep one), got {n}"))),
            })
            .collect();
        Ok(PyTensor::new(ops::broadcast_to(&t, &filled?)?))
    }
    #[pyo3(signature = (axis=None))]
    fn squeeze(&self, axis: Option<Axes>) -> PyResult<PyTensor> {
        Ok(PyTensor::new(ops::squeeze(&self.tensor(), axis.as_ref().map(|a| &a.0[..]))?))
    }
    fn unsqueeze(&self, axis: isize) -> PyResult<PyTensor> {
        Ok(PyTensor::new(ops::unsqueeze(&self.tensor(), axis)?))
    }
    #[pyo3(signature = (axis=None))]
    fn flip(&self, axis: Option<Axes>) -> PyResult<PyTensor> {
        Ok(PyTensor::new(ops::flip(&self.tensor(), axis.as_ref().map(|a| &a.0[..]))?))
    }
    /// Consecutive parts along an axis: a size for all of them (the last may be smaller), or a list of sizes.
    #[pyo3(signature = (sizes, axis=0))]
    fn split(&self, sizes: Axes, axis: isize) -> PyResult<Vec<PyTensor>> {
        let t = self.tensor();
        let n = t.shape()[crate::array::normalize_axis(axis, t.ndim(), "split")?] as isize;
        let sizes = match sizes.0[..] {
            [each] if each > 0 => (0..n).step_by(each as usize).map(|start| each.min(n - start)).collect(),
            _ => sizes.0,
        };
        let sizes: Vec<usize> = sizes
            .iter()
            .map(|&s| usize::try_from(s).map_err(|_| PyValueError::new_err(format!("split: expected sizes of at least 0, got {s}"))))
            .collect::<PyResult<_>>()?;
        Ok(ops::split(&t, &sizes, axis)?.into_iter().map(PyTensor::new).collect())
    }
}
