//! Batch statistics: from shifted sums to mean, variance and 1 / sqrt(variance + eps).

use super::runs::Channel;
use super::tiles::Channels;
use super::{Options, SPAN};
use crate::array::filled;
use crate::kernels::math::inverse_root;
use crate::kernels::parallel::{self, Blocks, Chunks};
use crate::kernels::simd::Float;
use crate::{Result, simd};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::ops::Range;
use std::slice::from_mut;

/// Columns that one unit of parallel work merges.
const MERGED: usize = 512;

/// Statistics per channel. `hi + lo` is the mean to twice the precision of `T`: a single float32 mean of values around
/// 1e5 is off by 2.5e-3.
#[derive(Clone, Debug, Default)]
pub struct Stats<T> {
    pub hi: Vec<T>,
    pub lo: Vec<T>,
    /// 1 / sqrt(variance + eps).
    pub invstd: Vec<T>,
    pub mean: Vec<f64>,
    /// Biased.
    pub var: Vec<f64>,
    /// Positions that went into each channel.
    pub count: usize,
}

impl<T: Float> Stats<T> {
    pub fn new(c: usize) -> Result<Self> {
        let (zeros, wide) = (|| filled(c, T::ZERO), || filled(c, 0.0));
        Ok(Stats { hi: zeros()?, lo: zeros()?, invstd: zeros()?, mean: wide()?, var: wide()?, count: 0 })
    }

    /// r ← (1 − factor)·r + factor·batch, of the mean and of `spread` times the variance, in channels where both come out finite.
    /// Returns the number of others.
    pub fn blend<R: Float>(&self, factor: f64, spread: f64, mean: &mut [R], var: &mut [R]) -> usize {
        let blend = |old: R, new: f64| R::from_f64((1.0 - factor) * old.to_f64() + factor * new);
        let mut broken = 0;
        for (i, (mean, var)) in mean.iter_mut().zip(var).enumerate() {
            let (next_mean, next_var) = (blend(*mean, self.mean[i]), blend(*var, self.var[i] * spread));
            if next_mean.is_finite() && next_var.is_finite() {
                (*mean, *var) = (next_mean, next_var);
            } else {
                broken += 1;
            }
        }
        broken
    }

    pub(super) fn known(&self) -> Known<'_, T> {
        Known { hi: &self.hi, lo: &self.lo, invstd: &self.invstd, count: self.count }
    }

    pub(super) fn parts(&mut self, chunk: usize) -> StatsMut<'_, T> {
        let Stats { hi, lo, invstd, mean, var, .. } = self;
        StatsMut { hi, lo, invstd, mean, var, chunk }
    }
}

/// Statistics as sweeps need them: see [`Stats`].
#[derive(Clone, Copy)]
pub(super) struct Known<'a, T> {
    hi: &'a [T],
    lo: &'a [T],
    pub invstd: &'a [T],
    pub count: usize,
}

impl<'a, T: Float> Known<'a, T> {
    /// Of given statistics, such as running ones; what follows from them goes to `place`.
    pub fn given(mean: &'a [T], var: &[T], eps: f64, place: &'a mut Few<T>) -> Self {
        place.reserve(2 * mean.len());
        place.resize(mean.len(), T::ZERO);
        place.extend_from_slice(var);
        let (lo, invstd) = place.split_at_mut(mean.len());
        invert(invstd, eps);
        Known { hi: mean, lo, invstd, count: 0 }
    }

    /// Per column of a matrix with `l` columns per channel.
    pub fn columns(self, options: &Options<'a, T>, at: Range<usize>, l: usize) -> Columns<'a, T> {
        let (hi, lo, invstd) = (&self.hi[at.clone()], &self.lo[at.clone()], &self.invstd[at.clone()]);
        Columns::new(options, at, l, hi, lo, invstd)
    }

    pub fn channel(self, options: &Options<T>, c: usize) -> Channel<T> {
        Channel::new(options, c, self.hi[c], self.lo[c], self.invstd[c])
    }
}

/// Every value `l` times over.
pub(in crate::kernels) fn expand<T: Copy>(v: &[T], l: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(v.len() * l);
    v.iter().for_each(|&v| out.extend(std::iter::repeat_n(v, l)));
    out
}

/// Values per column, on the stack where columns are few: not so many that it costs more to move them.
pub(super) type Few<T> = SmallVec<[T; 64]>;

/// What a sweep needs to know of every column of a matrix whose channels have `l` columns each.
pub(super) struct Columns<'a, T: Float> {
    hi: Cow<'a, [T]>,
    lo: Cow<'a, [T]>,
    invstd: Cow<'a, [T]>,
    scale: Few<T>,
    shift: Cow<'a, [T]>,
    relu: bool,
}

