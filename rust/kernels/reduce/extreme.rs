//! Where the largest and the smallest elements lie.

use super::fold::{Fold, Max, Min, fold_row};
use super::short::{W, by_columns};
use super::{SPAN, check_not_empty, reduced_shape, sub_layout};
use crate::Result;
use crate::array::{Array, DType, Element};
use crate::kernels::interrupt;
use crate::kernels::map::contiguous;
use crate::kernels::parallel;
use crate::kernels::plan::Plan;
use crate::kernels::simd::lanes_only;
use crate::kernels::turn::Rows;
use crate::{simd, with_dtype};
use smallvec::SmallVec;

/// A fold to one of the elements.
trait Extreme<T: Element>: Fold<T, Lane = T, Wide = T> {
    /// Whether `x` takes the place of `a`: as the larger or the smaller, or as the first NaN.
    fn takes(a: T, x: T) -> bool;
    /// Whether `x` is larger or smaller than `a`; never, if one is NaN.
    fn beyond(a: T, x: T) -> bool;
    /// What nothing is beyond.
    fn utmost() -> T;
}
// Comparisons are turned round so that they hold of NaN.
#[allow(clippy::eq_op, clippy::neg_cmp_op_on_partial_ord)]
impl<T: Element> Extreme<T> for Max
where
    Max: Fold<T, Lane = T, Wide = T>,
    Min: Fold<T>,
{
    #[inline(always)]
    fn takes(a: T, x: T) -> bool {
        !(x <= a) & (a == a)
    }
    #[inline(always)]
    fn beyond(a: T, x: T) -> bool {
        x > a
    }
    #[inline(always)]
    fn utmost() -> T {
        <Min as Fold<T>>::id()
    }
}
#[allow(clippy::eq_op, clippy::neg_cmp_op_on_partial_ord)]
impl<T: Element> Extreme<T> for Min
where
    Min: Fold<T, Lane = T, Wide = T>,
    Max: Fold<T>,
{
    #[inline(always)]
    fn takes(a: T, x: T) -> bool {
        !(x >= a) & (a == a)
    }
    #[inline(always)]
    fn beyond(a: T, x: T) -> bool {
        x < a
    }
    #[inline(always)]
    fn utmost() -> T {
        <Max as Fold<T>>::id()
    }
}

/// Rows of more elements are better looked through one by one.
const SHORT: usize = 64;
/// Columns that are looked at together, of which so many stay in registers while so many rows go by.
const TILE: usize = 256;
const WIDE: usize = 32;
const NEAR: usize = 32;
/// Rows between two questions whether to stop.
const UNASKED: usize = 1 << 14;
/// Elements of which the extreme is found before it is asked whether it is that of the row.
const BLOCK: usize = 1 << 14;
/// Elements among which the extreme is looked for without a branch.
const PANEL: usize = 256;
/// Elements that are compared at once with the largest or smallest so far in their places.
const MANY: usize = 64;

/// Index (int64) of the first largest or smallest element along one axis; a NaN counts as both.
pub fn arg_extreme(x: &Array, axis: usize, keepdims: bool, largest: bool) -> Result<Array> {
    check_not_empty(x, &[axis], if largest { "argmax" } else { "argmin" })?;
    let mut out = Array::unfilled(DType::I64, reduced_shape(x.shape(), &[axis], keepdims))?;
    with_dtype!(x.dtype(), T => match largest {
        true => fill::<T, _>(Max, x, axis, out.fresh())?,
        false => fill::<T, _>(Min, x, axis, out.fresh())?,
    });
    Ok(out)
}

fn fill<T: Element, F: Extreme<T>>(f: F, x: &Array, axis: usize, y: &mut [i64]) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let (n, stride) = (x.shape()[axis], x.layout().strides()[axis]);
    let work = x.size() / 2;
    let mut order: SmallVec<[usize; 8]> = (0..x.ndim()).filter(|&a| a != axis).collect();
    let outer = Plan::new([&sub_layout(x, &order, x.layout().offset)]);
    if stride != 1 && outer.inner_stride(0) == 1 && outer.inner() >= WIDE {
        let data = x.data::<T>();
        parallel::for_chunks(y, TILE, work, |i, y| {
            outer.for_range(i * TILE, y.len(), |[at], first, len| in_columns(f, data, at, stride, n, &mut y[first..first + len]));
        });
        return Ok(());
    }
    order.push(axis);
    let x = contiguous(&x.permute(&order))?;
    let data = x.as_slice::<T>().expect("made contiguous");
    let group = (SPAN / n).max(1);
    parallel::for_chunks(y, group, work, |g, y| {
        let rows = Rows { data, from: g * group * n, stride: n, rows: y.len(), cols: n };
        if n < MANY && y.len() == 1 {
            y[0] = in_short_row(f, &data[rows.from..][..n]);
        } else if n <= SHORT {
            in_short_rows(f, rows, y);
        } else if n <= BLOCK {
            in_rows(f, &data[rows.from..][..n * y.len()], n, y);
        } else {
            y.iter_mut().zip(data[rows.from..].chunks(n)).for_each(|(y, row)| *y = in_row(f, row));
        }
    });
    Ok(())
}

