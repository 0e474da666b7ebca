//! Kernels over tiles of rows × channels: a group of channels stays in registers while the rows go by.
//!
//! Invariant: a channel's sum is taken in `T` over [`TALL`] rows from a multiple of `TALL` on, and those are added up in
//! float64; how channels are grouped changes nothing.

use super::layout::Tile;
use crate::kernels::simd::{Float, Isa};
use crate::kernels::stream;
use std::ops::Range;

/// Calls `$f::<I, T, G, $flag…>(c, …)` for groups of G channels: as wide as the registers allow, then narrower.
macro_rules! in_groups {
    ($cols:expr, $f:ident[$($flag:literal),*]($($arg:expr),*)) => {{
        let (mut c, end) = ($cols.start, $cols.end);
        if size_of::<T>() == 4 {
            while c + 64 <= end {
                $f::<I, T, 64, $($flag),*>(c, $($arg),*);
                c += 64;
            }
        }
        while c + 32 <= end {
            $f::<I, T, 32, $($flag),*>(c, $($arg),*);
            c += 32;
        }
        while c + 8 <= end {
            $f::<I, T, 8, $($flag),*>(c, $($arg),*);
            c += 8;
        }
        while c < end {
            $f::<I, T, 1, $($flag),*>(c, $($arg),*);
            c += 1;
        }
    }};
}

mod outputs;
mod sums;

pub(super) use outputs::{gradient, normalise};
pub(super) use sums::{moments, moments_wide, pivots, sums};

/// Rows of one sum in `T`.
pub(super) const TALL: usize = 32;
/// A tile of so many bytes, or a strip of a wider matrix, lies in the second-level cache: any order of reading it will do.
const NEAR: usize = 128 << 10;

/// Rows ahead of those in hand that are asked for, of a tile inside more than so many bytes: the processor itself asks for what follows
/// in memory, and that is the rest of a row which other groups of channels come to.
const AHEAD: usize = 4;
const FAR: usize = 256 << 10;

/// Elements from a row to the one that is to be asked for, if any.
#[inline(always)]
fn ahead<T: Float>(x: Tile<T>) -> Option<usize> {
    (size_of_val(x.data) > FAR).then_some(AHEAD * x.stride)
}

#[inline(always)]
fn near<T: Float>(x: Tile<T>, rows: usize, cols: usize) -> bool {
    cols <= 64 || cols < x.stride || rows * cols * size_of::<T>() <= NEAR
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
fn kept(keep: Option<&[bool]>, r: usize) -> bool {
    keep.is_none_or(|k| k[r])
}

/// dy where the ReLU let y = d·scale + shift through, else 0.
#[inline(always)]
pub(super) fn pass<I: Isa, T: Float>(dy: T, d: T, scale: T, shift: T) -> T {
    if d.mul_add_on::<I>(scale, shift) > T::ZERO { dy } else { T::ZERO }
}
