//! Functions of the module that are not methods: creation, joining, choosing, gradients of outputs with respect to inputs.

use super::arrays::tensor_like;
use super::convert::{check_device, integer, number, one_shape_of, only_tensor, shape_of, size};
use super::dtype::optional_dtype;
use super::error::run;
use super::operand::{Other, pair};
use super::tensor::{PyTensor, apply2, work};
use crate::array::{Array, DType, Scalar};
use crate::{Tensor, autograd, ops};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// The keywords every creation function takes.
pub fn finish(value: Tensor, requires_grad: bool) -> PyResult<PyTensor> {
    Ok(PyTensor::new(if requires_grad { value.requiring_grad()? } else { value }))
}

/// An argument that may be left out.
pub type Object<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

/// A tensor from data: the same as `Tensor(...)`.
#[pyfunction]
#[pyo3(signature = (data, dtype=None, requires_grad=false, device=None))]
fn tensor(data: &Bound<'_, PyAny>, dtype: Object<'_, '_>, requires_grad: bool, device: Object<'_, '_>) -> PyResult<PyTensor> {
    check_device(device)?;
    finish(tensor_like(data, optional_dtype(dtype)?)?.detach(), requires_grad)
}

fn filled(py: Python<'_>, shape: &[usize], value: Scalar, dtype: DType, requires_grad: bool) -> PyResult<PyTensor> {
    let n = shape.iter().fold(1, |n: usize, &size| n.saturating_mul(size));
    finish(Tensor::constant(run(py, n, || Array::full(shape, value, dtype))?), requires_grad)
}

