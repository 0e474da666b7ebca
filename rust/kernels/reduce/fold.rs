//! What a reduction does with two elements: an identity, a step within a block, a merge over blocks.

use crate::array::Element;
use crate::kernels::simd::LANES;
use crate::kernels::stream;
use crate::simd;

/// Elements folded in `T` before they are merged into the wide accumulator.
const BLOCK: usize = 4096;

/// An associative fold: `step` runs in a type of its own over a short block, `merge` in a wider type over blocks.
pub trait Fold<T: Element>: Copy + Sync {
    type Lane: Copy + Send + Sync;
    type Wide: Copy + Send + Sync;
    fn id() -> T;
    fn start() -> Self::Lane;
    fn wide_id() -> Self::Wide;
    fn step(a: Self::Lane, x: T) -> Self::Lane;
    fn widen(a: Self::Lane) -> Self::Wide;
    fn merge(a: Self::Wide, b: Self::Wide) -> Self::Wide;
    fn finish(a: Self::Wide) -> T;
}

#[derive(Clone, Copy)]
pub struct Sum;
#[derive(Clone, Copy)]
pub struct Prod;
#[derive(Clone, Copy)]
pub struct Max;
#[derive(Clone, Copy)]
pub struct Min;

/// Folds of floats `$t`, by steps in `$lane` and merges in float64.
macro_rules! fold_float {
    ($fold:ident, $t:ty, $lane:ty, $id:expr, $op:tt) => {
        impl Fold<$t> for $fold {
            type Lane = $lane;
            type Wide = f64;
            #[inline(always)]
            fn id() -> $t {
                $id
            }
            #[inline(always)]
            fn start() -> $lane {
                $id
            }
            #[inline(always)]
            fn wide_id() -> f64 {
                $id
            }
            #[inline(always)]
            fn step(a: $lane, x: $t) -> $lane {
                a $op x as $lane
            }
            #[inline(always)]
            fn widen(a: $lane) -> f64 {
                a as f64
            }
            #[inline(always)]
            fn merge(a: f64, b: f64) -> f64 {
                a $op b
            }
            #[inline(always)]
            fn finish(a: f64) -> $t {
                a as $t
            }
        }
    };
}

/// Folds whose accumulator is the element type itself.
macro_rules! fold_extreme {
    ($fold:ident, $t:ty, $id:expr, |$a:ident, $x:ident| $step:expr) => {
        impl Fold<$t> for $fold {
            type Lane = $t;
            type Wide = $t;
            #[inline(always)]
            fn id() -> $t {
                $id
            }
            #[inline(always)]
            fn start() -> $t {
                $id
            }
            #[inline(always)]
            fn wide_id() -> $t {
                $id
            }
            #[inline(always)]
            fn step($a: $t, $x: $t) -> $t {
                $step
            }
            #[inline(always)]
            fn widen(x: $t) -> $t {
                x
            }
            #[inline(always)]
            fn merge($a: $t, $x: $t) -> $t {
                $step
            }
            #[inline(always)]
            fn finish(a: $t) -> $t {
                a
            }
        }
    };
}

fold_float!(Sum, f32, f32, 0.0, +);
fold_float!(Sum, f64, f64, 0.0, +);
// A block's product of float32 may lie far below or above them, where it would be slow or lost, though the whole does not.
fold_float!(Prod, f32, f64, 1.0, *);
fold_float!(Prod, f64, f64, 1.0, *);
fold_extreme!(Max, f32, f32::NEG_INFINITY, |a, x| if x > a || x.is_nan() { x } else { a });
fold_extreme!(Min, f32, f32::INFINITY, |a, x| if x < a || x.is_nan() { x } else { a });
fold_extreme!(Max, f64, f64::NEG_INFINITY, |a, x| if x > a || x.is_nan() { x } else { a });
fold_extreme!(Min, f64, f64::INFINITY, |a, x| if x < a || x.is_nan() { x } else { a });
fold_extreme!(Sum, i64, 0, |a, x| a.wrapping_add(x));
fold_extreme!(Prod, i64, 1, |a, x| a.wrapping_mul(x));
fold_extreme!(Max, i64, i64::MIN, |a, x| a.max(x));
fold_extreme!(Min, i64, i64::MAX, |a, x| a.min(x));
fold_extreme!(Max, u8, 0, |a, x| a.max(x));
fold_extreme!(Min, u8, 255, |a, x| a.min(x));
fold_extreme!(Max, bool, false, |a, x| a | x);
fold_extreme!(Min, bool, true, |a, x| a & x);

/// Merges lanes, halves first, so that one step need not wait for thirty.
#[inline(always)]
fn tree<T: Element, F: Fold<T>>(lanes: [F::Lane; LANES]) -> F::Wide {
    // Through memory, so that the compiler holds what was folded in whole registers, here and in the next two steps.
    let lanes = std::hint::black_box(lanes);
    let mut half = [F::wide_id(); LANES / 2];
    for (i, half) in half.iter_mut().enumerate() {
        *half = F::merge(F::widen(lanes[i]), F::widen(lanes[i + LANES / 2]));
    }
    let half = std::hint::black_box(half);
    let mut quarter = [F::wide_id(); LANES / 4];
    for (i, quarter) in quarter.iter_mut().enumerate() {
        *quarter = F::merge(half[i], half[i + LANES / 4]);
    }
    let [a, b, c, d, e, f, g, h] = std::hint::black_box(quarter);
    let [a, b, c, d] = [F::merge(a, e), F::merge(b, f), F::merge(c, g), F::merge(d, h)];
    F::merge(F::merge(a, c), F::merge(b, d))
}

