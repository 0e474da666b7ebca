//! Dropout: y = x·k/(1 − p), dx = dy·k/(1 − p), where k is 0 with probability p and 1 otherwise.
//!
//! The op saves where in the random stream k was drawn, not k: drawing again in backward costs less than keeping it in
//! memory, and a generator by counter gives the same bits. Source: Srivastava et al. 2014.

use super::binary::mul;
use crate::autograd::{Inputs, Op, Tensor};
use crate::kernels::random::Generator;
use crate::{Result, bail};

#[derive(Clone, Copy)]
struct Dropout {
    p: f64,
    drawn_at: Generator,
}

impl Dropout {
    /// k/(1 − p).
    fn scale(&self, x: &Tensor) -> Result<Tensor> {
        let keep = 1.0 - self.p;
        let on = if keep > 0.0 { 1.0 / keep } else { 0.0 };
        let mut generator = self.drawn_at;
        Ok(Tensor::constant(generator.bernoulli(*x.shape(), keep, on, x.dtype())?))
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || mul(dy, &self.scale(dy)?))
    }
}

/// Zeroes elements with probability `p` and scales the others by 1/(1 − p).
pub fn dropout(x: &Tensor, p: f64, generator: &mut Generator) -> Result<Tensor> {
    if !(0.0..=1.0).contains(&p) {
        bail!(Value, "dropout: expected a probability in [0, 1], got {p}");
    }
    if !x.dtype().is_float() {
        bail!(Type, "dropout: expected float32 or float64, got {}", x.dtype());
    }
    let op = Dropout { p, drawn_at: *generator };
    generator.skip(x.size());
    let y = mul(&x.detach(), &op.scale(x)?)?;
    Ok(Tensor::record(y.into_array(), &[x], || op))
}
