//! What the benchmarks share: float32 tensors of fixed pseudo-random numbers.

use treadle::Tensor;

/// Uniform in −1..1, the same every time.
pub fn random(shape: &[usize], seed: u32) -> Tensor {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_slice(shape, &values).expect("fits memory")
}
