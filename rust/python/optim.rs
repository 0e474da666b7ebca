//! Optimizer steps: one call over all parameters of a group.
//!
//! Invariant: every parameter, gradient and state is checked before the first one changes.

use super::tensor::PyTensor;
use crate::array::Array;
use crate::optim::{self, Adam, RmsProp, Sgd};
use crate::{Result, Tensor};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

type Params<'py> = Vec<Bound<'py, PyTensor>>;
type States<'py> = Vec<Option<Bound<'py, PyTensor>>>;

fn check_len(op: &str, params: usize, states: usize) -> PyResult<()> {
    if params != states {
        return Err(PyValueError::new_err(format!("{op}: expected one state per parameter ({params}), got {states}")));
    }
    Ok(())
}

/// Takes the arrays out of cells, so that a sole owner can write them in place, and puts them back whatever happens.
fn update<const K: usize>(cells: [&Bound<'_, PyTensor>; K], f: impl FnOnce([&mut Array; K]) -> Result<()>) -> PyResult<()> {
    let mut guards = cells.map(|c| c.get().lock());
    Ok(f(guards.each_mut().map(|g| g.array_mut()))?)
}

/// The gradient of a parameter as an array, if it has one.
fn gradient(param: &Bound<'_, PyTensor>) -> Option<Array> {
    param.get().lock().grad().map(Tensor::into_array)
}

fn check(op: &str, param: &Bound<'_, PyTensor>, grad: &Array, states: &[(&str, Option<&Bound<'_, PyTensor>>)]) -> PyResult<()> {
    let param = param.get().lock().array().clone();
    optim::check_state(op, &param, &[("gradient", grad)])?;
    for (what, state) in states {
        if let Some(state) = state {
            let state = state.get().lock().array().clone();
            optim::check_state(op, &param, &[(what, &state)])?;
        }
    }
    Ok(())
}

/// One SGD step; returns the momentum buffers (None where there is none).
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn sgd_step<'py>(
    py: Python<'py>,
    params: Params<'py>,
    momentum_buffers: States<'py>,
    lr: f64,
    momentum: f64,
    dampening: f64,
    nesterov: bool,
    weight_decay: f64,
    maximize: bool,
) -> PyResult<Vec<Option<Py<PyTensor>>>> {
    check_len("sgd_step", params.len(), momentum_buffers.len())?;
    let grads: Vec<Option<Array>> = params.iter().map(gradient).collect();
    for ((p, g), buf) in params.iter().zip(&grads).zip(&momentum_buffers) {
        g.as_ref().map_or(Ok(()), |g| check("sgd_step", p, g, &[("momentum buffer", buf.as_ref())]))?;
    }
    let sgd = Sgd { lr, momentum, dampening, nesterov, weight_decay, maximize };
    let mut out = Vec::with_capacity(if momentum == 0.0 { 0 } else { params.len() });
    for ((p, g), buf) in params.iter().zip(grads).zip(momentum_buffers) {
        let mut fresh = None;
        match (&g, &buf) {
            (None, _) => {}
            (Some(g), Some(buf)) => update([p, buf], |[p, b]| {
                let mut held = Some(std::mem::replace(b, g.clone()));
                let outcome = sgd.update(p, g, &mut held);
                *b = held.expect("a buffer that was given stays");
                outcome
            })?,
            (Some(g), None) => update([p], |[p]| sgd.update(p, g, &mut fresh))?,
        }
        if momentum != 0.0 {
            out.push(match (buf, fresh) {
                (Some(buf), _) => Some(buf.unbind()),
                (None, Some(fresh)) => Some(Py::new(py, PyTensor::new(Tensor::constant(fresh)))?),
                (None, None) => None,
            });
        }
    }
    Ok(out)
}

/// One Adam step; `steps` counts from 1.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn adam_step(
    params: Params<'_>,
    exp_avgs: Params<'_>,
    exp_avg_sqs: Params<'_>,
    steps: Vec<u64>,
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    decoupled: bool,
    maximize: bool,
) -> PyResult<()> {
    for n in [exp_avgs.len(), exp_avg_sqs.len(), steps.len()] {
        check_len("adam_step", params.len(), n)?;
    }
    let grads: Vec<Option<Array>> = params.iter().map(gradient).collect();
    for (i, g) in grads.iter().enumerate() {
        if let Some(g) = g {
            check("adam_step", &params[i], g, &[("first moment", Some(&exp_avgs[i])), ("second moment", Some(&exp_avg_sqs[i]))])?;
        }
    }
    let adam = Adam { lr, beta1, beta2, eps, weight_decay, decoupled, maximize };
    for (i, g) in grads.into_iter().enumerate() {
        if let Some(g) = g {
            update([&params[i], &exp_avgs[i], &exp_avg_sqs[i]], |[p, m, v]| adam.update(p, &g, m, v, steps[i]))?;
        }
    }
    Ok(())
}