macro_rules! constant_functions {
    ($($(#[$m:meta])* $name:ident, $(#[$l:meta])* $like:ident, $value:expr;)+) => {$(
        $(#[$m])*
        #[pyfunction]
        #[pyo3(signature = (*shape, dtype=None, requires_grad=false, device=None))]
        fn $name(py: Python<'_>, shape: &Bound<'_, PyTuple>, dtype: Object<'_, '_>, requires_grad: bool, device: Object<'_, '_>) -> PyResult<PyTensor> {
            check_device(device)?;
            filled(py, &shape_of(shape)?, $value, optional_dtype(dtype)?.unwrap_or(DType::F32), requires_grad)
        }
        $(#[$l])*
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
    /// Zeros of a shape, given as integers or as one sequence of them.
    zeros,
    /// Zeros in the shape and type of `x`, a tensor or array.
    zeros_like, Scalar::Int(0);
    /// Ones of a shape, given as integers or as one sequence of them.
    ones,
    /// Ones in the shape and type of `x`, a tensor or array.
    ones_like, Scalar::Int(1);
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
    let (value, natural) = number(value, "full")?;
    filled(py, &one_shape_of(shape)?, value, optional_dtype(dtype)?.unwrap_or(natural), requires_grad)
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
    filled(py, x.shape(), number(value, "full_like")?.0, optional_dtype(dtype)?.unwrap_or(x.dtype()), requires_grad)
}

/// Evenly spaced numbers from `start` (0) up to but not including `stop`.
#[pyfunction]
#[pyo3(signature = (start, stop=None, step=None, dtype=None, requires_grad=false, device=None))]
#[allow(clippy::too_many_arguments)]
fn arange(
    py: Python<'_>,
    start: &Bound<'_, PyAny>,
    stop: Object<'_, '_>,
    step: Object<'_, '_>,
    dtype: Object<'_, '_>,
    requires_grad: bool,
    device: Object<'_, '_>,
) -> PyResult<PyTensor> {
    check_device(device)?;
    let (from, to) = match stop {
        Some(stop) => (number(start, "arange")?, number(stop, "arange")?),
        None => ((Scalar::Int(0), DType::I64), number(start, "arange")?),
    };
    let step = step.map_or(Ok((Scalar::Int(1), DType::I64)), |step| number(step, "arange"))?;
    let natural = match [from.1, to.1, step.1] {
        types if types.contains(&DType::F64) => DType::F64,
        types if types.contains(&DType::F32) => DType::F32,
        _ => DType::I64,
    };
    let dtype = optional_dtype(dtype)?.unwrap_or(natural);
    let (start, stop, step) = (from.0, to.0, step.0);
    finish(run(py, ops::arange_count(start, stop, step)?, || ops::arange(start, stop, step, dtype))?, requires_grad)
}

/// Ones on the diagonal of an (n, m) matrix of zeros; m defaults to n.
#[pyfunction]
#[pyo3(signature = (n, m=None, dtype=None, requires_grad=false, device=None))]
fn eye(py: Python<'_>, n: &Bound<'_, PyAny>, m: Object<'_, '_>, dtype: Object<'_, '_>, requires_grad: bool, device: Object<'_, '_>) -> PyResult<PyTensor> {
    check_device(device)?;
    let side = |n| size(integer(n, "eye")?, "eye");
    let (n, m) = (side(n)?, side(m.unwrap_or(n))?);
    let wanted = optional_dtype(dtype)?.unwrap_or(DType::F32);
    finish(run(py, n.saturating_mul(m), || ops::eye(n, m, wanted))?, requires_grad)
}

macro_rules! binary_functions {
    ($($(#[$m:meta])* $name:ident $operand:ident;)+) => {
        $($(#[$m])*
        #[pyfunction]
        fn $name(py: Python<'_>, a: Other, b: Other) -> PyResult<PyTensor> {
            let (a, b) = pair(a, b, Other::$operand)?;
            apply2(py, a, b, ops::$name)
        })+
        fn add_binary(m: &Bound<'_, PyModule>) -> PyResult<()> {
            add_all!(m, $($name),+);
            Ok(())
        }
    };
}

binary_functions! {
    /// a + b, with broadcasting.
    add beside;
    /// a - b, with broadcasting.
    sub beside;
    /// a * b, with broadcasting.
    mul beside;
    /// a / b, with broadcasting; integers are divided as floats.
    div in_quotient;
    /// a // b, rounded towards minus infinity.
    floor_divide beside;
    /// a % b, with the sign of b.
    remainder beside;
    /// Larger of two, element by element.
    maximum beside;
    /// Smaller of two, element by element.
    minimum beside;
    /// Matrix product as NumPy's `@`.
    matmul beside;
    /// a < b.
    less in_comparison;
    /// a <= b.
    less_equal in_comparison;
    /// a > b.
    greater in_comparison;
    /// a >= b.
    greater_equal in_comparison;
    /// a == b.
    equal in_comparison;
    /// a != b.
    not_equal in_comparison;
    /// a & b.
    logical_and beside;
    /// a | b.
    logical_or beside;
    /// a ^ b.
    logical_xor beside;
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
    let (a, b) = pair(a, b, Other::beside)?;
    let elements = work(&condition, &a).max(work(&condition, &b)).max(work(&a, &b));
    run(py, elements, move || ops::choose(&condition, &a, &b)).map(PyTensor::new)
}

fn tensors(list: &Bound<'_, PyAny>, op: &str) -> PyResult<Vec<Tensor>> {
    if list.cast::<PyTensor>().is_ok() {
        return Err(PyTypeError::new_err(format!("{op}: expected a list or tuple of tensors, got one Tensor")));
    }
    list.try_iter()?.map(|item| tensor_like(&item?, None)).collect()
}

fn total(xs: &[Tensor]) -> usize {
    xs.iter().fold(0, |n: usize, x| n.saturating_add(x.size()))
}

/// Tensors of one shape along a new axis.
#[pyfunction]
#[pyo3(signature = (tensors, axis=0))]
fn stack(py: Python<'_>, tensors: &Bound<'_, PyAny>, axis: isize) -> PyResult<PyTensor> {
    let xs = self::tensors(tensors, "stack")?;
    run(py, total(&xs), move || ops::stack(&xs, axis)).map(PyTensor::new)
}

/// Tensors one after another along an axis.
#[pyfunction]
#[pyo3(signature = (tensors, axis=0))]
fn concatenate(py: Python<'_>, tensors: &Bound<'_, PyAny>, axis: isize) -> PyResult<PyTensor> {
    let xs = self::tensors(tensors, "concatenate")?;
    run(py, total(&xs), move || ops::concatenate(&xs, axis)).map(PyTensor::new)
}

/// A row of zeros with a one per class number.
#[pyfunction]
#[pyo3(signature = (index, num_classes=None, dtype=None))]
fn one_hot(py: Python<'_>, index: &Bound<'_, PyAny>, num_classes: Object<'_, '_>, dtype: Object<'_, '_>) -> PyResult<PyTensor> {
    let index = tensor_like(index, None)?;
    if !matches!(index.dtype(), DType::I64 | DType::U8) {
        return Err(PyTypeError::new_err(format!("one_hot: expected int64 class numbers, got {}", index.dtype())));
    }
    let num_classes = num_classes.map(|n| size(integer(n, "one_hot")?, "one_hot")).transpose()?;
    let dtype = optional_dtype(dtype)?.unwrap_or(DType::F32);
    let work = index.size().saturating_mul(num_classes.unwrap_or(16));
    run(py, work, move || ops::one_hot(&index, num_classes, dtype)).map(PyTensor::new)
}

/// Rows of a tensor at `index` (int64): what a data loader gathers a batch with.
#[pyfunction]
fn gather_rows(py: Python<'_>, x: &Bound<'_, PyTensor>, index: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
    let index = tensor_like(index, None)?;
    let x = x.get().tensor();
    run(py, ops::take_work(&x, &index, 0), move || ops::take(&x, &index, 0)).map(PyTensor::new)
}

/// Rows of a uint8 tensor as float32, `x * scale + offset`, in one sweep.
#[pyfunction]
fn gather_rows_scaled(py: Python<'_>, x: &Bound<'_, PyTensor>, index: &Bound<'_, PyAny>, scale: f32, offset: f32) -> PyResult<PyTensor> {
    let index = tensor_like(index, None)?;
    let x = x.get().tensor();
    run(py, ops::take_work(&x, &index, 0), move || ops::take_scaled(&x, &index, scale, offset)).map(PyTensor::new)
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
    add_all!(
        m,
        super::interop::shared,
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
    Ok(())
}
