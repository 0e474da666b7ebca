//! Softmax and its logarithm down the columns of matrices: along an axis behind which others lie. Rows are read as they lie, a tile of
//! columns at a time.
//!
//! Invariant: columns are added up in the order of their rows, in float64 from `TALL` rows to `TALL` rows; what is beside them decides nothing.

use super::{SPAN, TALL, map};
use crate::kernels::interrupt;
use crate::kernels::math::Math;
use crate::kernels::parallel::{self, ColumnsMut};
use crate::kernels::simd::Float;
use crate::simd;

/// Columns that go down the rows together.
const TILE: usize = 64;
/// Rough cost of one element in tenths of a nanosecond.
const COST: usize = 8;

/// A number for each column of a tile.
type Each<T> = [T; TILE];

/// Sums of columns.
struct Sums<T> {
    part: Each<T>,
    total: [f64; TILE],
    rows: usize,
}

impl<T: Float> Sums<T> {
    #[inline(always)]
    fn new() -> Self {
        Sums { part: [T::ZERO; TILE], total: [0.0; TILE], rows: 0 }
    }

    #[inline(always)]
    fn add(&mut self, row: impl Iterator<Item = T>) {
        self.part.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        self.rows += 1;
        if self.rows == TALL {
            self.flush();
        }
    }

    #[inline(always)]
    fn flush(&mut self) {
        for (total, part) in self.total.iter_mut().zip(&mut self.part) {
            *total += part.to_f64();
            *part = T::ZERO;
        }
        self.rows = 0;
    }

    #[inline(always)]
    fn totals(mut self) -> [f64; TILE] {
        self.flush();
        self.total
    }
}

/// Writes e^(x − m) down each column, m being its largest number, or 0 where that is infinite. Gives m and Σe^(x − m).
#[inline(always)]
fn exponentials<I: crate::kernels::simd::Isa, T: Math>(x: &[T], inner: usize, y: &mut ColumnsMut<T>) -> (Each<T>, [f64; TILE]) {
    let (c, n) = (y.rows(), y.cols());
    let mut peaks = [-T::INFINITY; TILE];
    for j in 0..c {
        let x = &x[j * inner..][..n];
        peaks.iter_mut().zip(x).for_each(|(top, &x)| *top = if x > *top { x } else { *top });
    }
    for top in &mut peaks {
        *top = if top.is_finite() { *top } else { T::ZERO };
    }
    let mut sums = Sums::new();
    for j in 0..if interrupt::stops() { 0 } else { c } {
        let y = y.row_mut(j);
        map(n, [&x[j * inner..], &peaks], y, |[x, peak]| (x - peak).exp_down_on::<I>());
        sums.add(y.iter().copied());
    }
    (peaks, sums.totals())
}

simd! {
    fn softmax_tile<T: Math>(x: &[T], inner: usize, y: ColumnsMut<T>) {
        let (_, sums) = exponentials::<I, T>(x, inner, &mut y);
        let scales = sums.map(|sum| T::from_f64(1.0 / sum));
        for j in 0..y.rows() {
            y.row_mut(j).iter_mut().zip(&scales).for_each(|(y, &scale)| *y *= scale);
        }
    }

    fn log_softmax_tile<T: Math>(x: &[T], inner: usize, y: ColumnsMut<T>) {
        let (peaks, sums) = exponentials::<I, T>(x, inner, &mut y);
        let (sums, mut logs) = (sums.map(T::from_f64), [T::ZERO; TILE]);
        map(TILE, [&sums], &mut logs, |[sum]| sum.log_on::<I>());
        for j in 0..y.rows() {
            for (((y, &x), &peak), &log) in y.row_mut(j).iter_mut().zip(&x[j * inner..]).zip(&peaks).zip(&logs) {
                *y = x - peak - log;
            }
        }
    }

    fn softmax_backward_tile<T: Float>(y: &[T], dy: &[T], inner: usize, dx: ColumnsMut<T>) {
        let n = dx.cols();
        let rows = |j: usize| y[j * inner..][..n].iter().zip(&dy[j * inner..]);
        let mut sums = Sums::new();
        for j in 0..dx.rows() {
            sums.add(rows(j).map(|(&y, &dy)| y * dy));
        }
        let dots = sums.totals().map(T::from_f64);
        for j in 0..dx.rows() {
            for ((dx, (&y, &dy)), &dot) in dx.row_mut(j).iter_mut().zip(rows(j)).zip(&dots) {
                *dx = y * (dy - dot);
            }
        }
    }

    fn log_softmax_backward_tile<T: Math>(y: &[T], dy: &[T], inner: usize, dx: ColumnsMut<T>) {
        let n = dx.cols();
        let mut sums = Sums::new();
        for j in 0..dx.rows() {
            sums.add(dy[j * inner..][..n].iter().copied());
        }
        let totals = sums.totals().map(T::from_f64);
        for j in 0..dx.rows() {
            map(n, [&y[j * inner..], &dy[j * inner..], &totals], dx.row_mut(j), |[y, dy, total]| dy - y.exp_down_on::<I>() * total);
        }
    }
}

/// Runs `f(at, tile)` for tiles of columns of matrices of `c` rows and `inner` columns that follow on each other in `y`, `at` being
/// where a tile begins.
fn tiles<T: Float>(y: &mut [T], (c, inner): (usize, usize), f: impl Fn(usize, ColumnsMut<T>) + Sync) {
    let (plane, work) = (c * inner, y.len().saturating_mul(COST) / 10);
    let each = |at: usize, mut columns: ColumnsMut<T>| {
        for t in 0..columns.cols().div_ceil(TILE) {
            f(at + t * TILE, columns.chunk_mut(t));
        }
    };
    if y.len() / plane.max(1) == 1 {
        return parallel::drive(ColumnsMut::new(y, inner, TILE), work, |first, columns| each(first * TILE, columns));
    }
    let chunk = (SPAN / plane.max(1)).max(1) * plane;
    parallel::for_chunks(y, chunk, work, |i, y| {
        for (p, y) in y.chunks_mut(plane).enumerate() {
            each(i * chunk + p * plane, ColumnsMut::new(y, inner, TILE));
        }
    });
}

/// Writes eˣ / Σeˣ down the columns of matrices of `c` rows and `inner` columns to `y`.
pub fn softmax<T: Math>(x: &[T], (c, inner): (usize, usize), y: &mut [T]) {
    tiles(y, (c, inner), |at, y| softmax_tile(&x[at..], inner, y));
}

/// Writes x − log Σeˣ down the columns to `y`.
pub fn log_softmax<T: Math>(x: &[T], (c, inner): (usize, usize), y: &mut [T]) {
    tiles(y, (c, inner), |at, y| log_softmax_tile(&x[at..], inner, y));
}

/// Writes y·(dy − Σ dy·y) down the columns to `dx`.
pub fn softmax_backward<T: Float>(y: &[T], dy: &[T], (c, inner): (usize, usize), dx: &mut [T]) {
    tiles(dx, (c, inner), |at, dx| softmax_backward_tile(&y[at..], &dy[at..], inner, dx));
}

/// Writes dy − eʸ·Σdy down the columns to `dx`.
pub fn log_softmax_backward<T: Math>(y: &[T], dy: &[T], (c, inner): (usize, usize), dx: &mut [T]) {
    tiles(dx, (c, inner), |at, dx| log_softmax_backward_tile(&y[at..], &dy[at..], inner, dx));
}