/// Writes the places in rows of `n` elements, from [`MANY`] to [`BLOCK`].
fn in_rows<T: Element, F: Extreme<T>>(f: F, x: &[T], n: usize, y: &mut [i64]) {
    let mut most = [T::default(); W];
    for (x, y) in x.chunks(W * n).zip(y.chunks_mut(W)) {
        let most = &mut most[..y.len()];
        tops(f, x, n, most);
        first(x, n, most, y);
    }
}

/// Writes the largest or smallest of rows of `n` elements, at least [`MANY`]; NaN where there is one.
fn tops<T: Element, F: Extreme<T>>(f: F, x: &[T], n: usize, y: &mut [T]) {
    // Windows of bytes are no faster than folds of them.
    if const { size_of::<T>() == 1 } {
        return y.iter_mut().zip(x.chunks(n)).for_each(|(y, row)| *y = fold_row(f, row));
    }
    long_tops(f, x, n, y);
}

/// The place in a row that is too short for windows, and alone.
fn in_short_row<T: Element, F: Extreme<T>>(_: F, row: &[T]) -> i64 {
    let mut best = 0;
    for i in 1..row.len() {
        best = if F::takes(row[best], row[i]) { i } else { best };
    }
    best as i64
}

/// The place in a row of more than [`BLOCK`] elements: of its blocks, the first with the extreme is looked through.
fn in_row<T: Element, F: Extreme<T>>(f: F, row: &[T]) -> i64 {
    let (mut best, mut at, mut place) = (row[0], 0, [0]);
    // The last block ends where the row does; what is looked at twice changes nothing.
    for start in (0..row.len()).step_by(BLOCK).map(|start| start.min(row.len() - BLOCK)) {
        let block = &row[start..][..BLOCK];
        let mut most = [best];
        tops(f, block, BLOCK, &mut most);
        if is_nan(most[0]) | F::beyond(best, most[0]) {
            (best, at) = (most[0], start);
        }
        // A NaN may come after an infinity.
        if is_nan(best) || !T::DTYPE.is_float() && best == F::utmost() {
            break;
        }
    }
    first(&row[at..][..BLOCK], BLOCK, &[best], &mut place);
    at as i64 + place[0]
}

/// The larger or smaller of each element of one half and its like in the other.
#[inline(always)]
fn half<T: Element, F: Extreme<T>, const N: usize>(x: &[T]) -> [T; N] {
    let mut y: [T; N] = *x.first_chunk().expect("two halves");
    for l in 0..N {
        y[l] = if F::beyond(y[l], x[N + l]) { x[N + l] } else { y[l] };
    }
    y
}

/// Whether `x` is `best`, which may be NaN; without one among the elements the second is never so.
#[inline(always)]
fn is<T: Element>(x: T, best: T) -> bool {
    (x == best) | is_nan(x)
}

#[inline(always)]
#[allow(clippy::eq_op)]
fn is_nan<T: Element>(x: T) -> bool {
    x != x
}

