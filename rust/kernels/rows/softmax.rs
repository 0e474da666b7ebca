//! y = eˣ / Σeˣ, dx = y·(dy − Σ dy·y), and its logarithm y = x − log Σeˣ, dx = dy − eʸ·Σdy, per row.
//!
//! Invariant: the largest number of a row is subtracted before anything is raised, so nothing overflows and an offset
//! common to a row costs no precision.

use super::{Live, TALL, W, after, each, last_windows, map, peak, put, rows_per_part, sum, totals, tree, whole_windows, windows};
use crate::kernels::math::Math;
use crate::kernels::parallel;
use crate::kernels::simd::{Float, Isa, lanes_only};
use crate::simd;

/// Rough cost of one element in tenths of a nanosecond.
const COST: usize = 6;

/// The largest element m of a row and Σe^(x − m).
#[inline(always)]
pub(super) fn log_sum<I: Isa, T: Math>(c: usize, x: &[T]) -> (T, f64) {
    let peak = peak(c, x);
    (peak, sum(c, [x], |[x]| (x - peak).exp_down_on::<I>()))
}

simd! {
    fn softmax_part<T: Math>(c: usize, x: &[T], y: &mut [T]) {
        for at in (0..x.len()).step_by(c) {
            let (x, y) = (&x[at..], &mut y[at..]);
            let total = exponentials::<I, T>(c, x, peak(c, x), y);
            let scale = T::from_f64(1.0 / total);
            for y in &mut y[..c] {
                *y *= scale;
            }
        }
    }

    fn log_softmax_part<T: Math>(c: usize, x: &[T], y: &mut [T]) {
        for at in (0..x.len()).step_by(c) {
            let (x, y) = (&x[at..], &mut y[at..]);
            let (peak, total) = log_sum::<I, T>(c, x);
            let log_total = T::from_f64(total).log_on::<I>();
            map(c, [x], y, |[x]| x - peak - log_total);
        }
    }

    fn softmax_backward_part<T: Float>(c: usize, y: &[T], dy: &[T], dx: &mut [T]) {
        for at in (0..y.len()).step_by(c) {
            let (y, dy) = (&y[at..], &dy[at..]);
            let dot = T::from_f64(sum(c, [y, dy], |[y, dy]| y * dy));
            map(c, [y, dy], &mut dx[at..], |[y, dy]| y * (dy - dot));
        }
    }

    fn log_softmax_backward_part<T: Math>(c: usize, y: &[T], dy: &[T], dx: &mut [T]) {
        for at in (0..y.len()).step_by(c) {
            let (y, dy) = (&y[at..], &dy[at..]);
            let total = T::from_f64(sum(c, [dy], |[dy]| dy));
            map(c, [y, dy], &mut dx[at..], |[y, dy]| dy - y.exp_down_on::<I>() * total);
        }
    }
}

/// Writes e^(x − m) of a row and returns their sum, in one sweep.
#[inline(always)]
fn exponentials<I: Isa, T: Math>(c: usize, x: &[T], peak: T, y: &mut [T]) -> f64 {
    let [total] = totals!(c, [x], |at, live, [mut e], sums: [T; 1]| {
        for e in &mut e {
            *e = (*e - peak).exp_down_on::<I>();
        }
        put(y, at, live, e);
        for l in 0..W {
            sums[0][l] += if live.has(l) { e[l] } else { T::ZERO };
        }
    });
    total
}

fn forward<T: Float>(x: &[T], c: usize, y: &mut [T], part: fn(usize, &[T], &mut [T])) {
    if y.is_empty() {
        return;
    }
    let chunk = rows_per_part(c) * c;
    parallel::for_chunks(y, chunk, x.len().saturating_mul(COST) / 10, |i, y| part(c, &x[i * chunk..][..y.len()], y));
}

fn backward<T: Float>(y: &[T], dy: &[T], c: usize, dx: &mut [T], part: fn(usize, &[T], &[T], &mut [T])) {
    if dx.is_empty() {
        return;
    }
    let chunk = rows_per_part(c) * c;
    parallel::for_chunks(dx, chunk, y.len().saturating_mul(COST) / 10, |i, dx| {
        let at = i * chunk..i * chunk + dx.len();
        part(c, &y[at.clone()], &dy[at], dx);
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
