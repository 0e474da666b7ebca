//! What a reduction does with two elements: an identity, a step within a block, a merge over blocks.

use crate::array::Element;
use crate::kernels::simd::{LANES, lanes_only};
use crate::kernels::stream;
use crate::simd;

/// Elements folded in `T` before they are merged into the wide accumulator.
pub const BLOCK: usize = 4096;

/// An associative fold: `step` runs in a type of its own over a short block, `merge` in a wider type over blocks.
pub trait Fold<T: Element>: Copy + Sync {
    type Lane: Copy + Send + Sync;
    type Wide: Copy + Send + Sync;
    /// The same fold with steps that round no more than merges do.
    type Exact: Fold<T, Wide = Self::Wide> + Default;
    fn id() -> T;
    fn start() -> Self::Lane;
    fn wide_id() -> Self::Wide;
    fn step(a: Self::Lane, x: T) -> Self::Lane;
    fn widen(a: Self::Lane) -> Self::Wide;
    fn merge(a: Self::Wide, b: Self::Wide) -> Self::Wide;
    fn finish(a: Self::Wide) -> T;
}

#[derive(Clone, Copy, Default)]
pub struct Sum;
/// A sum of float32 by steps in float64.
#[derive(Clone, Copy, Default)]
pub struct ExactSum;
#[derive(Clone, Copy, Default)]
pub struct Prod;
#[derive(Clone, Copy, Default)]
pub struct Max;
#[derive(Clone, Copy, Default)]
pub struct Min;

