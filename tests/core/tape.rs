//! The tape: depth, dropping, freeing, retaining, and what is refused.

use crate::support::{elements, uniform};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use treadle::autograd::{self, live_nodes, no_grad};
use treadle::{Error, Result, Tensor, ops};

/// Tests that count live nodes run one at a time.
static COUNTING: Mutex<()> = Mutex::new(());

/// More nodes than all other tests hold at any time.
const OTHERS: i64 = 20_000;

fn chain(x: &Tensor, length: usize) -> Result<Tensor> {
    let mut y = x.clone();
    for _ in 0..length {
        y = ops::neg(&y)?;
    }
    Ok(y)
}

fn leaf() -> Tensor {
    uniform(&[2], 0.5, 1.5, 1).requiring_grad().unwrap()
}

/// Runs `f`, which makes many more nodes than [`OTHERS`], and checks that none of them lives on.
fn leaves_nothing(f: impl FnOnce()) {
    let _alone = COUNTING.lock().unwrap_or_else(|e| e.into_inner());
    f();
    assert!(live_nodes() < OTHERS, "{} nodes live", live_nodes());
}

#[test]
fn a_chain_of_a_million_ops_runs_backward() {
    leaves_nothing(|| {
        let x = leaf();
        let y = ops::sum(&chain(&x, 1_000_000).unwrap(), None, false).unwrap();
        assert!(live_nodes() >= 1_000_001);
        y.backward(None, false, false).unwrap();
        assert_eq!(elements(x.grad().unwrap().array()), [1.0, 1.0]);
    });
}

#[test]
fn a_chain_of_a_million_ops_is_dropped() {
    leaves_nothing(|| {
        let y = chain(&leaf(), 1_000_000).unwrap();
        assert!(live_nodes() >= 1_000_000);
        // A small stack shows recursion at once.
        std::thread::Builder::new().stack_size(64 << 10).spawn(move || drop(y)).unwrap().join().unwrap();
    });
}

#[test]
fn a_wide_graph_is_dropped() {
    leaves_nothing(|| {
        let x = leaf();
        let mut y = x.clone();
        for _ in 0..100_000 {
            y = ops::mul(&y, &y).unwrap();
            y = ops::sqrt(&y).unwrap();
        }
        assert!(live_nodes() >= 200_000);
    });
}

#[test]
fn gradients_accumulate() {
    let x = leaf();
    for _ in 0..3 {
        ops::sum(&ops::square(&x).unwrap(), None, false).unwrap().backward(None, false, false).unwrap();
    }
    let want: Vec<f64> = elements(x.array()).iter().map(|x| 6.0 * x).collect();
    crate::support::assert_close("grad", &elements(x.grad().unwrap().array()), &want, 1e-15);
}

#[test]
fn a_leaf_that_was_off_is_the_same_leaf_again() {
    let mut w = leaf();
    let before = ops::sum(&ops::square(&w).unwrap(), None, false).unwrap();
    before.backward(None, true, false).unwrap();
    let grad = elements(w.grad().unwrap().array());

    w.set_requires_grad(false).unwrap();
    assert!(!w.requires_grad() && !ops::square(&w).unwrap().requires_grad());
    let x = leaf();
    let meanwhile = ops::sum(&ops::mul(&w, &x).unwrap(), None, false).unwrap();
    before.backward(None, true, false).unwrap();
    assert_eq!(elements(w.grad().unwrap().array()), grad, "a gradient flowed to a leaf that is off");

    w.set_requires_grad(true).unwrap();
    meanwhile.backward(None, false, false).unwrap();
    assert_eq!(elements(w.grad().unwrap().array()), grad, "what was recorded while the leaf was off led to it");
    before.backward(None, false, false).unwrap();
    let twice: Vec<f64> = grad.iter().map(|g| 2.0 * g).collect();
    assert_eq!(elements(w.grad().unwrap().array()), twice);
    assert!(ops::neg(&w).unwrap().set_requires_grad(false).is_err());
}

#[test]
fn a_freed_graph_says_so() {
    let x = leaf();
    let y = ops::sum(&ops::square(&x).unwrap(), None, false).unwrap();
    y.backward(None, true, false).unwrap();
    y.backward(None, false, false).unwrap();
    let before = elements(x.grad().unwrap().array());
    let error = y.backward(None, false, false).unwrap_err();
    assert!(matches!(&error, Error::Graph(m) if m.contains("retain_graph")), "{error}");
    assert_eq!(elements(x.grad().unwrap().array()), before, "a refused backward changed the gradient");
}

