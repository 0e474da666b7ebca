//! How elements are read at places along an axis: the positions before it are walked through once, what lies behind a place is moved
//! in one piece.

use super::{Along, wrapped};
use crate::Result;
use crate::array::{self, Array, Element, Layout};
use crate::kernels::map::gather as gather_run;
use crate::kernels::parallel;
use crate::kernels::plan::Plan;
use std::ops::Range;

/// Runs `f(o, start, r, part)` over an output of `rows` rows of `inner` elements for each outer position: `part` is some of the
/// rows at the outer position `o`, whose elements begin at `start`, from row `r` on. Where there is one element at each position,
/// those of neighbouring positions are one part.
pub fn for_rows<T: Send>(out: &mut [T], outer: &Plan<1>, (rows, inner): (usize, usize), work_ns: usize, f: impl Fn(usize, isize, usize, &mut [T]) + Sync) {
    let group = (4096 / inner.max(1)).max(1);
    let (apart, single) = (outer.inner_stride(0), (rows, inner) == (1, 1));
    parallel::for_chunks(out, group * inner, work_ns, |g, out| {
        let (first, mut r) = (g * group / rows, g * group % rows);
        let (count, mut rest) = ((r + out.len() / inner).div_ceil(rows), out);
        outer.walk(first, count, |[start], done, n| {
            for i in 0..if single { 1 } else { n } {
                let len = if single { n } else { ((rows - r) * inner).min(rest.len()) };
                let (part, others) = std::mem::take(&mut rest).split_at_mut(len);
                f(first + done + i, start + i as isize * apart, r, part);
                (rest, r) = (others, 0);
            }
        });
    });
}

/// Elements that are moved at once where rows are short.
const WINDOW: usize = 16;

/// How an array is read at places along neighbouring axes: what lies before those, and what behind.
pub struct Source {
    pub outer: Plan<1>,
    pub inner: Plan<1>,
}

impl Source {
    pub fn around(layout: &Layout, axes: Range<usize>) -> Source {
        let without = |axes: Range<usize>| axes.rev().fold(*layout, |left, axis| left.remove_axis(axis));
        let mut inner = without(0..axes.end);
        inner.offset = 0;
        Source { outer: Plan::new([&without(axes.start..layout.shape.len())]), inner: Plan::new([&inner]) }
    }

    /// How far each of the `inner` elements behind one place is from the first; empty where they lie evenly.
    pub fn spread(&self, inner: usize) -> Result<Vec<isize>> {
        let mut spread = array::room(if self.inner.is_one_run() { 0 } else { inner })?;
        if !self.inner.is_one_run() {
            let stride = self.inner.inner_stride(0);
            self.inner.walk(0, inner, |[at], _, n| spread.extend((0..n as isize).map(|k| at + k * stride)));
        }
        Ok(spread)
    }

    /// What lies behind one place, from `start` on.
    #[inline(always)]
    fn read<T: Element>(&self, data: &[T], start: isize, out: &mut [T]) {
        let stride = self.inner.inner_stride(0);
        if self.inner.is_one_run() {
            return gather_run(data, start as usize, stride, out);
        }
        self.inner.walk(0, out.len(), |[at], done, n| gather_run(data, (start + at) as usize, stride, &mut out[done..done + n]));
    }

    /// Writes `inner` elements behind each place.
    #[inline(always)]
    fn read_each<T: Element>(&self, data: &[T], starts: impl Iterator<Item = isize>, inner: usize, out: &mut [T]) {
        if inner <= WINDOW && self.inner.is_one_run() && self.inner.inner_stride(0) == 1 {
            return read_short(data, starts.map(|start| start as usize), inner, out);
        }
        out.chunks_exact_mut(inner).zip(starts).for_each(|(out, start)| self.read(data, start, out));
    }
}

/// Writes runs of at most [`WINDOW`] elements by a window of fixed size, whose end the next one overwrites.
#[inline(always)]
fn read_short<T: Element>(data: &[T], starts: impl Iterator<Item = usize>, inner: usize, out: &mut [T]) {
    for (first, start) in (0..out.len()).step_by(inner).zip(starts) {
        let (from, out) = (&data[start..], &mut out[first..]);
        match (from.first_chunk::<WINDOW>(), out.first_chunk_mut::<WINDOW>()) {
            (Some(from), Some(out)) => *out = *from,
            _ => out[..inner].copy_from_slice(&from[..inner]),
        }
    }
}

