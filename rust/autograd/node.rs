//! The tape: nodes numbered in the order they were made, which is already topological.
//!
//! Invariants: a node's inputs have smaller numbers than the node; a node holds values ([`Array`]s) and edges to its inputs,
//! never its own output, so nodes make no cycles; dropping a graph of any depth uses constant stack. One way round there is: a leaf
//! whose gradient was recorded (`create_graph`) holds nodes that lead back to it, until that gradient is cleared.

use super::anomaly;
use super::engine::Sweep;
use super::tensor::Tensor;
use crate::Result;
use crate::array::queue::{Queue, drop_in_turn};
use crate::array::{Array, DType, Dims, Layout};
use crate::kernels::fork;
use smallvec::SmallVec;
use std::cell::RefCell;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An operation that was recorded: its fields are exactly what it saved.
pub trait Op: Send + Sync + 'static {
    /// The op's name, as users see it in `grad_fn` and in errors.
    fn name(&self) -> &'static str;

    /// Gives each input that wants one its gradient: `dx.give(i, || …)`. Written over tensors, so that it is recorded
    /// itself when a gradient of the gradient was asked for.
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()>;

    /// As `backward`, where nothing needs what was saved, or this `dy`, any more: memory may be freed or written over.
    fn last_backward(&mut self, dy: Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        self.backward(&dy, dx)
    }
}

static NEXT: AtomicU64 = AtomicU64::new(1);
static LIVE: AtomicI64 = AtomicI64::new(0);

fn next_id() -> u64 {
    NEXT.fetch_add(1, Relaxed)
}

/// The number the next node will at least have: what was made before has a smaller one.
pub fn mark() -> u64 {
    NEXT.load(Relaxed)
}

/// Recorded operations that are still held by some tensor or node.
pub fn live_nodes() -> i64 {
    LIVE.load(Relaxed)
}

/// A tensor that gradients are accumulated for: where the tape begins.
pub struct Leaf {
    pub(super) id: u64,
    pub(super) shape: Dims,
    pub(super) dtype: DType,
    /// Whether gradients flow here now.
    wanted: AtomicBool,
    /// The process of which a thread adds to the gradient, by [`fork::generation`] from 1 on; 0 if none does.
    adding: AtomicUsize,
    grad: Mutex<Option<Tensor>>,
}

/// The right to add to the gradient of a leaf. It is not the gradient's lock, since adding is long and may want the GIL, and no
/// lock at all, since a forked child must not wait for a thread of its parent's.
pub(super) struct Adding<'a>(&'a Leaf);

impl Drop for Adding<'_> {
    fn drop(&mut self) {
        self.0.adding.store(0, Release);
    }
}

impl Leaf {
    pub(super) fn new(shape: Dims, dtype: DType) -> Leaf {
        Leaf { id: next_id(), shape, dtype, wanted: AtomicBool::new(true), adding: AtomicUsize::new(0), grad: Mutex::new(None) }
    }

    /// Lets gradients flow here, or stops them. Graphs lead here all the same, so they flow again once they are let.
    pub(super) fn want(&self, on: bool) {
        self.wanted.store(on, Relaxed);
    }

    /// Waits until no other thread adds to the gradient.
    pub(super) fn adding(&self) -> Adding<'_> {
        let here = fork::generation() + 1;
        loop {
            let held = self.adding.load(Relaxed);
            if held != here && self.adding.compare_exchange(held, here, Acquire, Relaxed).is_ok() {
                return Adding(self);
            }
            std::thread::yield_now();
        }
    }

    /// The accumulated gradient.
    pub fn grad(&self) -> MutexGuard<'_, Option<Tensor>> {
        self.grad.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One recorded operation.
pub struct Node {
    pub(super) id: u64,
    pub(super) name: &'static str,
    /// Shape and type of the output.
    pub(super) shape: Dims,
    pub(super) dtype: DType,
    /// The layer it was made in, where anomalies are looked for.
    pub(super) place: Option<Arc<anomaly::Place>>,
    body: Mutex<Option<Arc<Body>>>,
}

/// What backward needs; freed when backward has passed.
pub(super) struct Body<O: ?Sized = dyn Op> {
    pub(super) inputs: SmallVec<[Edge; 3]>,
    pub(super) op: O,
}

impl Node {
    pub(super) fn new(output: &Array, body: Arc<Body>) -> Node {
        LIVE.fetch_add(1, Relaxed);
        let name = body.op.name();
        let place = if anomaly::is_watching() { anomaly::place() } else { None };
        Node { id: next_id(), name, shape: *output.shape(), dtype: output.dtype(), place, body: Mutex::new(Some(body)) }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Body>>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the inputs came from; none once the body is freed.
    pub(super) fn inputs(&self) -> SmallVec<[Edge; 3]> {
        self.slot().as_ref().map(|body| body.inputs.clone()).unwrap_or_default()
    }

    /// The body, left in place with `retain`; `None` if it was freed before.
    pub(super) fn body(&self, retain: bool) -> Option<Arc<Body>> {
        let mut slot = self.slot();
        if retain { slot.clone() } else { slot.take() }
    }
}

thread_local! {
    static DOOMED: RefCell<Queue<Arc<Body>>> = const { RefCell::new(Queue::EMPTY) };
}

impl Drop for Node {
    /// Dropping a body may drop the nodes before it.
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Relaxed);
        if let Some(body) = self.slot().take().filter(|body| Arc::strong_count(body) == 1) {
            drop_in_turn(&DOOMED, body);
        }
    }
}

