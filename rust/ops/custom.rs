//! An op of the caller's own: its value was computed off the tape, its gradients are what the caller's function answers.

use crate::array::{Array, Dims};
use crate::autograd::{Inputs, Op, Tensor};
use crate::{Result, bail};
use std::sync::Arc;

/// Answers a gradient for each input, or none, from that of the output and the output itself if it was kept. What it computes
/// is recorded where a gradient of the gradient was asked for.
pub type Backward = Arc<dyn Fn(&Tensor, Option<Tensor>) -> Result<Vec<Option<Tensor>>> + Send + Sync>;

struct Custom {
    backward: Backward,
    /// Shapes of the inputs.
    shapes: Vec<Dims>,
    output: Option<Array>,
}

/// Puts `value` on the tape as the result of an op of `inputs`; `keep` keeps it for backward.
pub fn custom(value: &Tensor, inputs: &[Tensor], keep: bool, backward: Backward) -> Tensor {
    let array = value.array().clone();
    let output = keep.then(|| array.clone());
    let shapes = inputs.iter().map(|x| *x.shape()).collect();
    Tensor::record(array, &inputs.iter().collect::<Vec<_>>(), || Custom { backward, shapes, output })
}

impl Op for Custom {
    fn name(&self) -> &'static str {
        "function"
    }

    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let grads = (self.backward)(dy, self.output.as_ref().map(|y| dx.output(y)))?;
        for (i, (grad, shape)) in grads.into_iter().zip(&self.shapes).enumerate() {
            let Some(grad) = grad else { continue };
            if grad.shape() != shape {
                bail!(Value, "function: expected a gradient of shape {shape} for input {i}, got {}", grad.shape());
            }
            if !grad.dtype().is_float() {
                bail!(Type, "function: expected a float gradient for input {i}, got {}", grad.dtype());
            }
            dx.give(i, || Ok(grad))?;
        }
        Ok(())
    }
}
