//! y from x: batch statistics and normalising, or normalising alone.

use super::layout::{Planes, Rows, for_runs, for_tiles, pivots};
use super::runs::{self, Channel, Lanes};
use super::stats::{Columns, Few, Known, Stats, expand, merge, settle, spread, sum_spans};
use super::tiles;
use super::{Options, SPAN, group_width, strip_width, sweep_rows};
use crate::kernels::parallel::{self, Blocks, Chunks, ColumnsMut};
use crate::kernels::simd::Float;
use std::borrow::Cow;
use std::ops::Range;

/// Rough cost of the two sweeps of training and the one of evaluation, per element.
fn work_ns(elements: usize, sweeps: usize) -> usize {
    elements * sweeps / 8
}

/// Batch statistics into `stats`, and y (contiguous, of x's shape).
pub fn forward_train<T: Float>(x: &Planes<T>, options: &Options<T>, y: &mut [T], stats: &mut Stats<T>) {
    assert_eq!(y.len(), x.len(), "batch_norm: y must have x's size");
    stats.count = match options.mask {
        Some(keep) => keep[..x.positions()].iter().filter(|&&k| k).count() * usize::from(x.c > 0),
        None => x.positions(),
    };
    if stats.count == 0 || x.c == 0 {
        return y.fill(T::ZERO);
    }
    let masked = options.mask.is_some();
    if x.walks_rows(masked) {
        match strip_width(x.n, x.c, size_of::<T>()) {
            Some(width) if x.l == 1 => return train_strips(x, options, width, y, stats),
            _ => sweep_rows_for_stats(x, &x.rows(), options, stats),
        }
    } else if x.strides[2] != 1
        && let Some(rows) = x.channels_last()
    {
        sweep_rows_for_stats(x, &rows, options, stats);
    } else if let Some(width) = group_width(x.l, x.c, x.positions() * size_of::<T>(), size_of::<T>()) {
        return train_channels(x, options, width, y, stats);
    } else {
        sweep_runs_for_stats(x, options, stats);
    }
    normalise(x, options, stats.known(), y);
}

/// y under given statistics, such as running ones.
pub fn forward_eval<T: Float>(x: &Planes<T>, mean: &[T], var: &[T], options: &Options<T>, y: &mut [T]) {
    assert_eq!(y.len(), x.len(), "batch_norm: y must have x's size");
    if !y.is_empty() {
        let mut place = Few::new();
        normalise(x, options, Known::given(mean, var, options.eps, &mut place), y);
    }
}

/// Strips of channels that stay in the cache between their two sweeps.
fn train_strips<T: Float>(x: &Planes<T>, options: &Options<T>, width: usize, y: &mut [T], stats: &mut Stats<T>) {
    let (rows, keep, count) = (x.rows(), options.mask, stats.count);
    let places = spread(x.n, keep);
    let parts = (ColumnsMut::new(y, x.c, width), stats.parts(width));
    parallel::drive(parts, work_ns(x.len(), 2), |first, (mut y, mut stats)| {
        for i in 0..y.count() {
            let left = (first + i) * width;
            let (mut y, mut s) = (y.chunk_mut(i), stats.chunk_mut(i));
            let cols = left..left + y.cols();
            pivots(x, places, left, s.hi);
            settle(&mut s, count, options.eps, |wide, pivots, s1, s2| {
                add_moments(&rows, 0..x.n, cols.clone(), keep, wide, pivots, s1, s2);
            });
            let columns = Columns::new(options, cols.clone(), 1, s.hi, s.lo, s.invstd);
            let channels = columns.all();
            for_tiles([&rows], 0..x.n, cols, |r, c, [x]| {
                let c = c.start - left..c.end - left;
                let keep = keep.map(|k| &k[r.clone()]);
                tiles::normalise(x, r.len(), keep, channels.part(c.clone()), &mut y, r.start, c.start);
            });
        }
    });
}

#[allow(clippy::too_many_arguments)]
fn add_moments<T: Float>(x: &Rows<T>, rows: Range<usize>, cols: Range<usize>, keep: Option<&[bool]>, wide: bool, pivots: &[T], s1: &mut [f64], s2: &mut [f64]) {
    let left = cols.start;
    let add = if wide { tiles::moments_wide } else { tiles::moments };
    for_tiles([x], rows, cols, |r, c, [x]| {
        let c = c.start - left..c.end - left;
        add(x, r.len(), keep.map(|k| &k[r]), &pivots[c.clone()], &mut s1[c.clone()], &mut s2[c]);
    });
}

/// Statistics from blocks of rows whose sums are merged in order. `rows` shows the elements of `x`.
fn sweep_rows_for_stats<T: Float>(x: &Planes<T>, rows: &Rows<T>, options: &Options<T>, stats: &mut Stats<T>) {
    let (count, cols) = (stats.count, rows.cols);
    let block = sweep_rows(rows.rows, cols * size_of::<T>());
    let mut all = stats.parts(x.c);
    pivots(x, spread(x.positions(), options.mask), 0, all.hi);
    settle(&mut all, count, options.eps, |wide, pivots, s1, s2| {
        let pivots = if rows.l > 1 { Cow::from(expand(pivots, rows.l)) } else { Cow::from(pivots) };
        let mut partials = vec![0.0; rows.rows.div_ceil(block) * 2 * cols];
        parallel::for_chunks(&mut partials, 2 * cols, work_ns(x.len(), 1), |i, sums| {
            let (s1, s2) = sums.split_at_mut(cols);
            let span = i * block..((i + 1) * block).min(rows.rows);
            add_moments(rows, span, 0..cols, options.mask, wide, &pivots, s1, s2);
        });
        merge(&partials, rows.l, s1, s2);
    });
}

