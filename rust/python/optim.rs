//! Optimizer steps: one call over all parameters of all groups, so that no signal comes between. Groups are the optimizers' own
//! dicts, read by the names they have there.
//!
//! Invariant: before the first one changes every parameter, gradient and state is checked and lies so that it can be written or read
//! in place, since a copy may find no memory. States live in lists that run parallel to the parameters; where one is None it starts
//! at zero and is put into the list.

use super::error::{run, run_locked};
use super::tensor::{Guards, PyTensor};
use crate::array::Array;
use crate::kernels::map::{contiguous, make_writable};
use crate::optim::{self, Adam, RmsProp, Sgd};
use crate::{Result, Tensor, kernels};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;
use smallvec::SmallVec;

type Params<'py> = Vec<Bound<'py, PyTensor>>;

/// A list of states, and what messages call one.
struct Slot<'a, 'py>(&'static str, &'a Bound<'py, PyList>);

/// A parameter with a gradient and its states.
struct Ready<'py> {
    at: usize,
    param: Bound<'py, PyTensor>,
    states: SmallVec<[Bound<'py, PyTensor>; 3]>,
    /// Whether the first state was just made.
    first: bool,
}

impl Ready<'_> {
    /// Runs `f` on the parameter, its gradient and the states, all locked, so that they are read and updated where they are.
    fn update(&self, f: impl FnOnce(&mut Array, &Array, &mut [&mut Array]) -> Result<()>) -> PyResult<()> {
        // What is replaced is dropped after the locks, since memory of others may be an object of Python.
        let _before: Vec<Array>;
        let mut param = self.param.get().hold();
        let mut guards: Guards<'_> = self.states.iter().map(|c| c.get().hold()).collect();
        _before = guards.iter().chain([&param]).filter_map(|held| held.array().if_shared()).collect();
        let mut states: SmallVec<[&mut Array; 3]> = guards.iter_mut().map(|g| g.array_mut()).collect();
        let (param, edge) = param.parts_mut();
        run_locked(|| match edge.grad().as_deref() {
            Some(Some(gradient)) => f(param, gradient.array(), &mut states),
            _ => Ok(()),
        })
    }
}

/// The gradient of a parameter as an array, if it has one.
fn gradient(param: &Bound<'_, PyTensor>) -> Option<Array> {
    param.get().hold().grad().map(Tensor::into_array)
}

/// What was replaced under locks and is dropped after them, as in `Ready::update`.
type Before = SmallVec<[Array; 4]>;

/// Whether a parameter has a gradient, which is checked and made dense.
fn has_gradient(op: &str, param: &Tensor, before: &mut Before) -> Result<bool> {
    let mut held = param.edge().grad();
    let Some(Some(gradient)) = held.as_deref_mut() else { return Ok(false) };
    optim::check_state(op, param.array(), &[("gradient", gradient.array())])?;
    if !gradient.array().is_contiguous() {
        let dense = contiguous(gradient.array())?;
        before.push(std::mem::replace(gradient.array_mut(), dense));
    }
    Ok(true)
}

/// Makes an array one that is written in place, and answers what is to be dropped after the locks.
fn owned(array: &mut Array) -> Result<Option<Array>> {
    let before = array.if_shared();
    make_writable(array)?;
    Ok(before)
}

/// Checks options that are to be finite and at least 0, and shares, in [0, 1). Python says which one is not, and of what group.
fn check_options(op: &str, amounts: &[f64], shares: &[f64]) -> PyResult<()> {
    if amounts.iter().all(|x| x.is_finite() && *x >= 0.0) && shares.iter().all(|x| (0.0..1.0).contains(x)) {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("{op}: expected finite options of at least 0, and shares below 1, got {amounts:?} and {shares:?}")))
}

/// States that were made for a step, with the lists and places they are for.
type Made<'py> = Vec<(Bound<'py, PyList>, usize, Bound<'py, PyTensor>)>;