/// Rows of a table of `n` that lies in row-major order, as [`read_at`] reads them, without its plans: of a small batch they cost more
/// than its rows.
pub fn read_rows<T: Element>(table: &[T], n: usize, index: &[i64], out: &mut [T]) {
    let inner = out.len() / index.len().max(1);
    let group = (4096 / inner.max(1)).max(1);
    let work = std::mem::size_of_val(out) / 16;
    parallel::for_chunks(out, group * inner, work, |g, out| {
        let starts = index[g * group..].iter().map(|&i| wrapped(i, n) * inner);
        match inner {
            1 => out.iter_mut().zip(starts).for_each(|(out, start)| *out = table[start]),
            ..=WINDOW => read_short(table, starts, inner, out),
            _ => out.chunks_exact_mut(inner).zip(starts).for_each(|(out, start)| out.copy_from_slice(&table[start..start + inner])),
        }
    });
}

/// Where an index leads along an axis of `n` positions that are `step` apart.
#[derive(Clone, Copy)]
pub struct Places<'a> {
    pub index: &'a [i64],
    pub along: Along,
    /// How many there are for one position before the axis, and how far those of the next are from them.
    pub count: usize,
    pub apart: usize,
}

/// Rows from which on it pays to find out first how far places lead.
const PICKED: usize = 4;

/// How far the first of some places leads, and how much farther each of them: so one look at a row's ends is enough to know that it
/// reaches as far.
fn leads(index: &[i64], along: Along) -> Result<(isize, Vec<usize>)> {
    let place = |&i: &i64| wrapped(i, along.n) as isize * along.step;
    let (first, mut leads) = (index.iter().map(place).min().unwrap_or(0), array::room(index.len())?);
    leads.extend(index.iter().map(|i| (place(i) - first) as usize));
    Ok((first, leads))
}

/// Elements at places of each row, side by side, as [`leads`] gave them. There are some.
fn pick<T: Element>(data: &[T], rows: &Plan<1>, (first, places): (isize, Vec<usize>), work: usize, out: &mut [T]) {
    let (count, apart) = (places.len(), rows.inner_stride(0));
    let group = (4096 / count).max(1);
    parallel::for_chunks(out, group * count, work, |g, out| {
        rows.for_long_rows(g * group, out.len() / count, &mut |[start], done, n| {
            pick_rows(data, (start as isize + first, apart), &places, &mut out[done * count..][..n * count]);
        });
    });
}

/// A function of its own, so that the compiler knows that what is written is none of the places.
#[inline(never)]
fn pick_rows<T: Element>(data: &[T], (start, apart): (isize, isize), places: &[usize], out: &mut [T]) {
    let reach = places.iter().max().map_or(0, |&last| last + 1);
    let (fours, rest) = places.as_chunks::<4>();
    for (i, out) in out.chunks_exact_mut(places.len()).enumerate() {
        let row = &data[(start + i as isize * apart) as usize..][..reach];
        let (out_fours, out) = out.as_chunks_mut();
        for i in 0..fours.len().min(out_fours.len()) {
            let [a, b, c, d] = fours[i];
            out_fours[i] = [row[a], row[b], row[c], row[d]];
        }
        for i in 0..rest.len().min(out.len()) {
            out[i] = row[rest[i]];
        }
    }
}

/// Elements of `x` at places along `axes`.
pub fn read_at<T: Element>(x: &Array, axes: Range<usize>, places: Places<'_>, out: &mut [T]) {
    let inner: usize = x.shape()[axes.end..].iter().product();
    let (data, source, work) = (x.data::<T>(), Source::around(x.layout(), axes), std::mem::size_of_val(out) / 16);
    let Places { index, along, count, apart } = places;
    let place = |&i: &i64| wrapped(i, along.n) as isize * along.step;
    if apart == 0
        && inner == 1
        && count > 1
        && out.len() >= PICKED * count
        && let Ok(leads) = leads(index, along)
    {
        return pick(data, &source.outer, leads, work, out);
    }
    let stride = source.outer.inner_stride(0);
    for_rows(out, &source.outer, (count, inner), work, |o, start, r, out| {
        let index = &index[o * apart + r..];
        match (count, inner) {
            (1, 1) if apart == 0 => gather_run(data, (start + place(&index[0])) as usize, stride, out),
            (1, 1) => {
                let starts = (0..).map(|i| start + i * stride);
                out.iter_mut().zip(index).zip(starts).for_each(|((out, i), start)| *out = data[(start + place(i)) as usize]);
            }
            (_, 1) => out.iter_mut().zip(index).for_each(|(out, i)| *out = data[(start + place(i)) as usize]),
            _ => source.read_each(data, index.iter().map(|i| start + place(i)), inner, out),
        }
    });
}
