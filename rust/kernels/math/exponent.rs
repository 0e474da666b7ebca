//! aʸ of float64 as 2^(y·log₂ a), where multiply-adds are fused.
//!
//! Invariant: log₂ a is known to 2⁻⁶⁵ of itself, as a number and what its rounding lost, and so is the exponent: its absolute error is
//! the result's relative one, and it may be a thousand.

use super::super::simd::{Isa, Ring};
use super::{double, polynomial};

/// 2/ln 2, a third of that, and ln 2, each with what its rounding lost.
const SCALE: [f64; 2] = [2.885_390_081_777_926_8, 4.071_054_748_186_206_6e-17];
const THIRD: [f64; 2] = [0.961_796_693_925_975_6, 5.057_761_664_812_590_7e-17];
const LN_2: [f64; 2] = [std::f64::consts::LN_2, 2.319_046_813_846_299_6e-17];
/// (log₂((1 + s)/(1 − s))/s − SCALE − THIRD·s²)/s⁴ in s², for 1/√2 ≤ (1 + s)/(1 − s) ≤ √2: a fit (Remez's exchange, at 70 digits) that
/// leaves the logarithm 2⁻⁷³ of itself away.
const SERIES: [f64; 8] = [
    0.577_078_016_355_585_1,
    0.412_198_583_111_371_03,
    0.320_598_897_907_723_2,
    0.262_308_199_185_559_37,
    0.221_952_239_032_000_26,
    0.192_402_390_386_936_46,
    0.168_432_020_496_112_9,
    0.172_964_958_241_068_94,
];

/// a + b and what its rounding lost, where b is not the larger.
#[inline(always)]
fn sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    (sum, (a - sum) + b)
}

/// log₂ of a finite number above zero and what its rounding lost.
#[inline(always)]
fn log2<I: Isa>(x: f64) -> (f64, f64) {
    let (exponent, m) = double::split(x);
    // s = f/d, where d − lost is m + 1.
    let (f, d) = (m - 1.0, m + 1.0);
    let lost = m - (d - 1.0);
    let inverse = 1.0 / d;
    let s = f * inverse;
    let s_low = s.mul_add_on::<I>(-lost, s.mul_add_on::<I>(-d, f)) * inverse;
    let z = s * s;
    let z_low = s.mul_add_on::<I>(s, -z) + (s + s) * s_low;
    // THIRD·s² + SERIES·s⁴: its first term, and the rest with what z_low adds to both.
    let third = THIRD[0] * z;
    let rest = z.mul_add_on::<I>(polynomial::<f64, I>(z, &SERIES), THIRD[1]);
    let slope = z.mul_add_on::<I>(2.0 * SERIES[0], THIRD[0]);
    let third_low = z.mul_add_on::<I>(rest, slope.mul_add_on::<I>(z_low, THIRD[0].mul_add_on::<I>(z, -third)));
    let (factor, low) = sum(SCALE[0], third);
    let (factor, low) = sum(factor, low + (third_low + SCALE[1]));
    let product = s * factor;
    let product_low = s.mul_add_on::<I>(factor, -product) + s.mul_add_on::<I>(low, s_low * factor);
    let (log, lost) = sum(exponent, product);
    (log, lost + product_low)
}

/// 2 to the power of a number and what its rounding lost; NaN where the number is.
#[inline(always)]
fn exp2<I: Isa>(x: f64, low: f64) -> f64 {
    // Beyond, all is 0 or infinite.
    let held = if x < double::LOWEST { double::LOWEST } else { x };
    let held = if held > 1025.0 { 1025.0 } else { held };
    let low = if held == x { low } else { 0.0 };
    let (lift, lower) = if held < 0.0 { (double::LIFT, 1.0 / double::LIFTED) } else { (-double::LIFT, double::LIFTED) };
    let rounder = double::rounder(lift);
    let rounded = held + rounder;
    let part = held - (rounded - rounder);
    let rest = part + low;
    let lost = (part - rest) + low;
    // 2^rest = eʳ = 1 + r + r²·(½ + …).
    let r = rest * LN_2[0];
    let r_low = rest.mul_add_on::<I>(LN_2[0], -r) + rest.mul_add_on::<I>(LN_2[1], lost * LN_2[0]);
    let half = r.mul_add_on::<I>(polynomial::<f64, I>(r, &super::EXPM1), 0.5);
    let (one, one_low) = sum(1.0, r);
    (one + (one_low + (r * r).mul_add_on::<I>(half, r_low))) * double::power_of_two(rounded) * lower
}

/// aʸ of a finite number above zero, within 1 ulp.
#[inline(always)]
pub fn power<I: Isa>(a: f64, y: f64) -> f64 {
    let (log, low) = log2::<I>(a);
    let x = y * log;
    exp2::<I>(x, y.mul_add_on::<I>(log, -x) + y * low)
}
