//! Element-wise kernels over any layouts, and copies.
//!
//! Invariant: the output is fresh and contiguous; each output element depends only on the input elements at its own index,
//! so neither merging nor threads can change a bit.

use super::parallel;
use super::plan::Plan;
use super::simd::{Isa, lanes_only};
use super::stream::{self, CHUNK};
use super::turn::{Rows, turn};
use crate::Result;
use crate::array::{Array, DType, Dims, Element};
use crate::{simd, with_dtype};
use std::borrow::Cow;

/// Elements per block of a long inner loop; also the size of the buffers that strided operands are gathered into.
const BLOCK: usize = 4096;
const GATHER: usize = 256;

/// A function of one element.
pub trait Unary<T: Element, R: Element>: Copy + Sync {
    /// Rough cost in tenths of a nanosecond, for deciding whether threads pay.
    const COST: usize = 2;
    fn apply<I: Isa>(self, x: T) -> R;
}

/// A function of two elements.
pub trait Binary<T: Element, R: Element>: Copy + Sync {
    const COST: usize = 3;
    fn apply<I: Isa>(self, a: T, b: T) -> R;
}

/// A function of two elements of which one is known: the left or the right.
#[derive(Clone, Copy)]
struct Left<F, T>(F, T);
#[derive(Clone, Copy)]
struct Right<F, T>(F, T);
impl<T: Element, R: Element, F: Binary<T, R>> Unary<T, R> for Left<F, T> {
    const COST: usize = F::COST;
    #[inline(always)]
    fn apply<I: Isa>(self, x: T) -> R {
        self.0.apply::<I>(self.1, x)
    }
}
impl<T: Element, R: Element, F: Binary<T, R>> Unary<T, R> for Right<F, T> {
    const COST: usize = F::COST;
    #[inline(always)]
    fn apply<I: Isa>(self, x: T) -> R {
        self.0.apply::<I>(x, self.1)
    }
}

simd! {
    fn unary_run<T: Element, R: Element, F: Unary<T, R>>(f: F, x: &[T], out: &mut [R]) {
        for (o, &x) in out.iter_mut().zip(x) {
            *o = f.apply::<I>(x);
        }
    }

    fn binary_run<T: Element, R: Element, F: Binary<T, R>>(f: F, a: &[T], b: &[T], out: &mut [R]) {
        for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
            *o = f.apply::<I>(a, b);
        }
    }

    /// [`unary_run`] past the caches.
    fn unary_stream_run<T: Element, R: Element, F: Unary<T, R>>(f: F, x: &[T], out: &mut [R]) {
        let ((x, x_rest), (out, rest)) = (x.as_chunks::<CHUNK>(), out.as_chunks_mut());
        for (out, x) in out.iter_mut().zip(x) {
            stream::ask(x, stream::ahead::<T>(), CHUNK);
            let mut y = [R::default(); CHUNK];
            for i in 0..CHUNK {
                y[i] = f.apply::<I>(x[i]);
            }
            stream::put::<I, R>(out, &y);
            lanes_only();
        }
        for (o, &x) in rest.iter_mut().zip(x_rest) {
            *o = f.apply::<I>(x);
        }
        stream::fence();
    }

    /// [`binary_run`] past the caches.
    fn binary_stream_run<T: Element, R: Element, F: Binary<T, R>>(f: F, a: &[T], b: &[T], out: &mut [R]) {
        let ((a, a_rest), (b, b_rest), (out, rest)) = (a.as_chunks::<CHUNK>(), b.as_chunks::<CHUNK>(), out.as_chunks_mut());
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            stream::ask(a, stream::ahead::<T>(), CHUNK);
            stream::ask(b, stream::ahead::<T>(), CHUNK);
            let mut y = [R::default(); CHUNK];
            for i in 0..CHUNK {
                y[i] = f.apply::<I>(a[i], b[i]);
            }
            stream::put::<I, R>(out, &y);
            lanes_only();
        }
        for ((o, &a), &b) in rest.iter_mut().zip(a_rest).zip(b_rest) {
            *o = f.apply::<I>(a, b);
        }
        stream::fence();
    }

    fn select_run<T: Element>(condition: &[bool], a: &[T], b: &[T], out: &mut [T]) {
        for (((o, &c), &a), &b) in out.iter_mut().zip(condition).zip(a).zip(b) {
            *o = if c { a } else { b };
        }
    }

    fn binary_in_place_run<T: Element, F: Binary<T, T>>(f: F, a: &mut [T], b: &[T]) {
        for (a, &b) in a.iter_mut().zip(b) {
            *a = f.apply::<I>(*a, b);
        }
    }
}

