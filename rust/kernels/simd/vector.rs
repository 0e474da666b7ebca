//! Vectors as values, for kernels that must hold two dozen of them in registers: loops over slices leave that to the compiler's
//! luck.
//!
//! Invariant: a vector of an instruction set is touched only inside an instance stamped for it (see [`super`]).

use super::Float;

/// A register of elements.
///
/// # Safety
/// Of all methods: the CPU must have the instruction set the vector belongs to.
pub trait Vector<T>: Copy {
    const LANES: usize;
    /// # Safety
    /// `from` must be valid for reads of `LANES` elements.
    unsafe fn load(from: *const T) -> Self;
    /// # Safety
    /// `to` must be valid for writes of `LANES` elements.
    unsafe fn store(self, to: *mut T);
    /// # Safety
    /// See the trait.
    unsafe fn splat(x: T) -> Self;
    /// # Safety
    /// See the trait.
    unsafe fn add(self, other: Self) -> Self;
    /// `self * b + c`.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
}

/// What every CPU of the target has: few enough lanes that the compiler makes one register of them.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub struct Lanes<T, const N: usize>([T; N]);

// SAFETY (of the methods below): plain loads and stores of `N` elements, which the caller vouches for.
impl<T: Float, const N: usize> Vector<T> for Lanes<T, N> {
    const LANES: usize = N;
    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: the caller vouches for `N` elements; arrays of them need no more alignment than one.
        unsafe { Lanes(*from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: as in `load`.
        unsafe { *to.cast() = self.0 }
    }
    // SAFETY: nothing unsafe is in it.
    #[inline(always)]
    unsafe fn splat(x: T) -> Self {
        Lanes([x; N])
    }
    // SAFETY: nothing unsafe is in it.
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        let mut sum = self;
        for i in 0..N {
            sum.0[i] += other.0[i];
        }
        sum
    }
    // SAFETY: nothing unsafe is in it.
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        let mut sum = c;
        for i in 0..N {
            sum.0[i] = self.0[i].mul_add_on::<super::Baseline>(b.0[i], c.0[i]);
        }
        sum
    }
}

/// Transposes a block of 4 rows and 4 columns.
pub trait Turn: Copy {
    fn turn(rows: [&[Self; 4]; 4]) -> [[Self; 4]; 4];
}

#[cfg(not(target_arch = "x86_64"))]
impl<T: Float> Turn for T {
    #[inline(always)]
    fn turn([a, b, c, d]: [&[T; 4]; 4]) -> [[T; 4]; 4] {
        [[a[0], b[0], c[0], d[0]], [a[1], b[1], c[1], d[1]], [a[2], b[2], c[2], d[2]], [a[3], b[3], c[3], d[3]]]
    }
}

/// Asks for the cache line at `x` ahead of its use.
#[inline(always)]
pub fn prefetch<T>(x: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instruction, and it is a hint about an address that a reference holds.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(x).cast());
    }
    let _ = x;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Turn, Vector};
    use std::arch::x86_64::*;

    impl Turn for f32 {
        #[inline(always)]
        fn turn([a, b, c, d]: [&[f32; 4]; 4]) -> [[f32; 4]; 4] {
            // SAFETY: every x86-64 has SSE2; each pointer is that of an array of 4, and vectors of 4 are arrays of 4 in memory.
            unsafe {
                let (a, b, c, d) = (_mm_loadu_ps(a.as_ptr()), _mm_loadu_ps(b.as_ptr()), _mm_loadu_ps(c.as_ptr()), _mm_loadu_ps(d.as_ptr()));
                let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
                let (ab2, cd2) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
                std::mem::transmute([_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab), _mm_movelh_ps(ab2, cd2), _mm_movehl_ps(cd2, ab2)])
            }
        }
    }

    impl Turn for f64 {
        #[inline(always)]
        fn turn(rows: [&[f64; 4]; 4]) -> [[f64; 4]; 4] {
            // SAFETY: as above, for halves of the arrays.
            unsafe {
                let half = |i: usize, j: usize| _mm_loadu_pd(rows[i].as_ptr().add(j));
                let turned = |j: usize| {
                    let (a, b, c, d) = (half(0, j), half(1, j), half(2, j), half(3, j));
                    [_mm_unpacklo_pd(a, b), _mm_unpacklo_pd(c, d), _mm_unpackhi_pd(a, b), _mm_unpackhi_pd(c, d)]
                };
                std::mem::transmute([turned(0), turned(2)])
            }
        }
    }

    macro_rules! vector {
        ($v:ident of $t:ident x $lanes:literal: $load:ident $store:ident $splat:ident $add:ident $fma:ident) => {
            // SAFETY (of the methods below): the caller vouches for pointers and instruction set.
            impl Vector<$t> for $v {
                const LANES: usize = $lanes;
                #[inline(always)]
                unsafe fn load(from: *const $t) -> Self {
                    // SAFETY: the caller's promise, word for word what the instruction needs.
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut $t) {
                    // SAFETY: as above.
                    unsafe { $store(to, self) }
                }
                #[inline(always)]
                unsafe fn splat(x: $t) -> Self {
                    // SAFETY: as above.
                    unsafe { $splat(x) }
                }
                #[inline(always)]
                unsafe fn add(self, other: Self) -> Self {
                    // SAFETY: as above.
                    unsafe { $add(self, other) }
                }
                #[inline(always)]
                unsafe fn mul_add(self, b: Self, c: Self) -> Self {
                    // SAFETY: as above.
                    unsafe { $fma(self, b, c) }
                }
            }
        };
    }
    vector!(__m256 of f32 x 8: _mm256_loadu_ps _mm256_storeu_ps _mm256_set1_ps _mm256_add_ps _mm256_fmadd_ps);
    vector!(__m256d of f64 x 4: _mm256_loadu_pd _mm256_storeu_pd _mm256_set1_pd _mm256_add_pd _mm256_fmadd_pd);
    vector!(__m512 of f32 x 16: _mm512_loadu_ps _mm512_storeu_ps _mm512_set1_ps _mm512_add_ps _mm512_fmadd_ps);
    vector!(__m512d of f64 x 8: _mm512_loadu_pd _mm512_storeu_pd _mm512_set1_pd _mm512_add_pd _mm512_fmadd_pd);
}
