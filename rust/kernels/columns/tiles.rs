//! Kernels over tiles of rows × channels: a group of channels stays in registers while the rows go by.
//!
//! Invariant: a channel's sum is taken in `T` over [`TALL`] rows from a multiple of `TALL` on, and those are added up in
//! float64; how channels are grouped changes nothing.

use super::layout::Tile;
use super::stats::mean_of_eight;
use crate::kernels::parallel::ColumnsMut;
use crate::kernels::simd::{Float, Isa};
use crate::simd;
use std::ops::Range;

/// Rows of one sum in `T`.
pub(super) const TALL: usize = 32;
/// Rows that one load of the channels' values serves when nothing is summed: many where rows are short, few where every row
/// lies on pages of its own.
#[inline(always)]
fn swept<T>(x: Tile<T>) -> usize {
    ((64 << 10) / (x.stride * size_of::<T>()).max(1)).clamp(4, 64)
}

/// What the kernels know about the columns of a tile.
#[derive(Clone, Copy)]
pub(super) struct Channels<'a, T> {
    pub hi: &'a [T],
    pub lo: &'a [T],
    pub invstd: &'a [T],
    /// w / sqrt(v + eps).
    pub scale: &'a [T],
    /// b.
    pub shift: &'a [T],
    pub relu: bool,
}

impl<'a, T: Float> Channels<'a, T> {
    pub fn part(&self, c: Range<usize>) -> Self {
        Channels {
            hi: &self.hi[c.clone()],
            lo: &self.lo[c.clone()],
            invstd: &self.invstd[c.clone()],
            scale: &self.scale[c.clone()],
            shift: &self.shift[c],
            relu: self.relu,
        }
    }
}

/// The derivative through the batch statistics: dx = scale·dy + (constant + x̂·slope).
#[derive(Clone, Copy)]
pub(super) struct Pull<'a, T> {
    pub constant: &'a [T],
    pub slope: &'a [T],
}

#[inline(always)]
fn group<T, const G: usize>(v: &[T], c: usize) -> &[T; G] {
    v[c..].first_chunk().expect("channels come in whole groups")
}

#[inline(always)]
fn group_mut<T, const G: usize>(v: &mut [T], c: usize) -> &mut [T; G] {
    v[c..].first_chunk_mut().expect("channels come in whole groups")
}

#[inline(always)]
pub(super) fn relu<T: Float>(y: T) -> T {
    if y < T::ZERO { T::ZERO } else { y }
}

/// Calls `$f::<I, T, G, $flag…>(c, …)` for groups of G channels: as wide as the registers allow, then narrower.
macro_rules! in_groups {
    ($cols:expr, $f:ident[$($flag:literal),*]($($arg:expr),*)) => {{
        let mut c = 0;
        if size_of::<T>() == 4 {
            while c + 64 <= $cols {
                $f::<I, T, 64, $($flag),*>(c, $($arg),*);
                c += 64;
            }
        }
        while c + 32 <= $cols {
            $f::<I, T, 32, $($flag),*>(c, $($arg),*);
            c += 32;
        }
        while c + 8 <= $cols {
            $f::<I, T, 8, $($flag),*>(c, $($arg),*);
            c += 8;
        }
        while c < $cols {
            $f::<I, T, 1, $($flag),*>(c, $($arg),*);
            c += 1;
        }
    }};
}

simd! {
    /// The mean of eight rows of `x`, for every column.
    pub(super) fn pivots<T: Float>(x: Tile<T>, rows: [usize; 8], pivots: &mut [T]) {
        let n = pivots.len();
        let row = |i: usize| &x.row(rows[i])[..n];
        let (x0, x1, x2, x3, x4, x5, x6, x7) = (row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7));
        for c in 0..n {
            pivots[c] = mean_of_eight([x0[c], x1[c], x2[c], x3[c], x4[c], x5[c], x6[c], x7[c]]);
        }
    }

    /// Adds Σ(x − pivot) and Σ(x − pivot)² of every column.
    pub(super) fn moments<T: Float>(
        x: Tile<T>, rows: usize, keep: Option<&[bool]>, pivots: &[T], s1: &mut [f64], s2: &mut [f64],
    ) {
        for r in (0..rows).step_by(TALL) {
            let rows = r..(r + TALL).min(rows);
            in_groups!(pivots.len(), moments_group[](x, rows.clone(), keep, pivots, s1, s2));
        }
    }

    /// The same wholly in float64, for values whose squares overflow.
    pub(super) fn moments_wide<T: Float>(
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

    /// y = ((x − hi) − lo)·scale + shift into columns `left..` of rows `top..` of `y`.
    pub(super) fn normalise<T: Float>(
        x: Tile<T>, rows: usize, keep: Option<&[bool]>, channels: Channels<T>, y: &mut ColumnsMut<T>, top: usize, left: usize,
    ) {
        let swept = swept(x);
        for r in (0..rows).step_by(swept) {
            let rows = r..(r + swept).min(rows);
            let cols = channels.hi.len();
            if channels.relu {
                in_groups!(cols, normalise_group[true](x, rows.clone(), keep, &channels, y, top, left));
            } else {
                in_groups!(cols, normalise_group[false](x, rows.clone(), keep, &channels, y, top, left));
            }
        }
    }

    /// Adds Σ dy and Σ dy·(x − m) of every column.
    pub(super) fn sums<T: Float>(
        dy: Tile<T>, x: Tile<T>, rows: usize, keep: Option<&[bool]>, channels: Channels<T>, s1: &mut [f64], s2: &mut [f64],
    ) {
        for r in (0..rows).step_by(TALL) {
            let rows = r..(r + TALL).min(rows);
            let cols = channels.hi.len();
            if channels.relu {
                in_groups!(cols, sums_group[true](dy, x, rows.clone(), keep, &channels, s1, s2));
            } else {
                in_groups!(cols, sums_group[false](dy, x, rows.clone(), keep, &channels, s1, s2));
            }
        }
    }

    /// dx into columns `left..` of rows `top..` of `dx`; statistics are constants if there is no `pull`.
    pub(super) fn gradient<T: Float>(
        dy: Tile<T>, x: Tile<T>, rows: usize, keep: Option<&[bool]>, channels: Channels<T>, pull: Option<Pull<T>>,
        dx: &mut ColumnsMut<T>, top: usize, left: usize,
    ) {
        let swept = swept(x);
        for r in (0..rows).step_by(swept) {
            let rows = r..(r + swept).min(rows);
            let cols = channels.hi.len();
            match (pull, channels.relu) {
                (None, false) => in_groups!(cols, frozen_group[false](dy, x, rows.clone(), keep, &channels, dx, top, left)),
                (None, true) => in_groups!(cols, frozen_group[true](dy, x, rows.clone(), keep, &channels, dx, top, left)),
                (Some(p), false) => {
                    in_groups!(cols, pulled_group[false](dy, x, rows.clone(), keep, &channels, p, dx, top, left))
                }
                (Some(p), true) => {
                    in_groups!(cols, pulled_group[true](dy, x, rows.clone(), keep, &channels, p, dx, top, left))
                }
            }
        }
    }
}