#[test]
fn what_is_not_recorded_has_no_gradient() {
    let x = leaf();
    let y = no_grad(|| ops::square(&x)).unwrap();
    assert!(!y.requires_grad());
    assert!(matches!(ops::sum(&y, None, false).unwrap().backward(None, false, false), Err(Error::Graph(_))));
    assert!(!x.detach().requires_grad());
    assert!(matches!(Tensor::from_slice(&[1], &[1i64]).unwrap().requiring_grad(), Err(Error::Type(_))));
}

#[test]
fn a_gradient_must_fit_its_output() {
    let x = leaf();
    let y = ops::square(&x).unwrap();
    assert!(matches!(y.backward(None, false, false), Err(Error::Value(_))));
    let wrong = uniform(&[3], 0.0, 1.0, 2);
    let error = y.backward(Some(wrong), false, false).unwrap_err();
    assert_eq!(error.to_string(), "backward: expected a gradient of shape (2,), got (3,)");
    assert!(x.grad().is_none());
}

#[test]
fn unused_inputs_have_no_gradient() {
    let (x, other) = (leaf(), leaf());
    let y = ops::sum(&ops::square(&x).unwrap(), None, false).unwrap();
    let grads = autograd::grad(&[y], &[x.clone(), other], None, false, false).unwrap();
    assert!(grads[0].is_some() && grads[1].is_none());
    assert!(x.grad().is_none(), "grad() must leave .grad alone");
}

#[test]
fn third_derivatives() {
    let x = Tensor::from_slice(&[], &[0.7f64]).unwrap().requiring_grad().unwrap();
    let mut y = ops::mul(&ops::exp(&x).unwrap(), &ops::sin(&x).unwrap()).unwrap();
    for _ in 0..3 {
        y = autograd::grad(&[y], std::slice::from_ref(&x), None, true, true).unwrap().remove(0).unwrap();
    }
    let want = 2.0 * 0.7f64.exp() * (0.7f64.cos() - 0.7f64.sin());
    crate::support::assert_close("third derivative", &[y.item().unwrap()], &[want], 1e-14);
}

#[test]
fn values_do_not_change_behind_the_tape() {
    let x = leaf();
    let y = ops::square(&x).unwrap();
    let mut held = x.clone();
    let array = held.array_mut();
    treadle::kernels::map::writable::<f64>(array).unwrap().fill(100.0);
    ops::sum(&y, None, false).unwrap().backward(None, false, false).unwrap();
    let want: Vec<f64> = elements(x.array()).iter().map(|x| 2.0 * x).collect();
    assert_eq!(elements(x.grad().unwrap().array()), want);
}

#[test]
fn a_checkpoint_whose_function_changes_its_mind_is_refused() {
    let (x, again) = (leaf(), AtomicBool::new(false));
    let f = move |x: &[Tensor]| if again.swap(true, Relaxed) { ops::neg(&x[0]) } else { ops::sum(&x[0], None, false) };
    let y = ops::checkpoint(Arc::new(f), std::slice::from_ref(&x)).unwrap();
    let error = y.backward(None, false, false).unwrap_err();
    assert!(matches!(&error, Error::Graph(m) if m == "checkpoint: expected the shape () of the first run when run again, got (2,)"), "{error}");
    assert!(x.grad().is_none());
}

#[test]
fn a_checkpoint_reaches_what_its_function_closes_over() {
    let (x, w) = (leaf(), leaf());
    let closed = w.clone();
    let f = move |x: &[Tensor]| ops::mul(&ops::exp(&x[0])?, &closed);
    let y = ops::checkpoint(Arc::new(f), std::slice::from_ref(&x)).unwrap();
    ops::sum(&y, None, false).unwrap().backward(None, false, false).unwrap();
    let (xs, ws) = (elements(x.array()), elements(w.array()));
    let dw: Vec<f64> = xs.iter().map(|x| x.exp()).collect();
    let dx: Vec<f64> = dw.iter().zip(&ws).map(|(e, w)| e * w).collect();
    crate::support::assert_close("dw", &elements(w.grad().unwrap().array()), &dw, 1e-14);
    crate::support::assert_close("dx", &elements(x.grad().unwrap().array()), &dx, 1e-14);
}
