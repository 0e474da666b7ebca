//! Layer norm (Ba et al. 2016) and RMS norm (Zhang & Sennrich 2019) over the trailing axes of x, seen as rows of c elements:
//!
//! m = mean x (0 in RMS norm), v = mean (x − m)², x̂ = (x − m)/√(v + eps), y = w x̂ + b; with g = w dy,
//! dx = (g − mean g − x̂ mean(g x̂))/√(v + eps) (without mean g in RMS norm), dw = Σ dy x̂, db = Σ dy over rows.

use super::binary::{add, constant, div};
use super::reduce::{self, mean};
use super::{affine, unary};
use crate::array::{Array, DType, Dims, filled};
use crate::autograd::{Inputs, Op, Tensor, linear};
use crate::kernels::map::contiguous;
use crate::kernels::rows::{self, Norm};
use crate::kernels::simd::Float;
use crate::{Result, bail, with_float};

struct LayerNorm<T> {
    x: Array,
    w: Option<Array>,
    b: Option<Array>,
    /// Trailing axes that are one row.
    axes: usize,
    eps: f64,
    centred: bool,
    /// Mean, as pivot and rest, and 1/√(v + eps) of every row.
    stats: Vec<[T; 3]>,
}

impl<T: Float> LayerNorm<T> {
    fn norm(&self) -> Norm<'_, T> {
        Norm { weight: slice(&self.w), bias: slice(&self.b), eps: self.eps, centred: self.centred, groups: 1, l: 1 }
    }

    fn row_shape(&self) -> &[usize] {
        &self.x.shape()[self.x.ndim() - self.axes..]
    }

    fn columns(&self) -> usize {
        self.row_shape().iter().product()
    }
}

pub(super) fn slice<T: Float>(x: &Option<Array>) -> Option<&[T]> {
    x.as_ref().map(|x| x.as_slice().expect("made contiguous"))
}

/// Gives x, w and b, which are of shape `parameters`, their gradients; `x` is contiguous, in rows of `c` elements.
pub(super) fn give<T: Float>(x: &Array, c: usize, norm: &Norm<'_, T>, stats: &[[T; 3]], parameters: &[usize], dy: &Array, dx: &mut Inputs<'_>) -> Result<()> {
    let dy = contiguous(dy)?;
    let (iw, ib) = (1, 1 + norm.weight.is_some() as usize);
    let wants = [(norm.weight.is_some(), iw), (norm.bias.is_some(), ib)].map(|(given, i)| given && dx.wants(i));
    let mut out = Array::unfilled(T::DTYPE, *x.shape())?;
    let (x, dy) = (x.as_slice().expect("made contiguous"), dy.as_slice().expect("made contiguous"));
    let sums = rows::norm_backward(x, dy, c, norm, stats, out.fresh(), wants[0] || wants[1]);
    dx.give(0, || Ok(Tensor::constant(out)))?;
    for (want, i, sum) in [(wants[0], iw, sums.dw), (wants[1], ib, sums.db)] {
        if want {
            let sum: Vec<T> = sum.into_iter().map(T::from_f64).collect();
            dx.give(i, || Tensor::from_slice(parameters, &sum))?;
        }
    }
    Ok(())
}

impl<T: Float> Op for LayerNorm<T> {
    fn name(&self) -> &'static str {
        if self.centred { "layer_norm" } else { "rms_norm" }
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        if !dx.recording() {
            return give(&self.x, self.columns(), &self.norm(), &self.stats, self.row_shape(), dy.array(), dx);
        }
        affine::give_through(dy, dx, (&self.x, self.w.as_ref(), self.b.as_ref()), |x, w, b| composed(x, self.axes, w, b, self.eps, self.centred))
    }
}

