//! Kernels over rows: softmax and its logarithm, cross-entropy, layer norm, group norm and RMS norm, and the spread of variances.
//!
//! A row of c elements is read through windows of `W` lanes. Where c is no multiple of `W` the last window overlaps the one
//! before, and where c is less it reaches over the row's end, into the next row if there is one; `Live` says which of its lanes
//! are new. So every element is worked on at full width, without copies. Rows are written in ascending order: what a window
//! writes beyond its row's end is overwritten. Softmax and cross-entropy of short rows go by `narrow` instead.
//!
//! Invariant: the order of summation within a row is fixed by c alone, and sums over rows run in blocks fixed by shape that
//! are merged in index order; neither threads nor the vector width decide a bit.

// Loops over lanes are written by number: all the arrays of a window are read alike.
#![allow(clippy::needless_range_loop)]

mod cross_entropy;
pub mod down;
mod gathered;
mod narrow;
mod norm;
mod order;
mod pieces;
mod softmax;
mod spread;

pub use cross_entropy::{Classes, Scale, cross_entropy, cross_entropy_backward};
pub use norm::{Norm, Sums, norm, norm_backward};
pub use softmax::{log_softmax, log_softmax_backward, softmax, softmax_backward};
pub use spread::spread;

use super::simd::{Float, lanes_only};

/// Lanes of a window.
const W: usize = 16;
/// Windows summed in `T` before they are added up in float64.
const TALL: usize = 64;
/// Elements of one unit of parallel work.
const SPAN: usize = 1 << 13;
type Lanes<T> = [T; W];

/// Which lanes of a window belong to the row and have not been seen. As wide as the elements, so that a vector compares them all.
#[derive(Clone, Copy)]
struct Live {
    from: u32,
    to: u32,
}

impl Live {
    const ALL: Live = Live { from: 0, to: W as u32 };

    #[inline(always)]
    fn has(self, lane: usize) -> bool {
        (lane as u32).wrapping_sub(self.from) < self.to - self.from
    }

    /// Lanes that belong to the row.
    #[inline(always)]
    fn len(self) -> usize {
        self.to as usize
    }
}

/// Runs `$body` for every window of the row of `$c` elements with which each of `$sources` begins: `$at` is where it lies in
/// the row, `$live` what is new in it, `$x` its lanes.
macro_rules! windows {
    ($c:expr, $sources:expr, |$at:ident, $live:ident, $x:pat_param| $body:expr) => {{
        let (c, sources) = ($c, $sources);
        let whole = whole_windows(&sources, c);
        let $live = Live::ALL;
        for i in 0..c / W {
            let $at = i * W;
            let $x = each(&whole, i);
            $body;
            lanes_only();
        }
        if c % W != 0 {
            let ($at, $live) = $crate::kernels::rows::last(c);
            let $x = last_windows(&sources, $at, $live);
            $body;
        }
    }};
}
use windows;

/// Runs `$body` for every window of a row, which adds R terms a lane to `$sums`; answers the R sums in float64.
macro_rules! totals {
    ($c:expr, $sources:expr, |$at:ident, $live:ident, $x:pat_param, $sums:ident: [$t:ty; $r:expr]| $body:expr) => {{
        let (c, sources) = ($c, $sources);
        let mut total = [0.0; $r];
        for first in (0..c).step_by(TALL * W) {
            let mut $sums = [[<$t>::ZERO; W]; $r];
            windows!((c - first).min(TALL * W), after(&sources, first), |at, $live, $x| {
                let $at = first + at;
                $body
            });
            for (total, lanes) in total.iter_mut().zip($sums) {
                *total += tree(lanes, |a, b| a + b).to_f64();
            }
        }
        total
    }};
}
use totals;

/// Where the last window of a row of `c` elements lies if that is no multiple of `W`, and what is new in it.
#[inline(always)]
fn last(c: usize) -> (usize, Live) {
    let at = c.saturating_sub(W);
    (at, Live { from: (c - c % W - at) as u32, to: (c - at) as u32 })
}

/// The whole windows of the row of `c` elements with which each of `x` begins.
#[inline(always)]
fn whole_windows<'a, T, const K: usize>(x: &[&'a [T]; K], c: usize) -> [&'a [Lanes<T>]; K] {
    let mut whole: [&[Lanes<T>]; K] = [&[]; K];
    for k in 0..K {
        whole[k] = &x[k].as_chunks().0[..c / W];
    }
    whole
}

#[inline(always)]
fn each<T: Copy, const K: usize>(x: &[&[T]; K], i: usize) -> [T; K] {
    let mut found = [x[0][i]; K];
    for k in 1..K {
        found[k] = x[k][i];
    }
    found
}

#[inline(always)]
fn after<'a, T, const K: usize>(x: &[&'a [T]; K], first: usize) -> [&'a [T]; K] {
    let mut rest = *x;
    for k in 0..K {
        rest[k] = &x[k][first..];
    }
    rest
}

#[inline(always)]
fn last_windows<T: Float, const K: usize>(x: &[&[T]; K], at: usize, live: Live) -> [Lanes<T>; K] {
    let mut found = [[T::ZERO; W]; K];
    for k in 0..K {
        found[k] = window(x[k], at, live);
    }
    found
}

