//! Batch normalisation (Ioffe & Szegedy 2015), per channel c over batch and positions:
//!
//! m = mean x, v = mean (x − m)², x̂ = (x − m)/√(v + eps), y = w x̂ + b;
//! db = Σ dy, dw = Σ dy x̂, dx = w/√(v + eps) · (dy − db/n − x̂ dw/n); in eval m and v are constants: dx = w/√(v + eps) · dy.
//!
//! Invariant: nothing moves before every check has passed; the running statistics are never on the tape and never
//! become non-finite.

use super::binary::{add, choose, constant, div, sub};
use super::reduce::{centred, sum};
use super::{affine, shape, unary};
use crate::array::{Array, DType, Dims};
use crate::autograd::{Inputs, Op, Tensor, linear, mode};
use crate::kernels::columns::{self, Gradients, Options, Planes, Stats};
use crate::kernels::map::{dense, writable};
use crate::kernels::simd::Float;
use crate::{Result, bail, with_float};
use std::borrow::Cow;

/// What a layer was configured to do.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormConfig {
    /// Normalise with batch statistics (and update the running ones) rather than with the running ones.
    pub training: bool,
    /// Weight of the new batch in the running statistics; `None` averages over all batches.
    pub momentum: Option<f64>,
    pub eps: f64,
    /// Whether the running variance takes n/(n − 1) times the batch variance, as PyTorch does.
    pub unbiased: bool,
    /// Apply max(y, 0) in the same sweep.
    pub relu: bool,
}

/// The statistics a layer keeps.
pub struct Running<'a> {
    pub mean: &'a mut Array,
    pub var: &'a mut Array,
    /// int64 scalar: how many batches went in.
    pub batches: Option<&'a mut Array>,
}

struct BatchNorm<T> {
    x: Array,
    w: Option<Array>,
    b: Option<Array>,
    mask: Option<Array>,
    stats: Stats<T>,
    /// Mean and variance that were given (eval); `None` where they are the batch's own.
    given: Option<(Array, Array)>,
    eps: f64,
    relu: bool,
}

fn slice<T: Float>(x: Option<&Array>) -> Option<&[T]> {
    x.map(|x| x.as_slice::<T>().expect("made contiguous"))
}

/// x as (N, C, L) planes; two dimensions have L = 1.
fn planes<T: Float>(x: &Array) -> Planes<'_, T> {
    let (shape, strides) = (x.shape(), x.layout().strides());
    let (l, step) = if x.ndim() == 3 { (shape[2], strides[2]) } else { (1, 1) };
    Planes { data: x.data(), n: shape[0], c: shape[1], l, strides: [strides[0], strides[1], step], offset: x.layout().offset }
}

fn options<'a, T: Float>([w, b, mask]: [Option<&'a Array>; 3], eps: f64, relu: bool) -> Options<'a, T> {
    let mask = mask.map(|m| m.as_slice::<bool>().expect("made contiguous"));
    Options { weight: slice(w), bias: slice(b), eps, mask, relu }
}

