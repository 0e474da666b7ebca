//! Kernels over contiguous runs of one channel.
//!
//! Invariant: element i of a run belongs to lane `i % LANES`; lanes are summed in `T` over at most about [`TALL`] steps, then in
//! float64, and at last merged in one fixed tree.

use super::Options;
use super::layout::RUN;
use super::tiles::{TALL, pass};
use crate::kernels::simd::{Float, Isa, LANES};
use crate::simd;
use smallvec::SmallVec;

/// Two running sums over the runs of a channel.
pub(super) struct Lanes<T> {
    a1: [T; LANES],
    a2: [T; LANES],
    wide1: [f64; LANES],
    wide2: [f64; LANES],
    /// Elements per lane in `a1` and `a2`.
    steps: usize,
}

impl<T: Float> Lanes<T> {
    /// Zeros for `channels` channels.
    pub fn of(channels: usize) -> SmallVec<[Self; 1]> {
        (0..channels).map(|_| Lanes::new()).collect()
    }

    fn new() -> Self {
        Lanes { a1: [T::ZERO; LANES], a2: [T::ZERO; LANES], wide1: [0.0; LANES], wide2: [0.0; LANES], steps: 0 }
    }

    #[inline(always)]
    fn flush(&mut self) {
        for j in 0..LANES {
            self.wide1[j] += self.a1[j].to_f64();
            self.wide2[j] += self.a2[j].to_f64();
        }
        (self.a1, self.a2, self.steps) = ([T::ZERO; LANES], [T::ZERO; LANES], 0);
    }

    /// The two sums.
    fn total(mut self) -> (f64, f64) {
        self.flush();
        (tree(self.wide1), tree(self.wide2))
    }
}

/// The two sums of each channel.
pub(super) fn totals<T: Float>(lanes: SmallVec<[Lanes<T>; 1]>, s1: &mut [f64], s2: &mut [f64]) {
    for (lanes, (s1, s2)) in lanes.into_iter().zip(s1.iter_mut().zip(s2)) {
        (*s1, *s2) = lanes.total();
    }
}

fn tree(mut v: [f64; LANES]) -> f64 {
    let mut n = LANES;
    while n > 1 {
        n /= 2;
        for i in 0..n {
            v[i] += v[i + n];
        }
    }
    v[0]
}

/// What the kernels know about the channel of a run: see [`super::tiles::Channels`].
#[derive(Clone, Copy)]
pub(super) struct Channel<T> {
    pub hi: T,
    pub lo: T,
    pub invstd: T,
    pub scale: T,
    pub shift: T,
    pub relu: bool,
}

impl<T: Float> Channel<T> {
    pub fn new(options: &Options<T>, c: usize, hi: T, lo: T, invstd: T) -> Self {
        let scale = options.weight.map_or(invstd, |w| invstd * w[c]);
        Channel { hi, lo, invstd, scale, shift: options.bias.map_or(T::ZERO, |b| b[c]), relu: options.relu }
    }
}

/// The derivative through the batch statistics: dx = scale·dy + (constant + x̂·slope).
#[derive(Clone, Copy)]
pub(super) struct Pull<T> {
    pub constant: T,
    pub slope: T,
}

/// Takes every kept pair of `x` and `z` into its lane: `step(sum 1, sum 2, x, z)` answers the new sums.
#[inline(always)]
fn accumulate<T: Float>(x: &[T], z: &[T], keep: Option<&[bool]>, lanes: &mut Lanes<T>, step: impl Fn(T, T, T, T) -> (T, T) + Copy) {
    const SPAN: usize = LANES * TALL;
    for (i, (x, z)) in x.chunks(SPAN).zip(z.chunks(SPAN)).enumerate() {
        let (mut a1, mut a2) = (lanes.a1, lanes.a2);
        match keep {
            None => take(&mut a1, &mut a2, x, z, step),
            Some(keep) => take_kept(&mut a1, &mut a2, x, z, &keep[i * SPAN..][..x.len()], step),
        }
        (lanes.a1, lanes.a2) = (a1, a2);
        lanes.steps += x.len().div_ceil(LANES);
        if lanes.steps >= TALL {
            lanes.flush();
        }
    }
}

#[inline(always)]
fn take<T: Float>(a1: &mut [T; LANES], a2: &mut [T; LANES], x: &[T], z: &[T], step: impl Fn(T, T, T, T) -> (T, T) + Copy) {
    let ((x, x_rest), (z, z_rest)) = (x.as_chunks::<LANES>(), z.as_chunks::<LANES>());
    for (x, z) in x.iter().zip(z) {
        for j in 0..LANES {
            (a1[j], a2[j]) = step(a1[j], a2[j], x[j], z[j]);
        }
    }
    for (j, (&x, &z)) in x_rest.iter().zip(z_rest).enumerate() {
        (a1[j], a2[j]) = step(a1[j], a2[j], x, z);
    }
}

#[inline(always)]
fn take_kept<T: Float>(a1: &mut [T; LANES], a2: &mut [T; LANES], x: &[T], z: &[T], keep: &[bool], step: impl Fn(T, T, T, T) -> (T, T) + Copy) {
    for (at, &on) in keep.iter().enumerate() {
        let j = at % LANES;
        let (b1, b2) = step(a1[j], a2[j], x[at], z[at]);
        (a1[j], a2[j]) = if on { (b1, b2) } else { (a1[j], a2[j]) };
    }
}