impl<'a, T: Float> Columns<'a, T> {
    /// Of the channels `at`, whose statistics are given.
    pub fn new(options: &Options<'a, T>, at: Range<usize>, l: usize, hi: &'a [T], lo: &'a [T], invstd: &'a [T]) -> Self {
        let each = |v: &'a [T]| if l == 1 { Cow::from(v) } else { Cow::from(expand(v, l)) };
        let [hi, lo, invstd] = [hi, lo, invstd].map(each);
        let mut scale = Few::new();
        match options.weight.map(|w| each(&w[at.clone()])) {
            Some(w) => scale.extend(invstd.iter().zip(w.iter()).map(|(&s, &w)| s * w)),
            None => scale.extend_from_slice(&invstd),
        }
        let shift = match options.bias {
            Some(b) => each(&b[at]),
            None => Cow::from(vec![T::ZERO; invstd.len()]),
        };
        Columns { hi, lo, invstd, scale, shift, relu: options.relu }
    }

    pub fn all(&self) -> Channels<'_, T> {
        let Columns { hi, lo, invstd, scale, shift, relu } = self;
        Channels { hi, lo, invstd, scale, shift, relu: *relu }
    }
}

/// Adds up the blocks of `partials`, each two sums of `s1.len() * l` columns, in index order, then the `l` columns of each channel.
pub(super) fn merge(partials: &[f64], l: usize, s1: &mut [f64], s2: &mut [f64]) {
    let cols = s1.len() * l;
    let chunk = MERGED.div_ceil(l);
    let parts = (Chunks { slice: s1, chunk }, Chunks { slice: s2, chunk });
    parallel::drive(parts, partials.len(), |first, (s1, s2)| {
        for (half, s) in [(0, s1.slice), (cols, s2.slice)] {
            let from = half + first * chunk * l;
            for block in partials.chunks_exact(2 * cols) {
                if l == 1 {
                    s.iter_mut().zip(&block[from..]).for_each(|(total, column)| *total += column);
                } else {
                    s.iter_mut().zip(block[from..].chunks_exact(l)).for_each(|(total, columns)| *total += columns.iter().sum::<f64>());
                }
            }
        }
    });
}

/// Two sums of every channel: `sum(c, span, s1, s2)` adds up those of a span of its positions, and spans are merged in order.
pub(super) fn sum_spans(positions: usize, work_ns: usize, s1: &mut [f64], s2: &mut [f64], sum: impl Fn(usize, Range<usize>, &mut [f64], &mut [f64]) + Sync) {
    let spans = positions.div_ceil(SPAN);
    let mut partials = vec![(0.0, 0.0); s1.len() * spans];
    parallel::for_chunks(&mut partials, 1, work_ns, |i, sums| {
        let (c, at) = (i / spans, i % spans * SPAN);
        let (s1, s2) = &mut sums[0];
        sum(c, at..(at + SPAN).min(positions), from_mut(s1), from_mut(s2));
    });
    for (c, sums) in partials.chunks(spans).enumerate() {
        (s1[c], s2[c]) = sums.iter().fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
    }
}

/// Statistics to be filled, in chunks of channels. While sums are gathered `hi` holds the pivots, `mean` Σ(x − pivot) and
/// `var` Σ(x − pivot)².
pub(super) struct StatsMut<'a, T> {
    pub hi: &'a mut [T],
    pub lo: &'a mut [T],
    pub invstd: &'a mut [T],
    pub mean: &'a mut [f64],
    pub var: &'a mut [f64],
    pub chunk: usize,
}

impl<T: Float> StatsMut<'_, T> {
    pub fn chunk_mut(&mut self, i: usize) -> StatsMut<'_, T> {
        let first = (i * self.chunk).min(self.hi.len());
        let part = first..(first + self.chunk).min(self.hi.len());
        StatsMut {
            hi: &mut self.hi[part.clone()],
            lo: &mut self.lo[part.clone()],
            invstd: &mut self.invstd[part.clone()],
            mean: &mut self.mean[part.clone()],
            var: &mut self.var[part],
            chunk: self.chunk,
        }
    }
}

