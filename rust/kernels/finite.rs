//! Whether every number is finite.

use super::simd::Float;
use crate::simd;

/// Numbers looked at between two decisions to go on.
const SPAN: usize = 1 << 12;

simd! {
    /// Whether `x` holds neither infinities nor NaNs.
    pub fn all_finite<T: Float>(x: &[T]) -> bool {
        for part in x.chunks(SPAN) {
            let mut finite = true;
            for x in part {
                finite &= x.is_finite();
            }
            if !finite {
                return false;
            }
        }
        true
    }
}
