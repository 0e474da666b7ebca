//! `treadle.Tensor`: a cell that holds a core tensor.
//!
//! Invariant: core tensors are values; only the cell can change, as a whole, under its lock. No code of Python or NumPy runs under
//! one: it might want the cell, or let go of the GIL to a thread that does.

use super::arrays::tensor_like;
use super::convert::check_device;
use super::dtype::optional_dtype;
use super::error::{LONG, run, run_short};
use crate::Tensor;
use crate::array::Array;
use crate::autograd::anomaly;
use crate::kernels::fork::Whole;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use smallvec::SmallVec;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

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
    /// The attribute of another tensor that this was read from, if it was.
    part: Option<&'static str>,
}

impl PyTensor {
    pub fn new(tensor: Tensor) -> PyTensor {
        PyTensor { cell: Mutex::new(tensor), part: None }
    }

    /// What the attribute `part` of a tensor gives: a value that nobody writes to, since the tensor would not change with it.
    fn read(tensor: Tensor, part: &'static str) -> PyTensor {
        PyTensor { part: Some(part), ..PyTensor::new(tensor) }
    }

    /// Before a write: ValueError if it would be lost.
    pub fn expect_own(&self, op: &str) -> PyResult<()> {
        let Some(part) = self.part else { return Ok(()) };
        let itself = if part == "data" { "write into x itself under no_grad(), " } else { "" };
        Err(PyValueError::new_err(format!(
            "{op}: expected a tensor of its own, got the {part} of another, which is read-only; {itself}assign x.{part} = …, or change its detach()"
        )))
    }

    /// What is in the cell. While another thread writes it, this one waits without the GIL, so several calls may be apart.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, Tensor> {
        self.cell.try_lock().unwrap_or_else(|_| self.wait())
    }

    #[cold]
    fn wait(&self) -> MutexGuard<'_, Tensor> {
        Python::attach(|py| {
            loop {
                py.detach(|| drop(self.hold()));
                match self.cell.try_lock() {
                    Err(TryLockError::WouldBlock) => {}
                    free => return free.unwrap_or_else(|_| self.hold()),
                }
            }
        })
    }

    /// As `lock`, with the GIL held: for what must not be parted from what came before.
    pub fn hold(&self) -> MutexGuard<'_, Tensor> {
        self.cell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value and its place on the tape.
    #[inline]
    pub fn tensor(&self) -> Tensor {
        self.lock().clone()
    }

    /// Changes the value where it lies, also without the GIL. If that takes a copy, what was there goes after the lock does.
    pub fn write<R>(&self, whole: Whole, f: impl FnOnce(&mut Array) -> R) -> R {
        let _before;
        let _whole = whole;
        let mut held = self.hold();
        _before = held.array().if_shared();
        f(held.array_mut())
    }

    /// Puts another value into the cell, which keeps its place on the tape. What was there goes after the lock does.
    pub fn put(&self, array: Array) {
        let before = std::mem::replace(self.hold().array_mut(), array);
        drop(before);
    }

    /// Puts another value and place on the tape into the cell.
    pub fn replace(&self, tensor: Tensor) {
        let before = std::mem::replace(&mut *self.hold(), tensor);
        drop(before);
    }
}

impl From<Tensor> for PyTensor {
    fn from(tensor: Tensor) -> PyTensor {
        PyTensor::new(tensor)
    }
}

