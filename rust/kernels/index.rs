//! Gather and scatter by integer index, and what is read or written by it in one sweep.
//!
//! Invariant: every index is checked before the first element moves; scatters add in index order, so repeated indices
//! give the same bits whatever the number of threads.

use super::map::{cast, contiguous};
use super::parallel;
use crate::array::{self, Array, DType, Dims, Element, Scalar};
use crate::{Result, bail, simd, with_dtype};
use std::ops::Add;

/// The positions (in `0..n`) that an int64 index array names; negative ones count from the end.
pub fn positions(index: &Array, n: usize, op: &str) -> Result<Vec<usize>> {
    if !matches!(index.dtype(), DType::I64 | DType::U8) {
        bail!(Type, "{op}: expected an int64 index, got {}", index.dtype());
    }
    let index = contiguous(&cast(index, DType::I64)?)?;
    let values = index.as_slice::<i64>().expect("made contiguous");
    let end = n as i64;
    if let Some(bad) = values.iter().find(|&&i| i < -end || i >= end) {
        bail!(Index, "{op}: expected indices in [{}, {end}), got {bad}", -end);
    }
    let mut at = array::room(values.len())?;
    at.extend(values.iter().map(|&i| if i < 0 { i + end } else { i } as usize));
    Ok(at)
}

