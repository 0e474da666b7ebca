//! Products of arrays: their last two axes are matrices, the others are broadcast.

use super::{Ends, Gemm, Matrix, gemm_into, nanoseconds, planned};
use crate::array::{Array, DType, Dims, Element};
use crate::kernels::parallel::{self, Chunks};
use crate::kernels::plan::Plan as Walk;
use crate::kernels::simd;
use crate::{Result, bail};

/// Multiply-adds up to which elements are computed one by one.
const TINY: usize = 32;
/// Nanoseconds that a small product takes beside its multiply-adds.
const EACH_NS: usize = 20;

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
        DType::F32 => batched::<f32>(&a, &b, out.fresh()),
        DType::F64 => batched::<f64>(&a, &b, out.fresh()),
        DType::I64 => batched::<i64>(&a, &b, out.fresh()),
        other => bail!(Type, "matmul: expected float32, float64 or int64, got {other}"),
    }
    Ok(out)
}

/// Products of the last two axes, planned together where there are several.
fn batched<T: Gemm>(x: &Array, y: &Array, c: &mut [T]) {
    let axes = x.ndim() - 2;
    let (a, b) = (matrix::<T>(x, x.layout().offset), matrix::<T>(y, y.layout().offset));
    let (each, terms) = (a.rows * b.cols, c.len().saturating_mul(a.cols));
    if terms == 0 {
        return c.fill(T::ZERO);
    }
    if c.len() == each {
        return if terms <= TINY { tiny(c, a, b) } else { gemm_into(c, a, b, false) };
    }
    // Rows times one matrix are one product, whatever batch they lie in.
    let one = (0..axes).all(|axis| y.layout().strides()[axis] == 0 || y.shape()[axis] == 1);
    if let Some(rows) = Dims::new(&[c.len() / b.cols, a.cols]).ok().filter(|_| one).and_then(|shape| x.reshape_view(shape)) {
        return gemm_into(c, as_matrix(&rows), b, false);
    }
    let leading = |x: &Array| x.layout().remove_axis(axes + 1).remove_axis(axes);
    let pairs = Pairs { a, b, walk: Walk::new([&leading(x), &leading(y)]) };
    let work = nanoseconds::<T>(terms).saturating_add(c.len() / each * EACH_NS);
    parallel::drive(Chunks { slice: c, chunk: each }, work, |first, part| {
        if each * a.cols <= TINY {
            return pairs.walk(first, part.slice, tiny);
        }
        let ends = Ends { accumulate: false, row: None, relu: false };
        planned(&a, &b, |how, scratch| {
            // SAFETY: sizes agree; every element of an array lies inside its buffer.
            pairs.walk(first, part.slice, |c, a, b| unsafe { how.run(c, a, b, ends, scratch) });
        });
    });
}

/// Matrices to multiply, which all lie like `a` and `b`.
struct Pairs<'a, T> {
    a: Matrix<'a, T>,
    b: Matrix<'a, T>,
    walk: Walk<2>,
}

impl<'a, T: Gemm> Pairs<'a, T> {
    /// Calls `f` with the pairs from the `first` on, each with its product's place in `c`.
    fn walk(&self, first: usize, c: &mut [T], mut f: impl FnMut(&mut [T], Matrix<'a, T>, Matrix<'a, T>)) {
        let (a, b, each) = (self.a, self.b, self.a.rows * self.b.cols);
        let strides = [self.walk.inner_stride(0), self.walk.inner_stride(1)];
        self.walk.for_range(first, c.len() / each, |at, from, count| {
            for (i, c) in c[from * each..][..count * each].chunks_exact_mut(each).enumerate() {
                let [at_a, at_b] = std::array::from_fn(|k| (at[k] as isize + i as isize * strides[k]) as usize);
                f(c, Matrix { offset: at_a, ..a }, Matrix { offset: at_b, ..b });
            }
        });
    }
}

/// `c = a·b`, element by element: to choose a way would take longer.
fn tiny<T: Gemm>(c: &mut [T], a: Matrix<T>, b: Matrix<T>) {
    for (i, row) in c.chunks_exact_mut(b.cols).enumerate() {
        for (j, c) in row.iter_mut().enumerate() {
            let term = |sum: T, p: usize| a.data[a.at(i, p)].mul_add_on::<simd::Baseline>(b.data[b.at(p, j)], sum);
            *c = (0..a.cols).fold(T::ZERO, term);
        }
    }
}
