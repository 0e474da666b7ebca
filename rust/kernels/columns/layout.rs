//! How a kernel reads x: through strides, directly where elements are contiguous, gathered where they are not.

use super::SHORT;
use super::stats::mean_of_eight;
use crate::kernels::simd::Float;
use std::ops::Range;

/// Rows and columns of a gathered tile, and elements of a gathered run.
pub(super) const TILE_ROWS: usize = 32;
pub(super) const TILE_COLS: usize = 64;
pub(super) const RUN: usize = 256;

/// Values of shape (n, c, l) inside a slice, under any strides. A matrix has `l = 1`.
#[derive(Clone, Copy, Debug)]
pub struct Planes<'a, T> {
    pub data: &'a [T],
    pub n: usize,
    pub c: usize,
    pub l: usize,
    pub strides: [isize; 3],
    pub offset: usize,
}

impl<'a, T: Float> Planes<'a, T> {
    /// Row-major values.
    pub fn contiguous(data: &'a [T], n: usize, c: usize, l: usize) -> Self {
        assert_eq!(data.len(), n * c * l, "planes: the slice must hold n·c·l elements");
        Planes { data, n, c, l, strides: [(c * l) as isize, l as isize, 1], offset: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.n * self.c * self.l
    }

    /// Positions per channel.
    pub(super) fn positions(&self) -> usize {
        self.n * self.l
    }

    #[inline(always)]
    fn index(&self, n: usize, c: usize, l: usize) -> usize {
        let [sn, sc, sl] = self.strides;
        (self.offset as isize + n as isize * sn + c as isize * sc + l as isize * sl) as usize
    }

    /// Element at `position` (which counts n·l) of a channel.
    #[inline(always)]
    pub(super) fn get(&self, c: usize, position: usize) -> T {
        self.data[self.index(position / self.l, c, position % self.l)]
    }

    /// Whether kernels should walk rows of columns rather than runs of one channel.
    pub(super) fn walks_rows(&self, masked: bool) -> bool {
        self.l == 1 || (self.l < SHORT && !masked)
    }

    /// The same values as a matrix of n rows and c·l columns.
    pub(super) fn rows(&self) -> Rows<'a, T> {
        let [row, channel, inner] = self.strides;
        let unit_channel = self.c == 1 || channel == self.l as isize;
        let unit = row >= 0 && (self.l == 1 || inner == 1) && unit_channel;
        Rows { data: self.data, start: self.offset, rows: self.n, cols: self.c * self.l, l: self.l, row, channel, inner, unit }
    }

    /// The same values as a matrix of n·l rows and c columns, if channels are contiguous and rows evenly spaced.
    pub(super) fn channels_last(&self) -> Option<Rows<'a, T>> {
        let [n, channel, row] = self.strides;
        let fits = channel == 1 && row >= 0 && (self.n == 1 || n == row * self.l as isize);
        let rows = self.positions();
        let (data, start, cols) = (self.data, self.offset, self.c);
        fits.then_some(Rows { data, start, rows, cols, l: 1, row, channel, inner: 1, unit: true })
    }
}

/// A matrix whose columns are (channel, inner) pairs.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, T> {
    data: &'a [T],
    start: usize,
    pub rows: usize,
    pub cols: usize,
    /// Columns per channel.
    pub l: usize,
    row: isize,
    channel: isize,
    inner: isize,
    /// Whether the columns of a row are contiguous.
    unit: bool,
}

/// A tile whose rows are contiguous: element (r, c) is `data[r * stride + c]`.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a, T> {
    pub data: &'a [T],
    pub stride: usize,
}

impl<'a, T: Float> Tile<'a, T> {
    #[inline(always)]
    pub fn row(&self, r: usize) -> &'a [T] {
        &self.data[r * self.stride..]
    }

    #[inline(always)]
    pub fn group<const G: usize>(&self, r: usize, c: usize) -> &'a [T; G] {
        self.data[r * self.stride + c..].first_chunk().expect("columns lie inside the tile")
    }
}

impl<'a, T: Float> Rows<'a, T> {
    #[inline(always)]
    fn index(&self, r: usize, c: usize) -> usize {
        let within = if self.l == 1 { c as isize * self.channel } else { (c / self.l) as isize * self.channel + (c % self.l) as isize * self.inner };
        (self.start as isize + r as isize * self.row + within) as usize
    }

