//! Indexing: `y = x[index]`; dx = dy added at the same places. Basic indices are views; integer and boolean arrays gather.

use super::shape;
use crate::array::{Array, DType, Dims, Layout, MAX_DIMS, Slice, normalize_axis};
use crate::autograd::{Inputs, Op, Tensor, linear};
use crate::kernels::map;
use crate::kernels::plan::Plan;
use crate::kernels::{index as kernel, parallel};
use crate::{Error, Result, bail, with_dtype};
use smallvec::SmallVec;

/// One entry of an index, as Python writes it.
#[derive(Clone, Debug)]
pub enum Index {
    Int(isize),
    Slice {
        start: Option<isize>,
        stop: Option<isize>,
        step: isize,
    },
    NewAxis,
    Ellipsis,
    /// An int64 array, or a bool array that stands for its true positions.
    Array(Tensor),
}

impl Index {
    const ALL: Index = Index::Slice { start: None, stop: None, step: 1 };

    /// How many axes of the indexed tensor this entry uses up.
    fn axes(&self) -> usize {
        match self {
            Index::NewAxis | Index::Ellipsis => 0,
            Index::Array(mask) if mask.dtype() == DType::Bool => mask.ndim(),
            _ => 1,
        }
    }
}

/// Python's slice on an axis of `n` elements.
fn resolve(start: Option<isize>, stop: Option<isize>, step: isize, n: usize) -> Result<Slice> {
    if step == 0 {
        bail!(Value, "index: expected a slice step other than 0, got 0");
    }
    let n = n as isize;
    let wrap = |i: isize| if i < 0 { i + n } else { i };
    let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let start = start.map_or(if step > 0 { 0 } else { n - 1 }, |i| wrap(i).clamp(low, high));
    let stop = stop.map_or(if step > 0 { n } else { -1 }, |i| wrap(i).clamp(low, high));
    let span = if step > 0 { stop - start } else { start - stop };
    let len = if span > 0 { (span - 1) / step.abs() + 1 } else { 0 };
    Ok(Slice { start: if len > 0 { start as usize } else { 0 }, len: len as usize, step })
}

/// The ellipsis spelled out, and whole slices for the axes not mentioned.
fn spelled_out(index: &[Index], ndim: usize) -> Result<Vec<Index>> {
    let used: usize = index.iter().map(Index::axes).sum();
    if used > ndim {
        bail!(Index, "index: expected at most {ndim} indices, got {used}");
    }
    let dots = index.iter().filter(|i| matches!(i, Index::Ellipsis)).count();
    if dots > 1 {
        bail!(Index, "index: expected at most one ellipsis, got {dots}");
    }
    let missing = std::iter::repeat_n(Index::ALL, ndim - used);
    let at = index.iter().position(|i| matches!(i, Index::Ellipsis)).unwrap_or(index.len());
    let rest = index.get(at + 1..).unwrap_or_default();
    Ok(index[..at].iter().cloned().chain(missing).chain(rest.iter().cloned()).collect())
}

/// What an index does: slices per axis, then axes dropped or inserted, then arrays along some axes.
struct Resolved {
    parts: SmallVec<[Slice; MAX_DIMS]>,
    /// The shape after slicing, with integer axes dropped and new ones inserted.
    sizes: Vec<isize>,
    /// Arrays and the axis (of the new shape) each applies to.
    arrays: Vec<(usize, Tensor)>,
}

