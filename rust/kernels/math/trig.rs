//! Sine and cosine of arguments that are not far from zero, without a branch, and of float32 farther out by way of float64; of all
//! others, and where multiply-adds are not fused, they are the standard library's.
//!
//! Invariant: what is left of x after n quarters of a turn is known as r + low to more bits than an element has, however near a
//! multiple of π/2 it lies. π/2 has three parts: n times the first, of as many bits as an element, leaves of x what an element holds
//! exactly; the second has so few bits (31 and 11) that n times it is exact, and so is what r lost; the third carries on.

use super::super::simd::{Isa, Ring};

macro_rules! trig {
    ($t:ident in $module:ident, $bits:ident, sign $sign:literal, round $round:expr, far $far:expr, farther $farther:expr $(, by $wide:ident)?, half_pi $second:expr, $third:expr, sin $sin:expr, cos $cos:expr) => {
        pub mod $module {
            use super::super::super::simd::{Isa, Ring};
            use super::super::polynomial;

            /// Arguments above it are far, and those below minus it.
            const FAR: $t = $far;
            /// The same for [`Isa::FAR`].
            const FARTHER: $t = $farther;
            /// 1.5·2^mantissa: adding it rounds to an integer, which then stands in the low bits.
            pub const ROUND: $t = $round;
            const HALF_PI: [$t; 3] = [std::$t::consts::FRAC_PI_2, $second, $third];
            /// (sin r − r)/r³ in r² and (cos r − 1 + r²/2)/r⁴ in r², for |r| a little above π/4: fits (Remez's exchange, at 60
            /// digits) whose largest error relative to sine or cosine is least, then rounded to elements.
            const SIN: &[$t] = &$sin;
            const COS: &[$t] = &$cos;

            #[inline(always)]
            pub fn is_far<I: Isa>(x: $t) -> bool {
                x.abs() > if I::FAR { FARTHER } else { FAR }
            }

            /// (q, r, low) with x = (4k + q)·π/2 + r + low, |r| ≤ π/4 and low small beside r.
            #[inline(always)]
            fn reduced<I: Isa>(x: $t) -> ($bits, $t, $t) {
                $(if I::FAR {
                    return super::$wide::<I>(x);
                })?
                let shifted = x.mul_add_on::<I>(std::$t::consts::FRAC_2_PI, ROUND);
                let n = shifted - ROUND;
                let first = n.mul_add_on::<I>(-HALF_PI[0], x);
                let r = n.mul_add_on::<I>(-HALF_PI[1], first);
                let lost = n.mul_add_on::<I>(-HALF_PI[1], first - r);
                (shifted.to_bits(), r, n.mul_add_on::<I>(-HALF_PI[2], lost))
            }

            /// sin(q·π/2 + r + low).
            #[inline(always)]
            fn quadrant<I: Isa>(q: $bits, r: $t, low: $t) -> $t {
                let (z, minus_half) = (r * r, -0.5 * r);
                // 1 − r²/2, and what its rounding lost.
                let arch = minus_half.mul_add_on::<I>(r, 1.0);
                let lost = minus_half.mul_add_on::<I>(r, 1.0 - arch);
                let sin = r + (z * r).mul_add_on::<I>(polynomial::<$t, I>(z, SIN), low * arch);
                let cos = arch + low.mul_add_on::<I>(-r, (z * z).mul_add_on::<I>(polynomial::<$t, I>(z, COS), lost));
                let y = if q & 1 == 0 { sin } else { cos };
                $t::from_bits(y.to_bits() ^ (q & 2) << ($sign - 1))
            }

            #[inline(always)]
            pub fn sin<I: Isa>(x: $t) -> $t {
                if !I::FMA {
                    return x.sin();
                }
                let (q, r, low) = reduced::<I>(x.abs());
                $t::from_bits(quadrant::<I>(q, r, low).to_bits() ^ x.to_bits() & 1 << $sign)
            }

            #[inline(always)]
            pub fn cos<I: Isa>(x: $t) -> $t {
                if !I::FMA {
                    return x.cos();
                }
                let (q, r, low) = reduced::<I>(x);
                quadrant::<I>(q.wrapping_add(1), r, low)
            }
        }
    };
}

/// What `reduced` gives, of a float32 up to 2⁴⁴. n times the first part of π/2 leaves what a float64 holds exactly, a multiple of 2⁻⁵²
/// below 1; the second part, of as many bits, leaves x less than 2⁻⁶⁴ away, and no float32 is as near as 2⁻³⁰ to a multiple of π/2.
#[inline(always)]
fn wide<I: Isa>(x: f32) -> (u32, f32, f32) {
    const SECOND: f64 = 6.123_233_995_736_766e-17;
    let x = x as f64;
    let shifted = x.mul_add_on::<I>(std::f64::consts::FRAC_2_PI, double::ROUND);
    let n = shifted - double::ROUND;
    let r = n.mul_add_on::<I>(-SECOND, n.mul_add_on::<I>(-std::f64::consts::FRAC_PI_2, x));
    let high = r as f32;
    (shifted.to_bits() as u32, high, (r - high as f64) as f32)
}

trig!(f32 in single, u32, sign 31, round 12_582_912.0, far 8192.0, farther 17_592_186_044_416.0, by wide,
    half_pi -4.371_395_334_601_402e-8, 2.563_344_068_257_089_6e-12,
    sin [-0.166_666_54, 0.008_332_151, -0.000_195_139_57],
    cos [0.041_666_646, -0.001_388_730_4, 2.443_164e-5]);
trig!(f64 in double, u64, sign 63, round 6_755_399_441_055_744.0, far 4_194_304.0, farther 4_194_304.0,
half_pi 6.123_233_994_092_14e-17, 1.644_625_693_632_425_8e-26,
sin [
    -0.166_666_666_666_666_3,
    0.008_333_333_333_322_103,
    -0.000_198_412_698_295_770_54,
    2.755_731_361_691_524_3e-6,
    -2.505_074_704_163_813_4e-8,
    1.589_618_716_396_084_8e-10,
],
cos [
    0.041_666_666_666_666_595,
    -0.001_388_888_888_887_303_6,
    2.480_158_728_883_815_5e-5,
    -2.755_731_417_528_343_4e-7,
    2.087_570_028_340_947_4e-9,
    -1.135_850_694_586_259_2e-11,
]);
