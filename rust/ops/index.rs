//! Indexing: `y = x[index]`; dx = dy added at the same places. Basic indices are views; integer and boolean arrays gather.

use super::binary::{choose, constant, equal};
use super::shape;
use super::take::{take_at, take_at_offsets};
use crate::array::{Array, DType, Dims, Layout, MAX_DIMS, Slice};
use crate::autograd::{Inputs, Op, Tensor, linear};
use crate::kernels::index as kernel;
use crate::kernels::{map, parts};
use crate::{Error, Result, bail};
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

    /// Whether this entry reads at given places, as an integer beside arrays does.
    fn gathers(&self) -> bool {
        matches!(self, Index::Int(_) | Index::Array(_))
    }
}

fn has_arrays(index: &[Index]) -> bool {
    index.iter().any(|entry| matches!(entry, Index::Array(_)))
}

/// Whether an index may lead to a place more than once: one mask does not.
fn may_repeat(index: &[Index]) -> bool {
    let mut arrays = index.iter().filter_map(|entry| if let Index::Array(array) = entry { Some(array.dtype()) } else { None });
    arrays.next().is_some_and(|first| first != DType::Bool || arrays.next().is_some())
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
    let len = if span > 0 { (span as usize - 1) / step.unsigned_abs() + 1 } else { 0 };
    // A step that is not taken may be too long to multiply with.
    Ok(Slice { start: if len > 0 { start as usize } else { 0 }, len, step: if len > 1 { step } else { 1 } })
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
    /// The shape after slicing, with integer axes dropped, new ones inserted and the axes of a mask merged into one.
    sizes: Vec<usize>,
    /// Int64 arrays and the axis (of the new shape) each applies to.
    arrays: Vec<(usize, Tensor)>,
    /// Whether something stands between the arrays, if only an ellipsis: what they become is then the first axis (NumPy).
    apart: bool,
}

impl Resolved {
    /// Axes of the given sizes, merged into one of `n` and read at `places`.
    fn gather(&mut self, sizes: &[usize], n: usize, places: Tensor) {
        self.arrays.push((self.sizes.len(), places));
        self.sizes.push(n);
        self.parts.extend(sizes.iter().map(|&len| Slice { start: 0, len, step: 1 }));
    }

    /// `x` without what the arrays do.
    fn view(&self, x: &Tensor) -> Result<Tensor> {
        shape::to_shape(&shape::slice(x, &self.parts)?, Dims::new(&self.sizes)?)
    }

    /// The order of the view's axes in which those of arrays stand side by side, and where they begin: what takes their place
    /// stands there.
    fn order(&self) -> (shape::Axes, usize) {
        let axes: shape::Axes = self.arrays.iter().map(|(axis, _)| *axis).collect();
        let at = if self.apart { 0 } else { axes[0] };
        let mut order: shape::Axes = (0..self.sizes.len()).filter(|a| !axes.contains(a)).collect();
        order.insert_many(at, axes);
        (order, at)
    }

    /// The shape of what is there.
    fn shape(&self) -> Result<Dims> {
        let Some((_, first)) = self.arrays.first() else { return Dims::new(&self.sizes) };
        let places = self.arrays.iter().try_fold(*first.shape(), |places, (_, array)| places.broadcast(array.shape(), "index"))?;
        let (order, at) = self.order();
        let rest = |axes: &[usize]| axes.iter().map(|&axis| self.sizes[axis]).collect::<Vec<_>>();
        Dims::concat(&[&rest(&order[..at]), &places, &rest(&order[at + self.arrays.len()..])])
    }

    /// Where the arrays lead in memory of the given layout, whose axes from `at` on are those that they apply to.
    fn offsets(&self, layout: &Layout, at: usize) -> Result<Array> {
        let axes = layout.shape[at..].iter().copied().zip(layout.strides()[at..].iter().copied());
        kernel::offsets(self.arrays.iter().map(|(_, index)| index.array()), axes, "index")
    }
}

