//! Reductions of which each result comes from a row of its own: one that lies side by side, or is gathered from where it lies.

use super::fold::{BLOCK, Fold, Spaced, fold_part, fold_row, fold_rows};
use super::short::{SHORT, fold_short_rows};
use super::{SCATTERED, SPAN, least, without_innermost};
use crate::array::Element;
use crate::kernels::interrupt;
use crate::kernels::parallel;
use crate::kernels::plan::Plan;
use crate::kernels::turn::Rows;

/// Elements folded between two questions whether to stop.
const UNASKED: usize = 1 << 22;
/// Elements of rows that are gathered at once.
const GATHERED: usize = 1024;
/// Rows whose results are held at once.
const HELD: usize = 32;

type Plans<'a> = (&'a Plan<1>, &'a Plan<1>);

/// Folds neighbouring short rows of elements that are `stride` apart, if they are ones. Says whether they are.
fn fold_near<T: Element, F: Fold<T>>(f: F, data: &[T], rows: Spaced, stride: isize, y: &mut [T]) -> bool {
    let reach = (rows.len as isize - 1) * stride + 1;
    let are = stride > 0 && reach < SHORT as isize && rows.apart > 0 && y.len() > 1;
    if are {
        let (from, apart) = (rows.at as usize, rows.apart as usize);
        fold_short_rows(f, Rows { data, from, stride: apart, rows: y.len(), cols: reach as usize }, stride as usize, y);
    }
    are
}

/// Folds rows that lie side by side.
#[inline(never)]
fn fold_each<T: Element, F: Fold<T>>(f: F, data: &[T], rows: Spaced, y: &mut [T]) {
    if fold_near(f, data, rows, 1, y) {
        return;
    }
    for (i, y) in y.chunks_mut(HELD).enumerate() {
        let mut wide = [F::wide_id(); HELD];
        let at = rows.at + (i * HELD) as isize * rows.apart;
        fold_rows(f, data, Spaced { at, ..rows }, &mut wide[..y.len()]);
        for (y, &wide) in y.iter_mut().zip(&wide) {
            *y = F::finish(F::merge(F::wide_id(), wide));
        }
    }
}

/// Writes the elements of rows that begin `apart` to `to`, row after row; `spread` says how far each is from the first of its row.
fn gather_rows<T: Element>(data: &[T], at: isize, apart: isize, spread: &[isize], to: &mut [T]) {
    for (i, row) in to.chunks_exact_mut(spread.len()).enumerate() {
        let start = at + i as isize * apart;
        for (j, to) in row.iter_mut().enumerate() {
            *to = data[(start + spread[j]) as usize];
        }
    }
}

/// Folds rows that lie as `spread` says, a few at a time.
fn fold_scattered<T: Element, F: Fold<T>>(f: F, data: &[T], rows: Spaced, spread: &[isize], y: &mut [T]) {
    let (mut near, count) = ([T::default(); GATHERED], GATHERED / rows.len);
    for (i, y) in y.chunks_mut(count).enumerate() {
        let near = &mut near[..y.len() * rows.len];
        gather_rows(data, rows.at + (i * count) as isize * rows.apart, rows.apart, spread, near);
        fold_each(f, near, Spaced { at: 0, apart: rows.len as isize, len: rows.len }, y);
    }
}

/// A long row, or one of many runs, of which pieces are folded.
struct Row<'a, T> {
    data: &'a [T],
    inner: &'a Plan<1>,
    /// Where its runs begin, if they lie side by side in themselves and are not long.
    runs: Option<&'a Plan<1>>,
}

