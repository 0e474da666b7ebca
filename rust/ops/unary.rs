//! Unary ops: y = f(x), dx = dy · f'(s), where s is what the op saved: its input or its output.
//!
//! To add one, write its block below (name, what to save, f, df), add its name to the list in `rust/python/methods.rs`,
//! and to the gradient table in `tests/core/gradient_table.rs`.

use super::binary::{match_weak, maximum, mul};
use super::value::{Formula, Lane, Value};
use crate::array::{Array, DType, Scalar};
use crate::autograd::{Inputs, Op, Tensor, linear};
use crate::kernels::map::{self, Binary, Unary};
use crate::kernels::math::Math;
use crate::kernels::simd::Isa;
use crate::{Result, bail, with_float};

/// What a unary op saves for its derivative.
#[derive(Clone, Copy, PartialEq)]
pub enum Save {
    Input,
    Output,
}

/// A differentiable function of one element, with its attributes as fields.
pub trait Function: Copy + Send + Sync + 'static {
    const NAME: &'static str;
    const SAVE: Save;
    /// Rough cost in tenths of a nanosecond per element.
    const COST: usize;
    /// Whether this element, saved or not, is rare for an instruction set (`kernels/loops.rs`).
    #[inline(always)]
    fn is_rare<T: Math, I: Isa>(_x: T) -> bool {
        false
    }
    fn f<V: Value>(self, x: V) -> V;
    /// The derivative, of the saved value.
    fn df<V: Value>(self, s: V) -> V;
}

#[derive(Clone, Copy)]
struct Forward<F>(F);
impl<T: Math, F: Function> Unary<T, T> for Forward<F> {
    const COST: usize = F::COST;
    // float32 by way of float64.
    const FAR: bool = size_of::<T>() == size_of::<f32>();
    #[inline(always)]
    fn apply<I: Isa>(self, x: T) -> T {
        self.0.f(Lane::<T, I>::new(x)).0
    }
    #[inline(always)]
    fn is_rare<I: Isa>(self, x: T) -> bool {
        F::is_rare::<T, I>(x)
    }
}

/// dx = dy · f'(s).
#[derive(Clone, Copy)]
struct Backward<F>(F);
impl<T: Math, F: Function> Binary<T, T> for Backward<F> {
    const COST: usize = F::COST;
    #[inline(always)]
    fn apply<I: Isa>(self, dy: T, s: T) -> T {
        dy * self.0.df(Lane::<T, I>::new(s)).0
    }
    #[inline(always)]
    fn is_rare<I: Isa>(self, _dy: T, s: T) -> bool {
        F::is_rare::<T, I>(s)
    }
}

struct Recorded<F> {
    function: F,
    saved: Array,
}

impl<F: Function> Op for Recorded<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        if dx.recording() {
            let saved = if F::SAVE == Save::Input { dx.input(0, &self.saved) } else { dx.output(&self.saved) };
            return dx.give(0, || (Formula::from(dy) * self.function.df(Formula::from(&saved))).tensor());
        }
        dx.give(0, || {
            let backward = Backward(self.function);
            let dx = with_float!(dy.dtype(), T => map::binary::<T, T, _>(backward, dy.array(), &self.saved, F::NAME),
                else unreachable!("only floats are recorded"))?;
            Ok(Tensor::constant(dx))
        })
    }
}

/// Applies a function; integers and bools become floats first, but for integers where an op says what it does with them.
pub fn apply<F: Function>(function: F, x: &Tensor) -> Result<Tensor> {
    if !x.dtype().is_float() {
        return apply(function, &linear::cast(x, x.dtype().to_float())?);
    }
    let y = with_float!(x.dtype(), T => map::unary::<T, T, _>(Forward(function), x.array()),
        else unreachable!("cast to float"))?;
    let saved = if F::SAVE == Save::Input { x.array() } else { &y }.clone();
    Ok(Tensor::record(y, &[x], || Recorded { function, saved }))
}

