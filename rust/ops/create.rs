//! Tensors made of numbers alone: evenly spaced ones, and the identity matrix.

use crate::array::{DType, Dims, Element, Scalar};
use crate::autograd::Tensor;
use crate::kernels::map;
use crate::{Result, bail, with_dtype};

/// Numbers from `start` to before `stop`, `step` apart; whole ones are counted and made exactly.
pub fn arange(start: Scalar, stop: Scalar, step: Scalar, dtype: DType) -> Result<Tensor> {
    let shape = Dims::new(&[arange_count(start, stop, step)?])?;
    let values = match (start.whole(), step.whole()) {
        (Some(a), Some(d)) if stop.whole().is_some() => map::from_index(shape, |i| a.wrapping_add(d.wrapping_mul(i as i64)))?,
        _ => map::from_index(shape, |i| start.as_f64() + i as f64 * step.as_f64())?,
    };
    Ok(Tensor::constant(map::cast(&values, dtype)?))
}

/// How many numbers [`arange`] makes.
pub fn arange_count(start: Scalar, stop: Scalar, step: Scalar) -> Result<usize> {
    let [from, to, by] = [start, stop, step].map(Scalar::as_f64);
    if by == 0.0 || !(from.is_finite() && to.is_finite() && by.is_finite()) {
        bail!(Value, "arange: expected finite bounds and a step other than 0, got ({from}, {to}, {by})");
    }
    let count = match (start.whole(), stop.whole(), step.whole()) {
        (Some(a), Some(b), Some(d)) => {
            let [a, b, d] = [a, b, d].map(i128::from);
            ((b - a + d - d.signum()) / d).max(0) as f64
        }
        _ => ((to - from) / by).ceil().max(0.0),
    };
    if count > 1e15 {
        bail!(Memory, "arange: expected a count that fits memory, got {count}");
    }
    Ok(count as usize)
}

/// Ones on the diagonal of an (n, m) matrix of zeros.
pub fn eye(n: usize, m: usize, dtype: DType) -> Result<Tensor> {
    let shape = Dims::new(&[n, m])?;
    with_dtype!(dtype, T => {
        let mut out = map::from_index(shape, |_| T::default())?;
        let y = out.fresh::<T>();
        (0..n.min(m)).for_each(|i| y[i * m + i] = T::ONE);
        Ok(Tensor::constant(out))
    })
}
