//! Optimizers: one fused sweep per parameter, in place.
//!
//! Invariant: everything is checked before the first element changes ([`check_state`]); the element updates themselves
//! cannot fail. Formulas follow PyTorch's, so that learning rates and results carry over, but no moment is ever subnormal.

use crate::array::{Array, Element};
use crate::kernels::map::{contiguous, dense, writable};
use crate::kernels::parallel::{self, Blocks, Chunks};
use crate::kernels::simd::{Float, Ring};
use crate::{Result, bail, simd, with_float};

/// Elements per unit of parallel work.
const BLOCK: usize = 8192;

/// Stochastic gradient descent with momentum (Sutskever et al. 2013).
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    pub lr: f64,
    pub momentum: f64,
    pub dampening: f64,
    pub nesterov: bool,
    pub weight_decay: f64,
    pub maximize: bool,
}

/// Adam (Kingma & Ba 2015); with `decoupled` weight decay AdamW (Loshchilov & Hutter 2019).
#[derive(Clone, Copy, Debug)]
pub struct Adam {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    pub decoupled: bool,
    pub maximize: bool,
}

/// RMSprop (Tieleman & Hinton 2012), optionally centred and with momentum.
#[derive(Clone, Copy, Debug)]
pub struct RmsProp {
    pub lr: f64,
    pub alpha: f64,
    pub eps: f64,
    pub weight_decay: f64,
    pub momentum: f64,
    pub maximize: bool,
}

/// A parameter, gradient and states must agree in type and shape.
pub fn check_state(op: &str, param: &Array, others: &[(&str, &Array)]) -> Result<()> {
    if !param.dtype().is_float() {
        bail!(Type, "{op}: expected float32 or float64 parameters, got {}", param.dtype());
    }
    for (what, other) in others {
        if other.shape() != param.shape() || other.dtype() != param.dtype() {
            let want = (param.dtype(), param.shape());
            bail!(Value, "{op}: expected a {what} of {} and shape {}, got {} and {}", want.0, want.1, other.dtype(), other.shape());
        }
    }
    Ok(())
}

/// Runs `f(part_of_a, rest, part_of_g)` over aligned blocks of the gradient and whatever is written.
fn sweep<T: Float, B: Blocks>(written: B, g: &[T], cost: usize, f: impl Fn(B, &[T]) + Sync) {
    parallel::drive(written, g.len() * cost / 10, |first, part| {
        let from = first * BLOCK;
        let to = (from + part.count() * BLOCK).min(g.len());
        f(part, &g[from..to]);
    });
}

fn chunks<T>(slice: &mut [T]) -> Chunks<'_, T> {
    Chunks { slice, chunk: BLOCK }
}

/// A moment, or 0 where it is subnormal. Those of parameters that get no more gradients, as of rows and units out of use, decay until
/// they are, and then no further: processors would take ten times as long for every step to come.
#[inline(always)]
fn moment<T: Float>(x: T) -> T {
    if x.abs() < T::SMALLEST { T::ZERO } else { x }
}

