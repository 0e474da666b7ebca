//! Cross-entropy of logits x with class numbers t, per row, with class weights w and label smoothing s (Szegedy et al. 2016):
//!
//! ```text
//! q = log Σeˣ − x,  loss = (1 − s)·w_t·q_t + s/C·Σ_c w_c·q_c
//! dx_j = dy·(((1 − s)·w_t + s/C·Σ_c w_c)·softmax(x)_j − (1 − s)·w_t·[j = t] − s/C·w_j)
//! ```
//!
//! Invariant: a row of the ignored class has loss 0 and gradient 0 whatever it holds.

use super::softmax::total_exp;
use super::{Form, lanes, map, sum, update};
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

simd! {
    fn forward_part<T: Math>(form: Form, x: &[T], classes: &Classes<'_, T>, losses: &mut [T], stats: &mut [[T; 2]]) {
        let (mut tile, rows) = (form.tile(), form.rows());
        let weights = if classes.smoothing > 0.0 { form.shared(classes.weight, T::ONE) } else { form.tile() };
        let (keep, share) = (T::from_f64(1.0 - classes.smoothing), T::from_f64(classes.smoothing / form.c as f64));
        let parts = x.chunks(rows * form.c).zip(classes.target.chunks(rows));
        for ((x, target), (losses, stats)) in parts.zip(losses.chunks_mut(rows).zip(stats.chunks_mut(rows))) {
            form.load(x, &mut tile);
            form.pad(&mut tile, -T::INFINITY);
            let peak = form.peak(&tile);
            map(&mut tile, |r, x| x - peak[r]);
            let total = total_exp::<T, I>(form, &tile);
            let log_total = lanes(|r| total[r].log_on::<I>());
            let mut even = [T::ZERO; LANES];
            if classes.smoothing > 0.0 {
                form.pad(&mut tile, T::ZERO);
                let spread = form.total(sum(&tile, &weights, |r, x, w| w * (log_total[r] - x)));
                even = lanes(|r| T::from_f64(spread[r]));
            }
            for (r, (((row, &t), loss), stats)) in x.chunks_exact(form.c).zip(target).zip(losses).zip(stats).enumerate().take(LANES) {
                *stats = [peak[r], total[r]];
                *loss = T::ZERO;
                if t != classes.ignore {
                    let own = log_total[r] - (row[t as usize] - peak[r]);
                    *loss = keep * classes.weight_of(t) * own + share * even[r];
                }
            }
        }
    }

    fn backward_part<T: Math>(form: Form, x: &[T], classes: &Classes<'_, T>, scale: Scale<'_, T>, stats: &[[T; 2]], dx: &mut [T]) {
        let (mut tile, rows) = (form.tile(), form.rows());
        let smooth = classes.smoothing > 0.0;
        let weights = if smooth { form.shared(classes.weight, T::ONE) } else { form.tile() };
        let even = if smooth { classes.weight.map_or(form.c as f64, |w| w.iter().map(|w| w.to_f64()).sum()) } else { 0.0 };
        let (keep, share) = (T::from_f64(1.0 - classes.smoothing), T::from_f64(classes.smoothing / form.c as f64));
        let even = share * T::from_f64(even);
        let parts = x.chunks(rows * form.c).zip(dx.chunks_mut(rows * form.c)).zip(classes.target.chunks(rows).zip(stats.chunks(rows)));
        for (i, ((x, dx), (target, stats))) in parts.enumerate() {
            let (mut dy, mut own, mut factor) = ([T::ZERO; LANES], [T::ZERO; LANES], [T::ZERO; LANES]);
            for (r, (&t, stats)) in target.iter().zip(stats).enumerate().take(LANES) {
                if t != classes.ignore {
                    dy[r] = match scale {
                        Scale::All(dy) => dy,
                        Scale::Each(dy) => dy[i * rows + r],
                    };
                }
                own[r] = dy[r] * keep * classes.weight_of(t);
                factor[r] = (own[r] + dy[r] * even) / stats[1];
            }
            let mut peak = form.spread(stats, 0);
            if !form.short() {
                (dy, factor, peak) = ([dy[0]; LANES], [factor[0]; LANES], [peak[0]; LANES]);
            }
            form.load(x, &mut tile);
            map(&mut tile, |r, x| factor[r] * (x - peak[r]).exp_on::<I>());
            if smooth {
                update(&mut tile, &weights, |r, p, w| p - dy[r] * share * w);
            }
            form.store(&tile, dx);
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
    let form = Form { c };
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
    let form = Form { c };
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
