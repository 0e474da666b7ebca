//! y = eˣ / Σeˣ, dx = y·(dy − Σ dy·y), and its logarithm y = x − log Σeˣ, dx = dy − eʸ·Σdy, per row.
//!
//! Invariant: the largest number of a row is subtracted before anything is raised, so nothing overflows and an offset
//! common to a row costs no precision.

use super::{GROUP, Lanes, Live, TALL, W, after, each, groups, last_windows, map, narrow, peak, put, reach, rows_per_part, sum, totals, tree, whole_windows, windows};
use crate::kernels::math::Math;
use crate::kernels::simd::{Float, Isa, lanes_only};
use crate::kernels::{parallel, stream};
use crate::simd;
use std::ops::Range;

/// Rough cost of one element in tenths of a nanosecond.
const COST: usize = 6;

/// The largest elements m of a group's rows and Σe^(x − m), in one pass after the other over the rows. `touch` is called at each
/// row of the longest.
#[inline(always)]
pub(super) fn log_sums<I: Isa, T: Math>(c: usize, x: &[T], group: Range<usize>, touch: impl Fn(usize)) -> ([T; GROUP], [f64; GROUP]) {
    let (peaks, mut totals) = (peaks(c, x, group.clone()), [0.0; GROUP]);
    for ((r, &peak), total) in group.zip(&peaks).zip(&mut totals) {
        touch(r);
        *total = sum(c, [&x[r * c..]], |[x]| (x - peak).exp_down_on::<I>());
    }
    (peaks, totals)
}

#[inline(always)]
fn peaks<T: Float>(c: usize, x: &[T], group: Range<usize>) -> [T; GROUP] {
    let mut peaks = [T::ZERO; GROUP];
    for (r, top) in group.zip(&mut peaks) {
        *top = peak(c, &x[r * c..]);
    }
    peaks
}

simd! {
    fn softmax_part<T: Math>(c: usize, reach: usize, x: &[T], y: &mut [T]) {
        for group in groups(c, x.len() / c) {
            let (peaks, mut totals, ahead) = (peaks(c, x, group.clone()), [0.0; GROUP], group.len() * c);
            for ((r, &peak), total) in group.clone().zip(&peaks).zip(&mut totals) {
                let (x, y) = (&x[r * c..], &mut y[r * c..]);
                stream::ask(x, ahead, reach);
                stream::claim(y, ahead, reach);
                *total = exponentials::<I, T>(c, x, peak, y);
            }
            for (r, total) in group.zip(totals) {
                let scale = T::from_f64(1.0 / total);
                for y in &mut y[r * c..][..c] {
                    *y *= scale;
                }
            }
        }
    }

    fn log_softmax_part<T: Math>(c: usize, reach: usize, x: &[T], y: &mut [T]) {
        for group in groups(c, x.len() / c) {
            let ahead = group.len() * c;
            let (peaks, totals) = log_sums::<I, T>(c, x, group.clone(), |r| {
                stream::ask(&x[r * c..], ahead, reach);
                stream::claim(&y[r * c..], 0, reach);
            });
            // All logarithms at once, at full width.
            let mut logs = [T::ZERO; GROUP];
            for (log, total) in logs.iter_mut().zip(totals) {
                *log = T::from_f64(total).log_on::<I>();
            }
            for ((r, peak), log) in group.zip(peaks).zip(logs) {
                map(c, [&x[r * c..]], &mut y[r * c..], |[x]| x - peak - log);
            }
        }
    }

    fn softmax_backward_part<T: Float>(c: usize, reach: usize, y: &[T], dy: &[T], dx: &mut [T]) {
        for group in groups(c, y.len() / c) {
            let (mut dots, ahead) = ([T::ZERO; GROUP], group.len() * c);
            for (r, dot) in group.clone().zip(&mut dots) {
                stream::claim(&dx[r * c..], 0, reach);
                *dot = T::from_f64(sum(c, [&y[r * c..], &dy[r * c..]], |[y, dy]| y * dy));
            }
            for (r, dot) in group.zip(dots) {
                let (y, dy) = (&y[r * c..], &dy[r * c..]);
                stream::ask(y, ahead, reach);
                stream::ask(dy, ahead, reach);
                map(c, [y, dy], &mut dx[r * c..], |[y, dy]| y * (dy - dot));
            }
        }
    }

    fn log_softmax_backward_part<T: Math>(c: usize, reach: usize, y: &[T], dy: &[T], dx: &mut [T]) {
        for group in groups(c, y.len() / c) {
            let (mut totals, ahead) = ([T::ZERO; GROUP], group.len() * c);
            for (r, total) in group.clone().zip(&mut totals) {
                stream::claim(&dx[r * c..], 0, reach);
                *total = T::from_f64(sum(c, [&dy[r * c..]], |[dy]| dy));
            }
            for (r, total) in group.zip(totals) {
                let (y, dy, dx) = (&y[r * c..], &dy[r * c..], &mut dx[r * c..]);
                stream::ask(y, ahead, reach);
                stream::ask(dy, ahead, reach);
                map(c, [y, dy], dx, |[y, dy]| dy - y.exp_down_on::<I>() * total);
            }
        }
    }
}