impl<T: Element> Row<'_, T> {
    /// Folds `len` elements from the `first` on, of the row that begins at `base`.
    #[inline(never)]
    fn fold<F: Fold<T>>(&self, f: F, base: isize, first: usize, len: usize) -> F::Wide {
        let (mut total, mut from, end) = (F::wide_id(), first, first + len);
        let (stride, each) = (self.inner.inner_stride(0), self.inner.inner());
        while from < end && (from == first || !interrupt::stops()) {
            let count = UNASKED.next_multiple_of(each).min(end - from);
            match self.runs {
                Some(runs) => runs.walk(from / each, count / each, |[at], _, n| total = self.fold_runs(f, total, base + at, n)),
                None => self.inner.walk(from, count, |[at], _, n| {
                    let part = match stride {
                        1 => fold_part(f, self.data, (base + at) as usize, n),
                        _ => fold_strided(f, self.data, base + at, stride, n),
                    };
                    total = F::merge(total, part);
                }),
            }
            from += count;
        }
        total
    }

    /// `total` with `n` runs, of which the first begins at `at`.
    fn fold_runs<F: Fold<T>>(&self, f: F, mut total: F::Wide, at: isize, n: usize) -> F::Wide {
        let (apart, len) = (self.runs.map_or(0, |runs| runs.inner_stride(0)), self.inner.inner());
        let mut wide = [F::wide_id(); HELD];
        for first in (0..n).step_by(HELD) {
            let wide = &mut wide[..HELD.min(n - first)];
            fold_rows(f, self.data, Spaced { at: at + first as isize * apart, apart, len }, wide);
            total = wide.iter().fold(total, |total, &part| F::merge(total, part));
        }
        total
    }
}

pub fn fold_by_rows<T: Element, F: Fold<T>>(f: F, data: &[T], (outer, inner): Plans, span: usize, y: &mut [T]) {
    let (stride, each) = (inner.inner_stride(0), inner.inner());
    let side_by_side = stride == 1 && inner.is_one_run();
    let runs = (stride == 1 && !side_by_side && each <= BLOCK).then(|| without_innermost(inner.clone()));
    let row = Row { data, inner, runs: runs.as_ref() };
    let work = y.len().saturating_mul(span) / 4;
    let length = SPAN.max(least(span, y.len()));
    let length = if runs.is_some() { length.next_multiple_of(each) } else { length };
    let pieces = span.div_ceil(length);
    if pieces == 1 {
        let mut spread = Vec::new();
        if !side_by_side && span <= SCATTERED {
            inner.walk(0, span, |[at], _, n| spread.extend((0..n as isize).map(|i| at + i * stride)));
        }
        let (group, apart) = ((SPAN / span).max(1), outer.inner_stride(0));
        return parallel::for_chunks(y, group, work, |g, y| {
            outer.walk(g * group, y.len(), |[at], first, n| {
                let (y, rows) = (&mut y[first..first + n], Spaced { at, apart, len: span });
                match side_by_side {
                    true if span <= BLOCK => fold_each(f, data, rows, y),
                    false if inner.is_one_run() && fold_near(f, data, rows, stride, y) => {}
                    false if span <= SCATTERED => fold_scattered(f, data, rows, &spread, y),
                    _ => y.iter_mut().enumerate().for_each(|(i, y)| *y = F::finish(row.fold(f, at + i as isize * apart, 0, span))),
                }
            });
        });
    }
    let mut parts = vec![F::wide_id(); y.len() * pieces];
    parallel::for_chunks(&mut parts, 1, work, |i, part| {
        let first = i % pieces * length;
        outer.for_range(i / pieces, 1, |[at], _, _| part[0] = row.fold(f, at as isize, first, length.min(span - first)));
    });
    for (y, parts) in y.iter_mut().zip(parts.chunks(pieces)) {
        *y = F::finish(parts.iter().copied().fold(F::wide_id(), F::merge));
    }
}

fn fold_strided<T: Element, F: Fold<T>>(f: F, data: &[T], at: isize, stride: isize, n: usize) -> F::Wide {
    let mut total = F::wide_id();
    let mut part = [T::default(); 256];
    for first in (0..n).step_by(part.len()) {
        let len = part.len().min(n - first);
        for (i, p) in part[..len].iter_mut().enumerate() {
            *p = data[(at + (first + i) as isize * stride) as usize];
        }
        total = F::merge(total, fold_row(f, &part[..len]));
    }
    total
}
