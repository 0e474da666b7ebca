//! Random numbers by counter: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
//!
//! Invariant: element i of a fill depends on (seed, counter, i) alone, through integers and operations that IEEE 754 rounds
//! exactly (no fused multiply-add), so every thread count, instruction set and platform gives the same bits.
//!
//! Each counter gives four words, and they one, two or four numbers. Number i of counter c in a group of `WIDTH` counters is
//! number i·WIDTH + c of the group.

use super::simd::Float;
use super::{map, parallel};
use crate::array::{Array, DType, Dims, Element};
use crate::{Error, Result, bail, simd, with_float};

/// Counters of one group: what a vector register holds of 32-bit words.
const WIDTH: usize = 16;
/// Groups of one unit of parallel work.
const UNIT: usize = 64;

/// A stream of random numbers: a seed, and how many counters were used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generator {
    seed: u64,
    counter: u64,
}

impl Generator {
    pub fn new(seed: u64) -> Generator {
        Generator { seed, counter: 0 }
    }

    /// Continues where a generator with this [`state`](Generator::state) stopped.
    pub fn from_state((seed, counter): (u64, u64)) -> Generator {
        Generator { seed, counter }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub fn state(&self) -> (u64, u64) {
        (self.seed, self.counter)
    }

    /// Passes over counters.
    pub fn skip(&mut self, counters: u64) {
        self.counter = self.counter.wrapping_add(counters);
    }

    /// Runs `f(seed, first counter, first element, chunk)` over `out` and uses up the counters that `D` takes to fill it.
    fn for_units<T: Element, D: Draw<T>>(&mut self, out: &mut [T], f: impl Fn(u64, u64, usize, &mut [T]) + Sync) {
        let (seed, first) = (self.seed, self.counter);
        parallel::for_chunks(out, UNIT * D::GROUP, out.len() * D::COST / 10, |i, out| {
            f(seed, first.wrapping_add((i * UNIT * WIDTH) as u64), i * UNIT * D::GROUP, out);
        });
        self.skip((out.len().div_ceil(D::GROUP) * WIDTH) as u64);
    }

    fn fill<T: Element, D: Draw<T>>(&mut self, draw: D, out: &mut [T]) {
        self.for_units::<T, D>(out, |seed, counter, _, out| fill_groups(draw, seed, counter, out));
    }

    fn array<T: Element>(&mut self, shape: Dims, draw: impl Draw<T>) -> Result<Array> {
        let mut out = Array::unfilled(T::DTYPE, shape)?;
        self.fill(draw, out.fresh::<T>());
        Ok(out)
    }

    /// Uniform in low..high (float32 or float64).
    pub fn uniform(&mut self, shape: Dims, low: f64, high: f64, dtype: DType) -> Result<Array> {
        let refused = || Error::Value(format!("uniform: expected bounds in order at a distance that {dtype} holds, got low {low} and high {high}"));
        match dtype {
            DType::F32 => self.array(shape, Uniform::<f32>::new(low, high).ok_or_else(refused)?),
            DType::F64 => self.array(shape, Uniform::<f64>::new(low, high).ok_or_else(refused)?),
            other => bail!(Type, "uniform: expected float32 or float64, got {other}"),
        }
    }

    /// Normally distributed (float32 or float64).
    pub fn normal(&mut self, shape: Dims, mean: f64, std: f64, dtype: DType) -> Result<Array> {
        if !(mean.is_finite() && std.is_finite() && std >= 0.0) {
            bail!(Value, "normal: expected a finite mean and a standard deviation of at least 0, got {mean} and {std}");
        }
        match dtype {
            DType::F32 => self.array::<f32>(shape, Normal(mean, std)),
            DType::F64 => self.array::<f64>(shape, Normal(mean, std)),
            other => bail!(Type, "normal: expected float32 or float64, got {other}"),
        }
    }

    /// Integers (int64) uniform in low..high.
    pub fn integers(&mut self, shape: Dims, low: i64, high: i64) -> Result<Array> {
        if low >= high {
            bail!(Value, "randint: expected low below high, got {low} and {high}");
        }
        self.array(shape, Integer(low, high.wrapping_sub(low) as u64))
    }

    /// `on` with probability p, otherwise zero.
    pub fn bernoulli(&mut self, shape: Dims, p: f64, on: f64, dtype: DType) -> Result<Array> {
        check_probability("bernoulli", p)?;
        match dtype {
            DType::F32 => self.array::<f32>(shape, Bernoulli::new(p, on)),
            DType::F64 => self.array::<f64>(shape, Bernoulli::new(p, on)),
            other => bail!(Type, "bernoulli: expected float32 or float64, got {other}"),
        }
    }

    /// x/(1 − p) where a Bernoulli draw keeps it, and zero elsewhere, with probability p (Srivastava et al. 2014).
    pub fn dropout(&mut self, x: &Array, p: f64) -> Result<Array> {
        check_probability("dropout", p)?;
        with_float!(x.dtype(), T => self.scaled::<T, _>(x, Bernoulli::<T>::new(1.0 - p, 1.0 / (1.0 - p))),
            else bail!(Type, "dropout: expected float32 or float64, got {}", x.dtype()))
    }

    /// x times what is drawn, in one sweep; zero where zero is drawn, whatever x is.
    fn scaled<T: Float, D: Draw<T>>(&mut self, x: &Array, draw: D) -> Result<Array> {
        let (x, mut out) = (map::contiguous(x)?, Array::unfilled(T::DTYPE, *x.shape())?);
        let x = x.as_slice::<T>().expect("contiguous");
        self.for_units::<T, D>(out.fresh(), |seed, counter, start, out| scale_groups(draw, seed, counter, &x[start..start + out.len()], out));
        Ok(out)
    }

    /// The numbers 0..n (int64) in random order (Fisher and Yates).
    pub fn permutation(&mut self, n: usize) -> Result<Array> {
        let shape = Dims::new(&[n])?;
        let (mut draws, mut out) = (Array::unfilled(DType::I64, shape)?, Array::unfilled(DType::I64, shape)?);
        let (draws, order) = (draws.fresh::<i64>(), out.fresh::<i64>());
        self.fill(Bits, draws);
        order.iter_mut().enumerate().for_each(|(i, x)| *x = i as i64);
        for i in (1..n).rev() {
            order.swap(i, below(draws[i] as u64, i as u64 + 1) as usize);
        }
        Ok(out)
    }
}

/// `op` names the operation in the error.
pub fn check_probability(op: &str, p: f64) -> Result<()> {
    if !(0.0..=1.0).contains(&p) {
        bail!(Value, "{op}: expected a probability in [0, 1], got {p}");
    }
    Ok(())
}

/// `x.map(f)` that is inlined for certain: vector code depends on it.
#[inline(always)]
fn each<A, B>([a, b, c, d]: [A; 4], f: impl Fn(A) -> B) -> [B; 4] {
    [f(a), f(b), f(c), f(d)]
}

/// A number in 0..n from 64 random bits: the high half of bits·n. The bias is below n / 2⁶⁴.
#[inline(always)]
fn below(bits: u64, n: u64) -> u64 {
    // Word by word: vector units have no wider product.
    let ((a, b), (c, d)) = ((bits >> 32, bits & u32::MAX as u64), (n >> 32, n & u32::MAX as u64));
    let inner = a * d + ((b * d) >> 32);
    a * c + (inner >> 32) + ((b * c + (inner & u32::MAX as u64)) >> 32)
}

/// What is made of the four random words of one counter.
trait Draw<T>: Copy + Sync {
    /// Numbers per counter.
    const NUMBERS: usize;
    /// Numbers per group.
    const GROUP: usize = Self::NUMBERS * WIDTH;
    /// Rough cost in tenths of a nanosecond per number.
    const COST: usize;
    /// The first `NUMBERS` are used.
    fn draw(self, words: [u32; 4]) -> [T; 4];
}

/// The numbers of one group. One loop without branches, so that counters become lanes of vector registers.
#[inline(always)]
fn fill_group<T: Element, D: Draw<T>>(draw: D, seed: u64, first: u64, out: &mut [T]) {
    assert_eq!(out.len(), D::GROUP);
    for lane in 0..WIDTH {
        let numbers = draw.draw(philox(seed, first.wrapping_add(lane as u64)));
        for i in 0..D::NUMBERS {
            out[i * WIDTH + lane] = numbers[i];
        }
    }
}

simd! {
    fn fill_groups<T: Element, D: Draw<T>>(draw: D, seed: u64, first: u64, out: &mut [T]) {
        for (i, out) in out.chunks_mut(D::GROUP).enumerate() {
            let first = first.wrapping_add((i * WIDTH) as u64);
            if out.len() == D::GROUP {
                fill_group(draw, seed, first, out);
            } else {
                let mut group = [T::default(); 4 * WIDTH];
                fill_group(draw, seed, first, &mut group[..D::GROUP]);
                out.copy_from_slice(&group[..out.len()]);
            }
        }
    }

    fn scale_groups<T: Float, D: Draw<T>>(draw: D, seed: u64, first: u64, x: &[T], out: &mut [T]) {
        for (i, (out, x)) in out.chunks_mut(D::GROUP).zip(x.chunks(D::GROUP)).enumerate() {
            let mut scales = [T::ZERO; 4 * WIDTH];
            fill_group(draw, seed, first.wrapping_add((i * WIDTH) as u64), &mut scales[..D::GROUP]);
            for ((out, &x), &scale) in out.iter_mut().zip(x).zip(&scales) {
                *out = if scale == T::ZERO { T::ZERO } else { x * scale };
            }
        }
    }
}

/// Ten rounds over one counter.
#[inline(always)]
fn philox(seed: u64, counter: u64) -> [u32; 4] {
    const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let mut x = [counter as u32, (counter >> 32) as u32, 0, 0];
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        let (a, b) = (MULTIPLIERS[0] * x[0] as u64, MULTIPLIERS[1] * x[2] as u64);
        x = [(b >> 32) as u32 ^ x[1] ^ key[0], b as u32, (a >> 32) as u32 ^ x[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    x
}

/// The leading 53 of 64 bits as an integer, through two exact conversions that every instruction set has.
#[inline(always)]
fn leading53(high: u32, low: u32) -> f64 {
    high as f64 * (1u32 << 21) as f64 + (low >> 11) as f64
}

/// Low end, width, and the largest number below the high end.
#[derive(Clone, Copy)]
struct Uniform<T> {
    low: T,
    width: T,
    last: T,
}

macro_rules! uniform {
    ($($t:ident)+) => {$(
        impl Uniform<$t> {
            /// `None` if the bounds are out of order, or their distance is not finite.
            fn new(low: f64, high: f64) -> Option<Self> {
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
struct Normal(f64, f64);

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
struct Integer(i64, u64);

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
struct Bits;

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
struct Bernoulli<T> {
    last: u32,
    on: T,
}

impl<T: Float> Bernoulli<T> {
    fn new(p: f64, on: f64) -> Self {
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
