//! Elements of any layout brought side by side: copies, and what element-wise kernels read of their operands.
//!
//! Short rows are copied many at once, by moves of a fixed size: a step of a walk and a call for each would cost more than they do.

use super::parallel;
use super::plan::Plan;
use super::turn::{self, turn};
use crate::array::{Array, Element};
use crate::simd;

/// Elements that are copied as one unit of work.
const BLOCK: usize = 4096;
/// Elements of an operand that are brought side by side at once: those of three and the result fit into the nearest cache.
pub const PIECE: usize = 1024;
/// Elements of a row from which on it is spread by so many at once.
const WIDE: usize = 16;
/// Stands for moves of rows of any length: a call for each, or as many moves of [`WIDE`] elements as it takes.
const ANY: usize = 0;

/// Reads `out.len()` elements, `stride` apart, into `out`.
#[inline]
pub fn gather<T: Element>(data: &[T], offset: usize, stride: isize, out: &mut [T]) {
    let n = out.len();
    match stride {
        _ if n == 0 => {}
        0 => out.fill(data[offset]),
        1 => out.copy_from_slice(&data[offset..offset + n]),
        -1 => out.iter_mut().zip(data[offset + 1 - n..=offset].iter().rev()).for_each(|(o, &x)| *o = x),
        s if s > 0 => out.iter_mut().zip(data[offset..].iter().step_by(s as usize)).for_each(|(o, &x)| *o = x),
        s => out.iter_mut().zip(data[..=offset].iter().rev().step_by(s.unsigned_abs())).for_each(|(o, &x)| *o = x),
    }
}

/// Where the first of some rows begins in a slice, and how far each is from the one before.
#[derive(Clone, Copy)]
pub struct Rows {
    pub at: isize,
    pub step: isize,
}

/// The same of planes of rows.
#[derive(Clone, Copy)]
pub struct Planes {
    pub at: isize,
    pub plane: isize,
    pub row: isize,
}

/// [`copy_rows`] of planes, [planes, rows, n].
#[inline]
pub fn copy_planes<T: Element>(x: &[T], from: Planes, stride: isize, y: &mut [T], to: Planes, [planes, rows, n]: [usize; 3]) {
    if planes == 1 {
        return copy_rows(x, Rows { at: from.at, step: from.row }, stride, y, Rows { at: to.at, step: to.row }, (rows, n));
    }
    // Rows that are moved as they lie may go in any order: along the longer axis there are fewer calls.
    let across = planes > rows && stride == 1 && from.row != 0;
    let (count, rows) = if across { (rows, planes) } else { (planes, rows) };
    for i in 0..count as isize {
        let row = |of: Planes| {
            let (next, step) = if across { (of.row, of.plane) } else { (of.plane, of.row) };
            Rows { at: of.at + i * next, step }
        };
        copy_rows(x, row(from), stride, y, row(to), (rows, n));
    }
}

/// Writes rows of `n` elements, which are `stride` apart in `x` and side by side in `y`.
pub fn copy_rows<T: Element>(x: &[T], from: Rows, stride: isize, y: &mut [T], to: Rows, (rows, n): (usize, usize)) {
    let is_dense = to.step == n as isize;
    match stride {
        _ if rows == 1 => gather(x, from.at as usize, stride, &mut y[to.at as usize..][..n]),
        _ if is_dense && from.step == 0 => {
            let y = &mut y[to.at as usize..][..rows * n];
            gather(x, from.at as usize, stride, &mut y[..n]);
            repeat(y, n);
        }
        _ if is_dense && n == 1 => gather(x, from.at as usize, from.step, &mut y[to.at as usize..][..rows]),
        0 if n > 1 => in_moves::<T, true>(x, from, y, to, (rows, n)),
        _ if stride == 1 || n == 1 => in_moves::<T, false>(x, from, y, to, (rows, n)),
        s if is_dense && s > 1 && from.step == 1 => {
            let x = turn::Rows { data: x, from: from.at as usize, stride: s as usize, rows: n, cols: rows };
            turn(x, &mut y[to.at as usize..][..rows * n], n, n);
        }
        _ => {
            for row in 0..rows as isize {
                gather(x, (from.at + row * from.step) as usize, stride, &mut y[(to.at + row * to.step) as usize..][..n]);
            }
        }
    }
}

