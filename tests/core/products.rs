//! Matrix products of every shape class, straight from slices: tiles and their last windows, copies, transposes, packed ones.

use crate::support::{Noise, alone, assert_close, bits, elements, relaid, settled, uniform};
use std::panic::{AssertUnwindSafe, catch_unwind};
use treadle::array::{Array, DType, Slice};
use treadle::kernels::gemm::{self, Gemm, Matrix, gemm_affine, gemm_into};
use treadle::kernels::simd::{Level, limit_level};
use treadle::kernels::turn::{Rows, turn};
use treadle::{Tensor, ops};

/// A matrix, and whether it lies transposed in memory.
pub fn matrix<T>(data: &[T], rows: usize, cols: usize, turned: bool) -> Matrix<'_, T> {
    if turned { Matrix::row_major(data, cols, rows).transposed() } else { Matrix::row_major(data, rows, cols) }
}

/// The largest error of `c = a·b`, of `c += a·b` and of `c = a·b + row`, in units of the bound k·Σ|a||b|. `max(a·b + row, 0)` has the
/// bits of the last.
fn worst<T: Gemm>((m, k, n): (usize, usize, usize), turned: [bool; 2], seed: u64) -> f64 {
    let mut noise = Noise::new(seed);
    let mut draw = |len: usize| noise.values(len, -1.0, 1.0).into_iter().map(T::from_f64).collect::<Vec<T>>();
    let (x, y, before) = (draw(m * k), draw(k * n), draw(m * n));
    let (a, b) = (matrix(&x, m, k, turned[0]), matrix(&y, k, n, turned[1]));
    let at = |x: &Matrix<T>, i: usize, j: usize| x.data[(i as isize * x.row_stride + j as isize * x.col_stride) as usize].to_f64();
    let mut largest = 0.0f64;
    for onto in 0..3 {
        let mut c = before.clone();
        match onto {
            2 => gemm_affine(&mut c, a, b, Some(&before[..n]), false),
            _ => gemm_into(&mut c, a, b, onto == 1),
        }
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let old = [0.0, before[i * n + j].to_f64(), before[j].to_f64()][onto];
            let want = (0..k).fold(old, |sum, p| sum + at(&a, i, p) * at(&b, p, j));
            let bound = (0..k).fold(old.abs(), |sum, p| sum + (at(&a, i, p) * at(&b, p, j)).abs());
            largest = largest.max((c[i * n + j].to_f64() - want).abs() / (bound * (k + 1) as f64));
        }
        if onto == 2 {
            let mut positive = before.clone();
            gemm_affine(&mut positive, a, b, Some(&before[..n]), true);
            c.iter_mut().for_each(|c| *c = if *c < T::ZERO { T::ZERO } else { *c });
            assert!(c == positive, "max(({m}, {k}) @ ({k}, {n}) + row, 0), transposed {turned:?}");
        }
    }
    largest
}

/// Whether products of float32 and float64, of numbers drawn from two seeds, are as exact as their terms.
fn check((m, k, n): (usize, usize, usize), turned: [bool; 2], seeds: [u64; 2]) {
    let (single, double) = (worst::<f32>((m, k, n), turned, seeds[0]), worst::<f64>((m, k, n), turned, seeds[1]));
    assert!(single < f32::EPSILON as f64, "({m}, {k}) @ ({k}, {n}), transposed {turned:?}: {single}");
    assert!(double < f64::EPSILON, "({m}, {k}) @ ({k}, {n}), transposed {turned:?}: {double}");
}

#[test]
fn of_small_and_thin_matrices() {
    for (seed, n) in (1..70).chain([100, 300]).enumerate() {
        for m in [1, 2, 3, 7, 8, 9, 15, 16, 29, 64, 100] {
            for k in [1, 3, 4, 5, 33] {
                let turned = [seed % 2 == 1, (seed + m) % 3 == 1];
                for turned in [turned, [!turned[0], turned[1]], [turned[0], !turned[1]]] {
                    check((m, k, n), turned, [seed as u64, seed as u64]);
                }
            }
        }
    }
}

#[test]
fn of_few_rows_by_long_columns() {
    let _alone = alone();
    for level in [Level::Avx2, Level::Avx512] {
        limit_level(level);
        for m in 1..19 {
            for k in [60, 256, 271, 330] {
                for n in [1, 2, 3, 4, 7, 70] {
                    for turned in [[false, true], [false, false], [true, true]] {
                        check((m, k, n), turned, [k as u64, k as u64]);
                    }
                }
            }
        }
    }
}

