//! What is made of random words: numbers of each distribution.
//!
//! Invariant: without branches and inlined for certain, so that counters become lanes of vector registers.

use super::{Draw, below};
use crate::kernels::simd::Float;

/// `x.map(f)` that is inlined for certain: vector code depends on it.
#[inline(always)]
fn each<A, B>([a, b, c, d]: [A; 4], f: impl Fn(A) -> B) -> [B; 4] {
    [f(a), f(b), f(c), f(d)]
}

/// The leading 53 of 64 bits as an integer, through two exact conversions that every instruction set has.
#[inline(always)]
fn leading53(high: u32, low: u32) -> f64 {
    high as f64 * (1u32 << 21) as f64 + (low >> 11) as f64
}

/// Low end, width, and the largest number below the high end.
#[derive(Clone, Copy)]
pub struct Uniform<T> {
    low: T,
    width: T,
    last: T,
}

macro_rules! uniform {
    ($($t:ident)+) => {$(
        impl Uniform<$t> {
            /// `None` if the bounds are out of order, or their distance is not finite.
            pub fn new(low: f64, high: f64) -> Option<Self> {
                let (first, end, width) = (low as $t, high as $t, (high - low) as $t);
                (low <= high && first.is_finite() && width.is_finite()).then(|| Uniform { low: first, width, last: end.next_down().max(first) })
            }
            /// Rounding may reach the high end: it is left out.
            #[inline(always)]
            fn at(self, fraction: $t) -> $t {
                let x = self.low + self.width * fraction;
                if x < self.last { x } else { self.last }
            }
        }
    )+};
}
uniform!(f32 f64);

impl Draw<f32> for Uniform<f32> {
    const NUMBERS: usize = 4;
    const COST: usize = 5;
    #[inline(always)]
    fn draw(self, words: [u32; 4]) -> [f32; 4] {
        // 24 bits, so that the fraction is exact and below 1; a signed conversion is one instruction.
        each(words, |bits| self.at((bits >> 8) as i32 as f32 * (1.0 / (1u32 << 24) as f32)))
    }
}

impl Draw<f64> for Uniform<f64> {
    const NUMBERS: usize = 2;
    const COST: usize = 12;
    #[inline(always)]
    fn draw(self, [a, b, c, d]: [u32; 4]) -> [f64; 4] {
        const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
        [self.at(leading53(a, b) * UNIT), self.at(leading53(c, d) * UNIT), 0.0, 0.0]
    }
}

/// Mean and standard deviation. Box and Muller 1958: two normals from two uniforms.
#[derive(Clone, Copy)]
pub struct Normal(pub f64, pub f64);

impl Draw<f32> for Normal {
    const NUMBERS: usize = 4;
    const COST: usize = 20;
    #[inline(always)]
    fn draw(self, [a, b, c, d]: [u32; 4]) -> [f32; 4] {
        const UNIT: f64 = 1.0 / (1u64 << 32) as f64;
        let pair = |u: u32, v: u32| box_muller::<6>((u as f64 + 0.5) * UNIT, v, 0.0);
        let ((x0, y0), (x1, y1)) = (pair(a, b), pair(c, d));
        each([x0, y0, x1, y1], |x| (self.0 + self.1 * x) as f32)
    }
}

impl Draw<f64> for Normal {
    const NUMBERS: usize = 2;
    const COST: usize = 40;
    #[inline(always)]
    fn draw(self, [a, b, c, d]: [u32; 4]) -> [f64; 4] {
        const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
        let (x, y) = box_muller::<10>((leading53(a, b) + 0.5) * UNIT, c, (d >> 11) as f64 / (1u32 << 21) as f64);
        [self.0 + self.1 * x, self.0 + self.1 * y, 0.0, 0.0]
    }
}

/// √(−2 ln u)·(cos 2πv, sin 2πv) for u in (0, 1] and v = (turn + rest)/2³². Six terms of each series are within 2e-10 of the
/// radius, ten within rounding.
#[inline(always)]
fn box_muller<const TERMS: usize>(u: f64, turn: u32, rest: f64) -> (f64, f64) {
    let radius = (-2.0 * ln::<TERMS>(u)).sqrt();
    // The nearest quarter turn, and what is left: within ±π/4.
    let quarter = turn.wrapping_add(1 << 29) >> 30;
    let left = turn.wrapping_sub(quarter << 30) as i32 as f64 + rest;
    let (sin, cos) = sin_cos::<TERMS>(left * (std::f64::consts::TAU / (1u64 << 32) as f64));
    let (c, s) = if quarter & 1 == 1 { (sin, cos) } else { (cos, sin) };
    // Bit 1 as the sign: cosines are negative after quarters 1 and 2, sines after 2 and 3.
    let signed = |x: f64, bits: u32| f64::from_bits(x.to_bits() ^ ((bits & 2) as u64) << 62);
    (radius * signed(c, quarter + 1), radius * signed(s, quarter))
}

