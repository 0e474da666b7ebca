//! Tensors: an array and where its gradient goes.

use super::anomaly;
use super::mode::is_recording;
use super::node::{Body, Edge, Leaf, Node, Op};
use crate::array::{Array, DType, Dims, Element, Scalar};
use crate::{Result, bail};
use smallvec::SmallVec;
use std::sync::Arc;

/// An array on the tape. A tensor is a value: operations make new ones, and cloning shares storage and place on the tape.
///
/// ```
/// use treadle::{Tensor, ops};
/// let x = Tensor::from_slice(&[3], &[1.0f64, 2.0, 3.0])?.requiring_grad()?;
/// let y = ops::sum(&ops::mul(&x, &x)?, None, false)?;
/// y.backward(None, false, false)?;
/// assert_eq!(x.grad().unwrap().array().as_slice::<f64>(), Some(&[2.0, 4.0, 6.0][..]));
/// # Ok::<(), treadle::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor {
    array: Array,
    edge: Edge,
}

impl Tensor {
    /// A tensor that needs no gradient.
    pub fn constant(array: Array) -> Tensor {
        Tensor { array, edge: Edge::Off }
    }

    pub fn from_slice<T: Element>(shape: &[usize], data: &[T]) -> Result<Tensor> {
        Ok(Tensor::constant(Array::from_slice(shape, data)?))
    }

    pub(super) fn with_edge(array: Array, edge: Edge) -> Tensor {
        Tensor { array, edge }
    }

    /// Puts the result of an op on the tape if recording is on and an input needs a gradient.
    #[inline]
    pub fn record<O: Op>(array: Array, inputs: &[&Tensor], op: impl FnOnce() -> O) -> Tensor {
        if anomaly::is_watching() {
            return Tensor::watched(array, inputs, op());
        }
        if !is_recording() || !array.dtype().is_float() || inputs.iter().all(|x| !x.edge.is_on()) {
            return Tensor::constant(array);
        }
        Tensor::record_edges(array, inputs.iter().map(|x| x.edge.recorded()).collect(), op)
    }

    /// As [`Tensor::record`], for an op that knows the places of its inputs on the tape rather than the inputs.
    #[inline]
    pub fn record_edges<O: Op>(array: Array, edges: SmallVec<[Edge; 3]>, op: impl FnOnce() -> O) -> Tensor {
        if !is_recording() || edges.iter().all(|e| !e.is_on()) {
            return Tensor::constant(array);
        }
        let node = Node::new(&array, Arc::new(Body { inputs: edges, op: op() }));
        Tensor { array, edge: Edge::Node(Arc::new(node)) }
    }

    /// As [`Tensor::record`], after a look at the result.
    #[cold]
    fn watched<O: Op>(array: Array, inputs: &[&Tensor], op: O) -> Tensor {
        anomaly::forward(op.name(), &array, inputs);
        if !array.dtype().is_float() {
            return Tensor::constant(array);
        }
        Tensor::record_edges(array, inputs.iter().map(|x| x.edge.recorded()).collect(), || op)
    }

    /// The same value as a new leaf, which gradients are accumulated for.
    pub fn requiring_grad(&self) -> Result<Tensor> {
        if !self.dtype().is_float() {
            bail!(Type, "requires_grad: expected float32 or float64, got {}", self.dtype());
        }
        let leaf = Leaf::new(*self.shape(), self.dtype());
        Ok(Tensor { array: self.array.clone(), edge: Edge::Leaf(Arc::new(leaf)) })
    }

    /// Switches the gradients of a leaf on or off. A leaf that is off keeps its gradient and its place in graphs.
    pub fn set_requires_grad(&mut self, on: bool) -> Result<()> {
        match &self.edge {
            Edge::Leaf(leaf) => leaf.want(on),
            Edge::Off if on => *self = self.requiring_grad()?,
            Edge::Node(_) if !on => bail!(Graph, "requires_grad: expected a leaf, got the result of a recorded operation; use detach()"),
            _ => {}
        }
        Ok(())
    }