fn resolve_all(index: &[Index], shape: &Dims) -> Result<Resolved> {
    let apart = index.chunk_by(|a, b| a.gathers() == b.gathers()).filter(|run| run[0].gathers()).count() > 1;
    let mut out = Resolved { parts: SmallVec::new(), sizes: Vec::new(), arrays: Vec::new(), apart };
    for entry in spelled_out(index, shape.len())? {
        let axis = out.parts.len();
        let n = shape.get(axis).copied().unwrap_or(0);
        match entry {
            Index::NewAxis => out.sizes.push(1),
            Index::Slice { start, stop, step } => {
                let part = resolve(start, stop, step, n)?;
                out.sizes.push(part.len);
                out.parts.push(part);
            }
            Index::Int(i) => {
                let at = if i < 0 { i + n as isize } else { i };
                if at < 0 || at >= n as isize {
                    bail!(Index, "index: expected an index in [-{n}, {n}) at axis {axis}, got {i}");
                }
                if has_arrays(index) {
                    // Beside arrays an integer is an array too (NumPy).
                    out.gather(&[n], n, Tensor::constant(Array::scalar(at as i64)?));
                } else {
                    out.parts.push(Slice { start: at as usize, len: 1, step: 1 });
                }
            }
            Index::Array(x) if x.dtype() == DType::Bool && x.ndim() == 0 => {
                // One truth is a new axis that is read once or not at all (NumPy).
                let places = Array::zeros(&[x.item()? as usize], DType::I64)?;
                out.gather(&[], 1, Tensor::constant(places));
            }
            Index::Array(x) if x.dtype() == DType::Bool => {
                if axis + x.ndim() > shape.len() || x.shape()[..] != shape[axis..axis + x.ndim()] {
                    bail!(Index, "index: expected a mask that matches axis {axis} on of shape {shape}, got {}", x.shape());
                }
                out.gather(x.shape(), x.size(), Tensor::constant(kernel::nonzero(x.array())?));
            }
            Index::Array(x) => out.gather(&[n], n, x),
            Index::Ellipsis => unreachable!("spelled out"),
        }
    }
    Ok(out)
}

/// `x[index]`.
pub fn get(x: &Tensor, index: &[Index]) -> Result<Tensor> {
    let resolved = resolve_all(index, x.shape())?;
    let view = resolved.view(x)?;
    if resolved.arrays.is_empty() { Ok(view) } else { get_at(&view, &resolved) }
}

/// About how many elements it takes to read or write `x[index]`; none are read for a view.
pub fn index_work(x: &Tensor, index: &[Index]) -> usize {
    if !has_arrays(index) {
        return 0;
    }
    let used: usize = index.iter().map(Index::axes).sum();
    let (mut places, mut each, mut axis) = (Dims::default(), x.size(), 0);
    for entry in index {
        match entry {
            Index::Ellipsis => axis += x.ndim().saturating_sub(used),
            Index::Array(array) => {
                // A mask has at most as many places as elements.
                let shape = if array.dtype() == DType::Bool { Dims::new(&[array.size()]).unwrap_or_default() } else { *array.shape() };
                places = places.broadcast(&shape, "index").unwrap_or(shape);
                each /= x.shape().get(axis..axis + entry.axes()).map_or(1, |sizes| sizes.iter().product::<usize>().max(1));
            }
            _ => {}
        }
        axis += entry.axes();
    }
    places.iter().fold(each, |work, &n| work.saturating_mul(n))
}

/// `x` at arrays along some axes, read where they lie.
fn get_at(x: &Tensor, resolved: &Resolved) -> Result<Tensor> {
    let (order, at) = resolved.order();
    let moved = shape::ordered(x, order);
    if let [(_, index)] = &resolved.arrays[..] {
        return take_at(&moved, index, at, "index");
    }
    let axes = at..at + resolved.arrays.len();
    let offsets = resolved.offsets(moved.array().layout(), at)?;
    let index = resolved.offsets(&Layout::contiguous(Dims::new(&moved.shape()[axes.clone()])?), 0)?;
    take_at_offsets(&moved, &offsets, index, axes)
}

