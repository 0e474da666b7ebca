//! Products by fewer columns than a register has lanes, where there is AVX-512: columns that are not there are masked out, so that b and c
//! are read and written where they lie.
//!
//! Invariant: every element is one chain of multiply-adds over the inner dimension of the call, added to c at the end.

#[cfg(target_arch = "x86_64")]
use super::{Matrix, direct::Target};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// A register of elements.
#[cfg(not(target_arch = "x86_64"))]
pub trait Lanes {}

/// A register of elements.
#[cfg(target_arch = "x86_64")]
pub trait Lanes: Copy {
    type Lanes: Copy;
    /// The first `count` elements from `from` on, and zeros.
    ///
    /// # Safety
    /// The processor must have AVX-512; `count` must be one at least and no more than there are lanes, and so many elements be there.
    unsafe fn load(from: *const Self, count: usize) -> Self::Lanes;
    /// Writes the first `count` elements.
    ///
    /// # Safety
    /// As for `load`.
    unsafe fn store(lanes: __m512i, to: *mut Self, count: usize);
    /// # Safety
    /// The processor must have AVX-512.
    unsafe fn bits(lanes: Self::Lanes) -> __m512i;
    /// # Safety
    /// The processor must have AVX-512.
    unsafe fn plus(x: Self::Lanes, y: Self::Lanes) -> Self::Lanes;
    /// `x y + sum`.
    ///
    /// # Safety
    /// The processor must have AVX-512.
    unsafe fn times_on(x: Self, y: Self::Lanes, sum: Self::Lanes) -> Self::Lanes;
}

