//! dx, dw and db from dy and x.

use super::forward::{for_chunks_backwards, for_flat};
use super::layout::{Planes, Rows, TILE_COLS, TILE_ROWS, Tile, for_runs, for_small_tiles, for_tiles};
use super::runs::{self, Lanes};
use super::stats::{Few, Known, Stats, expand, merge, sum_spans};
use super::tiles::{self, Channels};
use super::{MANY, Options, SPAN, group_width, strip_width, sweep_rows};
use crate::kernels::parallel::{self, Chunks, ColumnsMut};
use crate::kernels::simd::Float;
use crate::simd;
use smallvec::SmallVec;
use std::ops::Range;

/// Where gradients go: those that are wanted. `dx` is contiguous, of x's shape; `dw` and `db` have shape (C,).
/// Where no dy is given, `dx` holds it, row-major, and is written over.
#[derive(Debug, Default)]
pub struct Gradients<'a, T> {
    pub dx: Option<&'a mut [T]>,
    pub dw: Option<&'a mut [T]>,
    pub db: Option<&'a mut [T]>,
}

fn work_ns(elements: usize) -> usize {
    elements / 4
}

/// Σ dy and Σ dy·(x − m) per channel; on the stack where channels are few.
type Sums = SmallVec<[f64; 256]>;

/// Gradients through the batch statistics that `forward_train` left in `stats`.
pub fn backward_train<T: Float>(dy: Option<&Planes<T>>, x: &Planes<T>, options: &Options<T>, stats: &Stats<T>, out: Gradients<T>) {
    backward(dy, x, options, stats.known(), out, false);
}

/// Gradients under given statistics, which are constants.
pub fn backward_eval<T: Float>(dy: Option<&Planes<T>>, x: &Planes<T>, mean: &[T], var: &[T], options: &Options<T>, out: Gradients<T>) {
    let mut place = Few::new();
    backward(dy, x, options, Known::given(mean, var, options.eps, &mut place), out, true);
}

/// Whether dx is made by pieces that stay in the cache. It is made apart from dy then.
pub fn in_pieces<T: Float>(x: &Planes<T>, options: &Options<T>) -> bool {
    Pieces::of(x, options).is_some()
}

/// Channels of a piece that stays in the cache between the sums and dx.
enum Pieces {
    /// Columns of rows.
    Strips(usize),
    /// Channels whose runs are long.
    Channels(usize),
}

impl Pieces {
    fn of<T: Float>(x: &Planes<T>, options: &Options<T>) -> Option<Pieces> {
        let bytes = 2 * size_of::<T>();
        if !x.walks_rows(options.mask.is_some()) {
            return group_width(x.l, x.c, x.positions() * bytes, size_of::<T>()).map(Pieces::Channels);
        }
        strip_width(x.n, x.c, bytes).filter(|_| x.l == 1).map(Pieces::Strips)
    }
}

fn backward<T: Float>(dy: Option<&Planes<T>>, x: &Planes<T>, options: &Options<T>, stats: Known<T>, out: Gradients<T>, frozen: bool) {
    assert!(dy.is_none_or(|dy| (dy.n, dy.c, dy.l) == (x.n, x.c, x.l)), "batch_norm: dy must have x's shape");
    let Gradients { mut dx, dw, db } = out;
    if x.len() == 0 || (stats.count == 0 && !frozen) {
        return [dx, dw, db].into_iter().flatten().for_each(|d| d.fill(T::ZERO));
    }
    let mut s1: Sums = SmallVec::from_elem(0.0, x.c);
    let mut s2: Sums = SmallVec::from_elem(0.0, x.c);
    let problem = Problem { x, options, stats };
    let pieces = Pieces::of(x, options).filter(|_| !frozen);
    if let (Some(pieces), Some(dx), Some(dy)) = (pieces, &mut dx, dy) {
        problem.fused(pieces, dy, dx, &mut s1, &mut s2);
    } else {
        if !frozen || dw.is_some() || db.is_some() {
            let held = dx.as_deref().filter(|_| dy.is_none()).map(|dx| Planes::contiguous(dx, x.n, x.c, x.l));
            problem.sums(dy.or(held.as_ref()).expect("dy is given, or dx holds it"), &mut s1, &mut s2);
        }
        if let Some(dx) = dx {
            problem.dx(dy, &s1, &s2, frozen, dx);
        }
    }
    if let Some(db) = db {
        db.iter_mut().zip(&s1).for_each(|(db, &s)| *db = T::from_f64(s));
    }
    if let Some(dw) = dw {
        let terms = s2.iter().zip(stats.invstd);
        dw.iter_mut().zip(terms).for_each(|(dw, (&s, invstd))| *dw = T::from_f64(s * invstd.to_f64()));
    }
}