/// Reads `out.len()` elements, `stride` apart, into `out`.
#[inline]
pub(super) fn gather<T: Element>(data: &[T], offset: usize, stride: isize, out: &mut [T]) {
    match stride {
        0 => out.fill(data[offset]),
        1 => out.copy_from_slice(&data[offset..offset + out.len()]),
        s if s > 0 => out.iter_mut().zip(data[offset..].iter().step_by(s as usize)).for_each(|(o, &x)| *o = x),
        s => out.iter_mut().enumerate().for_each(|(i, o)| *o = data[(offset as isize + i as isize * s) as usize]),
    }
}

/// Elements of a buffer, from an offset on, a stride apart.
type Run<'a, T> = (&'a [T], usize, isize);

/// As many elements of a run as fit `part`, from its `first` on: where they lie side by side, or else gathered into `part`, which
/// holds those before.
#[inline]
fn piece<'a, T: Element>((data, at, stride): Run<'a, T>, first: usize, part: &'a mut [T]) -> &'a [T] {
    let at = (at as isize + first as isize * stride) as usize;
    if stride == 1 {
        return &data[at..at + part.len()];
    }
    if first == 0 || stride != 0 {
        gather(data, at, stride, part);
    }
    part
}

fn nanoseconds(n: usize, tenths: usize) -> usize {
    n.saturating_mul(tenths) / 10
}

/// `f` of every element.
pub fn unary<T: Element, R: Element, F: Unary<T, R>>(f: F, x: &Array) -> Result<Array> {
    let mut out = Array::unfilled(R::DTYPE, *x.shape())?;
    let y = out.fresh::<R>();
    let work = nanoseconds(y.len(), F::COST);
    if let Some(x) = x.as_slice::<T>() {
        if work < parallel::WORTH_SHARING_NS {
            unary_run(f, x, y);
        } else {
            let run = if stream::is_for(y) { unary_stream_run } else { unary_run };
            parallel::for_chunks(y, BLOCK, work, |i, y| run(f, &x[i * BLOCK..i * BLOCK + y.len()], y));
        }
        return Ok(out);
    }
    let (plan, data) = (Plan::new([x.layout()]), x.data::<T>());
    parallel::for_chunks(y, BLOCK, work.saturating_mul(4), |i, y| {
        plan.for_range(i * BLOCK, y.len(), |[at], first, n| {
            unary_strided(f, data, at, plan.inner_stride(0), &mut y[first..first + n]);
        });
    });
    Ok(out)
}

fn unary_strided<T: Element, R: Element, F: Unary<T, R>>(f: F, x: &[T], at: usize, stride: isize, y: &mut [R]) {
    if stride == 1 {
        return unary_run(f, &x[at..at + y.len()], y);
    }
    let mut part = [T::default(); GATHER];
    for (k, y) in y.chunks_mut(GATHER).enumerate() {
        unary_run(f, piece((x, at, stride), k * GATHER, &mut part[..y.len()]), y);
    }
}

/// `f` of every pair of elements, with broadcasting. `op` names the operation in the error.
pub fn binary<T: Element, R: Element, F: Binary<T, R>>(f: F, a: &Array, b: &Array, op: &str) -> Result<Array> {
    if a.shape() == b.shape()
        && let (Some(x), Some(z)) = (a.as_slice::<T>(), b.as_slice::<T>())
    {
        let mut out = Array::unfilled(R::DTYPE, *a.shape())?;
        let y = out.fresh::<R>();
        let work = nanoseconds(y.len(), F::COST);
        if work < parallel::WORTH_SHARING_NS {
            binary_run(f, x, z, y);
        } else {
            let run = if stream::is_for(y) { binary_stream_run } else { binary_run };
            parallel::for_chunks(y, BLOCK, work, |i, y| {
                let range = i * BLOCK..i * BLOCK + y.len();
                run(f, &x[range.clone()], &z[range], y);
            });
        }
        return Ok(out);
    }
    let shape = a.shape().broadcast(b.shape(), op)?;
    if b.ndim() == 0 {
        return unary(Right(f, b.data::<T>()[b.layout().offset]), a);
    }
    if a.ndim() == 0 {
        return unary(Left(f, a.data::<T>()[a.layout().offset]), b);
    }
    let mut out = Array::unfilled(R::DTYPE, shape)?;
    let y = out.fresh::<R>();
    let plan = Plan::new([&a.layout().broadcast_to(&shape, op)?, &b.layout().broadcast_to(&shape, op)?]);
    let (x, z) = (a.data::<T>(), b.data::<T>());
    parallel::for_chunks(y, BLOCK, nanoseconds(shape.size()?, F::COST * 2), |i, y| {
        plan.for_range(i * BLOCK, y.len(), |at, first, n| {
            binary_strided(f, (x, at[0], plan.inner_stride(0)), (z, at[1], plan.inner_stride(1)), &mut y[first..first + n]);
        });
    });
    Ok(out)
}

