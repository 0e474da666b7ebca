//! From Python objects to core values and back; arrays have a room of their own.

use super::arrays::tensor_like;
use super::error::is_refusal;
use super::tensor::PyTensor;
use crate::array::{Array, DType, Element, MAX_DIMS, Scalar};
use crate::ops::{self, Index};
use crate::{Tensor, with_dtype};
use pyo3::exceptions::{PyIndexError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyEllipsis, PyFloat, PyInt, PyList, PyModule, PySlice, PyString, PyTuple};

/// NumPy, imported once.
pub fn numpy(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static NUMPY: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    NUMPY.get_or_try_init(py, || PyModule::import(py, "numpy").map(Bound::unbind)).map(|m| m.bind(py))
}

/// What Python shows of an object. Rust's own display of objects drops what the handler of a signal raises meanwhile.
pub fn text(object: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(object.str()?.to_string_lossy().into_owned())
}

/// As [`text`], in the form for developers.
pub fn repr(object: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(object.repr()?.to_string_lossy().into_owned())
}

/// The name of an object's type.
pub fn kind(object: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(object.get_type().name()?.to_string_lossy().into_owned())
}

/// `None` and `"cpu"` are the devices there are.
pub fn check_device(device: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    match device {
        None => Ok(()),
        Some(d) if d.is_none() => Ok(()),
        Some(d) if d.str()?.to_str()? == "cpu" => Ok(()),
        Some(d) => Err(PyValueError::new_err(format!("device: expected None or \"cpu\" (treadle runs on the CPU), got {}", repr(d)?))),
    }
}

/// A Python bool, int or float itself, not a subclass such as a NumPy scalar (those have a width).
pub fn scalar(object: &Bound<'_, PyAny>) -> PyResult<Option<Scalar>> {
    if object.is_exact_instance_of::<PyFloat>() {
        return Ok(Some(Scalar::Float(object.extract()?)));
    }
    if object.is_exact_instance_of::<PyInt>() {
        return match object.extract() {
            Ok(i) => Ok(Some(Scalar::Int(i))),
            Err(_) => Err(PyValueError::new_err(format!("scalar: expected an integer that fits int64, got {}", text(object)?))),
        };
    }
    Ok(object.is_exact_instance_of::<PyBool>().then(|| Scalar::Bool(object.is_truthy().unwrap_or(false))))
}

/// A number and its element type: a Python number has that of its kind, a number of NumPy and a tensor of no axes their own.
pub fn number(object: &Bound<'_, PyAny>, op: &str) -> PyResult<(Scalar, DType)> {
    if let Some(s) = scalar(object)? {
        return Ok((s, natural(s)));
    }
    match tensor_like(object, None) {
        Ok(t) if t.ndim() == 0 => Ok((t.item_exact()?, t.dtype())),
        Ok(t) => Err(PyTypeError::new_err(format!("{op}: expected a number, got shape {}", t.shape()))),
        Err(error) if !is_refusal(object.py(), &error) => Err(error),
        _ => match object.extract() {
            Ok(x) => Ok((Scalar::Float(x), DType::F32)),
            Err(error) if !is_refusal(object.py(), &error) => Err(error),
            Err(_) => Err(PyTypeError::new_err(format!("{op}: expected a number, got {}", text(&object.get_type())?))),
        },
    }
}

/// The element type of a Python number.
pub fn natural(s: Scalar) -> DType {
    match s {
        Scalar::Bool(_) => DType::Bool,
        Scalar::Int(_) => DType::I64,
        Scalar::Float(_) => DType::F32,
    }
}

/// The cell of a Tensor; arrays are refused, so that nothing is silently left off the tape.
pub fn cell<'a>(object: &'a Bound<'_, PyAny>, op: &str) -> PyResult<&'a PyTensor> {
    match object.cast::<PyTensor>() {
        Ok(cell) => Ok(cell.get()),
        Err(_) => {
            let hint = if object.is_none() {
                ""
            } else if is_list(object) && object.try_iter()?.any(|part| part.is_ok_and(|part| part.cast::<PyTensor>().is_ok())) {
                "; one of several is treadle.stack(...) or treadle.concatenate(...)"
            } else {
                "; wrap it with treadle.tensor(...)"
            };
            Err(PyTypeError::new_err(format!("{op}: expected a Tensor, got {}{hint}", kind(object)?)))
        }
    }
}

