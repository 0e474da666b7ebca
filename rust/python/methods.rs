//! Operators and mathematical methods of `Tensor`.

// Slots that pyo3 generates inside a `macro_rules!` call unsafe functions without a block of their own.
#![allow(unsafe_op_in_unsafe_fn)]

use super::convert::{Axes, Indices};
use super::operand::{Operand, Other};
use super::tensor::{PyTensor, apply, apply_both, apply_view, apply_weighed, apply2, work};
use crate::array::{DType, Scalar};
use crate::ops;
use pyo3::basic::CompareOp;
use pyo3::prelude::*;

macro_rules! unary_methods {
    ($($(#[$m:meta])* $name:ident),+ $(,)?) => {
        shared_methods! {
            register_unary:
            $($(#[$m])*
            fn $name() |self, py| -> PyTensor {
                apply(py, self, ops::$name)
            })+
        }
    };
}

unary_methods! {
    /// e to the power of each element.
    exp,
    /// exp(x) - 1, exact near zero.
    expm1,
    /// Natural logarithm.
    log,
    /// log(1 + x), exact near zero.
    log1p,
    /// Square root.
    sqrt,
    /// 1 / sqrt(x).
    rsqrt,
    /// x * x.
    square,
    /// 1 / x.
    reciprocal,
    /// Hyperbolic tangent.
    tanh,
    /// 1 / (1 + exp(-x)).
    sigmoid,
    /// max(x, 0).
    relu,
    /// x * Phi(x) with the exact normal distribution function (Hendrycks & Gimpel 2016).
    gelu,
    /// x * sigmoid(x).
    silu,
    /// log(1 + exp(x)), without overflow.
    softplus,
    /// log(sigmoid(x)), without overflow.
    log_sigmoid,
    /// Error function.
    erf,
    /// Sine of radians.
    sin,
    /// Cosine of radians.
    cos,
    /// -x.
    neg,
    /// |x|.
    abs,
    /// -1, 0 or 1.
    sign,
    /// Rounded down.
    floor,
    /// Rounded up.
    ceil,
    /// Rounded to the nearest integer, halves to even.
    round,
    /// Whether each element is NaN.
    isnan,
    /// Whether each element is infinite.
    isinf,
    /// Whether each element is finite.
    isfinite,
}

macro_rules! reductions {
    ($($(#[$m:meta])* $name:ident),+ $(,)?) => {
        shared_methods! {
            register_reductions:
            $($(#[$m])*
            fn $name(axis=None, keepdims=false) |self, py, axis: Option<Axes>, keepdims: bool| -> PyTensor {
                apply(py, self, move |x| ops::$name(x, axis.as_ref().map(|a| &a.0[..]), keepdims))
            })+
        }
    };
}

reductions! {
    /// Sum along axes (all if None).
    sum,
    /// Mean along axes.
    mean,
    /// Product along axes.
    prod,
    /// Largest element along axes; ties share the gradient.
    max,
    /// Smallest element along axes; ties share the gradient.
    min,
    /// Whether any element is non-zero.
    any,
    /// Whether every element is non-zero.
    all,
    /// log(sum(exp(x))), without overflow.
    logsumexp,
}

macro_rules! operators {
    ($($slot:ident $reverse:ident $op:ident $operand:ident;)+) => {
        #[pymethods]
        impl PyTensor {
            $(fn $slot(&self, py: Python<'_>, other: Operand) -> PyResult<PyTensor> {
                let other = match other {
                    Operand::Cell(b) => return apply_both(py, self, b.get(), ops::$op),
                    Operand::Other(other) => other,
                };
                let a = self.tensor();
                let b = other.$operand(a.dtype())?;
                apply2(py, a, b, ops::$op)
            }
            fn $reverse(&self, py: Python<'_>, other: Other) -> PyResult<PyTensor> {
                let b = self.tensor();
                let a = other.$operand(b.dtype())?;
                apply2(py, a, b, ops::$op)
            })+
        }
    };
}

operators! {
    __add__ __radd__ add beside;
    __sub__ __rsub__ sub beside;
    __mul__ __rmul__ mul beside;
    __truediv__ __rtruediv__ div in_quotient;
    __floordiv__ __rfloordiv__ floor_divide beside;
    __mod__ __rmod__ remainder beside;
    __matmul__ __rmatmul__ matmul beside;
    __and__ __rand__ logical_and beside;
    __or__ __ror__ logical_or beside;
    __xor__ __rxor__ logical_xor beside;
}

#[pymethods]
impl PyTensor {
    fn __pow__(&self, py: Python<'_>, other: Other, modulo: Option<&Bound<'_, PyAny>>) -> PyResult<PyTensor> {
        if modulo.is_some() {
            return Err(pyo3::exceptions::PyTypeError::new_err("pow: expected two operands, got a modulus"));
        }
        let a = self.tensor();
        let b = exponent(other, a.dtype())?;
        apply2(py, a, b, ops::pow)
    }
    fn __rpow__(&self, py: Python<'_>, other: Other, _modulo: Option<&Bound<'_, PyAny>>) -> PyResult<PyTensor> {
        let b = self.tensor();
        let a = other.beside(b.dtype())?;
        apply2(py, a, b, ops::pow)
    }
    fn __neg__(&self, py: Python<'_>) -> PyResult<PyTensor> {
        apply(py, self, ops::neg)
    }
    fn __pos__(&self) -> PyResult<PyTensor> {
        if self.lock().dtype() == DType::Bool {
            return Err(pyo3::exceptions::PyTypeError::new_err("pos: expected numbers, got bool; a mask has no sign"));
        }
        apply_view(self, |x| Ok(ops::unchanged(x)))
    }
    fn __abs__(&self, py: Python<'_>) -> PyResult<PyTensor> {
        apply(py, self, ops::abs)
    }
    fn __invert__(&self, py: Python<'_>) -> PyResult<PyTensor> {
        apply(py, self, ops::logical_not)
    }
    fn __richcmp__(&self, py: Python<'_>, other: Other, op: CompareOp) -> PyResult<PyTensor> {
        let a = self.tensor();
        let b = other.in_comparison(a.dtype())?;
        let f = match op {
            CompareOp::Lt => ops::less,
            CompareOp::Le => ops::less_equal,
            CompareOp::Gt => ops::greater,
            CompareOp::Ge => ops::greater_equal,
            CompareOp::Eq => ops::equal,
            CompareOp::Ne => ops::not_equal,
        };
        apply2(py, a, b, f)
    }
}

shared_methods! {
    register_others:
    /// Variance along axes: sum((x - mean)**2) / (n - correction).
    fn var(axis=None, keepdims=false, correction=0.0) |self, py, axis: Option<Axes>, keepdims: bool, correction: f64| -> PyTensor {
        apply(py, self, move |x| ops::var(x, axis.as_ref().map(|a| &a.0[..]), keepdims, correction))
    }
    /// Standard deviation along axes: the square root of `var`.
    #[pyo3(name = "std")]
    fn std_(axis=None, keepdims=false, correction=0.0) |self, py, axis: Option<Axes>, keepdims: bool, correction: f64| -> PyTensor {
        apply(py, self, move |x| ops::std(x, axis.as_ref().map(|a| &a.0[..]), keepdims, correction))
    }
    /// Index of the first largest element along an axis, or of the flattened tensor.
    fn argmax(axis=None, keepdims=false) |self, py, axis: Option<isize>, keepdims: bool| -> PyTensor {
        apply(py, self, |x| ops::argmax(x, axis, keepdims))
    }
    /// Index of the first smallest element along an axis, or of the flattened tensor.
    fn argmin(axis=None, keepdims=false) |self, py, axis: Option<isize>, keepdims: bool| -> PyTensor {
        apply(py, self, |x| ops::argmin(x, axis, keepdims))
    }
    /// exp(x) / sum(exp(x)) along an axis.
    fn softmax(axis=-1) |self, py, axis: isize| -> PyTensor {
        apply(py, self, |x| ops::softmax(x, axis))
    }
    /// log(softmax(x)), exact where softmax underflows.
    fn log_softmax(axis=-1) |self, py, axis: isize| -> PyTensor {
        apply(py, self, |x| ops::log_softmax(x, axis))
    }
    /// x for x > 0, slope * x elsewhere.
    fn leaky_relu(slope=0.01) |self, py, slope: f64| -> PyTensor {
        apply(py, self, |x| ops::leaky_relu(x, slope))
    }
    /// x for x > 0, alpha * (exp(x) - 1) elsewhere (Clevert et al. 2016).
    fn elu(alpha=1.0) |self, py, alpha: f64| -> PyTensor {
        apply(py, self, |x| ops::elu(x, alpha))
    }
    /// Held within [low, high], two numbers; None leaves a side open. The gradient is 0 at a bound, as ReLU's is at 0.
    fn clip(low=None, high=None) |self, py, low: Option<Bound<'_, PyAny>>, high: Option<Bound<'_, PyAny>>| -> PyTensor {
        let bound = |b: Option<Bound<'_, PyAny>>| b.map(|b| super::convert::number(&b, "clip").map(|(bound, _)| bound)).transpose();
        let (low, high) = (bound(low)?, bound(high)?);
        apply(py, self, move |x| ops::clip(x, low, high))
    }
    /// With `value`, a number that the element type holds, wherever `mask` (bool) does.
    fn masked_fill(mask, value) |self, py, mask: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>| -> PyTensor {
        let mask = super::arrays::tensor_like(mask, None)?;
        let (value, _) = super::convert::number(value, "masked_fill")?;
        apply_weighed(py, self, |x| work(x, &mask), |x| ops::masked_fill(x, &mask, value))
    }
    /// Elements at `index` (int64, any shape) along an axis.
    fn take(index, axis=0) |self, py, index: &Bound<'_, PyAny>, axis: isize| -> PyTensor {
        let index = super::arrays::tensor_like(index, None)?;
        apply_weighed(py, self, |x| ops::take_work(x, &index, axis), |x| ops::take(x, &index, axis))
    }
    /// NumPy's take_along_axis: `index` matches the shape except along `axis`.
    fn gather(index, axis) |self, py, index: Indices, axis: isize| -> PyTensor {
        let index = index.0;
        apply_weighed(py, self, |x| x.size().max(index.size()), |x| ops::gather(x, &index, axis))
    }
    /// With `src` added at `index` along an axis; repeated indices add up.
    fn index_add(index, src, axis=0) |self, py, index: Indices, src: &Bound<'_, PyAny>, axis: isize| -> PyTensor {
        let (index, src) = (index.0, super::arrays::tensor_like(src, None)?);
        apply_weighed(py, self, |x| x.size().max(src.size()), |x| ops::index_add(x, &index, &src, axis))
    }
}

/// A float base takes an integer scalar exponent as a float of its own type.
pub fn exponent(other: Other, base: DType) -> PyResult<crate::Tensor> {
    match other {
        Other::Scalar(Scalar::Int(i)) if base.is_float() => Other::Scalar(Scalar::Float(i as f64)).beside(base),
        other => other.beside(base),
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    register_unary(m)?;
    register_reductions(m)?;
    register_others(m)
}
