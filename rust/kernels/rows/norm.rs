//! Layer norm (Ba et al. 2016) and RMS norm (Zhang & Sennrich 2019) of rows of c elements:
//!
//! ```text
//! m = mean x (0 in RMS norm), v = mean (x − m)², x̂ = (x − m)/√(v + eps), y = w·x̂ + b
//! g = w·dy, dx = (g − mean g − x̂·mean(g·x̂))/√(v + eps) (without mean g in RMS norm), dw = Σ_rows dy·x̂, db = Σ_rows dy
//! ```
//!
//! Invariant: the variance is summed from `x − pivot` with a pivot near the mean, never E[x²] − E[x]²; the mean is kept as
//! pivot + rest, to twice the precision of the elements.

use super::{Form, Lanes, TALL, Tile, map};
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

/// Room for a tile and three numbers per row.
struct Room<T: Float> {
    tile: Tile<T>,
    spread: [Tile<T>; 3],
}

impl<T: Float> Room<T> {
    fn new(form: Form) -> Self {
        Room { tile: form.tile(), spread: [form.operand(), form.operand(), form.operand()] }
    }

    /// Reads rows x: a tile of x̂, and pivot, rest (mean = pivot + rest) and 1/√(v + eps) of every row.
    #[inline(always)]
    fn measure(&mut self, form: Form, x: &[T], norm: &Norm<'_, T>) -> (&mut [Lanes<T>], [Lanes<T>; 3]) {
        let (tile, n) = (form.load(x, &mut self.tile), form.c as f64);
        let (mut pivot, mut first) = ([T::ZERO; LANES], [0.0; LANES]);
        let [spread, spread_scale, _] = &mut self.spread;
        if norm.centred {
            let total = form.sum(tile, tile, |x, _| x);
            pivot = form.numbers(|r| T::from_f64(total[r] / n));
            map(tile, [form.spread(&pivot, spread)], |x, [pivot]| x - pivot);
            form.pad(tile, T::ZERO);
            first = form.sum(tile, tile, |d, _| d);
        }
        let second = form.sum(tile, tile, |d, _| d * d);
        let rest = form.numbers(|r| T::from_f64(first[r] / n));
        let scale = form.numbers(|r| {
            let var = second[r] / n - (first[r] / n) * (first[r] / n);
            // Not `max`, which would answer 0 for NaN.
            T::from_f64(1.0 / (if var < 0.0 { 0.0 } else { var } + norm.eps).sqrt())
        });
        map(tile, [form.spread(&rest, spread), form.spread(&scale, spread_scale)], |d, [rest, scale]| (d - rest) * scale);
        (tile, [pivot, rest, scale])
    }

    /// Reads rows x: a tile of x̂ by what [`Room::measure`] found, and 1/√(v + eps) as an operand.
    #[inline(always)]
    fn normalise(&mut self, form: Form, x: &[T], stats: &[[T; 3]]) -> (&[Lanes<T>], &[Lanes<T>]) {
        let tile = form.load(x, &mut self.tile);
        let mut found = [[T::ZERO; LANES]; 3];
        for (r, stats) in stats.iter().enumerate().take(LANES) {
            for k in 0..3 {
                found[k][r] = stats[k];
            }
        }
        let [pivot, rest, scale] = &mut self.spread;
        let scale = form.spread(&found[2], scale);
        map(tile, [form.spread(&found[0], pivot), form.spread(&found[1], rest), scale], |x, [pivot, rest, scale]| (x - pivot - rest) * scale);
        form.pad(tile, T::ZERO);
        (tile, scale)
    }
}

/// Running sums over rows, element by element of a tile.
struct Gathered<T: Float> {
    dw: Tile<T>,
    db: Tile<T>,
    /// Tiles since the last flush.
    tiles: usize,
}

impl<T: Float> Gathered<T> {
    fn new(form: Form) -> Self {
        Gathered { dw: form.tile(), db: form.tile(), tiles: 0 }
    }

