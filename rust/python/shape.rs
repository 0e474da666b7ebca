//! Element types, indexing and shapes of tensors.

use super::convert::{self, Axes};
use super::error::{LONG, run, run_short, run_whole};
use super::operand::Other;
use super::tensor::{PyTensor, apply, apply_view, apply_weighed};
use crate::array::{DType, normalize_axis, room};
use crate::autograd::is_recording;
use crate::ops;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

#[pymethods]
impl PyTensor {
    // Element types ----------------------------------------------------

    /// The same values as another element type.
    fn astype(&self, py: Python<'_>, dtype: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
        let dtype = super::dtype::dtype(dtype)?;
        apply(py, self, |x| ops::cast(x, dtype))
    }
    /// As float32.
    fn float(&self, py: Python<'_>) -> PyResult<PyTensor> {
        apply(py, self, |x| ops::cast(x, DType::F32))
    }
    /// As float64.
    fn double(&self, py: Python<'_>) -> PyResult<PyTensor> {
        apply(py, self, |x| ops::cast(x, DType::F64))
    }
    /// As int64; fractions are cut off.
    fn long(&self, py: Python<'_>) -> PyResult<PyTensor> {
        apply(py, self, |x| ops::cast(x, DType::I64))
    }
    /// Whether each element is not zero.
    fn bool(&self, py: Python<'_>) -> PyResult<PyTensor> {
        apply(py, self, |x| ops::cast(x, DType::Bool))
    }

    // Indexing -----------------------------------------------------------

    fn __getitem__(&self, py: Python<'_>, index: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
        let index = convert::index(index)?;
        apply_weighed(py, self, |x| ops::index_work(x, &index), |x| ops::get(x, &index))
    }
    fn __setitem__(&self, py: Python<'_>, index: &Bound<'_, PyAny>, value: Other) -> PyResult<()> {
        let index = convert::index(index)?;
        let x = self.tensor();
        let value = value.beside(x.dtype())?;
        let (recording, result) = (is_recording(), x.op_name().is_some());
        if recording && x.requires_grad() && !result {
            return Err(PyRuntimeError::new_err("index: expected no assignment into a leaf that requires grad, got one; use no_grad() or where()"));
        }
        if result && !recording {
            return Err(PyRuntimeError::new_err(
                "index: expected no assignment under no_grad() into the result of a recorded operation, got one; use detach() first",
            ));
        }
        if recording && (x.requires_grad() || value.requires_grad()) {
            let changed = run(py, ops::index_work(&x, &index).max(x.size()), move || ops::set(&x, &index, &value))?;
            self.replace(changed);
            return Ok(());
        }
        let work = match ops::index_work(&x, &index) {
            0 if x.size() >= LONG => run_short(|| ops::get(&x.detach(), &index))?.size(),
            work => work,
        };
        let size = x.size();
        drop(x);
        // What others hold is copied first.
        let copied = if self.lock().array().is_unique() { 0 } else { size };
        run_whole(py, work.max(copied), || self.write(|x| ops::assign(x, &index, &value)))
    }

    fn __delitem__(&self, _index: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(PyTypeError::new_err("index: expected an assignment, got a deletion; a tensor keeps its shape"))
    }

    // Shapes -----------------------------------------------------------

    /// The axes in reversed order, as a view.
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
    /// `reshape`, under PyTorch's name.
    #[pyo3(signature = (*shape))]
    fn view(&self, py: Python<'_>, shape: &Bound<'_, PyTuple>) -> PyResult<PyTensor> {
        self.reshape(py, shape)
    }
    /// The axes from `start` to `end`, both included, joined into one.
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
        apply_view(self, |x| ops::permute(x, &axes))
    }
    /// `permute`, under NumPy's name.
    #[pyo3(signature = (*axes))]
    fn transpose(&self, axes: &Bound<'_, PyTuple>) -> PyResult<PyTensor> {
        self.permute(axes)
    }
    /// Two axes in each other's place, as a view.
    fn swapaxes(&self, a: isize, b: isize) -> PyResult<PyTensor> {
        apply_view(self, |x| ops::swapaxes(x, a, b))
    }
    /// A view of a larger shape, in which axes of size 1 and new ones in front are repeated.
    #[pyo3(signature = (*shape))]
    fn broadcast_to(&self, shape: &Bound<'_, PyTuple>) -> PyResult<PyTensor> {
        let sizes = convert::shape_of(shape)?;
        apply_view(self, |x| ops::broadcast_to(x, &sizes))
    }
    /// Broadcast to a shape in which -1 keeps the size there is.
    #[pyo3(signature = (*shape))]
    fn expand(&self, shape: &Bound<'_, PyTuple>) -> PyResult<PyTensor> {
        let (sizes, from) = (convert::signed_shape_of(shape)?, *self.lock().shape());
        let lead = sizes.len().saturating_sub(from.len());
        let filled: Vec<usize> = sizes
            .iter()
            .enumerate()
            .map(|(i, &n)| match n {
                -1 if i >= lead => Ok(from[i - lead]),
                n => usize::try_from(n).map_err(|_| PyValueError::new_err(format!("expand: expected sizes of at least 0 (or -1 to keep one), got {n}"))),
            })
            .collect::<PyResult<_>>()?;
        apply_view(self, |x| ops::broadcast_to(x, &filled))
    }
    /// Without the axes of size 1, or without the given ones.
    #[pyo3(signature = (axis=None))]
    fn squeeze(&self, axis: Option<Axes>) -> PyResult<PyTensor> {
        apply_view(self, |x| ops::squeeze(x, axis.as_ref().map(|a| &a.0[..])))
    }
    /// With a new axis of size 1 at the given place.
    fn unsqueeze(&self, axis: isize) -> PyResult<PyTensor> {
        apply_view(self, |x| ops::unsqueeze(x, axis))
    }
    /// The elements in reversed order along the given axes, or along all.
    #[pyo3(signature = (axis=None))]
    fn flip(&self, axis: Option<Axes>) -> PyResult<PyTensor> {
        apply_view(self, |x| ops::flip(x, axis.as_ref().map(|a| &a.0[..])))
    }
    /// Consecutive parts along an axis: a size for all of them (the last may be smaller), or a list of sizes.
    #[pyo3(signature = (sizes, axis=0))]
    fn split(&self, sizes: Axes, axis: isize) -> PyResult<Vec<PyTensor>> {
        let t = self.tensor();
        let n = t.shape()[normalize_axis(axis, t.ndim(), "split")?];
        let mut sizes: Vec<usize> = sizes
            .0
            .iter()
            .map(|&s| usize::try_from(s).map_err(|_| PyValueError::new_err(format!("split: expected sizes of at least 0, got {s}"))))
            .collect::<PyResult<_>>()?;
        if let [each] = sizes[..]
            && each > 0
        {
            sizes = room(n.div_ceil(each))?;
            sizes.extend((0..n).step_by(each).map(|start| each.min(n - start)));
        }
        let mut parts = room(sizes.len())?;
        parts.extend(run_short(|| ops::split(&t, &sizes, axis))?.into_iter().map(PyTensor::new));
        Ok(parts)
    }
}
