//! Matrix products on any strides.
//!
//! Invariant: threads own rows or columns of the output, whole, or pieces of the inner dimension, which are summed in their order.
//! Which way a product is computed and where its inner dimension is cut depend on its shape and strides alone, and within a piece every
//! element is added up in one order. So bits depend neither on how many threads there are nor on other matrices of a batch.

mod arrays;
mod direct;
mod dots;
mod panels;
mod plan;
mod split;
mod thin;

use super::interrupt;
use super::parallel::{self, Blocks, Chunks};
use super::simd;
use crate::array::Scratch;
use crate::simd;
pub use arrays::{as_matrix, matmul};
use direct::{Onto, Target};
use plan::{Cut, Plan, Way};

/// A strided matrix inside a slice.
#[derive(Clone, Copy)]
pub struct Matrix<'a, T> {
    pub data: &'a [T],
    pub offset: usize,
    pub rows: usize,
    pub cols: usize,
    pub row_stride: isize,
    pub col_stride: isize,
}

impl<'a, T> Matrix<'a, T> {
    pub fn row_major(data: &'a [T], rows: usize, cols: usize) -> Self {
        Matrix { data, offset: 0, rows, cols, row_stride: cols as isize, col_stride: 1 }
    }

    #[must_use]
    pub fn transposed(self) -> Self {
        Matrix { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    #[inline(always)]
    fn at(&self, row: usize, col: usize) -> usize {
        (self.offset as isize + row as isize * self.row_stride + col as isize * self.col_stride) as usize
    }

    /// Rows (or columns) `from..to`.
    #[inline(always)]
    fn part(self, by_rows: bool, from: usize, to: usize) -> Self {
        if by_rows { Matrix { offset: self.at(from, 0), rows: to - from, ..self } } else { Matrix { offset: self.at(0, from), cols: to - from, ..self } }
    }

    /// Panics unless every element lies inside the slice.
    fn check(&self) {
        // Wide enough for the product of a size and a stride, whatever they are.
        let ends = [(self.rows, self.row_stride), (self.cols, self.col_stride)].map(|(n, stride)| (n as i128 - 1) * stride as i128);
        let end = |of: fn(i128, i128) -> i128| ends.iter().fold(self.offset as i128, |at, &end| at.saturating_add(of(end, 0)));
        assert!(end(i128::min) >= 0 && end(i128::max) < self.data.len() as i128, "matrix reaches outside its slice");
    }
}

/// What there are products of.
pub trait Gemm: direct::Tiles {
    /// `c (m, n) = a·b`, or onto what is said, in no memory from here.
    ///
    /// # Safety
    /// `c` must be valid for reads and writes at every element of its rows; `a` and `b` must have passed `check`.
    unsafe fn packed(c: Target<Self>, a: Matrix<Self>, b: Matrix<Self>) {
        // SAFETY: the caller vouches for `c`; `check` saw that `a` and `b` lie inside their slices. `alpha` scales `c`.
        unsafe {
            let accumulate = c.prepared(a.rows, b.cols);
            gemm::gemm(
                a.rows,
                b.cols,
                a.cols,
                c.start,
                1,
                c.stride,
                accumulate,
                a.data.as_ptr().add(a.offset),
                a.col_stride,
                a.row_stride,
                b.data.as_ptr().add(b.offset),
                b.col_stride,
                b.row_stride,
                Self::ONE,
                Self::ONE,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }

    /// Whether there are [`Gemm::panels`] for this processor.
    fn has_panels() -> bool {
        false
    }

    /// The same, of operands that lie as `panels::product` wants them.
    ///
    /// # Safety
    /// As for `panels::product`.
    unsafe fn panels(_c: Target<Self>, _a: Matrix<Self>, _b: Matrix<Self>, _scratch: &mut [Self]) {
        unreachable!("planned only where there are panels")
    }

    /// Whether there is [`Gemm::split`] for this processor.
    fn has_split() -> bool {
        false
    }

    /// The same, of operands that lie as `split::product` wants them.
    ///
    /// # Safety
    /// As for `split::product`.
    unsafe fn split(_c: Target<Self>, _a: Matrix<Self>, _b: Matrix<Self>, _scratch: &mut [Self]) {
        unreachable!("planned only where it can be done")
    }
}
impl Gemm for i64 {
    // SAFETY: what the trait asks for.
    unsafe fn packed(c: Target<i64>, a: Matrix<i64>, b: Matrix<i64>) {
        for (i, j) in (0..a.rows).flat_map(|i| (0..b.cols).map(move |j| (i, j))) {
            let c = c.from(i, j);
            // SAFETY: the caller vouches for `c`.
            let (sum, start) = unsafe { (&mut *c.start, c.onto.map_or(0, |onto| *onto.start)) };
            *sum = (0..a.cols).fold(start, |sum, p| sum.wrapping_add(a.data[a.at(i, p)].wrapping_mul(b.data[b.at(p, j)])));
        }
    }
}
impl Gemm for f64 {}
impl Gemm for f32 {
    fn has_panels() -> bool {
        cfg!(target_arch = "x86_64") && simd::level() >= simd::Level::Avx512
    }
    // SAFETY: what the trait asks for.
    #[cfg(target_arch = "x86_64")]
    unsafe fn panels(c: Target<Self>, a: Matrix<Self>, b: Matrix<Self>, scratch: &mut [Self]) {
        // SAFETY: the caller vouches for everything.
        unsafe { panels::product(c, a, b, scratch) }
    }
    fn has_split() -> bool {
        simd::level() == simd::Level::Amx
    }
    // SAFETY: what the trait asks for.
    #[cfg(target_arch = "x86_64")]
    unsafe fn split(c: Target<Self>, a: Matrix<Self>, b: Matrix<Self>, scratch: &mut [Self]) {
        // SAFETY: there is AMX, or it would not be planned; the caller vouches for everything.
        unsafe { split::product(c, a, b, scratch) }
    }
}

/// Multiply-adds of one call: some 20 ms, after which work may be told to stop.
const CALL: usize = 1 << 29;

/// Nanoseconds that so many multiply-adds take.
fn nanoseconds<T>(work: usize) -> usize {
    work / 60 * (size_of::<T>() / 4)
}

/// A product, computed as planned, in calls of at most [`CALL`] multiply-adds.
///
/// # Safety
/// As for [`Gemm::packed`]; `scratch` must be as large as the plan says.
unsafe fn in_calls<T: Gemm>(c: Target<T>, a: Matrix<T>, b: Matrix<T>, plan: Plan, scratch: &mut [T]) {
    let (m, k, n, depth) = (a.rows, a.cols, b.cols, plan.depth);
    let half = |x: usize| (x / 2).next_multiple_of(64);
    // SAFETY: parts lie inside what the caller vouches for, and `c` of the second begins at its first element.
    unsafe {
        if m.max(n) > 128 && m.saturating_mul(n).saturating_mul(depth) > CALL {
            let mid = half(m.max(n));
            if m >= n {
                in_calls(c, a.part(true, 0, mid), b, plan, scratch);
                return in_calls(c.from(mid, 0), a.part(true, mid, m), b, plan, scratch);
            }
            in_calls(c, a, b.part(false, 0, mid), plan, scratch);
            return in_calls(c.from(0, mid), a, b.part(false, mid, n), plan, scratch);
        }
        let mut first = 0;
        while first < k {
            if m.saturating_mul(n).saturating_mul(k) > CALL && interrupt::stops() {
                return;
            }
            let (c, to) = (if first > 0 { c.accumulating() } else { c }, k.min(first + depth));
            let (a, b) = (a.part(false, first, to), b.part(true, first, to));
            first = to;
            match plan.way {
                Way::Dots => direct::by_dots(c, a, b, scratch),
                Way::Rows => direct::rows(c, a, b),
                Way::Transposed => direct::transposed(c, a, b, scratch),
                Way::Copied(least) => direct::copied(c, a, b, b.cols.max(least), scratch),
                Way::Panels => T::panels(c, a, b, scratch),
                Way::Split => T::split(c, a, b, scratch),
                Way::Crate => T::packed(c, a, b),
            }
        }
    }
}

/// A contiguous output cut into bands of rows, or of columns, for threads to own.
struct Bands<T> {
    ptr: *mut T,
    first: usize,
    count: usize,
}
// SAFETY: bands are disjoint parts of one `&mut [T]`, each owned by one thread.
unsafe impl<T: Send> Send for Bands<T> {}
impl<T: Send> Blocks for Bands<T> {
    fn count(&self) -> usize {
        self.count
    }
    fn split_at(self, mid: usize) -> (Self, Self) {
        let right = Bands { first: self.first + mid, count: self.count - mid, ..self };
        (Bands { count: mid, ..self }, right)
    }
}

/// `c (m, n), row-major = a·b`, or `c += a·b` with `accumulate`. Panics if the sizes do not agree.
pub fn gemm_into<T: Gemm>(c: &mut [T], a: Matrix<T>, b: Matrix<T>, accumulate: bool) {
    product(c, a, b, Ends { accumulate, row: None, relu: false });
}

/// `c (m, n), row-major = a·b`, plus `row` for every row if there is one, then max(c, 0) with `relu`. Panics if the sizes do not agree.
pub fn gemm_affine<T: Gemm>(c: &mut [T], a: Matrix<T>, b: Matrix<T>, row: Option<&[T]>, relu: bool) {
    assert!(row.is_none_or(|row| row.len() == b.cols), "matrix product of sizes that do not agree");
    product(c, a, b, Ends { accumulate: false, row, relu });
}

/// What an output is besides a product.
#[derive(Clone, Copy)]
struct Ends<'a, T> {
    /// Whether the product is added to what is there,
    accumulate: bool,
    /// or else to this row, for every row.
    row: Option<&'a [T]>,
    /// Whether max(·, 0) follows.
    relu: bool,
}

impl<'a, T: Gemm> Ends<'a, T> {
    /// Of columns `from..to`.
    fn of_columns(self, from: usize, to: usize) -> Ends<'a, T> {
        Ends { row: self.row.map(|row| &row[from..to]), ..self }
    }

    /// Where there is nothing to be multiplied.
    fn of_nothing(self, c: &mut [T]) {
        match self.row {
            Some(row) => c.chunks_exact_mut(row.len()).for_each(|c| c.copy_from_slice(row)),
            None if self.accumulate => {}
            None => c.fill(T::ZERO),
        }
        self.finish(c);
    }

    fn finish(self, c: &mut [T]) {
        if self.relu {
            relu(c);
        }
    }
}

simd! {
    /// max(c, 0) of all.
    fn relu<T: Gemm>(c: &mut [T]) {
        for c in c {
            *c = c.relu();
        }
    }
}

fn product<T: Gemm>(c: &mut [T], a: Matrix<T>, b: Matrix<T>, ends: Ends<T>) {
    assert!(b.rows == a.cols && a.rows.checked_mul(b.cols) == Some(c.len()), "matrix product of sizes that do not agree");
    if c.is_empty() {
        return;
    }
    if a.cols == 0 {
        return ends.of_nothing(c);
    }
    a.check();
    b.check();
    // SAFETY: sizes agree, and `a` and `b` were checked.
    planned(&a, &b, |how, scratch| unsafe { how.run(c, a, b, ends, scratch) });
}

/// Calls `f` with how products of matrices that lie like these are computed, and the memory it takes.
fn planned<T: Gemm>(a: &Matrix<T>, b: &Matrix<T>, f: impl FnOnce(Planned, &mut [T])) {
    let (cut, plan) = (Cut::of(a, b), Plan::of(a, b));
    let each = plan.scratch(a, b, &cut);
    let sums = if cut.pieces > 1 { cut.pieces * a.rows * b.cols } else { 0 };
    // One block for all parts, so that what is asked of the pool does not depend on which thread gets which part.
    let room = sums + each * cut.parts.max(cut.pieces);
    match (room > 0).then(|| Scratch::new(room)) {
        None => f(Planned { cut, plan, each }, &mut []),
        Some(Some(mut scratch)) => f(Planned { cut, plan, each }, scratch.as_mut_slice()),
        Some(None) => f(Planned { cut: cut.whole(), plan: Plan::without_scratch(a, b), each: 0 }, &mut []),
    }
}

/// How a product is cut and computed, and what each part works in.
#[derive(Clone, Copy)]
struct Planned {
    cut: Cut,
    plan: Plan,
    each: usize,
}

impl Planned {
    /// `c (m, n), row-major = a·b`, ended as is said.
    ///
    /// # Safety
    /// Sizes must agree, and `a` and `b` lie inside their slices and like those that this was planned for.
    unsafe fn run<T: Gemm>(self, c: &mut [T], a: Matrix<T>, b: Matrix<T>, ends: Ends<T>, scratch: &mut [T]) {
        let (Planned { cut, plan, each }, n) = (self, b.cols);
        if cut.pieces > 1 {
            // SAFETY: the caller vouches for it.
            return unsafe { self.in_pieces(c, a, b, ends, scratch) };
        }
        // `c`, or a part of it that begins at `start`.
        let run = |start: *mut T, a: Matrix<T>, b: Matrix<T>, ends: Ends<T>, scratch: &mut [T]| {
            let c = Target::fresh(start, n);
            let c = match ends.row {
                Some(row) => Target { onto: Some(Onto { start: row.as_ptr(), stride: 0 }), ..c },
                None if ends.accumulate => c.accumulating(),
                None => c,
            };
            // SAFETY: `start` begins a.rows rows of b.cols elements of `c`, `row` as many; the caller vouches for `a` and `b`; `scratch`
            // is as planned. Whole rows lie side by side.
            unsafe {
                in_calls(c, a, b, plan, scratch);
                let (rows, cols) = if b.cols == n { (1, a.rows * n) } else { (a.rows, b.cols) };
                (0..rows).for_each(|i| ends.finish(std::slice::from_raw_parts_mut(start.add(i * n), cols)));
            }
        };
        if cut.parts == 1 {
            return run(c.as_mut_ptr(), a, b, ends, scratch);
        }
        let bands = Bands { ptr: c.as_mut_ptr(), first: 0, count: cut.parts };
        let work = nanoseconds::<T>(c.len().saturating_mul(a.cols));
        parallel::drive((bands, Chunks { slice: scratch, chunk: each.max(1) }), work, |_, (band, scratch)| {
            for i in band.first..band.first + band.count {
                let (from, to) = (cut.edge(i), cut.edge(i + 1));
                if from == to {
                    continue;
                }
                let skip = if cut.by_rows { from * n } else { from };
                let (a, b) = if cut.by_rows { (a.part(true, from, to), b) } else { (a, b.part(false, from, to)) };
                let ends = if cut.by_rows { ends } else { ends.of_columns(from, to) };
                // Bands are disjoint rows or columns of `c`, whose borrow outlives `drive`.
                run(band.ptr.wrapping_add(skip), a, b, ends, &mut *scratch.slice);
            }
        });
    }

    /// [`Planned::run`] by pieces of the inner dimension, summed in their order.
    ///
    /// # Safety
    /// As for `run`.
    unsafe fn in_pieces<T: Gemm>(self, c: &mut [T], a: Matrix<T>, b: Matrix<T>, ends: Ends<T>, scratch: &mut [T]) {
        let (Planned { cut: Cut { pieces, .. }, plan, each }, n, size) = (self, b.cols, c.len());
        let (sums, room) = scratch.split_at_mut(pieces * size);
        let blocks = (Chunks { slice: &mut *sums, chunk: size }, Chunks { slice: room, chunk: each.max(1) });
        parallel::drive(blocks, nanoseconds::<T>(size.saturating_mul(a.cols)), |first, (sums, room)| {
            for (i, sums) in sums.slice.chunks_exact_mut(size).enumerate() {
                let [from, to] = [first + i, first + i + 1].map(|i| a.cols / pieces * i + a.cols % pieces * i / pieces);
                let sums = Target::fresh(sums.as_mut_ptr(), n);
                // SAFETY: `sums` is a whole row-major (m, n) matrix; the caller vouches for `a` and `b`; `room` is as planned.
                unsafe { in_calls(sums, a.part(false, from, to), b.part(true, from, to), plan, room.slice) }
            }
        });
        for (i, c) in c.iter_mut().enumerate() {
            let start = ends.row.map_or(if ends.accumulate { *c } else { T::ZERO }, |row| row[i % n]);
            *c = sums[i..].iter().step_by(size).fold(start, |sum, &piece| sum.plus(piece));
        }
        ends.finish(c);
    }
}
