//! What the norms have in common: y = w x̂ + b, where w, b or both may be left out.

use super::binary::{add, mul};
use crate::Result;
use crate::array::{Array, DType};
use crate::autograd::{Inputs, Tensor, linear};
use smallvec::SmallVec;

/// A norm's inputs in order: x, and of weight and bias what is given.
pub(super) fn inputs<'a, X>(x: &'a X, w: Option<&'a X>, b: Option<&'a X>) -> SmallVec<[&'a X; 3]> {
    std::iter::once(x).chain(w).chain(b).collect()
}

/// A parameter as the type that is worked in.
pub(super) fn cast(parameter: Option<&Tensor>, dtype: DType) -> Result<Option<Tensor>> {
    parameter.map(|p| linear::cast(p, dtype)).transpose()
}

/// w·y + b.
pub(super) fn apply(mut y: Tensor, w: Option<&Tensor>, b: Option<&Tensor>) -> Result<Tensor> {
    if let Some(w) = w {
        y = mul(&y, w)?;
    }
    if let Some(b) = b {
        y = add(&y, b)?;
    }
    Ok(y)
}

/// Gives x, w and b their gradients through `composed(x, w, b)`.
pub(super) fn give_through(
    dy: &Tensor,
    dx: &mut Inputs<'_>,
    (x, w, b): (&Array, Option<&Array>, Option<&Array>),
    composed: impl FnOnce(&Tensor, Option<&Tensor>, Option<&Tensor>) -> Result<Tensor>,
) -> Result<()> {
    dx.give_through(dy, &inputs(x, w, b), |i| composed(&i[0], w.map(|_| &i[1]), b.map(|_| &i[i.len() - 1])))
}
