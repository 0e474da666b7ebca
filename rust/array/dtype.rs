//! Element types and NumPy 2 promotion.
//!
//! Invariant: `DType` and the Rust type of a buffer's elements always agree; `Element::DTYPE` is the only bridge.

use std::fmt::{self, Debug};

/// The element type of an array.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum DType {
    F32,
    F64,
    I64,
    U8,
    Bool,
}

impl DType {
    pub const ALL: [DType; 5] = [DType::F32, DType::F64, DType::I64, DType::U8, DType::Bool];

    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F64 | DType::I64 => 8,
            DType::U8 | DType::Bool => 1,
        }
    }

    /// NumPy's name: `float32`, `float64`, `int64`, `uint8`, `bool`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "float32",
            DType::F64 => "float64",
            DType::I64 => "int64",
            DType::U8 => "uint8",
            DType::Bool => "bool",
        }
    }

    pub fn from_name(name: &str) -> Option<DType> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }

    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64)
    }

    /// NumPy 2 promotion of two array types.
    pub fn promote(self, other: DType) -> DType {
        use DType::*;
        match (self, other) {
            (a, b) if a == b => a,
            (Bool, x) | (x, Bool) => x,
            (F64, _) | (_, F64) => F64,
            (F32, I64) | (I64, F32) => F64,
            (F32, _) | (_, F32) => F32,
            _ => I64,
        }
    }

    /// NumPy 2 promotion with a Python scalar, which is weak: it only changes the kind, never the width.
    pub fn promote_weak(self, scalar: Scalar) -> DType {
        match scalar {
            Scalar::Bool(_) => self,
            Scalar::Int(_) if self == DType::Bool => DType::I64,
            Scalar::Int(_) => self,
            Scalar::Float(_) if self.is_float() => self,
            Scalar::Float(_) => DType::F64,
        }
    }

    /// Whether a number can become one of this type: for integers it has to be in range, and its fraction is cut off.
    pub fn holds(self, x: Scalar) -> bool {
        let (low, high) = match self {
            DType::I64 => (i64::MIN, i64::MAX),
            DType::U8 => (0, 255),
            DType::F32 | DType::F64 | DType::Bool => return true,
        };
        let cut = if let Scalar::Float(x) = x { Scalar::Float(x.trunc()) } else { x };
        cut.whole().is_some_and(|i| (low..=high).contains(&i))
    }

    /// The type a transcendental function returns: floats keep theirs, everything else becomes float64
    /// (float32 for uint8 and bool, which it holds exactly).
    pub fn to_float(self) -> DType {
        match self {
            DType::F32 | DType::F64 => self,
            DType::I64 => DType::F64,
            DType::U8 | DType::Bool => DType::F32,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Python scalar: it has a kind but no width.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
}

impl Scalar {
    pub fn as_f64(self) -> f64 {
        match self {
            Scalar::Bool(b) => b as u8 as f64,
            Scalar::Int(i) => i as f64,
            Scalar::Float(x) => x,
        }
    }

    /// The integer it is, if it is one that fits int64.
    pub fn whole(self) -> Option<i64> {
        const END: f64 = i64::MAX as f64;
        match self {
            Scalar::Bool(b) => Some(b as i64),
            Scalar::Int(i) => Some(i),
            Scalar::Float(x) => (x.trunc() == x && (-END..END).contains(&x)).then_some(x as i64),
        }
    }
}

impl From<f64> for Scalar {
    fn from(x: f64) -> Self {
        Scalar::Float(x)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for i64 {}
    impl Sealed for u8 {}
    impl Sealed for bool {}
}

/// A Rust type that can be the element of an array. Sealed: its bit patterns are what storage may hold.
pub trait Element: sealed::Sealed + Copy + Send + Sync + PartialEq + PartialOrd + Default + Debug + 'static {
    const DTYPE: DType;
    const ONE: Self;
    fn from_f32(x: f32) -> Self;
    fn from_f64(x: f64) -> Self;
    fn from_i64(x: i64) -> Self;
    fn from_u8(x: u8) -> Self;
    /// The same value as another type, rounded once. Floats are held at the ends of an integer's range, integers wrap around.
    fn to<R: Element>(self) -> R;

    #[inline(always)]
    fn to_f64(self) -> f64 {
        self.to()
    }
    #[inline(always)]
    fn to_i64(self) -> i64 {
        self.to()
    }

    fn from_scalar(s: Scalar) -> Self {
        match s {
            Scalar::Bool(b) => Self::from_i64(b as i64),
            Scalar::Int(i) => Self::from_i64(i),
            Scalar::Float(x) => Self::from_f64(x),
        }
    }

    fn to_scalar(self) -> Scalar {
        match Self::DTYPE {
            DType::Bool => Scalar::Bool(self.to_i64() != 0),
            DType::I64 | DType::U8 => Scalar::Int(self.to_i64()),
            _ => Scalar::Float(self.to_f64()),
        }
    }
}

/// A float as an integer: what `as` gives, which the compiler takes one by one, in a form that loops turn into vector code.
macro_rules! truncated {
    ($x:ident: $from:ident as $to:ident) => {{
        const LOW: $from = $to::MIN as $from;
        const END: $from = $to::MAX as $from + 1.0;
        let held = if $x > LOW { $x } else { LOW };
        let beyond = held >= END;
        let held = if beyond { LOW } else { held };
        // SAFETY: `held` is a number from LOW on and below END, so the type has its integer part.
        let whole = unsafe { held.to_int_unchecked::<$to>() };
        let whole = if beyond { $to::MAX } else { whole };
        if $x.is_nan() { 0 } else { whole }
    }};
}

/// An element type: its values of a float32, a float64, an int64 and a uint8, and which of these its own values become others from.
macro_rules! element {
    ($t:ty, $d:ident, one $one:expr, |$x:ident| [$f32:expr, $f64:expr, $i64:expr, $u8:expr], to $to:ident($own:expr)) => {
        impl Element for $t {
            const DTYPE: DType = DType::$d;
            const ONE: Self = $one;
            #[inline(always)]
            fn from_f32($x: f32) -> Self {
                $f32
            }
            #[inline(always)]
            fn from_f64($x: f64) -> Self {
                $f64
            }
            #[inline(always)]
            fn from_i64($x: i64) -> Self {
                $i64
            }
            #[inline(always)]
            fn from_u8($x: u8) -> Self {
                $u8
            }
            #[inline(always)]
            fn to<R: Element>(self) -> R {
                let $x = self;
                R::$to($own)
            }
        }
    };
}
element!(f32, F32, one 1.0, |x| [x, x as f32, x as f32, x as f32], to from_f32(x));
element!(f64, F64, one 1.0, |x| [x as f64, x, x as f64, x as f64], to from_f64(x));
element!(i64, I64, one 1, |x| [truncated!(x: f32 as i64), truncated!(x: f64 as i64), x, x as i64], to from_i64(x));
element!(u8, U8, one 1, |x| [truncated!(x: f32 as u8), truncated!(x: f64 as u8), x as u8, x], to from_u8(x));
element!(bool, Bool, one true, |x| [x != 0.0, x != 0.0, x != 0, x != 0], to from_u8(x as u8));

/// Runs `$body` with `$T` bound to the Rust type of a dtype. One generic body, no copies of code per type.
#[macro_export]
macro_rules! with_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::array::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::array::DType::F64 => {
                type $T = f64;
                $body
            }
            $crate::array::DType::I64 => {
                type $T = i64;
                $body
            }
            $crate::array::DType::U8 => {
                type $T = u8;
                $body
            }
            $crate::array::DType::Bool => {
                type $T = bool;
                $body
            }
        }
    };
}

/// Like [`with_dtype!`] for float32 and float64; `$other` answers for the rest.
#[macro_export]
macro_rules! with_float {
    ($dtype:expr, $T:ident => $body:expr, else $other:expr) => {
        match $dtype {
            $crate::array::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::array::DType::F64 => {
                type $T = f64;
                $body
            }
            _ => $other,
        }
    };
}