/// Folds of floats `$t`, by steps in `$lane` and merges in float64.
macro_rules! fold_float {
    ($fold:ident, $t:ty, $lane:ty, $exact:ident, $id:expr, $op:tt) => {
        impl Fold<$t> for $fold {
            type Lane = $lane;
            type Wide = f64;
            type Exact = $exact;
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
            type Exact = $fold;
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

fold_float!(Sum, f32, f32, ExactSum, 0.0, +);
fold_float!(ExactSum, f32, f64, ExactSum, 0.0, +);
fold_float!(Sum, f64, f64, Sum, 0.0, +);
// A block's product of float32 may lie far below or above them, where it would be slow or lost, though the whole does not.
fold_float!(Prod, f32, f64, Prod, 1.0, *);
fold_float!(Prod, f64, f64, Prod, 1.0, *);
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

/// Merges lanes to a quarter of them, halves first.
#[inline(always)]
fn quarter<T: Element, F: Fold<T>>(lanes: &[F::Lane; LANES]) -> [F::Wide; LANES / 4] {
    let (mut half, mut quarter) = ([F::wide_id(); LANES / 2], [F::wide_id(); LANES / 4]);
    for i in 0..LANES / 2 {
        half[i] = F::merge(F::widen(lanes[i]), F::widen(lanes[i + LANES / 2]));
    }
    for i in 0..LANES / 4 {
        quarter[i] = F::merge(half[i], half[i + LANES / 4]);
    }
    quarter
}

/// Merges what [`quarter`] left, halves first.
#[inline(always)]
fn last<T: Element, F: Fold<T>>([a, b, c, d, e, f, g, h]: [F::Wide; LANES / 4]) -> F::Wide {
    let [a, b, c, d] = [F::merge(a, e), F::merge(b, f), F::merge(c, g), F::merge(d, h)];
    F::merge(F::merge(a, c), F::merge(b, d))
}

/// Folds at least [`LANES`] elements over that many lanes; with `ASKING` what comes next is asked for, beyond the row's end too.
#[inline(always)]
fn in_lanes<T: Element, F: Fold<T>, const ASKING: bool>(row: &[T]) -> [F::Lane; LANES] {
    let mut lanes = [F::start(); LANES];
    let (whole, rest) = row.as_chunks::<LANES>();
    for chunk in whole {
        if ASKING {
            stream::ask(chunk, stream::ahead::<T>(), LANES);
        }
        for l in 0..LANES {
            lanes[l] = F::step(lanes[l], chunk[l]);
        }
    }
    // The last window ends where the row does: an index that is not known would keep the lanes out of registers.
    let window = row.last_chunk::<LANES>().expect("as many as lanes");
    if !rest.is_empty() {
        // Not known to leave out the first lane, which would then be no part of a register.
        let before = std::hint::black_box(LANES - rest.len());
        for (l, a) in lanes.iter_mut().enumerate() {
            *a = F::step(*a, if l >= before { window[l] } else { F::id() });
        }
    }
    lanes
}

/// Rows that are `apart`, of `len` elements each, of which the first begins at `at`.
#[derive(Clone, Copy)]
pub struct Spaced {
    pub at: isize,
    pub apart: isize,
    pub len: usize,
}

/// Rows whose lanes are merged together: what one step of it waits for is done for another meanwhile.
const TOGETHER: usize = 4;

simd! {
    /// Folds rows of up to [`BLOCK`] elements each, as many as there are results.
    pub fn fold_rows<T: Element, F: Fold<T>>(f: F, x: &[T], rows: Spaced, y: &mut [F::Wide]) {
        let _ = f;
        let (mut lanes, mut quarters) = ([[F::start(); LANES]; TOGETHER], [[F::wide_id(); LANES / 4]; TOGETHER]);
        let (mut at, len, far) = (rows.at, rows.len, size_of_val(x) > FAR);
        for y in y.chunks_mut(TOGETHER) {
            for lanes in &mut lanes[..y.len()] {
                let row = &x[at as usize..][..len];
                at += rows.apart;
                if far && len < LONG {
                    stream::ask(row, stream::ahead::<T>(), len);
                }
                match len {
                    0..LANES => {
                        for l in 0..len {
                            lanes[l] = F::step(F::start(), row[l]);
                        }
                    }
                    LONG.. if far => *lanes = in_lanes::<T, F, true>(row),
                    _ => *lanes = in_lanes::<T, F, false>(row),
                }
            }
            // Through memory, so that the compiler holds what was folded in whole registers, here and in the next step.
            std::hint::black_box(&mut lanes);
            for i in 0..y.len() {
                quarters[i] = quarter::<T, F>(&lanes[i]);
                lanes_only();
            }
            std::hint::black_box(&mut quarters);
            for i in 0..y.len() {
                y[i] = last::<T, F>(quarters[i]);
                lanes_only();
            }
        }
    }

    /// Folds columns of up to [`FEW`] in `n` rows, `stride` apart, for each block of rows that begin `apart` from `at` on.
    pub fn fold_few<T: Element, F: Fold<T>>(f: F, x: &[T], blocks: Spaced, stride: isize, width: usize, y: &mut [T]) {
        let _ = f;
        let mut from = blocks.at;
        for y in y.chunks_mut(width) {
            let mut lanes = [[F::start(); FEW]];
            let end = from.max(from + (blocks.len as isize - 1) * stride) as usize;
            // As many columns as there are lanes, where there are: some come out as anything.
            match end + FEW <= x.len() {
                true => fold_lanes::<T, F, FEW>(&mut lanes, x, from, stride, blocks.len),
                false => fold_lanes::<T, F, 1>(lanes[0][..width].as_chunks_mut().0, x, from, stride, blocks.len),
            };
            from += blocks.apart;
            for (l, y) in y.iter_mut().enumerate() {
                *y = F::finish(F::merge(F::wide_id(), F::widen(lanes[0][l])));
            }
        }
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
            fold_lanes::<T, F, FEW>(rest.as_chunks_mut().0, x, at, stride, n);
        }
        let few = width % FEW;
        let at = at + (width - few) as isize;
        match acc.last_chunk_mut::<FEW>() {
            // The last columns are folded with those before them, which come out as anything, once more.
            Some(acc) if few > 1 => {
                let mut all = [*acc];
                fold_lanes::<T, F, FEW>(&mut all, x, at - (FEW - few) as isize, stride, n);
                for (l, acc) in acc.iter_mut().enumerate() {
                    *acc = if l < FEW - few { *acc } else { all[0][l] };
                }
            }
            _ => {
                fold_lanes::<T, F, 1>(acc[width - few..].as_chunks_mut().0, x, at, stride, n);
            }
        }
    }
}

/// Elements of a row from which on it is asked for piece by piece: for less the pieces cost more than they bring.
const LONG: usize = 1024;

/// Folds `n` elements that lie side by side from `at` on.
pub fn fold_part<T: Element, F: Fold<T>>(f: F, x: &[T], at: usize, n: usize) -> F::Wide {
    let mut total = F::wide_id();
    let mut at = at;
    let mut fold = |len: usize, count: usize| {
        let mut parts = [F::wide_id(); TOGETHER];
        fold_rows(f, x, Spaced { at: at as isize, apart: len as isize, len }, &mut parts[..count]);
        total = parts[..count].iter().fold(total, |total, &part| F::merge(total, part));
        at += len * count;
    };
    let blocks = n / BLOCK;
    for first in (0..blocks).step_by(TOGETHER) {
        fold(BLOCK, TOGETHER.min(blocks - first));
    }
    if !n.is_multiple_of(BLOCK) {
        fold(n % BLOCK, 1);
    }
    total
}

/// Folds a row.
pub fn fold_row<T: Element, F: Fold<T>>(f: F, x: &[T]) -> F::Wide {
    fold_part(f, x, 0, x.len())
}

/// Columns whose accumulators stay in registers together, and of narrow rests.
const WIDE: usize = 128;
pub const FEW: usize = 8;
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
            let x: &[T; W] = x[at..at + W].first_chunk().expect("as many columns");
            for l in 0..W {
                lanes[l] = F::step(lanes[l], x[l]);
            }
        }
        *acc = lanes;
    }
    at + (acc.len() * W) as isize
}
