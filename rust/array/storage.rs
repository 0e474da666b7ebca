//! Shared, reference-counted storage: a header and the elements behind it, in one pool block; or a header alone, for elements that
//! live in memory of others.
//!
//! Invariants: the elements are initialised from the first moment (the pool never hands out uninitialised bytes, and bool
//! storage is cleared); they are written only through `&mut Buffer` while the count is one, and never in memory of others.

use super::classes::HEADER;
use super::dtype::{DType, Element};
use super::pool::{self, Block};
use super::queue::{Queue, drop_in_turn};
use super::{Array, Dims, Layout};
use crate::{Error, Result};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

#[repr(C, align(64))]
struct Header {
    count: AtomicUsize,
    /// Elements.
    len: usize,
    class: u16,
    dtype: DType,
    data: *const u8,
    /// Keeps memory of others alive.
    owner: Option<Owner>,
    /// How the array is read that it was made for.
    layout: Layout,
}
const _: () = assert!(size_of::<Header>() == HEADER);

/// Whatever keeps memory alive until it is dropped, on any thread.
pub type Owner = Box<dyn Send + Sync>;

/// A shared buffer of elements of one type. Cloning it shares the elements.
pub struct Buffer {
    header: NonNull<Header>,
}

// SAFETY: the count is atomic, and elements (plain numbers) are written only by a unique owner.
unsafe impl Send for Buffer {}
// SAFETY: as above; `&Buffer` only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A buffer for the elements of `shape`, in row-major order, with unspecified (but initialised) values; false for bool.
    #[inline]
    pub fn new(dtype: DType, shape: Dims) -> Result<Buffer> {
        let len = shape.size()?;
        let block = take(dtype, len, dtype.size())?;
        // SAFETY: the block is at least `HEADER` bytes long.
        let data = unsafe { block.ptr.add(HEADER) }.as_ptr();
        let mut buffer = Buffer::with_header(block, dtype, len, data, None, Layout::contiguous(shape));
        if dtype == DType::Bool {
            buffer.clear_bytes();
        }
        Ok(buffer)
    }

    /// `len` elements in memory of others, which `owner` keeps alive, read as `layout` says. They are never written here.
    ///
    /// # Safety
    /// `data` points to `len` initialised elements of `dtype`, aligned for it, for as long as `owner` lives. Whoever else
    /// may write to them does not while a kernel reads them.
    pub unsafe fn borrowed(dtype: DType, len: usize, data: *const u8, owner: Owner, layout: Layout) -> Result<Buffer> {
        Ok(Buffer::with_header(take(dtype, 0, 0)?, dtype, len, data, Some(owner), layout))
    }

    #[inline]
    fn with_header(block: Block, dtype: DType, len: usize, data: *const u8, owner: Option<Owner>, layout: Layout) -> Buffer {
        let place = block.ptr.cast::<Header>();
        // SAFETY: the block is 64-byte aligned, at least `HEADER` bytes long and owned by no one else.
        unsafe { place.write(Header { count: AtomicUsize::new(1), len, class: block.class, dtype, data, owner, layout }) };
        Buffer { header: place }
    }

    fn head(&self) -> &Header {
        // SAFETY: the header lives as long as any `Buffer` points to it.
        unsafe { self.header.as_ref() }
    }

    /// The address of the first element; 64-byte aligned where the memory is the pool's. It stays valid while any clone of
    /// this buffer lives.
    #[inline]
    pub fn address(&self) -> *const u8 {
        self.head().data
    }

    /// How the array is read that the buffer was made for.
    #[inline]
    pub fn layout(&self) -> &Layout {
        &self.head().layout
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
        // SAFETY: `data` leads to `len` initialised, aligned elements of `dtype`, which is `T` by the check above; no `&mut`
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

    /// Whether the memory is the pool's: then the elements are those of one shape, in row-major order.
    #[inline]
    pub fn is_own(&self) -> bool {
        self.head().owner.is_none()
    }

    /// Whether the elements may be written: nobody else reads them, and the memory is the pool's.
    pub fn is_unique(&self) -> bool {
        self.head().count.load(Ordering::Acquire) == 1 && self.is_own()
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
        let class = self.head().class;
        // SAFETY: this was the last `Buffer` that led to the header, which nobody reads again.
        let owner = unsafe { (&raw const (*self.header.as_ptr()).owner).read() };
        pool::give(Block { ptr: self.header.cast(), class });
        if let Some(owner) = owner {
            drop_in_turn(&OWNERS, owner);
        }
    }
}

thread_local! {
    /// An owner may hold a buffer that has an owner.
    static OWNERS: RefCell<Queue<Owner>> = const { RefCell::new(Queue::EMPTY) };
}

impl Array {
    /// Memory of others, which `owner` keeps alive: `data` is the address of the first element, strides are in elements.
    ///
    /// # Safety
    /// As for [`Buffer::borrowed`], for every element that the shape and the strides lead to.
    pub unsafe fn borrowed(dtype: DType, shape: &[usize], strides: &[isize], data: *const u8, owner: Owner) -> Result<Array> {
        let shape = Dims::new(shape)?;
        if shape.size()? == 0 {
            return Array::unfilled(dtype, shape);
        }
        let mut layout = Layout::strided(shape, strides, 0);
        let (before, after) = layout.ends();
        layout.offset = before.unsigned_abs();
        // SAFETY: the first and the last element belong to the array, and so does what lies between them.
        let buffer = unsafe {
            let start = data.wrapping_offset(before * dtype.size() as isize);
            Buffer::borrowed(dtype, (after - before) as usize + 1, start, owner, layout)?
        };
        Ok(Array { buffer, view: None })
    }
}

/// A block for a header and `len` elements of `bytes` each.
fn take(dtype: DType, len: usize, bytes: usize) -> Result<Block> {
    let wanted = len.checked_mul(bytes).and_then(|n| n.checked_add(HEADER));
    wanted.and_then(pool::take).ok_or_else(|| Error::Memory(format!("allocate: expected memory for {len} elements of {dtype}, got none of that size")))
}

#[cfg(test)]
mod tests {
    use crate::array::{Array, DType};
    use std::sync::Arc;

    #[test]
    fn memory_of_others_is_read_and_given_back_but_never_written() {
        let owner = Arc::new(vec![1.0f32, 2.0, 3.0, 4.0, 5.0]);
        let last = owner[4..].as_ptr().cast();
        // SAFETY: from the last element on every second one backwards is in the vector, which the clone keeps alive.
        let mut array = unsafe { Array::borrowed(DType::F32, &[3], &[-2], last, Box::new(owner.clone())) }.expect("made");
        assert_eq!(array.buffer().address(), owner.as_ptr().cast());
        let (data, layout) = (array.data::<f32>(), array.layout());
        let at = |i: isize| data[(layout.offset as isize + i * layout.strides()[0]) as usize];
        assert_eq!([at(0), at(1), at(2)], [5.0, 3.0, 1.0]);
        assert!(!array.is_unique() && array.as_mut_slice::<f32>().is_none());
        let view = array.clone();
        drop(array);
        assert_eq!(Arc::strong_count(&owner), 2);
        drop(view);
        assert_eq!(Arc::strong_count(&owner), 1);
    }
}
