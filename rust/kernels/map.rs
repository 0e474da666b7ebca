//! Element-wise kernels over any layouts, and copies.
//!
//! Invariant: the output is fresh and without gaps, in row-major order or, where [`Order::of`] says so, in that of an operand; each
//! output element depends only on the input elements at its own index, so neither merging nor threads can change a bit.

use super::copies::{Operand, PIECE, is_turned, piece_of};
use super::loops::{Left, Right, binary_in_place_run, binary_run, binary_stream_run, select_run, unary_run, unary_stream_run};
use super::parallel;
use super::plan::{Order, Plan};
use super::simd::Isa;
use super::stream;
use crate::Result;
use crate::array::{Array, DType, Dims, Element};
use crate::with_dtype;
use std::borrow::Cow;

pub use super::copies::copy_into;
pub(super) use super::copies::gather;
pub use super::loops::{Binary, Unary};

/// Elements per block of a long inner loop.
const BLOCK: usize = 4096;
/// Rows of fewer elements are not looped over one by one: operands that have gaps between them are read piece by piece.
const LONG: usize = 128;
/// The same where an operand has one element for a row, which the loop takes as it is.
const LONG_BESIDE_ONE: usize = 56;
/// As few rows, whatever their length, are looped over: pieces need buffers.
const FEW: usize = 8;
/// Pieces of one unit of work.
const PIECES: usize = BLOCK / PIECE;

fn nanoseconds(n: usize, tenths: usize) -> usize {
    n.saturating_mul(tenths) / 10
}

/// Runs `f(start, part)` for parts of some pieces of `each` elements.
fn in_pieces<R: Element>(y: &mut [R], each: usize, work: usize, f: impl Fn(usize, &mut [R]) + Sync) {
    let chunk = PIECES * each;
    parallel::for_chunks(y, chunk, work, |i, y| f(i * chunk, y));
}

/// `f` of every element.
pub fn unary<T: Element, R: Element, F: Unary<T, R>>(f: F, x: &Array) -> Result<Array> {
    let Some(data) = x.as_slice::<T>() else { return unary_strided(f, x) };
    let mut out = Array::unfilled(R::DTYPE, *x.shape())?;
    let y = out.fresh::<R>();
    let work = nanoseconds(y.len(), F::COST);
    if work < parallel::WORTH_SHARING_NS {
        unary_run(f, data, y);
    } else {
        let run = if stream::is_for(y) { unary_stream_run } else { unary_run };
        parallel::for_chunks(y, BLOCK, work, |i, y| run(f, &data[i * BLOCK..i * BLOCK + y.len()], y));
    }
    Ok(out)
}

fn unary_strided<T: Element, R: Element, F: Unary<T, R>>(f: F, x: &Array) -> Result<Array> {
    let (plan, data) = (Plan::new([x.layout()]), x.data::<T>());
    let is_long = plan.inner_stride(0) == 1 && (plan.inner() >= LONG || x.size() <= FEW * plan.inner());
    if !is_long && let Some(order) = Order::of(&plan, x.shape(), [x]) {
        return Ok(order.back(&unary(f, &order.put(x, x.shape())?)?));
    }
    let mut out = Array::unfilled(R::DTYPE, *x.shape())?;
    let y = out.fresh::<R>();
    let (work, each) = (nanoseconds(y.len(), F::COST * 4), piece_of(&plan));
    let x = Operand::new(&plan, 0, data, each);
    in_pieces(y, each, work, |start, y| {
        if is_long {
            return plan.for_long_rows(start, y.len(), &mut |[at], first, n| unary_run(f, &data[at..at + n], &mut y[first..first + n]));
        }
        let mut part = [T::default(); PIECE];
        for (k, y) in y.chunks_mut(each).enumerate() {
            unary_run(f, x.piece(start + k * each, k == 0, &mut part[..y.len()]), y);
        }
    });
    Ok(out)
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
    binary_strided(f, a, b, op)
}

fn binary_strided<T: Element, R: Element, F: Binary<T, R>>(f: F, a: &Array, b: &Array, op: &str) -> Result<Array> {
    let shape = a.shape().broadcast(b.shape(), op)?;
    if b.ndim() == 0 {
        return unary(Right(f, b.data::<T>()[b.layout().offset]), a);
    }
    if a.ndim() == 0 {
        return unary(Left(f, a.data::<T>()[a.layout().offset]), b);
    }
    let plan = Plan::new([&a.layout().broadcast_to(&shape, op)?, &b.layout().broadcast_to(&shape, op)?]);
    let long = match [0, 1].map(|k| plan.inner_stride(k)) {
        [1, 1] => LONG,
        [0, 1] | [1, 0] => LONG_BESIDE_ONE,
        _ => usize::MAX,
    };
    if plan.inner() >= long || long < usize::MAX && shape.size()? <= FEW * plan.inner() {
        return binary_rows(f, a.data::<T>(), b.data::<T>(), &plan, shape);
    }
    if let Some(order) = Order::of(&plan, &shape, [a, b]) {
        return Ok(order.back(&binary(f, &order.put(a, &shape)?, &order.put(b, &shape)?, op)?));
    }
    match unturned(&plan, [a, b])? {
        Some([a, b]) => binary(f, &a, &b, op),
        None => binary_pieces(f, a.data::<T>(), b.data::<T>(), &plan, shape),
    }
}

