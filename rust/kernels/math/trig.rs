//! Sine and cosine of float32 without a branch: one reduction serves arguments of every size.
//!
//! Invariant: x·2/π less whole turns is known to 82 bits from its leading one on, so no float32 lies too close to a multiple
//! of π/2. A branch for large arguments would keep loops scalar; a table lookup by exponent does not.

use super::super::simd::{Isa, Ring};
use super::polynomial;
use std::f64::consts::FRAC_PI_2;

/// The first 256 bits of 2/π.
const TWO_OVER_PI: [u32; 8] = [0xa2f9836e, 0x4e441529, 0xfc2757d1, 0xf534ddc0, 0xdb629599, 0x3c439041, 0xfe5163ab, 0xdebbc561];
/// 1.5·2^52: adding it rounds to an integer, which then stands in the low bits.
const ROUND: f64 = 6_755_399_441_055_744.0;
/// The series of (sin r − r)/r³ in r².
const SIN: [f32; 4] = [-1.0 / 6.0, 1.0 / 120.0, -1.0 / 5_040.0, 1.0 / 362_880.0];
/// The series of (cos r − 1)/r² in r².
const COS: [f32; 5] = [-1.0 / 2.0, 1.0 / 24.0, -1.0 / 720.0, 1.0 / 40_320.0, -1.0 / 3_628_800.0];

/// For each exponent field: 2ᴱ·2/π less whole turns in two parts, of 29 bits (so that 24 bits times it is exact) and of 53.
static TURNS: [[f64; 2]; 256] = {
    let mut table = [[f64::NAN; 2]; 256];
    let mut field = 0;
    while field < 255 {
        table[field] = turns(field as i32 - 127);
        field += 1;
    }
    table
};

const fn turns(exponent: i32) -> [f64; 2] {
    // Bit i of 2/π weighs 2^(exponent − i − 1). Times 24 bits down to 2⁻²³, those that weigh 2²⁵ or more give whole turns.
    let mut first = if exponent > 25 { exponent - 25 } else { 0 };
    while bit(first) == 0 {
        first += 1;
    }
    let (mut parts, mut i) = ([0.0; 2], 0);
    while i < 82 {
        let weight = f64::from_bits(((1023 + exponent - 1 - first - i) as u64) << 52);
        parts[(i >= 29) as usize] += weight * bit(first + i) as f64;
        i += 1;
    }
    parts
}

const fn bit(i: i32) -> u32 {
    TWO_OVER_PI[i as usize / 32] >> (31 - i % 32) & 1
}

/// (q, r) with |x| = (4k + q)·π/2 + r and |r| ≤ π/4; not for subnormals.
#[inline(always)]
fn reduced<I: Isa>(x: f32) -> (u32, f32) {
    let bits = x.to_bits();
    let [high, low] = TURNS[(bits >> 23 & 255) as usize];
    let m = f32::from_bits(bits & 0x7F_FFFF | 0x3F80_0000) as f64;
    let product = m * high;
    let shifted = m.mul_add_on::<I>(low, product) + ROUND;
    let rest = m.mul_add_on::<I>(low, product - (shifted - ROUND));
    (shifted.to_bits() as u32, (rest * FRAC_PI_2) as f32)
}

/// sin(q·π/2 + r).
#[inline(always)]
fn quadrant<I: Isa>(q: u32, r: f32) -> f32 {
    let z = r * r;
    let sin = (r * z).mul_add_on::<I>(polynomial::<f32, I>(z, &SIN), r);
    let cos = z.mul_add_on::<I>(polynomial::<f32, I>(z, &COS), 1.0);
    let y = if q & 1 == 0 { sin } else { cos };
    f32::from_bits(y.to_bits() ^ (q & 2) << 30)
}

#[inline(always)]
pub fn sin<I: Isa>(x: f32) -> f32 {
    let (q, r) = reduced::<I>(x);
    let y = f32::from_bits(quadrant::<I>(q, r).to_bits() ^ x.to_bits() & 1 << 31);
    // The sine of anything smaller rounds to its argument.
    if x.abs() < 2e-4 { x } else { y }
}

#[inline(always)]
pub fn cos<I: Isa>(x: f32) -> f32 {
    let (q, r) = reduced::<I>(x);
    quadrant::<I>(q.wrapping_add(1), r)
}
