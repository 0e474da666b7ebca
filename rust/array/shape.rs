//! Shapes and layouts: how a flat buffer is read as an n-dimensional array.
//!
//! Invariant: every index that is in range of `shape` maps, by `offset + Σ index·stride`, to an element of the buffer the
//! layout was made for. Layouts are only made from that buffer's own layout by the methods here, which keep it true.

use crate::{Error, Result, bail};
use std::fmt;
use std::ops::{Deref, DerefMut};

/// Most dimensions an array can have. Shapes are stored inline, so an array needs no heap memory for them.
pub const MAX_DIMS: usize = 8;

/// The sizes of an array, inline.
#[derive(Clone, Copy, Default)]
pub struct Dims {
    len: u8,
    sizes: [usize; MAX_DIMS],
}

impl Dims {
    /// Fails beyond [`MAX_DIMS`] dimensions.
    #[inline]
    pub fn new(sizes: &[usize]) -> Result<Dims> {
        if sizes.len() > MAX_DIMS {
            bail!(Value, "shape: expected at most {MAX_DIMS} dimensions, got {}", sizes.len());
        }
        let mut dims = Dims { len: sizes.len() as u8, sizes: [0; MAX_DIMS] };
        dims.sizes[..sizes.len()].copy_from_slice(sizes);
        Ok(dims)
    }

    /// The sizes of all parts, one behind the other. Fails beyond [`MAX_DIMS`] dimensions.
    pub fn concat(parts: &[&[usize]]) -> Result<Dims> {
        if parts.iter().map(|part| part.len()).sum::<usize>() > MAX_DIMS {
            return Dims::new(&parts.concat());
        }
        let mut dims = Dims::default();
        parts.iter().copied().flatten().try_for_each(|&size| dims.push(size))?;
        Ok(dims)
    }

    /// The number of elements; an overflow is an error.
    pub fn size(&self) -> Result<usize> {
        if self.contains(&0) && self.iter().all(|&n| n <= isize::MAX as usize) {
            return Ok(0);
        }
        self.iter()
            .try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))
            .filter(|&n| n <= isize::MAX as usize / 8)
            .ok_or_else(|| Error::Memory(format!("shape: expected no more elements than memory can address, got {self}")))
    }

    pub fn push(&mut self, size: usize) -> Result<()> {
        self.insert(self.len(), size)
    }

    pub fn insert(&mut self, at: usize, size: usize) -> Result<()> {
        if self.len() == MAX_DIMS {
            bail!(Value, "shape: expected at most {MAX_DIMS} dimensions, got {}", MAX_DIMS + 1);
        }
        self.sizes.copy_within(at..self.len as usize, at + 1);
        self.sizes[at] = size;
        self.len += 1;
        Ok(())
    }

    pub fn remove(&mut self, at: usize) {
        self.sizes.copy_within(at + 1..self.len as usize, at);
        self.len -= 1;
    }

    /// The shape that NumPy broadcasting gives for two shapes.
    pub fn broadcast(&self, other: &Dims, op: &str) -> Result<Dims> {
        let (long, short) = if self.len() >= other.len() { (self, other) } else { (other, self) };
        let mut out = *long;
        let lead = long.len() - short.len();
        for (i, &s) in short.iter().enumerate() {
            let l = out[lead + i];
            if l != s && l != 1 && s != 1 {
                bail!(Value, "{op}: expected shapes that broadcast together, got {self} and {other}");
            }
            if l == 1 {
                out[lead + i] = s;
            }
        }
        Ok(out)
    }

    /// About how many elements there are of what both broadcast to; at most `usize::MAX`.
    pub fn broadcast_size(&self, other: &Dims) -> usize {
        let (long, short) = if self.len() >= other.len() { (self, other) } else { (other, self) };
        let lead = long.len() - short.len();
        long.iter().enumerate().fold(1, |size, (i, &n)| size.saturating_mul(if i < lead { n } else { n.max(short[i - lead]) }))
    }
}

impl Deref for Dims {
    type Target = [usize];
    #[inline(always)]
    fn deref(&self) -> &[usize] {
        &self.sizes[..self.len as usize]
    }
}
impl DerefMut for Dims {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [usize] {
        &mut self.sizes[..self.len as usize]
    }
}
impl PartialEq for Dims {
    #[inline]
    fn eq(&self, other: &Dims) -> bool {
        self[..] == other[..]
    }
}
impl Eq for Dims {}
/// Prints as a Python tuple.
impl fmt::Display for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self[..] {
            [one] => write!(f, "({one},)"),
            all => write!(f, "({})", all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}
impl fmt::Debug for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Turns a possibly negative axis into an index below `ndim`.
pub fn normalize_axis(axis: isize, ndim: usize, op: &str) -> Result<usize> {
    let n = ndim as isize;
    if axis < -n || axis >= n {
        bail!(Index, "{op}: expected an axis in [{}, {}), got {axis}", -n, n.max(0));
    }
    Ok(if axis < 0 { axis + n } else { axis } as usize)
}

/// One axis of a basic index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slice {
    pub start: usize,
    pub len: usize,
    pub step: isize,
}

