//! Writes into parts of an array, wherever they lie in its storage.

use super::copies::{PIECE, Planes, Rows, copy_planes, copy_rows};
use super::plan::Plan;
use super::simd::{Float, lanes_only};
use crate::array::{Array, Layout};
use crate::{simd, with_dtype};

/// Writes the elements of `x` where `target` says, in the storage of `base`, which nobody else holds.
pub fn write(base: &mut Array, target: &Layout, x: &Array) {
    write_from(base, target, x, x.layout(), &mut std::iter::once((0, 0)));
}

/// As [`write()`], for each place along one axis of `x` where `target` says from that place's offset on, in turn.
pub fn scatter(base: &mut Array, target: &Layout, offsets: &[i64], x: &Array, axis: usize) {
    let (each, step) = (x.layout().remove_axis(axis), x.layout().strides()[axis]);
    let plan = Plan::new([target, &each]);
    if target.size() == 0 || (target.size() > 1 && plan.inner_stride(0) == 1) {
        return write_from(base, target, x, &each, &mut offsets.iter().zip(0..).map(|(&to, i)| (to as isize, i * step)));
    }
    // Where what lies at a place does not lie side by side, places may: they are gone through for each element.
    let (down, stride) = (plan.inner_stride(0), plan.inner_stride(1));
    with_dtype!(base.dtype(), T => {
        let (y, x) = (base.data_mut::<T>().expect("nobody else holds it"), x.data::<T>());
        plan.walk(0, target.size(), |[to, from], _, n| {
            for i in 0..n as isize {
                let mut from = from + i * stride;
                for &at in offsets {
                    y[(to + i * down + at as isize) as usize] = x[from as usize];
                    from += step;
                }
            }
        });
    });
}

/// Writes what `source` says of `x` where `target` says in `base`, both moved on by each pair of `offsets`.
fn write_from(base: &mut Array, target: &Layout, x: &Array, source: &Layout, offsets: &mut dyn Iterator<Item = (isize, isize)>) {
    let size = target.size();
    if size == 0 {
        return;
    }
    let plan = Plan::new([target, source]);
    let (step, stride) = (plan.inner_stride(0), plan.inner_stride(1));
    with_dtype!(base.dtype(), T => {
        let (y, x) = (base.data_mut::<T>().expect("nobody else holds it"), x.data::<T>());
        for (to_next, from_next) in offsets {
            plan.walk_planes(0, size, &mut |[to, from], _, [planes, rows, n]| {
                let of = |k, at| Planes { at, plane: plan.plane_step(k), row: plan.row_step(k) };
                let (to, from) = (of(0, to + to_next), of(1, from + from_next));
                if step == 1 {
                    return copy_planes(x, from, stride, y, to, [planes, rows, n]);
                }
                for i in 0..planes * rows {
                    let (plane, row) = ((i / rows) as isize, (i % rows) as isize);
                    let at = |of: Planes| of.at + plane * of.plane + row * of.row;
                    copy_rows(x, Rows { at: at(from), step: stride }, 1, y, Rows { at: at(to), step }, (n, 1));
                }
            });
        }
    });
}

/// Adds the elements of `x` to those where `target` says, in the storage of `base`, which nobody else holds.
pub fn add<T: Float>(base: &mut Array, target: &Layout, x: &Array) {
    if x.size() == 0 {
        return;
    }
    let plan = Plan::new([target, x.layout()]);
    let (step, stride) = (plan.inner_stride(0), plan.inner_stride(1));
    let (y, data) = (base.data_mut::<T>().expect("nobody else holds it"), x.data::<T>());
    plan.walk_planes(0, x.size(), &mut |[to, from], _, [planes, rows, n]| {
        for plane in 0..planes as isize {
            let of = |k, at| Rows { at: at + plane * plan.plane_step(k), step: plan.row_step(k) };
            let (to, from) = (of(0, to), of(1, from));
            match (step, stride) {
                (1, 1) => add_rows(y, to, data, from, rows, n),
                (1, _) if n <= PIECE => add_gathered(y, to, data, from, stride, (rows, n)),
                _ => add_each(y, (to, step), data, (from, stride), (rows, n)),
            }
        }
    });
}

/// Adds rows whose elements are `stride` apart in `x`, a piece of them after the other brought side by side.
fn add_gathered<T: Float>(y: &mut [T], to: Rows, x: &[T], from: Rows, stride: isize, (rows, n): (usize, usize)) {
    let (mut near, each) = ([T::ZERO; PIECE], PIECE / n);
    for first in (0..rows).step_by(each) {
        let (count, after) = (each.min(rows - first), |rows: Rows| Rows { at: rows.at + first as isize * rows.step, ..rows });
        let side_by_side = Rows { at: 0, step: n as isize };
        copy_rows(x, after(from), stride, &mut near, side_by_side, (count, n));
        add_rows(y, after(to), &near, side_by_side, count, n);
    }
}

fn add_each<T: Float>(y: &mut [T], (to, step): (Rows, isize), x: &[T], (from, stride): (Rows, isize), (rows, n): (usize, usize)) {
    for row in 0..rows as isize {
        let (to, from) = (to.at + row * to.step, from.at + row * from.step);
        for i in 0..n as isize {
            y[(to + i * step) as usize] += x[(from + i * stride) as usize];
        }
    }
}

/// Elements of a row that are added at once.
const CHUNK: usize = 16;

simd! {
    fn add_rows<T: Float>(y: &mut [T], to: Rows, x: &[T], from: Rows, rows: usize, n: usize) {
        let (mut to_at, mut from_at) = (to.at, from.at);
        for _ in 0..rows {
            let (y, x) = (&mut y[to_at as usize..][..n], &x[from_at as usize..][..n]);
            let ((chunks, rest), (x_chunks, x_rest)) = (y.as_chunks_mut::<CHUNK>(), x.as_chunks::<CHUNK>());
            for i in 0..chunks.len().min(x_chunks.len()) {
                for l in 0..CHUNK {
                    chunks[i][l] += x_chunks[i][l];
                }
                lanes_only();
            }
            for i in 0..rest.len().min(x_rest.len()) {
                rest[i] += x_rest[i];
            }
            (to_at, from_at) = (to_at + to.step, from_at + from.step);
        }
    }
}
