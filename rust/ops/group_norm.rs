//! Group norm (Wu & He 2018): the channels of one group at all positions are a row,
//!
//! m = mean x, v = mean (x − m)², x̂ = (x − m)/√(v + eps) over each row, y = w x̂ + b per channel; with g = w dy,
//! dx = (g − mean g − x̂ mean(g x̂))/√(v + eps), dw = Σ dy x̂, db = Σ dy over examples and positions.

use super::affine;
use super::layer_norm::{self, float_type, give, slice};
use super::shape::{reshape, to_shape};
use crate::array::{Array, Dims, filled};
use crate::autograd::{Inputs, Op, Tensor, linear};
use crate::kernels::map::contiguous;
use crate::kernels::rows::{self, Norm};
use crate::kernels::simd::Float;
use crate::{Result, bail, with_float};

struct GroupNorm<T> {
    x: Array,
    w: Option<Array>,
    b: Option<Array>,
    groups: usize,
    eps: f64,
    /// Mean, as pivot and rest, and 1/√(v + eps) of every group of every example.
    stats: Vec<[T; 3]>,
}

impl<T: Float> GroupNorm<T> {
    fn norm(&self) -> Norm<'_, T> {
        let l = self.x.shape()[2..].iter().product();
        Norm { weight: slice(&self.w), bias: slice(&self.b), eps: self.eps, centred: true, groups: self.groups, l }
    }

    /// Elements of one group of one example.
    fn columns(&self) -> usize {
        self.x.shape()[1..].iter().product::<usize>() / self.groups
    }
}

impl<T: Float> Op for GroupNorm<T> {
    fn name(&self) -> &'static str {
        "group_norm"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        if !dx.recording() {
            return give(&self.x, self.columns(), &self.norm(), &self.stats, &self.x.shape()[1..2], dy.array(), dx);
        }
        affine::give_through(dy, dx, (&self.x, self.w.as_ref(), self.b.as_ref()), |x, w, b| composed(x, self.groups, w, b, self.eps))
    }
}

/// The definition, over tensors.
pub fn composed(x: &Tensor, groups: usize, w: Option<&Tensor>, b: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let row = x.shape()[1..].iter().product::<usize>() / groups;
    let rows = to_shape(x, Dims::new(&[x.shape()[0] * groups, row])?)?;
    let y = to_shape(&layer_norm::composed(&rows, 1, None, None, eps, true)?, *x.shape())?;
    let mut per_channel = vec![1; x.ndim() - 1];
    per_channel[0] = -1;
    let plane = |parameter: Option<&Tensor>| parameter.map(|p| reshape(p, &per_channel)).transpose();
    affine::apply(y, plane(w)?.as_ref(), plane(b)?.as_ref())
}

fn check(x: &Tensor, groups: usize, parameters: &[(&str, Option<&Tensor>)]) -> Result<()> {
    if x.ndim() < 2 {
        bail!(Value, "group_norm: expected shape (N, C, ...), got {}", x.shape());
    }
    let c = x.shape()[1];
    if groups == 0 {
        bail!(Value, "group_norm: expected at least one group, got 0");
    }
    if !c.is_multiple_of(groups) {
        bail!(Value, "group_norm: expected channels that divide into {groups} groups, got {c} in shape {}", x.shape());
    }
    for (what, given) in parameters {
        if let Some(given) = given
            && given.shape()[..] != [c]
        {
            bail!(Value, "group_norm: expected a {what} of shape ({c},), got {}", given.shape());
        }
    }
    Ok(())
}

fn run<T: Float>(x: &Tensor, groups: usize, w: Option<&Tensor>, b: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let packed = |t: Option<&Tensor>| t.map(|t| contiguous(t.array())).transpose();
    let mut op = GroupNorm::<T> { x: contiguous(x.array())?, w: packed(w)?, b: packed(b)?, groups, eps, stats: Vec::new() };
    let mut stats = filled(if x.size() > 0 { x.shape()[0] * groups } else { 0 }, [T::ZERO; 3])?;
    let mut y = Array::unfilled(T::DTYPE, *x.shape())?;
    rows::norm(op.x.as_slice().expect("made contiguous"), op.columns(), &op.norm(), y.fresh(), &mut stats);
    op.stats = stats;
    Ok(Tensor::record(y, &affine::inputs(x, w, b), || op))
}

/// Normalises `x` (N, C, …) over each of `groups` equal groups of channels; weight and bias are (C,).
pub fn group_norm(x: &Tensor, groups: usize, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let dtype = float_type(x, &[weight, bias], eps, "group_norm")?;
    check(x, groups, &[("weight", weight), ("bias", bias)])?;
    let (x, w, b) = (linear::cast(x, dtype)?, affine::cast(weight, dtype)?, affine::cast(bias, dtype)?);
    with_float!(dtype, T => run::<T>(&x, groups, w.as_ref(), b.as_ref(), eps), else unreachable!("floats promote to floats"))
}