#[test]
fn of_few_rows_are_right_whatever_lies_transposed() {
    let _alone = alone();
    let shapes = [(1, 3, 700), (1, 16, 33), (2, 40, 100), (3, 33, 9), (3, 100, 70), (5, 1100, 31), (8, 17, 33), (8, 5000, 3), (8, 64, 2)];
    for level in [Level::Baseline, Level::Avx2, Level::Avx512] {
        limit_level(level);
        for (m, k, n) in shapes {
            for turned in [[false, true], [true, true], [false, false], [true, false]] {
                check((m, k, n), turned, [7, 8]);
            }
        }
    }
}

#[test]
fn of_operands_cut_along_any_side() {
    let inside = [(3, 17_000, 5), (1, 70_000, 1), (20, 9000, 30), (5, 3000, 3)];
    for (m, k, n) in [(512, 3, 512), (515, 37, 600), (640, 2, 513), (100, 500, 101), (110, 530, 1041), (13, 1030, 47)].into_iter().chain(inside) {
        for turned in [[false, false], [true, false], [true, true], [false, true]] {
            check((m, k, n), turned, [5, 6]);
        }
    }
}

#[test]
fn in_a_batch_have_the_bits_that_they_have_alone() {
    let _settled = settled();
    let sizes = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 300];
    for seed in 0..400 {
        let mut noise = Noise::new(seed);
        let [m, k, n] = [0; 3].map(|_| sizes[noise.below(if seed % 8 == 0 { 13 } else { 11 })]);
        let dtype = [DType::F32, DType::F64, DType::I64][noise.below(3)];
        let mut draw = |shape: &[usize]| {
            let x = ops::cast(&uniform(shape, -9.0, 9.0, noise.bits()), dtype).unwrap();
            if noise.below(3) == 0 { x } else { relaid(&x, noise.bits()) }
        };
        let (x, y) = (draw(&[3, 2, m, k]), draw([&[1, 2, k, n][..], &[2, k, n], &[3, 1, k, n]][seed as usize % 3]));
        let got = ops::matmul(&x, &y).unwrap();
        let part = |x: &Array, i: usize, j: usize| {
            let one = |x: &Array, axis, at: usize| x.slice(axis, Slice { start: if x.shape()[axis] == 1 { 0 } else { at }, len: 1, step: 1 });
            one(&if x.ndim() == 4 { one(x, 0, i) } else { x.clone() }, x.ndim() - 3, j)
        };
        for (i, j) in (0..3).flat_map(|i| [(i, 0), (i, 1)]) {
            let alone = gemm::matmul(&part(x.array(), i, j), &part(y.array(), i, j)).unwrap();
            let there = bits(&Tensor::constant(part(got.array(), i, j)));
            assert!(bits(&Tensor::constant(alone)) == there, "({m}, {k}) @ ({k}, {n}) of {dtype}, seed {seed}: other bits in a batch");
        }
        if dtype == DType::I64 {
            let [x, y] = [&x, &y].map(|x| ops::cast(x, DType::F64).unwrap());
            assert_eq!(elements(got.array()), elements(ops::matmul(&x, &y).unwrap().array()), "({m}, {k}) @ ({k}, {n}), seed {seed}");
        }
    }
}

#[test]
fn of_a_batch_by_one_matrix_are_those_of_its_rows() {
    let _settled = settled();
    for (seed, (m, k, n)) in [(3, 4, 5), (1, 10, 10), (2, 2, 2), (7, 33, 9), (4, 64, 3), (9, 300, 40)].into_iter().enumerate() {
        for dtype in [DType::F32, DType::F64, DType::I64] {
            let draw = |shape: &[usize], seed: usize| ops::cast(&uniform(shape, -9.0, 9.0, seed as u64), dtype).unwrap();
            let (whole, w) = (draw(&[6, 4, m, k + 2], seed), draw(&[k, n], seed + 50));
            let x = ops::narrow(&whole, 3, 1, k).unwrap();
            let rows = ops::matmul(&ops::reshape(&x, &[-1, k as isize]).unwrap(), &w).unwrap();
            for w in [w.clone(), ops::reshape(&w, &[1, 1, k as isize, n as isize]).unwrap()] {
                let got = ops::matmul(&x, &w).unwrap();
                assert_eq!(got.shape()[..], [6, 4, m, n]);
                assert_close("rows", &elements(got.array()), &elements(rows.array()), if dtype == DType::F32 { 1e-5 } else { 1e-13 });
            }
            // Of one that lies in another order, matrix by matrix.
            let turned = ops::permute(&x, &[1, 0, 2, 3]).unwrap();
            let want = ops::permute(&ops::reshape(&rows, &[6, 4, m as isize, n as isize]).unwrap(), &[1, 0, 2, 3]).unwrap();
            let got = ops::matmul(&turned, &w).unwrap();
            assert_close("turned", &elements(got.array()), &elements(want.array()), if dtype == DType::F32 { 1e-5 } else { 1e-13 });
        }
    }
}