/// The parameters that have a gradient, checked and made ready together with their states; new states are put into `made`.
fn ready<'py>(py: Python<'py>, op: &str, params: &Bound<'py, PyAny>, slots: &[Slot<'_, 'py>], made: &mut Made<'py>) -> PyResult<Vec<Ready<'py>>> {
    let n = params.len()?;
    for Slot(_, list) in slots {
        if list.len() != n {
            return Err(PyValueError::new_err(format!("{op}: expected one state per parameter ({}), got {}", n, list.len())));
        }
    }
    let mut found = Vec::with_capacity(n);
    for (at, param) in params.try_iter()?.enumerate() {
        let param = param?.cast_into::<PyTensor>()?;
        let mut before = Before::new();
        let mut held = param.get().hold();
        if !has_gradient(op, &held, &mut before)? {
            continue;
        }
        let (mut states, mut first) = (SmallVec::new(), false);
        for (k, Slot(what, list)) in slots.iter().enumerate() {
            let item = list.get_item(at)?;
            if item.is_none() {
                let fresh = Array::zeros(held.shape(), held.dtype())?;
                let fresh = Bound::new(py, PyTensor::new(Tensor::constant(fresh)))?;
                made.push(((*list).clone(), at, fresh.clone()));
                states.push(fresh);
                first |= k == 0;
            } else {
                let state = item.cast_into::<PyTensor>()?;
                if state.is(&param) || states.iter().any(|other| state.is(other)) {
                    return Err(PyValueError::new_err(format!("{op}: expected a {what} of its own, got a Tensor that is another state or the parameter")));
                }
                let mut value = state.get().hold();
                optim::check_state(op, held.array(), &[(what, value.array())])?;
                before.extend(owned(value.array_mut())?);
                drop(value);
                states.push(state);
            }
        }
        before.extend(owned(held.array_mut())?);
        drop(held);
        found.push(Ready { at, param, states, first });
    }
    Ok(found)
}

/// Checks all groups and puts the states that were made into their lists; then the groups may be updated.
fn all_ready<'a, 'py, G>(
    groups: &'a [G],
    mut check: impl FnMut(&'a G, &mut Made<'py>) -> PyResult<Vec<Ready<'py>>>,
) -> PyResult<Vec<(&'a G, Vec<Ready<'py>>)>> {
    let mut made = Made::new();
    let checked: Vec<_> = groups.iter().map(|group| Ok((group, check(group, &mut made)?))).collect::<PyResult<_>>()?;
    made.into_iter().try_for_each(|(list, at, fresh)| list.set_item(at, fresh))?;
    Ok(checked)
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct SgdGroup<'py> {
    params: Bound<'py, PyAny>,
    state: SgdState<'py>,
    lr: f64,
    momentum: f64,
    dampening: f64,
    nesterov: bool,
    weight_decay: f64,
    maximize: bool,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct SgdState<'py> {
    momentum_buffer: Bound<'py, PyList>,
}

/// One SGD step.
#[pyfunction]
fn sgd_step<'py>(py: Python<'py>, groups: Vec<SgdGroup<'py>>) -> PyResult<()> {
    let checked = all_ready(&groups, |group, made| {
        check_options("sgd_step", &[group.lr, group.momentum, group.dampening.abs(), group.weight_decay], &[])?;
        if group.nesterov && (group.momentum == 0.0 || group.dampening != 0.0) {
            let got = format!("momentum {} and dampening {}", group.momentum, group.dampening);
            return Err(PyValueError::new_err(format!("sgd_step: expected momentum above 0 and no dampening with nesterov, got {got}")));
        }
        let slots = [Slot("momentum buffer", &group.state.momentum_buffer)];
        ready(py, "sgd_step", &group.params, if group.momentum == 0.0 { &[] } else { &slots }, made)
    })?;
    for (&SgdGroup { lr, momentum, dampening, nesterov, weight_decay, maximize, .. }, group) in checked {
        let sgd = Sgd { lr, momentum, dampening, nesterov, weight_decay, maximize };
        for r in group {
            r.update(|p, g, states| sgd.update(p, g, states.first_mut().map(|b| &mut **b), r.first))?;
        }
    }
    Ok(())
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct AdamGroup<'py> {
    params: Bound<'py, PyAny>,
    state: AdamState<'py>,
    steps: Bound<'py, PyList>,
    lr: f64,
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    maximize: bool,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct AdamState<'py> {
    exp_avg: Bound<'py, PyList>,
    exp_avg_sq: Bound<'py, PyList>,
}

/// One Adam step, with `decoupled` weight decay one of AdamW; "steps" counts the steps of each parameter and is moved on.
#[pyfunction]
fn adam_step<'py>(py: Python<'py>, groups: Vec<AdamGroup<'py>>, decoupled: bool) -> PyResult<()> {
    let mut counts: Vec<Vec<u64>> = Vec::with_capacity(groups.len());
    let checked = all_ready(&groups, |AdamGroup { params, state, steps, lr, betas, eps, weight_decay, .. }, made| {
        check_options("adam_step", &[*lr, *eps, *weight_decay], betas)?;
        if steps.len() != params.len()? {
            return Err(PyValueError::new_err(format!("adam_step: expected one count per parameter ({}), got {}", params.len()?, steps.len())));
        }
        counts.push(steps.extract()?);
        ready(py, "adam_step", params, &[Slot("first moment", &state.exp_avg), Slot("second moment", &state.exp_avg_sq)], made)
    })?;
    for ((group, found), counts) in checked.into_iter().zip(counts) {
        let &AdamGroup { ref steps, lr, betas: [beta1, beta2], eps, weight_decay, maximize, .. } = group;
        let adam = Adam { lr, beta1, beta2, eps, weight_decay, decoupled, maximize };
        let mut latest = (0, adam.factors(0));
        for r in found {
            let t = counts[r.at] + 1;
            // As a rule all parameters are at the same step.
            if latest.0 != t {
                latest = (t, adam.factors(t));
            }
            r.update(|p, g, states| {
                let [m, v] = states else { unreachable!("two slots") };
                latest.1.update(p, g, m, v)
            })?;
            steps.set_item(r.at, t)?;
        }
    }
    Ok(())
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct RmsPropGroup<'py> {
    params: Bound<'py, PyAny>,
    state: RmsPropState<'py>,
    lr: f64,
    alpha: f64,
    eps: f64,
    weight_decay: f64,
    momentum: f64,
    centered: bool,
    maximize: bool,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct RmsPropState<'py> {
    square_avg: Bound<'py, PyList>,
    momentum_buffer: Bound<'py, PyList>,
    grad_avg: Bound<'py, PyList>,
}