impl<T: Float> BatchNorm<T> {
    fn options(&self) -> Options<'_, T> {
        options([&self.w, &self.b, &self.mask].map(Option::as_ref), self.eps, self.relu)
    }

    /// dx is written over `dy` where that is large and nobody else's.
    fn fused(&self, mut dy: Array, dx: &mut Inputs<'_>) -> Result<()> {
        let c = Dims::new(&[self.x.shape()[1]])?;
        let (iw, ib) = (1, 1 + self.w.is_some() as usize);
        let make = |want: bool, shape: Dims| if want { Array::unfilled(T::DTYPE, shape).map(Some) } else { Ok(None) };
        let mut gw = make(self.w.is_some() && dx.wants(iw), c)?;
        let mut gb = make(self.b.is_some() && dx.wants(ib), c)?;
        let (dw, db) = (gw.as_mut().map(Array::fresh), gb.as_mut().map(Array::fresh));
        let over = dx.wants(0) && !columns::in_pieces(&planes(&self.x), &self.options());
        let gx = if over && let Some(dx) = dy.as_mut_slice() {
            self.gradients(None, Gradients { dx: Some(dx), dw, db });
            Some(dy)
        } else {
            let mut gx = make(dx.wants(0), *self.x.shape())?;
            self.gradients(Some(&planes(&dy)), Gradients { dx: gx.as_mut().map(Array::fresh), dw, db });
            gx
        };
        for (i, g) in [(0, gx), (iw, gw), (ib, gb)] {
            if let Some(g) = g {
                dx.give(i, || Ok(Tensor::constant(g)))?;
            }
        }
        Ok(())
    }

    fn gradients(&self, dy: Option<&Planes<T>>, out: Gradients<T>) {
        match &self.given {
            None => columns::backward_train(dy, &planes(&self.x), &self.options(), &self.stats, out),
            Some((mean, var)) => {
                let (mean, var) = (mean.as_slice().expect("made contiguous"), var.as_slice().expect("made contiguous"));
                columns::backward_eval(dy, &planes(&self.x), mean, var, &self.options(), out);
            }
        }
    }
}

impl<T: Float> Op for BatchNorm<T> {
    fn name(&self) -> &'static str {
        "batch_norm"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        if !dx.recording() {
            return self.fused(dy.array().clone(), dx);
        }
        affine::give_through(dy, dx, (&self.x, self.w.as_ref(), self.b.as_ref()), |x, w, b| {
            let given = self.given.as_ref().map(|(m, v)| (Tensor::constant(m.clone()), Tensor::constant(v.clone())));
            let mask = self.mask.clone().map(Tensor::constant);
            composed(x, w, b, given, mask.as_ref(), self.eps, self.relu)
        })
    }
    fn last_backward(&mut self, dy: Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        self.fused(dy.into_array(), dx)
    }
}

/// The definition, over tensors; `given` are the statistics to use instead of the batch's.
pub fn composed(
    x: &Tensor,
    w: Option<&Tensor>,
    b: Option<&Tensor>,
    given: Option<(Tensor, Tensor)>,
    mask: Option<&Tensor>,
    eps: f64,
    relu: bool,
) -> Result<Tensor> {
    let flat = x.ndim() == 2;
    let axes: &[isize] = if flat { &[0] } else { &[0, 2] };
    let per_channel = |t: &Tensor| shape::reshape(t, if flat { &[1, -1] } else { &[1, -1, 1] });
    let keep = mask.map(|m| shape::unsqueeze(m, 1)).transpose()?;
    let zero = constant(0.0, x)?;
    let kept = |t: Tensor| match &keep {
        Some(keep) => choose(keep, &t, &zero),
        None => Ok(t),
    };
    let n = mask.map_or(Ok((x.size() / x.shape()[1].max(1)) as f64), |m| sum(m, None, false)?.item())?;
    let n = constant(n, x)?;
    let (centred, var) = match given {
        Some((mean, var)) => (kept(sub(x, &per_channel(&mean)?)?)?, per_channel(&var)?),
        None => {
            let centred = kept(centred(x, |x| div(&sum(&kept(x.clone())?, Some(axes), true)?, &n))?)?;
            let var = div(&sum(&unary::square(&centred)?, Some(axes), true)?, &n)?;
            (centred, var)
        }
    };
    let deviation = unary::sqrt(&add(&var, &constant(eps, x)?)?)?;
    let plane = |parameter: Option<&Tensor>| parameter.map(per_channel).transpose();
    let mut y = affine::apply(div(&centred, &deviation)?, plane(w)?.as_ref(), plane(b)?.as_ref())?;
    if relu {
        y = unary::relu(&y)?;
    }
    kept(y)
}

