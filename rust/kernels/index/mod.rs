//! Gather and scatter by integer index, and what is read or written by it in one sweep.
//!
//! Invariant: every index is checked before the first element moves; scatters add in index order, so repeated indices
//! give the same bits whatever the number of threads.

mod read;

use super::map::{self, Unary, cast, contiguous, dense};
use super::simd::Isa;
use super::{arith, parallel};
use crate::array::{Array, DType, Dims, Element, Scalar};
use crate::{Result, bail, simd, with_dtype};
use read::{Places, Source, for_rows, read_at, read_rows};
use std::ops::{Add, Range};

/// An int64 index in row-major order whose values all name one of `n` positions: which one, [`wrapped`] says.
struct Checked(Array);

impl Checked {
    fn new(index: &Array, n: usize, op: &str) -> Result<Checked> {
        if !matches!(index.dtype(), DType::I64 | DType::U8) {
            bail!(Type, "{op}: expected an int64 index, got {}", index.dtype());
        }
        let checked = Checked(dense(index, DType::I64)?.into_owned());
        let end = n as i64;
        if any_beyond(checked.values(), end) {
            let bad = checked.values().iter().find(|&&i| i < -end || i >= end).expect("just seen");
            bail!(Index, "{op}: expected indices in [{}, {end}), got {bad}", -end);
        }
        Ok(checked)
    }

    fn values(&self) -> &[i64] {
        self.0.as_slice().expect("made contiguous")
    }
}

simd! {
    /// Whether any index is not in `-end..end`.
    fn any_beyond(index: &[i64], end: i64) -> bool {
        index.iter().fold(false, |any, &i| any | (i < -end) | (i >= end))
    }

    fn fill_run<T: Element>(y: &mut [T], mask: &[bool], value: T) {
        for (y, &kept) in y.iter_mut().zip(mask) {
            *y = if kept { value } else { *y };
        }
    }

    fn count(mask: &[bool]) -> usize {
        mask.chunks(128).map(|mask| mask.iter().map(|&kept| kept as u8).sum::<u8>() as usize).sum()
    }
}

/// The position among `n` that an index names; negative ones count from the end.
#[inline(always)]
fn wrapped(i: i64, n: usize) -> usize {
    (if i < 0 { i + n as i64 } else { i }) as usize
}

/// How far a step along an axis of `n` positions, times an index, leads.
#[derive(Clone, Copy)]
struct Along {
    n: usize,
    step: isize,
}
impl Unary<i64, i64> for Along {
    #[inline(always)]
    fn apply<I: Isa>(self, i: i64) -> i64 {
        wrapped(i, self.n) as i64 * self.step as i64
    }
}

/// Where index arrays, broadcast together, lead: the sum of their positions times the step of the axis each applies to. An axis is
/// given by its size and step.
pub fn offsets<'a>(indices: impl Iterator<Item = &'a Array>, axes: impl Iterator<Item = (usize, isize)>, op: &str) -> Result<Array> {
    let mut sum = None;
    for (index, (n, step)) in indices.zip(axes) {
        let along = map::unary(Along { n, step }, &Checked::new(index, n, op)?.0)?;
        sum = Some(match sum {
            Some(sum) => map::binary_owned::<i64, _>(arith::Add, sum, &along, op)?,
            None => along,
        });
    }
    sum.map_or_else(|| Array::scalar(0i64), Ok)
}

/// The (outer, axis, inner) sizes around one axis.
fn around(shape: &Dims, axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

/// `index` in place of `axes` of `shape`.
pub fn take_shape(shape: &Dims, index: &Dims, axes: Range<usize>) -> Result<Dims> {
    Dims::concat(&[&shape[..axes.start], index, &shape[axes.end..]])
}

/// Elements (rows, blocks) of `x` at `index` along `axis`. `op` names the operation in the error.
pub fn take(x: &Array, index: &Array, axis: usize, op: &str) -> Result<Array> {
    let (n, step) = (x.shape()[axis], x.layout().strides()[axis]);
    let at = Checked::new(index, n, op)?;
    let mut out = Array::unfilled(x.dtype(), take_shape(x.shape(), index.shape(), axis..axis + 1)?)?;
    let at = at.values();
    let places = Places { index: at, along: Along { n, step }, count: at.len(), apart: 0 };
    with_dtype!(x.dtype(), T => match x.as_slice::<T>().filter(|_| axis == 0) {
        Some(table) => read_rows(table, n, at, out.fresh()),
        None => read_at::<T>(x, axis..axis + 1, places, out.fresh()),
    });
    Ok(out)
}

/// Elements of `x` where [`offsets`] in its memory lead along `axes`.
pub fn take_at_offsets(x: &Array, offsets: &Array, axes: Range<usize>) -> Result<Array> {
    let mut out = Array::unfilled(x.dtype(), take_shape(x.shape(), offsets.shape(), axes.clone())?)?;
    let at = contiguous(offsets)?;
    let at = at.as_slice::<i64>().expect("made contiguous");
    // Of no positions, so that those before the first are not taken for ones from the end.
    let places = Places { index: at, along: Along { n: 0, step: 1 }, count: at.len(), apart: 0 };
    with_dtype!(x.dtype(), T => read_at::<T>(x, axes, places, out.fresh()));
    Ok(out)
}

/// Rows of a uint8 array as float32, `scale · x + offset`, at `index`, in one sweep.
pub fn take_scaled(x: &Array, index: &Array, scale: f32, offset: f32) -> Result<Array> {
    let n = x.shape()[0];
    let at = Checked::new(index, n, "take_scaled")?;
    let mut out = Array::unfilled(DType::F32, take_shape(x.shape(), index.shape(), 0..1)?)?;
    let whole = x.is_contiguous();
    let x = if whole { x.clone() } else { take(x, index, 0, "take_scaled")? };
    let (data, y, at) = (x.as_slice::<u8>().expect("contiguous, or just taken"), out.fresh::<f32>(), at.values());
    if y.is_empty() {
        return Ok(out);
    }
    let inner = y.len() / at.len();
    let work = y.len() / 4;
    parallel::for_chunks(y, inner, work, |i, y| {
        let row = if whole { wrapped(at[i], n) } else { i };
        scale_row(&data[row * inner..][..inner], y, scale, offset);
    });
    Ok(out)
}

simd! {
    fn scale_row(x: &[u8], y: &mut [f32], scale: f32, offset: f32) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x as f32 * scale + offset;
        }
    }
}