/// The (outer, axis, inner) sizes around one axis.
fn around(shape: &Dims, axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

/// `x.shape[..axis] + index.shape + x.shape[axis + 1..]`.
pub fn take_shape(shape: &Dims, index: &Dims, axis: usize) -> Result<Dims> {
    Dims::new(&[&shape[..axis], index, &shape[axis + 1..]].concat())
}

/// Elements (rows, blocks) of `x` at `index` along `axis`.
pub fn take(x: &Array, index: &Array, axis: usize) -> Result<Array> {
    let at = positions(index, x.shape()[axis], "take")?;
    let mut out = Array::unfilled(x.dtype(), take_shape(x.shape(), index.shape(), axis)?)?;
    let (_, n, inner) = around(x.shape(), axis);
    let rows = at.len();
    if out.size() == 0 {
        return Ok(out);
    }
    let x = contiguous(x)?;
    with_dtype!(x.dtype(), T => {
        let data = x.as_slice::<T>().expect("made contiguous");
        let out = out.fresh::<T>();
        let group = (4096 / inner).max(1) * inner;
        let work = std::mem::size_of_val(out) / 16;
        parallel::for_chunks(out, group, work, |g, out| {
            let first = g * (group / inner);
            let (mut o, mut r) = (first / rows, first % rows);
            for out in out.chunks_exact_mut(inner) {
                out.copy_from_slice(&data[(o * n + at[r]) * inner..][..inner]);
                r += 1;
                if r == rows {
                    (o, r) = (o + 1, 0);
                }
            }
        });
    });
    Ok(out)
}

/// Rows of a uint8 array as float32, `scale · x + offset`, at `index`, in one sweep.
pub fn take_scaled(x: &Array, index: &Array, scale: f32, offset: f32) -> Result<Array> {
    let at = positions(index, x.shape()[0], "take_scaled")?;
    let mut out = Array::unfilled(DType::F32, take_shape(x.shape(), index.shape(), 0)?)?;
    let x = contiguous(x)?;
    let (data, y) = (x.as_slice::<u8>().expect("made contiguous"), out.fresh::<f32>());
    if y.is_empty() {
        return Ok(out);
    }
    let inner = y.len() / at.len();
    let work = y.len() / 4;
    parallel::for_chunks(y, inner, work, |i, y| scale_row(&data[at[i] * inner..][..inner], y, scale, offset));
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
    write_at(x, index, src, axis, "index_add", true)
}

/// `x` with `src` in place of what stands at `index` along `axis`; the last of repeated indices wins.
pub fn index_put(x: &Array, index: &Array, src: &Array, axis: usize) -> Result<Array> {
    write_at(x, index, src, axis, "index_put", false)
}

/// Which entries of an index to `n` positions name one that a later entry names again; `None` if there are none.
pub fn overwritten(index: &Array, n: usize) -> Result<Option<Array>> {
    let mut seen = array::filled(n, false)?;
    let at = positions(index, n, "index_put")?;
    let mut out = Array::unfilled(DType::Bool, *index.shape())?;
    let lost = out.fresh::<bool>();
    lost.iter_mut().zip(&at).rev().for_each(|(lost, &at)| *lost = std::mem::replace(&mut seen[at], true));
    let any = lost.contains(&true);
    Ok(any.then_some(out))
}

fn write_at(x: &Array, index: &Array, src: &Array, axis: usize, op: &str, add: bool) -> Result<Array> {
    let wanted = take_shape(x.shape(), index.shape(), axis)?;
    if *src.shape() != wanted || src.dtype() != x.dtype() {
        bail!(Value, "{op}: expected {} values of shape {wanted}, got {} of {}", x.dtype(), src.dtype(), src.shape());
    }
    let at = positions(index, x.shape()[axis], op)?;
    let (outer, n, inner) = around(x.shape(), axis);
    let mut out = super::map::copy(x)?;
    let src = contiguous(src)?;
    macro_rules! write {
        ($T:ty, $put:expr) => {{
            let (out, src) = (out.fresh::<$T>(), src.as_slice::<$T>().expect("made contiguous"));
            put_rows(out, src, &at, (outer, n, inner), $put)
        }};
    }
    match x.dtype() {
        DType::F32 if add => write!(f32, Add::add),
        DType::F64 if add => write!(f64, Add::add),
        DType::I64 if add => write!(i64, i64::wrapping_add),
        DType::U8 if add => write!(u8, u8::wrapping_add),
        DType::Bool if add => write!(bool, |a, b| a | b),
        _ => with_dtype!(x.dtype(), T => write!(T, |_, b| b)),
    }
    Ok(out)
}

fn put_rows<T: Element>(out: &mut [T], src: &[T], at: &[usize], (outer, n, inner): (usize, usize, usize), put: impl Fn(T, T) -> T) {
    if inner == 0 {
        return;
    }
    for (o, src) in (0..outer).zip(src.chunks_exact((at.len() * inner).max(1))) {
        for (&at, src) in at.iter().zip(src.chunks_exact(inner)) {
            let out = &mut out[(o * n + at) * inner..][..inner];
            out.iter_mut().zip(src).for_each(|(o, &s)| *o = put(*o, s));
        }
    }
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
    let at = positions(index, x.shape()[axis], "gather")?;
    let mut out = Array::unfilled(x.dtype(), *index.shape())?;
    let (n, (_, m, inner)) = (x.shape()[axis], around(index.shape(), axis));
    let x = contiguous(x)?;
    with_dtype!(x.dtype(), T => {
        let data = x.as_slice::<T>().expect("made contiguous");
        for (i, (out, &at)) in out.fresh::<T>().iter_mut().zip(&at).enumerate() {
            *out = data[(i / (m * inner) * n + at) * inner + i % inner];
        }
    });
    Ok(out)
}

/// Zeros of shape `shape` with `src` added where [`gather`] would have read.
pub fn scatter_along(shape: &Dims, index: &Array, src: &Array, axis: usize) -> Result<Array> {
    check_along(shape, index.shape(), axis, "scatter")?;
    let at = positions(index, shape[axis], "scatter")?;
    let mut out = Array::full(shape, Scalar::Int(0), src.dtype())?;
    let (n, (_, m, inner)) = (shape[axis], around(index.shape(), axis));
    let src = contiguous(src)?;
    crate::with_float!(src.dtype(), T => {
        let (out, src) = (out.fresh::<T>(), src.as_slice::<T>().expect("made contiguous"));
        for (i, (&s, &at)) in src.iter().zip(&at).enumerate() {
            out[(i / (m * inner) * n + at) * inner + i % inner] += s;
        }
    }, else bail!(Type, "scatter: expected float values, got {}", src.dtype()));
    Ok(out)
}

/// Row-major positions (int64) at which a boolean array is true.
pub fn nonzero(mask: &Array) -> Result<Array> {
    let mask = contiguous(&cast(mask, DType::Bool)?)?;
    let mask = mask.as_slice::<bool>().expect("made contiguous");
    let kept = mask.iter().enumerate().filter(|(_, k)| **k).map(|(i, _)| i as i64);
    let mut found = Array::unfilled(DType::I64, Dims::new(&[kept.clone().count()])?)?;
    found.fresh::<i64>().iter_mut().zip(kept).for_each(|(found, i)| *found = i);
    Ok(found)
}
