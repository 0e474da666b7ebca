//! The binary functions of elements, for every element type that has them.

use super::map::{Binary, Unary};
use super::math::Math;
use super::simd::{Float, Isa};
use crate::array::{Element, Scalar};

/// `$name` as a function of two elements of each listed type, by one expression.
macro_rules! binary {
    ($name:ident for $($t:ty),+: |$a:ident, $b:ident| $e:expr) => {$(
        impl Binary<$t, $t> for $name {
            #[inline(always)]
            fn apply<I: Isa>(self, $a: $t, $b: $t) -> $t {
                $e
            }
        }
    )+};
}

macro_rules! names {
    ($($(#[$m:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$m])*
        #[derive(Clone, Copy)]
        pub struct $name;
    )+};
}

names! {
    Add, Sub, Mul, Div,
    /// Larger of two; NaN if either is.
    Maximum,
    /// Smaller of two; NaN if either is.
    Minimum,
    /// 1 where a is larger (or one of them NaN), ½ where both are equal, 0 where b is larger. By comparison, since infinities
    /// have no difference.
    Share,
    /// `a // b` as Python rounds it: towards minus infinity; a zero has the sign of `a / b`. Integers divided by zero give zero, as in NumPy.
    FloorDivide,
    /// `a % b` with the sign of `b`, that of a zero too, as in Python.
    Remainder,
    /// `a ** b`.
    Pow,
    And, Or, Xor,
}

binary!(Add for f32, f64: |a, b| a + b);
binary!(Sub for f32, f64: |a, b| a - b);
binary!(Mul for f32, f64: |a, b| a * b);
binary!(Div for f32, f64: |a, b| a / b);
binary!(Add for i64, u8: |a, b| a.wrapping_add(b));
binary!(Sub for i64, u8: |a, b| a.wrapping_sub(b));
binary!(Mul for i64, u8: |a, b| a.wrapping_mul(b));
binary!(Add for bool: |a, b| a | b);
binary!(Mul for bool: |a, b| a & b);
binary!(Maximum for f32, f64: |a, b| if a > b || a.is_nan() { a } else { b });
binary!(Minimum for f32, f64: |a, b| if a < b || a.is_nan() { a } else { b });
binary!(Share for f32, f64: |a, b| if a < b { 0.0 } else if a == b { 0.5 } else { 1.0 });
binary!(Maximum for i64, u8, bool: |a, b| a.max(b));
binary!(Minimum for i64, u8, bool: |a, b| a.min(b));
binary!(And for i64, u8, bool: |a, b| a & b);
binary!(Or for i64, u8, bool: |a, b| a | b);
binary!(Xor for i64, u8, bool: |a, b| a ^ b);
binary!(FloorDivide for f32, f64: |a, b| {
    // The remainder is exact, so this is exact where a rounded quotient would not be.
    let r = a % b;
    let q = ((a - r) / b).round();
    let q = if r != 0.0 && (r < 0.0) != (b < 0.0) { q - 1.0 } else { q };
    if b == 0.0 { a / b } else if q == 0.0 { q.copysign(a / b) } else { q }
});
binary!(Remainder for f32, f64: |a, b| {
    let r = a % b;
    if r == 0.0 { r.copysign(b) } else if (r < 0.0) != (b < 0.0) { r + b } else { r }
});
binary!(FloorDivide for i64: |a, b| {
    let q = a.wrapping_div(if b == 0 { 1 } else { b });
    if b == 0 { 0 } else if a.wrapping_rem(b) != 0 && (a < 0) != (b < 0) { q - 1 } else { q }
});
binary!(Remainder for i64: |a, b| {
    let r = a.wrapping_rem(if b == 0 { 1 } else { b });
    if b == 0 { 0 } else if r != 0 && (r < 0) != (b < 0) { r + b } else { r }
});
binary!(FloorDivide for u8: |a, b| a.checked_div(b).unwrap_or(0));
binary!(Remainder for u8: |a, b| a.checked_rem(b).unwrap_or(0));
binary!(Pow for i64, u8: |a, b| {
    // `ops::pow` refuses negative exponents.
    let (mut base, mut exponent, mut out) = (a, b, 1);
    while exponent > 0 {
        if exponent & 1 == 1 {
            out = base.wrapping_mul(out);
        }
        base = base.wrapping_mul(base);
        exponent >>= 1;
    }
    out
});

impl<T: Math> Binary<T, T> for Pow {
    const COST: usize = 30;
    #[inline(always)]
    fn apply<I: Isa>(self, a: T, b: T) -> T {
        a.pow_on::<I>(b)
    }
}

/// Floats and two bounds: a float held between them, or whether it lies there and at neither, if that is finite.
#[derive(Clone, Copy)]
pub struct Within<T> {
    low: T,
    high: T,
}
impl<T: Element> Within<T> {
    pub fn of([low, high]: [Scalar; 2]) -> Self {
        Within { low: T::from_scalar(low), high: T::from_scalar(high) }
    }
}
impl<T: Element> Unary<T, T> for Within<T>
where
    Maximum: Binary<T, T>,
    Minimum: Binary<T, T>,
{
    #[inline(always)]
    fn apply<I: Isa>(self, x: T) -> T {
        Minimum.apply::<I>(Maximum.apply::<I>(x, self.low), self.high)
    }
}
impl<T: Float> Unary<T, bool> for Within<T> {
    #[inline(always)]
    fn apply<I: Isa>(self, x: T) -> bool {
        ((self.low < x) | (self.low == -T::INFINITY)) & ((x < self.high) | (self.high == T::INFINITY))
    }
}

/// Comparisons, for every element type.
macro_rules! compare {
    ($($name:ident |$a:ident, $b:ident| $e:expr;)+) => {$(
        #[derive(Clone, Copy)]
        pub struct $name;
        impl<T: Element> Binary<T, bool> for $name {
            #[inline(always)]
            fn apply<I: Isa>(self, $a: T, $b: T) -> bool {
                $e
            }
        }
    )+};
}

compare! {
    Less |a, b| a < b;
    LessEqual |a, b| a <= b;
    Greater |a, b| a > b;
    GreaterEqual |a, b| a >= b;
    Equal |a, b| a == b;
    NotEqual |a, b| a != b;
}

/// Negation and bitwise not.
#[derive(Clone, Copy)]
pub struct Not;
impl Unary<bool, bool> for Not {
    #[inline(always)]
    fn apply<I: Isa>(self, x: bool) -> bool {
        !x
    }
}
impl Unary<i64, i64> for Not {
    #[inline(always)]
    fn apply<I: Isa>(self, x: i64) -> i64 {
        !x
    }
}
impl Unary<u8, u8> for Not {
    #[inline(always)]
    fn apply<I: Isa>(self, x: u8) -> u8 {
        !x
    }
}
