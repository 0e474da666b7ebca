//! Cross-entropy of logits x with class numbers t, per row, with class weights w and label smoothing s (Szegedy et al. 2016):
//!
//! ```text
//! q = log Σeˣ − x,  loss = (1 − s)·w_t·q_t + s/C·Σ_c w_c·q_c
//! dx_j = dy·(((1 − s)·w_t + s/C·Σ_c w_c)·softmax(x)_j − (1 − s)·w_t·[j = t] − s/C·w_j)
//! ```
//!
//! Invariant: a row of the ignored class has loss 0 and gradient 0 whatever it holds.

use super::order::{Grouped, LONGEST, Order, Staggered, comes_from_afar, stages};
use super::softmax::narrow_log_sums;
use super::{W, map, narrow, peak, rows_per_part, shared, sum};
use crate::kernels::math::Math;
use crate::kernels::parallel::{Chunks, drive, for_chunks};
use crate::kernels::simd::{Float, Isa};
use crate::simd;

/// Rough cost of one element in tenths of a nanosecond.
const COST: usize = 6;

/// What the rows are compared with. Targets are in range or `ignore`.
#[derive(Clone, Copy, Debug)]
pub struct Classes<'a, T> {
    pub target: &'a [i64],
    /// w of shape (C,); 1 if absent.
    pub weight: Option<&'a [T]>,
    pub smoothing: f64,
    /// The class whose rows do not count.
    pub ignore: i64,
}

impl<T: Float> Classes<'_, T> {
    #[inline(always)]
    fn weight_of(&self, target: i64) -> T {
        match self.weight {
            _ if target == self.ignore => T::ZERO,
            Some(w) => w[target as usize],
            None => T::ONE,
        }
    }

    /// Σ of the weights of all rows that count.
    pub fn total_weight(&self) -> f64 {
        match self.weight {
            None => self.target.iter().filter(|&&t| t != self.ignore).count() as f64,
            Some(_) => self.target.iter().map(|&t| self.weight_of(t).to_f64()).sum(),
        }
    }

    fn rows(&self, first: usize, n: usize) -> Self {
        Classes { target: &self.target[first..first + n], ..*self }
    }
}

/// dy of the rows' losses.
#[derive(Clone, Copy, Debug)]
pub enum Scale<'a, T> {
    /// One for all rows: the loss is a multiple of their sum.
    All(T),
    Each(&'a [T]),
}

/// How a loss is shared out between the target and all classes.
struct Shares<T> {
    /// 1 − s
    target: T,
    /// s/C
    each: T,
    /// s/C·Σw
    all: T,
    /// The row w that smoothing spreads over; there only when s > 0.
    weights: Option<Vec<T>>,
}

impl<T: Float> Shares<T> {
    fn of(c: usize, classes: &Classes<'_, T>) -> Self {
        let weights = (classes.smoothing > 0.0).then(|| shared(c, classes.weight, T::ONE));
        let total = weights.as_ref().map_or(0.0, |w| w[..c].iter().map(|w| w.to_f64()).sum());
        let (target, each) = (T::from_f64(1.0 - classes.smoothing), T::from_f64(classes.smoothing / c as f64));
        Shares { target, each, all: each * T::from_f64(total), weights }
    }
}

/// The losses of rows whose largest logits and sums are known.
#[inline(always)]
fn losses_of<I: Isa, T: Math>(c: usize, x: &[T], classes: &Classes<'_, T>, shares: &Shares<T>, losses: &mut [T], stats: &[[T; 2]]) {
    // All logarithms at once, at full width.
    for (loss, [_, total]) in losses.iter_mut().zip(stats.iter()) {
        *loss = total.log_on::<I>();
    }
    for (r, (loss, &[peak, _])) in losses.iter_mut().zip(stats.iter()).enumerate() {
        let (x, target, log_total) = (&x[r * c..], classes.target[r], *loss);
        if target == classes.ignore {
            *loss = T::ZERO;
            continue;
        }
        *loss = shares.target * classes.weight_of(target) * (log_total - (x[target as usize] - peak));
        if let Some(weights) = &shares.weights {
            *loss += shares.each * T::from_f64(sum(c, [x, weights], |[x, w]| w * (log_total - (x - peak))));
        }
    }
}