/// Fills `y` with its first `n` elements, again and again.
fn repeat<T: Element>(y: &mut [T], n: usize) {
    let mut done = n.max(1);
    while done < y.len() {
        let more = done.min(y.len() - done);
        y.copy_within(..more, done);
        done += more;
    }
}

/// Copies rows, or with `SPREAD` the first element of each all along it.
fn in_moves<T: Element, const SPREAD: bool>(x: &[T], from: Rows, y: &mut [T], to: Rows, rows: (usize, usize)) {
    match rows.1 {
        0 => {}
        1 => moves::<T, 1, SPREAD>(x, from, y, to, rows),
        2..4 => moves::<T, 2, SPREAD>(x, from, y, to, rows),
        4..8 => moves::<T, 4, SPREAD>(x, from, y, to, rows),
        8..64 if !SPREAD && size_of::<T>() >= 4 => wide_moves(x, from, y, to, rows),
        8..16 => moves::<T, 8, SPREAD>(x, from, y, to, rows),
        16..64 if !SPREAD => some_moves(x, from, y, to, rows),
        _ => moves::<T, ANY, SPREAD>(x, from, y, to, rows),
    }
}

simd! {
    /// [`some_moves`] by registers of any size.
    fn wide_moves<T: Element>(x: &[T], from: Rows, y: &mut [T], to: Rows, rows: (usize, usize)) {
        some_moves(x, from, y, to, rows)
    }
}

/// Copies rows of 8 to 63 elements.
#[inline(always)]
fn some_moves<T: Element>(x: &[T], from: Rows, y: &mut [T], to: Rows, rows: (usize, usize)) {
    match rows.1 {
        0..16 => moves::<T, 8, false>(x, from, y, to, rows),
        16..32 => moves::<T, 16, false>(x, from, y, to, rows),
        _ => moves::<T, 32, false>(x, from, y, to, rows),
    }
}

/// The same by one move of `W` elements to a row, or by two, of which the second ends it whatever both
/// write. Rows must be as long, and no longer than both together but where `W` is [`ANY`].
#[inline(always)]
fn moves<T: Element, const W: usize, const SPREAD: bool>(x: &[T], from: Rows, y: &mut [T], to: Rows, (rows, n): (usize, usize)) {
    let (mut from_at, mut to_at) = (from.at, to.at);
    for _ in 0..rows {
        if W == 1 {
            y[to_at as usize] = x[from_at as usize];
        } else if SPREAD {
            spread::<T, W>(x[from_at as usize], &mut y[to_at as usize..][..n]);
        } else {
            copy::<T, W>(&x[from_at as usize..][..n], &mut y[to_at as usize..][..n]);
        }
        (from_at, to_at) = (from_at + from.step, to_at + to.step);
    }
}

#[inline(always)]
fn spread<T: Element, const W: usize>(x: T, y: &mut [T]) {
    if W == ANY {
        let (x, (chunks, rest)) = ([x; WIDE], y.as_chunks_mut());
        chunks.iter_mut().for_each(|y| *y = x);
        if !rest.is_empty() {
            *y.last_chunk_mut().expect("a row no shorter than a move") = x;
        }
        return;
    }
    let x = [x; W];
    *y.first_chunk_mut().expect("a row no shorter than a move") = x;
    *y.last_chunk_mut().expect("a row no shorter than a move") = x;
}

#[inline(always)]
fn copy<T: Element, const W: usize>(x: &[T], y: &mut [T]) {
    if W == ANY {
        return y.copy_from_slice(x);
    }
    // One after the other, so that neither goes through memory.
    *y.first_chunk_mut::<W>().expect("as long") = *x.first_chunk().expect("a row no shorter than a move");
    if x.len() > W {
        *y.last_chunk_mut::<W>().expect("as long") = *x.last_chunk().expect("a row no shorter than a move");
    }
}

/// An operand of an element-wise kernel, read in the order of the result.
pub struct Operand<'a, T> {
    data: &'a [T],
    plan: Plan<1>,
    /// Whether all its pieces are the same.
    repeats: bool,
}