macro_rules! lanes {
    ($t:ident, $lanes:ident, $mask:ident, $load:ident, $store:ident, $bits:expr, $plus:ident, |$x:ident, $y:ident, $sum:ident| $times:expr) => {
        #[cfg(target_arch = "x86_64")]
        impl Lanes for $t {
            type Lanes = $lanes;
            // SAFETY: what the trait asks for.
            #[inline]
            #[target_feature(enable = "avx512f,avx512dq")]
            unsafe fn load(from: *const $t, count: usize) -> $lanes {
                // SAFETY: the mask leaves out what is not there.
                unsafe { $load($mask::MAX >> ($mask::BITS as usize - count), from) }
            }
            // SAFETY: what the trait asks for.
            #[inline]
            #[target_feature(enable = "avx512f,avx512dq")]
            unsafe fn store(lanes: __m512i, to: *mut $t, count: usize) {
                // SAFETY: the mask leaves out what is not there.
                unsafe { $store(to.cast(), $mask::MAX >> ($mask::BITS as usize - count), lanes) }
            }
            // SAFETY: what the trait asks for.
            #[inline]
            #[target_feature(enable = "avx512f,avx512dq")]
            unsafe fn bits(lanes: $lanes) -> __m512i {
                $bits(lanes)
            }
            // SAFETY: what the trait asks for.
            #[inline]
            #[target_feature(enable = "avx512f,avx512dq")]
            unsafe fn plus(x: $lanes, y: $lanes) -> $lanes {
                $plus(x, y)
            }
            // SAFETY: what the trait asks for.
            #[inline]
            #[target_feature(enable = "avx512f,avx512dq")]
            unsafe fn times_on($x: $t, $y: $lanes, $sum: $lanes) -> $lanes {
                $times
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        impl Lanes for $t {}
    };
}
lanes!(f32, __m512, u16, _mm512_maskz_loadu_ps, _mm512_mask_storeu_epi32, _mm512_castps_si512, _mm512_add_ps, |x, y, sum| _mm512_fmadd_ps(
    _mm512_set1_ps(x),
    y,
    sum
));
lanes!(f64, __m512d, u8, _mm512_maskz_loadu_pd, _mm512_mask_storeu_epi64, _mm512_castpd_si512, _mm512_add_pd, |x, y, sum| _mm512_fmadd_pd(
    _mm512_set1_pd(x),
    y,
    sum
));
lanes!(i64, __m512i, u8, _mm512_maskz_loadu_epi64, _mm512_mask_storeu_epi64, std::convert::identity, _mm512_add_epi64, |x, y, sum| {
    _mm512_add_epi64(_mm512_mullo_epi64(_mm512_set1_epi64(x), y), sum)
});

/// Rows of a tile while there are many, and how many the last, or two, share at most: the more, the less their sums wait for each other.
#[cfg(target_arch = "x86_64")]
const MOST: usize = 8;
#[cfg(target_arch = "x86_64")]
const MOST_LAST: usize = 12;

/// `R` rows of a, from row `i` on. With `SPILLS`, up to as many elements again may be written behind each row.
///
/// # Safety
/// As for [`product`]; the rows, and what is written behind them, must exist.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
#[allow(clippy::needless_range_loop)] // loops by index are unrolled
#[cfg(target_arch = "x86_64")]
unsafe fn tile<T: Lanes, const R: usize, const SPILLS: bool>(c: &Target<T>, a: &Matrix<T>, b: &Matrix<T>, i: usize, first: usize) {
    let (c, rows, count) = (c.from(i, first), a.row_stride, b.cols - first);
    // SAFETY: registers of zero bits are zeros; the caller vouches for rows and columns.
    unsafe {
        let mut sums = [std::mem::zeroed::<T::Lanes>(); R];
        let (mut x, mut y) = (a.data.as_ptr().add(a.at(i, 0)), b.data.as_ptr().add(b.at(0, first)));
        for _ in 0..a.cols {
            let columns = T::load(y, count);
            for r in 0..R {
                sums[r] = T::times_on(*x.offset(r as isize * rows), columns, sums[r]);
            }
            (x, y) = (x.wrapping_offset(a.col_stride), y.wrapping_offset(b.row_stride));
        }
        if let Some(onto) = c.onto {
            for r in 0..R {
                sums[r] = T::plus(T::load(onto.start.wrapping_offset(r as isize * onto.stride), count), sums[r]);
            }
        }
        macro_rules! each {
            (|$sum:ident, $to:ident| $store:expr) => {
                for r in 0..R {
                    let ($sum, $to) = (T::bits(sums[r]), c.start.wrapping_offset(r as isize * c.stride));
                    $store;
                }
            };
        }
        match count * size_of::<T>() {
            bytes if !SPILLS && !bytes.is_power_of_two() => each!(|sum, to| T::store(sum, to, count)),
            33.. => each!(|sum, to| _mm512_storeu_si512(to.cast(), sum)),
            17.. => each!(|sum, to| _mm256_storeu_si256(to.cast(), _mm512_castsi512_si256(sum))),
            9.. => each!(|sum, to| _mm_storeu_si128(to.cast(), _mm512_castsi512_si128(sum))),
            5.. => each!(|sum, to| _mm_storel_epi64(to.cast(), _mm512_castsi512_si128(sum))),
            _ => each!(|sum, to| *to.cast::<i32>() = _mm_cvtsi128_si32(_mm512_castsi512_si128(sum))),
        }
    }
}

/// The last rows. A function for each number of them, so that little is worked out ahead for a single tile.
///
/// # Safety
/// As for [`tile`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq")]
#[cfg(target_arch = "x86_64")]
unsafe fn last<T: Lanes, const R: usize>(c: &Target<T>, a: &Matrix<T>, b: &Matrix<T>, i: usize, first: usize) {
    // SAFETY: the caller vouches for it.
    unsafe { tile::<T, R, false>(c, a, b, i, first) }
}

/// Whole tiles from the first row on, of which there are more; returns where they end, before the last rows.
///
/// # Safety
/// As for [`tile`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq")]
#[cfg(target_arch = "x86_64")]
unsafe fn many<T: Lanes, const SPILLS: bool>(c: &Target<T>, a: &Matrix<T>, b: &Matrix<T>, first: usize) -> usize {
    let mut i = 0;
    while a.rows - i > MOST_LAST {
        // SAFETY: rows are counted, and more follow; the caller vouches for the rest.
        unsafe { tile::<T, MOST, SPILLS>(c, a, b, i, first) }
        i += MOST;
    }
    i
}

/// `c = a·b`, or onto what is said, from column `first` on.
///
/// # Safety
/// The processor must have AVX-512; columns of b lie side by side, and from the first on there are no more than a register has lanes; `c`
/// must be valid for reads and writes at every element of its rows; `a` and `b` must have passed `check`.
#[target_feature(enable = "avx512f,avx512dq")]
#[cfg(target_arch = "x86_64")]
pub unsafe fn product<T: Lanes>(c: &Target<T>, a: &Matrix<T>, b: &Matrix<T>, first: usize) {
    // SAFETY: rows are counted; the caller vouches for the rest.
    unsafe {
        macro_rules! last {
            ($i:expr, $rows:literal) => {{
                last::<T, $rows>(c, a, b, $i, first);
                $rows
            }};
        }
        // What lies behind a row is the next, which is written later. A mask would cost more than to write twice.
        let spills = first == 0 && c.stride == b.cols as isize && c.onto.is_none_or(|onto| onto.stride == 0);
        let mut i = match a.rows > MOST_LAST {
            true if spills => many::<T, true>(c, a, b, first),
            true => many::<T, false>(c, a, b, first),
            false => 0,
        };
        while i < a.rows {
            i += match a.rows - i {
                1 => last!(i, 1),
                2 => last!(i, 2),
                3 => last!(i, 3),
                4 => last!(i, 4),
                5 | 9 => last!(i, 5),
                6 | 11 | MOST_LAST.. => last!(i, 6),
                7 => last!(i, 7),
                8 => last!(i, 8),
                10 => last!(i, 10),
                0 => unreachable!("rows are left"),
            };
        }
    }
}