/// One row of zeros and a one per index; `classes` defaults to the largest index plus one.
pub fn one_hot(index: &Array, classes: Option<usize>, dtype: DType) -> Result<Array> {
    let values = contiguous(&cast(index, DType::I64)?)?;
    let values = values.as_slice::<i64>().expect("made contiguous");
    let classes = classes.unwrap_or_else(|| values.iter().max().map_or(0, |&m| usize::try_from(m).map_or(0, |m| m + 1)));
    if let Some(bad) = values.iter().find(|&&i| usize::try_from(i).map_or(true, |i| i >= classes)) {
        bail!(Index, "one_hot: expected indices in [0, {classes}), got {bad}");
    }
    let mut shape = *index.shape();
    shape.push(classes)?;
    let mut out = Array::zeros(&shape, dtype)?;
    with_dtype!(dtype, T => parallel::for_chunks(out.fresh::<T>(), classes, values.len() * 2, |i, row| row[values[i] as usize] = T::ONE));
    Ok(out)
}

/// Zeros of shape `shape` with `src` added at `index` along `axis`: the gradient of [`take`].
pub fn scatter_add(shape: &Dims, index: &Array, src: &Array, axis: usize) -> Result<Array> {
    index_add(&Array::zeros(shape, src.dtype())?, index, src, axis)
}

/// `x` with `src` added at `index` along `axis`; repeated indices add up.
pub fn index_add(x: &Array, index: &Array, src: &Array, axis: usize) -> Result<Array> {
    let wanted = take_shape(x.shape(), index.shape(), axis..axis + 1)?;
    if *src.shape() != wanted || src.dtype() != x.dtype() {
        bail!(Value, "index_add: expected {} values of shape {wanted}, got {} of {}", x.dtype(), src.dtype(), src.shape());
    }
    let at = Checked::new(index, x.shape()[axis], "index_add")?;
    let (_, n, inner) = around(x.shape(), axis);
    let mut out = map::copy(x)?;
    let src = contiguous(src)?;
    macro_rules! add {
        ($T:ty, $add:expr) => {
            add_rows(out.fresh::<$T>(), src.as_slice::<$T>().expect("made contiguous"), at.values(), (n, inner), $add)
        };
    }
    match x.dtype() {
        DType::F32 => add!(f32, Add::add),
        DType::F64 => add!(f64, Add::add),
        DType::I64 => add!(i64, i64::wrapping_add),
        DType::U8 => add!(u8, u8::wrapping_add),
        DType::Bool => add!(bool, |a, b| a | b),
    }
    Ok(out)
}

fn add_rows<T: Element>(out: &mut [T], src: &[T], at: &[i64], (n, inner): (usize, usize), add: impl Fn(T, T) -> T + Sync) {
    let rows = at.len() * inner;
    parallel::for_chunks(out, n * inner, src.len(), |o, out| {
        let src = &src[o * rows..][..rows];
        let add = |(out, &src): (&mut T, &T)| *out = add(*out, src);
        if inner == 1 {
            at.iter().zip(src).for_each(|(&i, src)| add((&mut out[wrapped(i, n)], src)));
        } else {
            at.iter().zip(src.chunks_exact(inner)).for_each(|(&i, src)| out[wrapped(i, n) * inner..][..inner].iter_mut().zip(src).for_each(add));
        }
    });
}

