//! exp, log and what follows from them, for float32 and float64, written so that loops over them become vector code:
//! no branches and no calls, but where multiply-adds are not fused: there sine, cosine and pow of float64 are the standard library's.
//!
//! Invariant: NaN stays NaN, ±∞, ±0, overflow and gradual underflow come out as IEEE 754 would have them. The errors stated
//! bound both element types, in units of the last place, with and without fused multiply-add (`tests/core/math.rs` measures them).

// Coefficients keep the digits they were computed with.
#![allow(clippy::excessive_precision)]

mod erf;
mod exponent;
pub mod power;
mod trig;

use super::simd::{Float, Isa, Ring};
use crate::array::DType;

/// Functions of one element inside a kernel stamped for the instruction set `I`.
pub trait Math: Float {
    /// eˣ, within 1 ulp.
    fn exp_on<I: Isa>(self) -> Self;
    /// eˣ of numbers not above zero, within 1 ulp, in three quarters of the work; NaN stays NaN.
    fn exp_down_on<I: Isa>(self) -> Self;
    /// eˣ − 1, within 2 ulp.
    fn expm1_on<I: Isa>(self) -> Self;
    /// Natural logarithm, within 1 ulp.
    fn log_on<I: Isa>(self) -> Self;
    /// log(1 + x), within 2 ulp.
    fn log1p_on<I: Isa>(self) -> Self;
    /// Hyperbolic tangent, within 3 ulp.
    fn tanh_on<I: Isa>(self) -> Self;
    /// 1 / (1 + e⁻ˣ), within 3 ulp.
    fn sigmoid_on<I: Isa>(self) -> Self;
    /// Error function, within 3 ulp.
    fn erf_on<I: Isa>(self) -> Self;
    /// Whether an argument of sine or cosine is too far from zero for the formula for `I`, which is one for fused multiply-adds.
    fn is_far<I: Isa>(self) -> bool;
    /// Sine, within 1 ulp, of arguments that are not far; of all where multiply-adds are not fused, by the standard library.
    fn sin_on<I: Isa>(self) -> Self;
    /// Cosine, likewise.
    fn cos_on<I: Isa>(self) -> Self;
    /// xᵉ, within 2 ulp of float32 and 1 of float64, with the special cases of IEEE 754.
    fn pow_on<I: Isa>(self, e: Self) -> Self;
}

/// 1/√v, NaN below zero, of float64 as the processor divides, and within 0.501 ulp of float32 by three steps of
/// Newton's, from a guess that halves the exponent: a third of the time in loops over channels.
#[inline(always)]
pub fn inverse_root<T: Float>(v: f64) -> T {
    if T::DTYPE != DType::F32 {
        return T::from_f64(1.0 / v.sqrt());
    }
    let capped = if v > f64::MAX { f64::MAX } else { v };
    let half = 0.5 * capped;
    let mut root = f64::from_bits(0x5FE6_EB50_C7B5_37A9u64.wrapping_sub(capped.to_bits() >> 1));
    for _ in 0..3 {
        root *= 1.5 - half * root * root;
    }
    T::from_f64(if v >= 0.0 { root } else { f64::NAN })
}

/// (eʳ − 1 − r − ½r²)/r³ for |r| ≤ ½·ln 2: fits that leave eʳ less than a tenth of its last place.
const EXPM1: [f64; 10] = [
    0.1666666666666667,
    0.04166666666666667,
    0.008333333333326132,
    0.0013888888888883746,
    0.00019841269874827454,
    2.4801587325552618e-05,
    2.755725539154403e-06,
    2.7557273636924405e-07,
    2.5105220609870554e-08,
    2.0914689542549555e-09,
];
const EXPM1_F32: [f32; 5] = [0.16666663, 0.04166654, 0.008334298, 0.0013923629, 0.00019293788];
/// 2/(2k + 3): the series of (2·artanh(s) − 2s)/s³ in s².
const ARTANH: [f64; 10] = {
    let mut series = [0.0; 10];
    let mut k = 0;
    while k < 10 {
        series[k] = 2.0 / (2 * k + 3) as f64;
        k += 1;
    }
    series
};
const fn narrow<const N: usize>(series: &[f64]) -> [f32; N] {
    let mut out = [0.0; N];
    let mut k = 0;
    while k < N {
        out[k] = series[k] as f32;
        k += 1;
    }
    out
}
/// Σ cₖ·xᵏ of at least two terms. Even and odd powers are summed apart: a processor holds so few operations that wait that a loop
/// is bound by how long its chains are.
#[inline(always)]
fn polynomial<T: Math, I: Isa>(x: T, series: &[T]) -> T {
    let z = x * x;
    let (pairs, last) = series.as_chunks::<2>();
    let (&[mut even, mut odd], pairs) = pairs.split_last().expect("two terms");
    if let [last] = last {
        even = last.mul_add_on::<I>(z, even);
    }
    for &[c, d] in pairs.iter().rev() {
        even = even.mul_add_on::<I>(z, c);
        odd = odd.mul_add_on::<I>(z, d);
    }
    odd.mul_add_on::<I>(x, even)
}

