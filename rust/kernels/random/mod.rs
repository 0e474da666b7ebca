//! Random numbers by counter: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
//!
//! Invariant: element i of a fill depends on (seed, counter, i) alone, through integers and operations that IEEE 754 rounds
//! exactly (no fused multiply-add), so every thread count, instruction set and platform gives the same bits.
//!
//! Each counter gives four words, and they one, two or four numbers. Number i of counter c in a group of `WIDTH` counters is
//! number i·WIDTH + c of the group.

mod draws;

use super::simd::Float;
use super::{map, parallel};
use crate::array::{Array, DType, Dims, Element};
use crate::{Error, Result, bail, simd, with_float};
use draws::{Bernoulli, Bits, Draw, Integer, Normal, Uniform, below};

/// Counters of one group: what a vector register holds of 32-bit words.
const WIDTH: usize = 16;
/// Groups of one unit of parallel work.
const UNIT: usize = 64;

/// Numbers that are drawn: the generator has moved on, so that nobody waits for it while they are computed.
pub struct Drawing<'a>(Box<dyn FnOnce() -> Result<Array> + Send + 'a>);

impl<'a> Drawing<'a> {
    fn new(compute: impl FnOnce() -> Result<Array> + Send + 'a) -> Drawing<'a> {
        Drawing(Box::new(compute))
    }

    pub fn compute(self) -> Result<Array> {
        (self.0)()
    }
}

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

    /// Uses up the counters of `n` numbers; where they start.
    fn take<T, D: Draw<T>>(&mut self, n: usize) -> Generator {
        let start = *self;
        self.skip((n.div_ceil(D::GROUP) * WIDTH) as u64);
        start
    }

    /// Runs `f(seed, first counter, first element, chunk)` over `out`, whose numbers start here.
    fn for_units<T: Element, D: Draw<T>>(self, out: &mut [T], f: impl Fn(u64, u64, usize, &mut [T]) + Sync) {
        parallel::for_chunks(out, UNIT * D::GROUP, out.len() * D::COST / 10, |i, out| {
            f(self.seed, self.counter.wrapping_add((i * UNIT * WIDTH) as u64), i * UNIT * D::GROUP, out);
        });
    }

    fn fill<T: Element, D: Draw<T>>(self, draw: D, out: &mut [T]) {
        self.for_units::<T, D>(out, |seed, counter, _, out| fill_groups(draw, seed, counter, out));
    }

    fn array<T: Element, D: Draw<T> + Send + 'static>(&mut self, shape: Dims, draw: D) -> Result<Drawing<'static>> {
        let mut out = Array::unfilled(T::DTYPE, shape)?;
        let start = self.take::<T, D>(out.size());
        Ok(Drawing::new(move || {
            start.fill(draw, out.fresh::<T>());
            Ok(out)
        }))
    }

    /// Uniform in low..high (float32 or float64).
    pub fn uniform(&mut self, shape: Dims, low: f64, high: f64, dtype: DType) -> Result<Drawing<'static>> {
        let refused = || Error::Value(format!("uniform: expected bounds in order at a distance that {dtype} holds, got low {low} and high {high}"));
        match dtype {
            DType::F32 => self.array(shape, Uniform::<f32>::new(low, high).ok_or_else(refused)?),
            DType::F64 => self.array(shape, Uniform::<f64>::new(low, high).ok_or_else(refused)?),
            other => bail!(Type, "uniform: expected float32 or float64, got {other}"),
        }
    }

    /// Normally distributed (float32 or float64).
    pub fn normal(&mut self, shape: Dims, mean: f64, std: f64, dtype: DType) -> Result<Drawing<'static>> {
        if !(mean.is_finite() && std.is_finite() && std >= 0.0) {
            bail!(Value, "normal: expected a finite mean and a standard deviation of at least 0, got {mean} and {std}");
        }
        match dtype {
            DType::F32 => self.array::<f32, _>(shape, Normal(mean, std)),
            DType::F64 => self.array::<f64, _>(shape, Normal(mean, std)),
            other => bail!(Type, "normal: expected float32 or float64, got {other}"),
        }
    }

    /// Integers (int64) uniform in low..high.
    pub fn integers(&mut self, shape: Dims, low: i64, high: i64) -> Result<Drawing<'static>> {
        if low >= high {
            bail!(Value, "randint: expected low below high, got {low} and {high}");
        }
        self.array(shape, Integer(low, high.wrapping_sub(low) as u64))
    }

    /// `on` with probability p, otherwise zero.
    pub fn bernoulli(&mut self, shape: Dims, p: f64, on: f64, dtype: DType) -> Result<Drawing<'static>> {
        check_probability("bernoulli", p)?;
        match dtype {
            DType::F32 => self.array::<f32, _>(shape, Bernoulli::new(p, on)),
            DType::F64 => self.array::<f64, _>(shape, Bernoulli::new(p, on)),
            other => bail!(Type, "bernoulli: expected float32 or float64, got {other}"),
        }
    }

    /// x/(1 − p) where a Bernoulli draw keeps it, and zero elsewhere, with probability p (Srivastava et al. 2014).
    pub fn dropout<'a>(&mut self, x: &'a Array, p: f64) -> Result<Drawing<'a>> {
        check_probability("dropout", p)?;
        with_float!(x.dtype(), T => Ok(self.scaled::<T, _>(x, Bernoulli::<T>::new(1.0 - p, 1.0 / (1.0 - p)))),
            else bail!(Type, "dropout: expected float32 or float64, got {}", x.dtype()))
    }

    /// x times what is drawn, in one sweep; zero where zero is drawn, whatever x is.
    fn scaled<'a, T: Float, D: Draw<T> + Send + 'a>(&mut self, x: &'a Array, draw: D) -> Drawing<'a> {
        let start = self.take::<T, D>(x.size());
        Drawing::new(move || {
            let (x, mut out) = (map::contiguous(x)?, Array::unfilled(T::DTYPE, *x.shape())?);
            let x = x.as_slice::<T>().expect("contiguous");
            start.for_units::<T, D>(out.fresh(), |seed, counter, from, out| scale_groups(draw, seed, counter, &x[from..from + out.len()], out));
            Ok(out)
        })
    }

    /// The numbers 0..n (int64) in random order (Fisher and Yates).
    pub fn permutation(&mut self, n: usize) -> Result<Drawing<'static>> {
        let shape = Dims::new(&[n])?;
        let (draws, mut out) = (self.array(shape, Bits)?, Array::unfilled(DType::I64, shape)?);
        Ok(Drawing::new(move || {
            let draws = draws.compute()?;
            let (draws, order) = (draws.as_slice::<i64>().expect("contiguous"), out.fresh::<i64>());
            order.iter_mut().enumerate().for_each(|(i, x)| *x = i as i64);
            for i in (1..n).rev() {
                order.swap(i, below(draws[i] as u64, i as u64 + 1) as usize);
            }
            Ok(out)
        }))
    }
}

/// `op` names the operation in the error.
pub fn check_probability(op: &str, p: f64) -> Result<()> {
    if !(0.0..=1.0).contains(&p) {
        bail!(Value, "{op}: expected a probability in [0, 1], got {p}");
    }
    Ok(())
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
