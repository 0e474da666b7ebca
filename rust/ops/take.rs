//! Elements taken by number: `y = x[index]` along one axis, its transpose, and what is made of them (one-hot rows, embeddings).

use super::shape;
use crate::array::{Array, DType, Dims, normalize_axis};
use crate::autograd::{Inputs, Op, Tensor, linear};
use crate::kernels::{index as kernel, map};
use crate::{Result, bail};
use std::ops::Range;

/// y = rows of x at an index; dx = dy added at those rows. Axes of x may have become one for it.
struct Take {
    index: Array,
    from: Dims,
    axis: usize,
    shape: Dims,
}
impl Op for Take {
    fn name(&self) -> &'static str {
        "take"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || shape::to_shape(&scatter_add(dy, &self.index, self.from, self.axis)?, self.shape))
    }
}

/// Elements of `x` at `index` (int64, any shape) along `axis`.
pub fn take(x: &Tensor, index: &Tensor, axis: isize) -> Result<Tensor> {
    take_at(x, index, normalize_axis(axis, x.ndim(), "take")?, "take")
}

/// [`take`] under the name of the operation that needs it.
pub(super) fn take_at(x: &Tensor, index: &Tensor, axis: usize, op: &str) -> Result<Tensor> {
    let y = kernel::take(x.array(), index.array(), axis, op)?;
    Ok(Tensor::record(y, &[x], || Take { index: index.array().clone(), from: *x.shape(), axis, shape: *x.shape() }))
}

/// Elements of `x` at `offsets` in its memory along `axes`, which are the places `index` of these as one.
pub(super) fn take_at_offsets(x: &Tensor, offsets: &Array, index: Array, axes: Range<usize>) -> Result<Tensor> {
    let y = kernel::take_at_offsets(x.array(), offsets, axes.clone())?;
    let one = Dims::new(&[x.shape()[axes.clone()].iter().product()])?;
    let from = kernel::take_shape(x.shape(), &one, axes.clone())?;
    Ok(Tensor::record(y, &[x], || Take { index, from, axis: axes.start, shape: *x.shape() }))
}

/// How many elements `take` writes.
pub fn take_work(x: &Tensor, index: &Tensor, axis: isize) -> usize {
    let n = normalize_axis(axis, x.ndim(), "take").map_or(1, |axis| x.shape()[axis]);
    index.size().saturating_mul(x.size() / n.max(1))
}

/// y = zeros with src added at an index; dsrc = dy at that index.
struct ScatterAdd {
    index: Array,
    axis: usize,
}
impl Op for ScatterAdd {
    fn name(&self) -> &'static str {
        "scatter_add"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || take(dy, &Tensor::constant(self.index.clone()), self.axis as isize))
    }
}

fn scatter_add(src: &Tensor, index: &Array, shape: Dims, axis: usize) -> Result<Tensor> {
    let y = kernel::scatter_add(&shape, index, src.array(), axis)?;
    Ok(Tensor::record(y, &[src], || ScatterAdd { index: index.clone(), axis }))
}

/// y = x with src added at an index; dx = dy, dsrc = dy at that index.
struct IndexAdd {
    index: Array,
    axis: usize,
}
impl Op for IndexAdd {
    fn name(&self) -> &'static str {
        "index_add"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || Ok(dy.clone()))?;
        dx.give(1, || take(dy, &Tensor::constant(self.index.clone()), self.axis as isize))
    }
}

/// `x` with `src` added at `index` (int64, one-dimensional) along `axis`; repeated indices add up.
pub fn index_add(x: &Tensor, index: &Tensor, src: &Tensor, axis: isize) -> Result<Tensor> {
    let axis = normalize_axis(axis, x.ndim(), "index_add")?;
    let src = linear::cast(src, x.dtype())?;
    let y = kernel::index_add(x.array(), index.array(), src.array(), axis)?;
    Ok(Tensor::record(y, &[x, &src], || IndexAdd { index: index.array().clone(), axis }))
}

/// y = x at one index per position along an axis; dx = dy added there.
struct Gather {
    index: Array,
    from: Dims,
    axis: usize,
}
impl Op for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || {
            let y = kernel::scatter_along(&self.from, &self.index, dy.array(), self.axis)?;
            Ok(Tensor::record(y, &[dy], || ScatterAlong { index: self.index.clone(), axis: self.axis }))
        })
    }
}

struct ScatterAlong {
    index: Array,
    axis: usize,
}
impl Op for ScatterAlong {
    fn name(&self) -> &'static str {
        "scatter_along"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || gather(dy, &Tensor::constant(self.index.clone()), self.axis as isize))
    }
}

/// NumPy's `take_along_axis`: `index` matches `x` except along `axis`.
pub fn gather(x: &Tensor, index: &Tensor, axis: isize) -> Result<Tensor> {
    let axis = normalize_axis(axis, x.ndim(), "gather")?;
    let y = kernel::gather(x.array(), index.array(), axis)?;
    Ok(Tensor::record(y, &[x], || Gather { index: index.array().clone(), from: *x.shape(), axis }))
}

/// One row of zeros and a one per index; `classes` defaults to the largest index plus one.
pub fn one_hot(index: &Tensor, classes: Option<usize>, dtype: DType) -> Result<Tensor> {
    kernel::one_hot(index.array(), classes, dtype).map(Tensor::constant)
}

/// Rows of a table of uint8 images as float32, `scale · x + offset`, gathered in one sweep.
pub fn take_scaled(x: &Tensor, index: &Tensor, scale: f32, offset: f32) -> Result<Tensor> {
    if x.dtype() != DType::U8 || x.ndim() == 0 {
        bail!(Type, "take_scaled: expected a uint8 table, got {} of shape {}", x.dtype(), x.shape());
    }
    kernel::take_scaled(x.array(), index.array(), scale, offset).map(Tensor::constant)
}

/// Rows of a table `w` (n, d) at `index` (int64 in [0, n), any shape); the row `padding` gets no gradient.
pub fn embedding(index: &Tensor, w: &Tensor, padding: Option<i64>) -> Result<Tensor> {
    if w.ndim() != 2 {
        bail!(Value, "embedding: expected a weight of shape (n, d), got {}", w.shape());
    }
    if index.dtype() != DType::I64 {
        bail!(Type, "embedding: expected an int64 index, got {}", index.dtype());
    }
    let n = w.shape()[0] as i64;
    let numbers = map::contiguous(index.array())?;
    if let Some(bad) = numbers.as_slice::<i64>().expect("made contiguous").iter().find(|&&i| i < 0 || i >= n) {
        bail!(Index, "embedding: expected indices in [0, {n}), got {bad}");
    }
    let Some(padding) = padding else { return take(w, index, 0) };
    if padding < -n || padding >= n {
        bail!(Index, "embedding: expected padding_idx in [{}, {n}), got {padding}", -n);
    }
    let at = Tensor::constant(Array::scalar(if padding < 0 { padding + n } else { padding })?);
    let kept = super::binary::not_equal(index, &at)?;
    let rows = take(w, index, 0)?;
    super::binary::choose(&shape::unsqueeze(&kept, -1)?, &rows, &rows.detach())
}