/// [`cell`] for modules written in Python: the object itself.
#[pyfunction]
pub fn _expect_tensor<'py>(op: &str, x: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    cell(&x, op)?;
    Ok(x)
}

/// What is in the cell of a Tensor; as [`cell`].
pub fn only_tensor(object: &Bound<'_, PyAny>, op: &str) -> PyResult<Tensor> {
    cell(object, op).map(PyTensor::tensor)
}

/// A shape given as one integer, several, or one sequence.
pub fn shape_of(sizes: &Bound<'_, PyTuple>) -> PyResult<Vec<usize>> {
    signed_shape_of(sizes)?.into_iter().map(|n| size(n, "shape")).collect()
}

/// An integer as a size.
pub fn size(n: isize, op: &str) -> PyResult<usize> {
    usize::try_from(n).map_err(|_| PyValueError::new_err(format!("{op}: expected sizes of at least 0, got {n}")))
}

/// A shape given as one argument: an integer or a sequence of integers.
pub fn one_shape_of(shape: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    shape_of(&PyTuple::new(shape.py(), [shape])?)
}

pub fn signed_shape_of(sizes: &Bound<'_, PyTuple>) -> PyResult<Vec<isize>> {
    let one = sizes.len() == 1 && !sizes.get_item(0)?.is_instance_of::<PyInt>();
    if one {
        let only = sizes.get_item(0)?;
        if is_sequence(&only)? && !only.is_instance_of::<PyString>() {
            return sizes_in(&only);
        }
    }
    sizes_in(sizes.as_any())
}

/// Integers in a sequence that may be as long as a `range`.
fn sizes_in(sequence: &Bound<'_, PyAny>) -> PyResult<Vec<isize>> {
    let n = sequence.len()?;
    if n > MAX_DIMS {
        return Err(PyValueError::new_err(format!("shape: expected at most {MAX_DIMS} dimensions, got {n}")));
    }
    integers(sequence, "shape")
}

/// Whether the object is a list or tuple.
pub fn is_list(object: &Bound<'_, PyAny>) -> bool {
    object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>()
}

fn is_sequence(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(is_list(object) || object.is_instance(&object.py().import("collections.abc")?.getattr("Sequence")?)?)
}

pub fn integers(object: &Bound<'_, PyAny>, what: &str) -> PyResult<Vec<isize>> {
    object.try_iter()?.map(|item| integer(&item?, what)).collect()
}

pub fn integer(object: &Bound<'_, PyAny>, what: &str) -> PyResult<isize> {
    object.extract().or_else(|error: PyErr| {
        Err(if error.is_instance_of::<PyOverflowError>(object.py()) {
            PyValueError::new_err(format!("{what}: expected integers that fit 64 bits, got {}", text(object)?))
        } else if is_refusal(object.py(), &error) {
            PyTypeError::new_err(format!("{what}: expected integers, got {}", text(&object.get_type())?))
        } else {
            error
        })
    })
}

/// `index` where an axis stands after it; PyTorch has the two the other way round.
pub struct Indices(pub Tensor);

impl<'a, 'py> FromPyObject<'a, 'py> for Indices {
    type Error = PyErr;
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if object.is_instance_of::<PyInt>() {
            return Err(PyTypeError::new_err("index: expected an index tensor first, got int; the axis comes last"));
        }
        tensor_like(&object, None).map(Indices)
    }
}

/// `axis=`: one integer or several.
pub struct Axes(pub Vec<isize>);

