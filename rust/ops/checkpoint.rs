//! Checkpointing: y = f(x…), where backward runs f again instead of keeping what f saved.
//!
//! The node's inputs are everything f's graph touches that existed before the call: the arguments, the parameters f closes
//! over, and any other recorded tensor. So gradients reach them as if f had been recorded, at any order.
//! Source: Chen et al. 2016, "Training deep nets with sublinear memory cost".

use crate::autograd::mode::{set_recomputing, with_recording};
use crate::autograd::{self, Edge, Inputs, Op, Tensor};
use crate::{Result, bail};
use std::sync::Arc;

/// What is run once for its value and once more for each backward. It must compute the same both times.
pub type Function = Arc<dyn Fn(&[Tensor]) -> Result<Tensor> + Send + Sync>;

struct Checkpoint {
    function: Function,
    inputs: Vec<Tensor>,
    /// Number of the first node that belongs to f.
    since: u64,
}

/// Runs `function` once, keeps only its inputs and output, and runs it again when a gradient is asked for.
/// While it runs again [`autograd::mode::is_recomputing`] holds, so that running statistics move once.
pub fn checkpoint(function: Function, inputs: &[Tensor]) -> Result<Tensor> {
    let since = autograd::mark();
    let y = function(inputs)?;
    let touched = autograd::boundary(&y, since);
    let op = || Checkpoint { function, inputs: inputs.to_vec(), since };
    Ok(Tensor::record_edges(y.into_array(), touched, op))
}

struct Recomputing(bool);
impl Drop for Recomputing {
    fn drop(&mut self) {
        set_recomputing(self.0);
    }
}

impl Op for Checkpoint {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let y = {
            let _restore = Recomputing(set_recomputing(true));
            with_recording(true, || (self.function)(&self.inputs))?
        };
        if y.shape() != dy.shape() {
            bail!(Graph, "checkpoint: expected the shape {} of the first run when run again, got {}", dy.shape(), y.shape());
        }
        let edges: Vec<Edge> = dx.edges().to_vec();
        let grads = autograd::grad_at(&y, &edges, dy.clone(), self.since, dx.recording())?;
        for (i, grad) in grads.into_iter().enumerate() {
            if let Some(grad) = grad {
                dx.give(i, || Ok(grad))?;
            }
        }
        Ok(())
    }
}