/// One RMSprop step; momentum buffers and gradient averages are used where they are on.
#[pyfunction]
fn rmsprop_step<'py>(py: Python<'py>, groups: Vec<RmsPropGroup<'py>>) -> PyResult<()> {
    let checked = all_ready(&groups, |RmsPropGroup { params, state, lr, alpha, eps, weight_decay, momentum, centered, .. }, made| {
        check_options("rmsprop_step", &[*lr, *eps, *weight_decay, *momentum], &[*alpha])?;
        let mut slots: SmallVec<[Slot<'_, '_>; 3]> = SmallVec::new();
        slots.push(Slot("square average", &state.square_avg));
        slots.extend(centered.then_some(Slot("gradient average", &state.grad_avg)));
        slots.extend((*momentum > 0.0).then_some(Slot("momentum buffer", &state.momentum_buffer)));
        ready(py, "rmsprop_step", params, &slots, made)
    })?;
    for (&RmsPropGroup { lr, alpha, eps, weight_decay, momentum, centered, maximize, .. }, group) in checked {
        let rule = RmsProp { lr, alpha, eps, weight_decay, momentum, maximize };
        for r in group {
            r.update(|p, g, states| {
                let mut states = states.iter_mut().map(|s| &mut **s);
                let square = states.next().expect("always there");
                let mean = if centered { states.next() } else { None };
                rule.update(p, g, square, mean, states.next())
            })?;
        }
    }
    Ok(())
}

/// Clears the gradients of all parameters.
#[pyfunction]
fn clear_gradients(params: &Bound<'_, PyAny>) -> PyResult<()> {
    for param in params.try_iter()? {
        let param = param?.cast_into::<PyTensor>()?;
        // Dropped after the locks, since a recorded gradient may hold objects of Python.
        let before = param.get().hold().edge().grad().and_then(|mut grad| grad.take());
        drop(before);
    }
    Ok(())
}

/// Whether all tensors hold neither infinities nor NaNs.
#[pyfunction]
fn all_finite(py: Python<'_>, tensors: Params<'_>) -> PyResult<bool> {
    for tensor in &tensors {
        let tensor = tensor.get().tensor();
        if !run(py, tensor.size(), || kernels::reduce::all_finite(tensor.array()))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Changes every gradient in place, or none if there is no memory.
fn change_gradients(params: &Params<'_>, f: impl Fn(&mut Array) -> Result<()>) -> PyResult<()> {
    let each = |f: &dyn Fn(&mut Array) -> Result<Option<Array>>| {
        params.iter().try_for_each(|p| {
            let _before;
            let cell = p.get().hold();
            if let Some(Some(grad)) = cell.edge().grad().as_deref_mut() {
                _before = run_locked(|| f(grad.array_mut()))?;
            }
            Ok(())
        })
    };
    each(&owned)?;
    each(&|grad| f(grad).map(|()| None))
}

/// Scales all gradients together so that their total norm is at most `max_norm`; returns the norm before.
#[pyfunction]
#[pyo3(signature = (params, max_norm, norm_type=2.0))]
fn clip_grad_norm(py: Python<'_>, params: Params<'_>, max_norm: f64, norm_type: f64) -> PyResult<f64> {
    if max_norm.is_nan() || max_norm < 0.0 || norm_type.is_nan() || norm_type <= 0.0 {
        return Err(PyValueError::new_err(format!("clip_grad_norm: expected max_norm of at least 0 and norm_type above 0, got {max_norm} and {norm_type}")));
    }
    let grads: Vec<Array> = params.iter().filter_map(gradient).collect();
    let norm = run(py, grads.iter().map(Array::size).sum(), || optim::total_norm(&grads, norm_type))?;
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
    add_all!(m, sgd_step, adam_step, rmsprop_step, clear_gradients, all_finite, clip_grad_norm, clip_grad_value);
    Ok(())
}
