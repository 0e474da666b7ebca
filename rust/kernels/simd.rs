//! SIMD by stamping: a plain loop is compiled once per instruction set and chosen once, at run time.
//!
//! Invariant: an instance compiled for an instruction set runs only after the CPU said it has it.
//! Sums use a fixed number of lanes ([`LANES`], or a kernel's own) so that the vector width never decides the order of summation.

use crate::array::Element;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};
use std::sync::atomic::{AtomicU8, Ordering};

/// Independent accumulators of a sum, whatever the instruction set. Kernels whose sums have other needs name a number of their own.
pub const LANES: usize = 32;

/// An instruction set a kernel can be stamped for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// What every CPU of the target has: SSE2 on x86-64, NEON on aarch64.
    Baseline = 1,
    Avx2 = 2,
    Avx512 = 3,
    /// AVX-512, and a matrix unit for products of bfloat16.
    Amx = 4,
}

impl Level {
    pub const fn name(self) -> &'static str {
        match self {
            Level::Baseline if cfg!(target_arch = "aarch64") => "neon",
            Level::Baseline => "baseline",
            Level::Avx2 => "avx2+fma",
            Level::Avx512 => "avx512",
            Level::Amx => "avx512+amx",
        }
    }
}

/// Compile-time facts about the instruction set a kernel body is stamped for.
pub trait Isa: Copy + 'static {
    const LEVEL: Level;
    /// Whether `a * b + c` is one instruction. Without it `mul_add` would be a library call.
    const FMA: bool;
    /// How many vectors stay at hand at once.
    const REGISTERS: usize;
    /// Whether formulas of more elements are wanted where they take longer than those of most.
    const FAR: bool = false;
}
#[derive(Clone, Copy)]
pub struct Baseline;
/// One element at a time, without fused multiply-adds, whatever the processor: for what loops leave out.
#[derive(Clone, Copy)]
pub struct Plain;
/// An instruction set for elements that are rare.
#[derive(Clone, Copy)]
pub struct Far<I>(I);
#[derive(Clone, Copy)]
pub struct Avx2;
#[derive(Clone, Copy)]
pub struct Avx512;
impl Isa for Baseline {
    const LEVEL: Level = Level::Baseline;
    const FMA: bool = cfg!(target_arch = "aarch64");
    const REGISTERS: usize = if cfg!(target_arch = "aarch64") { 32 } else { 16 };
}
impl Isa for Plain {
    const LEVEL: Level = Level::Baseline;
    const FMA: bool = false;
    const REGISTERS: usize = 16;
}
impl<I: Isa> Isa for Far<I> {
    const LEVEL: Level = I::LEVEL;
    const FMA: bool = I::FMA;
    const REGISTERS: usize = I::REGISTERS;
    const FAR: bool = true;
}
impl Isa for Avx2 {
    const LEVEL: Level = Level::Avx2;
    const FMA: bool = true;
    const REGISTERS: usize = 16;
}
impl Isa for Avx512 {
    const LEVEL: Level = Level::Avx512;
    const FMA: bool = true;
    const REGISTERS: usize = 32;
}

static LEVEL: AtomicU8 = AtomicU8::new(0);

fn detect() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw");
        if avx2 && avx512 {
            return if has_amx() { Level::Amx } else { Level::Avx512 };
        }
        if avx2 {
            return Level::Avx2;
        }
    }
    Level::Baseline
}

/// Whether the processor has tiles and multiplies bfloat16 by them, and the system lets this process use them, which has to be asked for.
#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
    let processor = std::arch::x86_64::__cpuid_count(7, 0).edx & BF16_AND_TILES == BF16_AND_TILES;
    #[cfg(target_os = "linux")]
    {
        const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
        const TILE_DATA: libc::c_ulong = 18;
        // SAFETY: what the call takes; it changes nothing but which registers may be used.
        processor && unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) } == 0
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = processor;
        false
    }
}

/// The instruction set in use.
#[inline]
pub fn level() -> Level {
    match LEVEL.load(Ordering::Relaxed) {
        4 => Level::Amx,
        3 => Level::Avx512,
        2 => Level::Avx2,
        1 => Level::Baseline,
        _ => {
            let found = detect();
            LEVEL.store(found as u8, Ordering::Relaxed);
            found
        }
    }
}