impl<'a, T: Element> Operand<'a, T> {
    /// Operand `k` of a plan, whose pieces begin at multiples of `each`.
    pub fn new<const K: usize>(plan: &Plan<K>, k: usize, data: &'a [T], each: usize) -> Self {
        let plan = plan.only(k);
        let repeats = match (&plan.sizes[..], &plan.strides[0][..]) {
            (_, [0]) => true,
            ([_, n], [0, _]) => each.is_multiple_of(*n),
            _ => false,
        };
        Operand { data, plan, repeats }
    }

    /// The elements from `start` on: as they lie where that is side by side, or else in `part`, which they fill. Unless `is_first`,
    /// `part` holds the piece before.
    pub fn piece<'b>(&'b self, start: usize, is_first: bool, part: &'b mut [T]) -> &'b [T] {
        if self.plan.is_one_run() && self.plan.inner_stride(0) == 1 {
            return &self.data[self.plan.offsets[0] + start..][..part.len()];
        }
        if is_first || !self.repeats {
            self.fill(start, part);
        }
        part
    }

    /// Writes the elements from `start` on to `out`.
    #[inline(never)]
    fn fill(&self, start: usize, out: &mut [T]) {
        let (plane, row, stride) = (self.plan.plane_step(0), self.plan.row_step(0), self.plan.inner_stride(0));
        self.plan.walk_planes(start, out.len(), &mut |[at], first, [planes, rows, n]| {
            let to = Planes { at: first as isize, plane: (rows * n) as isize, row: n as isize };
            copy_planes(self.data, Planes { at, plane, row }, stride, out, to, [planes, rows, n]);
        });
    }
}

/// How many elements to read at once: whole rows, where they are short.
pub fn piece_of<const K: usize>(plan: &Plan<K>) -> usize {
    match plan.inner() {
        n @ 1..=PIECE => PIECE / n * n,
        _ => PIECE,
    }
}

/// Whether the last two merged axes of an operand are stored the other way round, the last with a stride above one.
pub fn is_turned<const K: usize>(plan: &Plan<K>, k: usize) -> bool {
    plan.sizes.len() >= 2 && plan.inner_stride(k) > 1 && plan.row_step(k) == 1
}

/// Writes the elements of `x` in row-major order to `y`, which has as many.
pub fn copy_into<T: Element>(x: &Array, y: &mut [T]) {
    if y.is_empty() {
        return;
    }
    let work = y.len().saturating_mul(3) / 10;
    if let Some(x) = x.as_slice::<T>() {
        return parallel::for_chunks(y, BLOCK, work, |i, y| y.copy_from_slice(&x[i * BLOCK..i * BLOCK + y.len()]));
    }
    let (plan, data) = (Plan::new([x.layout()]), x.data::<T>());
    // Small planes are turned many to a block.
    let plane = plan.inner() * plan.sizes.iter().rev().nth(1).unwrap_or(&1);
    if is_turned(&plan, 0) && plane > BLOCK / 4 {
        return copy_turned(&plan, data, y);
    }
    let each = if plane <= BLOCK { BLOCK / plane * plane } else { BLOCK };
    let x = Operand::new(&plan, 0, data, each);
    parallel::for_chunks(y, each, work.saturating_mul(3), |i, y| x.fill(i * each, y));
}

/// A copy whose last two merged axes are stored the other way round.
fn copy_turned<T: Element>(plan: &Plan<1>, data: &[T], y: &mut [T]) {
    const BAND: usize = 16;
    let (rows, cols) = (plan.sizes[plan.sizes.len() - 2], plan.inner());
    let stride = plan.inner_stride(0) as usize;
    let bands = rows.div_ceil(BAND);
    let outer = y.len() / (rows * cols);
    for plane in 0..outer {
        let mut base = 0;
        plan.for_range(plane * rows * cols, 1, |[at], _, _| base = at);
        let y = &mut y[plane * rows * cols..(plane + 1) * rows * cols];
        let work = if bands > 1 { y.len() } else { 0 };
        parallel::for_chunks(y, BAND * cols, work, |band, y| {
            let x = turn::Rows { data, from: base + band * BAND, stride, rows: cols, cols: y.len() / cols };
            turn(x, y, cols, cols);
        });
    }
}
