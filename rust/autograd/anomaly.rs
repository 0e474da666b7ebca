//! Where the first infinity or NaN arose: the op, the layer and the shape.
//!
//! Invariant: off, a thread pays one look at a flag per op; on, every result and every gradient is looked at once, while it is
//! still in the cache. Views are not: what they show was looked at when it was made.

use super::node::Node;
use super::tensor::Tensor;
use crate::array::{Array, DType};
use crate::kernels::finite::all_finite;
use crate::{Error, Result};
use std::cell::{Cell, RefCell};
use std::sync::Arc;

#[derive(Default)]
struct Watch {
    /// The layers that are being computed, outermost first.
    layers: Vec<Arc<str>>,
    found: Option<String>,
}

thread_local! {
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    static WATCH: RefCell<Watch> = RefCell::default();
}

/// Whether this thread looks for anomalies.
#[inline]
pub fn is_watching() -> bool {
    WATCHING.get()
}

/// Switches the search on or off and returns what it was; either way what was seen is forgotten.
pub fn set_watching(on: bool) -> bool {
    WATCH.take();
    WATCHING.replace(on)
}

/// Enters a layer.
pub fn enter(layer: Arc<str>) {
    WATCH.with_borrow_mut(|watch| watch.layers.push(layer));
}

/// Leaves the layer entered last.
pub fn leave() {
    WATCH.with_borrow_mut(|watch| watch.layers.pop());
}

/// The anomaly seen since the last call, if any.
pub fn check() -> Result<()> {
    match WATCH.with_borrow_mut(|watch| watch.found.take()) {
        Some(message) => Err(Error::NonFinite(message)),
        None => Ok(()),
    }
}

/// Numbers of `array` that are not finite; those of views and of integers are not looked for.
fn bad(array: &Array) -> usize {
    fn count<T: crate::kernels::simd::Float>(x: Option<&[T]>) -> usize {
        match x {
            Some(x) if !all_finite(x) => x.iter().filter(|x| !x.is_finite()).count(),
            _ => 0,
        }
    }
    match array.dtype() {
        DType::F32 => count(array.as_slice::<f32>()),
        DType::F64 => count(array.as_slice::<f64>()),
        _ => 0,
    }
}

fn place(layer: Option<&Arc<str>>) -> String {
    layer.map(|layer| format!(", in {layer}")).unwrap_or_default()
}

/// Looks at the result of an op.
pub(super) fn forward(op: &str, result: &Array, inputs: &[&Tensor]) {
    let bad_here = bad(result);
    if bad_here == 0 {
        return;
    }
    WATCH.with_borrow_mut(|watch| {
        let place = place(watch.layers.last());
        let came = inputs.iter().find(|x| bad(x.array()) > 0);
        let message = match came {
            Some(x) => format!("{op}: expected a finite input, got {} of {} values that are not, of shape {}{place}", bad(x.array()), x.size(), x.shape()),
            None => format!("{op}: expected a finite result, got {bad_here} of {} values that are not, of shape {}{place}", result.size(), result.shape()),
        };
        watch.found.get_or_insert(message);
    });
}

/// The layer that is being computed.
pub(super) fn layer() -> Option<Arc<str>> {
    WATCH.with_borrow(|watch| watch.layers.last().cloned())
}

/// Looks at a gradient that the backward of a node gave.
pub(super) fn backward(node: &Node, gradient: &Tensor) -> Result<()> {
    let bad = bad(gradient.array());
    if bad == 0 {
        return Ok(());
    }
    let place = place(node.layer.as_ref());
    let (op, size, shape) = (node.name, gradient.size(), gradient.shape());
    Err(Error::NonFinite(format!("backward of {op}: expected a finite gradient, got {bad} of {size} values that are not, of shape {shape}{place}")))
}