/// Folds a row over `LANES` lanes, block by block; with `ASKING` what comes next is asked for, beyond the row's end too.
#[inline(always)]
fn folded<T: Element, F: Fold<T>, const ASKING: bool>(x: &[T]) -> F::Wide {
    let mut total = F::wide_id();
    for block in x.chunks(BLOCK) {
        let mut lanes = [F::start(); LANES];
        let (whole, rest) = block.as_chunks::<LANES>();
        for chunk in whole {
            if ASKING {
                stream::ask(chunk, stream::ahead::<T>(), LANES);
            }
            for (a, &x) in lanes.iter_mut().zip(chunk) {
                *a = F::step(*a, x);
            }
        }
        match block.last_chunk::<LANES>() {
            Some(_) if rest.is_empty() => {}
            // The last window ends where the block does: an index that is not known would keep the lanes out of registers.
            Some(window) => {
                for (l, (a, &x)) in lanes.iter_mut().zip(window).enumerate() {
                    *a = F::step(*a, if l >= LANES - rest.len() { x } else { F::id() });
                }
            }
            None => {
                for (a, &x) in lanes.iter_mut().zip(rest) {
                    *a = F::step(*a, x);
                }
            }
        }
        total = F::merge(total, tree::<T, F>(lanes));
    }
    total
}

simd! {
    /// Folds a row.
    pub fn fold_row<T: Element, F: Fold<T>>(f: F, x: &[T]) -> F::Wide {
        let _ = f;
        folded::<T, F, false>(x)
    }

    /// The same with what comes next asked for meanwhile.
    fn fold_far_row<T: Element, F: Fold<T>>(f: F, x: &[T]) -> F::Wide {
        let _ = f;
        folded::<T, F, true>(x)
    }

    /// Steps a row of accumulators with `n` rows of elements, `stride` apart from `at` on.
    pub fn fold_columns<T: Element, F: Fold<T>>(f: F, acc: &mut [F::Lane], x: &[T], at: isize, stride: isize, n: usize) {
        let _ = f;
        // What comes from memory comes fastest as it lies, row by row; what is near, to accumulators that stay in registers.
        let width = acc.len();
        if size_of_val(x) > FAR && width > LANES {
            for at in (0..n).map(|i| (at + i as isize * stride) as usize) {
                stream::ask(&x[at..], stream::ahead::<T>(), width);
                for (a, &x) in acc.iter_mut().zip(&x[at..at + width]) {
                    *a = F::step(*a, x);
                }
            }
            return;
        }
        for first in (0..n).step_by(NEAR) {
            let (at, n) = (at + first as isize * stride, NEAR.min(n - first));
            let (wide, rest) = acc.as_chunks_mut::<WIDE>();
            let at = fold_lanes::<T, F, WIDE>(wide, x, at, stride, n);
            let (some, rest) = rest.as_chunks_mut::<LANES>();
            let at = fold_lanes::<T, F, LANES>(some, x, at, stride, n);
            let (few, rest) = rest.as_chunks_mut::<FEW>();
            let at = fold_lanes::<T, F, FEW>(few, x, at, stride, n);
            fold_lanes::<T, F, 1>(rest.as_chunks_mut().0, x, at, stride, n);
        }
    }
}

/// Elements of a row from which on it is asked for piece by piece: for less the pieces cost more than they bring.
const LONG: usize = 1024;

/// Folds `n` elements of `data` that lie side by side from `at` on.
pub fn fold_part<T: Element, F: Fold<T>>(f: F, data: &[T], at: usize, n: usize) -> F::Wide {
    let row = &data[at..at + n];
    match size_of_val(data) > FAR {
        true if n >= LONG => fold_far_row(f, row),
        true => {
            stream::ask(row, stream::ahead::<T>(), n);
            fold_row(f, row)
        }
        false => fold_row(f, row),
    }
}

/// Columns whose accumulators stay in registers together, and of narrow rests.
const WIDE: usize = 128;
const FEW: usize = 8;
/// Rows that go by before the next columns of them are read.
const NEAR: usize = 16;
/// Bytes beyond which an array does not lie in the second-level cache.
const FAR: usize = 4 << 20;

/// Steps accumulators that stay in registers while the rows go by. Returns where the columns after them begin.
#[inline(always)]
fn fold_lanes<T: Element, F: Fold<T>, const W: usize>(acc: &mut [[F::Lane; W]], x: &[T], at: isize, stride: isize, n: usize) -> isize {
    for (i, acc) in acc.iter_mut().enumerate() {
        let mut lanes = *acc;
        for r in 0..n {
            let at = (at + r as isize * stride) as usize + i * W;
            for (a, &x) in lanes.iter_mut().zip(&x[at..at + W]) {
                *a = F::step(*a, x);
            }
        }
        *acc = lanes;
    }
    at + (acc.len() * W) as isize
}
