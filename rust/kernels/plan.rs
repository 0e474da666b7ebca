//! How a kernel walks over layouts: dimensions are merged, then inner loops run on slices.

use crate::array::{Layout, MAX_DIMS};
use smallvec::SmallVec;

/// The dimensions of an output merged as far as all operands allow, innermost last.
#[derive(Clone)]
pub struct Plan<const K: usize> {
    /// Sizes of the outer dimensions, then the inner length.
    pub(super) sizes: SmallVec<[usize; MAX_DIMS]>,
    pub(super) strides: [SmallVec<[isize; MAX_DIMS]>; K],
    offsets: [usize; K],
}

impl<const K: usize> Plan<K> {
    /// All layouts must have the same shape.
    pub fn new(layouts: [&Layout; K]) -> Plan<K> {
        let shape = layouts[0].shape;
        let mut plan = Plan { sizes: SmallVec::new(), strides: std::array::from_fn(|_| SmallVec::new()), offsets: layouts.map(|l| l.offset) };
        for axis in 0..shape.len() {
            let n = shape[axis];
            if n == 1 {
                continue;
            }
            let merges = !plan.sizes.is_empty() && (0..K).all(|k| *plan.strides[k].last().unwrap() == layouts[k].strides()[axis] * n as isize);
            if merges {
                *plan.sizes.last_mut().unwrap() *= n;
            } else {
                plan.sizes.push(n);
            }
            for (k, strides) in plan.strides.iter_mut().enumerate() {
                if merges {
                    strides.pop();
                }
                strides.push(layouts[k].strides()[axis]);
            }
        }
        if plan.sizes.is_empty() {
            plan.sizes.push(1);
            plan.strides.iter_mut().for_each(|s| s.push(0));
        }
        plan
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

    /// Like `for_range`, with offsets that may be negative: those of a layout that is only part of one.
    pub fn walk(&self, start: usize, len: usize, mut f: impl FnMut([isize; K], usize, usize)) {
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
            let n = (inner - at).min(len - done);
            f(std::array::from_fn(|k| base[k] + at as isize * self.inner_stride(k)), done, n);
            done += n;
            at = 0;
            for axis in (0..outer).rev() {
                index[axis] += 1;
                let wrap = index[axis] == self.sizes[axis];
                for (b, strides) in base.iter_mut().zip(&self.strides) {
                    *b += if wrap { strides[axis] * (1 - self.sizes[axis] as isize) } else { strides[axis] };
                }
                if !wrap {
                    break;
                }
                index[axis] = 0;
            }
        }
    }
}
