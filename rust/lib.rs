//! treadle: deep learning for models that fit on a CPU.

pub mod array;
pub mod autograd;
pub mod error;
pub mod kernels;
pub mod ops;
pub mod optim;

pub use autograd::Tensor;
pub use error::{Error, Result};

#[cfg(feature = "python")]
mod python;