struct Problem<'a, T: Float> {
    x: &'a Planes<'a, T>,
    options: &'a Options<'a, T>,
    stats: Known<'a, T>,
}

simd! {
    /// What a channel's sums add to its dx: −scale·mean(dy) and, per unit of x̂, −scale·mean(dy·x̂).
    fn pull<T: Float>(
        count: f64, invstd: &[T], scale: &[T], s1: &[f64], s2: &[f64], constant: &mut [T], slope: &mut [T],
    ) {
        let c = constant.len();
        let (s1, s2, slope, invstd, scale) = (&s1[..c], &s2[..c], &mut slope[..c], &invstd[..c], &scale[..c]);
        let part = -1.0 / count;
        for j in 0..c {
            let scale = scale[j].to_f64() * part;
            constant[j] = T::from_f64(scale * s1[j]);
            slope[j] = T::from_f64(scale * (s2[j] * invstd[j].to_f64()));
        }
    }
}

impl<'a, T: Float> Problem<'a, T> {
    /// Sums and dx of one piece after the other.
    fn fused(&self, pieces: Pieces, dy: &Planes<T>, dx: &mut [T], s1: &mut [f64], s2: &mut [f64]) {
        match pieces {
            Pieces::Strips(width) => self.strips(width, &dy.rows(), dx, s1, s2),
            Pieces::Channels(width) => self.channels(width, dy, dx, s1, s2),
        }
    }

    fn strips(&self, width: usize, dy: &Rows<T>, dx: &mut [T], s1: &mut [f64], s2: &mut [f64]) {
        let (x, keep) = (self.x.rows(), self.options.mask);
        let parts = (ColumnsMut::new(dx, x.cols, width), Chunks { slice: s1, chunk: width }, Chunks { slice: s2, chunk: width });
        parallel::drive(parts, 2 * work_ns(self.x.len()), |first, (mut dx, s1, s2)| {
            let sums = s1.slice.chunks_mut(width).zip(s2.slice.chunks_mut(width));
            for (i, (s1, s2)) in sums.enumerate() {
                let mut dx = dx.chunk_mut(i);
                let left = (first + i) * width;
                let cols = left..left + dx.cols();
                let columns = self.stats.columns(self.options, cols.clone(), 1);
                let channels = columns.all();
                add_sums(dy, &x, 0..x.rows, cols.clone(), keep, channels, s1, s2);
                let mut constant: Few<T> = SmallVec::from_elem(T::ZERO, cols.len());
                let mut slope: Few<T> = SmallVec::from_elem(T::ZERO, cols.len());
                let count = self.stats.count as f64;
                pull(count, channels.invstd, channels.scale, s1, s2, &mut constant, &mut slope);
                let pull = tiles::Pull { constant: &constant, slope: &slope };
                gradient(Some(dy), &x, 0..x.rows, cols, keep, channels, Some(pull), &mut dx);
            }
        });
    }

    fn channels(&self, width: usize, dy: &Planes<T>, dx: &mut [T], s1: &mut [f64], s2: &mut [f64]) {
        let (x, keep) = (self.x, self.options.mask);
        let parts = (ColumnsMut::new(dx, x.c * x.l, width * x.l), Chunks { slice: s1, chunk: width }, Chunks { slice: s2, chunk: width });
        parallel::drive(parts, 2 * work_ns(x.len()), |first, (mut dx, s1, s2)| {
            let sums = s1.slice.chunks_mut(width).zip(s2.slice.chunks_mut(width));
            for (i, (s1, s2)) in sums.enumerate() {
                let mut dx = dx.chunk_mut(i);
                let left = (first + i) * width;
                self.run_sums(dy, left, 0..x.positions(), s1, s2);
                let pulls: SmallVec<[_; MANY]> = (0..s1.len()).map(|i| self.run_pull(left + i, s1[i], s2[i])).collect();
                for_runs([dy, x], left..left + s1.len(), 0..x.positions(), |c, n, first, [dy, run]| {
                    let keep = keep.map(|k| &k[n * x.l + first..][..run.len()]);
                    let dx = &mut dx.row_mut(n)[(c - left) * x.l + first..][..run.len()];
                    runs::gradient(dy, run, keep, self.stats.channel(self.options, c), Some(pulls[c - left]), dx);
                });
            }
        });
    }