simd! {
    /// [`tops`] of elements of several bytes.
    fn long_tops<T: Element, F: Extreme<T>>(f: F, x: &[T], n: usize, y: &mut [T]) {
        let _ = f;
        for (row, y) in x.chunks_exact(n).zip(y) {
            let (chunks, _) = row.as_chunks::<MANY>();
            let (mut most, mut nan) = (chunks[0], false);
            let mut take = |window: &[T; MANY]| {
                for l in 0..MANY {
                    most[l] = if F::beyond(most[l], window[l]) { window[l] } else { most[l] };
                    nan |= is_nan(window[l]);
                }
            };
            chunks.iter().for_each(&mut take);
            // The last window ends where the elements do; what is looked at twice changes nothing.
            take(row.last_chunk().expect("as many"));
            let [most] = half::<T, F, 1>(&half::<T, F, 2>(&half::<T, F, 4>(&half::<T, F, 8>(&half::<T, F, 16>(&half::<T, F, 32>(&most))))));
            *y = if nan { T::from_f64(f64::NAN) } else { most };
        }
    }

    /// Writes where the first element lies in rows of `n`, from [`MANY`] to [`BLOCK`], that is what is `best` in each. Panels are looked through
    /// without a branch, since none would be foreseen.
    fn first<T: Element>(x: &[T], n: usize, best: &[T], y: &mut [i64]) {
        const NONE: i32 = i32::MAX;
        for ((row, &best), y) in x.chunks_exact(n).zip(best).zip(y) {
            for panel in (0..n).step_by(PANEL) {
                let mut found = [NONE; W];
                for at in (panel..n.min(panel + PANEL)).step_by(W) {
                    // The last window ends where the elements do.
                    let at = at.min(n - W);
                    let window = row[at..].first_chunk::<W>().expect("a window");
                    for l in 0..W {
                        found[l] = found[l].min(if is(window[l], best) { (at + l) as i32 } else { NONE });
                    }
                    lanes_only();
                }
                let place = found.into_iter().fold(NONE, i32::min);
                if place != NONE {
                    *y = i64::from(place);
                    break;
                }
            }
        }
    }

    /// Writes the place in each of the rows of `x`, of 1 to [`SHORT`] elements.
    fn in_short_rows<T: Element, F: Extreme<T>>(f: F, x: Rows<T>, y: &mut [i64]) {
        let _ = f;
        by_columns::<T, i64, SHORT>(x, y, |y, columns| {
            let (mut best, mut found) = ([F::id(); W], [0; W]);
            for column in columns {
                for l in 0..W {
                    best[l] = F::step(best[l], column[l]);
                }
                lanes_only();
            }
            for (j, column) in columns.iter().enumerate().rev() {
                for l in 0..W {
                    found[l] = if is(column[l], best[l]) { j as i32 } else { found[l] };
                }
                lanes_only();
            }
            y.iter_mut().zip(found).for_each(|(y, found)| *y = i64::from(found));
        });
    }

    /// Writes the places in the columns of `n` rows, `stride` apart from `at` on.
    fn in_columns<T: Element, F: Extreme<T>>(f: F, x: &[T], at: usize, stride: isize, n: usize, y: &mut [i64]) {
        let _ = f;
        let mut best = [F::id(); TILE];
        y.fill(0);
        for first in (0..n).step_by(NEAR) {
            if first % UNASKED == 0 && first > 0 && interrupt::stops() {
                return;
            }
            let row = |i: usize| (at as isize + (first + i) as isize * stride) as usize;
            let rows = NEAR.min(n - first);
            if y.len() < WIDE {
                for c in 0..y.len() {
                    takers::<T, F, 1>(|i| &x[row(i) + c..], rows, first, &mut best[c..], &mut y[c..]);
                }
                continue;
            }
            // The last columns are looked at with those before them, once more: nothing takes the place of itself.
            let last = y.len() - WIDE;
            for c in (0..last + WIDE).step_by(WIDE).map(|c| c.min(last)) {
                takers::<T, F, WIDE>(|i| &x[row(i) + c..], rows, first, &mut best[c..], &mut y[c..]);
            }
        }
    }
}

/// Lets the elements of some rows take the places in columns that stay in registers.
#[inline(always)]
fn takers<'a, T: Element, F: Extreme<T>, const N: usize>(row: impl Fn(usize) -> &'a [T], rows: usize, first: usize, best: &mut [T], y: &mut [i64]) {
    let best = best.first_chunk_mut::<N>().expect("as many columns");
    let (mut most, mut found) = (*best, [-1; N]);
    for i in 0..rows {
        let x = row(i).first_chunk::<N>().expect("a row of columns");
        for l in 0..N {
            let taken = F::takes(most[l], x[l]);
            most[l] = if taken { x[l] } else { most[l] };
            found[l] = if taken { i as i32 } else { found[l] };
        }
        lanes_only();
    }
    *best = most;
    for (y, found) in y.iter_mut().zip(found) {
        *y = if found < 0 { *y } else { first as i64 + i64::from(found) };
    }
}
