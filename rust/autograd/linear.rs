//! The few linear maps the engine itself needs: sums of gradients, and undoing broadcasts and casts.
//! They are ordinary ops, so gradients of gradients record them like any other.

use super::node::{Edge, Inputs, Op};
use super::tensor::Tensor;
use crate::Result;
use crate::array::{DType, Dims, Layout};
use crate::kernels::{arith, map, parts, reduce};
use crate::with_float;

struct Identity;
impl Op for Identity {
    fn name(&self) -> &'static str {
        "identity"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || Ok(dy.clone()))
    }
}

/// The same value with a place of its own on the tape.
pub fn identity(x: &Tensor) -> Tensor {
    Tensor::record(x.array().clone(), &[x], || Identity)
}

/// What an op gives that has nothing to do: `x` on its place on the tape, but never the leaf itself, which others would switch on
/// and off through the result.
pub fn unchanged(x: &Tensor) -> Tensor {
    if matches!(x.edge(), Edge::Leaf(_)) { identity(x) } else { x.clone() }
}

struct Accumulate;
impl Op for Accumulate {
    fn name(&self) -> &'static str {
        "accumulate"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || Ok(dy.clone()))?;
        dx.give(1, || Ok(dy.clone()))
    }
}

/// `a + b` of two gradients of one shape and type; written over `a` when nobody else holds it.
pub(super) fn accumulate(a: Tensor, b: &Tensor) -> Result<Tensor> {
    let on_tape = super::mode::is_recording() && (a.requires_grad() || b.requires_grad());
    if on_tape {
        let sum = with_float!(a.dtype(), T => map::binary::<T, T, _>(arith::Add, a.array(), b.array(), "add"),
            else unreachable!("gradients are floats"))?;
        return Ok(Tensor::record(sum, &[&a, b], || Accumulate));
    }
    let dtype = a.dtype();
    Ok(Tensor::constant(with_float!(dtype, T => map::binary_owned::<T, _>(arith::Add, a.into_array(), b.array(), "add"),
        else unreachable!("gradients are floats"))?))
}

/// `a + b` off the tape, where `b` is a gradient of what `part` says of `a`'s layout; written over `a` when nobody else holds it.
pub(super) fn accumulate_part(a: Tensor, b: &Tensor, part: impl FnOnce(&Layout) -> Layout) -> Result<Tensor> {
    let mut a = a.into_array();
    with_float!(a.dtype(), T => {
        map::writable::<T>(&mut a)?;
        let target = part(a.layout());
        parts::add::<T>(&mut a, &target, b.array());
    }, else unreachable!("gradients are floats"));
    Ok(Tensor::constant(a))
}

/// y = x read with more axes or larger sizes; dx = dy, summed back by the engine.
struct BroadcastTo;
impl Op for BroadcastTo {
    fn name(&self) -> &'static str {
        "broadcast_to"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || Ok(dy.clone()))
    }
}

/// A view of `x` broadcast to `shape`.
pub fn broadcast_to(x: &Tensor, shape: &Dims) -> Result<Tensor> {
    if x.shape() == shape {
        return Ok(unchanged(x));
    }
    Ok(Tensor::record(x.array().broadcast_to(shape)?, &[x], || BroadcastTo))
}

/// y = x summed over broadcast axes; dx = dy broadcast back.
struct SumTo {
    from: Dims,
}
impl Op for SumTo {
    fn name(&self) -> &'static str {
        "sum_to"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || broadcast_to(dy, &self.from))
    }
}

/// Sums `x` down to `shape`, which broadcasts to the shape of `x`.
pub fn sum_to(x: &Tensor, shape: &Dims) -> Result<Tensor> {
    if x.shape() == shape {
        return Ok(x.clone());
    }
    let lead = x.ndim() - shape.len();
    let axes: smallvec::SmallVec<[usize; 8]> = (0..x.ndim()).filter(|&a| a < lead || (shape[a - lead] == 1 && x.shape()[a] != 1)).collect();
    let sum = reduce::sum(x.array(), &axes, true)?;
    let sum = sum.reshape_view(*shape).expect("a fresh sum is contiguous");
    Ok(Tensor::record(sum, &[x], || SumTo { from: *x.shape() }))
}

/// y = x as another float type; dx = dy, cast back by the engine.
struct Cast;
impl Op for Cast {
    fn name(&self) -> &'static str {
        "astype"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || Ok(dy.clone()))
    }
}

/// `x` as another element type for an op that reads it: `x` itself where it is of that type. Gradients flow between float types.
pub fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    Ok(Tensor::record(map::cast(x.array(), dtype)?, &[x], || Cast))
}

/// As [`cast`], for results that users hold.
pub fn astype(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype { Ok(unchanged(x)) } else { cast(x, dtype) }
}
