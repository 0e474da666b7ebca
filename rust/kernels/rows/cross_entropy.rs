//! Cross-entropy of logits x with class numbers t, per row, with class weights w and label smoothing s (Szegedy et al. 2016):
//!
//! ```text
//! q = log Σeˣ − x,  loss = (1 − s)·w_t·q_t + s/C·Σ_c w_c·q_c
//! dx_j = dy·(((1 − s)·w_t + s/C·Σ_c w_c)·softmax(x)_j − (1 − s)·w_t·[j = t] − s/C·w_j)
//! ```
//!
//! Invariant: a row of the ignored class has loss 0 and gradient 0 whatever it holds.

use super::{Form, Tile, map};
use crate::kernels::math::Math;
use crate::kernels::parallel::{Chunks, drive, for_chunks};
use crate::kernels::simd::{Float, LANES};
use crate::simd;

/// Rough cost of one element in tenths of a nanosecond.
const COST: usize = 10;

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

/// (1 − s), s/C and the row w that smoothing spreads over; the row is only there to be read when s > 0.
fn parts_of<T: Float>(form: Form, classes: &Classes<'_, T>) -> (T, T, Option<Tile<T>>) {
    let weights = (classes.smoothing > 0.0).then(|| form.shared(classes.weight, T::ONE));
    (T::from_f64(1.0 - classes.smoothing), T::from_f64(classes.smoothing / form.c as f64), weights)
}

simd! {
    fn forward_part<T: Math>(full: Form, x: &[T], classes: &Classes<'_, T>, losses: &mut [T], stats: &mut [[T; 2]]) {
        let (mut tile, mut spread, mut logs) = (full.tile(), full.operand(), full.operand());
        let (keep, share, weights) = parts_of(full, classes);
        let parts = x.chunks(full.size()).zip(classes.target.chunks(full.rows));
        for ((x, target), (losses, stats)) in parts.zip(losses.chunks_mut(full.rows).zip(stats.chunks_mut(full.rows))) {
            let form = full.of(x.len());
            let (_, peak, wide) = form.exponentials::<T, I>(x, &mut tile, &mut spread);
            let total = form.numbers(|r| T::from_f64(wide[r]));
            let log_total = form.numbers(|r| total[r].log_on::<I>());
            let mut even = [0.0; LANES];
            if let Some(weights) = &weights {
                let tile = form.load(x, &mut tile);
                map(tile, [form.spread(&peak, &mut spread), form.spread(&log_total, &mut logs)], |x, [peak, log]| log - (x - peak));
                form.pad(tile, T::ZERO);
                even = form.sum(tile, weights, |q, w| w * q);
            }
            for (r, (((row, &t), loss), stats)) in x.chunks_exact(form.c).zip(target).zip(losses).zip(stats).enumerate().take(LANES) {
                *stats = [peak[r], total[r]];
                *loss = T::ZERO;
                if t != classes.ignore {
                    let own = log_total[r] - (row[t as usize] - peak[r]);
                    *loss = keep * classes.weight_of(t) * own + share * T::from_f64(even[r]);
                }
            }
        }
    }

    fn backward_part<T: Math>(full: Form, x: &[T], classes: &Classes<'_, T>, scale: Scale<'_, T>, stats: &[[T; 2]], dx: &mut [T]) {
        let (mut tile, mut peaks, mut factors) = (full.tile(), full.operand(), full.operand());
        let (keep, share, weights) = parts_of(full, classes);
        let even = weights.as_ref().map_or(0.0, |w| w.as_flattened()[..full.c].iter().map(|w| w.to_f64()).sum());
        let even = share * T::from_f64(even);
        let parts = x.chunks(full.size()).zip(dx.chunks_mut(full.size())).zip(classes.target.chunks(full.rows).zip(stats.chunks(full.rows)));
        for (i, ((x, dx), (target, stats))) in parts.enumerate() {
            let form = full.of(x.len());
            let (mut peak, mut total) = ([T::ZERO; LANES], [T::ONE; LANES]);
            let (mut dy, mut own) = ([T::ZERO; LANES], [T::ZERO; LANES]);
            for (r, (&t, stats)) in target.iter().zip(stats).enumerate().take(LANES) {
                [peak[r], total[r]] = *stats;
                dy[r] = match scale {
                    Scale::All(dy) => dy,
                    Scale::Each(dy) => dy[i * full.rows + r],
                };
                own[r] = dy[r] * keep * classes.weight_of(t);
            }
            let factor = form.numbers(|r| (own[r] + dy[r] * even) / total[r]);
            let tile = form.load(x, &mut tile);
            map(tile, [form.spread(&peak, &mut peaks), form.spread(&factor, &mut factors)], |x, [peak, factor]| factor * (x - peak).exp_on::<I>());
            if let Some(weights) = &weights {
                let dy = form.numbers(|r| dy[r] * share);
                map(tile, [weights, form.spread(&dy, &mut factors)], |dx, [w, dy]| dx - dy * w);
            }
            form.store(tile, dx);
            for (r, (row, &t)) in dx.chunks_exact_mut(form.c).zip(target).enumerate().take(LANES) {
                if t == classes.ignore {
                    row.fill(T::ZERO);
                } else {
                    row[t as usize] -= own[r];
                }
            }
        }
    }
}

/// Writes the loss of every row of `c` logits to `losses`, and its largest logit m and Σe^(x − m) to `stats`.
pub fn cross_entropy<T: Math>(x: &[T], c: usize, classes: &Classes<'_, T>, losses: &mut [T], stats: &mut [[T; 2]]) {
    if x.is_empty() {
        return;
    }
    let form = Form::new(c);
    let chunk = form.rows_per_part();
    let parts = (Chunks { slice: losses, chunk }, Chunks { slice: stats, chunk });
    drive(parts, x.len().saturating_mul(COST) / 10, |first, (losses, stats)| {
        let (first, n) = (first * chunk, losses.slice.len());
        forward_part(form, &x[first * c..][..n * c], &classes.rows(first, n), losses.slice, stats.slice);
    });
}

/// Writes the gradient of every row to `dx`; `stats` is what the forward wrote.
pub fn cross_entropy_backward<T: Math>(x: &[T], c: usize, classes: &Classes<'_, T>, scale: Scale<'_, T>, stats: &[[T; 2]], dx: &mut [T]) {
    if x.is_empty() {
        return;
    }
    let form = Form::new(c);
    let chunk = form.rows_per_part();
    for_chunks(dx, chunk * c, x.len().saturating_mul(COST) / 10, |i, dx| {
        let (first, n) = (i * chunk, dx.len() / c);
        let scale = match scale {
            Scale::Each(dy) => Scale::Each(&dy[first..first + n]),
            all => all,
        };
        backward_part(form, &x[first * c..][..n * c], &classes.rows(first, n), scale, &stats[first..first + n], dx);
    });
}
