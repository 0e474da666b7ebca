//! Element types, indexing and shapes of tensors.

use super::arrays::tensor_like;
use super::convert::{self, Axes};
use super::error::{LONG, run, run_short, run_whole};
use super::operand::Other;
use super::tensor::{PyTensor, apply, apply_view, apply_weighed};
use crate::array::{Array, DType, normalize_axis, room};
use crate::autograd::is_recording;
use crate::kernels::fork::Whole;
use crate::{Tensor, ops};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

/// What is put into a tensor of type `dtype`: Python numbers have to fit, arrays and tensors are cast.
fn assigned(value: &Bound<'_, PyAny>, dtype: DType) -> PyResult<Tensor> {
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        return tensor_like(value, Some(dtype));
    }
    match value.extract()? {
        Other::Scalar(s) => Ok(Tensor::constant(Array::full(&[], s, dtype)?)),
        other => other.beside(dtype),
    }
}

#[pymethods]
impl PyTensor {
    // Element types ----------------------------------------------------

    /// The same values as another element type.
    fn astype(&self, py: Python<'_>, dtype: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
        let dtype = super::dtype::dtype(dtype)?;
        apply(py, self, |x| ops::astype(x, dtype))
    }
    /// As float32.
    fn float(&self, py: Python<'_>) -> PyResult<PyTensor> {
        apply(py, self, |x| ops::astype(x, DType::F32))
    }
    /// As float64.
    fn double(&self, py: Python<'_>) -> PyResult<PyTensor> {
        apply(py, self, |x| ops::astype(x, DType::F64))
    }
    /// As int64; fractions are cut off.
    fn long(&self, py: Python<'_>) -> PyResult<PyTensor> {
        apply(py, self, |x| ops::astype(x, DType::I64))
    }
    /// Whether each element is not zero.
    fn bool(&self, py: Python<'_>) -> PyResult<PyTensor> {
        apply(py, self, |x| ops::astype(x, DType::Bool))
    }

    // Indexing -----------------------------------------------------------

    fn __getitem__(&self, py: Python<'_>, index: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
        let index = convert::index(index)?;
        apply_weighed(py, self, |x| ops::index_work(x, &index), |x| ops::get(x, &index))
    }
    fn __setitem__(&self, py: Python<'_>, index: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.expect_own("index")?;
        let index = convert::index(index)?;
        let x = self.tensor();
        let value = assigned(value, x.dtype())?;
        let (recording, result) = (is_recording(), x.op_name().is_some());
        if recording && x.requires_grad() && !result {
            return Err(PyRuntimeError::new_err("index: expected no assignment into a leaf that requires grad, got one; use no_grad() or where()"));
        }
        if result && !recording {
            return Err(PyRuntimeError::new_err(
                "index: expected no assignment under no_grad() into the result of a recorded operation, got one; assign outside of it, or into a copy, x = x.detach()",
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
        let whole = Whole::begin();
        run_whole(py, work.max(copied), || self.write(whole, |x| ops::assign(x, &index, &value)))
    }

    fn __delitem__(&self, _index: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(PyTypeError::new_err("index: expected an assignment, got a deletion; a tensor keeps its shape"))
    }

    // Shapes -----------------------------------------------------------

    /// The axes in reversed order, as a view.
    #[getter(T)]
    fn transposed(&self) -> PyResult<PyTensor> {
        apply_view(self, |x| Ok(ops::transpose(x)))
    }
    /// `reshape`, under PyTorch's name.
    #[pyo3(signature = (*shape))]
    fn view(&self, py: Python<'_>, shape: &Bound<'_, PyTuple>) -> PyResult<PyTensor> {
        self.reshape(py, shape)
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
}

shared_methods! {
    register:
    /// The same elements in the same order under another shape; one size may be -1.
    fn reshape(*shape) |self, py, shape: &Bound<'_, PyTuple>| -> PyTensor {
        let sizes = convert::signed_shape_of(shape)?;
        apply(py, self, |x| ops::reshape(x, &sizes))
    }
    /// The axes from `start` to `end`, both included, joined into one.
    fn flatten(start=0, end=-1) |self, py, start: isize, end: isize| -> PyTensor {
        apply(py, self, |x| ops::flatten(x, start, end))
    }
    /// The axes in the given order; reversed if none is given.
    fn permute(*axes) |self, _py, axes: &Bound<'_, PyTuple>| -> PyTensor {
        if axes.is_empty() {
            return self.transposed();
        }
        let axes = convert::signed_shape_of(axes)?;
        apply_view(self, |x| ops::permute(x, &axes))
    }
    /// `permute`, under NumPy's name.
    fn transpose(*axes) |self, py, axes: &Bound<'_, PyTuple>| -> PyTensor {
        self.permute(py, axes)
    }
    /// Two axes in each other's place, as a view.
    fn swapaxes(a, b) |self, _py, a: isize, b: isize| -> PyTensor {
        apply_view(self, |x| ops::swapaxes(x, a, b))
    }
    /// A view of a larger shape, in which axes of size 1 and new ones in front are repeated.
    fn broadcast_to(*shape) |self, _py, shape: &Bound<'_, PyTuple>| -> PyTensor {
        let sizes = convert::shape_of(shape)?;
        apply_view(self, |x| ops::broadcast_to(x, &sizes))
    }
    /// Without the axes of size 1, or without the given ones.
    fn squeeze(axis=None) |self, _py, axis: Option<Axes>| -> PyTensor {
        apply_view(self, |x| ops::squeeze(x, axis.as_ref().map(|a| &a.0[..])))
    }
    /// With a new axis of size 1 at the given place.
    fn unsqueeze(axis) |self, _py, axis: isize| -> PyTensor {
        apply_view(self, |x| ops::unsqueeze(x, axis))
    }
    /// The elements in reversed order along the given axes, or along all.
    fn flip(axis=None) |self, _py, axis: Option<Axes>| -> PyTensor {
        apply_view(self, |x| ops::flip(x, axis.as_ref().map(|a| &a.0[..])))
    }
    /// Consecutive parts along an axis: a size for all of them (the last may be smaller), or a list of sizes.
    fn split(sizes, axis=0) |self, _py, sizes: &Bound<'_, PyAny>, axis: isize| -> Vec<PyTensor> {
        let t = self.tensor();
        let n = t.shape()[normalize_axis(axis, t.ndim(), "split")?];
        let sizes = if convert::is_list(sizes) {
            convert::integers(sizes, "split")?.into_iter().map(|s| convert::size(s, "split")).collect::<PyResult<_>>()?
        } else {
            ops::even_sizes(n, convert::size(convert::integer(sizes, "split")?, "split")?)?
        };
        let mut parts = room(sizes.len())?;
        parts.extend(run_short(|| ops::split(&t, &sizes, axis))?.into_iter().map(PyTensor::new));
        Ok(parts)
    }
}