    /// Adds dy·x̂ and dy; now and then moves the sums to `out`.
    #[inline(always)]
    fn add<I: Isa>(&mut self, form: Form, hat: &[Lanes<T>], dy: &[Lanes<T>], out: &mut [f64]) {
        map(&mut self.dw[..dy.len()], [hat, dy], |dw, [hat, dy]| hat.mul_add_on::<I>(dy, dw));
        map(&mut self.db[..dy.len()], [dy], |db, [dy]| db + dy);
        self.tiles += 1;
        if self.tiles == TALL {
            self.flush(form, out);
        }
    }

    /// Moves the sums to `out`: c of dw, then c of db.
    #[inline(always)]
    fn flush(&mut self, form: Form, out: &mut [f64]) {
        for (tile, out) in [&mut self.dw, &mut self.db].into_iter().zip(out.chunks_exact_mut(form.c)) {
            for row in tile.as_flattened()[..form.size()].chunks_exact(form.c) {
                row.iter().zip(&mut *out).for_each(|(x, out)| *out += x.to_f64());
            }
            tile.fill([T::ZERO; LANES]);
        }
        self.tiles = 0;
    }
}

simd! {
    fn forward_part<T: Float>(full: Form, x: &[T], norm: &Norm<'_, T>, y: &mut [T], stats: &mut [[T; 3]]) {
        let mut room = Room::new(full);
        let (w, b) = (full.shared(norm.weight, T::ONE), full.shared(norm.bias, T::ZERO));
        for ((x, y), stats) in x.chunks(full.size()).zip(y.chunks_mut(full.size())).zip(stats.chunks_mut(full.rows)) {
            let form = full.of(x.len());
            let (tile, found) = room.measure(form, x, norm);
            map(tile, [&w, &b], |hat, [w, b]| hat.mul_add_on::<I>(w, b));
            form.store(tile, y);
            for (r, stats) in stats.iter_mut().enumerate().take(LANES) {
                *stats = [found[0][r], found[1][r], found[2][r]];
            }
        }
    }

    fn backward_part<T: Float>(full: Form, x: &[T], dy: &[T], norm: &Norm<'_, T>, stats: &[[T; 3]], dx: &mut [T], out: &mut [f64]) {
        let (mut room, mut grad, mut means, mut slopes) = (Room::new(full), full.tile(), full.operand(), full.operand());
        let (w, n) = (full.shared(norm.weight, T::ONE), full.c as f64);
        let mut gathered = Gathered::new(full);
        let parts = x.chunks(full.size()).zip(dy.chunks(full.size())).zip(dx.chunks_mut(full.size()));
        for (((x, dy), dx), stats) in parts.zip(stats.chunks(full.rows)) {
            let form = full.of(x.len());
            let (hat, scale) = room.normalise(form, x, stats);
            let grad = form.load(dy, &mut grad);
            if !out.is_empty() {
                gathered.add::<I>(full, hat, grad, out);
            }
            map(grad, [&w], |dy, [w]| dy * w);
            let first = if norm.centred { form.sum(grad, grad, |g, _| g) } else { [0.0; LANES] };
            let second = form.sum(grad, hat, |g, hat| g * hat);
            let (mean, slope) = (form.numbers(|r| T::from_f64(first[r] / n)), form.numbers(|r| T::from_f64(second[r] / n)));
            let (mean, slope) = (form.spread(&mean, &mut means), form.spread(&slope, &mut slopes));
            map(grad, [hat, mean, slope, scale], |g, [hat, mean, slope, scale]| (g - mean - hat * slope) * scale);
            form.store(grad, dx);
        }
        gathered.flush(full, out);
    }
}

/// Writes the norm of every row of `c` elements to `y`, and pivot, rest and 1/√(v + eps) of every row to `stats`.
pub fn norm<T: Float>(x: &[T], c: usize, how: &Norm<'_, T>, y: &mut [T], stats: &mut [[T; 3]]) {
    if x.is_empty() {
        return;
    }
    let form = Form::new(c);
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
    let form = Form::new(c);
    let rows = stats.len().div_ceil(BLOCKS).max(BLOCK / c).max(FEWEST).next_multiple_of(form.rows);
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