fn check_config(config: &BatchNormConfig) -> Result<()> {
    let BatchNormConfig { training, momentum, eps, .. } = *config;
    if eps < 0.0 || (training && eps == 0.0) || eps.is_nan() {
        bail!(Value, "batch_norm: expected eps above 0 in training (at least 0 in eval), got {eps}");
    }
    if let Some(momentum) = momentum.filter(|m| !(0.0..=1.0).contains(m)) {
        bail!(Value, "batch_norm: expected momentum in [0, 1], got {momentum}");
    }
    Ok(())
}

fn check_types(running: &Running<'_>) -> Result<()> {
    let (mean, var) = (running.mean.dtype(), running.var.dtype());
    if !mean.is_float() || var != mean {
        bail!(Type, "batch_norm: expected running statistics of one float type, got {mean} and {var}");
    }
    if let Some(batches) = &running.batches
        && (batches.dtype() != DType::I64 || batches.size() != 1)
    {
        bail!(Type, "batch_norm: expected an int64 count of batches of one element, got {} of shape {}", batches.dtype(), batches.shape());
    }
    Ok(())
}

fn check(x: &Tensor, per_channel: &[(&str, Option<&Array>)], mask: Option<&Tensor>) -> Result<()> {
    if !matches!(x.ndim(), 2 | 3) {
        bail!(Value, "batch_norm: expected shape (N, C) or (N, C, L), got {}", x.shape());
    }
    if !x.dtype().is_float() {
        bail!(Type, "batch_norm: expected float32 or float64, got {}", x.dtype());
    }
    for (what, given) in per_channel {
        if let Some(given) = given
            && given.shape()[..] != x.shape()[1..2]
        {
            if given.ndim() == 1 {
                bail!(Value, "batch_norm: expected {} channels, got {} in shape {}", given.shape()[0], x.shape()[1], x.shape());
            }
            bail!(Value, "batch_norm: expected a {what} of shape ({},), got {}", x.shape()[1], given.shape());
        }
    }
    let Some(mask) = mask else { return Ok(()) };
    let positions = [&x.shape()[..1], &x.shape()[2..]].concat();
    if mask.dtype() != DType::Bool || mask.shape()[..] != positions[..] {
        let want = Dims::new(&positions)?;
        bail!(Value, "batch_norm: expected a bool mask of shape {want}, got {} of shape {}", mask.dtype(), mask.shape());
    }
    Ok(())
}

/// Normalises `x` (N, C) or (N, C, L) per channel and updates `running` in place when training.
///
/// Returns the output and the number of channels whose batch statistics were not finite; those keep their last finite
/// running statistics. Without `running`, batch statistics are used in eval as well.
pub fn batch_norm(
    x: &Tensor,
    w: Option<&Tensor>,
    b: Option<&Tensor>,
    running: Option<Running<'_>>,
    mask: Option<&Tensor>,
    config: BatchNormConfig,
) -> Result<(Tensor, usize)> {
    let arrays = [
        ("running mean", running.as_ref().map(|r| &*r.mean)),
        ("running variance", running.as_ref().map(|r| &*r.var)),
        ("weight", w.map(Tensor::array)),
        ("bias", b.map(Tensor::array)),
    ];
    check_config(&config)?;
    check(x, &arrays, mask)?;
    running.as_ref().map_or(Ok(()), check_types)?;
    if config.training && config.momentum.is_none() && running.as_ref().is_some_and(|r| r.batches.is_none()) {
        bail!(Value, "batch_norm: expected a momentum where batches are not counted, got None; pass 1 / n with the n-th batch");
    }
    let mut dtype = x.dtype();
    for t in [w, b].into_iter().flatten() {
        dtype = dtype.promote(t.dtype());
    }
    if [Some(x), w, b].into_iter().flatten().any(|t| t.dtype() != dtype) {
        let (w, b) = (affine::cast(w, dtype)?, affine::cast(b, dtype)?);
        return batch_norm(&linear::cast(x, dtype)?, w.as_ref(), b.as_ref(), running, mask, config);
    }
    with_float!(dtype, T => run::<T>(x, w, b, running, mask, config), else bail!(Type, "batch_norm: expected float parameters, got {dtype}"))
}