/// Short work locks the cells it reads, which costs less than cloning what is in them; long work releases the GIL, so it
/// must not hold a lock, and clones. All cells, or `None` if the work is long, a cell is given twice or anomalies are looked for.
pub fn short<'a>(cells: &[&'a PyTensor], work: impl Fn(&[MutexGuard<'a, Tensor>]) -> usize) -> Option<Guards<'a>> {
    // What is looked for then is put into words by code of Python.
    if anomaly::is_watching() {
        return None;
    }
    let guards: Option<Guards<'a>> = cells.iter().map(|c| c.cell.try_lock().ok()).collect();
    guards.filter(|guards| work(guards) < LONG)
}

/// Locked cells, in the order they were given.
pub type Guards<'a> = SmallVec<[MutexGuard<'a, Tensor>; 6]>;

/// Runs `f` on this tensor in the gateway.
pub fn apply(py: Python<'_>, x: &PyTensor, f: impl FnOnce(&Tensor) -> crate::Result<Tensor> + Send) -> PyResult<PyTensor> {
    apply_weighed(py, x, Tensor::size, f)
}

/// Runs `f`, which touches about `work` elements, on this tensor in the gateway.
pub fn apply_weighed(
    py: Python<'_>,
    x: &PyTensor,
    work: impl Fn(&Tensor) -> usize,
    f: impl FnOnce(&Tensor) -> crate::Result<Tensor> + Send,
) -> PyResult<PyTensor> {
    if let Some(held) = short(&[x], |held| work(&held[0])) {
        return run_short(|| f(&held[0])).map(PyTensor::new);
    }
    let x = x.tensor();
    run(py, work(&x), move || f(&x)).map(PyTensor::new)
}

/// Runs `f`, which only reads this tensor in another way, in the gateway.
pub fn apply_view(x: &PyTensor, f: impl FnOnce(&Tensor) -> crate::Result<Tensor>) -> PyResult<PyTensor> {
    let x = x.tensor();
    run_short(|| f(&x)).map(PyTensor::new)
}

/// About how many elements an operation on both touches: those of what they broadcast to.
pub fn work(a: &Tensor, b: &Tensor) -> usize {
    a.shape().broadcast_size(b.shape())
}

/// Runs `f` on two tensors in the gateway.
pub fn apply_both(py: Python<'_>, a: &PyTensor, b: &PyTensor, f: impl FnOnce(&Tensor, &Tensor) -> crate::Result<Tensor> + Send) -> PyResult<PyTensor> {
    if let Some(held) = short(&[a, b], |held| work(&held[0], &held[1])) {
        return run_short(|| f(&held[0], &held[1])).map(PyTensor::new);
    }
    apply2(py, a.tensor(), b.tensor(), f)
}

pub fn apply2(py: Python<'_>, a: Tensor, b: Tensor, f: impl FnOnce(&Tensor, &Tensor) -> crate::Result<Tensor> + Send) -> PyResult<PyTensor> {
    run(py, work(&a, &b), move || f(&a, &b)).map(PyTensor::new)
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

    /// The sizes of the axes, as a tuple.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let shape = *self.lock().shape();
        PyTuple::new(py, shape.iter())
    }
    /// The number of axes.
    #[getter]
    fn ndim(&self) -> usize {
        self.lock().ndim()
    }
    /// The number of elements.
    #[getter]
    fn size(&self) -> usize {
        self.lock().size()
    }
    /// The element type.
    #[getter]
    fn dtype(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let dtype = self.lock().dtype();
        super::dtype::dtype_object(py, dtype)
    }
    /// Always "cpu".
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
    /// `size`, under PyTorch's name.
    fn numel(&self) -> usize {
        self.size()
    }
    /// `ndim`, under PyTorch's name.
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
    /// Whether gradients are computed: accumulated in `grad` of a leaf, passed on by any other. A leaf that is switched off keeps
    /// its `grad`, and its place in graphs for when it is switched on again.
    #[getter]
    fn get_requires_grad(&self) -> bool {
        self.lock().requires_grad()
    }
    #[setter]
    fn set_requires_grad(&self, value: bool) -> PyResult<()> {
        Ok(self.lock().set_requires_grad(value)?)
    }
    /// Sets `requires_grad` and returns the tensor itself.
    #[pyo3(signature = (requires_grad=true))]
    fn requires_grad_(slf: PyRef<'_, Self>, requires_grad: bool) -> PyResult<PyRef<'_, Self>> {
        slf.set_requires_grad(requires_grad)?;
        Ok(slf)
    }
    /// The accumulated gradient, None before the first backward. A value: assign `grad` to change it.
    #[getter]
    fn get_grad(&self) -> Option<PyTensor> {
        self.lock().grad().map(|grad| PyTensor::read(grad, "grad"))
    }
    #[setter]
    fn set_grad(&self, value: Option<&Bound<'_, PyTensor>>) -> PyResult<()> {
        let (t, grad) = (self.tensor(), value.map(|g| g.get().tensor()));
        if grad.is_none() && t.edge().grad().is_none() {
            return Ok(());
        }
        Ok(t.set_grad(grad)?)
    }
    /// The value without its place on the tape, read-only; assigning replaces the value and keeps `requires_grad`.
    #[getter]
    fn get_data(&self) -> PyTensor {
        PyTensor::read(self.lock().detach(), "data")
    }
    #[setter]
    fn set_data(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.expect_own("data")?;
        let dtype = self.lock().dtype();
        let value = tensor_like(value, Some(dtype))?.detach();
        let (same, wanted) = {
            let t = self.lock();
            (value.shape() == t.shape(), t.requires_grad())
        };
        match (same, wanted) {
            (true, _) => self.put(value.into_array()),
            (false, true) => self.replace(value.requiring_grad()?),
            (false, false) => self.replace(value),
        }
        Ok(())
    }
    /// Overwrites the value in place; `value` is broadcast and cast. Not recorded.
    ///
    /// Raises:
    ///     ValueError: A shape that does not broadcast to this tensor's, or this is the `data` or `grad` of another.
    ///     RuntimeError: This tensor is the result of a recorded operation.
    fn copy_<'py>(slf: Bound<'py, Self>, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        slf.get().expect_own("copy_")?;
        let dtype = slf.get().lock().dtype();
        let value = tensor_like(value, Some(dtype))?;
        let (shape, recorded) = {
            let t = slf.get().lock();
            (*t.shape(), t.op_name().is_some())
        };
        if recorded {
            let message = "copy_: expected a leaf, got the result of a recorded operation; assign by index, x[...] = value, or copy into the leaf itself";
            return Err(PyRuntimeError::new_err(message));
        }
        let wide = value
            .array()
            .broadcast_to(&shape)
            .map_err(|_| PyValueError::new_err(format!("copy_: expected a value that broadcasts to {shape}, got {}", value.shape())))?;
        let elements = if wide.is_contiguous() { 0 } else { wide.size() };
        slf.get().put(run(py, elements, || crate::kernels::map::contiguous(&wide))?);
        Ok(slf)
    }
    /// The same value off the tape.
    fn detach(&self) -> PyTensor {
        PyTensor::new(self.lock().detach())
    }
    /// The same value as a recorded operation; since tensors are values no memory is copied.
    fn clone(&self) -> PyResult<PyTensor> {
        apply_view(self, |x| Ok(crate::autograd::linear::identity(x)))
    }
    /// Accumulates gradients into `.grad` of the leaves this tensor was computed from.
    ///
    /// Args:
    ///     gradient: Gradient of the final quantity with respect to this tensor; None only for one element.
    ///     retain_graph: Keep what backward needs, so that it can run again.
    ///     create_graph: Record backward itself, for higher derivatives. Each `.grad` then holds the graph that leads back to its
    ///         leaf, so that neither is freed until `.grad` is set to None; `treadle.grad` leaves nothing behind.
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
}
