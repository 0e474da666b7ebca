//! Random numbers by counter: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
//!
//! Invariant: element i of a fill depends on (seed, counter, i) alone, through integers and operations that IEEE 754 rounds
//! exactly (no fused multiply-add), so every thread count, instruction set and platform gives the same bits.
//!
//! A group of [`WIDTH`] counters gives four words each. Word w of counter c in a group is number w·WIDTH + c of the group.

use super::parallel;
use crate::array::{Array, DType, Dims, Element};
use crate::{Result, bail, simd};

/// Counters of one group: what a vector register holds of 32-bit words.
const WIDTH: usize = 16;
/// Groups of one unit of parallel work.
const UNIT: usize = 64;

type Words = [[u32; WIDTH]; 4];

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

    /// Fills `out` and uses up the counters that takes.
    fn fill<T: Element, D: Draw<T>>(&mut self, draw: D, out: &mut [T]) {
        let (seed, first) = (self.seed, self.counter);
        parallel::for_chunks(out, UNIT * D::GROUP, out.len() * D::COST / 10, |i, out| {
            fill_groups(draw, seed, first.wrapping_add((i * UNIT * WIDTH) as u64), out);
        });
        self.counter = first.wrapping_add((out.len().div_ceil(D::GROUP) * WIDTH) as u64);
    }

    /// Passes over the counters that `n` Bernoulli draws use.
    pub fn skip(&mut self, n: usize) {
        self.counter = self.counter.wrapping_add((n.div_ceil(4 * WIDTH) * WIDTH) as u64);
    }

    fn array<T: Element>(&mut self, shape: Dims, draw: impl Draw<T>) -> Result<Array> {
        let mut out = Array::unfilled(T::DTYPE, shape)?;
        self.fill(draw, out.fresh::<T>());
        Ok(out)
    }

    /// Uniform in low..high (float32 or float64).
    pub fn uniform(&mut self, shape: Dims, low: f64, high: f64, dtype: DType) -> Result<Array> {
        if !(low.is_finite() && high.is_finite() && low <= high) {
            bail!(Value, "uniform: expected finite bounds in order, got low {low} and high {high}");
        }
        match dtype {
            DType::F32 => self.array::<f32>(shape, Uniform(low as f32, (high - low) as f32)),
            DType::F64 => self.array::<f64>(shape, Uniform(low, high - low)),
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
        if !(0.0..=1.0).contains(&p) {
            bail!(Value, "bernoulli: expected a probability in [0, 1], got {p}");
        }
        match dtype {
            DType::F32 => self.array::<f32>(shape, Bernoulli::new(p, on as f32)),
            DType::F64 => self.array::<f64>(shape, Bernoulli::new(p, on)),
            other => bail!(Type, "bernoulli: expected float32 or float64, got {other}"),
        }
    }

    /// The numbers 0..n (int64) in random order (Fisher and Yates).
    pub fn permutation(&mut self, n: usize) -> Result<Array> {
        let shape = Dims::new(&[n])?;
        let mut draws = Array::unfilled(DType::I64, shape)?;
        self.fill(Bits, draws.fresh::<i64>());
        let draws = draws.as_slice::<i64>().expect("fresh");
        let mut order: Vec<i64> = (0..n as i64).collect();
        for i in (1..n).rev() {
            order.swap(i, below(draws[i] as u64, i as u64 + 1) as usize);
        }
        Array::from_slice(&[n], &order)
    }
}

/// A number in 0..n from 64 random bits. The bias is below n / 2⁶⁴.
#[inline(always)]
fn below(bits: u64, n: u64) -> u64 {
    ((bits as u128 * n as u128) >> 64) as u64
}

/// What is made of a group of random words.
trait Draw<T>: Copy + Sync {
    /// Numbers per group.
    const GROUP: usize;
    /// Rough cost in tenths of a nanosecond per number.
    const COST: usize;
    fn draw(self, words: &Words, out: &mut [T]);
}

simd! {
    fn fill_groups<T: Element, D: Draw<T>>(draw: D, seed: u64, first: u64, out: &mut [T]) {
        for (i, out) in out.chunks_mut(D::GROUP).enumerate() {
            let words = philox(seed, first.wrapping_add((i * WIDTH) as u64));
            if out.len() == D::GROUP {
                draw.draw(&words, out);
            } else {
                let mut group = [T::default(); 4 * WIDTH];
                draw.draw(&words, &mut group[..D::GROUP]);
                out.copy_from_slice(&group[..out.len()]);
            }
        }
    }
}

