//! Arithmetic on slices and arrays. No gradients live here.

pub mod arith;
pub mod columns;
mod copies;
pub mod finite;
pub mod fork;
pub mod gemm;
pub mod index;
pub mod interrupt;
pub mod join;
mod loops;
pub mod map;
pub mod math;
pub mod parallel;
pub mod parts;
pub mod plan;
pub mod random;
pub mod recurrence;
pub mod reduce;
pub mod rows;
pub mod simd;
pub(crate) mod stream;
pub mod turn;
mod workers;
