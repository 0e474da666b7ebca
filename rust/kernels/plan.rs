//! How a kernel walks over layouts: dimensions are merged, then inner loops run on slices.

use crate::Result;
use crate::array::{Array, Dims, Layout, MAX_DIMS};
use smallvec::SmallVec;

/// Rows of fewer elements cost more than their elements do.
const SHORT: usize = 16;

/// Elements of planes that are walked at once: they and what is made of them fit into the nearest cache.
const PLANES: usize = 4096;

/// Axes in the order in which an array lies in memory, the farthest apart first.
pub struct Order(SmallVec<[usize; MAX_DIMS]>);

impl Order {
    /// The order of the first operand that has the shape of the result and says one; none where one lies in row-major order, or rows
    /// in that order are long enough to be read as they are.
    pub fn of<const K: usize>(plan: &Plan<K>, shape: &Dims, operands: [&Array; K]) -> Option<Order> {
        let mut found = None;
        if plan.inner() >= SHORT && (0..K).all(|k| matches!(plan.inner_stride(k), 0 | 1)) {
            return found;
        }
        for x in operands.iter().filter(|x| x.shape() == shape) {
            let strides = x.layout().strides();
            let key = |&axis: &usize| if shape[axis] == 1 { isize::MIN } else { -strides[axis].abs() };
            // An element that is there again and again may stand anywhere.
            if (0..shape.len()).any(|axis| key(&axis) == 0) {
                continue;
            }
            let mut order: SmallVec<[usize; MAX_DIMS]> = (0..shape.len()).collect();
            order.sort_by_key(key);
            if (0..shape.len()).filter(|&axis| shape[axis] != 1).is_sorted_by_key(|axis| key(&axis)) {
                return None;
            }
            found = found.or(Some(Order(order)));
        }
        found
    }

    /// `x`, broadcast to `shape`, with its axes in this order.
    pub fn put(&self, x: &Array, shape: &Dims) -> Result<Array> {
        Ok(x.broadcast_to(shape)?.permute(&self.0))
    }

    /// What has its axes in this order, with them as they were.
    pub fn back(&self, y: &Array) -> Array {
        let mut back = self.0.clone();
        self.0.iter().enumerate().for_each(|(i, &axis)| back[axis] = i);
        y.permute(&back)
    }
}

/// The dimensions of an output merged as far as all operands allow, innermost last.
#[derive(Clone)]
pub struct Plan<const K: usize> {
    /// Sizes of the outer dimensions, then the inner length.
    pub(super) sizes: SmallVec<[usize; MAX_DIMS]>,
    pub(super) strides: [SmallVec<[isize; MAX_DIMS]>; K],
    pub(super) offsets: [usize; K],
}

impl<const K: usize> Plan<K> {
    /// All layouts must have the same shape.
    pub fn new(layouts: [&Layout; K]) -> Plan<K> {
        let shape = layouts[0].shape;
        let mut plan = Plan { sizes: SmallVec::new(), strides: std::array::from_fn(|_| SmallVec::new()), offsets: layouts.map(|l| l.offset) };
        for axis in (0..shape.len()).filter(|&axis| shape[axis] != 1) {
            plan.push(shape[axis], std::array::from_fn(|k| layouts[k].strides()[axis]));
        }
        if plan.sizes.is_empty() {
            plan.push(1, [0; K]);
        }
        plan
    }

    /// What operand `k` reads, whose dimensions may merge further without the others.
    pub fn only(&self, k: usize) -> Plan<1> {
        let mut plan = Plan { sizes: SmallVec::new(), strides: [SmallVec::new()], offsets: [self.offsets[k]] };
        for (&n, &stride) in self.sizes.iter().zip(&self.strides[k]) {
            plan.push(n, [stride]);
        }
        plan
    }

    /// Adds an innermost dimension.
    fn push(&mut self, n: usize, strides: [isize; K]) {
        let merges = !self.sizes.is_empty() && (0..K).all(|k| *self.strides[k].last().unwrap() == strides[k] * n as isize);
        if merges {
            *self.sizes.last_mut().unwrap() *= n;
        } else {
            self.sizes.push(n);
        }
        for (to, stride) in self.strides.iter_mut().zip(strides) {
            if merges {
                to.pop();
            }
            to.push(stride);
        }
    }

    pub fn inner(&self) -> usize {
        *self.sizes.last().unwrap()
    }

    /// Whether there is nothing outside of the inner loop.
    pub fn is_one_run(&self) -> bool {
        self.sizes.len() == 1
    }

    pub fn inner_stride(&self, k: usize) -> isize {
        *self.strides[k].last().unwrap()
    }

