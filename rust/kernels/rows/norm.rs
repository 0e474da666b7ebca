//! Layer norm (Ba et al. 2016) and RMS norm (Zhang & Sennrich 2019) of rows of c elements:
//!
//! ```text
//! m = mean x (0 in RMS norm), v = mean (x − m)², x̂ = (x − m)/√(v + eps), y = w·x̂ + b
//! g = w·dy, dx = (g − mean g − x̂·mean(g·x̂))/√(v + eps) (without mean g in RMS norm), dw = Σ_rows dy·x̂, db = Σ_rows dy
//! ```
//!
//! Invariant: the variance is summed from `x − pivot` with a pivot near the mean, never E[x²] − E[x]²; the mean is kept as
//! pivot + rest, to twice the precision of the elements.

use super::gathered::Gathered;
use super::order::{GROUP, Grouped, Order, Staggered, comes_from_afar, ends, stages};
use super::{W, map, pieces, rows_per_part, shared, sums, tree};
use crate::kernels::columns::expand;
use crate::kernels::parallel::{Chunks, drive};
use crate::kernels::simd::Float;
use crate::simd;
use std::borrow::Cow;

/// Rough cost of one element in tenths of a nanosecond: forward and backward.
const COST: (usize, usize) = (4, 6);
/// Least number of elements of a block of rows whose dw and db are summed together, and most blocks.
const BLOCK: usize = 1 << 14;
const BLOCKS: usize = 64;
/// Least elements of a block per element of dw: sums of fewer would cost as much to merge as to make.
const FEWEST: usize = 8;

/// Everything about a norm that is not its input.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a, T> {
    /// w of shape (groups·c/l,); 1 if absent.
    pub weight: Option<&'a [T]>,
    /// b of shape (groups·c/l,); 0 if absent.
    pub bias: Option<&'a [T]>,
    /// After how many rows weight and bias begin anew, and how many neighbours in a row have one of each: 1 and 1 in layer norm;
    /// in group norm the groups of an example, and the positions.
    pub groups: usize,
    pub l: usize,
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

impl<T: Float> Norm<'_, T> {
    /// Where row `r` of `c` elements finds its weights among those of all groups.
    #[inline(always)]
    fn weights_of(&self, r: usize, c: usize) -> usize {
        if self.groups == 1 { 0 } else { r % self.groups * c }
    }

    /// Elements of weight and bias.
    fn parameters(&self) -> usize {
        self.weight.or(self.bias).map_or(0, <[T]>::len)
    }

    /// Whether what shares a weight is worked on as one piece, rather than the weight repeated for each element.
    fn in_pieces(&self) -> bool {
        self.l >= W
    }

    /// Weight, bias or another vector of parameters, for every element of the rows of all groups.
    fn repeated<'p>(&self, c: usize, parameters: Option<&'p [T]>, value: T) -> Cow<'p, [T]> {
        match parameters {
            Some(p) if p.len() == self.groups * c && c >= W => Cow::Borrowed(p),
            _ => Cow::Owned(shared(self.groups * c, parameters.map(|p| expand(p, self.l)).as_deref(), value)),
        }
    }
}

/// A number near the mean of a row: the pivot.
#[inline(always)]
pub(super) fn pivot<T: Float>(c: usize, x: &[T], norm: &Norm<'_, T>) -> T {
    if norm.centred { beginning(c, x) } else { T::ZERO }
}

/// The means of x − pivot and of its square, from a pivot that is put nearer to the mean if need be.
#[inline(always)]
pub(super) fn measure<T: Float>(c: usize, x: &[T], pivot: &mut T, norm: &Norm<'_, T>) -> [f64; 2] {
    let [mut first, mut second] = moments(c, x, *pivot);
    if norm.centred && first * first > 0.5 * second {
        // The row begins far from its mean.
        *pivot += T::from_f64(first);
        [first, second] = moments(c, x, *pivot);
    }
    [first, second]
}

/// Pivot, rest (mean = pivot + rest) and 1/√(v + eps) of some rows, from their pivots and what [`measure`] found.
#[inline(always)]
pub(super) fn finish<T: Float>(stats: &mut [[T; 3]], found: &[[f64; 2]], norm: &Norm<'_, T>) {
    for (stats, &[first, second]) in stats.iter_mut().zip(found) {
        let first = if norm.centred { first } else { 0.0 };
        let var = second - first * first;
        // Not `max`, which would answer 0 for NaN.
        let var = if var < 0.0 { 0.0 } else { var };
        (stats[1], stats[2]) = (T::from_f64(first), T::from_f64(1.0 / (var + norm.eps).sqrt()));
    }
}

/// The mean of the first elements of a row.
#[inline(always)]
fn beginning<T: Float>(c: usize, x: &[T]) -> T {
    match x.first_chunk::<W>() {
        Some(&lanes) if c >= W => tree(lanes, |a, b| a + b) / T::from_f64(W as f64),
        _ => x[..c].iter().copied().sum::<T>() / T::from_f64(c as f64),
    }
}

/// The means of x − pivot and of its square.
#[inline(always)]
fn moments<T: Float>(c: usize, x: &[T], pivot: T) -> [f64; 2] {
    let [first, second] = sums(c, [x], |[x]| [x - pivot, (x - pivot) * (x - pivot)]);
    [first / c as f64, second / c as f64]
}

