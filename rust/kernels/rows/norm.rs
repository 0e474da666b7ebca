//! Layer norm (Ba et al. 2016) and RMS norm (Zhang & Sennrich 2019) of rows of c elements:
//!
//! ```text
//! m = mean x (0 in RMS norm), v = mean (x − m)², x̂ = (x − m)/√(v + eps), y = w·x̂ + b
//! g = w·dy, dx = (g − mean g − x̂·mean(g·x̂))/√(v + eps) (without mean g in RMS norm), dw = Σ_rows dy·x̂, db = Σ_rows dy
//! ```
//!
//! Invariant: the variance is summed from `x − pivot` with a pivot near the mean, never E[x²] − E[x]²; the mean is kept as
//! pivot + rest, to twice the precision of the elements.

use super::{Live, TALL, W, after, each, last_windows, map, put, rows_per_part, shared, sum, sums, totals, tree, whole_windows, window, windows};
use crate::kernels::parallel::{Chunks, drive};
use crate::kernels::simd::{Float, Isa, lanes_only};
use crate::simd;

/// Rough cost of one element in tenths of a nanosecond: forward and backward.
const COST: (usize, usize) = (4, 6);
/// Least number of elements of a block of rows whose dw and db are summed together, and most blocks.
const BLOCK: usize = 1 << 14;
const BLOCKS: usize = 64;
/// Least rows of a block: sums of fewer would cost as much to merge as to make.
const FEWEST: usize = 8;

/// Everything about a norm that is not its input.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a, T> {
    /// w of shape (c,); 1 if absent.
    pub weight: Option<&'a [T]>,
    /// b of shape (c,); 0 if absent.
    pub bias: Option<&'a [T]>,
    pub eps: f64,
    /// Whether the mean is taken off: layer norm does, RMS norm does not.
    pub centred: bool,
}

/// dw and db, in float64.
#[derive(Clone, Debug)]
pub struct Sums {
    pub dw: Vec<f64>,
    pub db: Vec<f64>,
}

/// Pivot, rest (mean = pivot + rest) and 1/√(v + eps) of a row.
#[inline(always)]
fn measure<T: Float>(c: usize, x: &[T], norm: &Norm<'_, T>) -> [T; 3] {
    if !norm.centred {
        let square = sum(c, [x], |[x]| x * x) / c as f64;
        return [T::ZERO, T::ZERO, T::from_f64(1.0 / (square + norm.eps).sqrt())];
    }
    let n = c.min(W);
    let mut pivot = T::from_f64(sum(n, [x], |[x]| x) / n as f64);
    let [mut first, mut second] = moments(c, x, pivot);
    if first * first > 0.5 * second {
        // The row begins far from its mean.
        pivot += T::from_f64(first);
        [first, second] = moments(c, x, pivot);
    }
    let var = second - first * first;
    // Not `max`, which would answer 0 for NaN.
    let var = if var < 0.0 { 0.0 } else { var };
    [pivot, T::from_f64(first), T::from_f64(1.0 / (var + norm.eps).sqrt())]
}

/// The means of x − pivot and of its square.
#[inline(always)]
fn moments<T: Float>(c: usize, x: &[T], pivot: T) -> [f64; 2] {
    let [first, second] = sums(c, [x], |[x]| [x - pivot, (x - pivot) * (x - pivot)]);
    [first / c as f64, second / c as f64]
}

/// Running sums over rows, column by column.
struct Gathered<T> {
    dw: Vec<T>,
    db: Vec<T>,
    /// Rows since the last flush.
    rows: usize,
}

impl<T: Float> Gathered<T> {
    fn new(c: usize) -> Self {
        Gathered { dw: shared(c, None, T::ZERO), db: shared(c, None, T::ZERO), rows: 0 }
    }

    /// Adds dy·x̂ and dy of a row and answers Σ w·dy and Σ w·dy·x̂; now and then moves the sums to `out`.
    #[inline(always)]
    fn add<I: Isa>(&mut self, c: usize, x: &[T], dy: &[T], w: &[T], [pivot, rest, scale]: [T; 3], out: &mut [f64]) -> [f64; 2] {
        let own = totals!(c, [x, dy, w], |at, live, [x, dy, w], sums: [T; 2]| {
            let (mut dw, mut db) = (window(&self.dw, at, live), window(&self.db, at, live));
            for l in 0..W {
                let dy = if live.has(l) { dy[l] } else { T::ZERO };
                let hat = if live.has(l) { (x[l] - pivot - rest) * scale } else { T::ZERO };
                dw[l] = hat.mul_add_on::<I>(dy, dw[l]);
                db[l] += dy;
                sums[0][l] += dy * w[l];
                sums[1][l] = hat.mul_add_on::<I>(dy * w[l], sums[1][l]);
            }
            put(&mut self.dw, at, live, dw);
            put(&mut self.db, at, live, db);
        });
        self.rows += 1;
        if self.rows == TALL {
            self.flush(out);
        }
        own
    }

