//! xʸ as 2^(y·log₂ |x|), the exponent of float32 in float64 (`exponent.rs` has that of float64); and small whole powers as products.
//!
//! Invariant: the special cases are those of IEEE 754's pow, each settled by a select, so that loops stay vector code.

use super::super::simd::{Float, Isa, Ring};
use super::{ARTANH, double, exponent, polynomial, single};
use std::f64::consts::{LN_2, LOG2_E};

/// Terms of the logarithm: it is right to 2⁻³⁴ of itself, because an exponent may enlarge its error a hundredfold.
const TERMS: usize = 5;

/// log₂ of a finite number above zero.
#[inline(always)]
fn log2<I: Isa>(x: f32) -> f64 {
    let (exponent, m) = single::split(x);
    let f = m as f64 - 1.0;
    let s = f / (f + 2.0);
    let z = s * s;
    let artanh = z.mul_add_on::<I>(polynomial::<f64, I>(z, &ARTANH[..TERMS]), 2.0);
    (s * LOG2_E).mul_add_on::<I>(artanh, exponent as f64)
}

#[inline(always)]
fn exp2<I: Isa>(x: f64) -> f32 {
    let held = if x < -160.0 { -160.0 } else { x };
    let held = if held > 129.0 { 129.0 } else { held };
    let rounder = double::rounder(0.0);
    let rounded = held + rounder;
    let e = single::expm1_of::<I>(((held - (rounded - rounder)) * LN_2) as f32);
    ((e + 1.0) as f64 * double::power_of_two(rounded)) as f32
}

macro_rules! pow {
    ($(#[$m:meta])* $name:ident for $t:ident, whole $whole:expr, |$a:ident, $y:ident| $inside:expr) => {
        $(#[$m])*
        #[inline(always)]
        pub fn $name<I: Isa>(x: $t, $y: $t) -> $t {
            /// From here on every number is an integer, and adding it to less rounds to an integer, which then stands in the low bits.
            const WHOLE: $t = $whole;
            let $a = x.abs();
            let inside = $inside;
            let reciprocal = if $a == 0.0 { $t::INFINITY } else if $a == $t::INFINITY { 0.0 } else { $a };
            let edge = if $y < 0.0 { reciprocal } else { $a };
            let magnitude = if ($a > 0.0) & ($a < $t::INFINITY) | $y.is_nan() { inside } else { edge };
            // x⁰ and 1ʸ are 1 even where the other is NaN, and so is (−1) to the power of ±∞.
            let one = ($y == 0.0) | (x == 1.0) | ((x == -1.0) & ($y.abs() == $t::INFINITY));
            let magnitude = if one { 1.0 } else { magnitude };
            let b = $y.abs();
            let shifted = if b < WHOLE { b + WHOLE } else { b };
            let integer = (b >= WHOLE) | (shifted - WHOLE == b);
            let odd = integer & (b < 2.0 * WHOLE) & (shifted.to_bits() & 1 == 1);
            let signed = if odd { magnitude.copysign(x) } else { magnitude };
            if (x < 0.0) & (x > $t::NEG_INFINITY) & !integer { $t::NAN } else { signed }
        }
    };
}

pow!(single for f32, whole 8_388_608.0, |a, y| exp2::<I>(y as f64 * log2::<I>(a)));
pow!(
    /// Where multiply-adds are fused, or else the library's takes less.
    double for f64, whole 4_503_599_627_370_496.0, |a, y| if I::FMA { exponent::power::<I>(a, y) } else { a.powf(y) });

/// x² and what its rounding lost, which is known where multiply-adds are fused.
#[inline(always)]
fn square<T: Float, I: Isa>(x: T) -> (T, T) {
    let square = x * x;
    (square, x.mul_add_on::<I>(x, -square))
}

/// a·b + c, where c is small beside the product and a number only where the product is.
#[inline(always)]
fn corrected<T: Float, I: Isa>(a: T, b: T, c: T) -> T {
    let product = a * b;
    if product.is_finite() { a.mul_add_on::<I>(b, c) } else { product }
}

/// x³, within 1 ulp; 1.5 where multiply-adds are not fused.
#[inline(always)]
pub fn cube<T: Float, I: Isa>(x: T) -> T {
    let (square, lost) = square::<T, I>(x);
    corrected::<T, I>(square, x, lost * x)
}

/// x⁴, within 1 ulp; 2.5 where multiply-adds are not fused.
#[inline(always)]
pub fn fourth<T: Float, I: Isa>(x: T) -> T {
    let (square, lost) = square::<T, I>(x);
    corrected::<T, I>(square, square, (lost + lost) * square)
}
