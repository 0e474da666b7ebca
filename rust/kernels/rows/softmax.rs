//! y = eˣ / Σeˣ, dx = y·(dy − Σ dy·y), and its logarithm y = x − log Σeˣ, dx = dy − eʸ·Σdy, per row.
//!
//! Invariant: the largest number of a row is subtracted before anything is raised, so nothing overflows and an offset
//! common to a row costs no precision.

use super::{Form, Lanes, lanes, map, sum, update};
use crate::kernels::math::Math;
use crate::kernels::parallel;
use crate::kernels::simd::{Float, Isa};
use crate::simd;

/// Rough cost of one element in tenths of a nanosecond.
const COST: usize = 10;

/// Σeˣ of every row of a tile whose spare lanes are −∞.
#[inline(always)]
pub(super) fn total_exp<T: Math, I: Isa>(form: Form, tile: &[Lanes<T>]) -> Lanes<T> {
    let total = form.total(sum(tile, tile, |_, x, _| x.exp_on::<I>()));
    lanes(|r| T::from_f64(total[r]))
}

simd! {
    fn softmax_part<T: Math>(form: Form, x: &[T], y: &mut [T]) {
        let (mut tile, size) = (form.tile(), form.rows() * form.c);
        for (x, y) in x.chunks(size).zip(y.chunks_mut(size)) {
            form.load(x, &mut tile);
            form.pad(&mut tile, -T::INFINITY);
            let peak = form.peak(&tile);
            map(&mut tile, |r, x| (x - peak[r]).exp_on::<I>());
            let total = form.total(sum(&tile, &tile, |_, e, _| e));
            let scale = lanes(|r| T::from_f64(1.0 / total[r]));
            map(&mut tile, |r, e| e * scale[r]);
            form.store(&tile, y);
        }
    }

    fn log_softmax_part<T: Math>(form: Form, x: &[T], y: &mut [T]) {
        let (mut tile, size) = (form.tile(), form.rows() * form.c);
        for (x, y) in x.chunks(size).zip(y.chunks_mut(size)) {
            form.load(x, &mut tile);
            form.pad(&mut tile, -T::INFINITY);
            let peak = form.peak(&tile);
            map(&mut tile, |r, x| x - peak[r]);
            let total = total_exp::<T, I>(form, &tile);
            let log_total = lanes(|r| total[r].log_on::<I>());
            map(&mut tile, |r, x| x - log_total[r]);
            form.store(&tile, y);
        }
    }

    fn softmax_backward_part<T: Float>(form: Form, y: &[T], dy: &[T], dx: &mut [T]) {
        let (mut tile, mut grad, size) = (form.tile(), form.tile(), form.rows() * form.c);
        for ((y, dy), dx) in y.chunks(size).zip(dy.chunks(size)).zip(dx.chunks_mut(size)) {
            form.load(y, &mut tile);
            form.load(dy, &mut grad);
            let total = form.total(sum(&tile, &grad, |_, y, dy| y * dy));
            let dot = lanes(|r| T::from_f64(total[r]));
            update(&mut grad, &tile, |r, dy, y| y * (dy - dot[r]));
            form.store(&grad, dx);
        }
    }

    fn log_softmax_backward_part<T: Math>(form: Form, y: &[T], dy: &[T], dx: &mut [T]) {
        let (mut tile, mut grad, size) = (form.tile(), form.tile(), form.rows() * form.c);
        for ((y, dy), dx) in y.chunks(size).zip(dy.chunks(size)).zip(dx.chunks_mut(size)) {
            form.load(y, &mut tile);
            form.load(dy, &mut grad);
            let wide = form.total(sum(&grad, &grad, |_, dy, _| dy));
            let total = lanes(|r| T::from_f64(wide[r]));
            update(&mut grad, &tile, |r, dy, y| dy - y.exp_on::<I>() * total[r]);
            form.store(&grad, dx);
        }
    }
}

fn forward<T: Float>(x: &[T], c: usize, y: &mut [T], part: fn(Form, &[T], &mut [T])) {
    if y.is_empty() {
        return;
    }
    let form = Form { c };
    let chunk = form.rows_per_part() * c;
    parallel::for_chunks(y, chunk, x.len().saturating_mul(COST) / 10, |i, y| part(form, &x[i * chunk..][..y.len()], y));
}

fn backward<T: Float>(y: &[T], dy: &[T], c: usize, dx: &mut [T], part: fn(Form, &[T], &[T], &mut [T])) {
    if dx.is_empty() {
        return;
    }
    let form = Form { c };
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