simd! {
    fn forward_part<T: Float, O: Order>(
        first: usize, c: usize, x: &[T], norm: &Norm<'_, T>, w: &[T], b: &[T], y: &mut [T], stats: &mut [[T; 3]],
    ) {
        let (rows, together, mut found) = (stats.len(), O::together(c), [[0.0; 2]; GROUP]);
        stages!(
            O,
            c,
            rows,
            |r| {
                O::ask(&x[r * c..], c);
                stats[r][0] = pivot(c, &x[r * c..], norm);
            },
            {
                O::claim(&y[r * c..], c);
                found[r % GROUP] = measure(c, &x[r * c..], &mut stats[r][0], norm);
                if ends(r, rows, together) {
                    let first = r & !(together - 1);
                    finish(&mut stats[first..=r], &found[first % GROUP..], norm);
                }
            },
            {
                let ([pivot, rest, scale], at) = (stats[r], norm.weights_of(first + r, c));
                let x = [&x[r * c..], &w[at..], &b[at..]];
                map(c, x, &mut y[r * c..], |[x, w, b]| ((x - pivot - rest) * scale).mul_add_on::<I>(w, b));
            }
        );
    }

    fn backward_part<T: Float, O: Order>(
        first: usize, c: usize, x: &[T], dy: &[T], norm: &Norm<'_, T>, w: &[T], stats: &[[T; 3]], dx: &mut [T], out: &mut [f64],
    ) {
        let mut gathered = Gathered::new(norm.groups * c, norm.l);
        for (r, &stats) in stats.iter().enumerate() {
            let (x, dy, dx, at) = (&x[r * c..], &dy[r * c..], &mut dx[r * c..], norm.weights_of(first + r, c));
            O::ask(x, c);
            O::ask(dy, c);
            O::claim(dx, c);
            let [mean, slope] = gathered.add::<I>(at, c, x, dy, &w[at..], stats, out).map(|sum| T::from_f64(sum / c as f64));
            let mean = if norm.centred { mean } else { T::ZERO };
            let [pivot, rest, scale] = stats;
            map(c, [x, dy, &w[at..]], dx, |[x, dy, w]| (dy * w - mean - (x - pivot - rest) * scale * slope) * scale);
        }
        gathered.flush(out);
    }
}

/// Writes the norm of every row of `c` elements to `y`, and pivot, rest and 1/√(v + eps) of every row to `stats`.
pub fn norm<T: Float>(x: &[T], c: usize, how: &Norm<'_, T>, y: &mut [T], stats: &mut [[T; 3]]) {
    if x.is_empty() {
        return;
    }
    // Once for all parts: threads that ask for memory wait for one another.
    let (w, b) = if how.in_pieces() { Default::default() } else { (how.repeated(c, how.weight, T::ONE), how.repeated(c, how.bias, T::ZERO)) };
    let (chunk, afar) = (rows_per_part(c), comes_from_afar::<T>(c, x.len()));
    let parts = (Chunks { slice: y, chunk: chunk * c }, Chunks { slice: stats, chunk });
    drive(parts, x.len().saturating_mul(COST.0) / 10, |first, (y, stats)| {
        let x = &x[first * chunk * c..][..y.slice.len()];
        match how.in_pieces() {
            true => pieces::forward_part(first * chunk, c, x, how, y.slice, stats.slice),
            false if afar => forward_part::<T, Staggered>(first * chunk, c, x, how, &w, &b, y.slice, stats.slice),
            false => forward_part::<T, Grouped>(first * chunk, c, x, how, &w, &b, y.slice, stats.slice),
        }
    });
}

/// Writes the gradient of every row to `dx` and answers those of weight and bias if `with_sums`; `stats` is what the forward wrote.
pub fn norm_backward<T: Float>(x: &[T], dy: &[T], c: usize, how: &Norm<'_, T>, stats: &[[T; 3]], dx: &mut [T], with_sums: bool) -> Sums {
    let parameters = how.parameters();
    let mut total = Sums { dw: vec![0.0; parameters], db: vec![0.0; parameters] };
    if x.is_empty() {
        return total;
    }
    let afar = comes_from_afar::<T>(c, x.len());
    let rows = stats.len().div_ceil(BLOCKS).max(BLOCK / c).max((FEWEST * parameters).div_ceil(c));
    let width = if with_sums { 2 * parameters } else { 0 };
    let mut partials = vec![vec![0.0; width]; stats.len().div_ceil(rows)];
    let parts = (Chunks { slice: dx, chunk: rows * c }, Chunks { slice: &mut partials, chunk: 1 });
    let w = if how.in_pieces() { Cow::default() } else { how.repeated(c, how.weight, T::ONE) };
    drive(parts, x.len().saturating_mul(COST.1) / 10, |first, (dx, partials)| {
        for (i, (dx, out)) in dx.slice.chunks_mut(rows * c).zip(partials.slice).enumerate() {
            let row = (first + i) * rows;
            let stats = &stats[row..][..dx.len() / c];
            let (x, dy) = (&x[row * c..][..dx.len()], &dy[row * c..][..dx.len()]);
            match how.in_pieces() {
                true => pieces::backward_part(row, c, x, dy, how, stats, dx, out),
                false if afar => backward_part::<T, Staggered>(row, c, x, dy, how, &w, stats, dx, out),
                false => backward_part::<T, Grouped>(row, c, x, dy, how, &w, stats, dx, out),
            }
        }
    });
    for block in partials.iter().filter(|_| with_sums) {
        total.dw.iter_mut().zip(&block[..parameters]).for_each(|(t, p)| *t += p);
        total.db.iter_mut().zip(&block[parameters..]).for_each(|(t, p)| *t += p);
    }
    total
}