simd! {
    fn forward_part<T: Math, O: Order>(c: usize, x: &[T], classes: &Classes<'_, T>, shares: &Shares<T>, losses: &mut [T], stats: &mut [[T; 2]]) {
        stages!(
            O,
            c,
            stats.len(),
            |r| {
                O::ask(&x[r * c..], c);
                stats[r][0] = peak(c, &x[r * c..]);
            },
            {
                let peak = stats[r][0];
                stats[r][1] = T::from_f64(sum(c, [&x[r * c..]], |[x]| (x - peak).exp_down_on::<I>()));
            }
        );
        losses_of::<I, T>(c, x, classes, shares, losses, stats);
    }

    /// The same of short rows.
    fn narrow_forward_part<T: Math>(c: usize, x: &[T], classes: &Classes<'_, T>, shares: &Shares<T>, losses: &mut [T], stats: &mut [[T; 2]]) {
        narrow::read(c, x, |first, x| {
            let (peaks, totals) = narrow_log_sums::<I, T>(x);
            for (l, stats) in stats[first..].iter_mut().take(W).enumerate() {
                *stats = [peaks[l], totals[l]];
            }
        });
        losses_of::<I, T>(c, x, classes, shares, losses, stats);
    }

    fn backward_part<T: Math, O: Order>(
        c: usize, x: &[T], classes: &Classes<'_, T>, shares: &Shares<T>, scale: Scale<'_, T>, stats: &[[T; 2]], dx: &mut [T],
    ) {
        for (r, &[peak, total]) in stats.iter().enumerate() {
            let (x, dx, target) = (&x[r * c..], &mut dx[r * c..], classes.target[r]);
            O::ask(x, c);
            O::claim(dx, c);
            if target == classes.ignore {
                dx[..c].fill(T::ZERO);
                continue;
            }
            let dy = match scale {
                Scale::All(dy) => dy,
                Scale::Each(dy) => dy[r],
            };
            let own = dy * shares.target * classes.weight_of(target);
            let factor = (own + dy * shares.all) / total;
            match &shares.weights {
                None => map(c, [x], dx, |[x]| factor * (x - peak).exp_down_on::<I>()),
                Some(w) => map(c, [x, w], dx, |[x, w]| factor * (x - peak).exp_down_on::<I>() - dy * shares.each * w),
            }
            dx[target as usize] -= own;
        }
    }
}

/// Writes the loss of every row of `c` logits to `losses`, and its largest logit m and Σe^(x − m) to `stats`.
pub fn cross_entropy<T: Math>(x: &[T], c: usize, classes: &Classes<'_, T>, losses: &mut [T], stats: &mut [[T; 2]]) {
    if x.is_empty() {
        return;
    }
    let (chunk, shares) = (rows_per_part(c), Shares::of(c, classes));
    let part = match c {
        _ if c < narrow::WIDE => narrow_forward_part,
        _ if c <= LONGEST => forward_part::<T, Staggered>,
        _ => forward_part::<T, Grouped>,
    };
    let parts = (Chunks { slice: losses, chunk }, Chunks { slice: stats, chunk });
    drive(parts, x.len().saturating_mul(COST) / 10, |first, (losses, stats)| {
        // Chunk by chunk, so that the targets' logits are still near when the sums are there.
        for (i, (losses, stats)) in losses.slice.chunks_mut(chunk).zip(stats.slice.chunks_mut(chunk)).enumerate() {
            let (first, n) = ((first + i) * chunk, losses.len());
            part(c, &x[first * c..][..n * c], &classes.rows(first, n), &shares, losses, stats);
        }
    });
}

/// Writes the gradient of every row to `dx`; `stats` is what the forward wrote.
pub fn cross_entropy_backward<T: Math>(x: &[T], c: usize, classes: &Classes<'_, T>, scale: Scale<'_, T>, stats: &[[T; 2]], dx: &mut [T]) {
    if x.is_empty() {
        return;
    }
    let (chunk, shares) = (rows_per_part(c), Shares::of(c, classes));
    let part = if comes_from_afar::<T>(c, x.len()) { backward_part::<T, Staggered> } else { backward_part::<T, Grouped> };
    for_chunks(dx, chunk * c, x.len().saturating_mul(COST) / 10, |i, dx| {
        let (first, n) = (i * chunk, dx.len() / c);
        let scale = match scale {
            Scale::Each(dy) => Scale::Each(&dy[first..first + n]),
            all => all,
        };
        part(c, &x[first * c..][..n * c], &classes.rows(first, n), &shares, scale, &stats[first..first + n], dx);
    });
}
