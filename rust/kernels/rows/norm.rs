//! Layer norm (Ba et al. 2016) and RMS norm (Zhang & Sennrich 2019) of rows of c elements:
//!
//! ```text
//! m = mean x (0 in RMS norm), v = mean (x − m)², x̂ = (x − m)/√(v + eps), y = w·x̂ + b
//! g = w·dy, dx = (g − mean g − x̂·mean(g·x̂))/√(v + eps) (without mean g in RMS norm), dw = Σ_rows dy·x̂, db = Σ_rows dy
//! ```
//!
//! Invariant: the variance is summed from `x − pivot` with a pivot near the mean, never E[x²] − E[x]²; the mean is kept as
//! pivot + rest, to twice the precision of the elements.

use super::{Form, Lanes, TALL, Tile, lanes, map, stay_in_step, sum, sums, update};
use crate::kernels::parallel::{Chunks, drive};
use crate::kernels::simd::{Float, Isa, LANES};
use crate::simd;

/// Rough cost of one element in tenths of a nanosecond: forward and backward.
const COST: (usize, usize) = (5, 10);
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

/// Pivot, rest (mean = pivot + rest) and 1/√(v + eps) of every row of a tile.
#[inline(always)]
fn measure<T: Float, I: Isa>(form: Form, tile: &mut [Lanes<T>], eps: f64, centred: bool) -> [Lanes<T>; 3] {
    let n = form.c as f64;
    let mut pivot = [T::ZERO; LANES];
    if centred {
        let total = form.total(sum(tile, tile, |_, x, _| x));
        pivot = lanes(|r| T::from_f64(total[r] / n));
        form.pad(tile, pivot[0]);
    }
    let (first, second) = sums(tile, tile, |lane, x, _| {
        let d = x - pivot[lane];
        (d, d * d)
    });
    let (mut rest, mut scale) = ([T::ZERO; LANES], [T::ZERO; LANES]);
    let (first, second) = (form.total(first), form.total(second));
    for lane in 0..LANES {
        let shift = if centred { first[lane] / n } else { 0.0 };
        let var = second[lane] / n - shift * shift;
        rest[lane] = T::from_f64(shift);
        // Not `max`, which would answer 0 for NaN.
        scale[lane] = T::from_f64(1.0 / (if var < 0.0 { 0.0 } else { var } + eps).sqrt());
    }
    [pivot, rest, scale]
}

/// x̂ in place of x.
#[inline(always)]
fn normalise<T: Float>(tile: &mut [Lanes<T>], [pivot, rest, scale]: &[Lanes<T>; 3]) {
    map(tile, |r, x| (x - pivot[r] - rest[r]) * scale[r]);
}

/// Running sums over rows, element by element of a tile.
struct Gathered<T> {
    dw: Tile<T>,
    db: Tile<T>,
    /// Tiles since the last flush.
    tiles: usize,
}

impl<T: Float> Gathered<T> {
    fn new(form: Form) -> Self {
        Gathered { dw: form.tile(), db: form.tile(), tiles: 0 }
    }

    #[inline(always)]
    fn add<I: Isa>(&mut self, hat: &[Lanes<T>], dy: &[Lanes<T>]) {
        for ((dw, db), (hat, dy)) in self.dw.iter_mut().zip(&mut self.db).zip(hat.iter().zip(dy)) {
            for lane in 0..LANES {
                dw[lane] = hat[lane].mul_add_on::<I>(dy[lane], dw[lane]);
                db[lane] += dy[lane];
            }
            stay_in_step();
        }
        self.tiles += 1;
    }

    /// Moves the sums to `out`: c of dw, then c of db.
    #[inline(always)]
    fn flush(&mut self, form: Form, out: &mut [f64]) {
        for (tile, out) in [&mut self.dw, &mut self.db].into_iter().zip(out.chunks_exact_mut(form.c)) {
            if form.short() {
                tile.iter().zip(out).for_each(|(step, out)| *out += step.iter().map(|x| x.to_f64()).sum::<f64>());
            } else {
                tile.as_flattened().iter().zip(out).for_each(|(x, out)| *out += x.to_f64());
            }
            tile.fill([T::ZERO; LANES]);
        }
        self.tiles = 0;
    }
}