/// Lowers the instruction set, for tests that compare instances. Returns what is in use afterwards:
/// never more than the CPU has.
pub fn limit_level(wanted: Level) -> Level {
    let given = wanted.min(detect());
    LEVEL.store(given as u8, Ordering::Relaxed);
    given
}

/// Put into a loop over windows of lanes, keeps the compiler from vectorising over windows, with gathers, rather than over
/// lanes: 20 times slower.
#[inline(always)]
pub fn lanes_only() {
    // SAFETY: there is no instruction in it.
    unsafe { std::arch::asm!("", options(nomem, nostack, preserves_flags)) }
}

/// Stamps a function into one instance per instruction set. Inside the body the type `I` is the [`Isa`].
///
/// The body must be a plain loop over slices whose callees are `#[inline(always)]`.
#[macro_export]
macro_rules! simd {
    ($($(#[$m:meta])* $vis:vis fn $name:ident $(<$($g:ident : $b:path),+ $(,)?>)? ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)+) => {$(
        $(#[$m])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$($g: $b),+>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(unused_mut)]
            fn body<I: $crate::kernels::simd::Isa $(, $($g: $b),+)?>($(mut $arg: $ty),*) $(-> $ret)? {
                let _ = ::std::marker::PhantomData::<I>;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
            fn avx512 $(<$($g: $b),+>)? ($($arg: $ty),*) $(-> $ret)? {
                body::<$crate::kernels::simd::Avx512 $(, $($g),+)?>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2 $(<$($g: $b),+>)? ($($arg: $ty),*) $(-> $ret)? {
                body::<$crate::kernels::simd::Avx2 $(, $($g),+)?>($($arg),*)
            }
            match $crate::kernels::simd::level() {
                // SAFETY: `level()` answers Amx, Avx512 or Avx2 only after `detect` saw those features on this CPU.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::simd::Level::Amx | $crate::kernels::simd::Level::Avx512 => unsafe { avx512 $(::<$($g),+>)? ($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::simd::Level::Avx2 => unsafe { avx2 $(::<$($g),+>)? ($($arg),*) },
                _ => body::<$crate::kernels::simd::Baseline $(, $($g),+)?>($($arg),*),
            }
        }
    )+};
}

/// What matrix products are sums of: float32, float64, and int64, which wraps around.
pub trait Ring: Element {
    const ZERO: Self;
    fn plus(self, other: Self) -> Self;
    /// `self * b + c`: fused where the instruction set has it, two roundings elsewhere.
    fn mul_add_on<I: Isa>(self, b: Self, c: Self) -> Self;
    /// max(self, 0), written so that NaN stays NaN.
    #[inline(always)]
    fn relu(self) -> Self {
        if self < Self::ZERO { Self::ZERO } else { self }
    }
}
impl Ring for i64 {
    const ZERO: Self = 0;
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
    #[inline(always)]
    fn mul_add_on<I: Isa>(self, b: Self, c: Self) -> Self {
        self.wrapping_mul(b).wrapping_add(c)
    }
}

/// float32 or float64.
pub trait Float:
    Ring
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + std::iter::Sum
{
    const INFINITY: Self;
    /// The smallest number above zero that is not subnormal.
    const SMALLEST: Self;
    fn sqrt(self) -> Self;
    fn abs(self) -> Self;
    fn is_finite(self) -> bool;
    fn is_nan(self) -> bool;
}

macro_rules! float {
    ($t:ident) => {
        impl Ring for $t {
            const ZERO: Self = 0.0;
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self + other
            }
            #[inline(always)]
            fn mul_add_on<I: Isa>(self, b: Self, c: Self) -> Self {
                if I::FMA { self.mul_add(b, c) } else { self * b + c }
            }
        }
        impl Float for $t {
            const INFINITY: Self = $t::INFINITY;
            const SMALLEST: Self = $t::MIN_POSITIVE;
            #[inline(always)]
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                $t::abs(self)
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                $t::is_finite(self)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                $t::is_nan(self)
            }
        }
    };
}
float!(f32);
float!(f64);
