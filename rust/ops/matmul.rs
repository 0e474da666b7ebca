//! y = a b; da = dy bᵀ, db = aᵀ dy. And the affine map of a layer, y = x wᵀ + b, as one node.

use super::shape::{swapaxes, to_shape, unsqueeze};
use super::unary::{self, relu_gradient};
use crate::array::{Array, DType, Dims};
use crate::autograd::{Inputs, Op, Tensor, linear as maps};
use crate::kernels::gemm::{self, Gemm, as_matrix};
use crate::kernels::{map, reduce};
use crate::{Result, bail, with_float};

struct Matmul {
    a: Array,
    b: Array,
}
impl Op for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let (a, b) = (dx.input(0, &self.a), dx.input(1, &self.b));
        let turned = |x: &Tensor| swapaxes(x, -1, -2);
        dx.give(0, || if a.ndim() == 2 && b.ndim() > 2 { outer(&turned(dy)?, &turned(&b)?) } else { product(dy, &turned(&b)?) })?;
        dx.give(1, || if b.ndim() == 2 && a.ndim() > 2 { outer(&a, dy) } else { product(&turned(&a)?, dy) })
    }
}

/// Σ xᵀ y over a batch, as one product: the gradient of a matrix that all of the batch was multiplied by.
fn outer(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let rows = |x: &Tensor| {
        let (last, sizes) = x.shape().split_last().expect("two axes and more");
        to_shape(x, Dims::new(&[sizes.iter().product(), *last])?)
    };
    product(&swapaxes(&rows(x)?, 0, 1)?, &rows(y)?)
}

fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let y = gemm::matmul(a.array(), b.array())?;
    Ok(Tensor::record(y, &[a, b], || Matmul { a: a.array().clone(), b: b.array().clone() }))
}

/// Matrix product as NumPy's `@`: one-dimensional operands are rows (left) or columns (right), leading axes broadcast.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.ndim() == 0 || b.ndim() == 0 {
        bail!(Value, "matmul: expected at least one dimension, got shapes {} and {}", a.shape(), b.shape());
    }
    let dtype = a.dtype().promote(b.dtype());
    let dtype = if dtype.is_float() { dtype } else { DType::I64 };
    let (row, column) = (a.ndim() == 1, b.ndim() == 1);
    let inner = (a.shape()[a.ndim() - 1], b.shape()[b.ndim() - if column { 1 } else { 2 }]);
    if inner.0 != inner.1 {
        bail!(Value, "matmul: inner dimensions differ, got {} @ {}", a.shape(), b.shape());
    }
    let (a, b) = (maps::cast(a, dtype)?, maps::cast(b, dtype)?);
    if !row && !column {
        return product(&a, &b);
    }
    let left = if row { unsqueeze(&a, 0)? } else { a };
    let right = if column { unsqueeze(&b, -1)? } else { b };
    let y = product(&left, &right)?;
    let keep = y.ndim() - 2;
    let mut shape = *y.shape();
    if column {
        shape.remove(keep + 1);
    }
    if row {
        shape.remove(keep);
    }
    to_shape(&y, shape)
}

/// y (n, out) = x (n, in) wᵀ + b; dx = dy w, dw = dyᵀ x, db = Σₙ dy. With a ReLU after it y = max(·, 0), and dy counts where y > 0.
struct Linear {
    /// Freed by the last backward before there is a dx.
    x: Option<Array>,
    w: Array,
    b: Option<Array>,
    /// What there is if a ReLU follows.
    y: Option<Array>,
}
impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        if dx.recording() {
            let saved: Vec<&Array> = [self.x(), &self.w].into_iter().chain(&self.b).collect();
            return dx.give_through(dy, &saved, |i| composed(&i[0], &i[1], i.get(2), self.y.is_some()));
        }
        let dy = self.through_relu(dy.array().clone())?;
        let dy = map::dense(&dy, dy.dtype())?;
        self.of_parameters(&dy, dx)?;
        self.of_input(&dy, dx)
    }
    fn last_backward(&mut self, dy: Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let dy = self.through_relu(dy.into_array())?;
        let dy = map::dense(&dy, dy.dtype())?;
        self.of_parameters(&dy, dx)?;
        (self.x, self.y) = (None, None);
        self.of_input(&dy, dx)
    }
}

impl Linear {
    fn x(&self) -> &Array {
        self.x.as_ref().expect("there is no backward after the last")
    }

    /// The gradient of x wᵀ + b.
    fn through_relu(&self, dy: Array) -> Result<Array> {
        match &self.y {
            Some(y) => relu_gradient(dy, y),
            None => Ok(dy),
        }
    }