simd! {
    fn sgd_run<T: Float>(p: &mut [T], g: &[T], lr: T, decay: T, sign: T) {
        for (p, &g) in p.iter_mut().zip(g) {
            let g = decay.mul_add_on::<I>(*p, sign * g);
            *p -= lr * g;
        }
    }

    fn momentum_run<T: Float>(p: &mut [T], buf: &mut [T], g: &[T], k: [T; 5], nesterov: bool) {
        let [lr, decay, sign, momentum, fresh] = k;
        for ((p, buf), &g) in p.iter_mut().zip(buf).zip(g) {
            let g = decay.mul_add_on::<I>(*p, sign * g);
            *buf = moment(momentum.mul_add_on::<I>(*buf, fresh * g));
            let step = if nesterov { momentum.mul_add_on::<I>(*buf, g) } else { *buf };
            *p -= lr * step;
        }
    }

    fn adam_run<T: Float>(p: &mut [T], m: &mut [T], v: &mut [T], g: &[T], k: AdamFactors<T>) {
        for (((p, m), v), &g) in p.iter_mut().zip(m).zip(v).zip(g) {
            let g = k.decay.mul_add_on::<I>(*p, k.sign * g);
            *m = moment(k.beta1.mul_add_on::<I>(*m, k.rest1 * g));
            *v = moment(k.beta2.mul_add_on::<I>(*v, k.rest2 * g * g));
            *p = *p * k.shrink - k.step * *m / v.sqrt().mul_add_on::<I>(k.root, k.eps);
        }
    }

    fn rmsprop_run<T: Float>(p: &mut [T], square: &mut [T], g: &[T], k: [T; 6]) {
        let [lr, alpha, rest, eps, decay, sign] = k;
        for ((p, q), &g) in p.iter_mut().zip(square).zip(g) {
            let g = decay.mul_add_on::<I>(*p, sign * g);
            *q = moment(alpha.mul_add_on::<I>(*q, rest * g * g));
            *p -= lr * g / (q.sqrt() + eps);
        }
    }

    /// The general case: `mean` centres where it is not empty, `buf` adds momentum where it is not empty.
    fn rmsprop_full_run<T: Float>(p: &mut [T], square: &mut [T], mean: &mut [T], buf: &mut [T], g: &[T], k: [T; 7]) {
        let [lr, alpha, rest, eps, decay, sign, momentum] = k;
        for i in 0..p.len() {
            let g = decay.mul_add_on::<I>(p[i], sign * g[i]);
            square[i] = moment(alpha.mul_add_on::<I>(square[i], rest * g * g));
            let mut spread = square[i];
            if !mean.is_empty() {
                mean[i] = moment(alpha.mul_add_on::<I>(mean[i], rest * g));
                // Rounded, it may come out below zero.
                let centred = spread - mean[i] * mean[i];
                spread = if centred < T::ZERO { T::ZERO } else { centred };
            }
            let mut step = g / (spread.sqrt() + eps);
            if !buf.is_empty() {
                buf[i] = moment(momentum.mul_add_on::<I>(buf[i], step));
                step = buf[i];
            }
            p[i] -= lr * step;
        }
    }
}

/// What one step of Adam multiplies by: the same for all parameters that have made as many steps.
#[derive(Clone, Copy, Debug)]
pub struct AdamFactors<T> {
    beta1: T,
    rest1: T,
    beta2: T,
    rest2: T,
    eps: T,
    /// lr / (1 − β₁ᵗ)
    step: T,
    /// 1 / √(1 − β₂ᵗ)
    root: T,
    /// Weight decay added to the gradient.
    decay: T,
    /// 1 − lr · decoupled weight decay.
    shrink: T,
    sign: T,
}

fn sign<T: Float>(maximize: bool) -> T {
    if maximize { -T::ONE } else { T::ONE }
}

impl Sgd {
    /// One step. Momentum needs `buf`; on the `first` step it holds zeros and takes the whole gradient.
    pub fn update(&self, p: &mut Array, g: &Array, buf: Option<&mut Array>, first: bool) -> Result<()> {
        check_state("sgd_step", p, &[("gradient", g)])?;
        if let Some(buf) = &buf {
            check_state("sgd_step", p, &[("momentum buffer", buf)])?;
        }
        let g = &*dense(g, g.dtype())?;
        with_float!(p.dtype(), T => self.run::<T>(p, g, buf, first), else unreachable!("checked above"))
    }

