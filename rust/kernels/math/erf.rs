//! Error function, without a branch: a series next to zero; beyond, another one (float32) or what an exponential leaves of 1.

use super::super::simd::{Isa, Ring};
use super::polynomial;

/// erf(x)/x − 1 in x² for |x| ≤ 1: a fit that is 2⁻²⁴ of erf away at most.
const NEAR: [f32; 6] = [0.12837912, -0.3761232, 0.112801135, -0.026709218, 0.004914916, -0.00056199735];
/// erf(x) in x − MIDDLE for x from 1 to LAST, likewise.
const FAR: [f32; 13] = [
    0.9995194,
    0.0025441165,
    -0.0062819067,
    0.009491057,
    -0.009611796,
    0.0066434843,
    -0.002932825,
    0.00048845855,
    0.00036634656,
    -0.00029709743,
    5.451894e-5,
    2.4494502e-5,
    -9.189237e-6,
];
const MIDDLE: f32 = 2.46875;
/// From here on erf is 1.
const LAST: f32 = 3.9375;

#[inline(always)]
pub fn single<I: Isa>(x: f32) -> f32 {
    let a = x.abs();
    let held = if a > LAST { LAST } else { a };
    let near = x.mul_add_on::<I>(polynomial::<f32, I>(x * x, &NEAR), x);
    let far = polynomial::<f32, I>(held - MIDDLE, &FAR);
    let far = if far > 1.0 { 1.0 } else { far };
    // NaN goes the first way, which keeps it.
    if a >= 1.0 { far.copysign(x) } else { near }
}

/// (−1)ᵏ·2/(√π·k!·(2k + 1)), the first less 1: the series of erf(x)/x − 1 in x².
const SERIES: [f64; 20] = {
    let mut series = [0.0; 20];
    let (mut k, mut factor) = (0, std::f64::consts::FRAC_2_SQRT_PI);
    while k < 20 {
        series[k] = factor / (2 * k + 1) as f64;
        k += 1;
        factor /= -(k as f64);
    }
    series[0] = 0.128379167095512574;
    series
};
/// exp(x²)·erfc(x) for x from 1 up, as a polynomial in t = (x − 2)/(x + 2); a Chebyshev fit of relative error 1e-17.
const ERFCX: [f64; 17] = [
    0.255395676310505745,
    -0.427185847413958492,
    0.241658194242465586,
    -0.0789785810157044567,
    0.00373289240443163705,
    0.00699746173683201376,
    -0.00084714325460976568,
    -0.000981976935436915549,
    0.0000435556228648195212,
    0.000174359349516918214,
    0.0000275267859403545564,
    -0.0000275607057584244309,
    -0.0000139965553664269362,
    1.2965196760697503e-6,
    4.01247052669749158e-6,
    1.29580004126305876e-6,
    -1.15511746203381134e-6,
];

#[inline(always)]
pub fn double<I: Isa>(x: f64) -> f64 {
    let a = x.abs();
    let near = x.mul_add_on::<I>(polynomial::<f64, I>(x * x, &SERIES), x);
    let held = if a > 6.1 { 6.1 } else { a };
    let t = (held - 2.0) / (held + 2.0);
    let far = 1.0 - super::double::exp_down::<I>(-held * held) * polynomial::<f64, I>(t, &ERFCX);
    // NaN goes the first way, which keeps it.
    if a >= 1.0 { far.copysign(x) } else { near }
}
