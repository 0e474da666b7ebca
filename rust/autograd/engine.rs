//! Backward: one ordered sweep from the latest node down.
//!
//! Invariant: nodes are numbered in the order they were made, so when the highest pending number is taken, every gradient it
//! will ever get has arrived. No recursion, no visited set. Leaves are written only when the whole sweep has succeeded.

use super::anomaly;
use super::linear::{accumulate, accumulate_part, cast, sum_to};
use super::mode::with_recording;
use super::node::{Adding, Body, Edge, Inputs, Leaf, Node};
use super::tensor::Tensor;
use crate::array::{Array, Layout, Scalar};
use crate::kernels::interrupt;
use crate::{Error, Result, bail};
use smallvec::SmallVec;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Numbers are already distinct and dense: no need to scramble them much.
#[derive(Default)]
struct IdHasher(u64);
impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are hashed");
    }
    fn write_u64(&mut self, id: u64) {
        self.0 = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
type Ids<V> = HashMap<u64, V, BuildHasherDefault<IdHasher>>;

struct Ready(Arc<Node>);
impl PartialEq for Ready {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}
impl Eq for Ready {}
impl PartialOrd for Ready {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Ready {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

/// A backward under way.
pub(super) struct Sweep {
    /// Gradients that have arrived, by number of node or leaf.
    pending: Ids<Tensor>,
    ready: BinaryHeap<Ready>,
    /// Leaves in the order they were first reached.
    leaves: Vec<Arc<Leaf>>,
}

/// Gradients that a sweep has room for before its lists grow: those of a small network, so that they never do.
const ROOM: usize = 14;

impl Sweep {
    fn new() -> Sweep {
        let pending = Ids::with_capacity_and_hasher(ROOM, BuildHasherDefault::default());
        Sweep { pending, ready: BinaryHeap::with_capacity(ROOM), leaves: Vec::with_capacity(ROOM) }
    }

    /// Takes the gradient that `node` gives to `edge`, one of its inputs.
    pub(super) fn give(&mut self, node: &Node, edge: &Edge, gradient: Tensor) -> Result<()> {
        if anomaly::is_watching() {
            anomaly::check()?;
            anomaly::backward(node, &gradient)?;
        }
        self.arrive(edge, gradient)
    }

    /// Adds a gradient to what `edge` has got so far.
    fn arrive(&mut self, edge: &Edge, mut gradient: Tensor) -> Result<()> {
        let (Some(id), Some((shape, dtype))) = (edge.id(), edge.meta()) else {
            return Ok(());
        };
        if !edge.is_on() {
            return Ok(());
        }
        if gradient.shape() != shape {
            gradient = sum_to(&gradient, shape)?;
        }
        if gradient.dtype() != dtype {
            gradient = cast(&gradient, dtype)?;
        }
        match self.pending.entry(id) {
            Entry::Occupied(held) => {
                let sum = accumulate(held.remove(), &gradient)?;
                self.pending.insert(id, sum);
            }
            Entry::Vacant(place) => {
                place.insert(gradient);
                match edge {
                    Edge::Node(node) => self.ready.push(Ready(node.clone())),
                    Edge::Leaf(leaf) => self.leaves.push(leaf.clone()),
                    Edge::Off => {}
                }
            }
        }
        Ok(())
    }

    /// Adds a gradient of what `part` says of the layout of `edge`'s to what it has got so far. Says whether there was anything.
    pub(super) fn add_part(&mut self, edge: &Edge, gradient: &Tensor, part: impl FnOnce(&Layout) -> Layout) -> Result<bool> {
        let Some((id, held)) = edge.id().and_then(|id| Some((id, self.pending.remove(&id)?))) else { return Ok(false) };
        self.pending.insert(id, accumulate_part(held, gradient, part)?);
        Ok(true)
    }

    /// Adds what arrived at leaves to their gradients: first all sums, so that an error leaves every gradient as it was.
    fn give_to_leaves(&mut self) -> Result<()> {
        // In one order, so that no two sweeps wait for each other.
        self.leaves.sort_unstable_by_key(|leaf| leaf.id);
        let _adding: SmallVec<[Adding<'_>; ROOM]> = self.leaves.iter().map(|leaf| leaf.adding()).collect();
        for leaf in &self.leaves {
            let held = leaf.grad().clone();
            if let Some(held) = held {
                let fresh = self.pending.remove(&leaf.id).expect("a reached leaf has a gradient");
                self.pending.insert(leaf.id, accumulate(fresh, &held)?);
            }
        }
        for leaf in &self.leaves {
            let sum = self.pending.remove(&leaf.id);
            // Dropped after the lock: a recorded gradient may hold objects of Python.
            let before = std::mem::replace(&mut *leaf.grad(), sum);
            drop(before);
        }
        Ok(())
    }

    /// Runs every node down to the leaves. `keep` names nodes whose gradient is an answer and stays in `pending`;
    /// nodes made before `oldest` are not entered.
    fn run(&mut self, keep: &[u64], oldest: u64, retain: bool, recording: bool) -> Result<()> {
        while let Some(Ready(node)) = self.ready.pop() {
            let gradient = self.pending.remove(&node.id).expect("a ready node has a gradient");
            if keep.contains(&node.id) {
                self.pending.insert(node.id, gradient.clone());
            }
            if node.id <= oldest {
                continue;
            }
            let mut body = node.body(retain).ok_or_else(|| {
                Error::Graph(format!(
                    "backward: expected a graph that is still whole, got one already freed at `{}`; pass retain_graph=True the first time",
                    node.name
                ))
            })?;
            match Arc::get_mut(&mut body) {
                Some(Body { inputs, op }) if !recording => {
                    op.last_backward(gradient, &mut Inputs { node: &node, edges: inputs, recording, sweep: self })?;
                }
                _ => body.op.backward(&gradient, &mut Inputs { node: &node, edges: &body.inputs, recording, sweep: self })?,
            }
            if interrupt::stops() {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }
}

/// The gradient backward starts from: ones for a single element, otherwise what was given.
fn seed(y: &Tensor, gradient: Option<Tensor>, op: &str) -> Result<Tensor> {
    let Some(g) = gradient else {
        if y.size() != 1 {
            bail!(Value, "{op}: expected a gradient for an output of shape {}, got none; only a single element has a default", y.shape());
        }
        return Ok(Tensor::constant(Array::full(y.shape(), Scalar::Int(1), y.dtype())?));
    };
    if g.shape() != y.shape() {
        bail!(Value, "{op}: expected a gradient of shape {}, got {}", y.shape(), g.shape());
    }
    if !g.dtype().is_float() {
        bail!(Type, "{op}: expected a float gradient, got {}", g.dtype());
    }
    cast(&g, y.dtype())
}

fn check_on_tape(y: &Tensor, op: &str) -> Result<()> {
    if !y.requires_grad() {
        bail!(Graph, "{op}: expected a tensor that requires grad, got one that was not recorded");
    }
    Ok(())
}

/// See [`Tensor::backward`].
pub(super) fn backward(y: &Tensor, gradient: Option<Tensor>, retain: bool, create: bool) -> Result<()> {
    check_on_tape(y, "backward")?;
    let gradient = seed(y, gradient, "backward")?;
    let mut sweep = Sweep::new();
    with_recording(create, || {
        sweep.arrive(y.edge(), gradient)?;
        sweep.run(&[], 0, retain || create, create)?;
        interrupt::whole(|| sweep.give_to_leaves())
    })
}

/// Gradients of `outputs` with respect to `inputs`, leaving every `.grad` alone. `None` for an input that was not used.
/// `grad_outputs` has one entry per output; `None` entries need outputs of one element.
pub fn grad(outputs: &[Tensor], inputs: &[Tensor], grad_outputs: Option<&[Option<Tensor>]>, retain: bool, create: bool) -> Result<Vec<Option<Tensor>>> {
    if let Some(given) = grad_outputs
        && given.len() != outputs.len()
    {
        bail!(Value, "grad: expected {} grad_outputs, one per output, got {}", outputs.len(), given.len());
    }
    inputs.iter().try_for_each(|x| check_on_tape(x, "grad"))?;
    let mut sweep = Sweep::new();
    with_recording(create, || {
        for (i, y) in outputs.iter().enumerate() {
            let given = grad_outputs.and_then(|g| g[i].clone());
            let gradient = seed(y, given, "grad")?;
            sweep.arrive(y.edge(), gradient)?;
        }
        let keep: Vec<u64> = inputs.iter().filter_map(|x| x.edge().id()).collect();
        // Nothing older than the oldest input can lead to one; only where all are nodes does that spare work.
        let all_nodes = inputs.iter().all(|x| matches!(x.edge(), Edge::Node(_)));
        let oldest = if all_nodes { keep.iter().copied().min().unwrap_or(u64::MAX) } else { 0 };
        sweep.run(&keep, oldest, retain || create, create)?;
        Ok(keep.iter().map(|id| sweep.pending.get(id).cloned()).collect())
    })
}

/// Gradients of `y` at places on the tape that are older than `since`; nodes older than that are not entered.
pub fn grad_at(y: &Tensor, edges: &[Edge], gradient: Tensor, since: u64, create: bool) -> Result<Vec<Option<Tensor>>> {
    let mut sweep = Sweep::new();
    with_recording(create, || {
        sweep.arrive(y.edge(), gradient)?;
        let keep: Vec<u64> = edges.iter().filter_map(Edge::id).collect();
        sweep.run(&keep, since - 1, create, create)?;
        Ok(edges.iter().map(|e| e.id().and_then(|id| sweep.pending.get(&id).cloned())).collect())
    })
}

/// The places older than `since` that the graph of `y` leads to, each once, in the order of their making.
pub fn boundary(y: &Tensor, since: u64) -> SmallVec<[Edge; 3]> {
    let mut seen = Ids::<Option<Edge>>::default();
    let mut open = vec![y.edge().clone()];
    while let Some(edge) = open.pop() {
        let Some(id) = edge.id() else { continue };
        if seen.contains_key(&id) {
            continue;
        }
        match &edge {
            Edge::Node(node) if id >= since => {
                open.extend(node.inputs());
                seen.insert(id, None);
            }
            _ => {
                seen.insert(id, Some(edge));
            }
        }
    }
    let mut found: SmallVec<[Edge; 3]> = seen.into_values().flatten().collect();
    found.sort_by_key(|e| e.id());
    found
}