    fn direct(&self, r: usize, c: usize) -> Tile<'a, T> {
        Tile { data: &self.data[self.index(r, c)..], stride: self.row as usize }
    }

    fn gather(&self, rows: Range<usize>, cols: Range<usize>, into: &mut [T]) {
        if self.row == 1 {
            for (j, c) in cols.enumerate() {
                for (i, r) in rows.clone().enumerate() {
                    into[i * TILE_COLS + j] = self.data[self.index(r, c)];
                }
            }
        } else {
            for (into, r) in into.chunks_exact_mut(TILE_COLS).zip(rows) {
                for (x, c) in into.iter_mut().zip(cols.clone()) {
                    *x = self.data[self.index(r, c)];
                }
            }
        }
    }
}

/// Calls `f(first_row, rows, first_col, cols, tiles)` for tiles that cover `rows` × `cols` of all views, row blocks outermost:
/// one call for everything if all views can be read directly.
pub(super) fn for_tiles<T: Float, const K: usize>(
    views: [&Rows<T>; K],
    rows: Range<usize>,
    cols: Range<usize>,
    mut f: impl FnMut(Range<usize>, Range<usize>, [Tile<T>; K]),
) {
    if rows.is_empty() || cols.is_empty() {
        return;
    }
    if views.iter().all(|v| v.unit) {
        return f(rows.clone(), cols.clone(), views.map(|v| v.direct(rows.start, cols.start)));
    }
    let mut buffers = [[T::ZERO; TILE_ROWS * TILE_COLS]; K];
    for_small_tiles(rows, cols, |r, c| {
        for (view, buffer) in views.iter().zip(&mut buffers) {
            if !view.unit {
                view.gather(r.clone(), c.clone(), buffer);
            }
        }
        let tile = |k: usize| match views[k].unit {
            true => views[k].direct(r.start, c.start),
            false => Tile { data: &buffers[k], stride: TILE_COLS },
        };
        f(r.clone(), c.clone(), std::array::from_fn(tile));
    });
}

/// Calls `f(rows, cols)` for tiles that fit a buffer, row blocks outermost.
pub(super) fn for_small_tiles(rows: Range<usize>, cols: Range<usize>, mut f: impl FnMut(Range<usize>, Range<usize>)) {
    for r in rows.clone().step_by(TILE_ROWS) {
        for c in cols.clone().step_by(TILE_COLS) {
            f(r..(r + TILE_ROWS).min(rows.end), c..(c + TILE_COLS).min(cols.end));
        }
    }
}

/// Calls `f(c, n, first_l, runs)` for contiguous runs that cover the `positions` of each of the `channels` in order. The channels
/// take turns, so that memory in which they are neighbours is read in longer pieces than one run.
#[inline(always)]
pub(super) fn for_runs<T: Float, const K: usize>(
    planes: [&Planes<T>; K],
    channels: Range<usize>,
    positions: Range<usize>,
    mut f: impl FnMut(usize, usize, usize, [&[T]; K]),
) {
    let l = planes[0].l;
    let unit = |p: &Planes<T>| p.strides[2] == 1;
    let longest = if planes.iter().all(|p| unit(p)) { l } else { RUN };
    let mut buffers = [[T::ZERO; RUN]; K];
    let mut at = positions.start;
    while at < positions.end {
        let (n, first) = (at / l, at % l);
        let len = longest.min(l - first).min(positions.end - at);
        for c in channels.clone() {
            for (p, buffer) in planes.iter().zip(&mut buffers) {
                if !unit(p) {
                    for (i, x) in buffer[..len].iter_mut().enumerate() {
                        *x = p.data[p.index(n, c, first + i)];
                    }
                }
            }
            let run = |k: usize| match unit(planes[k]) {
                true => &planes[k].data[planes[k].index(n, c, first)..][..len],
                false => &buffers[k][..len],
            };
            f(c, n, first, std::array::from_fn(run));
        }
        at += len;
    }
}

/// The mean of eight elements at `places` (rows, or positions if a channel has several columns) of each channel.
pub(super) fn pivots<T: Float>(x: &Planes<T>, places: [usize; 8], first: usize, pivots: &mut [T]) {
    let rows = x.rows();
    if rows.unit && x.l == 1 {
        return super::tiles::pivots(rows.direct(0, first), places, pivots);
    }
    for (c, p) in pivots.iter_mut().enumerate() {
        *p = mean_of_eight(places.map(|at| x.get(first + c, at)));
    }
}
