//! Binary ops with NumPy's broadcasting and promotion, and the choice between two tensors.

use super::unary;
use super::value::Formula;
use crate::array::{Array, DType, Scalar};
use crate::autograd::{Inputs, Op, Tensor, linear};
use crate::kernels::{arith, map};
use crate::{Result, bail, with_dtype, with_float};

/// A Python scalar as a tensor of the type NumPy 2 gives it beside `partner`: it has a kind but no width.
pub fn match_weak(x: Scalar, partner: DType) -> Result<Tensor> {
    let dtype = partner.promote_weak(x);
    Ok(Tensor::constant(Array::full(&[], x, dtype)?))
}

/// A number as a tensor of the type it has beside `like`.
pub(super) fn constant(x: f64, like: &Tensor) -> Result<Tensor> {
    match_weak(Scalar::Float(x), like.dtype())
}

/// Both operands as the type NumPy promotes them to.
fn promoted(a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
    let dtype = a.dtype().promote(b.dtype());
    Ok((linear::cast(a, dtype)?, linear::cast(b, dtype)?))
}

/// Shadows two references with references to operands of one type; what has it already is not even cloned.
macro_rules! promote {
    ($a:ident, $b:ident) => {
        let held;
        let ($a, $b) = if $a.dtype() == $b.dtype() {
            ($a, $b)
        } else {
            held = promoted($a, $b)?;
            (&held.0, &held.1)
        };
    };
}

/// Runs a kernel on operands of one type.
macro_rules! run {
    ($f:expr, $a:expr, $b:expr, $name:expr, [$($D:ident $T:ty),+], else $other:expr) => {
        match $a.dtype() {
            $(DType::$D => map::binary::<$T, _, _>($f, $a.array(), $b.array(), $name),)+
            #[allow(unreachable_patterns)]
            other => $other(other),
        }
    };
}

fn unsupported<T>(op: &'static str, accepts: &'static str) -> impl Fn(DType) -> Result<T> {
    move |dtype| bail!(Type, "{op}: expected {accepts}, got {dtype}")
}

struct AddOp;
impl Op for AddOp {
    fn name(&self) -> &'static str {
        "add"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || Ok(dy.clone()))?;
        dx.give(1, || Ok(dy.clone()))
    }
}

/// a + b; for bools, or.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    promote!(a, b);
    let y = run!(arith::Add, a, b, "add", [F32 f32, F64 f64, I64 i64, U8 u8, Bool bool], else unsupported("add", ""))?;
    Ok(Tensor::record(y, &[a, b], || AddOp))
}

struct SubOp;
impl Op for SubOp {
    fn name(&self) -> &'static str {
        "sub"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || Ok(dy.clone()))?;
        dx.give(1, || unary::neg(dy))
    }
}

/// a − b.
pub fn sub(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    promote!(a, b);
    let y = run!(arith::Sub, a, b, "sub", [F32 f32, F64 f64, I64 i64, U8 u8], else unsupported("sub", "numbers (use ^ for bools)"))?;
    Ok(Tensor::record(y, &[a, b], || SubOp))
}

/// Ops whose gradient needs both operands: `(da, db)` as formulas of `a`, `b`.
macro_rules! saves_both {
    ($($(#[$m:meta])* $name:ident $type:ident: |$a:ident, $b:ident| da = $da:expr, db = $db:expr;)+) => {$(
        struct $type {
            a: Array,
            b: Array,
        }
        impl Op for $type {
            fn name(&self) -> &'static str {
                stringify!($name)
            }
            fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
                let (a, b) = (dx.input(0, &self.a), dx.input(1, &self.b));
                #[allow(unused_variables)]
                dx.give(0, || {
                    let ($a, $b) = (Formula::from(&a), Formula::from(&b));
                    (Formula::from(dy) * $da).tensor()
                })?;
                #[allow(unused_variables)]
                dx.give(1, || {
                    let ($a, $b) = (Formula::from(&a), Formula::from(&b));
                    (Formula::from(dy) * $db).tensor()
                })
            }
        }
    )+};
}

