//! Shared, reference-counted storage: a 64-byte header and the elements behind it, in one pool block.
//!
//! Invariants: the elements are initialised from the first moment (the pool never hands out uninitialised bytes, and bool
//! storage is cleared); they are written only through `&mut Buffer` while the count is one.

use super::dtype::{DType, Element};
use super::pool::{self, ALIGN, Block};
use crate::{Error, Result};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

#[repr(C, align(64))]
struct Header {
    count: AtomicUsize,
    /// Elements.
    len: usize,
    class: u16,
    dtype: DType,
}

/// A shared buffer of elements of one type. Cloning it shares the elements.
pub struct Buffer {
    header: NonNull<Header>,
}

// SAFETY: the count is atomic, and elements (plain numbers) are written only by a unique owner.
unsafe impl Send for Buffer {}
// SAFETY: as above; `&Buffer` only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A buffer of `len` elements with unspecified (but initialised) values; false for bool.
    pub fn new(dtype: DType, len: usize) -> Result<Buffer> {
        let wanted = len.checked_mul(dtype.size()).and_then(|n| n.checked_add(ALIGN));
        let block = wanted
            .and_then(pool::take)
            .ok_or_else(|| Error::Memory(format!("allocate: expected memory for {len} elements of {dtype}, got none of that size")))?;
        let header = block.ptr.cast::<Header>();
        // SAFETY: the block is 64-byte aligned, at least `ALIGN` bytes long and owned by no one else.
        unsafe { header.write(Header { count: AtomicUsize::new(1), len, class: block.class, dtype }) };
        let mut buffer = Buffer { header };
        if dtype == DType::Bool {
            buffer.clear_bytes();
        }
        Ok(buffer)
    }

    fn head(&self) -> &Header {
        // SAFETY: the header lives as long as any `Buffer` points to it.
        unsafe { self.header.as_ref() }
    }

    /// The address of the first element, 64-byte aligned. It stays valid while any clone of this buffer lives.
    pub fn address(&self) -> *const u8 {
        // SAFETY: the block is at least `ALIGN` bytes long.
        unsafe { self.header.as_ptr().cast::<u8>().add(ALIGN) }
    }

    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.head().len
    }

    pub fn dtype(&self) -> DType {
        self.head().dtype
    }

    /// All elements. Panics if `T` is not the element type: callers dispatch on it first.
    #[inline]
    pub fn slice<T: Element>(&self) -> &[T] {
        let head = self.head();
        assert!(T::DTYPE == head.dtype, "buffer of {} read as {}", head.dtype, T::DTYPE);
        // SAFETY: the block holds `len` initialised, aligned elements of `dtype`, which is `T` by the check above; no `&mut`
        // exists while `&self` does, because writing needs `&mut Buffer` of the only owner.
        unsafe { std::slice::from_raw_parts(self.address().cast::<T>(), head.len) }
    }

    /// All elements for writing, if no one shares them. Panics if `T` is not the element type.
    #[inline]
    pub fn slice_mut<T: Element>(&mut self) -> Option<&mut [T]> {
        let head = self.head();
        assert!(T::DTYPE == head.dtype, "buffer of {} written as {}", head.dtype, T::DTYPE);
        if !self.is_unique() {
            return None;
        }
        // SAFETY: as in `slice`; the count is one and we hold `&mut self`, so nobody else can read or clone meanwhile.
        Some(unsafe { std::slice::from_raw_parts_mut(self.address().cast_mut().cast::<T>(), head.len) })
    }

    pub fn is_unique(&self) -> bool {
        self.head().count.load(Ordering::Acquire) == 1
    }

    fn clear_bytes(&mut self) {
        let bytes = self.len() * self.dtype().size();
        // SAFETY: called on a buffer that was just made, so unique; the block holds that many bytes, and zero is a valid element.
        unsafe { self.address().cast_mut().write_bytes(0, bytes) }
    }
}

impl Clone for Buffer {
    #[inline]
    fn clone(&self) -> Self {
        self.head().count.fetch_add(1, Ordering::Relaxed);
        Buffer { header: self.header }
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        // A sole owner needs no locked instruction: nobody else can change the count.
        if self.head().count.load(Ordering::Acquire) != 1 && self.head().count.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        pool::give(Block { ptr: self.header.cast(), class: self.head().class });
    }
}