/// The largest elements m of short rows, in lanes, and Σe^(x − m).
#[inline(always)]
pub(super) fn narrow_log_sums<I: Isa, T: Math>(x: &[Lanes<T>]) -> (Lanes<T>, Lanes<T>) {
    let peaks = narrow::peaks(x);
    (peaks, narrow::sum(x.len(), |j, l| (x[j][l] - peaks[l]).exp_down_on::<I>()))
}

// The same of short rows.
simd! {
    fn narrow_softmax<T: Math>(c: usize, _reach: usize, x: &[T], y: &mut [T]) {
        narrow::map(c, [x], y, |[x], y| {
            let peaks = narrow::peaks(&x[..c]);
            narrow::fill(y, |_, j, l| (x[j][l] - peaks[l]).exp_down_on::<I>());
            let mut scales = narrow::sum(c, |j, l| y[j][l]);
            for scale in &mut scales {
                *scale = T::from_f64(1.0 / scale.to_f64());
            }
            narrow::fill(y, |y, _, l| y * scales[l]);
        });
    }

    fn narrow_log_softmax<T: Math>(c: usize, _reach: usize, x: &[T], y: &mut [T]) {
        narrow::map(c, [x], y, |[x], y| {
            let (peaks, mut logs) = narrow_log_sums::<I, T>(&x[..c]);
            for log in &mut logs {
                *log = log.log_on::<I>();
            }
            narrow::fill(y, |_, j, l| x[j][l] - peaks[l] - logs[l]);
        });
    }

    fn narrow_softmax_backward<T: Float>(c: usize, _reach: usize, y: &[T], dy: &[T], dx: &mut [T]) {
        narrow::map(c, [y, dy], dx, |[y, dy], dx| {
            let dots = narrow::sum(c, |j, l| y[j][l] * dy[j][l]);
            narrow::fill(dx, |_, j, l| y[j][l] * (dy[j][l] - dots[l]));
        });
    }

    fn narrow_log_softmax_backward<T: Math>(c: usize, _reach: usize, y: &[T], dy: &[T], dx: &mut [T]) {
        narrow::map(c, [y, dy], dx, |[y, dy], dx| {
            let totals = narrow::sum(c, |j, l| dy[j][l]);
            narrow::fill(dx, |_, j, l| dy[j][l] - y[j][l].exp_down_on::<I>() * totals[l]);
        });
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

fn forward<T: Float>(x: &[T], c: usize, y: &mut [T], part: fn(usize, usize, &[T], &mut [T])) {
    if y.is_empty() {
        return;
    }
    let (chunk, reach) = (rows_per_part(c) * c, reach::<T>(c, x.len()));
    parallel::for_chunks(y, chunk, x.len().saturating_mul(COST) / 10, |i, y| part(c, reach, &x[i * chunk..][..y.len()], y));
}

fn backward<T: Float>(y: &[T], dy: &[T], c: usize, dx: &mut [T], part: fn(usize, usize, &[T], &[T], &mut [T])) {
    if dx.is_empty() {
        return;
    }
    let (chunk, reach) = (rows_per_part(c) * c, reach::<T>(c, y.len()));
    parallel::for_chunks(dx, chunk, y.len().saturating_mul(COST) / 10, |i, dx| {
        let at = i * chunk..i * chunk + dx.len();
        part(c, reach, &y[at.clone()], &dy[at], dx);
    });
}

/// Writes eˣ / Σeˣ of every row of `c` elements to `y`.
pub fn softmax<T: Math>(x: &[T], c: usize, y: &mut [T]) {
    forward(x, c, y, if c < W { narrow_softmax } else { softmax_part });
}

/// Writes x − log Σeˣ of every row of `c` elements to `y`.
pub fn log_softmax<T: Math>(x: &[T], c: usize, y: &mut [T]) {
    forward(x, c, y, if c < W { narrow_log_softmax } else { log_softmax_part });
}

/// Writes y·(dy − Σ dy·y) of every row to `dx`.
pub fn softmax_backward<T: Float>(y: &[T], dy: &[T], c: usize, dx: &mut [T]) {
    backward(y, dy, c, dx, if c < W { narrow_softmax_backward } else { softmax_backward_part });
}

/// Writes dy − eʸ·Σdy of every row to `dx`.
pub fn log_softmax_backward<T: Math>(y: &[T], dy: &[T], c: usize, dx: &mut [T]) {
    backward(y, dy, c, dx, if c < W { narrow_log_softmax_backward } else { log_softmax_backward_part });
}
