//! Kernels over rows: softmax and its logarithm, cross-entropy, layer norm and RMS norm.
//!
//! Rows are worked on in tiles: one long row, or up to [`LANES`] short ones (c ≤ LANES) one behind the other. A tile is read as
//! steps of [`LANES`] elements, so that what is done to single elements runs at full width however short the rows are; only
//! `Form::sum`, `Form::peak` and `Form::spread`, which gather a number per row and hand it back out, know rows.
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

/// Steps summed in `T` before they are added up in float64.
const TALL: usize = 64;
/// Elements of one unit of parallel work.
const SPAN: usize = 1 << 13;
/// Accumulators of a short row.
const FEW: usize = 4;

/// One value per lane; or one per row of a tile.
type Lanes<T> = [T; LANES];
/// The steps of a tile.
type Tile<T> = Vec<Lanes<T>>;

/// A tile of `rows` rows of `c` elements.
#[derive(Clone, Copy)]
struct Form {
    c: usize,
    rows: usize,
}

impl Form {
    /// The fullest tile.
    fn new(c: usize) -> Form {
        Form { c, rows: if c <= LANES { LANES } else { 1 } }
    }

    /// The tile that `len` elements fill: fewer rows at the end.
    #[inline(always)]
    fn of(self, len: usize) -> Form {
        Form { rows: len / self.c, ..self }
    }

    #[inline(always)]
    fn size(self) -> usize {
        self.rows * self.c
    }

    #[inline(always)]
    fn short(self) -> bool {
        self.c <= LANES
    }

    /// Rows of one unit of parallel work: whole tiles.
    fn rows_per_part(self) -> usize {
        (SPAN / self.c).max(1).next_multiple_of(self.rows)
    }

    fn tile<T: Float>(self) -> Tile<T> {
        vec![[T::ZERO; LANES]; self.size().div_ceil(LANES)]
    }

    /// Room for what [`Form::spread`] writes.
    fn operand<T: Float>(self) -> Tile<T> {
        vec![[T::ZERO; LANES]; if self.short() { self.c + 1 } else { 1 }]
    }

    /// A row that all rows share, such as a weight, once for every row; `value` everywhere if there is none.
    fn shared<T: Float>(self, row: Option<&[T]>, value: T) -> Tile<T> {
        let mut tile = self.tile();
        for own in tile.as_flattened_mut()[..self.size()].chunks_exact_mut(self.c) {
            match row {
                Some(row) => own.copy_from_slice(row),
                None => own.fill(value),
            }
        }
        tile
    }

