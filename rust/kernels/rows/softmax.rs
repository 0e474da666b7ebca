//! y = eˣ / Σeˣ, dx = y·(dy − Σ dy·y), and its logarithm y = x − log Σeˣ, dx = dy − eʸ·Σdy, per row.
//!
//! Invariant: the largest number of a row is subtracted before anything is raised, so nothing overflows and an offset
//! common to a row costs no precision.

use super::{Form, Lanes, Tile, map};
use crate::kernels::math::Math;
use crate::kernels::parallel;
use crate::kernels::simd::{Float, Isa};
use crate::simd;

/// Rough cost of one element in tenths of a nanosecond.
const COST: usize = 10;

impl Form {
    /// Reads rows x: a tile of e^(x − m), and of every row the largest element m and the sum Σe^(x − m).
    #[inline(always)]
    pub(super) fn exponentials<'a, T: Math, I: Isa>(self, x: &[T], tile: &'a mut Tile<T>, spread: &mut Tile<T>) -> (&'a mut [Lanes<T>], Lanes<T>, Lanes<f64>) {
        let tile = self.load(x, tile);
        self.pad(tile, -T::INFINITY);
        let peak = self.peak(tile);
        map(tile, [self.spread(&peak, spread)], |x, [peak]| (x - peak).exp_on::<I>());
        let total = self.sum(tile, tile, |e, _| e);
        (tile, peak, total)
    }
}

simd! {
    fn softmax_part<T: Math>(full: Form, x: &[T], y: &mut [T]) {
        let (mut tile, mut spread) = (full.tile(), full.operand());
        for (x, y) in x.chunks(full.size()).zip(y.chunks_mut(full.size())) {
            let form = full.of(x.len());
            let (tile, _, total) = form.exponentials::<T, I>(x, &mut tile, &mut spread);
            let scale = form.numbers(|r| T::from_f64(1.0 / total[r]));
            map(tile, [form.spread(&scale, &mut spread)], |e, [scale]| e * scale);
            form.store(tile, y);
        }
    }

    fn log_softmax_part<T: Math>(full: Form, x: &[T], y: &mut [T]) {
        let (mut tile, mut spread, mut logs) = (full.tile(), full.operand(), full.operand());
        for (x, y) in x.chunks(full.size()).zip(y.chunks_mut(full.size())) {
            let form = full.of(x.len());
            let (_, peak, total) = form.exponentials::<T, I>(x, &mut tile, &mut spread);
            let log_total = form.numbers(|r| T::from_f64(total[r]).log_on::<I>());
            let tile = form.load(x, &mut tile);
            map(tile, [form.spread(&peak, &mut spread), form.spread(&log_total, &mut logs)], |x, [peak, log]| x - peak - log);
            form.store(tile, y);
        }
    }

    fn softmax_backward_part<T: Float>(full: Form, y: &[T], dy: &[T], dx: &mut [T]) {
        let (mut tile, mut grad, mut spread) = (full.tile(), full.tile(), full.operand());
        for ((y, dy), dx) in y.chunks(full.size()).zip(dy.chunks(full.size())).zip(dx.chunks_mut(full.size())) {
            let form = full.of(y.len());
            let (tile, grad) = (form.load(y, &mut tile), form.load(dy, &mut grad));
            let total = form.sum(tile, grad, |y, dy| y * dy);
            let dot = form.numbers(|r| T::from_f64(total[r]));
            map(grad, [tile, form.spread(&dot, &mut spread)], |dy, [y, dot]| y * (dy - dot));
            form.store(grad, dx);
        }
    }

    fn log_softmax_backward_part<T: Math>(full: Form, y: &[T], dy: &[T], dx: &mut [T]) {
        let (mut tile, mut grad, mut spread) = (full.tile(), full.tile(), full.operand());
        for ((y, dy), dx) in y.chunks(full.size()).zip(dy.chunks(full.size())).zip(dx.chunks_mut(full.size())) {
            let form = full.of(y.len());
            let (tile, grad) = (form.load(y, &mut tile), form.load(dy, &mut grad));
            let sum = form.sum(grad, grad, |dy, _| dy);
            let total = form.numbers(|r| T::from_f64(sum[r]));
            map(grad, [tile, form.spread(&total, &mut spread)], |dy, [y, total]| dy - y.exp_on::<I>() * total);
            form.store(grad, dx);
        }
    }
}

fn forward<T: Float>(x: &[T], c: usize, y: &mut [T], part: fn(Form, &[T], &mut [T])) {
    if y.is_empty() {
        return;
    }
    let form = Form::new(c);
    let chunk = form.rows_per_part() * c;
    parallel::for_chunks(y, chunk, x.len().saturating_mul(COST) / 10, |i, y| part(form, &x[i * chunk..][..y.len()], y));
}

fn backward<T: Float>(y: &[T], dy: &[T], c: usize, dx: &mut [T], part: fn(Form, &[T], &[T], &mut [T])) {
    if dx.is_empty() {
        return;
    }
    let form = Form::new(c);
    let chunk = form.rows_per_part() * c;
    parallel::for_chunks(dx, chunk, y.len().saturating_mul(COST) / 10, |i, dx| {
        let at = i * chunk..i * chunk + dx.len();
        part(form, &y[at.clone()], &dy[at], dx);
    });
}

/// Writes eˣ / Σeˣ of every row of `c` elements to `y`.
pub fn softmax<T: Math>(x: &[T], c: usize, y: &mut [T]) {
    forward(x, c, y, softmax_part);
}

/// Writes x − log Σeˣ of every row of `c` elements to `y`.
pub fn log_softmax<T: Math>(x: &[T], c: usize, y: &mut [T]) {
    forward(x, c, y, log_softmax_part);
}

/// Writes y·(dy − Σ dy·y) of every row to `dx`.
pub fn softmax_backward<T: Float>(y: &[T], dy: &[T], c: usize, dx: &mut [T]) {
    backward(y, dy, c, dx, softmax_backward_part);
}

/// Writes dy − eʸ·Σdy of every row to `dx`.
pub fn log_softmax_backward<T: Math>(y: &[T], dy: &[T], c: usize, dx: &mut [T]) {
    backward(y, dy, c, dx, log_softmax_backward_part);
}
