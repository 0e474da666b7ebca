//! Writes into parts of an array, wherever they lie in its storage.

use super::copies::{Rows, copy_rows};
use super::plan::Plan;
use crate::array::{Array, Element, Layout};
use crate::with_dtype;

/// Writes the elements of `x` where `target` says, in the storage of `base`, which nobody else holds.
pub fn write(base: &mut Array, target: &Layout, x: &Array) {
    write_from(base, target, x, x.layout(), std::iter::once((0, 0)));
}

/// As [`write()`], for each place along one axis of `x` where `target` says from that place's offset on, in turn.
pub fn scatter(base: &mut Array, target: &Layout, offsets: &[i64], x: &Array, axis: usize) {
    let (each, step) = (x.layout().remove_axis(axis), x.layout().strides()[axis]);
    write_from(base, target, x, &each, offsets.iter().zip(0..).map(|(&to, i)| (to as isize, i * step)));
}

/// Writes what `source` says of `x` where `target` says in `base`, both moved on by each pair of `offsets`.
fn write_from(base: &mut Array, target: &Layout, x: &Array, source: &Layout, offsets: impl Iterator<Item = (isize, isize)>) {
    let size = target.size();
    if size == 0 {
        return;
    }
    let plan = Plan::new([target, source]);
    let (step, stride) = (plan.inner_stride(0), plan.inner_stride(1));
    with_dtype!(base.dtype(), T => {
        let (y, x) = (base.data_mut::<T>().expect("nobody else holds it"), x.data::<T>());
        for (to_next, from_next) in offsets {
            plan.walk_rows(0, size, |[to, from], _, (rows, n)| {
                let to = Rows { at: to + to_next, step: plan.row_step(0) };
                let from = Rows { at: from + from_next, step: plan.row_step(1) };
                if step == 1 {
                    return copy_rows(x, from, stride, y, to, (rows, n));
                }
                for row in 0..rows as isize {
                    let (from, to) = (from.at + row * from.step, to.at + row * to.step);
                    copy_rows(x, Rows { at: from, step: stride }, 1, y, Rows { at: to, step }, (n, 1));
                }
            });
        }
    });
}

/// Adds the elements of `x` to those where `target` says, in the storage of `base`, which nobody else holds.
pub fn add<T: Element + std::ops::AddAssign>(base: &mut Array, target: &Layout, x: &Array) {
    if x.size() == 0 {
        return;
    }
    let plan = Plan::new([target, x.layout()]);
    let (step, stride) = (plan.inner_stride(0), plan.inner_stride(1));
    let (y, data) = (base.data_mut::<T>().expect("nobody else holds it"), x.data::<T>());
    plan.for_range(0, x.size(), |[to, from], _, n| match (step, stride) {
        (1, 1) => y[to..to + n].iter_mut().zip(&data[from..from + n]).for_each(|(y, &x)| *y += x),
        _ => (0..n as isize).for_each(|i| y[(to as isize + i * step) as usize] += data[(from as isize + i * stride) as usize]),
    });
}
