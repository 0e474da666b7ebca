//! Reductions of which neighbouring results come from neighbouring columns: rows go by, tile by tile.
//!
//! Where the last of several axes to reduce is short, it is a few columns of the same result: they are folded for themselves along
//! the other axes, and merged at the end. Where kept columns have gaps, what lies in the gaps is folded too, for nobody.

use super::fold::{FEW, Fold, Spaced, fold_columns, fold_few};
use super::{SCATTERED, SPAN, least, without_innermost};
use crate::array::Element;
use crate::kernels::interrupt;
use crate::kernels::parallel;
use crate::kernels::plan::Plan;
use std::ops::Range;

/// Columns of one tile.
const TILE: usize = 256;
/// Rows folded in `T` before they are merged into the wide accumulator.
const ROWS: usize = 128;
/// The most columns of one result, and how many times as many those of the next may be from them.
const EACH: usize = 32;
const GAPS: usize = 4;

/// Which columns neighbouring results come from: `each` that lie side by side, those of the next `apart` further on.
#[derive(Clone, Copy, PartialEq)]
pub struct Columns {
    each: usize,
    apart: usize,
}

impl Columns {
    pub const PLAIN: Columns = Columns { each: 1, apart: 1 };

    /// Those to fold by, if that is the way; for several to a result, without the last axis of `inner`.
    pub fn of(outer: &Plan<1>, inner: &Plan<1>, span: usize) -> Option<Columns> {
        let (next, stride) = (outer.inner_stride(0), inner.inner_stride(0));
        let apart = usize::try_from(next).ok().filter(|_| outer.inner() > 1);
        if stride != 1 {
            return apart.filter(|apart| (1..=GAPS).contains(apart)).map(|apart| Columns { each: 1, apart });
        }
        let each = inner.inner();
        match apart {
            _ if inner.is_one_run() || each > EACH => None,
            Some(apart) if (each..=each * GAPS).contains(&apart) => Some(Columns { each, apart }),
            // Far from each other, each is a tile of its own, which takes a while to begin and to end.
            _ if span > SCATTERED => Some(Columns { each, apart: TILE }),
            _ => None,
        }
    }

    /// Results of one tile.
    fn results(self) -> usize {
        match self.apart {
            1 => TILE,
            apart => (TILE - self.each) / apart + 1,
        }
    }
}

/// Accumulators of neighbouring columns, stepped row by row.
struct Tile<L, W> {
    acc: [L; TILE],
    out: [W; TILE],
    width: usize,
    /// Rows in `acc` that are not in `out` yet.
    pending: usize,
}

impl<L: Copy, W: Copy> Tile<L, W> {
    fn new<T: Element, F: Fold<T, Lane = L, Wide = W>>(_: F) -> Tile<L, W> {
        Tile { acc: [F::start(); TILE], out: [F::wide_id(); TILE], width: 0, pending: 0 }
    }

    /// Begins anew, with so many columns.
    fn begin<T: Element, F: Fold<T, Lane = L, Wide = W>>(&mut self, _: F, width: usize) {
        self.out[..self.width].fill(F::wide_id());
        self.width = width;
    }

    /// Takes in `n` rows of `data`, `stride` apart from `at` on.
    #[inline(never)]
    fn rows<T: Element, F: Fold<T, Lane = L, Wide = W>>(&mut self, f: F, data: &[T], at: isize, stride: isize, n: usize) {
        let mut first = 0;
        while first < n {
            let part = (n - first).min(ROWS - self.pending);
            fold_columns(f, &mut self.acc[..self.width], data, at + first as isize * stride, stride, part);
            (first, self.pending) = (first + part, self.pending + part);
            if self.pending == ROWS {
                self.flush(f);
                if interrupt::stops() {
                    return;
                }
            }
        }
    }

    #[inline(never)]
    fn flush<T: Element, F: Fold<T, Lane = L, Wide = W>>(&mut self, _: F) {
        for (out, acc) in self.out.iter_mut().zip(&mut self.acc[..self.width]) {
            *out = F::merge(*out, F::widen(*acc));
            *acc = F::start();
        }
        self.pending = 0;
    }
}

/// Rows of one unit of work, where there are `width` columns to a row: by shape alone.
pub fn block_rows(width: usize, span: usize, outputs: usize) -> usize {
    (SPAN / width.min(TILE)).max(ROWS).max(least(span, outputs))
}

/// Folds the `span` rows of a small matrix that lies in row-major order.
pub fn fold_small<T: Element, F: Fold<T>>(f: F, data: &[T], span: usize, y: &mut [T]) {
    let width = y.len() as isize;
    if span <= ROWS {
        // Without a tile: to begin one takes longer than a few rows.
        for (t, y) in y.chunks_mut(TILE).enumerate() {
            let mut acc = [F::start(); TILE];
            fold_columns(f, &mut acc[..y.len()], data, (t * TILE) as isize, width, span);
            y.iter_mut().zip(&acc).for_each(|(y, &acc)| *y = F::finish(F::merge(F::wide_id(), F::widen(acc))));
        }
        return;
    }
    let mut tile = Tile::new(f);
    for (t, y) in y.chunks_mut(TILE).enumerate() {
        tile.begin(f, y.len());
        tile.rows(f, data, (t * TILE) as isize, width, span);
        tile.flush(f);
        y.iter_mut().zip(&tile.out).for_each(|(y, &w)| *y = F::finish(w));
    }
}

