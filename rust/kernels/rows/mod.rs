//! Kernels over rows: softmax and its logarithm, cross-entropy, layer norm and RMS norm.
//!
//! A row of c elements is read through windows of [`W`] lanes. Where c is no multiple of `W` the last window overlaps the one
//! before, and where c is less it reaches over the row's end, into the next row if there is one; [`Live`] says which of its lanes
//! are new. So every element is worked on at full width, without copies. Rows are written in ascending order: what a window
//! writes beyond its row's end is overwritten.
//!
//! Invariant: the order of summation within a row is fixed by c alone, and sums over rows run in blocks fixed by shape that
//! are merged in index order; neither threads nor the vector width decide a bit.

mod cross_entropy;
mod norm;
mod softmax;

pub use cross_entropy::{Classes, Scale, cross_entropy, cross_entropy_backward};
pub use norm::{Norm, Sums, norm, norm_backward};
pub use softmax::{log_softmax, log_softmax_backward, softmax, softmax_backward};

use super::simd::Float;

/// Lanes of a window.
const W: usize = 16;
/// Windows summed in `T` before they are added up in float64.
const TALL: usize = 64;
/// Elements of one unit of parallel work.
const SPAN: usize = 1 << 13;

type Lanes<T> = [T; W];

/// Which lanes of a window belong to the row and have not been seen.
#[derive(Clone, Copy)]
struct Live {
    from: usize,
    to: usize,
}

impl Live {
    const ALL: Live = Live { from: 0, to: W };

    #[inline(always)]
    fn has(self, lane: usize) -> bool {
        self.from <= lane && lane < self.to
    }
}

/// Runs `$body` for every window of a row of `$c` elements: `$at` is where it begins, `$live` what is new in it.
macro_rules! windows {
    ($c:expr, |$at:ident, $live:ident| $body:expr) => {{
        let c: usize = $c;
        let whole = c - c % W;
        let $live = Live::ALL;
        for $at in (0..whole).step_by(W) {
            $body;
            // Keeps the compiler from vectorising over windows, with gathers, rather than over lanes: 20 times slower.
            std::hint::black_box(());
        }
        if whole < c {
            let $at = c.saturating_sub(W);
            let $live = Live { from: whole - $at, to: c - $at };
            $body;
        }
    }};
}
use windows;

/// The window of `x` that begins at `at`; zeros beyond the end of `x`.
#[inline(always)]
fn window<T: Float>(x: &[T], at: usize) -> Lanes<T> {
    match x[at..].first_chunk() {
        Some(window) => *window,
        None => {
            let mut window = [T::ZERO; W];
            window[..x.len() - at].copy_from_slice(&x[at..]);
            window
        }
    }
}

/// Writes a window of `y`: all of it if `y` is so long, else the lanes of the row.
#[inline(always)]
fn put<T: Float>(y: &mut [T], at: usize, live: Live, lanes: Lanes<T>) {
    match y[at..].first_chunk_mut() {
        Some(window) => *window = lanes,
        None => y[at..at + live.to].copy_from_slice(&lanes[..live.to]),
    }
}

/// The elements of K windows that lie in one lane.
#[inline(always)]
fn lane<T: Float, const K: usize>(windows: &[Lanes<T>; K], l: usize) -> [T; K] {
    let mut z = [T::ZERO; K];
    for k in 0..K {
        z[k] = windows[k][l];
    }
    z
}

#[inline(always)]
fn windows_of<T: Float, const K: usize>(x: &[&[T]; K], at: usize) -> [Lanes<T>; K] {
    let mut found = [[T::ZERO; W]; K];
    for k in 0..K {
        found[k] = window(x[k], at);
    }
    found
}

/// y = f(x) for every element of a row; K rows x lie behind one another's places.
#[inline(always)]
fn map<T: Float, const K: usize>(c: usize, x: [&[T]; K], y: &mut [T], f: impl Fn([T; K]) -> T) {
    windows!(c, |at, live| {
        let x = windows_of(&x, at);
        let mut out = [T::ZERO; W];
        for (l, out) in out.iter_mut().enumerate() {
            *out = f(lane(&x, l));
        }
        put(y, at, live, out);
    });
}

/// Folds every element of a row into the lane where it lies.
#[inline(always)]
fn fold<T: Float, const K: usize>(c: usize, x: [&[T]; K], id: T, step: impl Fn(T, [T; K]) -> T) -> Lanes<T> {
    let mut sums = [id; W];
    windows!(c, |at, live| {
        let x = windows_of(&x, at);
        for (l, sum) in sums.iter_mut().enumerate() {
            let next = step(*sum, lane(&x, l));
            *sum = if live.has(l) { next } else { *sum };
        }
    });
    sums
}

/// The sum of `term(x)` over a row.
#[inline(always)]
fn sum<T: Float, const K: usize>(c: usize, x: [&[T]; K], term: impl Fn([T; K]) -> T) -> f64 {
    let mut total = 0.0;
    for first in (0..c).step_by(TALL * W) {
        let mut part = x;
        for k in 0..K {
            part[k] = &x[k][first..];
        }
        let lanes = fold((c - first).min(TALL * W), part, T::ZERO, |a, x| a + term(x));
        total += tree(lanes, |a, b| a + b).to_f64();
    }
    total
}

/// The largest number of a row, 0 where that is infinite, so that it can be subtracted. NaNs are passed over.
#[inline(always)]
fn peak<T: Float>(c: usize, x: &[T]) -> T {
    let larger = |a: T, x: T| if x > a { x } else { a };
    let top = tree(fold(c, [x], -T::INFINITY, |a, [x]| larger(a, x)), larger);
    if top.is_finite() { top } else { T::ZERO }
}

#[inline(always)]
fn tree<T: Copy>(mut v: Lanes<T>, merge: impl Fn(T, T) -> T) -> T {
    let mut n = W;
    while n > 1 {
        n /= 2;
        for i in 0..n {
            v[i] = merge(v[i], v[i + n]);
        }
    }
    v[0]
}

/// Rows of one unit of parallel work.
fn rows_per_part(c: usize) -> usize {
    (SPAN / c).max(1)
}

/// A row that all rows share, such as a weight, no shorter than a window; `value` everywhere if there is none.
fn shared<T: Float>(c: usize, row: Option<&[T]>, value: T) -> Vec<T> {
    let mut own = vec![value; c.max(W)];
    if let Some(row) = row {
        own[..c].copy_from_slice(row);
    }
    own
}
