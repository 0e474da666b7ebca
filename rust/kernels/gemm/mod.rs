//! Matrix products on any strides, batched and broadcast.
//!
//! Invariant: an element's sum depends on the inner dimension alone (see [`packed`]), so the output may be cut in any way: bits
//! do not depend on the number of threads.

mod pack;
mod packed;

use super::interrupt;
use super::parallel::{self, ColumnsMut};
use super::simd::Float;
use crate::array::{Array, DType, Dims, Element};
use crate::{Result, bail};

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

/// float32 and float64: what products of real numbers exist for.
pub trait Gemm: Float {}
impl Gemm for f32 {}
impl Gemm for f64 {}

/// What the output holds before the product is added to it.
#[derive(Clone, Copy)]
pub enum Start<'a, T> {
    /// Nothing: whatever is there is overwritten.
    Zero,
    /// Its own values.
    Add,
    /// The same row everywhere, of as many values as the output has columns.
    Bias(&'a [T]),
}

impl<T> Start<'_, T> {
    /// What the columns from `left` on start from.
    fn part(self, left: usize) -> Self {
        match self {
            Start::Bias(b) => Start::Bias(&b[left..]),
            other => other,
        }
    }
}

/// `c (m, n), row-major = a·b`, from what `start` says. Panics if the sizes do not agree.
pub fn gemm_into<T: Gemm>(c: &mut [T], a: Matrix<T>, b: Matrix<T>, start: Start<T>) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert!(b.rows == k && c.len() == m * n, "matrix product of sizes that do not agree");
    if m * n == 0 {
        return;
    }
    if k == 0 {
        return match start {
            Start::Zero => c.fill(T::ZERO),
            Start::Add => (),
            Start::Bias(bias) => c.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(bias)),
        };
    }
    a.check();
    b.check();
    // A core does about 60 multiply-adds of float32 in a nanosecond.
    let work = m * n * k / 60 * (size_of::<T>() / 4);
    if m >= 2 * n {
        let tall = m.div_ceil(8).next_multiple_of(packed::CUT);
        return parallel::for_chunks(c, tall * n, work, |i, c| {
            let rows = i * tall..(i * tall + c.len() / n);
            packed::product(&mut ColumnsMut::new(c, n, n), a.part(true, rows.start, rows.end), b, start);
        });
    }
    parallel::drive(ColumnsMut::new(c, n, packed::CUT), work, |first, mut c| {
        let (left, cols) = (first * packed::CUT, c.cols());
        packed::product(&mut c, a, b.part(false, left, left + cols), start.part(left));
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
        DType::F32 => batched::<f32>(&a, &b, &mut out, |c, a, b| gemm_into(c, a, b, Start::Zero)),
        DType::F64 => batched::<f64>(&a, &b, &mut out, |c, a, b| gemm_into(c, a, b, Start::Zero)),
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
        if interrupt::stops() {
            return;
        }
        *c = (0..a.cols).fold(0i64, |s, p| s.wrapping_add(a.data[a.at(row, p)].wrapping_mul(b.data[b.at(p, col)])));
    }
}