    fn of_parameters(&self, dy: &Array, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(1, || multiply(dy, true, self.x()))?;
        if self.b.is_some() {
            dx.give(2, || Ok(Tensor::constant(reduce::sum(dy, &[0], false)?)))?;
        }
        Ok(())
    }

    fn of_input(&self, dy: &Array, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || multiply(dy, false, &self.w))
    }
}

/// `a b`, or `aᵀ b`, of two matrices of one float type.
fn multiply(a: &Array, transposed: bool, b: &Array) -> Result<Tensor> {
    with_float!(a.dtype(), T => {
        let (left, right) = (as_matrix::<T>(a), as_matrix::<T>(b));
        let left = if transposed { left.transposed() } else { left };
        let mut out = Array::unfilled(a.dtype(), Dims::new(&[left.rows, right.cols])?)?;
        gemm::gemm_into(out.fresh::<T>(), left, right, false);
        Ok(Tensor::constant(out))
    }, else unreachable!("only floats are recorded"))
}

/// The definition: `x @ wᵀ + b`, and `relu` of it.
pub fn composed(x: &Tensor, w: &Tensor, b: Option<&Tensor>, relu: bool) -> Result<Tensor> {
    let mut y = matmul(x, &swapaxes(w, 0, 1)?)?;
    if let Some(b) = b {
        y = super::binary::add(&y, b)?;
    }
    if relu { unary::relu(&y) } else { Ok(y) }
}

/// `x (…, in) wᵀ + b` for `w (out, in)` and `b (out,)`, as one node.
pub fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    affine(x, w, b, false)
}

/// `max(x wᵀ + b, 0)`, as one node that keeps only what comes out.
pub fn linear_relu(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    affine(x, w, b, true)
}

fn affine(x: &Tensor, w: &Tensor, b: Option<&Tensor>, relu: bool) -> Result<Tensor> {
    if w.ndim() != 2 || x.ndim() == 0 || x.shape()[x.ndim() - 1] != w.shape()[1] {
        let want = if w.ndim() == 2 { format!("(..., {})", w.shape()[1]) } else { "a weight of shape (out, in)".into() };
        bail!(Value, "linear: expected {want}, got {} with weight {}", x.shape(), w.shape());
    }
    if let Some(b) = b
        && b.shape()[..] != w.shape()[..1]
    {
        bail!(Value, "linear: expected a bias of shape ({},), got {}", w.shape()[0], b.shape());
    }
    let mut dtype = x.dtype().promote(w.dtype());
    dtype = b.map_or(dtype, |b| dtype.promote(b.dtype()));
    if !dtype.is_float() {
        bail!(Type, "linear: expected float32 or float64, got {} with weight {}", x.dtype(), w.dtype());
    }
    if [x, w].into_iter().chain(b).any(|t| t.dtype() != dtype) {
        let b = b.map(|b| maps::cast(b, dtype)).transpose()?;
        return affine(&maps::cast(x, dtype)?, &maps::cast(w, dtype)?, b.as_ref(), relu);
    }
    if x.ndim() != 2 {
        let (mut shape, last) = (*x.shape(), x.ndim() - 1);
        let rows = to_shape(x, Dims::new(&[shape[..last].iter().product(), shape[last]])?)?;
        shape[last] = w.shape()[0];
        return to_shape(&affine(&rows, w, b, relu)?, shape);
    }
    let y = with_float!(dtype, T => forward::<T>(x.array(), w.array(), b.map(Tensor::array), relu), else unreachable!("checked above"))?;
    let saved = |y| Linear { x: Some(x.array().clone()), w: w.array().clone(), b: b.map(|b| b.array().clone()), y };
    let inputs = [x, w, b.unwrap_or(w)];
    let inputs = &inputs[..2 + usize::from(b.is_some())];
    if !relu {
        return Ok(Tensor::record(y, inputs, || saved(None)));
    }
    let kept = y.clone();
    Ok(Tensor::record(y, inputs, || saved(Some(kept))))
}

/// The bias is written first and the product added to it: one sweep less over the output.
fn forward<T: Gemm>(x: &Array, w: &Array, b: Option<&Array>, relu: bool) -> Result<Array> {
    let (n, out) = (x.shape()[0], w.shape()[0]);
    let mut y = Array::unfilled(T::DTYPE, Dims::new(&[n, out])?)?;
    let b = b.map(|b| map::dense(b, b.dtype())).transpose()?;
    let row = b.as_deref().map(|b| b.as_slice().expect("made contiguous"));
    gemm::gemm_affine(y.fresh::<T>(), as_matrix(x), as_matrix(w).transposed(), row, relu);
    Ok(y)
}
