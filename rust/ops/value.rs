//! One expression, two readings: a formula written over [`Value`] runs on the lanes of a kernel and over tensors.
//!
//! Invariant: both readings compute the same function, so a kernel's derivative and the recorded one cannot drift apart.

use super::{binary, unary};
use crate::Result;
use crate::array::Array;
use crate::autograd::Tensor;
use crate::kernels::math::{Math, power};
use crate::kernels::simd::Isa;
use std::marker::PhantomData;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// What formulas of unary ops are written in.
pub trait Value: Clone + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self> {
    /// A constant.
    fn c(x: f64) -> Self;
    fn exp(self) -> Self;
    fn expm1(self) -> Self;
    fn log(self) -> Self;
    fn log1p(self) -> Self;
    fn tanh(self) -> Self;
    fn sigmoid(self) -> Self;
    fn erf(self) -> Self;
    fn sin(self) -> Self;
    fn cos(self) -> Self;
    fn sqrt(self) -> Self;
    fn abs(self) -> Self;
    fn relu(self) -> Self;
    fn cube(self) -> Self;
    fn fourth(self) -> Self;
    fn pow(self, e: Self) -> Self;
    /// Held within −limit and limit.
    fn held(self, limit: Self) -> Self;
    /// -1, 0 or 1; its derivative is zero.
    fn sign(self) -> Self;
    /// 1 where the value is above zero, 0 elsewhere; its derivative is zero.
    fn step(self) -> Self;
}

/// An element inside a kernel stamped for the instruction set `I`.
pub struct Lane<T, I>(pub T, PhantomData<I>);

impl<T, I> Lane<T, I> {
    #[inline(always)]
    pub fn new(x: T) -> Self {
        Lane(x, PhantomData)
    }
}
impl<T: Copy, I> Clone for Lane<T, I> {
    #[inline(always)]
    fn clone(&self) -> Self {
        Lane::new(self.0)
    }
}

macro_rules! lane_operator {
    ($($trait:ident $f:ident),+) => {$(
        impl<T: Math, I: Isa> $trait for Lane<T, I> {
            type Output = Self;
            #[inline(always)]
            fn $f(self, other: Self) -> Self {
                Lane::new(self.0.$f(other.0))
            }
        }
        impl $trait for Formula {
            type Output = Self;
            fn $f(self, other: Self) -> Self {
                match (self, other) {
                    (Formula::Constant(a), Formula::Constant(b)) => Formula::Constant(a.$f(b)),
                    (a, b) => Formula::Tensor(Formula::paired(a, b).and_then(|(a, b)| binary::$f(&a, &b))),
                }
            }
        }
    )+};
}
lane_operator!(Add add, Sub sub, Mul mul, Div div);

impl<T: Math, I: Isa> Neg for Lane<T, I> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Lane::new(-self.0)
    }
}