fn resolve_all(index: &[Index], shape: &Dims) -> Result<Resolved> {
    let entries = spelled_out(index, shape.len())?;
    let has_arrays = entries.iter().any(|e| matches!(e, Index::Array(_)));
    let mut out = Resolved { parts: SmallVec::new(), sizes: Vec::new(), arrays: Vec::new() };
    let whole = |n: usize| Slice { start: 0, len: n, step: 1 };
    for entry in entries {
        let axis = out.parts.len();
        let n = shape.get(axis).copied().unwrap_or(0);
        match entry {
            Index::NewAxis => out.sizes.push(1),
            Index::Slice { start, stop, step } => {
                let part = resolve(start, stop, step, n)?;
                out.sizes.push(part.len as isize);
                out.parts.push(part);
            }
            Index::Int(i) => {
                let at = if i < 0 { i + n as isize } else { i };
                if at < 0 || at >= n as isize {
                    bail!(Index, "index: expected an index in [-{n}, {n}) at axis {axis}, got {i}");
                }
                if has_arrays {
                    // Beside arrays an integer is an array too (NumPy).
                    out.arrays.push((out.sizes.len(), Tensor::constant(Array::scalar(at as i64)?)));
                    out.sizes.push(n as isize);
                    out.parts.push(whole(n));
                } else {
                    out.parts.push(Slice { start: at as usize, len: 1, step: 1 });
                }
            }
            Index::Array(x) if x.dtype() == DType::Bool => {
                if axis + x.ndim() > shape.len() || x.shape()[..] != shape[axis..axis + x.ndim()] {
                    bail!(Index, "index: expected a mask that matches axis {axis} on of shape {shape}, got {}", x.shape());
                }
                for (d, coordinates) in coordinates(&x)?.into_iter().enumerate() {
                    out.arrays.push((out.sizes.len(), coordinates));
                    out.sizes.push(shape[axis + d] as isize);
                    out.parts.push(whole(shape[axis + d]));
                }
            }
            Index::Array(x) => {
                out.arrays.push((out.sizes.len(), x));
                out.sizes.push(n as isize);
                out.parts.push(whole(n));
            }
            Index::Ellipsis => unreachable!("spelled out"),
        }
    }
    Ok(out)
}

/// The positions of the true elements of a mask, one int64 array per axis.
fn coordinates(mask: &Tensor) -> Result<Vec<Tensor>> {
    let flat = kernel::nonzero(mask.array())?;
    let flat = flat.as_slice::<i64>().expect("fresh");
    let mut step = mask.size() as i64;
    mask.shape()
        .iter()
        .map(|&n| {
            let n = n as i64;
            step /= n.max(1);
            let along: Vec<i64> = flat.iter().map(|&p| p / step.max(1) % n.max(1)).collect();
            Tensor::from_slice(&[along.len()], &along)
        })
        .collect()
}

/// `x[index]`.
pub fn get(x: &Tensor, index: &[Index]) -> Result<Tensor> {
    let Resolved { parts, sizes, arrays } = resolve_all(index, x.shape())?;
    let view = shape::slice(x, &parts)?;
    let view = shape::reshape(&view, &sizes)?;
    if arrays.is_empty() { Ok(view) } else { get_at(&view, &arrays) }
}

/// `x` at arrays of integers along some axes: those axes become one, read at flat positions.
fn get_at(x: &Tensor, arrays: &[(usize, Tensor)]) -> Result<Tensor> {
    let axes: Vec<usize> = arrays.iter().map(|(axis, _)| *axis).collect();
    let adjacent = axes.windows(2).all(|w| w[1] == w[0] + 1);
    let at = if adjacent { axes[0] } else { 0 };
    let mut order: Vec<isize> = (0..x.ndim() as isize).filter(|&a| !axes.contains(&(a as usize))).collect();
    order.splice(at..at, axes.iter().map(|&a| a as isize));
    let sizes: Vec<usize> = axes.iter().map(|&a| x.shape()[a]).collect();
    let flat = flat_positions(arrays.iter().map(|(_, index)| index), &sizes)?;
    let moved = shape::permute(x, &order)?;
    let shape = moved.shape();
    let merged: Vec<isize> = shape[..at].iter().chain([&sizes.iter().product::<usize>()]).chain(&shape[at + axes.len()..]).map(|&n| n as isize).collect();
    take(&shape::reshape(&moved, &merged)?, &flat, at as isize)
}

/// Row-major positions in an array of the given sizes, from one index array per axis, broadcast together.
fn flat_positions<'a>(arrays: impl Iterator<Item = &'a Tensor> + Clone, sizes: &[usize]) -> Result<Tensor> {
    let shape = arrays.clone().try_fold(Dims::default(), |shape, index| shape.broadcast(index.shape(), "index"))?;
    let mut flat = vec![0i64; shape.size()?];
    for (index, &n) in arrays.zip(sizes) {
        let along = index.array().broadcast_to(&shape)?;
        let along = kernel::positions(&along, n, "index")?;
        flat.iter_mut().zip(along).for_each(|(flat, i)| *flat = *flat * n as i64 + i as i64);
    }
    Tensor::from_slice(&shape, &flat)
}

