//! dx of a norm's rows, and dw and db: sums over rows, column by column.
//!
//! Invariant: a column's sum is taken in `T` over at most about [`TALL`] rows, in their order, then added up in float64.

use super::{Live, TALL, W, after, each, last, last_windows, put, shared, sums, totals, tree, whole_windows, window, windows};
use crate::kernels::simd::{Float, Isa, lanes_only};

/// Bytes of x and dy of a tile, which stays in the first-level cache between its two sweeps, and most rows of one.
const TILE: usize = 32 << 10;
const ROWS: usize = 32;
/// Columns whose sums are kept in registers while the rows of a tile go by.
const G: usize = 2 * W;

/// Running sums over rows, column by column.
pub(super) struct Gathered<T> {
    dw: Vec<T>,
    db: Vec<T>,
    /// Neighbouring columns that are one sum in the end.
    l: usize,
    /// Rows since the last flush.
    rows: usize,
}

/// What the second sweep needs to know of a row: pivot, rest and 1/√(v + eps), mean g and mean(g·x̂).
type Facts<T> = [T; 5];

impl<T: Float> Gathered<T> {
    pub fn new(columns: usize, l: usize) -> Self {
        Gathered { dw: shared(columns, None, T::ZERO), db: shared(columns, None, T::ZERO), l, rows: 0 }
    }

    /// Adds dy·x̂ and dy of a row to the columns from `left` on and answers Σ w·dy and Σ w·dy·x̂; now and then moves the sums to
    /// `out`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub fn add<I: Isa>(&mut self, left: usize, c: usize, x: &[T], dy: &[T], w: &[T], [pivot, rest, scale]: [T; 3], out: &mut [f64]) -> [f64; 2] {
        let own = totals!(c, [x, dy, w], |at, live, [x, dy, w], sums: [T; 2]| {
            let (mut dw, mut db) = (window(&self.dw[left..], at, live), window(&self.db[left..], at, live));
            for l in 0..W {
                let dy = if live.has(l) { dy[l] } else { T::ZERO };
                let hat = if live.has(l) { (x[l] - pivot - rest) * scale } else { T::ZERO };
                dw[l] = hat.mul_add_on::<I>(dy, dw[l]);
                db[l] += dy;
                sums[0][l] += dy * w[l];
                sums[1][l] = hat.mul_add_on::<I>(dy * w[l], sums[1][l]);
            }
            put(&mut self.dw[left..], at, live, dw);
            put(&mut self.db[left..], at, live, db);
        });
        self.rows += 1;
        if self.rows == TALL {
            self.flush(out);
        }
        own
    }

    /// Moves the sums to `out`: those of dw, then those of db.
    #[inline(always)]
    pub fn flush(&mut self, out: &mut [f64]) {
        let (dw, db) = out.split_at_mut(out.len() / 2);
        for (sums, out) in [(&mut self.dw, dw), (&mut self.db, db)] {
            for (out, sums) in out.iter_mut().zip(sums.chunks_mut(self.l)) {
                for sum in sums {
                    *out += sum.to_f64();
                    *sum = T::ZERO;
                }
            }
        }
        self.rows = 0;
    }

    /// dx of rows of `c` elements, at least a window, in tiles: the sums of each of its rows first, then column by column what
    /// the rows have to say.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub fn add_tiles<I: Isa>(mut self, c: usize, x: &[T], dy: &[T], w: &[T], centred: bool, stats: &[[T; 3]], dx: &mut [T], out: &mut [f64]) {
        let rows = (TILE / (2 * c * size_of::<T>())).clamp(1, ROWS);
        let mut facts = [[T::ZERO; 5]; ROWS];
        for (i, stats) in stats.chunks(rows).enumerate() {
            let at = i * rows * c;
            let (x, dy, dx, facts) = (&x[at..], &dy[at..], &mut dx[at..], &mut facts[..stats.len()]);
            for (r, (&[pivot, rest, scale], facts)) in stats.iter().zip(facts.iter_mut()).enumerate() {
                let found = sums(c, [&x[r * c..], &dy[r * c..], w], |[x, dy, w]| [dy * w, (x - pivot - rest) * scale * (dy * w)]);
                let [mean, slope] = found.map(|sum| T::from_f64(sum / c as f64));
                *facts = [pivot, rest, scale, if centred { mean } else { T::ZERO }, slope];
            }
            for at in (0..c / G * G).step_by(G) {
                self.add_columns::<I, G>(at, 0, c, x, dy, w, facts, dx);
            }
            if c % G >= W {
                self.add_columns::<I, W>(c / G * G, 0, c, x, dy, w, facts, dx);
            }
            if !c.is_multiple_of(W) {
                let (at, live) = last(c);
                self.add_columns::<I, W>(at, live.from, c, x, dy, w, facts, dx);
            }
            self.rows += stats.len();
            if self.rows >= TALL {
                self.flush(out);
            }
        }
        self.flush(out);
    }

    /// dx of G columns from `at` on, whose sums are new from number `new` on.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn add_columns<I: Isa, const G: usize>(&mut self, at: usize, new: usize, c: usize, x: &[T], dy: &[T], w: &[T], facts: &[Facts<T>], dx: &mut [T]) {
        let (w, mut dw, mut db): ([T; G], [T; G], [T; G]) = (*group(w, at), *group(&self.dw, at), *group(&self.db, at));
        for (r, &[pivot, rest, scale, mean, slope]) in facts.iter().enumerate() {
            let (x, dy): (&[T; G], &[T; G]) = (group(x, r * c + at), group(dy, r * c + at));
            let dx: &mut [T; G] = dx[r * c + at..].first_chunk_mut().expect("columns lie inside the row");
            for j in 0..G {
                let hat = (x[j] - pivot - rest) * scale;
                dw[j] = hat.mul_add_on::<I>(dy[j], dw[j]);
                db[j] += dy[j];
                dx[j] = (dy[j] * w[j] - mean - hat * slope) * scale;
            }
        }
        self.dw[at + new..at + G].copy_from_slice(&dw[new..]);
        self.db[at + new..at + G].copy_from_slice(&db[new..]);
    }
}

#[inline(always)]
fn group<T, const G: usize>(v: &[T], at: usize) -> &[T; G] {
    v[at..].first_chunk().expect("columns lie inside the row")
}
