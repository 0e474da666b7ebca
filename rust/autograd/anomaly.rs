//! Where the first infinity or NaN arose: the op, the layer and the shape.
//!
//! Invariant: off, a thread pays one look at a flag per op; on, every result and every gradient is looked at once, while it is
//! still in the cache. Views are not: what they show was looked at when it was made.

use super::node::Node;
use super::tensor::Tensor;
use crate::array::{Array, DType};
use crate::kernels::finite::all_finite;
use crate::{Error, Result};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// A layer that is being computed. What it is called is asked for only where something is wrong.
pub trait Layer: Any + Send + Sync {
    /// Its name inside the outermost layer.
    fn label(&self, outermost: &dyn Layer) -> String;
}

/// Where an op was called: a layer, in the one that called it.
pub struct Place {
    layer: Box<dyn Layer>,
    outer: Option<Arc<Place>>,
}

impl Place {
    fn label(&self) -> String {
        let mut outermost = self;
        while let Some(outer) = &outermost.outer {
            outermost = outer;
        }
        self.layer.label(&*outermost.layer)
    }
}

#[derive(Default)]
struct Watch {
    /// The layer that is being computed.
    place: Option<Arc<Place>>,
    /// What is wrong, and in which layer.
    found: Option<(String, Option<Arc<Place>>)>,
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

/// Computes inside a layer.
pub fn inside<R>(layer: Box<dyn Layer>, compute: impl FnOnce() -> R) -> R {
    let outer = place();
    set_place(Some(Arc::new(Place { layer, outer: outer.clone() })));
    let result = compute();
    set_place(outer);
    result
}

fn set_place(place: Option<Arc<Place>>) {
    // What was there is dropped after the borrow: that may run code of the caller's.
    let _before = WATCH.with_borrow_mut(|watch| std::mem::replace(&mut watch.place, place));
}

/// The anomaly seen since the last call, if any. The layer is asked for its name here, after the op: during it locks may be held.
pub fn check() -> Result<()> {
    match WATCH.with_borrow_mut(|watch| watch.found.take()) {
        Some((message, place)) => Err(Error::NonFinite(message + &named(place.as_ref()))),
        None => Ok(()),
    }
}

/// Drops what was seen: numbers of work that failed or was left unfinished are no anomaly.
pub fn forget() {
    // Dropped after the borrow, as in `set_place`.
    let _seen = WATCH.with_borrow_mut(|watch| watch.found.take());
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

fn named(place: Option<&Arc<Place>>) -> String {
    place.map(|place| format!(", in {}", place.label())).unwrap_or_default()
}

/// Looks at the result of an op.
pub(super) fn forward(op: &str, result: &Array, inputs: &[&Tensor]) {
    let bad_here = bad(result);
    if bad_here == 0 {
        return;
    }
    let came = inputs.iter().find(|x| bad(x.array()) > 0);
    let message = match came {
        Some(x) => format!("{op}: expected a finite input, got {} of {} values that are not, of shape {}", bad(x.array()), x.size(), x.shape()),
        None => format!("{op}: expected a finite result, got {bad_here} of {} values that are not, of shape {}", result.size(), result.shape()),
    };
    WATCH.with_borrow_mut(|watch| {
        let place = watch.place.clone();
        watch.found.get_or_insert((message, place));
    });
}

/// The layer that is being computed.
pub(super) fn place() -> Option<Arc<Place>> {
    WATCH.with_borrow(|watch| watch.place.clone())
}

/// Looks at a gradient that the backward of a node gave.
pub(super) fn backward(node: &Node, gradient: &Tensor) -> Result<()> {
    let bad = bad(gradient.array());
    if bad == 0 {
        return Ok(());
    }
    let place = named(node.place.as_ref());
    let (op, size, shape) = (node.name, gradient.size(), gradient.shape());
    Err(Error::NonFinite(format!("backward of {op}: expected a finite gradient, got {bad} of {size} values that are not, of shape {shape}{place}")))
}