    /// Σ dy and Σ dy·(x − m) of the channels from `left` on that have a place in `s1` and `s2`.
    fn run_sums(&self, dy: &Planes<T>, left: usize, span: Range<usize>, s1: &mut [f64], s2: &mut [f64]) {
        let mut lanes = Lanes::of(s1.len());
        for_runs([dy, self.x], left..left + s1.len(), span, |c, n, first, [dy, run]| {
            let keep = self.options.mask.map(|k| &k[n * self.x.l + first..][..run.len()]);
            runs::sums(dy, run, keep, self.stats.channel(self.options, c), &mut lanes[c - left]);
        });
        runs::totals(lanes, s1, s2);
    }

    fn run_pull(&self, c: usize, s1: f64, s2: f64) -> runs::Pull<T> {
        let (mut constant, mut slope) = ([T::ZERO], [T::ZERO]);
        let runs::Channel { invstd, scale, .. } = self.stats.channel(self.options, c);
        pull(self.stats.count as f64, &[invstd], &[scale], &[s1], &[s2], &mut constant, &mut slope);
        runs::Pull { constant: constant[0], slope: slope[0] }
    }

    /// Sums over everything, in blocks merged in order.
    fn sums(&self, dy: &Planes<T>, s1: &mut [f64], s2: &mut [f64]) {
        let x = self.x;
        if x.walks_rows(self.options.mask.is_some()) {
            return self.sum_rows(&dy.rows(), &x.rows(), s1, s2);
        }
        if x.strides[2] != 1
            && let (Some(dy), Some(x)) = (dy.channels_last(), x.channels_last())
        {
            return self.sum_rows(&dy, &x, s1, s2);
        }
        sum_spans(x.positions(), work_ns(x.len()), s1, s2, |c, span, s1, s2| self.run_sums(dy, c, span, s1, s2));
    }

    fn sum_rows(&self, dy: &Rows<T>, x: &Rows<T>, s1: &mut [f64], s2: &mut [f64]) {
        let columns = self.stats.columns(self.options, 0..self.x.c, x.l);
        let channels = columns.all();
        let (cols, block) = (x.cols, sweep_rows(x.rows, 2 * x.cols * size_of::<T>()));
        let mut partials = vec![0.0; x.rows.div_ceil(block) * 2 * cols];
        parallel::for_chunks(&mut partials, 2 * cols, work_ns(self.x.len()), |i, sums| {
            let (s1, s2) = sums.split_at_mut(cols);
            let span = i * block..((i + 1) * block).min(x.rows);
            add_sums(dy, x, span, 0..cols, self.options.mask, channels, s1, s2);
        });
        merge(&partials, x.l, s1, s2);
    }

    /// dx from finished sums. It runs from the end, where the sweep for the sums left the cache warm.
    fn dx(&self, dy: Option<&Planes<T>>, s1: &[f64], s2: &[f64], frozen: bool, dx: &mut [T]) {
        let (x, keep) = (self.x, self.options.mask);
        if x.walks_rows(keep.is_some()) {
            return self.dx_by_rows(dy.map(Planes::rows).as_ref(), s1, s2, frozen, dx);
        }
        for_chunks_backwards(dx, SPAN, work_ns(x.len()), |i, dx| {
            for_flat(x, i * SPAN, dx, |c, positions, dx| {
                let pull = (!frozen).then(|| self.run_pull(c, s1[c], s2[c]));
                let (channel, start) = (self.stats.channel(self.options, c), positions.start);
                let piece = |n: usize, first: usize, len: usize| {
                    let at = n * x.l + first;
                    (keep.map(|k| &k[at..at + len]), at - start..at - start + len)
                };
                match dy {
                    Some(dy) => for_runs([dy, x], c..c + 1, positions, |_, n, first, [dy, run]| {
                        let (keep, at) = piece(n, first, run.len());
                        runs::gradient(dy, run, keep, channel, pull, &mut dx[at]);
                    }),
                    None => for_runs([x], c..c + 1, positions, |_, n, first, [run]| {
                        let (keep, at) = piece(n, first, run.len());
                        runs::gradient_over(run, keep, channel, pull, &mut dx[at]);
                    }),
                }
            });
        });
    }

