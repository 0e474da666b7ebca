//! exp, log and what follows from them, for float32 and float64, written so that loops over them become vector code:
//! no branches and no calls, but for sin, cos and pow of float64.
//!
//! Invariant: NaN stays NaN, ±∞, ±0, overflow and gradual underflow come out as IEEE 754 would have them. The errors stated
//! bound both element types, in units of the last place, with and without fused multiply-add (`tests/core/math.rs` measures them).

// Coefficients keep the digits they were computed with.
#![allow(clippy::excessive_precision)]

mod erf;
mod power;
mod trig;

use super::simd::{Float, Isa};

/// Functions of one element inside a kernel stamped for the instruction set `I`.
pub trait Math: Float {
    /// eˣ, within 1 ulp.
    fn exp_on<I: Isa>(self) -> Self;
    /// eˣ of numbers not above zero, within 1 ulp, in four fifths of the work; +∞ and NaN stay what they are.
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
    /// Sine, within 2 ulp for arguments of any size; that of float64 is the standard library's.
    fn sin_on<I: Isa>(self) -> Self;
    /// Cosine, likewise.
    fn cos_on<I: Isa>(self) -> Self;
    /// xᵉ, within 2 ulp, with the special cases of IEEE 754; that of float64 is the standard library's.
    fn pow_on<I: Isa>(self, e: Self) -> Self;
}

/// 1/(k + 2)!: the series of (eʳ − 1 − r)/r².
const EXPM1: [f64; 14] = {
    let mut series = [0.0; 14];
    let (mut k, mut factorial) = (0, 2.0);
    while k < 14 {
        series[k] = 1.0 / factorial;
        factorial *= (k + 3) as f64;
        k += 1;
    }
    series
};
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
/// (eʳ − 1 − r)/r² for |r| ≤ ½·ln 2: a fit, one term shorter than the series of that precision.
const EXPM1_F32: [f32; 6] = [0.5, 0.166666672, 0.041666355, 0.00833327323, 0.00139410212, 0.000199141883];
const fn narrow<const N: usize>(series: &[f64]) -> [f32; N] {
    let mut out = [0.0; N];
    let mut k = 0;
    while k < N {
        out[k] = series[k] as f32;
        k += 1;
    }
    out
}
#[inline(always)]
fn horner<T: Math, I: Isa>(x: T, series: &[T]) -> T {
    let mut sum = series[series.len() - 1];
    for &c in series[..series.len() - 1].iter().rev() {
        sum = sum.mul_add_on::<I>(x, c);
    }
    sum
}

