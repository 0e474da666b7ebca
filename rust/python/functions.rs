//! Functions of the module that are not methods: creation, joining, choosing, gradients of outputs with respect to inputs.

use super::convert::{self, Other, check_device, only_tensor, pair, shape_of, tensor_like};
use super::dtype::optional_dtype;
use super::error::run;
use super::tensor::{PyTensor, apply2};
use crate::array::{Array, DType, Scalar};
use crate::{Tensor, autograd, ops};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// The keywords every creation function takes.
pub fn finish(value: Tensor, requires_grad: bool) -> PyResult<PyTensor> {
    Ok(PyTensor::new(if requires_grad { value.requiring_grad()? } else { value }))
}

type Object<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

/// A tensor from data: the same as `Tensor(...)`.
#[pyfunction]
#[pyo3(signature = (data, dtype=None, requires_grad=false, device=None))]
fn tensor(data: &Bound<'_, PyAny>, dtype: Object<'_, '_>, requires_grad: bool, device: Object<'_, '_>) -> PyResult<PyTensor> {
    check_device(device)?;
    finish(tensor_like(data, optional_dtype(dtype)?)?.detach(), requires_grad)
}

fn filled(py: Python<'_>, shape: &[usize], value: Scalar, dtype: DType, requires_grad: bool) -> PyResult<PyTensor> {
    let n = shape.iter().product::<usize>();
    finish(Tensor::constant(run(py, n, || Array::full(shape, value, dtype))?), requires_grad)
}