/// [`binary`] by rows whose elements lie side by side, or are one.
fn binary_rows<T: Element, R: Element, F: Binary<T, R>>(f: F, x: &[T], z: &[T], plan: &Plan<2>, shape: Dims) -> Result<Array> {
    let mut out = Array::unfilled(R::DTYPE, shape)?;
    let y = out.fresh::<R>();
    let work = nanoseconds(y.len(), F::COST * 2);
    let strides = [0, 1].map(|k| plan.inner_stride(k));
    parallel::for_chunks(y, BLOCK, work, |i, y| {
        plan.for_long_rows(i * BLOCK, y.len(), &mut |[a, b], first, n| {
            let y = &mut y[first..first + n];
            match strides {
                [1, 1] => binary_run(f, &x[a..a + n], &z[b..b + n], y),
                [1, _] => unary_run(Right(f, z[b]), &x[a..a + n], y),
                _ => unary_run(Left(f, x[a]), &z[b..b + n], y),
            }
        });
    });
    Ok(out)
}

/// [`binary`] of any operands, which are brought side by side piece by piece.
fn binary_pieces<T: Element, R: Element, F: Binary<T, R>>(f: F, x: &[T], z: &[T], plan: &Plan<2>, shape: Dims) -> Result<Array> {
    let mut out = Array::unfilled(R::DTYPE, shape)?;
    let y = out.fresh::<R>();
    let (work, each) = (nanoseconds(y.len(), F::COST * 2), piece_of(plan));
    let (x, z) = (Operand::new(plan, 0, x, each), Operand::new(plan, 1, z, each));
    in_pieces(y, each, work, |start, y| {
        let (mut left, mut right) = ([T::default(); PIECE], [T::default(); PIECE]);
        for (k, y) in y.chunks_mut(each).enumerate() {
            let (at, n) = (start + k * each, y.len());
            binary_run(f, x.piece(at, k == 0, &mut left[..n]), z.piece(at, k == 0, &mut right[..n]), y);
        }
    });
    Ok(out)
}

/// The operands with copies of those whose long rows lie as columns: to turn one is faster than to read it a row at a time.
fn unturned<const K: usize>(plan: &Plan<K>, operands: [&Array; K]) -> Result<Option<[Array; K]>> {
    if plan.inner() < LONG || (0..K).all(|k| !is_turned(plan, k)) {
        return Ok(None);
    }
    let mut out = operands.map(Array::clone);
    for k in (0..K).filter(|&k| is_turned(plan, k)) {
        out[k] = copy(operands[k])?;
    }
    Ok(Some(out))
}

/// `f`, which calls no elements rare, of every pair, written over `a` where nobody else can see it and shapes and layouts match.
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
    let [lc, la, lb] = [condition, a, b].map(|x| x.layout().broadcast_to(&shape, "where"));
    let plan = Plan::new([&lc?, &la?, &lb?]);
    if let Some(order) = Order::of(&plan, &shape, [condition, a, b]) {
        let [condition, a, b] = [condition, a, b].map(|x| order.put(x, &shape));
        return Ok(order.back(&select::<T>(&condition?, &a?, &b?)?));
    }
    if let Some([condition, a, b]) = unturned(&plan, [condition, a, b])? {
        return select::<T>(&condition, &a, &b);
    }
    let mut out = Array::unfilled(T::DTYPE, shape)?;
    let each = piece_of(&plan);
    let c = Operand::new(&plan, 0, condition.data::<bool>(), each);
    let (x, z) = (Operand::new(&plan, 1, a.data::<T>(), each), Operand::new(&plan, 2, b.data::<T>(), each));
    in_pieces(out.fresh::<T>(), each, nanoseconds(shape.size()?, 5), |start, y| {
        let (mut holds, mut left, mut right) = ([false; PIECE], [T::default(); PIECE], [T::default(); PIECE]);
        for (k, y) in y.chunks_mut(each).enumerate() {
            let (at, n, first) = (start + k * each, y.len(), k == 0);
            let (x, z) = (x.piece(at, first, &mut left[..n]), z.piece(at, first, &mut right[..n]));
            select_run(c.piece(at, first, &mut holds[..n]), x, z, y);
        }
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