/// The window of `x` that begins at `at`; zeros beyond the end of `x`.
#[inline(always)]
fn window<T: Float>(x: &[T], at: usize, live: Live) -> Lanes<T> {
    if live.len() == W || at + W <= x.len() {
        return x[at..at + W].as_chunks().0[0];
    }
    let mut window = [T::ZERO; W];
    window[..live.len()].copy_from_slice(&x[at..at + live.len()]);
    window
}

/// Writes a window of `y`: all of it if `y` is so long, else the lanes of the row.
#[inline(always)]
fn put<T: Float>(y: &mut [T], at: usize, live: Live, lanes: Lanes<T>) {
    if live.len() == W || at + W <= y.len() {
        y[at..at + W].as_chunks_mut().0[0] = lanes;
    } else {
        y[at..at + live.len()].copy_from_slice(&lanes[..live.len()]);
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

/// y = f(x) for every element of a row; K rows x lie behind one another's places.
#[inline(always)]
fn map<T: Float, const K: usize>(c: usize, x: [&[T]; K], y: &mut [T], f: impl Fn([T; K]) -> T) {
    // Not by `windows!`, so that no window of y is looked up.
    let whole = whole_windows(&x, c);
    for (i, y) in y[..c].as_chunks_mut::<W>().0.iter_mut().enumerate() {
        *y = map_lanes(&each(&whole, i), &f);
        lanes_only();
    }
    if !c.is_multiple_of(W) {
        let (at, live) = last(c);
        put(y, at, live, map_lanes(&last_windows(&x, at, live), &f));
    }
}

#[inline(always)]
fn map_lanes<T: Float, const K: usize>(x: &[Lanes<T>; K], f: impl Fn([T; K]) -> T) -> Lanes<T> {
    let mut out = [T::ZERO; W];
    for (l, out) in out.iter_mut().enumerate() {
        *out = f(lane(x, l));
    }
    out
}

/// The R sums of `term(x)` over a row. Windows take turns between two accumulators, so that one addition need not wait for the
/// other.
#[inline(always)]
fn sums<T: Float, const K: usize, const R: usize>(c: usize, x: [&[T]; K], term: impl Fn([T; K]) -> [T; R]) -> [f64; R] {
    let mut total = [0.0; R];
    for first in (0..c).step_by(TALL * W) {
        let (len, x) = ((c - first).min(TALL * W), after(&x, first));
        let mut even = [[T::ZERO; W]; R];
        let mut odd = [[T::ZERO; W]; R];
        let whole = whole_windows(&x, len);
        for i in 0..len / (2 * W) {
            add_terms(&mut even, each(&whole, 2 * i), Live::ALL, &term);
            add_terms(&mut odd, each(&whole, 2 * i + 1), Live::ALL, &term);
            lanes_only();
        }
        if len / W % 2 == 1 {
            add_terms(&mut even, each(&whole, len / W - 1), Live::ALL, &term);
        }
        if len % W != 0 {
            let (at, live) = last(len);
            add_terms(&mut odd, last_windows(&x, at, live), live, &term);
        }
        for r in 0..R {
            for l in 0..W {
                even[r][l] += odd[r][l];
            }
            total[r] += tree(even[r], |a, b| a + b).to_f64();
        }
    }
    total
}

#[inline(always)]
fn add_terms<T: Float, const K: usize, const R: usize>(sums: &mut [Lanes<T>; R], x: [Lanes<T>; K], live: Live, term: &impl Fn([T; K]) -> [T; R]) {
    let mut terms = [[T::ZERO; W]; R];
    for l in 0..W {
        let found = term(lane(&x, l));
        for r in 0..R {
            terms[r][l] = if live.has(l) { found[r] } else { T::ZERO };
        }
    }
    for r in 0..R {
        for l in 0..W {
            sums[r][l] += terms[r][l];
        }
    }
}

/// The sum of `term(x)` over a row.
#[inline(always)]
fn sum<T: Float, const K: usize>(c: usize, x: [&[T]; K], term: impl Fn([T; K]) -> T) -> f64 {
    let [total] = sums(c, x, |x| [term(x)]);
    total
}

/// The largest number of a row, 0 where that is infinite, so that it can be subtracted. NaNs are passed over.
#[inline(always)]
fn peak<T: Float>(c: usize, x: &[T]) -> T {
    let larger = |a: T, x: T| if x > a { x } else { a };
    let mut tops = [-T::INFINITY; W];
    windows!(c, [x], |_at, live, [x]| {
        for l in 0..W {
            tops[l] = larger(tops[l], if live.has(l) { x[l] } else { -T::INFINITY });
        }
    });
    let top = tree(tops, larger);
    if top.is_finite() { top } else { T::ZERO }
}

/// Merges the lanes, halves first.
#[inline(always)]
fn tree<T: Copy>(lanes: Lanes<T>, merge: impl Fn(T, T) -> T) -> T {
    // Through memory, so that the compiler holds what was gathered in one register. Without, it may take the lanes apart into
    // the pairs that are merged here, all through the loop before: a quarter of the speed.
    let lanes = std::hint::black_box(lanes);
    let (mut half, mut quarter) = ([lanes[0]; W / 2], [lanes[0]; W / 4]);
    for (l, half) in half.iter_mut().enumerate() {
        *half = merge(lanes[l], lanes[l + W / 2]);
    }
    let half = std::hint::black_box(half);
    for (l, quarter) in quarter.iter_mut().enumerate() {
        *quarter = merge(half[l], half[l + W / 4]);
    }
    let [a, b, c, d] = quarter;
    merge(merge(a, c), merge(b, d))
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
