//! Arrays: shared storage read through a layout. No arithmetic lives here.
//!
//! Invariant: an array is a value. Whoever holds one sees the same elements for ever; writing needs a unique owner
//! ([`Array::as_mut_slice`]) or makes a copy first.

mod classes;
pub mod dtype;
mod limit;
mod poison;
mod pool;
pub mod queue;
mod scratch;
pub mod shape;
mod stats;
mod storage;

pub use dtype::{DType, Element, Scalar};
pub use limit::memory_limit;
pub use pool::{after_fork, before_fork, empty_cache, memory_stats, set_cache_cap};
pub use scratch::Scratch;
pub use shape::{Dims, Layout, MAX_DIMS, Slice, normalize_axis};
pub use stats::MemoryStats;
pub use storage::{Buffer, Owner};

use crate::{Result, bail};
use std::ops::Range;
use std::sync::Arc;

/// Room for `n` values, a number that callers choose: an error where there is not so much memory, for which `Vec` ends the process.
pub fn room<T>(n: usize) -> Result<Vec<T>> {
    let mut room = Vec::new();
    if n.saturating_mul(size_of::<T>()) > memory_limit() || room.try_reserve_exact(n).is_err() {
        bail!(Memory, "allocate: expected memory for {n} values of {} bytes, got none of that size", size_of::<T>());
    }
    Ok(room)
}

/// As [`room`], filled with `value`.
pub fn filled<T: Clone>(n: usize, value: T) -> Result<Vec<T>> {
    let mut filled = room(n)?;
    filled.resize(n, value);
    Ok(filled)
}

/// An n-dimensional array of one element type: two words, since arrays move through every call. Cloning shares the storage.
#[derive(Clone)]
pub struct Array {
    buffer: Buffer,
    /// How it is read, unless as the buffer was made.
    view: Option<Arc<Layout>>,
}

impl Array {
    /// An array with unspecified values, to be filled.
    #[inline]
    pub fn unfilled(dtype: DType, shape: Dims) -> Result<Array> {
        Ok(Array { buffer: Buffer::new(dtype, shape)?, view: None })
    }

    pub fn full(shape: &[usize], value: Scalar, dtype: DType) -> Result<Array> {
        if !dtype.holds(value) {
            bail!(Value, "scalar: expected an integer that fits {dtype}, got {}", value.as_f64());
        }
        let mut out = Array::unfilled(dtype, Dims::new(shape)?)?;
        crate::with_dtype!(dtype, T => out.fresh::<T>().fill(T::from_scalar(value)));
        Ok(out)
    }

    pub fn zeros(shape: &[usize], dtype: DType) -> Result<Array> {
        Array::full(shape, Scalar::Int(0), dtype)
    }

    pub fn scalar<T: Element>(value: T) -> Result<Array> {
        Array::from_slice(&[], &[value])
    }

    /// Copies `data`, in row-major order.
    pub fn from_slice<T: Element>(shape: &[usize], data: &[T]) -> Result<Array> {
        let shape = Dims::new(shape)?;
        if shape.size()? != data.len() {
            bail!(Value, "array: expected {} elements for shape {shape}, got {}", shape.size()?, data.len());
        }
        let mut out = Array::unfilled(T::DTYPE, shape)?;
        out.fresh::<T>().copy_from_slice(data);
        Ok(out)
    }

    #[inline]
    pub fn dtype(&self) -> DType {
        self.buffer.dtype()
    }

    #[inline]
    pub fn shape(&self) -> &Dims {
        &self.layout().shape
    }

    #[inline]
    pub fn ndim(&self) -> usize {
        self.layout().shape.len()
    }

    #[inline]
    pub fn size(&self) -> usize {
        self.layout().size()
    }

    #[inline]
    pub fn layout(&self) -> &Layout {
        match &self.view {
            Some(view) => view,
            None => self.buffer.layout(),
        }
    }

    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// The whole buffer; read it through `layout()`. Panics if `T` is not the element type.
    #[inline]
    pub fn data<T: Element>(&self) -> &[T] {
        self.buffer.slice()
    }

    /// The whole buffer for writing, likewise, if nobody shares it.
    #[inline]
    pub fn data_mut<T: Element>(&mut self) -> Option<&mut [T]> {
        self.buffer.slice_mut()
    }

    /// The elements in row-major order, if they lie so.
    #[inline]
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        self.data().get(self.range()?)
    }

    /// The elements for writing, if they lie in row-major order and nobody shares them.
    #[inline]
    pub fn as_mut_slice<T: Element>(&mut self) -> Option<&mut [T]> {
        let range = self.range()?;
        self.buffer.slice_mut()?.get_mut(range)
    }

    /// Where in the buffer the elements are, if they lie in row-major order.
    #[inline]
    fn range(&self) -> Option<Range<usize>> {
        if self.view.is_none() && self.buffer.is_own() {
            return Some(0..self.buffer.len());
        }
        let layout = self.layout();
        layout.is_contiguous().then(|| layout.offset..layout.offset + layout.size())
    }

    /// The elements of an array that was just made: unique and contiguous by construction.
    #[inline]
    pub fn fresh<T: Element>(&mut self) -> &mut [T] {
        self.as_mut_slice().expect("a fresh array is unique and contiguous")
    }

    #[inline]
    pub fn is_contiguous(&self) -> bool {
        self.range().is_some()
    }

    /// Whether writing in place would change nobody else's value.
    pub fn is_unique(&self) -> bool {
        self.buffer.is_unique()
    }

    /// Another holder of a value that others hold, so that writing makes a copy. Kept, it puts off to when no lock is held the
    /// drop of what was there: the last holder of memory of others runs code of theirs.
    pub fn if_shared(&self) -> Option<Array> {
        (!self.is_unique()).then(|| self.clone())
    }

    /// The same storage under another layout. The layout must come from this array's own.
    fn with_layout(&self, layout: Layout) -> Array {
        Array { buffer: self.buffer.clone(), view: Some(Arc::new(layout)) }
    }

    /// A view with axes in the given order.
    pub fn permute(&self, order: &[usize]) -> Array {
        self.with_layout(self.layout().permute(order))
    }

    /// A view with two axes exchanged.
    pub fn swap_axes(&self, a: usize, b: usize) -> Array {
        let mut order: smallvec::SmallVec<[usize; MAX_DIMS]> = (0..self.ndim()).collect();
        order.swap(a, b);
        self.permute(&order)
    }

    pub fn broadcast_to(&self, shape: &Dims) -> Result<Array> {
        Ok(self.with_layout(self.layout().broadcast_to(shape, "broadcast_to")?))
    }

    /// A view under another shape of the same size, if strides can express it.
    pub fn reshape_view(&self, shape: Dims) -> Option<Array> {
        Some(self.with_layout(self.layout().reshape(shape)?))
    }

    /// A view of part of one axis. Panics if out of range: callers check and name the op.
    pub fn slice(&self, axis: usize, slice: Slice) -> Array {
        if slice.len > 0 {
            let last = slice.start as isize + (slice.len as isize - 1) * slice.step;
            let n = self.shape()[axis];
            assert!(slice.start < n && (0..n as isize).contains(&last), "slice out of range");
        }
        self.with_layout(self.layout().slice(axis, slice))
    }
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Array({}, shape={})", self.dtype(), self.shape())
    }
}