#[inline(always)]
fn kept(keep: Option<&[bool]>, r: usize) -> bool {
    keep.is_none_or(|k| k[r])
}

#[inline(always)]
fn moments_group<I: Isa, T: Float, const G: usize>(
    c: usize,
    x: Tile<T>,
    rows: Range<usize>,
    keep: Option<&[bool]>,
    pivots: &[T],
    s1: &mut [f64],
    s2: &mut [f64],
) {
    let p: [T; G] = *group(pivots, c);
    let (mut a1, mut a2) = ([T::ZERO; G], [T::ZERO; G]);
    for r in rows.filter(|&r| kept(keep, r)) {
        let x: &[T; G] = x.group(r, c);
        for j in 0..G {
            let d = x[j] - p[j];
            a1[j] += d;
            a2[j] = d.mul_add_on::<I>(d, a2[j]);
        }
    }
    add_wide(s1, c, &a1);
    add_wide(s2, c, &a2);
}

#[inline(always)]
fn add_wide<T: Float, const G: usize>(s: &mut [f64], c: usize, a: &[T; G]) {
    let s: &mut [f64; G] = group_mut(s, c);
    for j in 0..G {
        s[j] += a[j].to_f64();
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
    for r in rows {
        let y: &mut [T; G] = group_mut(y.row_mut(top + r), left + c);
        if !kept(keep, r) {
            *y = [T::ZERO; G];
            continue;
        }
        let x: &[T; G] = x.group(r, c);
        for j in 0..G {
            let v = ((x[j] - hi[j]) - lo[j]).mul_add_on::<I>(scale[j], shift[j]);
            y[j] = if RELU { relu(v) } else { v };
        }
    }
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
    s1: &mut [f64],
    s2: &mut [f64],
) {
    let (hi, lo): ([T; G], [T; G]) = (*group(channels.hi, c), *group(channels.lo, c));
    let (scale, shift): ([T; G], [T; G]) = (*group(channels.scale, c), *group(channels.shift, c));
    let (mut a1, mut a2) = ([T::ZERO; G], [T::ZERO; G]);
    for r in rows.filter(|&r| kept(keep, r)) {
        let (dy, x): (&[T; G], &[T; G]) = (dy.group(r, c), x.group(r, c));
        for j in 0..G {
            let d = (x[j] - hi[j]) - lo[j];
            let g = if RELU { pass::<I, T>(dy[j], d, scale[j], shift[j]) } else { dy[j] };
            a1[j] += g;
            a2[j] = g.mul_add_on::<I>(d, a2[j]);
        }
    }
    add_wide(s1, c, &a1);
    add_wide(s2, c, &a2);
}

/// dy where the ReLU let y = d·scale + shift through, else 0.
#[inline(always)]
pub(super) fn pass<I: Isa, T: Float>(dy: T, d: T, scale: T, shift: T) -> T {
    if d.mul_add_on::<I>(scale, shift) > T::ZERO { dy } else { T::ZERO }
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
    for r in rows {
        let dx: &mut [T; G] = group_mut(dx.row_mut(top + r), left + c);
        if !kept(keep, r) {
            *dx = [T::ZERO; G];
            continue;
        }
        let (dy, x): (&[T; G], &[T; G]) = (dy.group(r, c), x.group(r, c));
        for j in 0..G {
            let d = (x[j] - hi[j]) - lo[j];
            let g = if RELU { pass::<I, T>(dy[j], d, scale[j], shift[j]) } else { dy[j] };
            // x̂ itself rather than d·(slope/std): the latter's factor underflows for values around 1e30.
            dx[j] = g.mul_add_on::<I>(scale[j], (d * invstd[j]).mul_add_on::<I>(slope[j], constant[j]));
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