/// Checks an index for `take_along_axis`: same shape as `x` except along `axis`.
fn check_along(x: &Dims, index: &Dims, axis: usize, op: &str) -> Result<()> {
    let fits = x.len() == index.len() && (0..x.len()).all(|a| a == axis || x[a] == index[a]);
    if !fits {
        bail!(Value, "{op}: expected an index that matches {x} outside axis {axis}, got {index}");
    }
    Ok(())
}

/// `out[i][j][k] = x[i][index[i][j][k]][k]` for `axis == 1`, and so on (NumPy's `take_along_axis`).
pub fn gather(x: &Array, index: &Array, axis: usize) -> Result<Array> {
    check_along(x.shape(), index.shape(), axis, "gather")?;
    let at = Checked::new(index, x.shape()[axis], "gather")?;
    let mut out = Array::unfilled(x.dtype(), *index.shape())?;
    if out.size() == 0 {
        return Ok(out);
    }
    let (n, (_, m, inner)) = (x.shape()[axis], around(index.shape(), axis));
    let (step, at, axes) = (x.layout().strides()[axis], at.values(), axis..axis + 1);
    if inner == 1 {
        let places = Places { index: at, along: Along { n, step }, count: m, apart: m };
        with_dtype!(x.dtype(), T => read_at::<T>(x, axes, places, out.fresh()));
        return Ok(out);
    }
    let source = Source::around(x.layout(), axes);
    let (stride, spread) = (source.inner.inner_stride(0), source.spread(inner)?);
    let behind = |k: usize| spread.get(k).copied().unwrap_or(k as isize * stride);
    with_dtype!(x.dtype(), T => {
        let data = x.data::<T>();
        for_rows(out.fresh::<T>(), &source.outer, (m, inner), at.len(), |o, start, r, out| {
            let at = &at[(o * m + r) * inner..][..out.len()];
            along(at, (n, inner), |i, from, k| out[i] = data[(start + from as isize * step + behind(k)) as usize]);
        });
    });
    Ok(out)
}

/// Zeros of shape `shape` with `src` added where [`gather`] would have read.
pub fn scatter_along(shape: &Dims, index: &Array, src: &Array, axis: usize) -> Result<Array> {
    check_along(shape, index.shape(), axis, "scatter")?;
    let at = Checked::new(index, shape[axis], "scatter")?;
    let mut out = Array::full(shape, Scalar::Int(0), src.dtype())?;
    let (n, (_, m, inner)) = (shape[axis], around(index.shape(), axis));
    let (src, at) = (contiguous(src)?, at.values());
    crate::with_float!(src.dtype(), T => {
        let (out, src) = (out.fresh::<T>(), src.as_slice::<T>().expect("made contiguous"));
        parallel::for_chunks(out, n * inner, at.len() * 2, |o, out| {
            let part = o * m * inner..(o + 1) * m * inner;
            let src = &src[part.clone()];
            along(&at[part], (n, inner), |i, to, k| out[to * inner + k] += src[i]);
        });
    }, else bail!(Type, "scatter: expected float values, got {}", src.dtype()));
    Ok(out)
}

/// Calls `f(i, at, k)` for every index, in rows of `inner`: it names the row `at`, of which the element `k` stands under it.
#[inline(always)]
fn along(index: &[i64], (n, inner): (usize, usize), mut f: impl FnMut(usize, usize, usize)) {
    if inner == 1 {
        return index.iter().enumerate().for_each(|(i, &at)| f(i, wrapped(at, n), 0));
    }
    for (row, index) in index.chunks_exact(inner).enumerate() {
        index.iter().enumerate().for_each(|(k, &at)| f(row * inner + k, wrapped(at, n), k));
    }
}

/// Row-major positions (int64) at which a boolean array is true.
pub fn nonzero(mask: &Array) -> Result<Array> {
    let mask = contiguous(&cast(mask, DType::Bool)?)?;
    let mask = mask.as_slice::<bool>().expect("made contiguous");
    let mut found = Array::unfilled(DType::I64, Dims::new(&[count(mask)])?)?;
    let (places, mut known) = (found.fresh::<i64>(), 0);
    // Written whether kept or not, so that nothing hangs on guesses: the next one takes the place of what is not.
    for (i, &kept) in mask.iter().enumerate() {
        let Some(place) = places.get_mut(known) else { break };
        *place = i as i64;
        known += usize::from(kept);
    }
    Ok(found)
}

/// Writes `value` over the elements of `x` where `mask`, a bool array of its shape, is true.
pub fn fill_where(x: &mut Array, mask: &Array, value: Scalar) -> Result<()> {
    const BLOCK: usize = 4096;
    let mask = dense(mask, DType::Bool)?;
    let mask = mask.as_slice::<bool>().expect("made contiguous");
    with_dtype!(x.dtype(), T => {
        let (y, value) = (map::writable::<T>(x)?, T::from_scalar(value));
        let work = y.len() / 4;
        parallel::for_chunks(y, BLOCK, work, |i, y| fill_run(y, &mask[i * BLOCK..][..y.len()], value));
    });
    Ok(())
}