saves_both! {
    mul MulOp: |a, b| da = b, db = a;
    pow PowOp: |a, b| da = power_by_base(a, b), db = power_by_exponent(a, b);
    // Where both are equal, both get half: the subgradient PyTorch and JAX use.
    maximum MaximumOp: |a, b| da = share(a, b), db = share(b, a);
    minimum MinimumOp: |a, b| da = share(b, a), db = share(a, b);
}

/// d(aᵇ)/da = b·aᵇ⁻¹, and 0 where b is 0 whatever a is.
fn power_by_base(a: Formula, b: Formula) -> Formula {
    Formula::Tensor((|| {
        let (a, b) = (a.tensor()?, b.tensor()?);
        let (zero, one) = (constant(0.0, &b)?, constant(1.0, &b)?);
        let flat = equal(&b, &zero)?;
        // Where the slope is 0, its own must not be 0 · ∞.
        let safe = choose(&flat, &one, &a)?;
        choose(&flat, &zero, &mul(&b, &pow(&safe, &sub(&b, &one)?)?)?)
    })())
}

/// d(aᵇ)/db = aᵇ·log a, and 0 where a is 0 (and b ≥ 0).
fn power_by_exponent(a: Formula, b: Formula) -> Formula {
    Formula::Tensor((|| {
        let (a, b) = (a.tensor()?, b.tensor()?);
        let zero = constant(0.0, &a)?;
        let one = constant(1.0, &a)?;
        let at_zero = logical_and(&equal(&a, &zero)?, &greater_equal(&b, &zero)?)?;
        let safe = choose(&at_zero, &one, &a)?;
        choose(&at_zero, &zero, &mul(&pow(&a, &b)?, &unary::log(&safe)?)?)
    })())
}

/// The share of a in the gradient of the larger of a and b; the arguments exchanged, its share in that of the smaller.
fn share(a: Formula, b: Formula) -> Formula {
    Formula::Tensor((|| {
        let (a, b) = (a.tensor()?, b.tensor()?);
        Ok(Tensor::constant(run!(arith::Share, a, b, "share", [F32 f32, F64 f64], else unsupported("share", "floats"))?))
    })())
}

/// a · b; for bools, and.
pub fn mul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    promote!(a, b);
    let y = run!(arith::Mul, a, b, "mul", [F32 f32, F64 f64, I64 i64, U8 u8, Bool bool], else unsupported("mul", ""))?;
    Ok(Tensor::record(y, &[a, b], || MulOp { a: a.array().clone(), b: b.array().clone() }))
}

/// y = a / b; da = dy / b, db = −da · y: the square of b could overflow where the gradient does not.
struct DivOp {
    b: Array,
    y: Array,
}
impl Op for DivOp {
    fn name(&self) -> &'static str {
        "div"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let (b, y) = (dx.input(1, &self.b), dx.output(&self.y));
        let da = div(dy, &b)?;
        dx.give(0, || Ok(da.clone()))?;
        dx.give(1, || unary::neg(&mul(&da, &y)?))
    }
}

/// a / b; integers are divided as float64.
pub fn div(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let dtype = a.dtype().promote(b.dtype());
    let dtype = if dtype.is_float() { dtype } else { DType::F64 };
    let (a, b) = (linear::cast(a, dtype)?, linear::cast(b, dtype)?);
    let y = run!(arith::Div, a, b, "div", [F32 f32, F64 f64], else unsupported("div", "floats"))?;
    let kept = y.clone();
    Ok(Tensor::record(y, &[&a, &b], || DivOp { b: b.array().clone(), y: kept }))
}

/// aᵇ. Integers to a negative integer power are an error, as in NumPy.
pub fn pow(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if b.size() == 1 && b.ndim() == 0 && b.dtype().is_float() && !b.requires_grad() && a.dtype() == b.dtype() {
        match b.item()? {
            0.0 => {} // Its gradient is 0 whatever a is.
            0.5 => return unary::sqrt(a),
            1.0 => return Ok(linear::unchanged(a)),
            2.0 => return unary::square(a),
            3.0 => return unary::cube(a),
            4.0 => return unary::fourth(a),
            -1.0 => return unary::reciprocal(a),
            e => return unary::power(a, e),
        }
    }
    promote!(a, b);
    if b.dtype() == DType::I64 && map::contiguous(b.array())?.as_slice::<i64>().is_some_and(|b| b.iter().any(|&b| b < 0)) {
        bail!(Value, "pow: expected non-negative integer exponents for an integer base, got a negative one; cast to float first");
    }
    let y = run!(arith::Pow, a, b, "pow", [F32 f32, F64 f64, I64 i64, U8 u8], else unsupported("pow", "numbers"))?;
    Ok(Tensor::record(y, &[a, b], || PowOp { a: a.array().clone(), b: b.array().clone() }))
}