    fn dx_by_rows(&self, dy: Option<&Rows<T>>, s1: &[f64], s2: &[f64], frozen: bool, dx: &mut [T]) {
        let (x, keep) = (self.x.rows(), self.options.mask);
        let columns = self.stats.columns(self.options, 0..self.x.c, x.l);
        let channels = columns.all();
        let (mut constant, mut slope) = (Few::from_elem(T::ZERO, x.cols), Few::from_elem(T::ZERO, x.cols));
        if !frozen {
            let (s1, s2) = (expand(s1, x.l), expand(s2, x.l));
            let count = self.stats.count as f64;
            pull(count, channels.invstd, channels.scale, &s1, &s2, &mut constant, &mut slope);
        }
        let pull = (!frozen).then_some(tiles::Pull { constant: &constant, slope: &slope });
        let block = sweep_rows(x.rows, 2 * x.cols * size_of::<T>());
        for_chunks_backwards(dx, block * x.cols, work_ns(self.x.len()), |i, dx| {
            let span = i * block..((i + 1) * block).min(x.rows);
            let mut dx = ColumnsMut::new(dx, x.cols, x.cols);
            gradient(dy, &x, span, 0..x.cols, keep, channels, pull, &mut dx);
        });
    }
}

#[allow(clippy::too_many_arguments)]
fn add_sums<T: Float>(
    dy: &Rows<T>,
    x: &Rows<T>,
    rows: Range<usize>,
    cols: Range<usize>,
    keep: Option<&[bool]>,
    channels: Channels<T>,
    s1: &mut [f64],
    s2: &mut [f64],
) {
    let left = cols.start;
    for_tiles([dy, x], rows, cols, |r, c, [dy, x]| {
        let c = c.start - left..c.end - left;
        let keep = keep.map(|k| &k[r.clone()]);
        tiles::sums(dy, x, r.len(), keep, channels.part(c.clone()), &mut s1[c.clone()], &mut s2[c]);
    });
}

/// dx of a block of rows and columns; `dx` holds that block alone, before that of dy where none is given.
#[allow(clippy::too_many_arguments)]
fn gradient<T: Float>(
    dy: Option<&Rows<T>>,
    x: &Rows<T>,
    rows: Range<usize>,
    cols: Range<usize>,
    keep: Option<&[bool]>,
    channels: Channels<T>,
    pull: Option<tiles::Pull<T>>,
    dx: &mut ColumnsMut<T>,
) {
    let (top, left) = (rows.start, cols.start);
    let tile = |r: Range<usize>, c: Range<usize>, dy: Tile<T>, x: Tile<T>, dx: &mut ColumnsMut<T>| {
        let c = c.start - left..c.end - left;
        let keep = keep.map(|k| &k[r.clone()]);
        let pull = pull.map(|p| tiles::Pull { constant: &p.constant[c.clone()], slope: &p.slope[c.clone()] });
        tiles::gradient(dy, x, r.len(), keep, channels.part(c.clone()), pull, dx, r.start - top, c.start);
    };
    if let Some(dy) = dy {
        return for_tiles([dy, x], rows, cols, |r, c, [dy, x]| tile(r, c, dy, x, dx));
    }
    let mut copy = [T::ZERO; TILE_ROWS * TILE_COLS];
    for_small_tiles(rows, cols, |r, c| {
        for (copy, r) in copy.chunks_exact_mut(TILE_COLS).zip(r.clone()) {
            copy[..c.len()].copy_from_slice(&dx.row_mut(r - top)[c.start - left..c.end - left]);
        }
        let dy = Tile { data: &copy, stride: TILE_COLS };
        for_tiles([x], r, c, |r, c, [x]| tile(r, c, dy, x, dx));
    });
}