#[test]
fn of_many_terms_are_summed_in_parts() {
    let mut noise = Noise::new(8);
    for (m, k, n) in [(129, 16_384, 8), (8, 16_384, 129), (3, 40_000, 5), (16, 30_000, 16)] {
        let mut draw = |len: usize| noise.values(len, -1.0, 1.0).into_iter().map(|v| v as f32).collect::<Vec<f32>>();
        let (x, y) = (draw(m * k), draw(k * n));
        for turned in [[true, false], [false, true], [false, false]] {
            let (a, b) = (matrix(&x, m, k, turned[0]), matrix(&y, k, n, turned[1]));
            let mut c = vec![0.0f32; m * n];
            gemm_into(&mut c, a, b, false);
            let at = |x: &Matrix<f32>, i: usize, j: usize| x.data[(i as isize * x.row_stride + j as isize * x.col_stride) as usize] as f64;
            let (mut error, mut size) = (0.0, 0.0);
            for (i, j) in (0..m).step_by(5).flat_map(|i| (0..n).step_by(3).map(move |j| (i, j))) {
                let want: f64 = (0..k).map(|p| at(&a, i, p) * at(&b, p, j)).sum();
                (error, size) = (error + (c[i * n + j] as f64 - want).powi(2), size + want.powi(2));
            }
            assert!((error / size).sqrt() < 9e-7, "({m}, {k}) @ ({k}, {n}), transposed {turned:?}: {}", (error / size).sqrt());
        }
    }
}

#[test]
fn of_sizes_that_wrap_around_are_refused() {
    let (x, mut c) = (vec![1.0f32; 64], vec![0.0f32; 9 * 16]);
    let thin = Matrix { data: &x[..], offset: 0, rows: (1 << 63) + 1, cols: 1, row_stride: 0, col_stride: 0 };
    let far = Matrix { rows: 9, cols: 4, row_stride: 1 << 61, col_stride: 1, ..thin };
    for (a, b, len) in [(thin, Matrix::row_major(&x, 1, 2), 2), (far, Matrix::row_major(&x, 4, 16), 9 * 16)] {
        let panic = catch_unwind(AssertUnwindSafe(|| gemm_into(&mut c[..len], a, b, false))).expect_err("refused");
        let message = panic.downcast_ref::<&str>().expect("a message");
        assert!(message.starts_with("matrix"), "{message}");
    }
    let rows = Rows { data: &x[..], from: 0, stride: 1 << 60, rows: 17, cols: 16 };
    let panic = catch_unwind(|| turn(rows, &mut vec![0.0; 16 * 17], 17, 17)).expect_err("refused");
    assert_eq!(panic.downcast_ref(), Some(&"matrix reaches outside its slice"));
}

#[test]
fn of_parts_of_larger_matrices() {
    let wide = 1100;
    let mut noise = Noise::new(3);
    let x: Vec<f32> = noise.values(wide * wide, -1.0, 1.0).into_iter().map(|v| v as f32).collect();
    let part = |rows, cols, stride: usize, turned| {
        let part = Matrix { data: &x[..], offset: 5, rows, cols, row_stride: stride as isize, col_stride: 1 };
        if turned { Matrix { rows: cols, cols: rows, ..part }.transposed() } else { part }
    };
    for (m, k, n, stride) in [(29, 21, 43, 64), (130, 300, 75, wide), (99, 300, 33, 310), (7, 300, 33, 310)] {
        for turned in [[false, false], [false, true], [true, false], [true, true]] {
            let (a, b) = (part(m, k, stride, turned[0]), part(k, n, stride, turned[1]));
            let at = |x: &Matrix<f32>, i: usize, j: usize| x.data[x.offset + i * x.row_stride as usize + j * x.col_stride as usize];
            let mut c = vec![f32::NAN; m * n];
            gemm_into(&mut c, a, b, false);
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let terms = (0..k).map(|p| at(&a, i, p) as f64 * at(&b, p, j) as f64);
                let (want, bound) = (terms.clone().sum::<f64>(), terms.map(f64::abs).sum::<f64>() * 1e-6);
                let got = c[i * n + j] as f64;
                assert!((got - want).abs() < bound, "({m}, {k}) @ ({k}, {n}), element ({i}, {j}), transposed {turned:?}: {got}, expected {want}");
            }
        }
    }
}