/// `x` with `value` (broadcast) at `index`: a new value, `x` itself does not change.
pub fn set(x: &Tensor, index: &[Index], value: &Tensor) -> Result<Tensor> {
    // Number the elements, index the numbers, and write where they say.
    let numbers: Vec<i64> = (0..x.size() as i64).collect();
    let numbers = Tensor::from_slice(x.shape(), &numbers)?;
    let at = get(&numbers, index)?;
    let value = linear::broadcast_to(&linear::cast(value, x.dtype())?, at.shape())
        .map_err(|_| Error::Value(format!("index: expected a value that broadcasts to {}, got {}", at.shape(), value.shape())))?;
    let at = shape::reshape(&at, &[-1])?;
    let flat = index_put(&shape::reshape(x, &[-1])?, &at, &shape::reshape(&value, &[-1])?)?;
    let sizes: Vec<isize> = x.shape().iter().map(|&n| n as isize).collect();
    shape::reshape(&flat, &sizes)
}

/// y = x with src at some positions of its only axis; dx = dy without them, dsrc = dy there.
struct IndexPut {
    index: Array,
}
impl Op for IndexPut {
    fn name(&self) -> &'static str {
        "index_put"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let index = Tensor::constant(self.index.clone());
        dx.give(0, || {
            let zeros = Tensor::constant(Array::zeros(index.shape(), dy.dtype())?);
            index_put(dy, &index, &zeros)
        })?;
        dx.give(1, || take(dy, &index, 0))
    }
}

fn index_put(x: &Tensor, index: &Tensor, src: &Tensor) -> Result<Tensor> {
    let y = kernel::index_put(x.array(), index.array(), src.array(), 0)?;
    Ok(Tensor::record(y, &[x, src], || IndexPut { index: index.array().clone() }))
}

/// Writes `value` (broadcast) at `index` of an array that is off the tape: where it lies if nobody else holds it, so that
/// filling a large buffer row by row costs a row each time.
pub fn assign(base: &mut Array, index: &[Index], value: &Tensor) -> Result<()> {
    if index.iter().any(|entry| matches!(entry, Index::Array(_))) {
        *base = set(&Tensor::constant(base.clone()), index, value)?.into_array();
        return Ok(());
    }
    let target = *get(&Tensor::constant(base.clone()), index)?.shape();
    let value = linear::broadcast_to(&linear::cast(value, base.dtype())?, &target)
        .map_err(|_| Error::Value(format!("index: expected a value that broadcasts to {target}, got {}", value.shape())))?;
    with_dtype!(base.dtype(), T => map::writable::<T>(base)?.len());
    let layout = *get(&Tensor::constant(base.clone()), index)?.array().layout();
    write_at(base, &layout, value.array());
    Ok(())
}

/// Writes `value` into slices of `base`, which nobody else holds.
pub(super) fn write_slices(mut base: Array, parts: &[Slice], value: &Array) -> Array {
    let target = parts.iter().enumerate().fold(*base.layout(), |layout, (axis, &part)| layout.slice(axis, part));
    write_at(&mut base, &target, value);
    base
}

/// Writes `value` where `target` says, in the storage of `base`, which nobody else holds.
fn write_at(base: &mut Array, target: &Layout, value: &Array) {
    let size = value.size();
    if size == 0 {
        return;
    }
    let plan = Plan::new([target, value.layout()]);
    with_dtype!(base.dtype(), T => {
        let (y, x) = (base.fresh::<T>(), value.data::<T>());
        let (step_y, step_x) = (plan.inner_stride(0), plan.inner_stride(1));
        plan.walk(0, size, |[at_y, at_x], _, n| {
            for i in 0..n as isize {
                y[(at_y + i * step_y) as usize] = x[(at_x + i * step_x) as usize];
            }
        });
    });
}

/// y = rows of x at an index; dx = dy added at those rows.
struct Take {
    index: Array,
    from: Dims,
    axis: usize,
}
impl Op for Take {
    fn name(&self) -> &'static str {
        "take"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        dx.give(0, || scatter_add(dy, &self.index, self.from, self.axis))
    }
}