/// What is folded: rows as `inner` lays them, of columns.
struct Source<'a, T> {
    data: &'a [T],
    inner: &'a Plan<1>,
    columns: Columns,
    /// How far the columns of the next result are.
    next: isize,
}

impl<T: Element> Source<'_, T> {
    /// Folds the columns of neighbouring results, the first of which begin at `base`, in some of the rows.
    #[inline(never)]
    fn fold<F: Fold<T>>(&self, f: F, tile: &mut Tile<F::Lane, F::Wide>, base: isize, rows: Range<usize>, y: &mut [F::Wide]) {
        let (Columns { each, apart }, stride) = (self.columns, self.inner.inner_stride(0));
        for (t, y) in y.chunks_mut(self.columns.results()).enumerate() {
            tile.begin(f, (y.len() - 1) * apart + each);
            let base = base + (t * self.columns.results()) as isize * self.next;
            self.inner.walk(rows.start, rows.len(), |[at], _, n| tile.rows(f, self.data, base + at, stride, n));
            tile.flush(f);
            if apart == 1 {
                y.copy_from_slice(&tile.out[..tile.width]);
                continue;
            }
            for (y, columns) in y.iter_mut().zip(tile.out[..tile.width].chunks(apart)) {
                *y = columns[..each].iter().fold(F::wide_id(), |total, &column| F::merge(total, column));
            }
        }
    }
}

/// Folds columns of `data`; each of the results, or of rows of these, begins where `outer` says.
pub fn fold_by_columns<T: Element, F: Fold<T>>(f: F, data: &[T], (outer, inner): (Plan<1>, Plan<1>), columns: Columns, y: &mut [T]) {
    let inner = if columns == Columns::PLAIN || inner.inner_stride(0) != 1 { inner } else { without_innermost(inner) };
    let span = inner.sizes.iter().product::<usize>();
    let work = y.len().saturating_mul(span.saturating_mul(columns.each)) / 4;
    let (width, next) = (outer.inner(), outer.inner_stride(0));
    // Row blocks are cut only where there is more than one span of work.
    let rows = block_rows(width.saturating_mul(columns.apart), span, y.len());
    let blocks = span.div_ceil(rows);
    if columns == Columns::PLAIN && width <= FEW && inner.is_one_run() && span <= ROWS {
        return fold_narrow(f, data, (without_innermost(outer), &inner), (span, width, work), y);
    }
    let source = Source { data, inner: &inner, columns, next };
    if blocks == 1 {
        let unit = (SPAN / span).max(columns.results());
        return parallel::for_chunks(y, unit, work, |i, y| {
            let (mut tile, mut wide) = (Tile::new(f), [F::wide_id(); TILE]);
            outer.for_range(i * unit, y.len(), |[at], first, n| {
                for (t, y) in y[first..first + n].chunks_mut(columns.results()).enumerate() {
                    let base = at as isize + (t * columns.results()) as isize * next;
                    source.fold(f, &mut tile, base, 0..span, &mut wide[..y.len()]);
                    y.iter_mut().zip(&wide).for_each(|(y, &w)| *y = F::finish(w));
                }
            });
        });
    }
    let mut parts = vec![F::wide_id(); y.len() * blocks];
    parallel::for_chunks(&mut parts, width, work, |i, parts| {
        let (mut base, first) = (0, i % blocks * rows);
        outer.for_range(i / blocks * width, 1, |[at], _, _| base = at as isize);
        source.fold(f, &mut Tile::new(f), base, first..span.min(first + rows), parts);
    });
    for (y, parts) in y.chunks_mut(width).zip(parts.chunks(width * blocks)) {
        for (c, y) in y.iter_mut().enumerate() {
            *y = F::finish((0..blocks).map(|b| parts[b * width + c]).fold(F::wide_id(), F::merge));
        }
    }
}

/// Folds matrices of a few columns and not many rows, each of which begins where `outer` says.
fn fold_narrow<T: Element, F: Fold<T>>(f: F, data: &[T], (outer, inner): (Plan<1>, &Plan<1>), (span, width, work): (usize, usize, usize), y: &mut [T]) {
    let (group, apart, stride) = ((SPAN / (span * width)).max(1), outer.inner_stride(0), inner.inner_stride(0));
    parallel::for_chunks(y, group * width, work, |g, y| {
        outer.walk(g * group, y.len() / width, |[at], first, n| {
            let blocks = Spaced { at, apart, len: span };
            fold_few(f, data, blocks, stride, width, &mut y[first * width..(first + n) * width]);
        });
    });
}