impl<T: Float> Blocks for StatsMut<'_, T> {
    fn count(&self) -> usize {
        self.hi.len().div_ceil(self.chunk)
    }
    fn split_at(self, mid: usize) -> (Self, Self) {
        let at = (mid * self.chunk).min(self.hi.len());
        let (hi, lo, invstd) = (self.hi.split_at_mut(at), self.lo.split_at_mut(at), self.invstd.split_at_mut(at));
        let (mean, var, chunk) = (self.mean.split_at_mut(at), self.var.split_at_mut(at), self.chunk);
        (
            StatsMut { hi: hi.0, lo: lo.0, invstd: invstd.0, mean: mean.0, var: var.0, chunk },
            StatsMut { hi: hi.1, lo: lo.1, invstd: invstd.1, mean: mean.1, var: var.1, chunk },
        )
    }
}

/// Eight positions spread over `0..len` whose mean makes the pivot: each the first kept one from its place on.
pub(super) fn spread(len: usize, mask: Option<&[bool]>) -> [usize; 8] {
    std::array::from_fn(|i| {
        let at = i * len / 8;
        mask.and_then(|keep| (at..len).chain(0..at).find(|&p| keep[p])).unwrap_or(at)
    })
}

/// Mean of eight values, exact if they are equal.
#[inline(always)]
pub(super) fn mean_of_eight<T: Float>(x: [T; 8]) -> T {
    let [a, b, c, d, e, f, g, h] = x;
    (((a + b) + (c + d)) + ((e + f) + (g + h))) * T::from_f64(0.125)
}

/// Fills statistics from sums that `gather(wide, pivots, Σ(x − pivot), Σ(x − pivot)²)` adds up, the pivots being set already.
/// They are gathered again, around the mean found, if a pivot was more than four standard deviations off (cancellation), and
/// wholly in float64 if they overflowed.
pub(super) fn settle<T: Float>(stats: &mut StatsMut<T>, count: usize, eps: f64, mut gather: impl FnMut(bool, &[T], &mut [f64], &mut [f64])) {
    let (mut wide, mut again) = (false, false);
    loop {
        stats.mean.fill(0.0);
        stats.var.fill(0.0);
        gather(wide, stats.hi, stats.mean, stats.var);
        let (finite, near) = finish(count as f64, eps, stats.hi, stats.lo, stats.invstd, stats.mean, stats.var);
        if wide || (finite && (near || again)) {
            return;
        }
        (wide, again) = (!finite, true);
        stats.hi.iter_mut().filter(|p| !p.is_finite()).for_each(|p| *p = T::ZERO);
    }
}

simd! {
    /// v ← 1 / sqrt(v + eps).
    fn invert<T: Float>(v: &mut [T], eps: f64) {
        for v in v.iter_mut() {
            *v = inverse_root(v.to_f64() + eps);
        }
    }

    /// Turns pivots and sums into statistics in place. Returns whether all are finite, and all pivots near their means.
    fn finish<T: Float>(
        count: f64, eps: f64, hi: &mut [T], lo: &mut [T], invstd: &mut [T], mean: &mut [f64], var: &mut [f64],
    ) -> (bool, bool) {
        let c = hi.len();
        let (lo, invstd, mean, var) = (&mut lo[..c], &mut invstd[..c], &mut mean[..c], &mut var[..c]);
        let (mut wild, mut far) = (0u64, 0u64);
        let part = 1.0 / count;
        for j in 0..c {
            let shift = mean[j] * part;
            let v = (var[j] - mean[j] * shift) * part;
            let v = if v < 0.0 { 0.0 } else { v };
            let pivot = hi[j].to_f64();
            let m = pivot + shift;
            wild |= (!v.is_finite() | !m.is_finite()) as u64;
            far |= (shift * shift > 16.0 * v) as u64;
            hi[j] = T::from_f64(m);
            lo[j] = T::from_f64((pivot - hi[j].to_f64()) + shift);
            invstd[j] = inverse_root(v + eps);
            mean[j] = m;
            var[j] = v;
        }
        (wild == 0, far == 0)
    }
}
