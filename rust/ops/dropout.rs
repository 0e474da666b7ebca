//! Dropout: y = x/(1 − p) where a random draw keeps it, 0 with probability p. Source: Srivastava et al. 2014.
//!
//! The op saves where in the random stream it drew, not what: drawing again takes about half a nanosecond per element, in the
//! sweep that scales, and nothing is kept. Backward is dropout of dy from the same place, and so is its own, to any order.

use crate::Result;
use crate::autograd::{Inputs, Op, Tensor};
use crate::kernels::random::Generator;

struct Dropout {
    p: f64,
    drawn_at: Generator,
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let mut generator = self.drawn_at;
        dx.give(0, || dropout(dy, self.p, &mut generator))
    }
}

/// Zeroes elements with probability `p`, whatever they hold, and scales the others by 1/(1 − p).
pub fn dropout(x: &Tensor, p: f64, generator: &mut Generator) -> Result<Tensor> {
    let drawn_at = *generator;
    let y = generator.dropout(x.array(), p)?.compute()?;
    Ok(Tensor::record(y, &[x], || Dropout { p, drawn_at }))
}
