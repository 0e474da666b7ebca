//! Error function, without a branch: a series next to zero, what an exponential leaves of 1 beyond.

use super::super::simd::Isa;
use super::horner;

/// erf(x)/x in x² for |x| ≤ 1, with a relative error of 1e-9.
const NEAR: [f32; 7] = [std::f32::consts::FRAC_2_SQRT_PI, -0.376126271, 0.112836002, -0.0268544446, 0.00518953545, -0.000802084227, 7.88912284e-05];
/// −log erfc(x) for x from 1 to 4; where e to its power is still to be seen next to 1, an error of 1e-9 of it.
const FAR: [f32; 7] = [0.000353738413, 1.12703996, 0.638225816, 0.103037243, -0.0218052555, 0.00293959084, -0.000185572248];

#[inline(always)]
pub fn single<I: Isa>(x: f32) -> f32 {
    let a = x.abs();
    let held = if a > 4.0 { 4.0 } else { a };
    let near = x * horner::<f32, I>(x * x, &NEAR);
    let far = 1.0 - super::single::exp_normal::<I>(-horner::<f32, I>(held, &FAR));
    // NaN goes the first way, which keeps it.
    if a >= 1.0 { far.copysign(x) } else { near }
}

/// (−1)ᵏ·2/(√π·k!·(2k + 1)): the series of erf(x)/x in x².
const SERIES: [f64; 20] = {
    let mut series = [0.0; 20];
    let (mut k, mut factor) = (0, std::f64::consts::FRAC_2_SQRT_PI);
    while k < 20 {
        series[k] = factor / (2 * k + 1) as f64;
        k += 1;
        factor /= -(k as f64);
    }
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
    let near = x * horner::<f64, I>(x * x, &SERIES);
    let held = if a > 6.1 { 6.1 } else { a };
    let t = (held - 2.0) / (held + 2.0);
    let far = 1.0 - super::double::exp_normal::<I>(-held * held) * horner::<f64, I>(t, &ERFCX);
    // NaN goes the first way, which keeps it.
    if a >= 1.0 { far.copysign(x) } else { near }
}