/// Ten rounds over the counters first..first + WIDTH.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // One lane of four rows at a time: indices say it plainly.
fn philox(seed: u64, first: u64) -> Words {
    const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let mut x = [[0u32; WIDTH]; 4];
    for lane in 0..WIDTH {
        let counter = first.wrapping_add(lane as u64);
        x[0][lane] = counter as u32;
        x[1][lane] = (counter >> 32) as u32;
    }
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        for lane in 0..WIDTH {
            let (a, b) = (MULTIPLIERS[0] * x[0][lane] as u64, MULTIPLIERS[1] * x[2][lane] as u64);
            let (x1, x3) = (x[1][lane], x[3][lane]);
            x[0][lane] = (b >> 32) as u32 ^ x1 ^ key[0];
            x[1][lane] = b as u32;
            x[2][lane] = (a >> 32) as u32 ^ x3 ^ key[1];
            x[3][lane] = a as u32;
        }
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    x
}

#[inline(always)]
fn wide(words: &Words, half: usize, lane: usize) -> u64 {
    (words[2 * half][lane] as u64) << 32 | words[2 * half + 1][lane] as u64
}

#[derive(Clone, Copy)]
struct Uniform<T>(T, T);

impl Draw<f32> for Uniform<f32> {
    const GROUP: usize = 4 * WIDTH;
    const COST: usize = 5;
    #[inline(always)]
    fn draw(self, words: &Words, out: &mut [f32]) {
        for (row, out) in words.iter().zip(out.chunks_exact_mut(WIDTH)) {
            for (out, &bits) in out.iter_mut().zip(row) {
                // 24 bits, so that the fraction is exact and below 1; a signed conversion is one instruction.
                let fraction = (bits >> 8) as i32 as f32 * (1.0 / (1u32 << 24) as f32);
                *out = self.0 + self.1 * fraction;
            }
        }
    }
}

impl Draw<f64> for Uniform<f64> {
    const GROUP: usize = 2 * WIDTH;
    const COST: usize = 12;
    #[inline(always)]
    fn draw(self, words: &Words, out: &mut [f64]) {
        for (half, out) in out.chunks_exact_mut(WIDTH).enumerate() {
            for (lane, out) in out.iter_mut().enumerate() {
                *out = self.0 + self.1 * ((wide(words, half, lane) >> 11) as i64 as f64 * (1.0 / (1u64 << 53) as f64));
            }
        }
    }
}

/// Mean and standard deviation. Box and Muller 1958: two normals from two uniforms.
#[derive(Clone, Copy)]
struct Normal(f64, f64);

impl Draw<f32> for Normal {
    const GROUP: usize = 4 * WIDTH;
    const COST: usize = 25;
    #[inline(always)]
    fn draw(self, words: &Words, out: &mut [f32]) {
        const UNIT: f64 = 1.0 / (1u64 << 32) as f64;
        for (pair, out) in out.chunks_exact_mut(2 * WIDTH).enumerate() {
            let (cosines, sines) = out.split_at_mut(WIDTH);
            for lane in 0..WIDTH {
                let radius = (words[2 * pair][lane] as f64 + 0.5) * UNIT;
                let (a, b) = box_muller(radius, words[2 * pair + 1][lane] as f64 * UNIT);
                cosines[lane] = (self.0 + self.1 * a) as f32;
                sines[lane] = (self.0 + self.1 * b) as f32;
            }
        }
    }
}

impl Draw<f64> for Normal {
    const GROUP: usize = 2 * WIDTH;
    const COST: usize = 50;
    #[inline(always)]
    fn draw(self, words: &Words, out: &mut [f64]) {
        const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
        let (cosines, sines) = out.split_at_mut(WIDTH);
        for lane in 0..WIDTH {
            let radius = ((wide(words, 0, lane) >> 11) as i64 as f64 + 0.5) * UNIT;
            let (a, b) = box_muller(radius, (wide(words, 1, lane) >> 11) as i64 as f64 * UNIT);
            cosines[lane] = self.0 + self.1 * a;
            sines[lane] = self.0 + self.1 * b;
        }
    }
}

