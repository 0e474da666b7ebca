//! Matrix products on any strides, batched and broadcast.
//!
//! Invariant: threads own rows or columns of the output, whole. Which way a product is computed and where its inner dimension
//! is cut depend on its shape and strides alone, and within a piece every element is one chain of multiply-adds. So bits do not
//! depend on how many threads there are.

mod direct;
#[cfg(target_arch = "x86_64")]
mod panels;

use super::interrupt;
use super::parallel::{self, Blocks};
use super::simd::{self, Float};
use crate::array::{Array, DType, Dims, Element};
use crate::{Result, bail};
use direct::{Target, Way};

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
        let ends = [(0, 0), (self.rows - 1, 0), (0, self.cols - 1), (self.rows - 1, self.cols - 1)];
        assert!(ends.iter().all(|&(r, c)| self.at(r, c) < self.data.len()), "matrix reaches outside its slice");
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

    /// Whether there are [`Gemm::panels`].
    fn has_panels() -> bool {
        false
    }

    /// The same for a `b` that lies transposed; false, and nothing done, if there is no memory.
    ///
    /// # Safety
    /// As for `panels::product`.
    unsafe fn panels(_c: Target<Self>, _a: Matrix<Self>, _b: Matrix<Self>) -> bool {
        false
    }
}
impl Gemm for f64 {}
impl Gemm for f32 {
    #[cfg(target_arch = "x86_64")]
    fn has_panels() -> bool {
        simd::level() == simd::Level::Avx512
    }
    // SAFETY: what the trait asks for.
    #[cfg(target_arch = "x86_64")]
    unsafe fn panels(c: Target<Self>, a: Matrix<Self>, b: Matrix<Self>) -> bool {
        // SAFETY: the caller vouches for everything.
        unsafe { panels::product(c, a, b) }
    }
}

/// Multiply-adds of one call: some 20 ms, after which work may be told to stop.
const CALL: usize = 1 << 29;
/// Longest inner dimension of a call to the packed product, which would cut it there anyway; of one to a direct product; and of one
/// by a single row or column, which nobody packs.
const DEEPEST: usize = 512;
const DEEPEST_DIRECT: usize = 1 << 15;
const DEEPEST_VECTOR: usize = 1 << 20;

/// Terms of an integer product between two questions whether to stop.
const UNASKED: usize = 1 << 20;

/// How a product is computed: the direct way or packed, and the longest inner dimension of a call.
#[derive(Clone, Copy)]
struct Plan {
    way: Option<Way>,
    deepest: usize,
}

impl Plan {
    /// By the shape and strides of the whole alone.
    fn of<T: Gemm>(a: &Matrix<T>, b: &Matrix<T>) -> Plan {
        let way = direct::way(a, b);
        let deepest = match way {
            Some(Way::Panels) => DEEPEST,
            Some(_) => DEEPEST_DIRECT,
            None if a.rows == 1 || b.cols == 1 => DEEPEST_VECTOR,
            None => DEEPEST,
        };
        Plan { way, deepest }
    }
}

/// A product, computed as planned, in calls of at most [`CALL`] multiply-adds.
///
/// # Safety
/// As for [`Gemm::packed`].
unsafe fn in_calls<T: Gemm>(c: Target<T>, a: Matrix<T>, b: Matrix<T>, plan: Plan) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let depth = k.div_ceil(k.div_ceil(plan.deepest));
    let half = |x: usize| (x / 2).next_multiple_of(64);
    let from = |skip: isize| Target { start: c.start.wrapping_offset(skip), ..c };
    // SAFETY: parts lie inside what the caller vouches for, and `c` of the second begins at its first element.
    unsafe {
        if m.max(n) > 128 && m.saturating_mul(n).saturating_mul(depth) > CALL {
            let mid = half(m.max(n));
            if m >= n {
                in_calls(c, a.part(true, 0, mid), b, plan);
                return in_calls(from(mid as isize * c.stride), a.part(true, mid, m), b, plan);
            }
            in_calls(c, a, b.part(false, 0, mid), plan);
            return in_calls(from(mid as isize), a, b.part(false, mid, n), plan);
        }
        for (i, first) in (0..k).step_by(depth).enumerate() {
            if m.saturating_mul(n).saturating_mul(k) > CALL && interrupt::stops() {
                return;
            }
            let (c, to) = (Target { accumulate: c.accumulate || i > 0, ..c }, k.min(first + depth));
            let (a, b) = (a.part(false, first, to), b.part(true, first, to));
            if !plan.way.is_some_and(|way| direct::product(c, a, b, way)) {
                T::packed(c, a, b);
            }
        }
    }
}

