//! y = eˣ / Σeˣ, dx = y·(dy − Σ dy·y), and its logarithm y = x − log Σeˣ, dx = dy − eʸ·Σdy, per row.
//!
//! Invariant: the largest number of a row is subtracted before anything is raised, so nothing overflows and an offset
//! common to a row costs no precision.

use super::order::{GROUP, Grouped, Order, Staggered, comes_from_afar, ends, stages};
use super::{Lanes, Live, TALL, W, after, each, last_windows, map, narrow, peak, put, rows_per_part, sum, totals, tree, whole_windows, windows};
use crate::kernels::math::Math;
use crate::kernels::parallel;
use crate::kernels::simd::{Float, Isa, lanes_only};
use crate::simd;

/// Rough cost of one element in tenths of a nanosecond.
const COST: usize = 6;

simd! {
    fn softmax_part<T: Math, O: Order>(c: usize, x: &[T], y: &mut [T]) {
        let (rows, together) = (x.len() / c, O::together(c));
        let (mut peaks, mut totals, mut scales) = ([T::ZERO; GROUP], [1.0; GROUP], [T::ZERO; GROUP]);
        stages!(
            O,
            c,
            rows,
            |r| {
                O::ask(&x[r * c..], c);
                peaks[r % GROUP] = peak(c, &x[r * c..]);
            },
            {
                O::claim(&y[r * c..], c);
                totals[r % GROUP] = exponentials::<I, T>(c, &x[r * c..], peaks[r % GROUP], &mut y[r * c..]);
                // Some divisions at once, in as many lanes.
                if ends(r, rows, together) {
                    let first = (r % GROUP) & !(together - 1);
                    for (scale, total) in scales[first..][..together].iter_mut().zip(&totals[first..]) {
                        *scale = T::from_f64(1.0 / total);
                    }
                }
            },
            scale(c, &mut y[r * c..], scales[r % GROUP])
        );
    }

    fn log_softmax_part<T: Math, O: Order>(c: usize, x: &[T], y: &mut [T]) {
        let (rows, together) = (x.len() / c, O::together(c));
        let (mut peaks, mut logs) = ([T::ZERO; GROUP], [T::ZERO; GROUP]);
        stages!(
            O,
            c,
            rows,
            |r| {
                O::ask(&x[r * c..], c);
                peaks[r % GROUP] = peak(c, &x[r * c..]);
            },
            {
                let peak = peaks[r % GROUP];
                O::claim(&y[r * c..], c);
                logs[r % GROUP] = T::from_f64(sum(c, [&x[r * c..]], |[x]| (x - peak).exp_down_on::<I>()));
                // Some logarithms at once, in as many lanes.
                if ends(r, rows, together) {
                    for log in &mut logs[(r % GROUP) & !(together - 1)..][..together] {
                        *log = log.log_on::<I>();
                    }
                }
            },
            {
                let (peak, log) = (peaks[r % GROUP], logs[r % GROUP]);
                map(c, [&x[r * c..]], &mut y[r * c..], |[x]| x - peak - log);
            }
        );
    }

    fn softmax_backward_part<T: Float, O: Order>(c: usize, y: &[T], dy: &[T], dx: &mut [T]) {
        let mut dots = [T::ZERO; GROUP];
        stages!(
            O,
            c,
            y.len() / c,
            |r| {
                let (y, dy) = (&y[r * c..], &dy[r * c..]);
                O::ask(y, c);
                O::ask(dy, c);
                O::claim(&dx[r * c..], c);
                dots[r % GROUP] = T::from_f64(sum(c, [y, dy], |[y, dy]| y * dy));
            },
            {
                let dot = dots[r % GROUP];
                map(c, [&y[r * c..], &dy[r * c..]], &mut dx[r * c..], |[y, dy]| y * (dy - dot));
            }
        );
    }

    fn log_softmax_backward_part<T: Math, O: Order>(c: usize, y: &[T], dy: &[T], dx: &mut [T]) {
        let mut totals = [T::ZERO; GROUP];
        stages!(
            O,
            c,
            y.len() / c,
            |r| {
                let dy = &dy[r * c..];
                O::ask(dy, c);
                O::ask(&y[r * c..], c);
                O::claim(&dx[r * c..], c);
                totals[r % GROUP] = T::from_f64(sum(c, [dy], |[dy]| dy));
            },
            {
                let total = totals[r % GROUP];
                map(c, [&y[r * c..], &dy[r * c..]], &mut dx[r * c..], |[y, dy]| dy - y.exp_down_on::<I>() * total);
            }
        );
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
    fn narrow_softmax<T: Math>(c: usize, x: &[T], y: &mut [T]) {
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

    fn narrow_log_softmax<T: Math>(c: usize, x: &[T], y: &mut [T]) {
        narrow::map(c, [x], y, |[x], y| {
            let (peaks, mut logs) = narrow_log_sums::<I, T>(&x[..c]);
            for log in &mut logs {
                *log = log.log_on::<I>();
            }
            narrow::fill(y, |_, j, l| x[j][l] - peaks[l] - logs[l]);
        });
    }

    fn narrow_softmax_backward<T: Float>(c: usize, y: &[T], dy: &[T], dx: &mut [T]) {
        narrow::map(c, [y, dy], dx, |[y, dy], dx| {
            let dots = narrow::sum(c, |j, l| y[j][l] * dy[j][l]);
            narrow::fill(dx, |_, j, l| y[j][l] * (dy[j][l] - dots[l]));
        });
    }

    fn narrow_log_softmax_backward<T: Math>(c: usize, y: &[T], dy: &[T], dx: &mut [T]) {
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

/// Multiplies a row.
#[inline(always)]
fn scale<T: Float>(c: usize, y: &mut [T], by: T) {
    for y in y[..c].as_chunks_mut::<W>().0 {
        for y in y {
            *y *= by;
        }
        lanes_only();
    }
    for y in &mut y[c - c % W..c] {
        *y *= by;
    }
}

/// The instance for rows of `$c` elements, `$n` in all.
macro_rules! instance {
    ($part:ident, $narrow:ident, $t:ty, $c:expr, $n:expr) => {
        match () {
            _ if $c < W => $narrow::<$t>,
            _ if comes_from_afar::<$t>($c, $n) => $part::<$t, Staggered>,
            _ => $part::<$t, Grouped>,
        }
    };
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
    forward(x, c, y, instance!(softmax_part, narrow_softmax, T, c, x.len()));
}

/// Writes x − log Σeˣ of every row of `c` elements to `y`.
pub fn log_softmax<T: Math>(x: &[T], c: usize, y: &mut [T]) {
    forward(x, c, y, instance!(log_softmax_part, narrow_log_softmax, T, c, x.len()));
}

/// Writes y·(dy − Σ dy·y) of every row to `dx`.
pub fn softmax_backward<T: Float>(y: &[T], dy: &[T], c: usize, dx: &mut [T]) {
    backward(y, dy, c, dx, instance!(softmax_backward_part, narrow_softmax_backward, T, c, y.len()));
}

/// Writes dy − eʸ·Σdy of every row to `dx`.
pub fn log_softmax_backward<T: Math>(y: &[T], dy: &[T], c: usize, dx: &mut [T]) {
    backward(y, dy, c, dx, instance!(log_softmax_backward_part, narrow_log_softmax_backward, T, c, y.len()));
}