    fn run<T: Float>(&self, p: &mut Array, g: &Array, buf: Option<&mut Array>, first: bool) -> Result<()> {
        let g = g.as_slice::<T>().expect("made contiguous");
        let c = T::from_f64;
        let (lr, decay, sign) = (c(self.lr), c(self.weight_decay), sign::<T>(self.maximize));
        if self.momentum == 0.0 {
            sweep(chunks(writable::<T>(p)?), g, 3, |p, g| sgd_run(p.slice, g, lr, decay, sign));
            return Ok(());
        }
        let Some(buf) = buf else { bail!(Value, "sgd_step: expected a momentum buffer for momentum {}, got none", self.momentum) };
        let k = [lr, decay, sign, c(self.momentum), if first { T::ONE } else { c(1.0 - self.dampening) }];
        let written = (chunks(writable::<T>(p)?), chunks(writable::<T>(buf)?));
        sweep(written, g, 4, |(p, buf), g| momentum_run(p.slice, buf.slice, g, k, self.nesterov));
        Ok(())
    }
}

impl Adam {
    /// Step number `t` (from 1 on) with first and second moments `m` and `v`.
    pub fn update(&self, p: &mut Array, g: &Array, m: &mut Array, v: &mut Array, t: u64) -> Result<()> {
        self.factors(t).update(p, g, m, v)
    }

    /// What step number `t` (from 1 on) multiplies by.
    pub fn factors(&self, t: u64) -> AdamFactors<f64> {
        let t = t.min(i32::MAX as u64) as i32;
        AdamFactors {
            beta1: self.beta1,
            rest1: 1.0 - self.beta1,
            beta2: self.beta2,
            rest2: 1.0 - self.beta2,
            eps: self.eps,
            step: self.lr / (1.0 - self.beta1.powi(t)),
            root: 1.0 / (1.0 - self.beta2.powi(t)).sqrt(),
            decay: if self.decoupled { 0.0 } else { self.weight_decay },
            shrink: if self.decoupled { 1.0 - self.lr * self.weight_decay } else { 1.0 },
            sign: sign(self.maximize),
        }
    }
}

impl AdamFactors<f64> {
    /// The step, of one parameter with first and second moments `m` and `v`.
    pub fn update(&self, p: &mut Array, g: &Array, m: &mut Array, v: &mut Array) -> Result<()> {
        check_state("adam_step", p, &[("gradient", g), ("first moment", m), ("second moment", v)])?;
        let g = &*dense(g, g.dtype())?;
        with_float!(p.dtype(), T => self.run::<T>(p, g, m, v), else unreachable!("checked above"))
    }

    fn run<T: Float>(&self, p: &mut Array, g: &Array, m: &mut Array, v: &mut Array) -> Result<()> {
        let g = g.as_slice::<T>().expect("made contiguous");
        let AdamFactors { beta1, rest1, beta2, rest2, eps, step, root, decay, shrink, sign } = *self;
        let [beta1, rest1, beta2, rest2, eps] = [beta1, rest1, beta2, rest2, eps].map(T::from_f64);
        let [step, root, decay, shrink, sign] = [step, root, decay, shrink, sign].map(T::from_f64);
        let k = AdamFactors { beta1, rest1, beta2, rest2, eps, step, root, decay, shrink, sign };
        let written = (chunks(writable::<T>(p)?), chunks(writable::<T>(m)?), chunks(writable::<T>(v)?));
        sweep(written, g, 8, |(p, m, v), g| adam_run(p.slice, m.slice, v.slice, g, k));
        Ok(())
    }
}

impl RmsProp {
    /// One step with the running mean of squares, and of the gradient (centred) and steps (momentum) where given.
    pub fn update(&self, p: &mut Array, g: &Array, square: &mut Array, mean: Option<&mut Array>, buf: Option<&mut Array>) -> Result<()> {
        check_state("rmsprop_step", p, &[("gradient", g), ("square average", square)])?;
        let rest = [("gradient average", mean.as_deref()), ("momentum buffer", buf.as_deref())];
        rest.iter().filter_map(|(what, x)| x.map(|x| (*what, x))).try_for_each(|x| check_state("rmsprop_step", p, &[x]))?;
        let g = &*dense(g, g.dtype())?;
        with_float!(p.dtype(), T => self.run::<T>(p, g, square, mean, buf), else unreachable!("checked above"))
    }