/// A matrix in the midst of what no product may read: with gaps between its rows, or columns, or all its rows in one place, or upwards.
fn scattered<T: Gemm>(noise: &mut Noise, rows: usize, cols: usize) -> (Vec<T>, [isize; 3]) {
    let (gap, kind) = (noise.below(4), noise.below(6));
    let (along, down) = if kind < 2 { (rows + gap, 1) } else { (1, cols + gap) };
    let mut data = vec![T::from_f64(f64::NAN); 40 + (rows + 4) * (cols + 4)];
    let (along, down) = (along as isize, if kind == 5 { 0 } else { down as isize });
    let (first, down) = if kind == 4 { (20 + (rows as isize - 1) * down, -down) } else { (20, down) };
    for (i, j) in (0..rows as isize).flat_map(|i| (0..cols as isize).map(move |j| (i, j))) {
        data[(first + i * down + j * along) as usize] = T::from_f64(noise.values(1, -9.0, 9.0)[0].round());
    }
    (data, [first, down, along])
}

/// `c = a·b`, `c += a·b` and `c = a·b + row` of whole numbers, exactly, with nothing written around c.
fn exact<T: Gemm>((m, k, n): (usize, usize, usize), seed: u64) {
    let mut noise = Noise::new(seed);
    let ((x, of_x), (y, of_y)) = (scattered::<T>(&mut noise, m, k), scattered::<T>(&mut noise, k, n));
    let before: Vec<T> = noise.values(m * n + 40, -9.0, 9.0).into_iter().map(|v| T::from_f64(v.round())).collect();
    let a = Matrix { data: &x[..], offset: of_x[0] as usize, rows: m, cols: k, row_stride: of_x[1], col_stride: of_x[2] };
    let b = Matrix { data: &y[..], offset: of_y[0] as usize, rows: k, cols: n, row_stride: of_y[1], col_stride: of_y[2] };
    for onto in 0..3 {
        let mut c = before.clone();
        match onto {
            2 => gemm_affine(&mut c[20..20 + m * n], a, b, Some(&before[20..20 + n]), false),
            _ => gemm_into(&mut c[20..20 + m * n], a, b, onto == 1),
        }
        for (at, (c, &old)) in c.iter().zip(&before).enumerate() {
            let inside = (20..20 + m * n).contains(&at).then(|| ((at - 20) / n, (at - 20) % n));
            let want = inside.map_or(old.to_f64(), |(i, j)| {
                let at = |[first, down, along]: [isize; 3], i: usize, j: usize| (first + i as isize * down + j as isize * along) as usize;
                let start = [0.0, old.to_f64(), before[20 + j].to_f64()][onto];
                (0..k).fold(start, |sum, p| sum + x[at(of_x, i, p)].to_f64() * y[at(of_y, p, j)].to_f64())
            });
            assert_eq!(c.to_f64(), want, "({m}, {k}) @ ({k}, {n}), seed {seed}, onto {onto}: element {at} of {}", T::DTYPE);
        }
    }
}

#[test]
fn of_few_columns_read_and_write_only_what_is_theirs() {
    let _alone = alone();
    for level in [Level::Baseline, Level::Avx2, Level::Avx512] {
        limit_level(level);
        for seed in 0..1500 {
            let mut noise = Noise::new(seed);
            let (m, n) = (1 + noise.below(if seed % 2 == 0 { 14 } else { 60 }), 1 + noise.below(if seed % 5 == 0 { 40 } else { 17 }));
            let k = if seed % 7 == 0 { 1 + noise.below(1300) } else { 1 + noise.below(24) };
            match seed % 3 {
                0 => exact::<f32>((m, k, n), seed),
                1 => exact::<f64>((m, k, n), seed),
                _ => exact::<i64>((m, k, n), seed),
            }
        }
    }
}

/// Shapes whose operands are split, where the processor has a matrix unit: whole blocks, and blocks cut off on every side.
const SPLIT: [(usize, usize, usize); 4] = [(256, 200, 256), (211, 285, 245), (300, 450, 160), (160, 93, 1100)];

#[test]
fn of_operands_in_parts_are_as_exact_as_their_terms_wherever_they_lie() {
    let _settled = settled();
    for (seed, shape) in SPLIT.into_iter().enumerate() {
        for turned in [[false, false], [true, false], [true, true], [false, true]] {
            check(shape, turned, [seed as u64, seed as u64]);
        }
        (0..6).for_each(|more| exact::<f32>(shape, 6 * seed as u64 + more));
    }
}

