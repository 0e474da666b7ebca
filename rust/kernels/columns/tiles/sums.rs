//! Sums over the rows of a tile, per column: those of the statistics and those of their gradients.
//!
//! Invariant: see [`super`]; a sum in `T` ends where a block of [`TALL`] rows ends, however few rows are read at a time.

use super::super::layout::Tile;
use super::super::stats::{Few, mean_of_eight};
use super::{Channels, TALL, ahead, group, group_mut, kept, near, pass, stream};
use crate::kernels::simd::{Float, Isa};
use crate::simd;
use std::ops::Range;

/// Columns of one piece of a sweep, so that what is known about them stays in the first-level cache.
const STRIP: usize = 1024;
/// Rows that share one load of what is known about their columns, of a tile that is only read: out of the cache a few at a
/// time, so that memory is read in long streams.
#[inline(always)]
fn rows_read<T: Float>(x: Tile<T>, rows: usize, cols: usize) -> usize {
    if near(x, rows, cols) { TALL } else { 8 }
}

/// Two sums per column of a strip, in `T`.
struct Part<T: Float> {
    sums: [Few<T>; 2],
    /// Columns in all strips, and the first of this one.
    cols: usize,
    left: usize,
}

impl<T: Float> Part<T> {
    fn new(cols: usize) -> Self {
        let zeros = || Few::from_elem(T::ZERO, cols.min(STRIP));
        Part { sums: [zeros(), zeros()], cols, left: 0 }
    }

    #[inline(always)]
    fn load<const G: usize>(&self, c: usize) -> ([T; G], [T; G]) {
        (*group(&self.sums[0], c - self.left), *group(&self.sums[1], c - self.left))
    }

    #[inline(always)]
    fn store<const G: usize>(&mut self, c: usize, a1: [T; G], a2: [T; G]) {
        *group_mut(&mut self.sums[0], c - self.left) = a1;
        *group_mut(&mut self.sums[1], c - self.left) = a2;
    }

    /// Adds the sums to those of all columns, starts them anew and moves on to the next strip.
    #[inline(always)]
    fn flush(&mut self, s1: &mut [f64], s2: &mut [f64]) {
        for (sums, s) in self.sums.iter_mut().zip([&mut s1[self.left..], &mut s2[self.left..]]) {
            for (s, sum) in s.iter_mut().zip(sums.iter_mut()) {
                *s += sum.to_f64();
                *sum = T::ZERO;
            }
        }
        self.left = if self.left + STRIP < self.cols { self.left + STRIP } else { 0 };
    }
}

/// Runs `$body` for pieces of the rows `0..$rows` and columns `0..$cols`: blocks of rows outermost, then strips of columns, then
/// `$few` rows at a time; `$done` after each strip of a block.
macro_rules! in_pieces {
    ($rows:expr, $cols:expr, $few:expr, |$r:ident, $c:ident| $body:expr, $done:expr) => {{
        let (rows, cols, few): (usize, usize, usize) = ($rows, $cols, $few);
        for block in (0..rows).step_by(TALL) {
            let end = (block + TALL).min(rows);
            for left in (0..cols).step_by(STRIP) {
                let $c = left..(left + STRIP).min(cols);
                for first in (block..end).step_by(few) {
                    let $r = first..(first + few).min(end);
                    $body;
                }
                $done;
            }
        }
    }};
}

