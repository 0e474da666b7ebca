//! Arrays written side by side: what `concatenate` and `stack` make.
//!
//! The result is rows, of which each array fills some columns. It is made a few rows after the other, so that what one array writes of a
//! line of the cache is still near when the next one writes the rest.

use super::copies::{Rows, copy_rows};
use super::{map, parallel};
use crate::Result;
use crate::array::{Array, DType, Dims, Element, Layout, room};
use crate::with_dtype;
use std::borrow::Cow;

/// Elements of the result that are one unit of work.
const BLOCK: usize = 4096;

/// What one array writes: `width` columns from `to` on, whose rows begin `step` apart from `at` on.
struct Columns<'a> {
    x: &'a Array,
    at: usize,
    step: isize,
    width: usize,
    to: usize,
}

/// How far rows of all axes from `axis` on are apart, if each lies side by side and they lie evenly.
fn row_step(layout: &Layout, axis: usize) -> Option<isize> {
    let (shape, strides) = (&layout.shape, layout.strides());
    let mut next = 1;
    for a in (axis..shape.len()).rev().filter(|&a| shape[a] != 1) {
        if strides[a] != next {
            return None;
        }
        next *= shape[a] as isize;
    }
    let mut step = None;
    for a in (0..axis).rev().filter(|&a| shape[a] != 1) {
        if step.is_some() && strides[a] != next {
            return None;
        }
        step = step.or(Some(strides[a]));
        next = strides[a] * shape[a] as isize;
    }
    Some(step.unwrap_or(0))
}

/// The arrays as one of `dtype`, beside each other in `shape` from `axis` on: along that axis, or a new one there.
pub fn join<'a>(xs: impl Iterator<Item = &'a Array>, axis: usize, dtype: DType, shape: Dims) -> Result<Array> {
    let mut out = Array::unfilled(dtype, shape)?;
    if out.size() == 0 {
        return Ok(out);
    }
    let mut held = room(xs.size_hint().0)?;
    for x in xs.filter(|x| x.size() > 0) {
        let width: usize = x.shape()[axis..].iter().product();
        held.push(match row_step(x.layout(), axis) {
            Some(step) if x.dtype() == dtype => (Cow::Borrowed(x), step, width),
            _ => (map::dense(x, dtype)?, width as isize, width),
        });
    }
    let (columns, width) = (columns(&held)?, shape[axis..].iter().product());
    with_dtype!(dtype, T => write::<T>(&columns, out.fresh(), width));
    Ok(out)
}

/// The columns of arrays whose rows are so far apart and so long.
fn columns<'a>(xs: &'a [(Cow<Array>, isize, usize)]) -> Result<Vec<Columns<'a>>> {
    let (mut columns, mut to) = (room(xs.len())?, 0);
    for &(ref x, step, width) in xs {
        columns.push(Columns { x, at: x.layout().offset, step, width, to });
        to += width;
    }
    Ok(columns)
}

fn write<T: Element>(columns: &[Columns], y: &mut [T], width: usize) {
    let work = y.len().saturating_mul(3) / 10;
    if y.len() == width {
        // One row: each unit of work finds the arrays that it is part of.
        return parallel::for_chunks(y, BLOCK, work, |i, y| {
            let (start, end) = (i * BLOCK, i * BLOCK + y.len());
            let first = columns.partition_point(|x| x.to + x.width <= start);
            for x in columns[first..].iter().take_while(|x| x.to < end) {
                let (from, to) = (start.max(x.to), end.min(x.to + x.width));
                y[from - start..to - start].copy_from_slice(&x.x.data::<T>()[x.at + from - x.to..][..to - from]);
            }
        });
    }
    let each = (BLOCK / width).max(1);
    let single = width == columns.len() && columns.iter().all(|x| x.step == 1);
    parallel::for_chunks(y, each * width, work, |i, y| match columns {
        [a, b] if single => weave(i * each, [a, b], y),
        // Bytes are woven by registers in pairs only.
        [a, b, c] if const { size_of::<T>() > 1 } && single => weave(i * each, [a, b, c], y),
        [a, b, c, d] if const { size_of::<T>() > 1 } && single => weave(i * each, [a, b, c, d], y),
        _ => {
            for x in columns {
                let from = Rows { at: x.at as isize + (i * each) as isize * x.step, step: x.step };
                copy_rows(x.x.data::<T>(), from, 1, y, Rows { at: x.to as isize, step: width as isize }, (y.len() / width, x.width));
            }
        }
    });
}

/// Writes rows of one element of each array, from row `first` on, where each array's elements lie side by side.
#[inline(never)]
fn weave<T: Element, const K: usize>(first: usize, xs: [&Columns; K], y: &mut [T]) {
    let (rows, _) = y.as_chunks_mut::<K>();
    let xs = xs.map(|x| &x.x.data::<T>()[x.at + first..][..rows.len()]);
    for i in 0..rows.len() {
        for k in 0..K {
            rows[i][k] = xs[k][i];
        }
    }
}
