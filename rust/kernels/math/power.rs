//! xʸ of float32 as 2^(y·log₂ |x|), the exponent in float64; and small whole powers of both types as products.
//!
//! Invariant: the special cases are those of IEEE 754's pow, each settled by a select, so that loops stay vector code.

use super::super::simd::{Float, Isa, Ring};
use super::{ARTANH, double, polynomial, single};
use std::f64::consts::{LN_2, LOG2_E};

/// Terms of the logarithm: it is right to 2⁻³⁴ of itself, because an exponent may enlarge its error a hundredfold.
const TERMS: usize = 5;
/// 2^23: from here on every float32 is an integer, and adding it to less rounds to an integer, which then stands in the low bits.
const WHOLE: f32 = 8_388_608.0;

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

#[inline(always)]
pub fn pow<I: Isa>(x: f32, y: f32) -> f32 {
    let a = x.abs();
    let inside = exp2::<I>(y as f64 * log2::<I>(a));
    let edge = if y < 0.0 { 1.0 / a } else { a };
    let magnitude = if (a > 0.0) & (a < f32::INFINITY) | y.is_nan() { inside } else { edge };
    // x⁰ and 1ʸ are 1 even where the other is NaN, and so is (−1) to the power of ±∞.
    let one = (y == 0.0) | (x == 1.0) | ((x == -1.0) & (y.abs() == f32::INFINITY));
    let magnitude = if one { 1.0 } else { magnitude };
    let b = y.abs();
    let shifted = if b < WHOLE { b + WHOLE } else { b };
    let integer = (b >= WHOLE) | (shifted - WHOLE == b);
    let odd = integer & (b < 2.0 * WHOLE) & (shifted.to_bits() & 1 == 1);
    let signed = if odd { magnitude.copysign(x) } else { magnitude };
    if (x < 0.0) & (x > f32::NEG_INFINITY) & !integer { f32::NAN } else { signed }
}

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