/// One RMSprop step; the lists hold None where momentum or centring is off.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn rmsprop_step(
    params: Params<'_>,
    square_avgs: Params<'_>,
    momentum_buffers: States<'_>,
    grad_avgs: States<'_>,
    lr: f64,
    alpha: f64,
    eps: f64,
    weight_decay: f64,
    momentum: f64,
    maximize: bool,
) -> PyResult<()> {
    for n in [square_avgs.len(), momentum_buffers.len(), grad_avgs.len()] {
        check_len("rmsprop_step", params.len(), n)?;
    }
    let grads: Vec<Option<Array>> = params.iter().map(gradient).collect();
    for (i, g) in grads.iter().enumerate() {
        if let Some(g) = g {
            let states =
                [("square average", Some(&square_avgs[i])), ("momentum buffer", momentum_buffers[i].as_ref()), ("gradient average", grad_avgs[i].as_ref())];
            check("rmsprop_step", &params[i], g, &states)?;
        }
    }
    let rule = RmsProp { lr, alpha, eps, weight_decay, momentum, maximize };
    for (i, g) in grads.into_iter().enumerate() {
        let Some(g) = g else { continue };
        let (p, q) = (&params[i], &square_avgs[i]);
        match (&grad_avgs[i], &momentum_buffers[i]) {
            (None, None) => update([p, q], |[p, q]| rule.update(p, &g, q, None, None)),
            (Some(m), None) => update([p, q, m], |[p, q, m]| rule.update(p, &g, q, Some(m), None)),
            (None, Some(b)) => update([p, q, b], |[p, q, b]| rule.update(p, &g, q, None, Some(b))),
            (Some(m), Some(b)) => update([p, q, m, b], |[p, q, m, b]| rule.update(p, &g, q, Some(m), Some(b))),
        }?;
    }
    Ok(())
}

/// Takes every gradient out, changes it in place, and puts it back.
fn change_gradients(params: &Params<'_>, f: impl Fn(&mut Array) -> Result<()>) -> PyResult<()> {
    for p in params {
        let cell = p.get().lock();
        let crate::autograd::Edge::Leaf(leaf) = cell.edge() else { continue };
        if let Some(grad) = leaf.grad().as_mut() {
            f(grad.array_mut())?;
        }
    }
    Ok(())
}

/// Scales all gradients together so that their total norm is at most `max_norm`; returns the norm before.
#[pyfunction]
#[pyo3(signature = (params, max_norm, norm_type=2.0))]
fn clip_grad_norm(params: Params<'_>, max_norm: f64, norm_type: f64) -> PyResult<f64> {
    if max_norm.is_nan() || max_norm < 0.0 || norm_type.is_nan() || norm_type <= 0.0 {
        return Err(PyValueError::new_err(format!("clip_grad_norm: expected max_norm of at least 0 and norm_type above 0, got {max_norm} and {norm_type}")));
    }
    let grads: Vec<Array> = params.iter().filter_map(gradient).collect();
    let norm = optim::total_norm(&grads, norm_type)?;
    drop(grads);
    let factor = max_norm / (norm + 1e-6);
    if factor < 1.0 || norm.is_nan() {
        change_gradients(&params, |g| optim::scale(g, factor))?;
    }
    Ok(norm)
}

/// Holds every element of every gradient within ±`value`.
#[pyfunction]
fn clip_grad_value(params: Params<'_>, value: f64) -> PyResult<()> {
    if value.is_nan() || value < 0.0 {
        return Err(PyValueError::new_err(format!("clip_grad_value: expected a limit of at least 0, got {value}")));
    }
    change_gradients(&params, |g| optim::clamp(g, value))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    macro_rules! add_all {
        ($($name:ident),+ $(,)?) => { $(m.add_function(wrap_pyfunction!($name, m)?)?;)+ };
    }
    add_all!(sgd_step, adam_step, rmsprop_step, clip_grad_norm, clip_grad_value);
    Ok(())
}