/// √(−2 ln u)·(cos 2πv, sin 2πv) for u in (0, 1) and v in [0, 1), within 1e-13.
#[inline(always)]
fn box_muller(u: f64, v: f64) -> (f64, f64) {
    let radius = (-2.0 * ln(u)).sqrt();
    // v = (quarter + x)/4 with x in [−½, ½], so that the angle left is within ±π/4.
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5·2⁵²: adding and taking it away rounds to an integer.
    let quarter = (4.0 * v + ROUND) - ROUND;
    let x = (4.0 * v - quarter) * std::f64::consts::FRAC_PI_2;
    let (sin, cos) = sin_cos(x);
    // Quarter turns: 0, 1, 2, 3 and 4.
    let swap = quarter == 1.0 || quarter == 3.0;
    let (c, s) = if swap { (sin, cos) } else { (cos, sin) };
    let c = if quarter == 1.0 || quarter == 2.0 { -c } else { c };
    let s = if quarter == 2.0 || quarter == 3.0 { -s } else { s };
    (radius * c, radius * s)
}

/// Taylor series within ±π/4.
#[inline(always)]
fn sin_cos(x: f64) -> (f64, f64) {
    let t = x * x;
    let sin = 1.0 - t / 6.0 * (1.0 - t / 20.0 * (1.0 - t / 42.0 * (1.0 - t / 72.0 * (1.0 - t / 110.0 * (1.0 - t / 156.0)))));
    let cos = 1.0 - t / 2.0 * (1.0 - t / 12.0 * (1.0 - t / 30.0 * (1.0 - t / 56.0 * (1.0 - t / 90.0 * (1.0 - t / 132.0 * (1.0 - t / 182.0))))));
    (x * sin, cos)
}

/// Natural logarithm of a normal number: ln(m·2ᵉ) = e·ln 2 + 2·artanh((m − 1)/(m + 1)), with m in [√½, √2).
#[inline(always)]
fn ln(x: f64) -> f64 {
    const SQRT_HALF: u64 = 0x3FE6_A09E_667F_3BCD;
    let shifted = x.to_bits().wrapping_sub(SQRT_HALF);
    let exponent = (shifted as i64 >> 52) as f64;
    let m = f64::from_bits((shifted & ((1 << 52) - 1)).wrapping_add(SQRT_HALF));
    let s = (m - 1.0) / (m + 1.0);
    let t = s * s;
    let mut series = 1.0 / 19.0;
    for odd in [17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        series = series * t + 1.0 / odd;
    }
    exponent * std::f64::consts::LN_2 + 2.0 * s * series
}

/// Low end and number of values.
#[derive(Clone, Copy)]
struct Integer(i64, u64);

impl Draw<i64> for Integer {
    const GROUP: usize = 2 * WIDTH;
    const COST: usize = 15;
    #[inline(always)]
    fn draw(self, words: &Words, out: &mut [i64]) {
        for (half, out) in out.chunks_exact_mut(WIDTH).enumerate() {
            for (lane, out) in out.iter_mut().enumerate() {
                *out = self.0.wrapping_add(below(wide(words, half, lane), self.1) as i64);
            }
        }
    }
}

/// All 64 bits.
#[derive(Clone, Copy)]
struct Bits;

impl Draw<i64> for Bits {
    const GROUP: usize = 2 * WIDTH;
    const COST: usize = 12;
    #[inline(always)]
    fn draw(self, words: &Words, out: &mut [i64]) {
        for (half, out) in out.chunks_exact_mut(WIDTH).enumerate() {
            for (lane, out) in out.iter_mut().enumerate() {
                *out = wide(words, half, lane) as i64;
            }
        }
    }
}

/// `on` where a word is below the threshold p·2³², so probabilities are multiples of 2⁻³².
#[derive(Clone, Copy)]
struct Bernoulli<T> {
    threshold: u64,
    on: T,
}

impl<T> Bernoulli<T> {
    fn new(p: f64, on: T) -> Self {
        Bernoulli { threshold: (p * (1u64 << 32) as f64).round() as u64, on }
    }
}

macro_rules! bernoulli {
    ($($t:ty),+) => {$(
        impl Draw<$t> for Bernoulli<$t> {
            const GROUP: usize = 4 * WIDTH;
            const COST: usize = 5;
            #[inline(always)]
            fn draw(self, words: &Words, out: &mut [$t]) {
                for (row, out) in words.iter().zip(out.chunks_exact_mut(WIDTH)) {
                    for (out, &bits) in out.iter_mut().zip(row) {
                        *out = if (bits as u64) < self.threshold { self.on } else { 0.0 };
                    }
                }
            }
        }
    )+};
}
bernoulli!(f32, f64);