/// Where a tensor's gradient goes.
#[derive(Clone)]
pub enum Edge {
    /// Nowhere: the tensor needs none.
    Off,
    /// To a leaf, unless it is switched off.
    Leaf(Arc<Leaf>),
    Node(Arc<Node>),
}

impl Edge {
    #[inline]
    pub fn is_on(&self) -> bool {
        match self {
            Edge::Off => false,
            Edge::Leaf(leaf) => leaf.wanted.load(Relaxed),
            Edge::Node(_) => true,
        }
    }

    /// The edge to record: what is off now stays off in the graph.
    #[inline]
    pub(super) fn recorded(&self) -> Edge {
        if self.is_on() { self.clone() } else { Edge::Off }
    }

    /// The gradient accumulated so far, locked, where a leaf is.
    pub fn grad(&self) -> Option<MutexGuard<'_, Option<Tensor>>> {
        match self {
            Edge::Leaf(leaf) => Some(leaf.grad()),
            _ => None,
        }
    }

    pub(super) fn id(&self) -> Option<u64> {
        match self {
            Edge::Off => None,
            Edge::Leaf(leaf) => Some(leaf.id),
            Edge::Node(node) => Some(node.id),
        }
    }

    pub(super) fn meta(&self) -> Option<(&Dims, DType)> {
        match self {
            Edge::Off => None,
            Edge::Leaf(leaf) => Some((&leaf.shape, leaf.dtype)),
            Edge::Node(node) => Some((&node.shape, node.dtype)),
        }
    }
}

/// What an op's backward sees of its node: which inputs want a gradient, its saved values as tensors, and where to give.
pub struct Inputs<'a> {
    pub(super) node: &'a Arc<Node>,
    pub(super) edges: &'a [Edge],
    pub(super) recording: bool,
    pub(super) sweep: &'a mut Sweep,
}

impl Inputs<'_> {
    /// Whether input `i` wants a gradient.
    pub fn wants(&self, i: usize) -> bool {
        self.edges[i].is_on()
    }

    /// Where the gradients go.
    pub fn edges(&self) -> &[Edge] {
        self.edges
    }

    /// Whether this backward is itself recorded (`create_graph`).
    pub fn recording(&self) -> bool {
        self.recording
    }

    /// Gives input `i` its gradient, once, evaluated only if it is wanted. It may still be broadcast against the input's
    /// shape or wider in type: the engine undoes both.
    pub fn give(&mut self, i: usize, gradient: impl FnOnce() -> Result<Tensor>) -> Result<()> {
        if self.wants(i) { self.sweep.give(self.node, &self.edges[i], gradient()?) } else { Ok(()) }
    }

    /// As [`Inputs::give`] of a gradient that is zero but where `part` says, of the input's layout: `gradient` is what stands there,
    /// `whole` makes all of it. To what has arrived before, only that part is added.
    pub fn give_part(&mut self, i: usize, gradient: &Tensor, part: impl FnOnce(&Layout) -> Layout, whole: impl FnOnce() -> Result<Tensor>) -> Result<()> {
        let whole_only = self.recording || anomaly::is_watching() || !self.wants(i);
        if !whole_only && self.sweep.add_part(&self.edges[i], gradient, part)? { Ok(()) } else { self.give(i, whole) }
    }

    /// A saved input as a tensor: still attached to the graph when backward is recorded.
    pub fn input(&self, i: usize, saved: &Array) -> Tensor {
        let edge = if self.recording { self.edges[i].clone() } else { Edge::Off };
        Tensor::with_edge(saved.clone(), edge)
    }

    /// The saved output as a tensor: attached likewise.
    pub fn output(&self, saved: &Array) -> Tensor {
        let edge = if self.recording { Edge::Node(self.node.clone()) } else { Edge::Off };
        Tensor::with_edge(saved.clone(), edge)
    }

    /// Gives every input its gradient through a composed definition of the op: how fused ops get their second derivative.
    /// `saved` holds the value of each input in order; `composed` recomputes the output from them.
    pub fn give_through(&mut self, dy: &Tensor, saved: &[&Array], composed: impl FnOnce(&[Tensor]) -> Result<Tensor>) -> Result<()> {
        let inputs: Vec<Tensor> = saved.iter().enumerate().map(|(i, x)| super::linear::identity(&self.input(i, x))).collect();
        let y = composed(&inputs)?;
        let wanted: Vec<usize> = (0..saved.len()).filter(|&i| self.wants(i)).collect();
        let targets: Vec<Tensor> = wanted.iter().map(|&i| inputs[i].clone()).collect();
        let grads = super::engine::grad(&[y], &targets, Some(&[Some(dy.clone())]), true, self.recording)?;
        let found = wanted.into_iter().zip(grads).filter_map(|(i, grad)| Some((i, grad?)));
        found.into_iter().try_for_each(|(i, grad)| self.give(i, || Ok(grad)))
    }
}
