//! For `make sanitize`: of the pool's memory only the bytes asked for, of blocks in use, may be touched.

#[cfg(asan)]
mod sanitizer {
    use std::ptr::NonNull;

    unsafe extern "C" {
        fn __asan_poison_memory_region(start: *const u8, bytes: usize);
        fn __asan_unpoison_memory_region(start: *const u8, bytes: usize);
    }

    pub fn open(start: NonNull<u8>, bytes: usize) {
        // SAFETY: it only notes in the sanitizer's shadow what may be touched.
        unsafe { __asan_unpoison_memory_region(start.as_ptr(), bytes) }
    }

    pub fn close(start: NonNull<u8>, from: usize, to: usize) {
        // SAFETY: as above.
        unsafe { __asan_poison_memory_region(start.as_ptr().wrapping_add(from), to - from) }
    }
}

#[cfg(not(asan))]
mod sanitizer {
    use std::ptr::NonNull;

    #[inline(always)]
    pub fn open(_start: NonNull<u8>, _bytes: usize) {}
    #[inline(always)]
    pub fn close(_start: NonNull<u8>, _from: usize, _to: usize) {}
}

pub use sanitizer::{close, open};