/// Σ(x − pivot) and Σ(x − pivot)² of every channel from `left` on that has a pivot.
#[allow(clippy::too_many_arguments)]
fn add_run_moments<T: Float>(x: &Planes<T>, left: usize, span: Range<usize>, keep: Option<&[bool]>, wide: bool, pivots: &[T], s1: &mut [f64], s2: &mut [f64]) {
    let mut lanes = Lanes::of(pivots.len());
    let add = if wide { runs::moments_wide } else { runs::moments };
    for_runs([x], left..left + pivots.len(), span, |c, n, first, [run]| {
        let c = c - left;
        add(run, keep.map(|k| &k[n * x.l + first..][..run.len()]), pivots[c], &mut lanes[c]);
    });
    runs::totals(lanes, s1, s2);
}

/// Groups of `width` channels that stay in the cache between their two sweeps.
fn train_channels<T: Float>(x: &Planes<T>, options: &Options<T>, width: usize, y: &mut [T], stats: &mut Stats<T>) {
    let (keep, count) = (options.mask, stats.count);
    let places = spread(x.positions(), keep);
    let parts = (ColumnsMut::new(y, x.c * x.l, width * x.l), stats.parts(width));
    parallel::drive(parts, work_ns(x.len(), 2), |first, (mut y, mut stats)| {
        for i in 0..y.count() {
            let (mut y, mut s) = (y.chunk_mut(i), stats.chunk_mut(i));
            let left = (first + i) * width;
            pivots(x, places, left, s.hi);
            settle(&mut s, count, options.eps, |wide, pivots, s1, s2| {
                add_run_moments(x, left, 0..x.positions(), keep, wide, pivots, s1, s2);
            });
            for_runs([x], left..left + s.hi.len(), 0..x.positions(), |c, n, first, [run]| {
                let keep = keep.map(|k| &k[n * x.l + first..][..run.len()]);
                let at = c - left;
                let channel = Channel::new(options, c, s.hi[at], s.lo[at], s.invstd[at]);
                runs::normalise(run, keep, channel, &mut y.row_mut(n)[at * x.l + first..][..run.len()]);
            });
        }
    });
}

/// Statistics from spans of each channel's positions whose sums are merged in order.
fn sweep_runs_for_stats<T: Float>(x: &Planes<T>, options: &Options<T>, stats: &mut Stats<T>) {
    let count = stats.count;
    let mut all = stats.parts(x.c);
    pivots(x, spread(x.positions(), options.mask), 0, all.hi);
    settle(&mut all, count, options.eps, |wide, pivots, s1, s2| {
        sum_spans(x.positions(), work_ns(x.len(), 1), s1, s2, |c, span, s1, s2| {
            add_run_moments(x, c, span, options.mask, wide, &pivots[c..c + 1], s1, s2);
        });
    });
}

/// One sweep under known statistics. It runs from the end, where the sweep for statistics left the cache warm.
fn normalise<T: Float>(x: &Planes<T>, options: &Options<T>, stats: Known<T>, y: &mut [T]) {
    if x.walks_rows(options.mask.is_some()) {
        let rows = x.rows();
        let columns = stats.columns(options, 0..x.c, x.l);
        let (channels, cols) = (columns.all(), rows.cols);
        let block = sweep_rows(x.n, cols * size_of::<T>());
        for_chunks_backwards(y, block * cols, work_ns(x.len(), 1), |i, y| {
            let span = i * block..((i + 1) * block).min(x.n);
            let (top, mut y) = (span.start, ColumnsMut::new(y, cols, cols));
            for_tiles([&rows], span, 0..cols, |r, c, [x]| {
                let keep = options.mask.map(|k| &k[r.clone()]);
                tiles::normalise(x, r.len(), keep, channels.part(c.clone()), &mut y, r.start - top, c.start);
            });
        });
        return;
    }
    for_chunks_backwards(y, SPAN, work_ns(x.len(), 1), |i, y| {
        for_flat(x, i * SPAN, y, |c, positions, y| {
            let channel = stats.channel(options, c);
            let start = positions.start;
            for_runs([x], c..c + 1, positions, |_, n, first, [run]| {
                let at = n * x.l + first;
                let keep = options.mask.map(|k| &k[at..at + run.len()]);
                runs::normalise(run, keep, channel, &mut y[at - start..][..run.len()]);
            });
        });
    });
}

/// [`parallel::for_chunks`] with each part's chunks in reverse.
pub(super) fn for_chunks_backwards<T: Float>(out: &mut [T], chunk: usize, work_ns: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    parallel::drive(Chunks { slice: out, chunk }, work_ns, |first, part| {
        for (i, chunk) in part.slice.chunks_mut(part.chunk).enumerate().rev() {
            f(first + i, chunk);
        }
    });
}

/// Cuts the contiguous piece of an (n, c, l) result that begins at `start` into pieces of one channel in one sample:
/// `f(c, positions, piece)`.
pub(super) fn for_flat<T: Float>(x: &Planes<T>, start: usize, mut out: &mut [T], mut f: impl FnMut(usize, Range<usize>, &mut [T])) {
    let mut at = start;
    while !out.is_empty() {
        let (run, first) = (at / x.l, at % x.l);
        let (piece, rest) = out.split_at_mut((x.l - first).min(out.len()));
        let position = run / x.c * x.l + first;
        at += piece.len();
        f(run % x.c, position..position + piece.len(), piece);
        out = rest;
    }
}