fn run<'a, T: Float>(
    x: &Tensor,
    w: Option<&'a Tensor>,
    b: Option<&'a Tensor>,
    running: Option<Running<'_>>,
    mask: Option<&'a Tensor>,
    config: BatchNormConfig,
) -> Result<(Tensor, usize)> {
    let c = x.shape()[1];
    let batch_statistics = config.training || running.is_none();
    let (given, running) = match running {
        Some(Running { mean, var, .. }) if !batch_statistics => (Some((dense(mean, T::DTYPE)?, dense(var, T::DTYPE)?)), None),
        running => (None, running),
    };
    let packed = |t: Option<&'a Tensor>| t.map(|t| dense(t.array(), t.dtype())).transpose();
    let (packed_w, packed_b, mask) = (packed(w)?, packed(b)?, packed(mask)?);
    if batch_statistics && x.size() > 0 {
        check_count(x, mask.as_deref())?;
    }
    let mut y = Array::unfilled(T::DTYPE, *x.shape())?;
    let mut stats = Stats::<T>::new(if batch_statistics { c } else { 0 })?;
    let options = options([&packed_w, &packed_b, &mask].map(|x| x.as_deref()), config.eps, config.relu);
    match &given {
        Some((mean, var)) => {
            let (mean, var) = (mean.as_slice().expect("made contiguous"), var.as_slice().expect("made contiguous"));
            columns::forward_eval(&planes(x.array()), mean, var, &options, y.fresh());
        }
        None => columns::forward_train(&planes(x.array()), &options, y.fresh(), &mut stats),
    }
    let broken = match running {
        Some(running) if config.training && x.size() > 0 && !mode::is_recomputing() => update(running, &stats, config)?,
        _ => 0,
    };
    let op = || {
        let owned = |x: Option<Cow<'_, Array>>| x.map(Cow::into_owned);
        let given = given.map(|(mean, var)| (mean.into_owned(), var.into_owned()));
        let (w, b, mask) = (owned(packed_w), owned(packed_b), owned(mask));
        BatchNorm { x: x.array().clone(), w, b, mask, stats, given, eps: config.eps, relu: config.relu }
    };
    Ok((Tensor::record(y, &affine::inputs(x, w, b), op), broken))
}

fn check_count(x: &Tensor, mask: Option<&Array>) -> Result<()> {
    let kept = match mask {
        Some(mask) => mask.as_slice::<bool>().expect("made contiguous").iter().filter(|&&kept| kept).count(),
        None => x.size() / x.shape()[1],
    };
    if kept < 2 {
        let masked = if mask.is_some() { format!(" with {kept} kept positions") } else { String::new() };
        bail!(
            Value,
            "batch_norm: training needs more than one value per channel, got shape {}{masked}; use drop_last=True in the DataLoader, or eval()",
            x.shape()
        );
    }
    Ok(())
}

/// Counts the batch and blends its statistics into the running ones. Returns the number of channels where they were not finite.
fn update<T: Float>(running: Running<'_>, stats: &Stats<T>, config: BatchNormConfig) -> Result<usize> {
    let mut momentum = config.momentum;
    if let Some(batches) = running.batches {
        let count = writable::<i64>(batches)?;
        count[0] = count[0].wrapping_add(1);
        momentum = momentum.or(Some(1.0 / count[0] as f64));
    }
    let factor = momentum.expect("checked where batches are not counted");
    let n = stats.count as f64;
    let spread = if config.unbiased { n / (n - 1.0) } else { 1.0 };
    let dtype = running.mean.dtype();
    with_float!(dtype, R => Ok(stats.blend(factor, spread, writable::<R>(running.mean)?, writable::<R>(running.var)?)),
        else unreachable!("checked to be floats"))
}