macro_rules! math {
    ($t:ident in $module:ident, $bits:ident, $int:ident,
     mantissa $mantissa:expr, bias $bias:expr, low $low:expr, high $high:expr, round $round:expr,
     expm1 $expm1_len:literal $expm1:expr, artanh $artanh_len:literal $artanh:expr,
     ln2 $ln2_high:expr, $ln2_low:expr, sqrt_half $sqrt_half:expr,
     erf $erf:expr, sin $sin:expr, cos $cos:expr, pow $pow:expr) => {
        /// Arithmetic of one element type.
        mod $module {
            use super::{Float, Isa, horner};

            /// ln 2 in two parts; the first has so few bits that a multiple by an exponent is exact.
            const LN2_HIGH: $t = $ln2_high;
            const LN2_LOW: $t = $ln2_low;
            /// 1.5·2^mantissa: adding it rounds to an integer, which then stands in the low bits.
            const ROUND: $t = $round;
            const SERIES_EXPM1: [$t; $expm1_len] = $expm1;
            const SERIES_ARTANH: [$t; $artanh_len] = $artanh;

            /// 2ⁿ for n within the normal exponents.
            #[inline(always)]
            fn power_of_two(n: $int) -> $t {
                $t::from_bits(((n + $bias) << $mantissa) as $bits)
            }

            /// eʳ − 1 for |r| ≤ ½·ln 2.
            #[inline(always)]
            fn expm1_of<I: Isa>(r: $t) -> $t {
                (r * r).mul_add_on::<I>(horner::<$t, I>(r, &SERIES_EXPM1), r)
            }

            /// 2ⁿ·eʳ for |r| ≤ ½·ln 2 and n up to twice the normal exponents.
            #[inline(always)]
            pub fn exp_of<I: Isa>(n: $int, r: $t) -> $t {
                // In two factors, so that neither leaves the normal numbers.
                let half = n >> 1;
                (expm1_of::<I>(r) + 1.0) * power_of_two(half) * power_of_two(n - half)
            }

            /// (n, r) with x = n·ln 2 + r and |r| ≤ ½·ln 2.
            #[inline(always)]
            fn reduced<I: Isa>(x: $t) -> ($int, $t) {
                let shifted = x.mul_add_on::<I>(std::$t::consts::LOG2_E, ROUND);
                let n = shifted - ROUND;
                let r = n.mul_add_on::<I>(-LN2_LOW, n.mul_add_on::<I>(-LN2_HIGH, x));
                ((shifted.to_bits() as $int).wrapping_sub(ROUND.to_bits() as $int), r)
            }

            #[inline(always)]
            pub fn exp<I: Isa>(x: $t) -> $t {
                let held = if x < $low { $low } else { x };
                let held = if held > $high { $high } else { held };
                let (n, r) = reduced::<I>(held);
                exp_of::<I>(n, r)
            }

            /// 2ⁿ·y, where y and that are normal.
            #[inline(always)]
            fn scaled(y: $t, n: $int) -> $t {
                $t::from_bits((y.to_bits() as $int).wrapping_add(n << $mantissa) as $bits)
            }

            /// eˣ where that is normal, for finite x.
            #[inline(always)]
            pub fn exp_normal<I: Isa>(x: $t) -> $t {
                let (n, r) = reduced::<I>(x);
                scaled(expm1_of::<I>(r) + 1.0, n)
            }

            /// eˣ for x ≤ 0. 2ⁿ goes straight into the exponent; where the result would be subnormal, lifted and lowered again.
            #[inline(always)]
            pub fn exp_down<I: Isa>(x: $t) -> $t {
                let held = if x < $low { $low } else { x };
                let (n, r) = reduced::<I>(held);
                let deep = n < 3 - $bias;
                let lifted = if deep { n + $mantissa + 41 } else { n };
                let y = scaled(expm1_of::<I>(r) + 1.0, lifted);
                let y = y * if deep { power_of_two(-$mantissa - 41) } else { 1.0 };
                // Adding to its bits makes numbers of NaNs; +∞ stays what it is.
                if x <= 0.0 { y } else { x }
            }

            #[inline(always)]
            pub fn expm1<I: Isa>(x: $t) -> $t {
                let held = if x < $low { $low } else { x };
                let held = if held > $high { $high } else { held };
                let (n, r) = reduced::<I>(held);
                // eˣ − 1 = 2ⁿ·(eʳ − 1) + (2ⁿ − 1), of half the size first. Below the last place of 1 the answer is −1.
                let n = if n < -100 { -100 } else { n };
                let half = power_of_two(n - 1);
                let y = 2.0 * expm1_of::<I>(r).mul_add_on::<I>(half, half - 0.5);
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
                let rest = z * horner::<$t, I>(z, &SERIES_ARTANH);
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
                // tanh |x| = e/(e + 2) with e = exp(2|x|) − 1; beyond 20 it is 1.
                let a = x.abs();
                let a = if a > 20.0 { 20.0 } else { a };
                let e = expm1::<I>(2.0 * a);
                (e / (e + 2.0)).copysign(x)
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
            fn sin_on<I: Isa>(self) -> Self {
                $sin(self)
            }
            #[inline(always)]
            fn cos_on<I: Isa>(self) -> Self {
                $cos(self)
            }
            #[inline(always)]
            fn pow_on<I: Isa>(self, e: Self) -> Self {
                $pow(self, e)
            }
        }
    };
}

math!(f32 in single, u32, i32,
    mantissa 23, bias 127, low -104.0, high 89.0, round 12_582_912.0,
    expm1 6 super::EXPM1_F32, artanh 4 super::narrow(&super::ARTANH),
    ln2 0.693_359_375, -2.121_944_4e-4, sqrt_half 0x3F35_04F3,
    erf erf::single::<I>, sin trig::sin::<I>, cos trig::cos::<I>, pow power::pow::<I>);
math!(f64 in double, u64, i64,
    mantissa 52, bias 1023, low -746.0, high 710.0, round 6_755_399_441_055_744.0,
    expm1 14 super::EXPM1, artanh 10 super::ARTANH,
    ln2 0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10, sqrt_half 0x3FE6_A09E_667F_3BCD,
    erf erf::double::<I>, sin f64::sin, cos f64::cos, pow f64::powf);