fn binary_strided<T: Element, R: Element, F: Binary<T, R>>(f: F, a: Run<T>, b: Run<T>, y: &mut [R]) {
    let n = y.len();
    match (a, b) {
        ((a, i, 1), (b, j, 1)) => binary_run(f, &a[i..i + n], &b[j..j + n], y),
        ((a, i, 1), (b, j, 0)) => unary_run(Right(f, b[j]), &a[i..i + n], y),
        ((a, i, 0), (b, j, 1)) => unary_run(Left(f, a[i]), &b[j..j + n], y),
        _ => {
            let (mut left, mut right) = ([T::default(); GATHER], [T::default(); GATHER]);
            for (k, y) in y.chunks_mut(GATHER).enumerate() {
                let (k, n) = (k * GATHER, y.len());
                binary_run(f, piece(a, k, &mut left[..n]), piece(b, k, &mut right[..n]), y);
            }
        }
    }
}

/// `f` of every pair, written over `a` where nobody else can see it and shapes and layouts match.
pub fn binary_owned<T: Element, F: Binary<T, T>>(f: F, mut a: Array, b: &Array, op: &str) -> Result<Array> {
    if a.shape() == b.shape()
        && let Some(z) = b.as_slice::<T>()
    {
        let work = nanoseconds(a.size(), F::COST);
        if let Some(y) = a.as_mut_slice::<T>() {
            parallel::for_chunks(y, BLOCK, work, |i, y| binary_in_place_run(f, y, &z[i * BLOCK..i * BLOCK + y.len()]));
            return Ok(a);
        }
    }
    binary(f, &a, b, op)
}

/// `condition ? a : b`, with broadcasting of all three. `a` and `b` have one element type.
pub fn select<T: Element>(condition: &Array, a: &Array, b: &Array) -> Result<Array> {
    let shape = condition.shape().broadcast(a.shape(), "where")?.broadcast(b.shape(), "where")?;
    let mut out = Array::unfilled(T::DTYPE, shape)?;
    let [lc, la, lb] = [condition, a, b].map(|x| x.layout().broadcast_to(&shape, "where"));
    let plan = Plan::new([&lc?, &la?, &lb?]);
    let (c, x, z) = (condition.data::<bool>(), a.data::<T>(), b.data::<T>());
    let [sc, sx, sz] = [0, 1, 2].map(|k| plan.inner_stride(k));
    parallel::for_chunks(out.fresh::<T>(), BLOCK, nanoseconds(shape.size()?, 5), |i, y| {
        let (mut holds, mut left, mut right) = ([false; GATHER], [T::default(); GATHER], [T::default(); GATHER]);
        plan.for_range(i * BLOCK, y.len(), |at, first, n| {
            for (k, y) in y[first..first + n].chunks_mut(GATHER).enumerate() {
                let (k, n) = (k * GATHER, y.len());
                let holds = piece((c, at[0], sc), k, &mut holds[..n]);
                select_run(holds, piece((x, at[1], sx), k, &mut left[..n]), piece((z, at[2], sz), k, &mut right[..n]), y);
            }
        });
    });
    Ok(out)
}

#[derive(Clone, Copy)]
struct Convert;
impl<T: Element, R: Element> Unary<T, R> for Convert {
    #[inline(always)]
    fn apply<I: Isa>(self, x: T) -> R {
        x.to()
    }
}