/// The first `TERMS` terms of Taylor's series, within ±π/4.
#[inline(always)]
fn sin_cos<const TERMS: usize>(x: f64) -> (f64, f64) {
    const MOST: usize = 10;
    /// (−1)ᵏ/(2k + odd)!
    const fn coefficients(odd: usize) -> [f64; MOST] {
        let mut all = [1.0; MOST];
        let mut k = 1;
        while k < MOST {
            all[k] = -all[k - 1] / ((2 * k + odd) * (2 * k + odd - 1)) as f64;
            k += 1;
        }
        all
    }
    const { assert!(TERMS <= MOST) };
    let t = x * x;
    let (sines, cosines) = (const { coefficients(1) }, const { coefficients(0) });
    let (mut sin, mut cos) = (0.0, 0.0);
    // Not an inclusive range: its loop is not countable, and the loop around it would stay scalar.
    for k in (0..TERMS).rev() {
        sin = sin * t + sines[k];
        cos = cos * t + cosines[k];
    }
    (x * sin, cos)
}

/// Natural logarithm of a normal number: ln(m·2ᵉ) = e·ln 2 + 2·artanh((m − 1)/(m + 1)), with m in [√½, √2).
#[inline(always)]
fn ln<const TERMS: usize>(x: f64) -> f64 {
    const SQRT_HALF: u64 = 0x3FE6_A09E_667F_3BCD;
    // The exponent is kept positive, and becomes a float as the low bits of 2⁵².
    const BIAS: u64 = 1024;
    const TWO_52: u64 = 0x4330_0000_0000_0000;
    let shifted = x.to_bits().wrapping_sub(SQRT_HALF).wrapping_add(BIAS << 52);
    let exponent = f64::from_bits(shifted >> 52 | TWO_52) - ((1u64 << 52) + BIAS) as f64;
    let m = f64::from_bits((shifted & ((1 << 52) - 1)).wrapping_add(SQRT_HALF));
    let s = (m - 1.0) / (m + 1.0);
    let t = s * s;
    let mut series = 0.0;
    for k in (0..TERMS).rev() {
        series = series * t + 1.0 / (2 * k + 1) as f64;
    }
    exponent * std::f64::consts::LN_2 + 2.0 * s * series
}

/// Low end and number of values.
#[derive(Clone, Copy)]
pub struct Integer(pub i64, pub u64);

impl Draw<i64> for Integer {
    const NUMBERS: usize = 2;
    const COST: usize = 12;
    #[inline(always)]
    fn draw(self, words: [u32; 4]) -> [i64; 4] {
        each(Bits.draw(words), |bits| self.0.wrapping_add(below(bits as u64, self.1) as i64))
    }
}

/// All 64 bits.
#[derive(Clone, Copy)]
pub struct Bits;

impl Draw<i64> for Bits {
    const NUMBERS: usize = 2;
    const COST: usize = 10;
    #[inline(always)]
    fn draw(self, [a, b, c, d]: [u32; 4]) -> [i64; 4] {
        let wide = |high: u32, low: u32| ((high as u64) << 32 | low as u64) as i64;
        [wide(a, b), wide(c, d), 0, 0]
    }
}

/// `on` where a word is at most `last`, so probabilities are multiples of 2⁻³².
#[derive(Clone, Copy)]
pub struct Bernoulli<T> {
    last: u32,
    on: T,
}

impl<T: Float> Bernoulli<T> {
    pub fn new(p: f64, on: f64) -> Self {
        let words = (p * (1u64 << 32) as f64).round();
        if words == 0.0 { Bernoulli { last: 0, on: T::ZERO } } else { Bernoulli { last: (words - 1.0) as u32, on: T::from_f64(on) } }
    }
}

impl<T: Float> Draw<T> for Bernoulli<T> {
    const NUMBERS: usize = 4;
    const COST: usize = 5;
    #[inline(always)]
    fn draw(self, words: [u32; 4]) -> [T; 4] {
        each(words, |bits| if bits <= self.last { self.on } else { T::ZERO })
    }
}
