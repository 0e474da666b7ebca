//! From Python objects to core values and back.

use super::interop::shared;
use super::tensor::PyTensor;
use crate::array::{Array, DType, Dims, Element, Scalar};
use crate::ops::{self, Index};
use crate::{Tensor, with_dtype};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyEllipsis, PyFloat, PyInt, PyList, PyModule, PySequence, PySlice, PyString, PyTuple};

/// NumPy, imported once.
pub fn numpy(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static NUMPY: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    NUMPY.get_or_try_init(py, || PyModule::import(py, "numpy").map(Bound::unbind)).map(|m| m.bind(py))
}

/// `None` and `"cpu"` are the devices there are.
pub fn check_device(device: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    match device {
        None => Ok(()),
        Some(d) if d.is_none() => Ok(()),
        Some(d) if d.str()?.to_str()? == "cpu" => Ok(()),
        Some(d) => Err(PyValueError::new_err(format!("device: expected None or \"cpu\" (treadle runs on the CPU), got {}", d.repr()?))),
    }
}

/// A Python bool, int or float itself, not a subclass such as a NumPy scalar (those have a width).
pub fn scalar(object: &Bound<'_, PyAny>) -> PyResult<Option<Scalar>> {
    if object.is_exact_instance_of::<PyFloat>() {
        return Ok(Some(Scalar::Float(object.extract()?)));
    }
    if object.is_exact_instance_of::<PyInt>() {
        let value = object.extract::<i64>();
        return value.map(|i| Some(Scalar::Int(i))).map_err(|_| PyValueError::new_err(format!("scalar: expected an integer that fits int64, got {object}")));
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
        _ => match object.extract() {
            Ok(x) => Ok((Scalar::Float(x), DType::F32)),
            Err(_) => Err(PyTypeError::new_err(format!("{op}: expected a number, got {}", object.get_type()))),
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

fn copy_buffer<T: pyo3::buffer::Element + Element>(array: &Bound<'_, PyAny>, shape: &[usize]) -> PyResult<Array> {
    let mut out = Array::unfilled(T::DTYPE, Dims::new(shape)?)?;
    if out.size() == 0 {
        // Its address may be no place for elements, which buffers are refused for.
        return Ok(out);
    }
    // PyO3 reads no shape from the buffer of a 0-d array.
    let array = if shape.is_empty() { &array.call_method1("reshape", (1,))? } else { array };
    let buffer = PyBuffer::<T>::get(array)?;
    // Python itself copies any other order element by element.
    if !buffer.is_c_contiguous()
        && let Some(there) = shared(array)?
    {
        return Ok(crate::kernels::map::copy(there.tensor().array())?);
    }
    buffer.copy_to_slice(array.py(), out.fresh::<T>())?;
    Ok(out)
}

/// Copies a NumPy array. Integers become int64 (uint8 stays), float16 becomes float32; other types are refused.
fn from_ndarray(array: &Bound<'_, PyAny>) -> PyResult<Array> {
    let py = array.py();
    let np_type = array.getattr("dtype")?;
    let (kind, size): (char, usize) = (np_type.getattr("kind")?.extract()?, np_type.getattr("itemsize")?.extract()?);
    let target = match (kind, size) {
        ('f', 2 | 4) => DType::F32,
        ('f', 8) => DType::F64,
        ('u', 1) => DType::U8,
        ('i', _) | ('u', 2 | 4) => DType::I64,
        ('b', _) => DType::Bool,
        _ => {
            return Err(PyTypeError::new_err(format!("tensor: expected an array of floats, integers or bools, got dtype {np_type}")));
        }
    };
    let shape: Vec<usize> = array.getattr("shape")?.extract()?;
    // Another byte order (also native order by its other name) or alignment takes a copy.
    let order: char = np_type.getattr("byteorder")?.extract()?;
    let aligned: bool = array.getattr("flags")?.getattr("aligned")?.extract()?;
    let plain = match target {
        DType::Bool => array.call_method1("astype", ("uint8",))?,
        _ => {
            let options = PyDict::new(py);
            options.set_item("copy", !aligned || !matches!(order, '=' | '|'))?;
            array.call_method("astype", (target.name(),), Some(&options))?
        }
    };
    match target {
        DType::F32 => copy_buffer::<f32>(&plain, &shape),
        DType::F64 => copy_buffer::<f64>(&plain, &shape),
        DType::I64 => copy_buffer::<i64>(&plain, &shape),
        DType::U8 => copy_buffer::<u8>(&plain, &shape),
        DType::Bool => Ok(crate::kernels::map::cast(&copy_buffer::<u8>(&plain, &shape)?, DType::Bool)?),
    }
}

/// Any array-like as a tensor: tensors as they are, arrays copied, Python floats (also in lists) as float32.
pub fn tensor_like(object: &Bound<'_, PyAny>, wanted: Option<DType>) -> PyResult<Tensor> {
    if let Ok(t) = object.cast::<PyTensor>() {
        let t = t.get().tensor();
        return Ok(match wanted {
            Some(d) => ops::cast(&t, d)?,
            None => t,
        });
    }
    if let Some(s) = scalar(object)? {
        return Ok(Tensor::constant(Array::full(&[], s, wanted.unwrap_or(natural(s)))?));
    }
    let np = numpy(object.py())?;
    let is_array = object.is_instance(&np.getattr("ndarray")?)? || object.is_instance(&np.getattr("generic")?)?;
    if object.is_instance_of::<PyString>() || object.is_none() {
        return Err(PyTypeError::new_err(format!("tensor: expected a Tensor, array, number or nested list, got {}", object.get_type().name()?)));
    }
    let made = np.call_method1("asarray", (object,)).map_err(|error| {
        if error.is_instance_of::<PyValueError>(object.py()) {
            PyValueError::new_err(format!("tensor: expected a regular nested list, got {error}"))
        } else {
            error
        }
    })?;
    let array = from_ndarray(&made).map_err(|error| {
        if is_array || !error.is_instance_of::<PyTypeError>(object.py()) {
            error
        } else {
            let dtype = made.getattr("dtype").map_or_else(|_| String::new(), |dtype| format!(" that NumPy takes for {dtype}"));
            let name = object.get_type().name().map_or_else(|_| String::new(), |name| name.to_string());
            PyTypeError::new_err(format!(
                "tensor: expected a Tensor, array, number, nested list or table of numbers, got {name}{dtype}; turn other values into numbers first"
            ))
        }
    })?;
    let from_lists = object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>();
    let holds_arrays = from_lists && object.try_iter()?.next().is_some_and(|first| first.is_ok_and(|f| f.hasattr("dtype").unwrap_or(false)));
    let natural = if from_lists && !holds_arrays && array.dtype() == DType::F64 { DType::F32 } else { array.dtype() };
    Ok(Tensor::constant(crate::kernels::map::cast(&array, wanted.unwrap_or(natural))?))
}

/// The cell of a Tensor; arrays are refused, so that nothing is silently left off the tape.
pub fn cell<'a>(object: &'a Bound<'_, PyAny>, op: &str) -> PyResult<&'a PyTensor> {
    object.cast::<PyTensor>().map(Bound::get).map_err(|_| {
        let kind = object.get_type().name().map(|n| n.to_string()).unwrap_or_default();
        PyTypeError::new_err(format!("{op}: expected a Tensor, got {kind}; wrap it with treadle.tensor(...)"))
    })
}

/// What is in the cell of a Tensor; as [`cell`].
pub fn only_tensor(object: &Bound<'_, PyAny>, op: &str) -> PyResult<Tensor> {
    cell(object, op).map(PyTensor::tensor)
}

/// A shape given as one integer, several, or one sequence.
pub fn shape_of(sizes: &Bound<'_, PyTuple>) -> PyResult<Vec<usize>> {
    signed_shape_of(sizes)?
        .into_iter()
        .map(|n| usize::try_from(n).map_err(|_| PyValueError::new_err(format!("shape: expected sizes of at least 0, got {n}"))))
        .collect()
}

/// A shape given as one argument: an integer or a sequence of integers.
pub fn one_shape_of(shape: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    shape_of(&PyTuple::new(shape.py(), [shape])?)
}

pub fn signed_shape_of(sizes: &Bound<'_, PyTuple>) -> PyResult<Vec<isize>> {
    let one = sizes.len() == 1 && !sizes.get_item(0)?.is_instance_of::<PyInt>();
    if one {
        let only = sizes.get_item(0)?;
        if only.cast::<PySequence>().is_ok() && !only.is_instance_of::<PyString>() {
            return integers(&only, "shape");
        }
    }
    integers(sizes.as_any(), "shape")
}

fn integers(object: &Bound<'_, PyAny>, what: &str) -> PyResult<Vec<isize>> {
    object.try_iter()?.map(|item| integer(&item?, what)).collect()
}

fn integer(object: &Bound<'_, PyAny>, what: &str) -> PyResult<isize> {
    object.extract::<isize>().map_err(|e| {
        if e.is_instance_of::<PyTypeError>(object.py()) {
            PyTypeError::new_err(format!("{what}: expected integers, got {}", object.get_type()))
        } else {
            PyValueError::new_err(format!("{what}: expected integers that fit 64 bits, got {object}"))
        }
    })
}

/// `axis=`: one integer or several.
pub struct Axes(pub Vec<isize>);

impl<'a, 'py> FromPyObject<'a, 'py> for Axes {
    type Error = PyErr;
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let object: &Bound<'py, PyAny> = &object;
        if object.is_instance_of::<PyTuple>() || object.is_instance_of::<PyList>() {
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
                Err(e) if e.is_instance_of::<pyo3::exceptions::PyOverflowError>(object.py()) => {
                    Ok(Some(if value.lt(0)? { isize::MIN / 4 } else { isize::MAX / 4 }))
                }
                Err(e) => Err(e),
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
    let t = tensor_like(object, None).map_err(|error| {
        if error.is_instance_of::<pyo3::exceptions::PyMemoryError>(object.py()) {
            return error;
        }
        let message = match object.getattr("dtype") {
            Ok(dtype) => format!("index: expected an array of bools or of integers that fit 64 bits with their sign, got dtype {dtype}"),
            Err(_) => format!("index: expected integers, slices, None, ... or arrays, got {}", object.get_type()),
        };
        pyo3::exceptions::PyIndexError::new_err(message)
    })?;
    if t.size() == 0 && t.dtype() == DType::F32 {
        return Ok(Index::Array(ops::cast(&t, DType::I64)?));
    }
    if t.dtype().is_float() {
        return Err(pyo3::exceptions::PyIndexError::new_err(format!("index: expected an integer or bool array, got {}", t.dtype())));
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
        Err(e) if e.is_instance_of::<pyo3::exceptions::PyOverflowError>(object.py()) => {
            let message = format!("index: expected an index that fits 64 bits, got {}", object.str()?);
            Err(pyo3::exceptions::PyIndexError::new_err(message))
        }
        Err(_) => Ok(None),
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

/// Keeps an array's storage alive for NumPy and describes it. Because it shares the storage, an in-place update of the
/// tensor copies first: the NumPy array never changes.
#[pyclass(frozen)]
pub struct ArrayView(pub Array);

#[pymethods]
impl ArrayView {
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (array, size) = (&self.0, self.0.dtype().size());
        let kind = match array.dtype() {
            DType::F32 => "<f4",
            DType::F64 => "<f8",
            DType::I64 => "<i8",
            DType::U8 => "|u1",
            DType::Bool => "|b1",
        };
        let strides: Vec<isize> = array.layout().strides().iter().map(|s| s * size as isize).collect();
        let address = array.buffer().address() as usize + array.layout().offset * size;
        let out = PyDict::new(py);
        out.set_item("version", 3)?;
        out.set_item("typestr", kind)?;
        out.set_item("shape", PyTuple::new(py, array.shape().iter())?)?;
        out.set_item("strides", PyTuple::new(py, strides)?)?;
        out.set_item("data", (address, true))?;
        Ok(out)
    }
}

/// A read-only NumPy array that shares the tensor's storage.
pub fn to_numpy<'py>(py: Python<'py>, array: &Array) -> PyResult<Bound<'py, PyAny>> {
    numpy(py)?.call_method1("asarray", (ArrayView(array.clone()),))
}