/// The same values as another element type; shares storage when it is the same.
pub fn cast(x: &Array, dtype: DType) -> Result<Array> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    with_dtype!(x.dtype(), T => with_dtype!(dtype, R => unary::<T, R, _>(Convert, x)))
}

/// The same values in row-major order; shares storage when they already lie so.
pub fn contiguous(x: &Array) -> Result<Array> {
    Ok(dense(x, x.dtype())?.into_owned())
}

/// The same values in row-major order, as an element type: `x` itself where it lies so and is of it.
pub fn dense(x: &Array, dtype: DType) -> Result<Cow<'_, Array>> {
    match () {
        _ if x.dtype() != dtype => Ok(Cow::Owned(contiguous(&cast(x, dtype)?)?)),
        _ if x.is_contiguous() => Ok(Cow::Borrowed(x)),
        _ => Ok(Cow::Owned(copy(x)?)),
    }
}

/// A copy in storage of its own, in row-major order.
pub fn copy(x: &Array) -> Result<Array> {
    let mut out = Array::unfilled(x.dtype(), *x.shape())?;
    with_dtype!(x.dtype(), T => copy_into::<T>(x, out.fresh::<T>()));
    Ok(out)
}

/// Writes the elements of `x` in row-major order to `y`, which has as many.
pub fn copy_into<T: Element>(x: &Array, y: &mut [T]) {
    if y.is_empty() {
        return;
    }
    let work = nanoseconds(y.len(), 3);
    if let Some(x) = x.as_slice::<T>() {
        return parallel::for_chunks(y, BLOCK, work, |i, y| y.copy_from_slice(&x[i * BLOCK..i * BLOCK + y.len()]));
    }
    let (plan, data) = (Plan::new([x.layout()]), x.data::<T>());
    if plan.sizes.len() >= 2 && plan.inner_stride(0) > 1 && plan.strides[0][plan.sizes.len() - 2] == 1 {
        return copy_transposed(&plan, data, y);
    }
    parallel::for_chunks(y, BLOCK, work.saturating_mul(3), |i, y| {
        plan.for_range(i * BLOCK, y.len(), |[at], first, n| {
            gather(data, at, plan.inner_stride(0), &mut y[first..first + n]);
        });
    });
}

/// A copy whose last two merged axes are stored the other way round, the last with a stride above one.
fn copy_transposed<T: Element>(plan: &Plan<1>, data: &[T], y: &mut [T]) {
    const BAND: usize = 16;
    let (rows, cols) = (plan.sizes[plan.sizes.len() - 2], plan.inner());
    let stride = plan.inner_stride(0) as usize;
    let work = nanoseconds(y.len(), 10);
    let bands = rows.div_ceil(BAND);
    let outer = y.len() / (rows * cols);
    for plane in 0..outer {
        let mut base = 0;
        plan.for_range(plane * rows * cols, 1, |[at], _, _| base = at);
        let y = &mut y[plane * rows * cols..(plane + 1) * rows * cols];
        parallel::for_chunks(y, BAND * cols, if bands > 1 { work / outer } else { 0 }, |band, y| {
            let x = Rows { data, from: base + band * BAND, stride, rows: cols, cols: y.len() / cols };
            turn(x, y, cols, cols);
        });
    }
}

/// Fills a fresh array from a function of the element's position.
pub fn from_index<T: Element>(shape: Dims, f: impl Fn(usize) -> T + Sync) -> Result<Array> {
    let mut out = Array::unfilled(T::DTYPE, shape)?;
    let work = nanoseconds(out.size(), 5);
    parallel::for_chunks(out.fresh::<T>(), BLOCK, work, |block, y| {
        y.iter_mut().enumerate().for_each(|(i, y)| *y = f(block * BLOCK + i));
    });
    Ok(out)
}

/// Makes `x` an array that is written in place: itself where nobody else can see it, otherwise a copy.
pub fn make_writable(x: &mut Array) -> Result<()> {
    if !(x.is_unique() && x.is_contiguous()) {
        *x = copy(x)?;
    }
    Ok(())
}

/// The elements of `x` for writing, as [`make_writable`] leaves them.
pub fn writable<T: Element>(x: &mut Array) -> Result<&mut [T]> {
    make_writable(x)?;
    Ok(x.as_mut_slice().expect("unique and contiguous by now"))
}