macro_rules! math {
    ($t:ident in $module:ident, $bits:ident, $int:ident,
     mantissa $mantissa:expr, bias $bias:expr, high $high:expr, round $round:expr,
     expm1 $expm1_len:literal $expm1:expr, artanh $artanh_len:literal $artanh:expr,
     ln2 $ln2_high:expr, $ln2_low:expr, sqrt_half $sqrt_half:expr,
     erf $erf:expr, pow $pow:expr) => {
        /// Arithmetic of one element type.
        mod $module {
            use super::{Isa, Ring, polynomial};

            /// ln 2 in two parts; the first has so few bits that a multiple by an exponent is exact.
            const LN2_HIGH: $t = $ln2_high;
            const LN2_LOW: $t = $ln2_low;
            /// 1.5·2^mantissa: adding it rounds to an integer, which then stands in the low bits.
            const ROUND: $t = $round;
            const SERIES_EXPM1: [$t; $expm1_len] = $expm1;
            const SERIES_ARTANH: [$t; $artanh_len] = $artanh;

            /// How many powers of two a result is held too large or too small by, so that 2ⁿ is normal even where the result is not.
            pub const LIFT: $t = ($mantissa + 1) as $t;
            pub const LIFTED: $t = (1u64 << ($mantissa + 1)) as $t;
            /// Where 2ⁿ⁺ˡⁱᶠᵗ is 0, and so are all results from there down. Were it only so small that the result is, a processor would
            /// take a hundred cycles for each: of a masked softmax most.
            pub const LOWEST: $t = -($bias as $t) - LIFT;
            const LOW: $t = LOWEST * std::$t::consts::LN_2;

            /// eʳ − 1 for |r| ≤ ½·ln 2.
            #[inline(always)]
            pub fn expm1_of<I: Isa>(r: $t) -> $t {
                let half = r.mul_add_on::<I>(polynomial::<$t, I>(r, &SERIES_EXPM1), 0.5);
                (r * r).mul_add_on::<I>(half, r)
            }

            /// Added to a number, it rounds that to an integer n and leaves the biased exponent of 2ⁿ⁺ˡⁱᶠᵗ in the low bits.
            #[inline(always)]
            pub fn rounder(lift: $t) -> $t {
                ROUND + ($bias as $t + lift)
            }

            /// The power of two whose exponent a [`rounder`] left in the low bits.
            #[inline(always)]
            pub fn power_of_two(rounded: $t) -> $t {
                $t::from_bits(rounded.to_bits() << $mantissa)
            }

            /// (2ⁿ⁺ˡⁱᶠᵗ, eʳ − 1) with x = n·ln 2 + r and |r| ≤ ½·ln 2.
            #[inline(always)]
            fn reduced<I: Isa>(x: $t, lift: $t) -> ($t, $t) {
                let rounder = rounder(lift);
                let rounded = x.mul_add_on::<I>(std::$t::consts::LOG2_E, rounder);
                let n = rounded - rounder;
                let r = n.mul_add_on::<I>(-LN2_LOW, n.mul_add_on::<I>(-LN2_HIGH, x));
                (power_of_two(rounded), expm1_of::<I>(r))
            }

            #[inline(always)]
            pub fn exp<I: Isa>(x: $t) -> $t {
                let held = if x < LOW { LOW } else { x };
                let held = if held > $high { $high } else { held };
                let (lift, lower) = if x < 0.0 { (LIFT, 1.0 / LIFTED) } else { (-LIFT, LIFTED) };
                let (power, e) = reduced::<I>(held, lift);
                e.mul_add_on::<I>(power, power) * lower
            }

            #[inline(always)]
            pub fn exp_down<I: Isa>(x: $t) -> $t {
                let held = if x < LOW { LOW } else { x };
                let (power, e) = reduced::<I>(held, LIFT);
                e.mul_add_on::<I>(power, power) * (1.0 / LIFTED)
            }

            /// ½·(eˣ − 1), for x not above the logarithm of the largest number and not so close to zero that half of it is subnormal.
            #[inline(always)]
            fn half_expm1<I: Isa>(x: $t) -> $t {
                // ½·(eˣ − 1) = 2ⁿ⁻¹·(eʳ − 1) + (2ⁿ⁻¹ − ½).
                let (half, e) = reduced::<I>(x, -1.0);
                e.mul_add_on::<I>(half, half - 0.5)
            }

            #[inline(always)]
            pub fn expm1<I: Isa>(x: $t) -> $t {
                // Long before -50 the answer is −1.
                let held = if x < -50.0 { -50.0 } else { x };
                let held = if held > $high { $high } else { held };
                let y = 2.0 * half_expm1::<I>(held);
                // Where the product loses the sign of zero or the subnormals, x itself is the answer.
                if x.abs() < $t::MIN_POSITIVE { x } else { y }
            }

            /// (n, m) with x = m·2ⁿ and √½ ≤ m < √2, of a finite number above zero.
            #[inline(always)]
            pub fn split(x: $t) -> ($t, $t) {
                // Subnormals are scaled up first.
                const SCALE: $t = ((1 as $bits) << $mantissa) as $t;
                let tiny = x < $t::MIN_POSITIVE;
                let scaled = if tiny { x * SCALE } else { x };
                let bits = scaled.to_bits().wrapping_sub($sqrt_half);
                let exponent = ((bits as $int) >> $mantissa) as $t - if tiny { $mantissa as $t } else { 0.0 };
                (exponent, $t::from_bits((bits & ((1 << $mantissa) - 1)).wrapping_add($sqrt_half)))
            }

            #[inline(always)]
            pub fn log<I: Isa>(x: $t) -> $t {
                let (exponent, m) = split(x);
                // log(1 + f) = f − (f²/2 − s·(f²/2 + R)) with s = f/(2 + f) and R the rest of the series of artanh.
                let f = m - 1.0;
                let s = f / (f + 2.0);
                let z = s * s;
                let rest = z * polynomial::<$t, I>(z, &SERIES_ARTANH);
                let square = 0.5 * f * f;
                let low = s.mul_add_on::<I>(square + rest, exponent * LN2_LOW);
                let y = exponent.mul_add_on::<I>(LN2_HIGH, -((square - low) - f));
                let y = if x == 0.0 { $t::NEG_INFINITY } else { y };
                let y = if x < 0.0 { $t::NAN } else { y };
                if x < $t::INFINITY { y } else { x }
            }

            #[inline(always)]
            pub fn log1p<I: Isa>(x: $t) -> $t {
                // log(u) for the rounded u = 1 + x, and what the rounding took.
                let u = 1.0 + x;
                let lost = x - (u - 1.0);
                let y = log::<I>(u) + lost / u;
                let y = if u == 0.0 { $t::NEG_INFINITY } else { y };
                let y = if x == $t::INFINITY { x } else { y };
                if x.abs() < $t::EPSILON / 2.0 { x } else { y }
            }

            #[inline(always)]
            pub fn tanh<I: Isa>(x: $t) -> $t {
                // tanh a = h/(h + 1) with h = ½·(e²ᵃ − 1); from 20 on it is 1.
                let twice = (x + x).abs();
                let held = if twice > 40.0 { 40.0 } else { twice };
                let h = half_expm1::<I>(held);
                (h / (h + 1.0)).copysign(x)
            }

            #[inline(always)]
            pub fn sigmoid<I: Isa>(x: $t) -> $t {
                // Through exp(−|x|), which never overflows.
                let e = exp_down::<I>(-x.abs());
                let numerator = if x < 0.0 { e } else { 1.0 };
                numerator / (1.0 + e)
            }
        }

        impl Math for $t {
            #[inline(always)]
            fn exp_on<I: Isa>(self) -> Self {
                $module::exp::<I>(self)
            }
            #[inline(always)]
            fn exp_down_on<I: Isa>(self) -> Self {
                $module::exp_down::<I>(self)
            }
            #[inline(always)]
            fn expm1_on<I: Isa>(self) -> Self {
                $module::expm1::<I>(self)
            }
            #[inline(always)]
            fn log_on<I: Isa>(self) -> Self {
                $module::log::<I>(self)
            }
            #[inline(always)]
            fn log1p_on<I: Isa>(self) -> Self {
                $module::log1p::<I>(self)
            }
            #[inline(always)]
            fn tanh_on<I: Isa>(self) -> Self {
                $module::tanh::<I>(self)
            }
            #[inline(always)]
            fn sigmoid_on<I: Isa>(self) -> Self {
                $module::sigmoid::<I>(self)
            }
            #[inline(always)]
            fn erf_on<I: Isa>(self) -> Self {
                $erf(self)
            }
            #[inline(always)]
            fn is_far<I: Isa>(self) -> bool {
                trig::$module::is_far::<I>(self)
            }
            #[inline(always)]
            fn sin_on<I: Isa>(self) -> Self {
                trig::$module::sin::<I>(self)
            }
            #[inline(always)]
            fn cos_on<I: Isa>(self) -> Self {
                trig::$module::cos::<I>(self)
            }
            #[inline(always)]
            fn pow_on<I: Isa>(self, e: Self) -> Self {
                $pow(self, e)
            }
        }
    };
}

math!(f32 in single, u32, i32,
    mantissa 23, bias 127, high 89.0, round 12_582_912.0,
    expm1 5 super::EXPM1_F32, artanh 4 super::narrow(&super::ARTANH),
    ln2 0.693_359_375, -2.121_944_4e-4, sqrt_half 0x3F35_04F3,
    erf erf::single::<I>, pow power::single::<I>);
math!(f64 in double, u64, i64,
    mantissa 52, bias 1023, high 710.0, round 6_755_399_441_055_744.0,
    expm1 10 super::EXPM1, artanh 10 super::ARTANH,
    ln2 0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10, sqrt_half 0x3FE6_A09E_667F_3BCD,
    erf erf::double::<I>, pow power::double::<I>);