/// Writes `f(i)` where kept, 0 elsewhere.
#[inline(always)]
fn write<T: Float>(keep: Option<&[bool]>, y: &mut [T], f: impl Fn(usize) -> T) {
    match keep {
        None => y.iter_mut().enumerate().for_each(|(i, y)| *y = f(i)),
        Some(keep) => {
            for (i, (y, &on)) in y.iter_mut().zip(keep).enumerate() {
                *y = if on { f(i) } else { T::ZERO };
            }
        }
    }
}

simd! {
    /// Adds Σ(x − pivot) and Σ(x − pivot)².
    pub(super) fn moments<T: Float>(x: &[T], keep: Option<&[bool]>, pivot: T, lanes: &mut Lanes<T>) {
        accumulate(x, x, keep, lanes, |a1, a2, x, _| {
            let d = x - pivot;
            (a1 + d, d.mul_add_on::<I>(d, a2))
        });
    }

    /// The same wholly in float64, for values whose squares overflow.
    pub(super) fn moments_wide<T: Float>(x: &[T], keep: Option<&[bool]>, pivot: T, lanes: &mut Lanes<T>) {
        for (i, x) in x.iter().enumerate() {
            if keep.is_none_or(|k| k[i]) {
                let d = x.to_f64() - pivot.to_f64();
                lanes.wide1[i % LANES] += d;
                lanes.wide2[i % LANES] += d * d;
            }
        }
    }

    /// y = ((x − hi) − lo)·scale + shift.
    pub(super) fn normalise<T: Float>(x: &[T], keep: Option<&[bool]>, channel: Channel<T>, y: &mut [T]) {
        let Channel { hi, lo, scale, shift, .. } = channel;
        let x = &x[..y.len()];
        let value = |i: usize| ((x[i] - hi) - lo).mul_add_on::<I>(scale, shift);
        match channel.relu {
            false => write(keep, y, value),
            true => write(keep, y, |i| value(i).relu()),
        }
    }

    /// Adds Σ dy and Σ dy·(x − m).
    pub(super) fn sums<T: Float>(dy: &[T], x: &[T], keep: Option<&[bool]>, channel: Channel<T>, lanes: &mut Lanes<T>) {
        let dy = &dy[..x.len()];
        match channel.relu {
            false => sum_terms::<I, T, false>(dy, x, keep, channel, lanes),
            true => sum_terms::<I, T, true>(dy, x, keep, channel, lanes),
        }
    }

    /// dx; statistics are constants if there is no `pull`.
    pub(super) fn gradient<T: Float>(
        dy: &[T], x: &[T], keep: Option<&[bool]>, channel: Channel<T>, pull: Option<Pull<T>>, dx: &mut [T],
    ) {
        let (dy, x) = (&dy[..dx.len()], &x[..dx.len()]);
        match (pull, channel.relu) {
            (None, false) => write(keep, dx, |i| channel.scale * dy[i]),
            (None, true) => write(keep, dx, |i| passed::<I, T, true>(channel.scale * dy[i], x[i], &channel).0),
            (Some(p), false) => write(keep, dx, |i| pulled::<I, T, false>(dy[i], x[i], &channel, p)),
            (Some(p), true) => write(keep, dx, |i| pulled::<I, T, true>(dy[i], x[i], &channel, p)),
        }
    }
}

/// [`gradient`] over dy, which `dx` holds.
pub(super) fn gradient_over<T: Float>(x: &[T], keep: Option<&[bool]>, channel: Channel<T>, pull: Option<Pull<T>>, dx: &mut [T]) {
    let mut copy = [T::ZERO; RUN];
    for (i, dx) in dx.chunks_mut(RUN).enumerate() {
        let (start, dy) = (i * RUN, &mut copy[..dx.len()]);
        dy.copy_from_slice(dx);
        gradient(dy, &x[start..], keep.map(|k| &k[start..]), channel, pull, dx);
    }
}

/// The cotangent behind the ReLU, and x − m.
#[inline(always)]
fn passed<I: Isa, T: Float, const RELU: bool>(dy: T, x: T, channel: &Channel<T>) -> (T, T) {
    let d = (x - channel.hi) - channel.lo;
    (if RELU { pass::<I, T>(dy, d, channel.scale, channel.shift) } else { dy }, d)
}

#[inline(always)]
fn sum_terms<I: Isa, T: Float, const RELU: bool>(dy: &[T], x: &[T], keep: Option<&[bool]>, channel: Channel<T>, lanes: &mut Lanes<T>) {
    accumulate(x, dy, keep, lanes, |a1, a2, x, dy| {
        let (g, d) = passed::<I, T, RELU>(dy, x, &channel);
        (a1 + g, g.mul_add_on::<I>(d, a2))
    });
}

#[inline(always)]
fn pulled<I: Isa, T: Float, const RELU: bool>(dy: T, x: T, channel: &Channel<T>, pull: Pull<T>) -> T {
    let (g, d) = passed::<I, T, RELU>(dy, x, channel);
    g.mul_add_on::<I>(channel.scale, (d * channel.invstd).mul_add_on::<I>(pull.slope, pull.constant))
}