/// Larger of two, element by element; NaN if either is.
pub fn maximum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    promote!(a, b);
    let y = run!(arith::Maximum, a, b, "maximum", [F32 f32, F64 f64, I64 i64, U8 u8, Bool bool], else unsupported("maximum", ""))?;
    Ok(Tensor::record(y, &[a, b], || MaximumOp { a: a.array().clone(), b: b.array().clone() }))
}

/// Smaller of two, element by element; NaN if either is.
pub fn minimum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    promote!(a, b);
    let y = run!(arith::Minimum, a, b, "minimum", [F32 f32, F64 f64, I64 i64, U8 u8, Bool bool], else unsupported("minimum", ""))?;
    Ok(Tensor::record(y, &[a, b], || MinimumOp { a: a.array().clone(), b: b.array().clone() }))
}

/// a − b·⌊a/b⌋ has the slope 1 in a and −⌊a/b⌋ in b.
struct RemainderOp {
    quotient: Array,
}
impl Op for RemainderOp {
    fn name(&self) -> &'static str {
        "remainder"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || Ok(dy.clone()))?;
        dx.give(1, || unary::neg(&mul(dy, &Tensor::constant(self.quotient.clone()))?))
    }
}

/// a // b, rounded towards minus infinity as in Python. Not differentiable: the result is a constant.
pub fn floor_divide(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    promote!(a, b);
    let y = run!(arith::FloorDivide, a, b, "floor_divide", [F32 f32, F64 f64, I64 i64, U8 u8],
        else unsupported("floor_divide", "numbers"))?;
    Ok(Tensor::constant(y))
}

/// a % b with the sign of b, as in Python.
pub fn remainder(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    promote!(a, b);
    let y = run!(arith::Remainder, a, b, "remainder", [F32 f32, F64 f64, I64 i64, U8 u8],
        else unsupported("remainder", "numbers"))?;
    if !(a.requires_grad() || b.requires_grad()) {
        return Ok(Tensor::constant(y));
    }
    let quotient = floor_divide(a, b)?.into_array();
    Ok(Tensor::record(y, &[a, b], || RemainderOp { quotient }))
}