simd! {
    /// The mean of eight rows of `x`, for every column.
    pub fn pivots<T: Float>(x: Tile<T>, rows: [usize; 8], pivots: &mut [T]) {
        let n = pivots.len();
        let row = |i: usize| &x.row(rows[i])[..n];
        let (x0, x1, x2, x3, x4, x5, x6, x7) = (row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7));
        for c in 0..n {
            pivots[c] = mean_of_eight([x0[c], x1[c], x2[c], x3[c], x4[c], x5[c], x6[c], x7[c]]);
        }
    }

    /// Adds Σ(x − pivot) and Σ(x − pivot)² of every column.
    pub fn moments<T: Float>(
        x: Tile<T>, rows: usize, keep: Option<&[bool]>, pivots: &[T], s1: &mut [f64], s2: &mut [f64],
    ) {
        let cols = pivots.len();
        let mut part = Part::new(cols);
        in_pieces!(rows, cols, rows_read(x, rows, cols), |r, c| in_groups!(c, moments_group[](x, r.clone(), keep, pivots, &mut part)), part.flush(s1, s2));
    }

    /// The same wholly in float64, for values whose squares overflow.
    pub fn moments_wide<T: Float>(
        x: Tile<T>, rows: usize, keep: Option<&[bool]>, pivots: &[T], s1: &mut [f64], s2: &mut [f64],
    ) {
        let c = pivots.len();
        let (s1, s2) = (&mut s1[..c], &mut s2[..c]);
        for r in (0..rows).filter(|&r| keep.is_none_or(|k| k[r])) {
            let x = &x.row(r)[..c];
            for j in 0..c {
                let d = x[j].to_f64() - pivots[j].to_f64();
                s1[j] += d;
                s2[j] += d * d;
            }
        }
    }

    /// Adds Σ dy and Σ dy·(x − m) of every column.
    pub fn sums<T: Float>(
        dy: Tile<T>, x: Tile<T>, rows: usize, keep: Option<&[bool]>, channels: Channels<T>, s1: &mut [f64], s2: &mut [f64],
    ) {
        let cols = channels.hi.len();
        let (few, mut part) = (rows_read(x, rows, cols), Part::new(cols));
        if channels.relu {
            in_pieces!(rows, cols, few, |r, c| in_groups!(c, sums_group[true](dy, x, r.clone(), keep, &channels, &mut part)), part.flush(s1, s2));
        } else {
            in_pieces!(rows, cols, few, |r, c| in_groups!(c, sums_group[false](dy, x, r.clone(), keep, &channels, &mut part)), part.flush(s1, s2));
        }
    }
}

#[inline(always)]
fn moments_group<I: Isa, T: Float, const G: usize>(c: usize, x: Tile<T>, rows: Range<usize>, keep: Option<&[bool]>, pivots: &[T], part: &mut Part<T>) {
    let p: [T; G] = *group(pivots, c);
    let (mut a1, mut a2): ([T; G], [T; G]) = part.load(c);
    let ahead = ahead(x);
    for r in rows.filter(|&r| kept(keep, r)) {
        let x: &[T; G] = x.group(r, c);
        if let Some(ahead) = ahead {
            stream::ask(x, ahead, G);
        }
        for j in 0..G {
            let d = x[j] - p[j];
            a1[j] += d;
            a2[j] = d.mul_add_on::<I>(d, a2[j]);
        }
    }
    part.store(c, a1, a2);
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn sums_group<I: Isa, T: Float, const G: usize, const RELU: bool>(
    c: usize,
    dy: Tile<T>,
    x: Tile<T>,
    rows: Range<usize>,
    keep: Option<&[bool]>,
    channels: &Channels<T>,
    part: &mut Part<T>,
) {
    let (hi, lo): ([T; G], [T; G]) = (*group(channels.hi, c), *group(channels.lo, c));
    let (scale, shift): ([T; G], [T; G]) = (*group(channels.scale, c), *group(channels.shift, c));
    let (mut a1, mut a2): ([T; G], [T; G]) = part.load(c);
    let (next_dy, next_x) = (ahead(dy), ahead(x));
    for r in rows.filter(|&r| kept(keep, r)) {
        let (dy, x): (&[T; G], &[T; G]) = (dy.group(r, c), x.group(r, c));
        for (x, next) in [(dy, next_dy), (x, next_x)] {
            if let Some(ahead) = next {
                stream::ask(x, ahead, G);
            }
        }
        for j in 0..G {
            let d = (x[j] - hi[j]) - lo[j];
            let g = if RELU { pass::<I, T>(dy[j], d, scale[j], shift[j]) } else { dy[j] };
            a1[j] += g;
            a2[j] = g.mul_add_on::<I>(d, a2[j]);
        }
    }
    part.store(c, a1, a2);
}