/// `value` as it is written where there is room for `shape`: cast, without the axes of size 1 in front that the room lacks (NumPy),
/// and broadcast.
fn fitted(value: &Tensor, dtype: DType, shape: &Dims) -> Result<Tensor> {
    let (lead, rest) = value.shape().split_at(value.ndim().saturating_sub(shape.len()));
    let narrow = if !lead.is_empty() && lead.iter().all(|&n| n == 1) { shape::to_shape(value, Dims::new(rest)?)? } else { value.clone() };
    linear::broadcast_to(&linear::cast(&narrow, dtype)?, shape)
        .map_err(|_| Error::Value(format!("index: expected a value that broadcasts to {shape}, got {}", value.shape())))
}

/// y = x with v at an index; dx = dy without what is there, dv = dy there, but 0 where a later place of the index is the same.
struct Set {
    index: Vec<Index>,
}
impl Op for Set {
    fn name(&self) -> &'static str {
        "index_put"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let zero = constant(0.0, dy)?;
        dx.give(0, || set(dy, &self.index, &zero))?;
        dx.give(1, || {
            let there = get(dy, &self.index)?;
            if !may_repeat(&self.index) {
                return Ok(there);
            }
            let turn = Tensor::constant(map::from_index(*there.shape(), |i| i as i64)?);
            let mut last = Array::unfilled(DType::I64, *dy.shape())?;
            assign(&mut last, &self.index, &turn)?;
            choose(&equal(&get(&Tensor::constant(last), &self.index)?, &turn)?, &there, &zero)
        })
    }
}

/// `x` with `value` (broadcast) at `index`: a new value, `x` itself does not change.
pub fn set(x: &Tensor, index: &[Index], value: &Tensor) -> Result<Tensor> {
    let value = if value.requires_grad() { &fitted(value, x.dtype(), &resolve_all(index, x.shape())?.shape()?)? } else { value };
    let mut y = map::copy(x.array())?;
    assign(&mut y, index, value)?;
    Ok(Tensor::record(y, &[x, value], || Set { index: index.to_vec() }))
}

/// Writes `value` (broadcast) at `index` of an array that is off the tape: where it lies if nobody else holds it, so that
/// filling a large buffer row by row costs a row each time.
pub fn assign(base: &mut Array, index: &[Index], value: &Tensor) -> Result<()> {
    if let [Index::Array(mask)] = index
        && mask.dtype() == DType::Bool
        && mask.shape() == base.shape()
        && value.ndim() == 0
    {
        return kernel::fill_where(base, mask.array(), linear::cast(value, base.dtype())?.item_exact()?);
    }
    map::make_writable(base)?;
    let resolved = resolve_all(index, base.shape())?;
    // Of a contiguous array, so nothing was copied to shape it.
    let mut target = *resolved.view(&Tensor::constant(base.clone()))?.array().layout();
    if resolved.arrays.is_empty() {
        let value = fitted(value, base.dtype(), &target.shape)?;
        parts::write(base, &target, value.array());
        return Ok(());
    }
    let (order, at) = resolved.order();
    target = target.permute(&order);
    let offsets = resolved.offsets(&target, at)?;
    resolved.arrays.iter().for_each(|_| target = target.remove_axis(at));
    let around = |places: &[usize]| Dims::concat(&[&target.shape[..at], places, &target.shape[at..]]);
    let value = fitted(value, base.dtype(), &around(offsets.shape())?)?;
    let value = shape::to_shape(&value, around(&[offsets.size()])?)?;
    parts::scatter(base, &target, offsets.as_slice().expect("just made"), value.array(), at);
    Ok(())
}