    /// Calls `f(offsets, first, len)` for pieces of inner rows that together are the output range `start..start + len`;
    /// `first` counts from `start`.
    pub fn for_range(&self, start: usize, len: usize, mut f: impl FnMut([usize; K], usize, usize)) {
        self.walk(start, len, |at, first, n| f(at.map(|a| a as usize), first, n));
    }

    /// Like `for_range`, for long rows: compiled once, however many kernels walk so.
    pub fn for_long_rows(&self, start: usize, len: usize, f: &mut dyn FnMut([usize; K], usize, usize)) {
        self.for_range(start, len, f);
    }

    /// Like `for_range`, with offsets that may be negative: those of a layout that is only part of one.
    pub fn walk(&self, start: usize, len: usize, mut f: impl FnMut([isize; K], usize, usize)) {
        let steps: [isize; K] = std::array::from_fn(|k| self.row_step(k));
        self.walk_rows(start, len, |mut at, first, (rows, n)| {
            for row in 0..rows {
                f(at, first + row * n, n);
                at.iter_mut().zip(steps).for_each(|(at, step)| *at += step);
            }
        });
    }

    /// How far inner rows of operand `k` that follow on each other are apart.
    pub fn row_step(&self, k: usize) -> isize {
        self.strides[k].iter().rev().nth(1).copied().unwrap_or(0)
    }

    /// The same of planes, which are all rows along one axis.
    pub fn plane_step(&self, k: usize) -> isize {
        self.strides[k].iter().rev().nth(2).copied().unwrap_or(0)
    }

    /// Like `walk`, by as many equal rows at once as are `row_step` apart: calls `f(offsets, first, (rows, len))`.
    pub fn walk_rows(&self, start: usize, len: usize, mut f: impl FnMut([isize; K], usize, (usize, usize))) {
        self.walk_blocks::<false>(start, len, |at, first, [_, rows, n]| f(at, first, (rows, n)));
    }

    /// Like `walk_rows`, by as many whole planes at once as are `plane_step` apart, of few thousand elements together: calls
    /// `f(offsets, first, [planes, rows, len])`. Compiled once, as there are few calls.
    pub fn walk_planes(&self, start: usize, len: usize, f: &mut dyn FnMut([isize; K], usize, [usize; 3])) {
        self.walk_blocks::<true>(start, len, f);
    }

    /// How many planes from the one at `index` on are walked at once, with `left` elements to go.
    fn planes(&self, left: usize, index: usize) -> usize {
        let axis = self.sizes.len() - 3;
        let plane = self.sizes[axis + 1] * self.inner();
        (left.min(PLANES.max(plane)) / plane).min(self.sizes[axis] - index)
    }

    fn walk_blocks<const DEEP: bool>(&self, start: usize, len: usize, mut f: impl FnMut([isize; K], usize, [usize; 3])) {
        let (inner, outer) = (self.inner(), self.sizes.len() - 1);
        // Divisions cost more than a short run does.
        let (mut row, mut at) = if self.is_one_run() { (0, start) } else { (start / inner, start % inner) };
        let mut index: SmallVec<[usize; MAX_DIMS]> = SmallVec::from_elem(0, outer);
        let mut base: [isize; K] = std::array::from_fn(|k| self.offsets[k] as isize);
        for axis in (0..outer).rev() {
            index[axis] = row % self.sizes[axis];
            row /= self.sizes[axis];
            for (b, strides) in base.iter_mut().zip(&self.strides) {
                *b += index[axis] as isize * strides[axis];
            }
        }
        let mut done = 0;
        while done < len {
            let left = len - done;
            let (mut rows, n) = if at > 0 || left < inner || outer == 0 { (1, left.min(inner - at)) } else { (left / inner, inner) };
            if outer > 0 {
                rows = rows.min(self.sizes[outer - 1] - index[outer - 1]);
            }
            let is_plane = DEEP && outer > 1 && n == inner && rows == self.sizes[outer - 1];
            let (planes, axes) = if is_plane { (self.planes(left, index[outer - 2]), outer - 1) } else { (1, outer) };
            f(std::array::from_fn(|k| base[k] + at as isize * self.inner_stride(k)), done, [planes, rows, n]);
            (done, at) = (done + planes * rows * n, 0);
            let mut step = if is_plane { planes } else { rows };
            for axis in (0..axes).rev() {
                index[axis] += step;
                let wrap = index[axis] == self.sizes[axis];
                for (b, strides) in base.iter_mut().zip(&self.strides) {
                    *b += if wrap { strides[axis] * (step as isize - self.sizes[axis] as isize) } else { strides[axis] * step as isize };
                }
                if !wrap {
                    break;
                }
                (index[axis], step) = (0, 1);
            }
        }
    }
}
