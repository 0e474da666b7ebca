//! The tape: tensors, nodes, the engine that walks them, and whether they are recorded. Knows no op but the linear maps
//! that sums of gradients are made of.

pub mod anomaly;
mod engine;
pub mod linear;
pub mod mode;
mod node;
mod tensor;

pub use engine::{boundary, grad, grad_at};
pub use mode::{is_recording, no_grad, with_recording};
pub use node::{Edge, Inputs, Leaf, Op, live_nodes, mark};
pub use tensor::Tensor;