/// Elements of `x` at `index` (int64, any shape) along `axis`.
pub fn take(x: &Tensor, index: &Tensor, axis: isize) -> Result<Tensor> {
    let axis = normalize_axis(axis, x.ndim(), "take")?;
    let y = kernel::take(x.array(), index.array(), axis)?;
    Ok(Tensor::record(y, &[x], || Take { index: index.array().clone(), from: *x.shape(), axis }))
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

/// `x` with `src` added at `index` (int64, one-dimensional) along `axis`; repeated indices add up.
pub fn index_add(x: &Tensor, index: &Tensor, src: &Tensor, axis: isize) -> Result<Tensor> {
    let axis = normalize_axis(axis, x.ndim(), "index_add")?;
    let src = linear::cast(src, x.dtype())?;
    let y = kernel::index_add(x.array(), index.array(), src.array(), axis)?;
    if !(x.requires_grad() || src.requires_grad()) {
        return Ok(Tensor::constant(y));
    }
    super::binary::add(x, &scatter_add(&src, index.array(), *x.shape(), axis)?)
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
    let values = map::contiguous(&map::cast(index.array(), DType::I64)?)?;
    let values = values.as_slice::<i64>().expect("made contiguous");
    let classes = classes.unwrap_or_else(|| values.iter().max().map_or(0, |&m| m.max(-1) as usize + 1));
    if let Some(bad) = values.iter().find(|&&i| i < 0 || i >= classes as i64) {
        bail!(Index, "one_hot: expected indices in [0, {classes}), got {bad}");
    }
    let mut shape = *index.shape();
    shape.push(classes)?;
    let mut out = Array::zeros(&shape, dtype)?;
    with_dtype!(dtype, T => {
        use crate::array::Element;
        out.fresh::<T>().chunks_exact_mut(classes.max(1)).zip(values).for_each(|(row, &i)| row[i as usize] = T::ONE);
    });
    Ok(Tensor::constant(out))
}

/// Rows of a table of uint8 images as float32, `scale · x + offset`, gathered in one sweep.
pub fn take_scaled(x: &Tensor, index: &Tensor, scale: f32, offset: f32) -> Result<Tensor> {
    if x.dtype() != DType::U8 || x.ndim() == 0 {
        bail!(Type, "take_scaled: expected a uint8 table, got {} of shape {}", x.dtype(), x.shape());
    }
    let at = kernel::positions(index.array(), x.shape()[0], "take_scaled")?;
    let mut out = Array::unfilled(DType::F32, kernel::take_shape(x.shape(), index.shape(), 0)?)?;
    let x = map::contiguous(x.array())?;
    let (data, y) = (x.as_slice::<u8>().expect("made contiguous"), out.fresh::<f32>());
    if y.is_empty() {
        return Ok(Tensor::constant(out));
    }
    let inner = y.len() / at.len();
    let work = y.len() / 4;
    parallel::for_chunks(y, inner, work, |i, y| scale_row(&data[at[i] * inner..][..inner], y, scale, offset));
    Ok(Tensor::constant(out))
}

crate::simd! {
    fn scale_row(x: &[u8], y: &mut [f32], scale: f32, offset: f32) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x as f32 * scale + offset;
        }
    }
}

/// Rows of a table `w` (n, d) at `index` (int64, any shape); the row `padding` gets no gradient.
pub fn embedding(index: &Tensor, w: &Tensor, padding: Option<i64>) -> Result<Tensor> {
    if w.ndim() != 2 {
        bail!(Value, "embedding: expected a weight of shape (n, d), got {}", w.shape());
    }
    let n = w.shape()[0] as i64;
    let Some(padding) = padding else { return take(w, index, 0) };
    if padding < -n || padding >= n {
        bail!(Index, "embedding: expected padding_idx in [{}, {n}), got {padding}", -n);
    }
    let at = Tensor::constant(Array::scalar(if padding < 0 { padding + n } else { padding })?);
    let kept = super::binary::not_equal(index, &at)?;
    let rows = take(w, index, 0)?;
    super::binary::choose(&shape::unsqueeze(&kept, -1)?, &rows, &rows.detach())
}