#[test]
fn of_operands_in_parts_are_as_exact_at_any_magnitude() {
    let _settled = settled();
    let (m, k, n) = SPLIT[1];
    // Powers of two of the rows of a, block by block, and of the columns of b: from where parts, or their products, underflow to where
    // they overflow.
    let powers = [[-20, 0, -120, -60, 40, 100, -140], [10, -30, 24, -70, 60, -40, 120]];
    let mut noise = Noise::new(11);
    let scaled = |noise: &mut Noise, power: i32| (noise.uniform(0.5, 1.0) * if noise.below(2) == 0 { 1.0 } else { -1.0 } * 2f64.powi(power)) as f32;
    let x: Vec<f32> = (0..m * k).map(|i| scaled(&mut noise, powers[0][i / k / 32])).collect();
    let y: Vec<f32> = (0..k * n).map(|i| scaled(&mut noise, powers[1][i % n / 32 % 7])).collect();
    let mut c = vec![0.0f32; m * n];
    gemm_into(&mut c, Matrix::row_major(&x, m, k), Matrix::row_major(&y, k, n), false);
    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
        let terms = (0..k).map(|p| x[i * k + p] as f64 * y[p * n + j] as f64);
        let (want, size) = (terms.clone().sum::<f64>(), terms.map(f64::abs).sum::<f64>());
        let got = c[i * n + j] as f64;
        // Below the smallest normal number float32 has steps, above the largest there is infinity.
        let bound = size * 1e-6 + k as f64 * 2f64.powi(-149);
        assert!((got - want).abs() < bound || (size > f32::MAX as f64 && !got.is_finite()), "({i}, {j}): {got}, expected {want} within {bound}");
    }
}

#[test]
fn of_operands_in_parts_keep_what_is_not_finite_to_its_rows_and_columns() {
    let _settled = settled();
    let (m, k, n) = SPLIT[2];
    let mut noise = Noise::new(12);
    let mut draw = |len: usize| noise.values(len, -1.0, 1.0).into_iter().map(|v| v as f32).collect::<Vec<f32>>();
    let (mut x, mut y) = (draw(m * k), draw(k * n));
    let product = |x: &[f32], y: &[f32]| {
        let mut c = vec![0.0f32; m * n];
        gemm_into(&mut c, Matrix::row_major(x, m, k), Matrix::row_major(y, k, n), false);
        c
    };
    let before = product(&x, &y);
    // Every NaN stays one, whatever its bits; infinity times what is finite is infinity, of either sign.
    let marks = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::from_bits(0x7fff_ffff), f32::from_bits(0xffff_ffff)];
    marks.into_iter().enumerate().for_each(|(i, mark)| x[(3 + 50 * i) * k + 7 + 70 * i] = mark);
    y[33 * n + 99] = f32::NEG_INFINITY;
    for (at, (got, before)) in product(&x, &y).into_iter().zip(before).enumerate() {
        let (i, j) = (at / n, at % n);
        match (i % 50 == 3 && i < 250).then_some(i / 50) {
            Some(0 | 1) if j != 99 => assert_eq!(got, marks[i / 50] * y[(7 + 70 * (i / 50)) * n + j].signum(), "({i}, {j})"),
            Some(2..) => assert!(got.is_nan(), "({i}, {j}): {got}, expected NaN"),
            None if j == 99 => assert_eq!(got, f32::NEG_INFINITY * x[i * k + 33].signum(), "({i}, {j})"),
            Some(_) => {}
            None => assert!((got - before).abs() < 1e-4, "({i}, {j}): {got}, expected {before}"),
        }
    }
}

#[test]
fn of_operands_in_parts_have_bits_of_their_own() {
    let _alone = alone();
    if limit_level(Level::Amx) != Level::Amx {
        return;
    }
    let mut noise = Noise::new(13);
    for (m, k, n) in SPLIT {
        let mut draw = |len: usize| noise.values(len, -1.0, 1.0).into_iter().map(|v| v as f32).collect::<Vec<f32>>();
        let (x, y) = (draw(m * k), draw(k * n));
        let [split, whole] = [Level::Amx, Level::Avx512].map(|level| {
            limit_level(level);
            let mut c = vec![0.0f32; m * n];
            gemm_into(&mut c, Matrix::row_major(&x, m, k), Matrix::row_major(&y, k, n), false);
            c
        });
        assert!(split != whole, "({m}, {k}) @ ({k}, {n}) was not split, so nothing here tests it");
    }
}