/// Shape, strides (in elements; 0 where broadcast, negative where flipped) and offset of the first element.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub shape: Dims,
    strides: [isize; MAX_DIMS],
    pub offset: usize,
}

impl Layout {
    #[inline]
    pub fn contiguous(shape: Dims) -> Layout {
        let mut strides = [0; MAX_DIMS];
        let mut step = 1usize;
        for i in (0..shape.len()).rev() {
            strides[i] = step as isize;
            step = step.saturating_mul(shape[i].max(1));
        }
        Layout { shape, strides, offset: 0 }
    }

    /// A layout of any strides; the caller answers for the invariant.
    pub(super) fn strided(shape: Dims, steps: &[isize], offset: usize) -> Layout {
        let mut strides = [0; MAX_DIMS];
        strides[..shape.len()].copy_from_slice(steps);
        Layout { shape, strides, offset }
    }

    #[inline(always)]
    pub fn strides(&self) -> &[isize] {
        &self.strides[..self.shape.len()]
    }

    #[inline]
    pub fn size(&self) -> usize {
        // Sizes that overflow stand only beside a 0.
        self.shape.iter().fold(1, |size, &n| size.saturating_mul(n))
    }

    /// How far before the first element, and how far behind it, others lie, if there are any: not above 0, and not below.
    pub fn ends(&self) -> (isize, isize) {
        let ends = || self.shape.iter().zip(self.strides()).map(|(&n, &stride)| (n as isize - 1) * stride);
        (ends().map(|end| end.min(0)).sum(), ends().map(|end| end.max(0)).sum())
    }

    /// Whether the elements lie one after another in row-major order (from `offset` on), as none do.
    #[inline]
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1isize;
        for i in (0..self.shape.len()).rev() {
            match self.shape[i] {
                0 => return true,
                1 => {}
                n => {
                    if self.strides[i] != step {
                        return self.shape.contains(&0);
                    }
                    step = step.saturating_mul(n as isize);
                }
            }
        }
        true
    }

    /// The axes in the given order, a permutation of `0..ndim`. Panics if it is none.
    pub fn permute(&self, order: &[usize]) -> Layout {
        let named = order.iter().fold(0usize, |named, &axis| named | 1usize.checked_shl(axis as u32).unwrap_or(0));
        assert!(order.len() == self.shape.len() && named + 1 == 1 << order.len(), "permute: expected every axis once");
        let mut out = *self;
        for (i, &axis) in order.iter().enumerate() {
            out.shape[i] = self.shape[axis];
            out.strides[i] = self.strides[axis];
        }
        out
    }

    pub fn broadcast_to(&self, shape: &Dims, op: &str) -> Result<Layout> {
        let fail = || Error::Value(format!("{op}: expected a shape that broadcasts to {shape}, got {}", self.shape));
        let lead = shape.len().checked_sub(self.shape.len()).ok_or_else(fail)?;
        let mut out = Layout { shape: *shape, strides: [0; MAX_DIMS], offset: self.offset };
        for i in 0..self.shape.len() {
            if self.shape[i] == shape[lead + i] {
                out.strides[lead + i] = self.strides[i];
            } else if self.shape[i] != 1 {
                return Err(fail());
            }
        }
        Ok(out)
    }

    /// The same elements in the same order under another shape, if it has as many and strides can express it.
    pub fn reshape(&self, shape: Dims) -> Option<Layout> {
        if shape.size().ok()? != self.size() {
            return None;
        }
        if self.is_contiguous() {
            return Some(Layout { offset: self.offset, ..Layout::contiguous(shape) });
        }
        let mut out = Layout { shape, strides: [0; MAX_DIMS], offset: self.offset };
        let old: smallvec::SmallVec<[(usize, isize); MAX_DIMS]> =
            self.shape.iter().copied().zip(self.strides().iter().copied()).filter(|&(n, _)| n != 1).collect();
        // Walk both shapes from the back: each group of new axes must cover a run of old axes that is itself contiguous.
        let (mut i, mut j) = (old.len(), shape.len());
        while i > 0 {
            i -= 1;
            let (mut have, stride) = old[i];
            while i > 0 && old[i - 1].1 == stride * have as isize {
                i -= 1;
                have *= old[i].0;
            }
            let mut taken = 1;
            while taken < have {
                j = j.checked_sub(1)?;
                out.strides[j] = stride * taken as isize;
                taken *= shape[j];
            }
            if taken != have {
                return None;
            }
        }
        Some(out)
    }

    /// Cuts axis `axis` to `slice`, which must be in range.
    pub fn slice(&self, axis: usize, slice: Slice) -> Layout {
        let mut out = *self;
        out.shape[axis] = slice.len;
        out.strides[axis] *= slice.step;
        // Without elements there is nothing to begin at, and the buffer may end before.
        if out.size() > 0 {
            out.offset = (out.offset as isize + slice.start as isize * self.strides[axis]) as usize;
        }
        out
    }

    /// Drops an axis, keeping its first element.
    pub fn remove_axis(&self, at: usize) -> Layout {
        let mut out = *self;
        out.shape.remove(at);
        out.strides.copy_within(at + 1.., at);
        out
    }
}