    fn run<T: Float>(&self, p: &mut Array, g: &Array, square: &mut Array, mean: Option<&mut Array>, buf: Option<&mut Array>) -> Result<()> {
        let g = g.as_slice::<T>().expect("made contiguous");
        // What is left of 1 is lost where alpha is rounded first.
        let k = [self.lr, self.alpha, 1.0 - self.alpha, self.eps, self.weight_decay, self.momentum];
        let [lr, alpha, rest, eps, decay, momentum] = k.map(T::from_f64);
        let sign = sign::<T>(self.maximize);
        let (p, square) = (writable::<T>(p)?, writable::<T>(square)?);
        if mean.is_none() && buf.is_none() {
            let k = [lr, alpha, rest, eps, decay, sign];
            sweep((chunks(p), chunks(square)), g, 8, |(p, q), g| rmsprop_run(p.slice, q.slice, g, k));
            return Ok(());
        }
        let mut none = [[T::ZERO; 0]; 2];
        let [no_mean, no_buf] = &mut none;
        let mean = mean.map_or(Ok(&mut no_mean[..]), writable::<T>)?;
        let buf = buf.map_or(Ok(&mut no_buf[..]), writable::<T>)?;
        rmsprop_full_run(p, square, mean, buf, g, [lr, alpha, rest, eps, decay, sign, momentum]);
        Ok(())
    }
}

/// The norm of all gradients together: the p-norm of every element, or the largest magnitude for `p = ∞`.
pub fn total_norm(grads: &[Array], p: f64) -> Result<f64> {
    let mut total = 0.0f64;
    for g in grads {
        let g = contiguous(g)?;
        let part = with_float!(g.dtype(), T => norm_part(g.as_slice::<T>().expect("made contiguous"), p), else unreachable!("gradients are floats"));
        // `max` would drop a NaN, which the caller must see.
        total = if p.is_infinite() { if part > total || part.is_nan() { part } else { total } } else { total + part };
    }
    Ok(if p.is_infinite() { total } else { total.powf(1.0 / p) })
}

fn norm_part<T: Float>(g: &[T], p: f64) -> f64 {
    let magnitudes = g.iter().map(|x| x.to_f64().abs());
    if p.is_infinite() {
        magnitudes.fold(0.0, |a, x| if x > a || x.is_nan() { x } else { a })
    } else if p == 2.0 {
        squares(g)
    } else {
        magnitudes.map(|x| x.powf(p)).sum()
    }
}

simd! {
    /// Σx² in float64 over sixteen lanes.
    fn squares<T: Float>(x: &[T]) -> f64 {
        let mut lanes = [0.0f64; 16];
        for chunk in x.chunks(16) {
            for (a, &x) in lanes.iter_mut().zip(chunk) {
                let x = x.to_f64();
                *a = x.mul_add_on::<I>(x, *a);
            }
        }
        lanes.iter().sum()
    }

    fn scale_run<T: Float>(x: &mut [T], factor: T) {
        for x in x {
            *x *= factor;
        }
    }

    fn clamp_run<T: Float>(x: &mut [T], limit: T) {
        for x in x {
            let low = if *x < -limit { -limit } else { *x };
            *x = if low > limit { limit } else { low };
        }
    }
}

/// Multiplies a gradient by `factor`, in place where nobody else holds it.
pub fn scale(g: &mut Array, factor: f64) -> Result<()> {
    with_float!(g.dtype(), T => scale_run(writable::<T>(g)?, T::from_f64(factor)), else unreachable!("gradients are floats"));
    Ok(())
}

/// Holds every element of a gradient within ±`limit`.
pub fn clamp(g: &mut Array, limit: f64) -> Result<()> {
    with_float!(g.dtype(), T => clamp_run(writable::<T>(g)?, T::from_f64(limit)), else unreachable!("gradients are floats"));
    Ok(())
}
