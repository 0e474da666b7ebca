//! Kernels over rows: softmax and its logarithm, cross-entropy, layer norm and RMS norm.
//!
//! Rows are worked on in tiles of steps of [`LANES`] lanes. Short rows (c ≤ LANES) lie one per lane, step j holding their
//! element j; a longer row has a tile of its own, element i in lane `i % LANES`. Every kernel is written once, over tiles:
//! what differs is whether a sum over steps is finished ([`Form::total`] then adds up the lanes of a long row).
//!
//! Invariant: the order of summation within a row is fixed by c alone, and sums over rows run in blocks fixed by shape that
//! are merged in index order; neither threads nor the vector width decide a bit.

mod cross_entropy;
mod norm;
mod softmax;

pub use cross_entropy::{Classes, Scale, cross_entropy, cross_entropy_backward};
pub use norm::{Norm, Sums, norm, norm_backward};
pub use softmax::{log_softmax, log_softmax_backward, softmax, softmax_backward};

use super::simd::{Float, LANES};
use smallvec::SmallVec;

/// Steps summed in `T` before they are added up in float64.
const TALL: usize = 64;
/// Elements of one unit of parallel work.
const SPAN: usize = 1 << 13;

/// One value per lane.
type Lanes<T> = [T; LANES];
/// The steps of a tile, on the stack for rows of up to LANES² elements.
type Tile<T> = SmallVec<[Lanes<T>; LANES]>;

/// How rows of `c` elements lie in tiles.
#[derive(Clone, Copy)]
struct Form {
    c: usize,
}

impl Form {
    /// Whether every lane holds a row of its own.
    #[inline(always)]
    fn short(self) -> bool {
        self.c <= LANES
    }

    /// Rows of one tile.
    #[inline(always)]
    fn rows(self) -> usize {
        if self.short() { LANES } else { 1 }
    }

    fn steps(self) -> usize {
        if self.short() { self.c } else { self.c.div_ceil(LANES) }
    }

    /// Rows of one unit of parallel work: whole tiles.
    fn rows_per_part(self) -> usize {
        (SPAN / self.c).max(1).next_multiple_of(self.rows())
    }

    fn tile<T: Float>(self) -> Tile<T> {
        Tile::from_elem([T::ZERO; LANES], self.steps())
    }

    /// One row that belongs to all rows, such as a weight; `value` everywhere if there is none. Lanes of no element are zero.
    fn shared<T: Float>(self, row: Option<&[T]>, value: T) -> Tile<T> {
        let mut tile = self.tile();
        let of = |i: usize| row.map_or(value, |row| row[i]);
        if self.short() {
            tile.iter_mut().enumerate().for_each(|(j, step)| *step = [of(j); LANES]);
        } else {
            tile.as_flattened_mut()[..self.c].iter_mut().enumerate().for_each(|(i, x)| *x = of(i));
        }
        tile
    }

    /// Reads the rows of one tile (fewer at the end); lanes of no element become zero.
    #[inline(always)]
    fn load<T: Float>(self, x: &[T], tile: &mut [Lanes<T>]) {
        if !self.short() {
            let (own, rest) = tile.as_flattened_mut().split_at_mut(self.c);
            own.copy_from_slice(x);
            return rest.fill(T::ZERO);
        }
        if x.len() < LANES * self.c {
            tile.fill([T::ZERO; LANES]);
        }
        for (r, row) in x.chunks_exact(self.c).take(LANES).enumerate() {
            for (step, &x) in tile.iter_mut().zip(row) {
                step[r] = x;
            }
        }
    }

    /// Writes the rows of one tile.
    #[inline(always)]
    fn store<T: Float>(self, tile: &[Lanes<T>], y: &mut [T]) {
        if !self.short() {
            return y.copy_from_slice(&tile.as_flattened()[..self.c]);
        }
        for (r, row) in y.chunks_exact_mut(self.c).take(LANES).enumerate() {
            for (step, y) in tile.iter().zip(row) {
                *y = step[r];
            }
        }
    }

    /// Sets the lanes behind the end of a long row.
    #[inline(always)]
    fn pad<T: Float>(self, tile: &mut [Lanes<T>], value: T) {
        if !self.short() {
            tile.as_flattened_mut()[self.c..].fill(value);
        }
    }

    /// Sums over steps become sums over rows, in every lane.
    #[inline(always)]
    fn total(self, sums: Lanes<f64>) -> Lanes<f64> {
        if self.short() { sums } else { [tree(sums, |a, b| a + b); LANES] }
    }