impl<'a, 'py> FromPyObject<'a, 'py> for Axes {
    type Error = PyErr;
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let object: &Bound<'py, PyAny> = &object;
        if is_list(object) {
            return integers(object, "axis").map(Axes);
        }
        integer(object, "axis").map(|axis| Axes(vec![axis]))
    }
}

/// What stands between the brackets of `x[...]`.
pub fn index(object: &Bound<'_, PyAny>) -> PyResult<Vec<Index>> {
    match object.cast::<PyTuple>() {
        Ok(parts) => parts.iter().map(|part| index_entry(&part)).collect(),
        Err(_) => Ok(vec![index_entry(object)?]),
    }
}

fn index_entry(object: &Bound<'_, PyAny>) -> PyResult<Index> {
    if object.is_none() {
        return Ok(Index::NewAxis);
    }
    if object.is_exact_instance_of::<PyEllipsis>() {
        return Ok(Index::Ellipsis);
    }
    if let Ok(slice) = object.cast::<PySlice>() {
        let part = |name: &str| -> PyResult<Option<isize>> {
            let value = slice.getattr(name)?;
            if value.is_none() {
                return Ok(None);
            }
            // Python clips slice bounds, so one beyond 64 bits is as good as the largest.
            match value.extract::<isize>() {
                Ok(i) => Ok(Some(i)),
                Err(e) if e.is_instance_of::<PyOverflowError>(object.py()) => Ok(Some(if value.lt(0)? { isize::MIN / 4 } else { isize::MAX / 4 })),
                Err(e) if !is_refusal(object.py(), &e) => Err(e),
                Err(_) => Err(PyTypeError::new_err(format!("index: expected integers or None as the {name} of a slice, got {}", text(&value)?))),
            }
        };
        return Ok(Index::Slice { start: part("start")?, stop: part("stop")?, step: part("step")?.unwrap_or(1) });
    }
    if !object.is_instance_of::<PyBool>()
        && object.cast::<PyTensor>().is_err()
        && let Some(i) = integer_index(object)?
    {
        return Ok(Index::Int(i));
    }
    let t = match tensor_like(object, None) {
        Err(error) if is_refusal(object.py(), &error) => {
            let got = match object.getattr_opt("dtype")? {
                Some(dtype) => format!("an array of bools or of integers that fit 64 bits with their sign, got dtype {}", text(&dtype)?),
                None => format!("integers, slices, None, ... or arrays, got {}", text(&object.get_type())?),
            };
            return Err(PyIndexError::new_err(format!("index: expected {got}")));
        }
        made => made?,
    };
    if t.size() == 0 && t.dtype() == DType::F32 {
        return Ok(Index::Array(ops::cast(&t, DType::I64)?));
    }
    if t.dtype().is_float() {
        return Err(PyIndexError::new_err(format!("index: expected an integer or bool array, got {}", t.dtype())));
    }
    match t.item_exact() {
        Ok(Scalar::Int(i)) if t.ndim() == 0 => Ok(Index::Int(i as isize)),
        _ => Ok(Index::Array(t)),
    }
}

/// An integer as an index, or None if it is something else.
fn integer_index(object: &Bound<'_, PyAny>) -> PyResult<Option<isize>> {
    match object.extract::<isize>() {
        Ok(i) => Ok(Some(i)),
        Err(e) if e.is_instance_of::<PyOverflowError>(object.py()) => {
            Err(PyIndexError::new_err(format!("index: expected an index that fits 64 bits, got {}", text(object)?)))
        }
        Err(e) if is_refusal(object.py(), &e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A Python number from element `at` of an array.
pub fn element<'py>(py: Python<'py>, array: &Array, at: usize) -> PyResult<Bound<'py, PyAny>> {
    let value = with_dtype!(array.dtype(), T => array.data::<T>()[at].to_scalar());
    Ok(match value {
        Scalar::Bool(b) => PyBool::new(py, b).to_owned().into_any(),
        Scalar::Int(i) => i.into_pyobject(py)?.into_any(),
        Scalar::Float(x) => x.into_pyobject(py)?.into_any(),
    })
}