macro_rules! comparisons {
    ($($(#[$m:meta])* $name:ident $kernel:ident;)+) => {$(
        $(#[$m])*
        pub fn $name(a: &Tensor, b: &Tensor) -> Result<Tensor> {
            let dtype = a.dtype().promote(b.dtype());
            let (a, b) = (map::cast(a.array(), dtype)?, map::cast(b.array(), dtype)?);
            Ok(Tensor::constant(with_dtype!(dtype, T => map::binary::<T, bool, _>(arith::$kernel, &a, &b, stringify!($name)))?))
        }
    )+};
}

comparisons! {
    /// a < b.
    less Less;
    /// a ≤ b.
    less_equal LessEqual;
    /// a > b.
    greater Greater;
    /// a ≥ b.
    greater_equal GreaterEqual;
    /// a = b.
    equal Equal;
    /// a ≠ b.
    not_equal NotEqual;
}

macro_rules! bitwise {
    ($($(#[$m:meta])* $name:ident $kernel:ident;)+) => {$(
        $(#[$m])*
        pub fn $name(a: &Tensor, b: &Tensor) -> Result<Tensor> {
            let dtype = a.dtype().promote(b.dtype());
            let a = Tensor::constant(map::cast(a.array(), dtype)?);
            let b = Tensor::constant(map::cast(b.array(), dtype)?);
            let y = run!(arith::$kernel, a, b, stringify!($name), [I64 i64, U8 u8, Bool bool],
                else unsupported(stringify!($name), "bools or integers"))?;
            Ok(Tensor::constant(y))
        }
    )+};
}

bitwise! {
    /// a & b, on bools and the bits of integers.
    logical_and And;
    /// a | b, likewise.
    logical_or Or;
    /// a ^ b, likewise.
    logical_xor Xor;
}

/// ~x, on bools and the bits of integers.
pub fn logical_not(x: &Tensor) -> Result<Tensor> {
    let y = match x.dtype() {
        DType::Bool => map::unary::<bool, bool, _>(arith::Not, x.array()),
        DType::I64 => map::unary::<i64, i64, _>(arith::Not, x.array()),
        DType::U8 => map::unary::<u8, u8, _>(arith::Not, x.array()),
        other => bail!(Type, "logical_not: expected bools or integers, got {other}"),
    };
    Ok(Tensor::constant(y?))
}

/// y = condition ? a : b; da = dy where the condition holds, db = dy where it does not.
struct Where {
    condition: Array,
}
impl Op for Where {
    fn name(&self) -> &'static str {
        "where"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let condition = Tensor::constant(self.condition.clone());
        let zero = constant(0.0, dy)?;
        dx.give(0, || choose(&condition, dy, &zero))?;
        dx.give(1, || choose(&condition, &zero, dy))
    }
}

/// `a` where `condition` (bool) holds, `b` elsewhere (NumPy's `where`).
pub fn choose(condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if condition.dtype() != DType::Bool {
        bail!(Type, "where: expected a bool condition, got {}", condition.dtype());
    }
    promote!(a, b);
    let y = with_dtype!(a.dtype(), T => map::select::<T>(condition.array(), a.array(), b.array()))?;
    Ok(Tensor::record(y, &[a, b], || Where { condition: condition.array().clone() }))
}

/// `x` with `value`, which its element type must hold, wherever `mask` (bool) does.
pub fn masked_fill(x: &Tensor, mask: &Tensor, value: impl Into<Scalar>) -> Result<Tensor> {
    let (value, dtype) = (value.into(), x.dtype());
    if mask.dtype() != DType::Bool {
        bail!(Type, "masked_fill: expected a bool mask, got {}", mask.dtype());
    }
    let fits = match dtype {
        DType::F32 | DType::F64 => true,
        DType::I64 | DType::U8 => value.whole().is_some() && dtype.holds(value),
        DType::Bool => value.whole().is_some_and(|i| (0..=1).contains(&i)),
    };
    if !fits {
        bail!(Value, "masked_fill: expected a value that fits {dtype}, got {}", value.as_f64());
    }
    choose(mask, &Tensor::constant(Array::full(&[], value, dtype)?), x)
}

/// y = x held within [low, high]; dx = dy where x was inside.
struct Clip {
    x: Array,
    bounds: [Scalar; 2],
}
impl Op for Clip {
    fn name(&self) -> &'static str {
        "clip"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || {
            let inside = with_float!(self.x.dtype(), T => map::unary::<T, bool, _>(arith::Within::<T>::of(self.bounds), &self.x),
                else unreachable!("only floats are recorded"))?;
            choose(&Tensor::constant(inside), dy, &constant(0.0, dy)?)
        })
    }
}

/// `x` held within `[low, high]`; either bound may be absent. The gradient is 1 inside, and 0 outside and at the bounds, as
/// ReLU's is at 0.
pub fn clip(x: &Tensor, low: Option<Scalar>, high: Option<Scalar>) -> Result<Tensor> {
    if x.dtype().is_float() {
        let bounds = [low.unwrap_or(Scalar::Float(f64::NEG_INFINITY)), high.unwrap_or(Scalar::Float(f64::INFINITY))];
        let y = with_float!(x.dtype(), T => map::unary::<T, T, _>(arith::Within::<T>::of(bounds), x.array()), else unreachable!("floats"))?;
        return Ok(Tensor::record(y, &[x], || Clip { x: x.array().clone(), bounds }));
    }
    let mut y = x.clone();
    for (bound, limit) in [(low, maximum as fn(&Tensor, &Tensor) -> Result<Tensor>), (high, minimum)] {
        if let Some(bound) = bound {
            y = limit(&y, &match_weak(bound, y.dtype())?)?;
        }
    }
    Ok(y)
}
