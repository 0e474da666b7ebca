//! Ops: the only place where a forward meets its backward. One file per op or family.

pub mod batch_norm;
pub mod binary;
pub mod checkpoint;
pub mod cross_entropy;
pub mod custom;
pub mod dropout;
pub mod group_norm;
pub mod index;
pub mod layer_norm;
pub mod loss;
pub mod matmul;
pub mod reduce;
pub mod shape;
pub mod softmax;
pub mod take;
pub mod unary;
pub mod value;

pub use crate::autograd::linear::cast;
pub use batch_norm::{BatchNormConfig, Running, batch_norm};
pub use binary::*;
pub use checkpoint::checkpoint;
pub use cross_entropy::{ClassLoss, cross_entropy, nll_loss};
pub use custom::{Backward, custom};
pub use dropout::dropout;
pub use group_norm::group_norm;
pub use index::{Index, assign, get, index_work, set};
pub use layer_norm::{layer_norm, rms_norm};
pub use loss::{Reduction, bce_with_logits, huber_loss, l1_loss, mse_loss};
pub use matmul::{linear, matmul};
pub use reduce::*;
pub use shape::*;
pub use softmax::{log_softmax, softmax};
pub use take::{embedding, gather, index_add, one_hot, take, take_scaled, take_work};
pub use unary::*;