    /// Reads rows into a tile; lanes behind them become zero.
    #[inline(always)]
    fn load<'a, T: Float>(self, x: &[T], tile: &'a mut Tile<T>) -> &'a mut [Lanes<T>] {
        let tile = &mut tile[..self.size().div_ceil(LANES)];
        let (own, rest) = tile.as_flattened_mut().split_at_mut(self.size());
        own.copy_from_slice(x);
        rest.fill(T::ZERO);
        tile
    }

    /// Writes the rows of a tile.
    #[inline(always)]
    fn store<T: Float>(self, tile: &[Lanes<T>], y: &mut [T]) {
        y.copy_from_slice(&tile.as_flattened()[..self.size()]);
    }

    /// Sets the lanes behind the end of a long row: those take part in its sums.
    #[inline(always)]
    fn pad<T: Float>(self, tile: &mut [Lanes<T>], value: T) {
        if !self.short() {
            tile.as_flattened_mut()[self.c..].fill(value);
        }
    }

    /// The sum of `term(x, z)` over every row of two tiles.
    #[inline(always)]
    fn sum<T: Float>(self, x: &[Lanes<T>], z: &[Lanes<T>], term: impl Fn(T, T) -> T) -> Lanes<f64> {
        if self.short() {
            return self.fold_short(x, z, T::ZERO, |a, x, z| a + term(x, z), |a, b| a + b).map(|s| s.to_f64());
        }
        let mut total = [0.0; LANES];
        for (x, z) in x.chunks(TALL).zip(z.chunks(TALL)) {
            let part = fold_steps(x, z, T::ZERO, |a, x, z| a + term(x, z));
            for lane in 0..LANES {
                total[lane] += part[lane].to_f64();
            }
        }
        [tree(total, |a, b| a + b); LANES]
    }

    /// The largest number of every row, 0 where that is infinite, so that it can be subtracted. NaNs are passed over.
    #[inline(always)]
    fn peak<T: Float>(self, tile: &[Lanes<T>]) -> Lanes<T> {
        let larger = |a: T, x: T| if x > a { x } else { a };
        let top = if self.short() {
            self.fold_short(tile, tile, -T::INFINITY, |a, x, _| larger(a, x), larger)
        } else {
            [tree(fold_steps(tile, tile, -T::INFINITY, |a, x, _| larger(a, x)), larger); LANES]
        };
        self.numbers(|r| if top[r].is_finite() { top[r] } else { T::ZERO })
    }

    /// Folds every row of a tile of short rows over a few accumulators.
    #[inline(always)]
    fn fold_short<T: Float>(self, x: &[Lanes<T>], z: &[Lanes<T>], id: T, step: impl Fn(T, T, T) -> T, merge: impl Fn(T, T) -> T) -> Lanes<T> {
        let mut out = [T::ZERO; LANES];
        let rows = x.as_flattened().chunks_exact(self.c).zip(z.as_flattened().chunks_exact(self.c));
        for ((x, z), out) in rows.zip(&mut out).take(self.rows) {
            let ((x, x_rest), (z, z_rest)) = (x.as_chunks::<FEW>(), z.as_chunks::<FEW>());
            let mut a = [id; FEW];
            for (x, z) in x.iter().zip(z) {
                for k in 0..FEW {
                    a[k] = step(a[k], x[k], z[k]);
                }
            }
            // A sum of its own, so that the others stay in one register.
            let rest = x_rest.iter().zip(z_rest).fold(id, |a, (&x, &z)| step(a, x, z));
            *out = merge(merge(merge(a[0], a[1]), merge(a[2], a[3])), rest);
        }
        out
    }

    /// `f` of every row.
    #[inline(always)]
    fn numbers<T: Float>(self, f: impl Fn(usize) -> T) -> Lanes<T> {
        if self.short() { lanes(f) } else { [f(0); LANES] }
    }

    /// A number per row as an operand of [`map`]: in the places of that row. `tile` is where it is written.
    #[inline(always)]
    fn spread<'a, T: Float>(self, numbers: &Lanes<T>, tile: &'a mut Tile<T>) -> &'a [Lanes<T>] {
        if !self.short() {
            tile[0] = [numbers[0]; LANES];
            return &tile[..1];
        }
        let flat = tile.as_flattened_mut();
        // Every row overwrites what the one before wrote beyond its end.
        if self.c <= LANES / 2 {
            (0..self.rows).for_each(|r| flat[r * self.c..][..LANES / 2].fill(numbers[r]));
        } else {
            (0..self.rows).for_each(|r| flat[r * self.c..][..LANES].fill(numbers[r]));
        }
        &tile[..self.size().div_ceil(LANES)]
    }
}

#[inline(always)]
fn fold_steps<T: Float>(x: &[Lanes<T>], z: &[Lanes<T>], id: T, step: impl Fn(T, T, T) -> T) -> Lanes<T> {
    let mut a = [id; LANES];
    for (x, z) in x.iter().zip(z) {
        for lane in 0..LANES {
            a[lane] = step(a[lane], x[lane], z[lane]);
        }
    }
    a
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

/// Replaces every element x of a tile by `f(x, z)` with the K elements z that lie in its place in other tiles; of an operand
/// of one step every step takes that one.
#[inline(always)]
fn map<T: Float, const K: usize>(tile: &mut [Lanes<T>], operands: [&[Lanes<T>]; K], f: impl Fn(T, [T; K]) -> T) {
    let none = [T::ZERO; LANES];
    for (i, x) in tile.iter_mut().enumerate() {
        let mut steps = [&none; K];
        for k in 0..K {
            steps[k] = &operands[k][if operands[k].len() == 1 { 0 } else { i }];
        }
        // Not written in place: operands could be thought to overlap.
        *x = lanes(|lane| {
            let mut z = [T::ZERO; K];
            for k in 0..K {
                z[k] = steps[k][lane];
            }
            f(x[lane], z)
        });
        // Keeps the compiler from vectorising over steps, with gathers, rather than over lanes: 20 times slower.
        std::hint::black_box(());
    }
}