/// The definition, over tensors, of the norm over the last `axes` axes; RMS norm is the one that is not `centred`.
pub fn composed(x: &Tensor, axes: usize, w: Option<&Tensor>, b: Option<&Tensor>, eps: f64, centred: bool) -> Result<Tensor> {
    let axes: Vec<isize> = (x.ndim() - axes..x.ndim()).map(|a| a as isize).collect();
    let d = if centred { reduce::centred(x, |x| mean(x, Some(&axes), true))? } else { x.clone() };
    let v = mean(&unary::square(&d)?, Some(&axes), true)?;
    let y = div(&d, &unary::sqrt(&add(&v, &constant(eps, x)?)?)?)?;
    affine::apply(y, w, b)
}

/// The float type that `x` and its parameters are worked on in; names the op when there is none.
pub(super) fn float_type(x: &Tensor, parameters: &[Option<&Tensor>], eps: f64, op: &str) -> Result<DType> {
    if !x.dtype().is_float() {
        bail!(Type, "{op}: expected float32 or float64, got {}", x.dtype());
    }
    if eps.is_nan() || eps < 0.0 {
        bail!(Value, "{op}: expected eps of at least 0, got {eps}");
    }
    Ok(parameters.iter().flatten().fold(x.dtype(), |dtype, p| dtype.promote(p.dtype())))
}

fn check(x: &Tensor, row: &[usize], parameters: &[(&str, Option<&Tensor>)], op: &str) -> Result<()> {
    let shape = Dims::new(row)?;
    if row.is_empty() {
        bail!(Value, "{op}: expected a normalized_shape of at least one axis, got ()");
    }
    if !x.shape().ends_with(row) {
        bail!(Value, "{op}: expected trailing shape {shape}, got shape {}", x.shape());
    }
    for (what, given) in parameters {
        if let Some(given) = given
            && given.shape()[..] != *row
        {
            bail!(Value, "{op}: expected a {what} of shape {shape}, got {}", given.shape());
        }
    }
    Ok(())
}

fn run<T: Float>(x: &Tensor, axes: usize, w: Option<&Tensor>, b: Option<&Tensor>, eps: f64, centred: bool) -> Result<Tensor> {
    let packed = |t: Option<&Tensor>| t.map(|t| contiguous(t.array())).transpose();
    let mut op = LayerNorm::<T> { x: contiguous(x.array())?, w: packed(w)?, b: packed(b)?, axes, eps, centred, stats: Vec::new() };
    let mut stats = filled(x.size().checked_div(op.columns()).unwrap_or(0), [T::ZERO; 3])?;
    let mut y = Array::unfilled(T::DTYPE, *x.shape())?;
    rows::norm(op.x.as_slice().expect("made contiguous"), op.columns(), &op.norm(), y.fresh(), &mut stats);
    op.stats = stats;
    Ok(Tensor::record(y, &affine::inputs(x, w, b), || op))
}

fn norm(x: &Tensor, row: &[usize], w: Option<&Tensor>, b: Option<&Tensor>, eps: f64, centred: bool) -> Result<Tensor> {
    let op = if centred { "layer_norm" } else { "rms_norm" };
    let dtype = float_type(x, &[w, b], eps, op)?;
    check(x, row, &[("weight", w), ("bias", b)], op)?;
    let (x, w, b) = (linear::cast(x, dtype)?, affine::cast(w, dtype)?, affine::cast(b, dtype)?);
    with_float!(dtype, T => run::<T>(&x, row.len(), w.as_ref(), b.as_ref(), eps, centred), else unreachable!("floats promote to floats"))
}

/// `(x − mean)/√(var + eps)·weight + bias` over the trailing axes `normalized_shape`.
pub fn layer_norm(x: &Tensor, normalized_shape: &[usize], weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    norm(x, normalized_shape, weight, bias, eps, true)
}

/// `x/√(mean x² + eps)·weight` over the trailing axes `normalized_shape`.
pub fn rms_norm(x: &Tensor, normalized_shape: &[usize], weight: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    norm(x, normalized_shape, weight, None, eps, false)
}