simd! {
    fn forward_part<T: Float>(form: Form, x: &[T], norm: &Norm<'_, T>, y: &mut [T], stats: &mut [[T; 3]]) {
        let (mut tile, rows) = (form.tile(), form.rows());
        let (w, b) = (form.shared(norm.weight, T::ONE), form.shared(norm.bias, T::ZERO));
        for ((x, y), stats) in x.chunks(rows * form.c).zip(y.chunks_mut(rows * form.c)).zip(stats.chunks_mut(rows)) {
            form.load(x, &mut tile);
            let measured = measure::<T, I>(form, &mut tile, norm.eps, norm.centred);
            normalise(&mut tile, &measured);
            update(&mut tile, &w, |_, hat, w| hat * w);
            if norm.bias.is_some() {
                update(&mut tile, &b, |_, y, b| y + b);
            }
            form.store(&tile, y);
            for (r, stats) in stats.iter_mut().enumerate().take(LANES) {
                *stats = measured.map(|m| m[r]);
            }
        }
    }

    fn backward_part<T: Float>(form: Form, x: &[T], dy: &[T], norm: &Norm<'_, T>, stats: &[[T; 3]], dx: &mut [T], out: &mut [f64]) {
        let (mut hat, mut grad, rows) = (form.tile(), form.tile(), form.rows());
        let (w, n) = (form.shared(norm.weight, T::ONE), form.c as f64);
        let mut gathered = Gathered::new(form);
        let parts = x.chunks(rows * form.c).zip(dy.chunks(rows * form.c)).zip(dx.chunks_mut(rows * form.c));
        for (((x, dy), dx), stats) in parts.zip(stats.chunks(rows)) {
            form.load(x, &mut hat);
            form.load(dy, &mut grad);
            let stats = [0, 1, 2].map(|k| form.spread(stats, k));
            normalise(&mut hat, &stats);
            form.pad(&mut hat, T::ZERO);
            if !out.is_empty() {
                gathered.add::<I>(&hat, &grad);
                if gathered.tiles == TALL {
                    gathered.flush(form, out);
                }
            }
            update(&mut grad, &w, |_, dy, w| dy * w);
            let (first, second) = sums(&grad, &hat, |_, g, hat| (g, g * hat));
            let (first, second) = (form.total(first), form.total(second));
            let mean = lanes(|r| if norm.centred { T::from_f64(first[r] / n) } else { T::ZERO });
            let (slope, scale) = (lanes(|r| T::from_f64(second[r] / n)), &stats[2]);
            update(&mut grad, &hat, |r, g, hat| (g - mean[r] - hat * slope[r]) * scale[r]);
            form.store(&grad, dx);
        }
        gathered.flush(form, out);
    }
}

/// Writes the norm of every row of `c` elements to `y`, and pivot, rest and 1/√(v + eps) of every row to `stats`.
pub fn norm<T: Float>(x: &[T], c: usize, how: &Norm<'_, T>, y: &mut [T], stats: &mut [[T; 3]]) {
    if x.is_empty() {
        return;
    }
    let form = Form { c };
    let chunk = form.rows_per_part();
    let parts = (Chunks { slice: y, chunk: chunk * c }, Chunks { slice: stats, chunk });
    drive(parts, x.len().saturating_mul(COST.0) / 10, |first, (y, stats)| {
        let x = &x[first * chunk * c..][..y.slice.len()];
        forward_part(form, x, how, y.slice, stats.slice);
    });
}

/// Writes the gradient of every row to `dx` and answers those of weight and bias if `with_sums`; `stats` is what the forward wrote.
pub fn norm_backward<T: Float>(x: &[T], dy: &[T], c: usize, how: &Norm<'_, T>, stats: &[[T; 3]], dx: &mut [T], with_sums: bool) -> Sums {
    let mut total = Sums { dw: vec![0.0; c], db: vec![0.0; c] };
    if x.is_empty() {
        return total;
    }
    let form = Form { c };
    let rows = stats.len().div_ceil(BLOCKS).max(BLOCK / c).max(FEWEST).next_multiple_of(form.rows());
    let width = if with_sums { 2 * c } else { 0 };
    let mut partials = vec![vec![0.0; width]; stats.len().div_ceil(rows)];
    let parts = (Chunks { slice: dx, chunk: rows * c }, Chunks { slice: &mut partials, chunk: 1 });
    drive(parts, x.len().saturating_mul(COST.1) / 10, |first, (dx, partials)| {
        for (i, (dx, out)) in dx.slice.chunks_mut(rows * c).zip(partials.slice).enumerate() {
            let at = (first + i) * rows * c;
            let stats = &stats[(first + i) * rows..][..dx.len() / c];
            backward_part(form, &x[at..][..dx.len()], &dy[at..][..dx.len()], how, stats, dx, out);
        }
    });
    for block in partials.iter().filter(|_| with_sums) {
        total.dw.iter_mut().zip(&block[..c]).for_each(|(t, p)| *t += p);
        total.db.iter_mut().zip(&block[c..]).for_each(|(t, p)| *t += p);
    }
    total
}
