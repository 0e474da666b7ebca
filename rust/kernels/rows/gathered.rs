//! dw and db of a norm: sums over rows, column by column.
//!
//! Invariant: a column's sum is taken in `T` over at most about [`TALL`] rows, in their order, then added up in float64.

use super::{Live, TALL, W, after, each, last_windows, put, shared, totals, tree, whole_windows, window, windows};
use crate::kernels::simd::{Float, Isa, lanes_only};

/// Running sums over rows, column by column.
pub(super) struct Gathered<T> {
    dw: Vec<T>,
    db: Vec<T>,
    /// Neighbouring columns that are one sum in the end.
    l: usize,
    /// Rows since the last flush.
    rows: usize,
}

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
}