    /// Moves the sums to `out`: c of dw, then c of db.
    #[inline(always)]
    fn flush(&mut self, out: &mut [f64]) {
        let (dw, db) = out.split_at_mut(out.len() / 2);
        for (sums, out) in [(&mut self.dw, dw), (&mut self.db, db)] {
            for (out, sum) in out.iter_mut().zip(sums) {
                *out += sum.to_f64();
                *sum = T::ZERO;
            }
        }
        self.rows = 0;
    }
}

simd! {
    fn forward_part<T: Float>(c: usize, x: &[T], norm: &Norm<'_, T>, y: &mut [T], stats: &mut [[T; 3]]) {
        let (w, b) = (shared(c, norm.weight, T::ONE), shared(c, norm.bias, T::ZERO));
        for (r, stats) in stats.iter_mut().enumerate() {
            let x = &x[r * c..];
            *stats = measure(c, x, norm);
            let [pivot, rest, scale] = *stats;
            map(c, [x, &w, &b], &mut y[r * c..], |[x, w, b]| ((x - pivot - rest) * scale).mul_add_on::<I>(w, b));
        }
    }

    fn backward_part<T: Float>(c: usize, x: &[T], dy: &[T], norm: &Norm<'_, T>, stats: &[[T; 3]], dx: &mut [T], out: &mut [f64]) {
        let (w, n) = (shared(c, norm.weight, T::ONE), c as f64);
        let mut gathered = Gathered::new(c);
        for (r, &[pivot, rest, scale]) in stats.iter().enumerate() {
            let (x, dy) = (&x[r * c..], &dy[r * c..]);
            let [first, second] = gathered.add::<I>(c, x, dy, &w, [pivot, rest, scale], out);
            let first = if norm.centred { first } else { 0.0 };
            let (mean, slope) = (T::from_f64(first / n), T::from_f64(second / n));
            map(c, [x, dy, &w], &mut dx[r * c..], |[x, dy, w]| (dy * w - mean - (x - pivot - rest) * scale * slope) * scale);
        }
        gathered.flush(out);
    }
}

/// Writes the norm of every row of `c` elements to `y`, and pivot, rest and 1/√(v + eps) of every row to `stats`.
pub fn norm<T: Float>(x: &[T], c: usize, how: &Norm<'_, T>, y: &mut [T], stats: &mut [[T; 3]]) {
    if x.is_empty() {
        return;
    }
    let chunk = rows_per_part(c);
    let parts = (Chunks { slice: y, chunk: chunk * c }, Chunks { slice: stats, chunk });
    drive(parts, x.len().saturating_mul(COST.0) / 10, |first, (y, stats)| {
        let x = &x[first * chunk * c..][..y.slice.len()];
        forward_part(c, x, how, y.slice, stats.slice);
    });
}

/// Writes the gradient of every row to `dx` and answers those of weight and bias if `with_sums`; `stats` is what the forward wrote.
pub fn norm_backward<T: Float>(x: &[T], dy: &[T], c: usize, how: &Norm<'_, T>, stats: &[[T; 3]], dx: &mut [T], with_sums: bool) -> Sums {
    let mut total = Sums { dw: vec![0.0; c], db: vec![0.0; c] };
    if x.is_empty() {
        return total;
    }
    let rows = stats.len().div_ceil(BLOCKS).max(BLOCK / c).max(FEWEST);
    let width = if with_sums { 2 * c } else { 0 };
    let mut partials = vec![vec![0.0; width]; stats.len().div_ceil(rows)];
    let parts = (Chunks { slice: dx, chunk: rows * c }, Chunks { slice: &mut partials, chunk: 1 });
    drive(parts, x.len().saturating_mul(COST.1) / 10, |first, (dx, partials)| {
        for (i, (dx, out)) in dx.slice.chunks_mut(rows * c).zip(partials.slice).enumerate() {
            let at = (first + i) * rows * c;
            let stats = &stats[(first + i) * rows..][..dx.len() / c];
            backward_part(c, &x[at..][..dx.len()], &dy[at..][..dx.len()], how, stats, dx, out);
        }
    });
    for block in partials.iter().filter(|_| with_sums) {
        total.dw.iter_mut().zip(&block[..c]).for_each(|(t, p)| *t += p);
        total.db.iter_mut().zip(&block[c..]).for_each(|(t, p)| *t += p);
    }
    total
}
