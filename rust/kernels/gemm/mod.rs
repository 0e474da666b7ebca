//! Matrix products on any strides, batched and broadcast.
//!
//! Invariant: threads own rows or columns of the output, whole. Which way a product is computed and where its inner dimension
//! is cut depend on its shape and strides alone, and within a piece every element is one chain of multiply-adds. So bits do not
//! depend on how many threads there are.

mod direct;
mod dots;
mod panels;
mod plan;

use super::interrupt;
use super::parallel::{self, Blocks, Chunks};
use super::simd::{self, Float};
use crate::array::{Array, DType, Dims, Element};
use crate::{Result, bail};
use direct::Target;
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

    fn at(&self, row: usize, col: usize) -> usize {
        (self.offset as isize + row as isize * self.row_stride + col as isize * self.col_stride) as usize
    }

    /// Rows (or columns) `from..to`.
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

/// float32 and float64: what the fast products exist for.
pub trait Gemm: Float + direct::Tiles {
    /// `c (m, n) = a·b`, or `c += a·b`.
    ///
    /// # Safety
    /// `c` must be valid for reads and writes at every element of its rows; `a` and `b` must have passed `check`.
    unsafe fn packed(c: Target<Self>, a: Matrix<Self>, b: Matrix<Self>) {
        // SAFETY: the caller vouches for `c`; `check` saw that `a` and `b` lie inside their slices. `alpha` scales `c`.
        unsafe {
            gemm::gemm(
                a.rows,
                b.cols,
                a.cols,
                c.start,
                1,
                c.stride,
                c.accumulate,
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
}
impl Gemm for f64 {}
impl Gemm for f32 {
    fn has_panels() -> bool {
        cfg!(target_arch = "x86_64") && simd::level() == simd::Level::Avx512
    }
    // SAFETY: what the trait asks for.
    #[cfg(target_arch = "x86_64")]
    unsafe fn panels(c: Target<Self>, a: Matrix<Self>, b: Matrix<Self>, scratch: &mut [Self]) {
        // SAFETY: the caller vouches for everything.
        unsafe { panels::product(c, a, b, scratch) }
    }
}

/// Multiply-adds of one call: some 20 ms, after which work may be told to stop.
const CALL: usize = 1 << 29;

/// Terms of an integer product between two questions whether to stop.
const UNASKED: usize = 1 << 20;

/// A product, computed as planned, in calls of at most [`CALL`] multiply-adds.
///
/// # Safety
/// As for [`Gemm::packed`]; `scratch` must be as large as the plan says.
unsafe fn in_calls<T: Gemm>(c: Target<T>, a: Matrix<T>, b: Matrix<T>, plan: Plan, scratch: &mut [T]) {
    let (m, k, n, depth) = (a.rows, a.cols, b.cols, plan.depth);
    let half = |x: usize| (x / 2).next_multiple_of(64);
    let from = |skip: isize| Target { start: c.start.wrapping_offset(skip), ..c };
    // SAFETY: parts lie inside what the caller vouches for, and `c` of the second begins at its first element.
    unsafe {
        if m.max(n) > 128 && m.saturating_mul(n).saturating_mul(depth) > CALL {
            let mid = half(m.max(n));
            if m >= n {
                in_calls(c, a.part(true, 0, mid), b, plan, scratch);
                return in_calls(from(mid as isize * c.stride), a.part(true, mid, m), b, plan, scratch);
            }
            in_calls(c, a, b.part(false, 0, mid), plan, scratch);
            return in_calls(from(mid as isize), a, b.part(false, mid, n), plan, scratch);
        }
        let mut first = 0;
        while first < k {
            if m.saturating_mul(n).saturating_mul(k) > CALL && interrupt::stops() {
                return;
            }
            let (c, to) = (Target { accumulate: c.accumulate || first > 0, ..c }, k.min(first + depth));
            let (a, b) = (a.part(false, first, to), b.part(true, first, to));
            first = to;
            match plan.way {
                Way::Dots => T::dots(c, a, b),
                Way::Rows => direct::rows(c, a, b),
                Way::Transposed => direct::transposed(c, a, b, scratch),
                Way::Copied => direct::copied(c, a, b, scratch),
                Way::Panels => T::panels(c, a, b, scratch),
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
    if a.cols == 0 && !accumulate {
        c.fill(T::ZERO);
    }
    product(c, a, b, accumulate, None);
}

/// `c (m, n), row-major = a·b + row` for every row. Whoever computes a part writes the row into it first, so that it lies in the cache
/// of the right processor. Panics if the sizes do not agree.
pub fn gemm_onto_row<T: Gemm>(c: &mut [T], a: Matrix<T>, b: Matrix<T>, row: &[T]) {
    assert!(row.len() == b.cols, "matrix product of sizes that do not agree");
    if a.cols == 0 && !row.is_empty() {
        c.chunks_exact_mut(row.len()).for_each(|c| c.copy_from_slice(row));
    }
    product(c, a, b, true, Some(row));
}

fn product<T: Gemm>(c: &mut [T], a: Matrix<T>, b: Matrix<T>, accumulate: bool, row: Option<&[T]>) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert!(b.rows == k && m.checked_mul(n) == Some(c.len()), "matrix product of sizes that do not agree");
    if c.is_empty() || k == 0 {
        return;
    }
    a.check();
    b.check();
    let (cut, mut plan) = (Cut::of(&a, &b), Plan::of(&a, &b));
    let each = plan.scratch(&a, &b, &cut);
    // One array for all parts, so that what is asked of the pool does not depend on which thread gets which part.
    let mut memory = (each > 0).then(|| Dims::new(&[each * cut.parts]).and_then(|size| Array::unfilled(T::DTYPE, size)));
    let scratch = match &mut memory {
        None => &mut [][..],
        Some(Ok(array)) => array.fresh::<T>(),
        Some(Err(_)) => {
            plan = Plan::without_scratch(&a, &b);
            &mut []
        }
    };
    // `c`, or a part of it that begins at `start`.
    let run = |start: *mut T, a: Matrix<T>, b: Matrix<T>, row: Option<&[T]>, scratch: &mut [T]| {
        if let Some(row) = row {
            // SAFETY: the part's rows are as wide as `row`, and lie `n` apart in the row-major `c`.
            (0..a.rows).for_each(|i| unsafe { start.add(i * n).copy_from_nonoverlapping(row.as_ptr(), row.len()) });
        }
        // SAFETY: `start` begins a.rows rows of b.cols elements of `c`; `a` and `b` were checked; `scratch` is as the plan says.
        unsafe { in_calls(Target { start, stride: n as isize, accumulate }, a, b, plan, scratch) }
    };
    if cut.parts == 1 {
        return run(c.as_mut_ptr(), a, b, row, scratch);
    }
    let bands = Bands { ptr: c.as_mut_ptr(), first: 0, count: cut.parts };
    let work = c.len().saturating_mul(k) / 60 * (size_of::<T>() / 4);
    parallel::drive((bands, Chunks { slice: scratch, chunk: each.max(1) }), work, |_, (band, scratch)| {
        for i in band.first..band.first + band.count {
            let (from, to) = (cut.edge(i), cut.edge(i + 1));
            if from == to {
                continue;
            }
            let skip = if cut.by_rows { from * n } else { from };
            let (a, b) = if cut.by_rows { (a.part(true, from, to), b) } else { (a, b.part(false, from, to)) };
            let row = row.map(|row| if cut.by_rows { row } else { &row[from..to] });
            // Bands are disjoint rows or columns of `c`, whose borrow outlives `drive`.
            run(band.ptr.wrapping_add(skip), a, b, row, &mut *scratch.slice);
        }
    });
}

/// The last two axes of an array as a matrix; `offset` selects the batch.
fn matrix<'a, T: Element>(x: &'a Array, offset: usize) -> Matrix<'a, T> {
    let (shape, strides, d) = (x.shape(), x.layout().strides(), x.ndim());
    Matrix { data: x.data(), offset, rows: shape[d - 2], cols: shape[d - 1], row_stride: strides[d - 2], col_stride: strides[d - 1] }
}

/// A two-dimensional array as a matrix. Panics on any other number of dimensions.
pub fn as_matrix<T: Element>(x: &Array) -> Matrix<'_, T> {
    assert!(x.ndim() == 2, "a matrix has two axes");
    matrix(x, x.layout().offset)
}

/// `(…, m, k) @ (…, k, n)` with broadcast leading axes; both of one element type.
pub fn matmul(a: &Array, b: &Array) -> Result<Array> {
    let (da, db) = (a.ndim(), b.ndim());
    if da < 2 || db < 2 || a.shape()[da - 1] != b.shape()[db - 2] {
        bail!(Value, "matmul: inner dimensions differ, got {} @ {}", a.shape(), b.shape());
    }
    let batch = Dims::new(&a.shape()[..da - 2])?.broadcast(&Dims::new(&b.shape()[..db - 2])?, "matmul")?;
    let extended = |x: &Array| -> Result<Array> {
        let mut shape = batch;
        shape.push(x.shape()[x.ndim() - 2])?;
        shape.push(x.shape()[x.ndim() - 1])?;
        x.broadcast_to(&shape)
    };
    let (a, b) = (extended(a)?, extended(b)?);
    let mut shape = *a.shape();
    let last = shape.len() - 1;
    shape[last] = b.shape()[last];
    let mut out = Array::unfilled(a.dtype(), shape)?;
    match a.dtype() {
        DType::F32 => batched::<f32>(&a, &b, &mut out, |c, a, b| gemm_into(c, a, b, false)),
        DType::F64 => batched::<f64>(&a, &b, &mut out, |c, a, b| gemm_into(c, a, b, false)),
        DType::I64 => batched::<i64>(&a, &b, &mut out, integer_product),
        other => bail!(Type, "matmul: expected float32, float64 or int64, got {other}"),
    }
    Ok(out)
}

fn batched<T: Element>(a: &Array, b: &Array, out: &mut Array, product: impl Fn(&mut [T], Matrix<T>, Matrix<T>) + Sync) {
    let axes = a.ndim() - 2;
    let (rows, cols) = (out.shape()[axes], out.shape()[axes + 1]);
    let c = out.fresh::<T>();
    if c.is_empty() {
        return;
    }
    let start = |x: &Array, mut i: usize| {
        let mut at = x.layout().offset as isize;
        for axis in (0..axes).rev() {
            at += (i % x.shape()[axis]) as isize * x.layout().strides()[axis];
            i /= x.shape()[axis];
        }
        at as usize
    };
    let count = c.len() / (rows * cols);
    if count == 1 {
        return product(c, matrix(a, start(a, 0)), matrix(b, start(b, 0)));
    }
    let work = c.len().saturating_mul(a.shape()[axes + 1]) / 60;
    parallel::for_chunks(c, rows * cols, work, |i, c| product(c, matrix(a, start(a, i)), matrix(b, start(b, i))));
}

fn integer_product(c: &mut [i64], a: Matrix<i64>, b: Matrix<i64>) {
    for (i, c) in c.iter_mut().enumerate() {
        let (row, col) = (i / b.cols, i % b.cols);
        *c = 0;
        for from in (0..a.cols).step_by(UNASKED) {
            if (col == 0 || from > 0) && interrupt::stops() {
                return;
            }
            let terms = from..a.cols.min(from + UNASKED);
            *c = terms.fold(*c, |s, p| s.wrapping_add(a.data[a.at(row, p)].wrapping_mul(b.data[b.at(p, col)])));
        }
    }
}