macro_rules! constant_functions {
    ($($(#[$m:meta])* $name:ident, $like:ident, $value:expr;)+) => {$(
        $(#[$m])*
        #[pyfunction]
        #[pyo3(signature = (*shape, dtype=None, requires_grad=false, device=None))]
        fn $name(py: Python<'_>, shape: &Bound<'_, PyTuple>, dtype: Object<'_, '_>, requires_grad: bool, device: Object<'_, '_>) -> PyResult<PyTensor> {
            check_device(device)?;
            filled(py, &shape_of(shape)?, $value, optional_dtype(dtype)?.unwrap_or(DType::F32), requires_grad)
        }
        $(#[$m])*
        #[pyfunction]
        #[pyo3(signature = (x, dtype=None, requires_grad=false, device=None))]
        fn $like(py: Python<'_>, x: &Bound<'_, PyAny>, dtype: Object<'_, '_>, requires_grad: bool, device: Object<'_, '_>) -> PyResult<PyTensor> {
            check_device(device)?;
            let x = tensor_like(x, None)?;
            filled(py, x.shape(), $value, optional_dtype(dtype)?.unwrap_or(x.dtype()), requires_grad)
        }
    )+};
}

constant_functions! {
    /// Zeros of a shape (or of the shape of a tensor).
    zeros, zeros_like, Scalar::Int(0);
    /// Ones of a shape (or of the shape of a tensor).
    ones, ones_like, Scalar::Int(1);
}

fn fill_value(value: &Bound<'_, PyAny>) -> PyResult<(Scalar, DType)> {
    let s = match convert::scalar(value)? {
        Some(s) => s,
        None => Scalar::Float(value.extract().map_err(|_| PyTypeError::new_err(format!("full: expected a number to fill with, got {}", value.get_type())))?),
    };
    Ok((
        s,
        match s {
            Scalar::Bool(_) => DType::Bool,
            Scalar::Int(_) => DType::I64,
            Scalar::Float(_) => DType::F32,
        },
    ))
}

/// One value everywhere; its kind decides the type unless `dtype` does.
#[pyfunction]
#[pyo3(signature = (shape, value, dtype=None, requires_grad=false, device=None))]
fn full(
    py: Python<'_>,
    shape: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
    dtype: Object<'_, '_>,
    requires_grad: bool,
    device: Object<'_, '_>,
) -> PyResult<PyTensor> {
    check_device(device)?;
    let (value, natural) = fill_value(value)?;
    let sizes = shape_of(&PyTuple::new(py, [shape])?)?;
    filled(py, &sizes, value, optional_dtype(dtype)?.unwrap_or(natural), requires_grad)
}

/// One value in the shape and type of a tensor.
#[pyfunction]
#[pyo3(signature = (x, value, dtype=None, requires_grad=false, device=None))]
fn full_like(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
    dtype: Object<'_, '_>,
    requires_grad: bool,
    device: Object<'_, '_>,
) -> PyResult<PyTensor> {
    check_device(device)?;
    let x = tensor_like(x, None)?;
    filled(py, x.shape(), fill_value(value)?.0, optional_dtype(dtype)?.unwrap_or(x.dtype()), requires_grad)
}

/// Evenly spaced numbers from `start` (0) up to but not including `stop`.
#[pyfunction]
#[pyo3(signature = (start, stop=None, step=None, dtype=None, requires_grad=false, device=None))]
fn arange(
    start: &Bound<'_, PyAny>,
    stop: Object<'_, '_>,
    step: Object<'_, '_>,
    dtype: Object<'_, '_>,
    requires_grad: bool,
    device: Object<'_, '_>,
) -> PyResult<PyTensor> {
    check_device(device)?;
    let number = |o: &Bound<'_, PyAny>| -> PyResult<Scalar> { fill_value(o).map(|(s, _)| s) };
    let (from, to) = match stop {
        Some(stop) => (number(start)?, number(stop)?),
        None => (Scalar::Int(0), number(start)?),
    };
    let step = step.map_or(Ok(Scalar::Int(1)), number)?;
    let float = [from, to, step].iter().any(|s| matches!(s, Scalar::Float(_)));
    let (a, b, d) = (from.as_f64(), to.as_f64(), step.as_f64());
    if d == 0.0 || !(a.is_finite() && b.is_finite() && d.is_finite()) {
        return Err(PyValueError::new_err(format!("arange: expected finite bounds and a step other than 0, got ({a}, {b}, {d})")));
    }
    let count = ((b - a) / d).ceil().max(0.0);
    if count > 1e15 {
        return Err(pyo3::exceptions::PyMemoryError::new_err(format!("arange: expected a count that fits memory, got {count}")));
    }
    let shape = crate::array::Dims::new(&[count as usize])?;
    let values = if float {
        crate::kernels::map::from_index(shape, |i| a + i as f64 * d)?
    } else {
        let (Scalar::Int(a), Scalar::Int(d)) = (integer(from), integer(step)) else { unreachable!("no floats here") };
        crate::kernels::map::from_index(shape, |i| a.wrapping_add(d.wrapping_mul(i as i64)))?
    };
    let natural = if float { DType::F32 } else { DType::I64 };
    let wanted = optional_dtype(dtype)?.unwrap_or(natural);
    finish(Tensor::constant(crate::kernels::map::cast(&values, wanted)?), requires_grad)
}

fn integer(s: Scalar) -> Scalar {
    if let Scalar::Bool(b) = s { Scalar::Int(b as i64) } else { s }
}

/// Ones on the diagonal of an (n, m) matrix of zeros; m defaults to n.
#[pyfunction]
#[pyo3(signature = (n, m=None, dtype=None, requires_grad=false, device=None))]
fn eye(n: usize, m: Option<usize>, dtype: Object<'_, '_>, requires_grad: bool, device: Object<'_, '_>) -> PyResult<PyTensor> {
    check_device(device)?;
    let m = m.unwrap_or(n);
    let mut out = Array::zeros(&[n, m], DType::F32)?;
    out.fresh::<f32>().iter_mut().step_by(m + 1).take(n.min(m)).for_each(|x| *x = 1.0);
    let wanted = optional_dtype(dtype)?.unwrap_or(DType::F32);
    finish(Tensor::constant(crate::kernels::map::cast(&out, wanted)?), requires_grad)
}

macro_rules! binary_functions {
    ($($(#[$m:meta])* $name:ident;)+) => {
        $($(#[$m])*
        #[pyfunction]
        fn $name(py: Python<'_>, a: Other, b: Other) -> PyResult<PyTensor> {
            let (a, b) = pair(a, b)?;
            apply2(py, a, b, ops::$name)
        })+
        fn add_binary(m: &Bound<'_, PyModule>) -> PyResult<()> {
            $(m.add_function(wrap_pyfunction!($name, m)?)?;)+
            Ok(())
        }
    };
}

binary_functions! {
    /// a + b, with broadcasting.
    add;
    /// a - b, with broadcasting.
    sub;
    /// a * b, with broadcasting.
    mul;
    /// a / b, with broadcasting; integers are divided as floats.
    div;
    /// a // b, rounded towards minus infinity.
    floor_divide;
    /// a % b, with the sign of b.
    remainder;
    /// Larger of two, element by element.
    maximum;
    /// Smaller of two, element by element.
    minimum;
    /// Matrix product as NumPy's `@`.
    matmul;
    /// a < b.
    less;
    /// a <= b.
    less_equal;
    /// a > b.
    greater;
    /// a >= b.
    greater_equal;
    /// a == b.
    equal;
    /// a != b.
    not_equal;
    /// a & b.
    logical_and;
    /// a | b.
    logical_or;
    /// a ^ b.
    logical_xor;
}

/// a ** b, with broadcasting.
#[pyfunction]
fn pow(py: Python<'_>, a: Other, b: Other) -> PyResult<PyTensor> {
    let base = a.dtype().unwrap_or(b.dtype().unwrap_or(DType::F32));
    let a = a.beside(b.dtype().unwrap_or(DType::F32))?;
    apply2(py, a, super::methods::exponent(b, base)?, ops::pow)
}

/// ~x, on bools and the bits of integers.
#[pyfunction]
fn logical_not(py: Python<'_>, x: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
    let x = tensor_like(x, None)?;
    run(py, x.size(), move || ops::logical_not(&x)).map(PyTensor::new)
}

/// `a` where `condition` (bool) holds, `b` elsewhere, with broadcasting of all three.
#[pyfunction]
fn r#where(py: Python<'_>, condition: &Bound<'_, PyAny>, a: Other, b: Other) -> PyResult<PyTensor> {
    let condition = tensor_like(condition, None)?;
    let (a, b) = pair(a, b)?;
    run(py, condition.size().max(a.size()), move || ops::choose(&condition, &a, &b)).map(PyTensor::new)
}

fn tensors(list: &Bound<'_, PyAny>, op: &str) -> PyResult<Vec<Tensor>> {
    if list.cast::<PyTensor>().is_ok() {
        return Err(PyTypeError::new_err(format!("{op}: expected a list or tuple of tensors, got one Tensor")));
    }
    list.try_iter()?.map(|item| tensor_like(&item?, None)).collect()
}

/// Tensors of one shape along a new axis.
#[pyfunction]
#[pyo3(signature = (tensors, axis=0))]
fn stack(py: Python<'_>, tensors: &Bound<'_, PyAny>, axis: isize) -> PyResult<PyTensor> {
    let xs = self::tensors(tensors, "stack")?;
    run(py, xs.iter().map(Tensor::size).sum(), move || ops::stack(&xs, axis)).map(PyTensor::new)
}

/// Tensors one after another along an axis.
#[pyfunction]
#[pyo3(signature = (tensors, axis=0))]
fn concatenate(py: Python<'_>, tensors: &Bound<'_, PyAny>, axis: isize) -> PyResult<PyTensor> {
    let xs = self::tensors(tensors, "concatenate")?;
    run(py, xs.iter().map(Tensor::size).sum(), move || ops::concatenate(&xs, axis)).map(PyTensor::new)
}

/// A row of zeros with a one per class number.
#[pyfunction]
#[pyo3(signature = (index, num_classes=None, dtype=None))]
fn one_hot(index: &Bound<'_, PyAny>, num_classes: Option<usize>, dtype: Object<'_, '_>) -> PyResult<PyTensor> {
    let index = tensor_like(index, None)?;
    if !matches!(index.dtype(), DType::I64 | DType::U8) {
        return Err(PyTypeError::new_err(format!("one_hot: expected int64 class numbers, got {}", index.dtype())));
    }
    Ok(PyTensor::new(ops::one_hot(&index, num_classes, optional_dtype(dtype)?.unwrap_or(DType::F32))?))
}

/// Rows of a tensor at `index` (int64): what a data loader gathers a batch with.
#[pyfunction]
fn gather_rows(py: Python<'_>, x: &Bound<'_, PyTensor>, index: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
    let index = tensor_like(index, None)?;
    let x = x.get().tensor();
    let work = index.size() * x.size() / x.shape().first().copied().unwrap_or(1).max(1);
    run(py, work, move || ops::take(&x, &index, 0)).map(PyTensor::new)
}

/// Rows of a uint8 tensor as float32, `x * scale + offset`, in one sweep.
#[pyfunction]
fn gather_rows_scaled(py: Python<'_>, x: &Bound<'_, PyTensor>, index: &Bound<'_, PyAny>, scale: f32, offset: f32) -> PyResult<PyTensor> {
    let index = tensor_like(index, None)?;
    let x = x.get().tensor();
    let work = index.size() * x.size() / x.shape().first().copied().unwrap_or(1).max(1);
    run(py, work, move || ops::take_scaled(&x, &index, scale, offset)).map(PyTensor::new)
}

fn one_or_many<'py>(object: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    if object.cast::<PyTensor>().is_ok() { Ok(vec![object.clone()]) } else { object.try_iter()?.collect() }
}

/// Gradients of `outputs` with respect to `inputs`, leaving every `.grad` alone.
///
/// Args:
///     outputs: One tensor or several.
///     inputs: One tensor or several that require grad.
///     grad_outputs: One gradient per output; None where the output has one element.
///     retain_graph: Keep what backward needs; None means the same as `create_graph`.
///     create_graph: Record the gradients themselves, for higher derivatives.
///     allow_unused: Return None for inputs the outputs do not depend on, instead of raising.
///
/// Raises:
///     RuntimeError: An input was not used, nothing was recorded, or the graph was freed.
///     ValueError: A gradient of another shape than its output.
#[pyfunction]
#[pyo3(signature = (outputs, inputs, grad_outputs=None, retain_graph=None, create_graph=false, allow_unused=false))]
fn grad(
    py: Python<'_>,
    outputs: &Bound<'_, PyAny>,
    inputs: &Bound<'_, PyAny>,
    grad_outputs: Object<'_, '_>,
    retain_graph: Option<bool>,
    create_graph: bool,
    allow_unused: bool,
) -> PyResult<Vec<Option<PyTensor>>> {
    let collect = |o: &Bound<'_, PyAny>| -> PyResult<Vec<Tensor>> { one_or_many(o)?.iter().map(|t| only_tensor(t, "grad")).collect() };
    let (ys, xs) = (collect(outputs)?, collect(inputs)?);
    let seeds: Option<Vec<Option<Tensor>>> = grad_outputs
        .map(|g| one_or_many(g)?.iter().map(|t| if t.is_none() { Ok(None) } else { tensor_like(t, None).map(Some) }).collect::<PyResult<_>>())
        .transpose()?;
    let retain = retain_graph.unwrap_or(create_graph);
    let grads = run(py, usize::MAX, move || autograd::grad(&ys, &xs, seeds.as_deref(), retain, create_graph))?;
    if let Some(i) = grads.iter().position(Option::is_none)
        && !allow_unused
    {
        return Err(PyRuntimeError::new_err(format!(
            "grad: expected inputs the outputs depend on, got an unused one at position {i}; pass allow_unused=True to get None"
        )));
    }
    Ok(grads.into_iter().map(|g| g.map(PyTensor::new)).collect())
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    add_binary(m)?;
    m.add_function(wrap_pyfunction!(super::interop::shared, m)?)?;
    macro_rules! add_all {
        ($($name:ident),+ $(,)?) => { $(m.add_function(wrap_pyfunction!($name, m)?)?;)+ };
    }
    add_all!(
        tensor,
        zeros,
        zeros_like,
        ones,
        ones_like,
        full,
        full_like,
        arange,
        eye,
        pow,
        logical_not,
        r#where,
        stack,
        concatenate,
        one_hot,
        gather_rows,
        gather_rows_scaled,
        grad,
    );
    let class = m.getattr("Tensor")?;
    for name in super::methods::shared_names() {
        m.add(name, class.getattr(name)?)?;
    }
    Ok(())
}