impl<T: Math, I: Isa> Value for Lane<T, I> {
    #[inline(always)]
    fn c(x: f64) -> Self {
        Lane::new(T::from_f64(x))
    }
    #[inline(always)]
    fn exp(self) -> Self {
        Lane::new(self.0.exp_on::<I>())
    }
    #[inline(always)]
    fn expm1(self) -> Self {
        Lane::new(self.0.expm1_on::<I>())
    }
    #[inline(always)]
    fn log(self) -> Self {
        Lane::new(self.0.log_on::<I>())
    }
    #[inline(always)]
    fn log1p(self) -> Self {
        Lane::new(self.0.log1p_on::<I>())
    }
    #[inline(always)]
    fn tanh(self) -> Self {
        Lane::new(self.0.tanh_on::<I>())
    }
    #[inline(always)]
    fn sigmoid(self) -> Self {
        Lane::new(self.0.sigmoid_on::<I>())
    }
    #[inline(always)]
    fn erf(self) -> Self {
        Lane::new(self.0.erf_on::<I>())
    }
    #[inline(always)]
    fn sin(self) -> Self {
        Lane::new(self.0.sin_on::<I>())
    }
    #[inline(always)]
    fn cos(self) -> Self {
        Lane::new(self.0.cos_on::<I>())
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Lane::new(self.0.sqrt())
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Lane::new(self.0.abs())
    }
    #[inline(always)]
    fn relu(self) -> Self {
        Lane::new(self.0.relu())
    }
    #[inline(always)]
    fn cube(self) -> Self {
        Lane::new(power::cube::<T, I>(self.0))
    }
    #[inline(always)]
    fn fourth(self) -> Self {
        Lane::new(power::fourth::<T, I>(self.0))
    }
    #[inline(always)]
    fn pow(self, e: Self) -> Self {
        Lane::new(self.0.pow_on::<I>(e.0))
    }
    #[inline(always)]
    fn held(self, limit: Self) -> Self {
        // Written so that NaN stays NaN.
        let x = if self.0 > limit.0 { limit.0 } else { self.0 };
        Lane::new(if x < -limit.0 { -limit.0 } else { x })
    }
    #[inline(always)]
    fn sign(self) -> Self {
        let x = self.0;
        let sign = if x > T::ZERO {
            T::ONE
        } else if x < T::ZERO {
            -T::ONE
        } else {
            x
        };
        Lane::new(sign)
    }
    #[inline(always)]
    fn step(self) -> Self {
        Lane::new(if self.0 > T::ZERO { T::ONE } else { T::ZERO })
    }
}

/// A tensor expression; the first error ends it. Constants take the element type of what they meet.
#[derive(Clone)]
pub enum Formula {
    Constant(f64),
    Tensor(Result<Tensor>),
}

impl Formula {
    /// The value of the expression.
    pub fn tensor(self) -> Result<Tensor> {
        match self {
            Formula::Constant(c) => Ok(Tensor::constant(Array::scalar(c)?)),
            Formula::Tensor(t) => t,
        }
    }

    /// Both operands as tensors of one type.
    fn paired(a: Formula, b: Formula) -> Result<(Tensor, Tensor)> {
        match (a, b) {
            (Formula::Constant(c), b) => {
                let b = b.tensor()?;
                Ok((binary::constant(c, &b)?, b))
            }
            (a, Formula::Constant(c)) => {
                let a = a.tensor()?;
                let c = binary::constant(c, &a)?;
                Ok((a, c))
            }
            (a, b) => Ok((a.tensor()?, b.tensor()?)),
        }
    }
}

impl From<&Tensor> for Formula {
    fn from(x: &Tensor) -> Self {
        Formula::Tensor(Ok(x.clone()))
    }
}

impl Neg for Formula {
    type Output = Self;
    fn neg(self) -> Self {
        match self {
            Formula::Constant(c) => Formula::Constant(-c),
            Formula::Tensor(x) => Formula::Tensor(x.and_then(|x| unary::neg(&x))),
        }
    }
}

macro_rules! formula_functions {
    ($($f:ident),+) => {
        impl Value for Formula {
            fn c(x: f64) -> Self {
                Formula::Constant(x)
            }
            fn pow(self, e: Self) -> Self {
                Formula::Tensor(Formula::paired(self, e).and_then(|(x, e)| binary::pow(&x, &e)))
            }
            fn held(self, limit: Self) -> Self {
                let (low, high) = (-limit.clone(), limit);
                let above = Formula::paired(self, low).and_then(|(x, low)| binary::maximum(&x, &low));
                Formula::Tensor(Formula::paired(Formula::Tensor(above), high).and_then(|(x, high)| binary::minimum(&x, &high)))
            }
            $(fn $f(self) -> Self {
                Formula::Tensor(self.tensor().and_then(|x| unary::$f(&x)))
            })+
        }
    };
}
formula_functions!(exp, expm1, log, log1p, tanh, sigmoid, erf, sin, cos, sqrt, abs, relu, cube, fourth, sign, step);