    /// The same value off the tape.
    pub fn detach(&self) -> Tensor {
        Tensor::constant(self.array.clone())
    }

    #[inline]
    pub fn array(&self) -> &Array {
        &self.array
    }

    /// The array, without the tensor's share of it.
    pub fn into_array(self) -> Array {
        self.array
    }

    /// For in-place updates by optimizers: the value changes, the place on the tape stays. Shape and type must stay too.
    pub fn array_mut(&mut self) -> &mut Array {
        &mut self.array
    }

    /// The array for in-place updates as [`Tensor::array_mut`], and the place on the tape.
    pub fn parts_mut(&mut self) -> (&mut Array, &Edge) {
        (&mut self.array, &self.edge)
    }

    #[inline]
    pub fn shape(&self) -> &Dims {
        self.array.shape()
    }

    #[inline]
    pub fn ndim(&self) -> usize {
        self.array.ndim()
    }

    #[inline]
    pub fn size(&self) -> usize {
        self.array.size()
    }

    #[inline]
    pub fn dtype(&self) -> DType {
        self.array.dtype()
    }

    #[inline]
    pub fn edge(&self) -> &Edge {
        &self.edge
    }

    /// Whether a gradient flows to or through this tensor.
    pub fn requires_grad(&self) -> bool {
        self.edge.is_on()
    }

    /// The name of the op that made this tensor, if it is on the tape.
    pub fn op_name(&self) -> Option<&'static str> {
        match &self.edge {
            Edge::Node(node) => Some(node.name),
            _ => None,
        }
    }

    /// The gradient accumulated so far; only leaves have one.
    pub fn grad(&self) -> Option<Tensor> {
        self.edge.grad()?.clone()
    }

    /// Replaces (or with `None` clears) the accumulated gradient of a leaf.
    pub fn set_grad(&self, grad: Option<Tensor>) -> Result<()> {
        let Edge::Leaf(leaf) = &self.edge else {
            bail!(Graph, "grad: expected a leaf that requires grad, got {}", self.op_name().unwrap_or("a constant"));
        };
        if let Some(g) = &grad
            && (g.shape() != self.shape() || g.dtype() != self.dtype())
        {
            let (want, got) = ((self.dtype(), self.shape()), (g.dtype(), g.shape()));
            bail!(Value, "grad: expected {} of shape {}, got {} of shape {}", want.0, want.1, got.0, got.1);
        }
        // A leaf that is its own gradient would hold itself for ever.
        let own = |g: &Tensor| matches!(g.edge(), Edge::Leaf(other) if Arc::ptr_eq(other, leaf));
        let grad = grad.map(|g| if own(&g) { g.detach() } else { g });
        // Dropped after the lock: a recorded gradient may hold objects of Python.
        let before = std::mem::replace(&mut *leaf.grad(), grad);
        drop(before);
        Ok(())
    }

    /// Accumulates the gradients of this tensor into the leaves it was computed from.
    /// `gradient` may be left out for a single element.
    pub fn backward(&self, gradient: Option<Tensor>, retain_graph: bool, create_graph: bool) -> Result<()> {
        super::engine::backward(self, gradient, retain_graph, create_graph)
    }

    /// The only element, as float64.
    pub fn item(&self) -> Result<f64> {
        Ok(self.item_exact()?.as_f64())
    }

    /// The only element.
    pub fn item_exact(&self) -> Result<Scalar> {
        if self.size() != 1 {
            bail!(Value, "item: expected one element, got shape {}", self.shape());
        }
        Ok(crate::with_dtype!(self.dtype(), T => self.array.data::<T>()[self.array.layout().offset].to_scalar()))
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({}, shape={}", self.dtype(), self.shape())?;
        match self.op_name() {
            Some(name) => write!(f, ", grad_fn={name})"),
            None => f.write_str(")"),
        }
    }
}
