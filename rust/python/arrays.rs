//! Arrays of NumPy, and all that it makes arrays of, in and out.

use super::convert::{is_list, kind, natural, numpy, scalar, text};
use super::error::run;
use super::interop::shared;
use super::tensor::PyTensor;
use crate::array::{Array, DType, Dims, Element};
use crate::autograd::is_recording;
use crate::kernels::map;
use crate::{Tensor, ops, with_dtype};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

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
        let there = there.tensor();
        return run(array.py(), there.size(), || map::copy(there.array()));
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
        DType::Bool => {
            let bytes = copy_buffer::<u8>(&plain, &shape)?;
            run(py, bytes.size(), || map::cast(&bytes, DType::Bool))
        }
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

/// Masked elements are no numbers, though an array of NumPy has some behind its mask.
fn check_mask(object: &Bound<'_, PyAny>) -> PyResult<()> {
    let plain = numpy(object.py())?.getattr("ndarray")?;
    if object.get_type().is(&plain) || !object.is_instance(&plain)? || !object.hasattr("mask")? {
        return Ok(());
    }
    let masked: usize = numpy(object.py())?.call_method1("count_nonzero", (object.getattr("mask")?,))?.extract()?;
    if masked > 0 {
        return Err(PyValueError::new_err(format!("tensor: expected an array without masked elements, got {masked}; fill them in with .filled(value)")));
    }
    Ok(())
}

/// Tensors in a list would leave the tape without a word.
fn check_recorded(list: &Bound<'_, PyAny>) -> PyResult<()> {
    let recorded = |part: PyResult<Bound<'_, PyAny>>| part.is_ok_and(|part| part.cast::<PyTensor>().is_ok_and(|t| t.get().tensor().requires_grad()));
    if is_recording() && list.try_iter()?.any(recorded) {
        return Err(PyTypeError::new_err(
            "tensor: expected numbers or arrays in a list, got Tensors that require grad; treadle.stack(...) keeps their gradients, \
             .detach() of each leaves them off",
        ));
    }
    Ok(())
}

/// What NumPy makes an array of.
fn as_ndarray<'py>(object: &Bound<'py, PyAny>, from_lists: bool) -> PyResult<Bound<'py, PyAny>> {
    if from_lists {
        check_recorded(object)?;
    } else {
        check_mask(object)?;
    }
    let py = object.py();
    numpy(py)?.call_method1("asarray", (object,)).map_err(|error| {
        let why = || text(error.value(py));
        let refusal = if error.is_instance_of::<PyValueError>(py) {
            why().map(|why| PyValueError::new_err(format!("tensor: expected a regular nested list, got ValueError: {why}")))
        } else if error.is_instance_of::<PyTypeError>(py) && !from_lists {
            why().and_then(|why| Ok(PyTypeError::new_err(format!("tensor: expected what NumPy can read, got {}: {why}", kind(object)?))))
        } else {
            return error;
        };
        refusal.unwrap_or_else(|raised| raised)
    })
}

/// Any array-like as a tensor: tensors as they are, arrays copied, Python floats (also in lists) as float32.
pub fn tensor_like(object: &Bound<'_, PyAny>, wanted: Option<DType>) -> PyResult<Tensor> {
    if let Ok(t) = object.cast::<PyTensor>() {
        let t = t.get().tensor();
        return Ok(match wanted {
            Some(d) => run(object.py(), t.size(), || ops::cast(&t, d))?,
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
    let from_lists = is_list(object);
    let made = as_ndarray(object, from_lists)?;
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
    let holds_arrays = from_lists && object.try_iter()?.next().transpose()?.map_or(Ok(false), |first| first.hasattr("dtype"))?;
    let python = from_lists && !holds_arrays;
    if let (true, Some(dtype)) = (python, wanted) {
        check_range(&array, dtype)?;
    }
    let natural = if python && array.dtype() == DType::F64 { DType::F32 } else { array.dtype() };
    run(py, array.size(), || map::cast(&array, wanted.unwrap_or(natural))).map(Tensor::constant)
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
