//! What is larger than caches. Results of element-wise kernels are written past them: a plain store first reads the line it writes
//! to, which is a third of what such a kernel moves. Sources are asked for ahead, as the processor itself stops at each page.
//! Kernels that come back to what they wrote ask for the lines of the result instead.
//!
//! Invariant: nobody reads what was written before [`fence`], which every kernel that calls [`put`] ends with.

#![cfg_attr(not(target_arch = "x86_64"), allow(unused))]

use super::simd::{Isa, Level};
use crate::array::Element;

/// Elements that are written at once: one cache line of float32.
pub const CHUNK: usize = 16;
/// Bytes of a result from which on it is written past the caches: what reads it next would hardly find it there.
const LARGE: usize = 32 << 20;
/// Bytes of a cache line.
pub const LINE: usize = 64;
/// How far ahead element-wise kernels and reductions ask for their sources, in elements of `T`: 2 KiB.
pub const fn ahead<T>() -> usize {
    2048 / size_of::<T>()
}

/// Whether a result is to be written past the caches.
pub fn is_for<T: Element>(y: &[T]) -> bool {
    cfg!(target_arch = "x86_64") && size_of::<T>() >= 4 && size_of_val(y) >= LARGE
}

/// Asks for the `len` elements that lie `ahead` elements after the first of `x`, whether they are there or not.
#[inline(always)]
pub fn ask<T: Element>(x: &[T], ahead: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..len).step_by(LINE / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing; any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().wrapping_add(ahead + at).cast()) }
    }
}

/// The same for what is to be written.
#[inline(always)]
pub fn claim<T: Element>(y: &[T], ahead: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..len).step_by(LINE / size_of::<T>()) {
        // SAFETY: a prefetch reads and writes nothing; any address will do. Processors without it take it for a no-op.
        unsafe { std::arch::asm!("prefetchw [{}]", in(reg) y.as_ptr().wrapping_add(ahead + at), options(nostack, preserves_flags)) }
    }
}

/// Writes a chunk, past the caches if `to` begins a line, as it does in whole results.
#[inline(always)]
pub fn put<I: Isa, T: Element>(to: &mut [T; CHUNK], value: &[T; CHUNK]) {
    #[cfg(target_arch = "x86_64")]
    if size_of::<T>() >= 4 && to.as_ptr().addr().is_multiple_of(LINE) {
        use std::arch::x86_64::{__m128i, __m512i, _mm_loadu_si128, _mm_stream_si128, _mm512_loadu_si512, _mm512_stream_si512};
        let (to, from) = (to.as_mut_ptr(), value.as_ptr());
        // SAFETY: both are whole lines, `to` begins one; an instance for AVX-512 runs where there is AVX-512.
        unsafe {
            if I::LEVEL as u8 == Level::Avx512 as u8 {
                for i in 0..size_of_val(value) / LINE {
                    _mm512_stream_si512(to.cast::<__m512i>().add(i), _mm512_loadu_si512(from.cast::<__m512i>().add(i)));
                }
            } else {
                for i in 0..size_of_val(value) / 16 {
                    _mm_stream_si128(to.cast::<__m128i>().add(i), _mm_loadu_si128(from.cast::<__m128i>().add(i)));
                }
            }
        }
        return;
    }
    *to = *value;
}

/// What was put is there for everybody from here on.
pub fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has it.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}
