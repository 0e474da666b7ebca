//! What is written for every element of a tile: y forward, dx backward.
//!
//! Invariant: each element depends on its own inputs and its column's values alone.

use super::super::layout::Tile;
use super::{AHEAD, Channels, Pull, ahead, group, group_mut, kept, near, pass, stream};
use crate::kernels::parallel::ColumnsMut;
use crate::kernels::simd::{Float, Isa};
use crate::simd;
use std::ops::Range;

/// Rows of a tile that are written at a time: short ones one by one, as even 4 KiB are too few for a stream.
#[inline(always)]
fn rows_written<T: Float>(x: Tile<T>, rows: usize, cols: usize) -> usize {
    match () {
        () if near(x, rows, cols) => 64,
        () if x.stride * size_of::<T>() <= 4096 => 1,
        () => 4,
    }
}

simd! {
    /// y = ((x − hi) − lo)·scale + shift into columns `left..` of rows `top..` of `y`.
    pub fn normalise<T: Float>(
        x: Tile<T>, rows: usize, keep: Option<&[bool]>, channels: Channels<T>, y: &mut ColumnsMut<T>, top: usize, left: usize,
    ) {
        let cols = channels.hi.len();
        let few = rows_written(x, rows, cols);
        for r in (0..rows).step_by(few) {
            let rows = r..(r + few).min(rows);
            match (few, channels.relu) {
                (1, false) => normalise_row::<I, T, false>(x, r, keep, &channels, y, top, left),
                (1, true) => normalise_row::<I, T, true>(x, r, keep, &channels, y, top, left),
                (_, false) => in_groups!(0..cols, normalise_group[false](x, rows.clone(), keep, &channels, y, top, left)),
                (_, true) => in_groups!(0..cols, normalise_group[true](x, rows.clone(), keep, &channels, y, top, left)),
            }
        }
    }

    /// dx into columns `left..` of rows `top..` of `dx`; statistics are constants if there is no `pull`.
    pub fn gradient<T: Float>(
        dy: Tile<T>, x: Tile<T>, rows: usize, keep: Option<&[bool]>, channels: Channels<T>, pull: Option<Pull<T>>,
        dx: &mut ColumnsMut<T>, top: usize, left: usize,
    ) {
        let cols = channels.hi.len();
        let few = rows_written(x, rows, cols);
        for r in (0..rows).step_by(few) {
            let rows = r..(r + few).min(rows);
            match (pull, channels.relu) {
                (None, false) => in_groups!(0..cols, frozen_group[false](dy, x, rows.clone(), keep, &channels, dx, top, left)),
                (None, true) => in_groups!(0..cols, frozen_group[true](dy, x, rows.clone(), keep, &channels, dx, top, left)),
                (Some(p), false) if few == 1 => pulled_row::<I, T, false>(dy, x, r, keep, &channels, p, dx, top, left),
                (Some(p), true) if few == 1 => pulled_row::<I, T, true>(dy, x, r, keep, &channels, p, dx, top, left),
                (Some(p), false) => in_groups!(0..cols, pulled_group[false](dy, x, rows.clone(), keep, &channels, p, dx, top, left)),
                (Some(p), true) => in_groups!(0..cols, pulled_group[true](dy, x, rows.clone(), keep, &channels, p, dx, top, left)),
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn normalise_group<I: Isa, T: Float, const G: usize, const RELU: bool>(
    c: usize,
    x: Tile<T>,
    rows: Range<usize>,
    keep: Option<&[bool]>,
    channels: &Channels<T>,
    y: &mut ColumnsMut<T>,
    top: usize,
    left: usize,
) {
    let (hi, lo): ([T; G], [T; G]) = (*group(channels.hi, c), *group(channels.lo, c));
    let (scale, shift): ([T; G], [T; G]) = (*group(channels.scale, c), *group(channels.shift, c));
    let next = ahead(x).map(|_| AHEAD * y.stride());
    for r in rows {
        let y: &mut [T; G] = group_mut(y.row_mut(top + r), left + c);
        if let Some(ahead) = next {
            stream::claim(y, ahead, G);
        }
        if !kept(keep, r) {
            *y = [T::ZERO; G];
            continue;
        }
        let x: &[T; G] = x.group(r, c);
        for j in 0..G {
            let v = ((x[j] - hi[j]) - lo[j]).mul_add_on::<I>(scale[j], shift[j]);
            y[j] = if RELU { v.relu() } else { v };
        }
    }
}

/// The same for a whole row: its columns' values are read where they lie.
#[inline(always)]
fn normalise_row<I: Isa, T: Float, const RELU: bool>(
    x: Tile<T>,
    r: usize,
    keep: Option<&[bool]>,
    channels: &Channels<T>,
    y: &mut ColumnsMut<T>,
    top: usize,
    left: usize,
) {
    let n = channels.hi.len();
    let y = &mut y.row_mut(top + r)[left..left + n];
    if !kept(keep, r) {
        return y.fill(T::ZERO);
    }
    let (x, hi, lo) = (&x.row(r)[..n], &channels.hi[..n], &channels.lo[..n]);
    let (scale, shift) = (&channels.scale[..n], &channels.shift[..n]);
    for j in 0..n {
        let v = ((x[j] - hi[j]) - lo[j]).mul_add_on::<I>(scale[j], shift[j]);
        y[j] = if RELU { v.relu() } else { v };
    }
}

/// dx of one element d = x − m.
#[inline(always)]
fn pulled<I: Isa, T: Float, const RELU: bool>(dy: T, d: T, invstd: T, [scale, shift]: [T; 2], [constant, slope]: [T; 2]) -> T {
    let g = if RELU { pass::<I, T>(dy, d, scale, shift) } else { dy };
    // x̂ itself rather than d·(slope/std): the latter's factor underflows for values around 1e30.
    g.mul_add_on::<I>(scale, (d * invstd).mul_add_on::<I>(slope, constant))
}

/// dx of a whole row: its columns' values are read where they lie.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn pulled_row<I: Isa, T: Float, const RELU: bool>(
    dy: Tile<T>,
    x: Tile<T>,
    r: usize,
    keep: Option<&[bool]>,
    channels: &Channels<T>,
    pull: Pull<T>,
    dx: &mut ColumnsMut<T>,
    top: usize,
    left: usize,
) {
    let n = channels.hi.len();
    let dx = &mut dx.row_mut(top + r)[left..left + n];
    if !kept(keep, r) {
        return dx.fill(T::ZERO);
    }
    let (dy, x, hi, lo, invstd) = (&dy.row(r)[..n], &x.row(r)[..n], &channels.hi[..n], &channels.lo[..n], &channels.invstd[..n]);
    let (scale, shift, constant, slope) = (&channels.scale[..n], &channels.shift[..n], &pull.constant[..n], &pull.slope[..n]);
    for j in 0..n {
        dx[j] = pulled::<I, T, RELU>(dy[j], (x[j] - hi[j]) - lo[j], invstd[j], [scale[j], shift[j]], [constant[j], slope[j]]);
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn pulled_group<I: Isa, T: Float, const G: usize, const RELU: bool>(
    c: usize,
    dy: Tile<T>,
    x: Tile<T>,
    rows: Range<usize>,
    keep: Option<&[bool]>,
    channels: &Channels<T>,
    pull: Pull<T>,
    dx: &mut ColumnsMut<T>,
    top: usize,
    left: usize,
) {
    let (hi, lo): ([T; G], [T; G]) = (*group(channels.hi, c), *group(channels.lo, c));
    let invstd: [T; G] = *group(channels.invstd, c);
    let (scale, shift): ([T; G], [T; G]) = (*group(channels.scale, c), *group(channels.shift, c));
    let (constant, slope): ([T; G], [T; G]) = (*group(pull.constant, c), *group(pull.slope, c));
    let next = ahead(x).map(|_| AHEAD * dx.stride());
    for r in rows {
        let dx: &mut [T; G] = group_mut(dx.row_mut(top + r), left + c);
        if let Some(ahead) = next {
            stream::claim(dx, ahead, G);
        }
        if !kept(keep, r) {
            *dx = [T::ZERO; G];
            continue;
        }
        let (dy, x): (&[T; G], &[T; G]) = (dy.group(r, c), x.group(r, c));
        for j in 0..G {
            dx[j] = pulled::<I, T, RELU>(dy[j], (x[j] - hi[j]) - lo[j], invstd[j], [scale[j], shift[j]], [constant[j], slope[j]]);
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn frozen_group<I: Isa, T: Float, const G: usize, const RELU: bool>(
    c: usize,
    dy: Tile<T>,
    x: Tile<T>,
    rows: Range<usize>,
    keep: Option<&[bool]>,
    channels: &Channels<T>,
    dx: &mut ColumnsMut<T>,
    top: usize,
    left: usize,
) {
    let (hi, lo): ([T; G], [T; G]) = (*group(channels.hi, c), *group(channels.lo, c));
    let (scale, shift): ([T; G], [T; G]) = (*group(channels.scale, c), *group(channels.shift, c));
    for r in rows {
        let dx: &mut [T; G] = group_mut(dx.row_mut(top + r), left + c);
        if !kept(keep, r) {
            *dx = [T::ZERO; G];
            continue;
        }
        let dy: &[T; G] = dy.group(r, c);
        for j in 0..G {
            dx[j] = scale[j] * dy[j];
        }
        if RELU {
            let x: &[T; G] = x.group(r, c);
            for j in 0..G {
                dx[j] = pass::<I, T>(dx[j], (x[j] - hi[j]) - lo[j], scale[j], shift[j]);
            }
        }
    }
}
