//! From Python objects to core values and back.

use super::error::is_refusal;
use super::interop::shared;
use super::tensor::PyTensor;
use crate::array::{Array, DType, Dims, Element, Scalar};
use crate::ops::{self, Index};
use crate::{Tensor, with_dtype};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyIndexError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyEllipsis, PyFloat, PyInt, PyList, PyModule, PySlice, PyString, PyTuple};

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
            return Err(PyTypeError::new_err(format!("tensor: expected an array of floats, integers or bools, got dtype {}", text(&np_type)?)));
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

/// Python numbers have to fit the element type that is wanted; only arrays are cast to it whatever is in them.
fn check_range(numbers: &Array, dtype: DType) -> PyResult<()> {
    let outside = with_dtype!(numbers.dtype(), T => numbers.data::<T>().iter().map(|x| x.to_scalar()).find(|&x| !dtype.holds(x)));
    outside.map_or(Ok(()), |x| Err(PyValueError::new_err(format!("tensor: expected numbers that fit {dtype}, got {}", x.as_f64()))))
}

/// Whether the object is an array or a number of NumPy's.
pub fn is_of_numpy(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let np = numpy(object.py())?;
    Ok(object.is_instance(&np.getattr("ndarray")?)? || object.is_instance(&np.getattr("generic")?)?)
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
    let py = object.py();
    if object.is_instance_of::<PyString>() || object.is_none() {
        return Err(PyTypeError::new_err(format!("tensor: expected a Tensor, array, number or nested list, got {}", kind(object)?)));
    }
    let made = match numpy(py)?.call_method1("asarray", (object,)) {
        Err(error) if error.is_instance_of::<PyValueError>(py) => {
            let why = text(error.value(py))?;
            return Err(PyValueError::new_err(format!("tensor: expected a regular nested list, got ValueError: {why}")));
        }
        made => made?,
    };
    let array = match from_ndarray(&made) {
        Err(error) if error.is_instance_of::<PyTypeError>(py) && !is_of_numpy(object)? => {
            let (kind, dtype) = (kind(object)?, text(&made.getattr("dtype")?)?);
            return Err(PyTypeError::new_err(format!(
                "tensor: expected a Tensor, array, number, nested list or table of numbers, got {kind} that NumPy takes for {dtype}; \
                 turn other values into numbers first"
            )));
        }
        array => array?,
    };
    let from_lists = is_list(object);
    let holds_arrays = from_lists && object.try_iter()?.next().transpose()?.map_or(Ok(false), |first| first.hasattr("dtype"))?;
    let python = from_lists && !holds_arrays;
    if let (true, Some(dtype)) = (python, wanted) {
        check_range(&array, dtype)?;
    }
    let natural = if python && array.dtype() == DType::F64 { DType::F32 } else { array.dtype() };
    Ok(Tensor::constant(crate::kernels::map::cast(&array, wanted.unwrap_or(natural))?))
}

/// The cell of a Tensor; arrays are refused, so that nothing is silently left off the tape.
pub fn cell<'a>(object: &'a Bound<'_, PyAny>, op: &str) -> PyResult<&'a PyTensor> {
    match object.cast::<PyTensor>() {
        Ok(cell) => Ok(cell.get()),
        Err(_) => Err(PyTypeError::new_err(format!("{op}: expected a Tensor, got {}; wrap it with treadle.tensor(...)", kind(object)?))),
    }
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
            return integers(&only, "shape");
        }
    }
    integers(sizes.as_any(), "shape")
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