    /// The largest number of every row, in every lane; 0 where that is infinite, so that it can be subtracted. NaNs are passed over.
    #[inline(always)]
    fn peak<T: Float>(self, tile: &[Lanes<T>]) -> Lanes<T> {
        let larger = |a: T, x: T| if x > a { x } else { a };
        let mut top = [-T::INFINITY; LANES];
        for step in tile {
            for (a, &x) in top.iter_mut().zip(step) {
                *a = larger(*a, x);
            }
        }
        if !self.short() {
            top = [tree(top, larger); LANES];
        }
        lanes(|r| if top[r].is_finite() { top[r] } else { T::ZERO })
    }

    /// Value `k` of every row's statistics, in the lanes of that row.
    #[inline(always)]
    fn spread<T: Float, const K: usize>(self, stats: &[[T; K]], k: usize) -> Lanes<T> {
        let last = stats.len() - 1;
        if self.short() { lanes(|r| stats[r.min(last)][k]) } else { [stats[0][k]; LANES] }
    }
}

#[inline(always)]
fn tree<T: Copy>(mut v: Lanes<T>, merge: impl Fn(T, T) -> T) -> T {
    let mut n = LANES;
    while n > 1 {
        n /= 2;
        for i in 0..n {
            v[i] = merge(v[i], v[i + n]);
        }
    }
    v[0]
}

/// `f` of every lane.
#[inline(always)]
fn lanes<T: Float>(f: impl Fn(usize) -> T) -> Lanes<T> {
    let mut out = [T::ZERO; LANES];
    for (lane, out) in out.iter_mut().enumerate() {
        *out = f(lane);
    }
    out
}

/// Replaces every element x of a tile by `f(lane, x, z)`, where z is the element of another tile.
#[inline(always)]
fn update<T: Float>(x: &mut [Lanes<T>], z: &[Lanes<T>], f: impl Fn(usize, T, T) -> T) {
    for (x, z) in x.iter_mut().zip(z) {
        for lane in 0..LANES {
            x[lane] = f(lane, x[lane], z[lane]);
        }
        stay_in_step();
    }
}

/// As [`update`], for one tile.
#[inline(always)]
fn map<T: Float>(x: &mut [Lanes<T>], f: impl Fn(usize, T) -> T) {
    for x in x {
        for (lane, x) in x.iter_mut().enumerate() {
            *x = f(lane, *x);
        }
        stay_in_step();
    }
}

/// Keeps the compiler from vectorising over steps, which it would do with gathers, rather than over lanes: 20 times faster
/// with AVX-512.
#[inline(always)]
fn stay_in_step() {
    std::hint::black_box(());
}

/// Two sums over the steps of two tiles, lane by lane: `term(lane, x, z)` answers what is added to each.
#[inline(always)]
fn sums<T: Float>(x: &[Lanes<T>], z: &[Lanes<T>], term: impl Fn(usize, T, T) -> (T, T)) -> (Lanes<f64>, Lanes<f64>) {
    let (mut wide1, mut wide2) = ([0.0; LANES], [0.0; LANES]);
    for (x, z) in x.chunks(TALL).zip(z.chunks(TALL)) {
        let (mut a1, mut a2) = ([T::ZERO; LANES], [T::ZERO; LANES]);
        for (x, z) in x.iter().zip(z) {
            for lane in 0..LANES {
                let (t1, t2) = term(lane, x[lane], z[lane]);
                (a1[lane], a2[lane]) = (a1[lane] + t1, a2[lane] + t2);
            }
        }
        for lane in 0..LANES {
            wide1[lane] += a1[lane].to_f64();
            wide2[lane] += a2[lane].to_f64();
        }
    }
    (wide1, wide2)
}

/// One sum over the steps of two tiles.
#[inline(always)]
fn sum<T: Float>(x: &[Lanes<T>], z: &[Lanes<T>], term: impl Fn(usize, T, T) -> T) -> Lanes<f64> {
    let mut wide = [0.0; LANES];
    for (x, z) in x.chunks(TALL).zip(z.chunks(TALL)) {
        let mut a = [T::ZERO; LANES];
        for (x, z) in x.iter().zip(z) {
            for lane in 0..LANES {
                a[lane] += term(lane, x[lane], z[lane]);
            }
        }
        for lane in 0..LANES {
            wide[lane] += a[lane].to_f64();
        }
    }
    wide
}