/// dx of max(x, 0) by its output, over `dy` where nobody else sees that.
pub(super) fn relu_gradient(dy: Array, y: &Array) -> Result<Array> {
    with_float!(dy.dtype(), T => map::binary_owned::<T, _>(Backward(Relu {}), dy, y, Relu::NAME), else unreachable!("only floats are recorded"))
}

macro_rules! unary {
    ($($(#[$m:meta])* $name:ident($($attr:ident),*) $type:ident, saves $save:ident, cost $cost:expr $(, rare $rare:ident)? $(, integers |$i:ident| $whole:expr)?;
        f = |$x:ident| $f:expr;
        df = |$s:ident| $df:expr;)+) => {$(
        #[derive(Clone, Copy)]
        struct $type { $($attr: f64),* }
        impl Function for $type {
            const NAME: &'static str = stringify!($name);
            const SAVE: Save = Save::$save;
            const COST: usize = $cost;
            $(#[inline(always)]
            fn is_rare<T: Math, I: Isa>(x: T) -> bool {
                x.$rare::<I>()
            })?
            #[inline(always)]
            fn f<V: Value>(self, $x: V) -> V {
                $(let $attr = V::c(self.$attr);)*
                $f
            }
            #[inline(always)]
            fn df<V: Value>(self, $s: V) -> V {
                $(#[allow(unused_variables)] let $attr = V::c(self.$attr);)*
                $df
            }
        }
        $(#[$m])*
        pub fn $name(x: &Tensor $(, $attr: f64)*) -> Result<Tensor> {
            $(if matches!(x.dtype(), DType::I64 | DType::U8) {
                let $i = x;
                return $whole;
            })?
            apply($type { $($attr),* }, x)
        }
    )+
        /// The names of all unary ops: the gradient-check table must have a row for each.
        pub const NAMES: &[&str] = &[$(stringify!($name)),+];
    };
}

#[inline(always)]
fn half<V: Value>() -> V {
    V::c(0.5)
}

/// 1/√(2π), for the normal distribution.
const FRAC_1_SQRT_2PI: f64 = 0.398_942_280_401_432_7;

/// Φ(x), the normal distribution function.
#[inline(always)]
fn normal_cdf<V: Value>(x: V) -> V {
    half::<V>() + half::<V>() * (x * V::c(std::f64::consts::FRAC_1_SQRT_2)).erf()
}

unary! {
    /// eˣ.
    exp() Exp, saves Output, cost 4;
        f = |x| x.exp();
        df = |y| y;
    /// eˣ − 1, exact near zero.
    expm1() Expm1, saves Output, cost 6;
        f = |x| x.expm1();
        df = |y| y + V::c(1.0);
    /// Natural logarithm.
    log() Log, saves Input, cost 6;
        f = |x| x.log();
        df = |x| V::c(1.0) / x;
    /// log(1 + x), exact near zero.
    log1p() Log1p, saves Input, cost 7;
        f = |x| x.log1p();
        df = |x| V::c(1.0) / (V::c(1.0) + x);
    /// √x.
    sqrt() Sqrt, saves Output, cost 4;
        f = |x| x.sqrt();
        df = |y| half::<V>() / y;
    /// 1/√x.
    rsqrt() Rsqrt, saves Output, cost 6;
        f = |x| V::c(1.0) / x.sqrt();
        df = |y| -half::<V>() * y.clone() * y.clone() * y;
    /// x².
    square() Square, saves Input, cost 2, integers |x| mul(x, x);
        f = |x| x.clone() * x;
        df = |x| x.clone() + x;
    /// x³.
    cube() Cube, saves Input, cost 2;
        f = |x| x.cube();
        df = |x| V::c(3.0) * x.clone() * x;
    /// x⁴.
    fourth() Fourth, saves Input, cost 2;
        f = |x| x.fourth();
        df = |x| V::c(4.0) * x.cube();
    /// xᵉ of one exponent other than 0.
    power(e) Power, saves Input, cost 30;
        f = |x| x.pow(e);
        df = |x| e.clone() * x.pow(e - V::c(1.0));
    /// 1/x.
    reciprocal() Reciprocal, saves Output, cost 4;
        f = |x| V::c(1.0) / x;
        df = |y| -y.clone() * y;
    /// Hyperbolic tangent.
    tanh() Tanh, saves Output, cost 8;
        f = |x| x.tanh();
        df = |y| V::c(1.0) - y.clone() * y;
    /// 1 / (1 + e⁻ˣ).
    sigmoid() Sigmoid, saves Output, cost 7;
        f = |x| x.sigmoid();
        df = |y| y.clone() * (V::c(1.0) - y);
    /// max(x, 0); NaN stays NaN.
    relu() Relu, saves Output, cost 2, integers |x| maximum(x, &match_weak(Scalar::Int(0), x.dtype())?);
        f = |x| x.relu();
        df = |y| y.step();
    /// x for x > 0, slope·x elsewhere.
    leaky_relu(slope) LeakyRelu, saves Input, cost 3;
        f = |x| x.clone().relu() - slope * (-x).relu();
        df = |x| slope.clone() + (V::c(1.0) - slope) * x.step();
    /// x for x > 0, alpha·(eˣ − 1) elsewhere (Clevert et al. 2016).
    elu(alpha) Elu, saves Input, cost 8;
        f = |x| x.clone().relu() + alpha * (-(-x).relu()).expm1();
        df = |x| { let on = x.clone().step(); on.clone() + (V::c(1.0) - on) * alpha * (-(-x).relu()).exp() };
    /// x·Φ(x), with the exact normal distribution function (Hendrycks & Gimpel 2016).
    gelu() Gelu, saves Input, cost 12;
        f = |x| x.clone() * normal_cdf(x);
        df = |x| normal_cdf(x.clone()) + x.clone() * V::c(FRAC_1_SQRT_2PI) * (-half::<V>() * x.clone() * x).exp();
    /// x·sigmoid(x), also called swish.
    silu() Silu, saves Input, cost 8;
        f = |x| x.clone() * x.sigmoid();
        df = |x| { let s = x.clone().sigmoid(); s.clone() + x * s.clone() * (V::c(1.0) - s) };
    /// log(1 + eˣ), without overflow.
    softplus() Softplus, saves Input, cost 12;
        f = |x| x.clone().relu() + (-x.abs()).exp().log1p();
        df = |x| x.sigmoid();
    /// log(sigmoid(x)), without overflow.
    log_sigmoid() LogSigmoid, saves Input, cost 12;
        f = |x| -((-x.clone()).relu() + (-x.abs()).exp().log1p());
        df = |x| (-x).sigmoid();
    /// x²/2 within `delta` of 0, delta·(|x| − delta/2) beyond (Huber 1964).
    huber(delta) Huber, saves Input, cost 3;
        f = |x| { let c = x.clone().abs().held(delta); c.clone() * (x.abs() - half::<V>() * c) };
        df = |x| x.held(delta);
    /// Error function.
    erf() Erf, saves Input, cost 10;
        f = |x| x.erf();
        df = |x| V::c(std::f64::consts::FRAC_2_SQRT_PI) * (-x.clone() * x).exp();
    /// Sine of radians.
    sin() Sin, saves Input, cost 10, rare is_far;
        f = |x| x.sin();
        df = |x| x.cos();
    /// Cosine of radians.
    cos() Cos, saves Input, cost 10, rare is_far;
        f = |x| x.cos();
        df = |x| -x.sin();
    /// 1 where x > 0, 0 elsewhere; its gradient is zero.
    step() Step, saves Input, cost 2;
        f = |x| x.step();
        df = |_x| V::c(0.0);
}

/// Unary functions that also keep integers: |x|, −x, sign(x); and rounding, whose gradient is zero. Bools stay what they are, or
/// are refused with advice.
macro_rules! numeric {
    ($($(#[$m:meta])* $name:ident $type:ident $(($bools:literal))?: float |$x:ident| $float:expr, int |$i:ident| $int:expr, df |$s:ident| $df:expr;)+) => {
        $(numeric_one!($(#[$m])* $name $type $(($bools))?: float |$x| $float, int |$i| $int, df |$s| $df);)+
        /// The names of the ops that keep integers.
        pub const NUMERIC_NAMES: &[&str] = &[$(stringify!($name)),+];
    };
}
macro_rules! numeric_one {
    ($(#[$m:meta])* $name:ident $type:ident $(($bools:literal))?: float |$x:ident| $float:expr, int |$i:ident| $int:expr, df |$s:ident| $df:expr) => {
        #[derive(Clone, Copy)]
        struct $type;
        impl Unary<f32, f32> for $type {
            #[inline(always)]
            fn apply<I: Isa>(self, $x: f32) -> f32 {
                $float
            }
        }
        impl Unary<f64, f64> for $type {
            #[inline(always)]
            fn apply<I: Isa>(self, $x: f64) -> f64 {
                $float
            }
        }
        impl Unary<i64, i64> for $type {
            #[inline(always)]
            fn apply<I: Isa>(self, $i: i64) -> i64 {
                $int
            }
        }
        impl Op for Numeric<$type> {
            fn name(&self) -> &'static str {
                stringify!($name)
            }
            fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
                let $s = Formula::from(&dx.input(0, &self.x));
                dx.give(0, || (Formula::from(dy) * $df).tensor())
            }
        }
        $(#[$m])*
        pub fn $name(x: &Tensor) -> Result<Tensor> {
            $(if x.dtype() == DType::Bool {
                bail!(Type, "{}: expected numbers, got bool; {}", stringify!($name), $bools);
            })?
            let y = match x.dtype() {
                DType::F32 => map::unary::<f32, f32, _>($type, x.array()),
                DType::F64 => map::unary::<f64, f64, _>($type, x.array()),
                other => map::cast(x.array(), DType::I64)
                    .and_then(|x| map::unary::<i64, i64, _>($type, &x))
                    .and_then(|y| map::cast(&y, other)),
            }?;
            Ok(Tensor::record(y, &[x], || Numeric { x: x.array().clone(), function: std::marker::PhantomData::<$type> }))
        }
    };
}
struct Numeric<F> {
    x: Array,
    function: std::marker::PhantomData<F>,
}

numeric! {
    /// −x.
    neg NegF ("use ~ to negate a mask"): float |x| -x, int |i| i.wrapping_neg(), df |_x| Formula::c(-1.0);
    /// |x|; the gradient at zero is zero.
    abs AbsF: float |x| x.abs(), int |i| i.wrapping_abs(), df |x| x.sign();
    /// −1, 0 or 1; NaN stays NaN. The gradient is zero.
    sign SignF: float |x| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x }, int |i| i.signum(), df |_x| Formula::c(0.0);
    /// Rounds down. The gradient is zero.
    floor FloorF: float |x| x.floor(), int |i| i, df |_x| Formula::c(0.0);
    /// Rounds up. The gradient is zero.
    ceil CeilF: float |x| x.ceil(), int |i| i, df |_x| Formula::c(0.0);
    /// Rounds to the nearest integer, halves to even. The gradient is zero.
    round RoundF: float |x| x.round_ties_even(), int |i| i, df |_x| Formula::c(0.0);
}

/// A test of one float, true or false; integers pass as finite.
macro_rules! tests {
    ($($(#[$m:meta])* $name:ident $type:ident |$x:ident| $e:expr;)+) => {$(
        #[derive(Clone, Copy)]
        struct $type;
        impl<T: Math> Unary<T, bool> for $type {
            #[inline(always)]
            fn apply<I: Isa>(self, $x: T) -> bool {
                $e
            }
        }
        $(#[$m])*
        pub fn $name(x: &Tensor) -> Result<Tensor> {
            let x = linear::cast(x, x.dtype().to_float())?;
            let y = with_float!(x.dtype(), T => map::unary::<T, bool, _>($type, x.array()), else unreachable!("cast to float"))?;
            Ok(Tensor::constant(y))
        }
    )+};
}

tests! {
    /// Whether x is NaN.
    isnan IsNan |x| x.is_nan();
    /// Whether x is infinite.
    isinf IsInf |x| !x.is_nan() && !x.is_finite();
    /// Whether x is finite.
    isfinite IsFinite |x| x.is_finite();
}