/// Whether threads share out the rows of an output rather than its columns: whatever lies transposed is packed at a cost, so it
/// had better not be packed by every thread.
fn by_rows<T>(a: &Matrix<T>, b: &Matrix<T>) -> bool {
    let (m, n) = (a.rows, b.cols);
    match () {
        _ if b.col_stride != 1 && n >= 128 => false,
        _ if a.row_stride == 1 && m >= 512 => true,
        _ => m > n,
    }
}

/// Multiply-adds, some 25 µs, from which on a product is shared: what one of fewer gains, the operations around it lose to lines that
/// lie in the other processor's cache.
const SHARED: usize = 1 << 21;

/// How many parts a product of `long` by `short` elements and so many multiply-adds is cut into. Outputs of few elements have a
/// kernel of their own in the packed product: where a part could be one and the whole is not, the number depends on shape alone.
fn parts(long: usize, short: usize, work: usize) -> usize {
    let most = match long {
        _ if work < SHARED => 1,
        96..128 if work >= 1 << 22 => 2,
        0..128 => 1,
        128..512 => 2,
        512..2048 => 4,
        _ => 8,
    };
    if short <= 8 { most } else { most.min(parallel::num_threads()) }
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
    assert!(b.rows == k && c.len() == m * n, "matrix product of sizes that do not agree");
    if m * n == 0 || k == 0 {
        return;
    }
    a.check();
    b.check();
    let plan = Plan::of(&a, &b);
    let whole = |start| Target { start, stride: n as isize, accumulate };
    let by_rows = by_rows(&a, &b);
    let (long, short) = if by_rows { (m, n) } else { (n, m) };
    let parts = parts(long, short, m.saturating_mul(k).saturating_mul(n));
    if parts == 1 {
        if let Some(row) = row {
            c.chunks_exact_mut(n).for_each(|c| c.copy_from_slice(row));
        }
        // SAFETY: `c` is a row-major (m, n) slice; `a` and `b` were checked.
        return unsafe { in_calls(whole(c.as_mut_ptr()), a, b, plan) };
    }
    // Cuts at multiples of 64, the nearest, keep the packed kernels on whole tiles.
    let edge = |i: usize| if i == parts { long } else { (long * i / parts + 32) / 64 * 64 };
    let bands = Bands { ptr: c.as_mut_ptr(), first: 0, count: parts };
    let work = m * n * k / 60 * (size_of::<T>() / 4);
    parallel::drive(bands, work, |_, band| {
        for i in band.first..band.first + band.count {
            let (from, to) = (edge(i), edge(i + 1));
            if from == to {
                continue;
            }
            let skip = if by_rows { from * n } else { from };
            let (a, b) = if by_rows { (a.part(true, from, to), b) } else { (a, b.part(false, from, to)) };
            let row = row.map(|row| if by_rows { row } else { &row[from..to] });
            // SAFETY: bands are disjoint rows or columns of the row-major `c`, whose borrow outlives `drive`; a row is as long as
            // the band is wide.
            unsafe {
                let start = band.ptr.add(skip);
                if let Some(row) = row {
                    (0..a.rows).for_each(|i| start.add(i * n).copy_from_nonoverlapping(row.as_ptr(), b.cols));
                }
                in_calls(whole(start), a, b, plan);
            }
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
    let work = c.len() * a.shape()[axes + 1] / 60;
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
