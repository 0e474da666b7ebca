//! Random numbers: known answers, the same bits everywhere, and the distributions they claim.

use crate::support::{alone, assert_close};
use treadle::array::{Array, DType, Dims, Element};
use treadle::kernels::random::{Drawing, Generator};
use treadle::kernels::{parallel, simd};
use treadle::{Tensor, autograd, ops};

fn dims(n: usize) -> Dims {
    Dims::new(&[n]).unwrap()
}

/// The elements of a contiguous array, as float64.
fn values(x: &Array) -> Vec<f64> {
    treadle::with_dtype!(x.dtype(), T => x.as_slice::<T>().unwrap().iter().map(|v| v.to_f64()).collect())
}

/// The first `n` of every kind of number.
fn draws(n: usize) -> Vec<Vec<u64>> {
    let start = Generator::from_state((0x1234_5678_9ABC_DEF0, u32::MAX as u64 - 100));
    let fill = |f: &dyn Fn(Generator) -> treadle::Result<Array>| values(&f(start).unwrap()).into_iter().map(f64::to_bits).collect();
    let x = Array::full(&[n], 3.0.into(), DType::F32).unwrap();
    vec![
        fill(&|mut g| g.uniform(dims(n), -1.0, 3.0, DType::F32).and_then(Drawing::compute)),
        fill(&|mut g| g.uniform(dims(n), 0.0, 1.0, DType::F64).and_then(Drawing::compute)),
        fill(&|mut g| g.normal(dims(n), 0.0, 1.0, DType::F32).and_then(Drawing::compute)),
        fill(&|mut g| g.normal(dims(n), 2.0, 0.5, DType::F64).and_then(Drawing::compute)),
        fill(&|mut g| g.integers(dims(n), -7, 1000).and_then(Drawing::compute)),
        fill(&|mut g| g.bernoulli(dims(n), 0.3, 1.0, DType::F32).and_then(Drawing::compute)),
        fill(&|mut g| g.bernoulli(dims(n), 0.3, 2.0, DType::F64).and_then(Drawing::compute)),
        fill(&|mut g| g.dropout(&x, 0.3).and_then(Drawing::compute)),
    ]
}

/// 64 random bits per element: the range holds all integers but one, which takes 1 from the bits.
fn bits(g: &mut Generator, n: usize) -> Vec<u64> {
    let all = g.integers(dims(n), i64::MIN, i64::MAX).unwrap().compute().unwrap();
    all.as_slice::<i64>().unwrap().iter().map(|&i| (i as u64 ^ 1 << 63) + 1).collect()
}

#[test]
fn first_words_of_philox() {
    // The published answer for key and counter zero.
    let got = bits(&mut Generator::new(0), 17);
    assert_eq!([got[0], got[16]], [0x6627_e8d5_e169_c58d, 0xbc57_ac4c_9b00_dbd8]);
    let uniform = values(&Generator::new(0).uniform(dims(1), 0.0, 1.0, DType::F32).unwrap().compute().unwrap());
    assert_eq!(uniform, [0x66_27e8 as f64 / (1u64 << 24) as f64]);
}

#[test]
fn bits_do_not_depend_on_threads_or_instruction_sets() {
    let _alone = alone();
    let want = draws(200_003);
    for n in [1, 2, 3, 8] {
        parallel::set_num_threads(n);
        assert!(draws(200_003) == want, "{n} threads drew other bits");
    }
    for level in [simd::Level::Avx2, simd::Level::Baseline] {
        simd::limit_level(level);
        assert!(draws(200_003) == want, "{} drew other bits", level.name());
    }
    // Nor on how many come after it.
    for n in [0, 1, 15, 63, 64, 65, 4097] {
        assert!(draws(n).iter().zip(&want).all(|(few, many)| few[..] == many[..n]), "the first {n} were others");
    }
}

#[test]
fn a_state_continues_where_it_was_taken() {
    let mut g = Generator::new(5);
    g.normal(dims(1000), 0.0, 1.0, DType::F32).unwrap().compute().unwrap();
    let mut twin = Generator::from_state(g.state());
    let draw = |g: &mut Generator| values(&g.uniform(dims(77), 0.0, 1.0, DType::F64).unwrap().compute().unwrap());
    assert_eq!(draw(&mut g), draw(&mut twin));
    let first = draw(&mut twin);
    g.skip(48);
    assert_ne!(first, draw(&mut g));
    assert_eq!(draw(&mut g), {
        draw(&mut twin);
        draw(&mut twin)
    });
}

/// √(−2 ln u)·(cos, sin)(2πv), with the library's functions.
fn box_muller(u: f64, v: f64) -> [f64; 2] {
    let (radius, angle) = ((-2.0 * u.ln()).sqrt(), std::f64::consts::TAU * v);
    [radius * angle.cos(), radius * angle.sin()]
}

#[test]
fn normals_are_those_of_their_bits() {
    let n = 16 * 2000;
    let words = bits(&mut Generator::new(8), n);
    let unit = |word: u64, half: f64, bits: u32| ((word >> (64 - bits)) as f64 + half) / (1u64 << bits) as f64;
    let (mut exact, mut half) = (vec![0.0; n], vec![0.0; 2 * n]);
    for counter in 0..n / 2 {
        let (group, lane) = (counter / 16, counter % 16);
        let [a, b] = [0, 1].map(|i| words[32 * group + 16 * i + lane]);
        let pair = box_muller(unit(a, 0.5, 53), unit(b, 0.0, 53));
        let pairs = [a, b].map(|w| box_muller(unit(w, 0.5, 32), unit(w << 32, 0.0, 32)));
        (0..2).for_each(|i| exact[32 * group + 16 * i + lane] = pair[i]);
        (0..4).for_each(|i| half[64 * group + 16 * i + lane] = pairs[i / 2][i % 2]);
    }
    let draw = |n, dtype| values(&Generator::new(8).normal(dims(n), 0.0, 1.0, dtype).unwrap().compute().unwrap());
    assert_close("float64", &draw(n, DType::F64), &exact, 1e-15);
    for (got, want) in draw(2 * n, DType::F32).iter().zip(&half) {
        assert!((got - want).abs() <= 6.0e-8 * want.abs() + 1e-9, "{got} for {want}");
    }
}

/// Largest distance between the distribution of a sample and `cdf` (Kolmogorov and Smirnov), times √n.
fn distance(sample: &Array, cdf: impl Fn(f64) -> f64) -> f64 {
    let mut values = values(sample);
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let gap = |(i, &x): (usize, &f64)| (cdf(x) - i as f64 / n).abs().max((cdf(x) - (i + 1) as f64 / n).abs());
    values.iter().enumerate().map(gap).fold(0.0, f64::max) * n.sqrt()
}

#[test]
fn distributions() {
    use treadle::kernels::math::Math;
    use treadle::kernels::simd::Avx2;
    let mut g = Generator::new(11);
    let n = dims(200_000);
    let normal_cdf = |x: f64| 0.5 * (1.0 + (x / std::f64::consts::SQRT_2).erf_on::<Avx2>());
    // 1.95 is exceeded by chance once in a thousand.
    for dtype in [DType::F32, DType::F64] {
        assert!(distance(&g.uniform(n, 0.0, 1.0, dtype).unwrap().compute().unwrap(), |x| x) < 1.95);
        assert!(distance(&g.normal(n, 0.0, 1.0, dtype).unwrap().compute().unwrap(), normal_cdf) < 1.95);
    }
    let share = values(&g.bernoulli(n, 0.3, 1.0, DType::F32).unwrap().compute().unwrap()).iter().sum::<f64>() / 200_000.0;
    assert!((share - 0.3).abs() < 0.004, "share of ones is {share}");
    let mut counts = [0.0f64; 10];
    values(&g.integers(n, 0, 10).unwrap().compute().unwrap()).iter().for_each(|&i| counts[i as usize] += 1.0);
    let chi_square: f64 = counts.iter().map(|c| (c - 20_000.0).powi(2) / 20_000.0).sum();
    assert!(chi_square < 27.9, "chi-square of 10 classes is {chi_square}");
}

#[test]
fn moments_and_correlations() {
    let n = 1_000_000;
    for dtype in [DType::F32, DType::F64] {
        let x = values(&Generator::new(12).normal(dims(n), 0.0, 1.0, dtype).unwrap().compute().unwrap());
        let moment = |k: i32| x.iter().map(|v| v.powi(k)).sum::<f64>() / n as f64;
        // Four standard errors: the variance of the k-th power is 1, 2, 15 and 96.
        for (k, want, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0f64)] {
            assert!((moment(k) - want).abs() < 4.0 * (variance / n as f64).sqrt(), "moment {k} is {}", moment(k));
        }
        // Neighbours, and the numbers that come of one counter.
        for lag in [1, 2, 16, 32, 48, 64] {
            let products = |f: fn(f64) -> f64| x.iter().zip(&x[lag..]).map(|(a, b)| f(*a) * f(*b)).sum::<f64>() / (n as f64).sqrt();
            assert!(products(|v| v).abs() < 4.0, "correlation at lag {lag}");
            assert!(products(|v| v * v - 1.0).abs() < 8.0, "correlation of squares at lag {lag}");
        }
    }
}

#[test]
fn uniform_leaves_out_its_high_end() {
    let mut g = Generator::new(2);
    // Half of these would round to the high end.
    let x = values(&g.uniform(dims(1000), 1.0, 1.0 + f32::EPSILON as f64, DType::F32).unwrap().compute().unwrap());
    assert!(x.iter().all(|&x| x == 1.0));
    assert!(values(&g.uniform(dims(100), 2.0, 2.0, DType::F64).unwrap().compute().unwrap()).iter().all(|&x| x == 2.0));
    assert!(values(&g.uniform(dims(100), -1e308, 0.5e308, DType::F64).unwrap().compute().unwrap()).iter().all(|x| x.is_finite()));
}

#[test]
fn permutations_hold_every_number_once_and_every_order_alike() {
    let mut g = Generator::new(3);
    for n in [0, 1, 2, 1000] {
        let mut order = values(&g.permutation(n).unwrap().compute().unwrap());
        order.sort_by(f64::total_cmp);
        assert!(order.iter().enumerate().all(|(i, &x)| x == i as f64) && order.len() == n);
    }
    let mut counts = std::collections::HashMap::<Vec<u64>, f64>::new();
    for _ in 0..24_000 {
        let key = values(&g.permutation(4).unwrap().compute().unwrap()).into_iter().map(f64::to_bits).collect();
        *counts.entry(key).or_default() += 1.0;
    }
    let chi_square: f64 = counts.values().map(|c| (c - 1000.0).powi(2) / 1000.0).sum();
    assert!(counts.len() == 24 && chi_square < 49.7, "chi-square of 24 orders is {chi_square}");
}

#[test]
fn dropout_scales_what_it_keeps_and_its_gradient_alike() {
    let x = Tensor::from_slice(&[10_000], &[2.0f32; 10_000]).unwrap().requiring_grad().unwrap();
    let mut g = Generator::new(1);
    let y = ops::dropout(&x, 0.25, &mut g).unwrap();
    let kept = values(y.array());
    assert!(kept.iter().all(|&v| v == 0.0 || v == (2.0f32 * (1.0f64 / 0.75) as f32) as f64));
    let dropped = kept.iter().filter(|&&v| v == 0.0).count();
    assert!((2300..2700).contains(&dropped), "dropped {dropped} of 10000");
    ops::sum(&y, None, false).unwrap().backward(None, false, false).unwrap();
    let want: Vec<f64> = kept.iter().map(|v| v / 2.0).collect();
    assert_close("dx", &values(x.grad().unwrap().array()), &want, 1e-6);
    assert_ne!(kept, values(ops::dropout(&x, 0.25, &mut g).unwrap().array()));
}

#[test]
fn dropout_has_second_derivatives() {
    let x = Tensor::from_slice(&[100], &[1.5f64; 100]).unwrap().requiring_grad().unwrap();
    let y = ops::dropout(&x, 0.5, &mut Generator::new(4)).unwrap();
    let loss = ops::sum(&ops::square(&y).unwrap(), None, false).unwrap();
    let slope = autograd::grad(&[loss], std::slice::from_ref(&x), None, true, true).unwrap().remove(0).unwrap();
    let total = ops::sum(&slope, None, false).unwrap();
    let curvature = autograd::grad(&[total], std::slice::from_ref(&x), None, false, false).unwrap().remove(0).unwrap();
    // y = 2x or 0, so y² is 4x² or 0.
    let want: Vec<f64> = values(y.array()).iter().map(|&v| if v == 0.0 { 0.0 } else { 8.0 }).collect();
    assert_eq!(values(contiguous(&curvature).array()), want);
}

fn contiguous(x: &Tensor) -> Tensor {
    Tensor::constant(treadle::kernels::map::contiguous(x.array()).unwrap())
}

#[test]
fn dropout_at_its_ends_and_in_any_layout() {
    let mut g = Generator::new(6);
    let odd = Tensor::from_slice(&[4], &[1.0f32, f32::NAN, f32::INFINITY, -3.0]).unwrap();
    assert_eq!(values(ops::dropout(&odd, 1.0, &mut g).unwrap().array()), [0.0; 4]);
    let same = values(ops::dropout(&odd, 0.0, &mut g).unwrap().array());
    assert!(same[0] == 1.0 && same[1].is_nan() && same[2] == f64::INFINITY && same[3] == -3.0);
    let x = Tensor::constant(g.normal(Dims::new(&[30, 50]).unwrap(), 0.0, 1.0, DType::F32).unwrap().compute().unwrap());
    let turned = Tensor::constant(x.array().swap_axes(0, 1));
    let (a, b) = (ops::dropout(&turned, 0.4, &mut g.clone()).unwrap(), ops::dropout(&contiguous(&turned), 0.4, &mut g).unwrap());
    assert_eq!(values(a.array()), values(b.array()));
}

#[test]
fn what_is_refused_draws_nothing() {
    let mut g = Generator::new(1);
    let state = g.state();
    let (x, i) = (Array::zeros(&[4], DType::F32).unwrap(), Array::zeros(&[4], DType::I64).unwrap());
    assert!(g.uniform(dims(4), 2.0, 1.0, DType::F32).is_err());
    assert!(g.uniform(dims(4), f64::NAN, 1.0, DType::F32).is_err());
    assert!(g.uniform(dims(4), -3e38, 3e38, DType::F32).is_err());
    assert!(g.uniform(dims(4), -1.7e308, 1.7e308, DType::F64).is_err());
    assert!(g.normal(dims(4), 0.0, -1.0, DType::F32).is_err());
    assert!(g.normal(dims(4), 0.0, 1.0, DType::I64).is_err());
    assert!(g.bernoulli(dims(4), 1.5, 1.0, DType::F32).is_err());
    assert!(g.bernoulli(dims(4), f64::NAN, 1.0, DType::F32).is_err());
    assert!(g.integers(dims(4), 3, 3).is_err());
    assert!(g.dropout(&x, -0.1).is_err() && g.dropout(&i, 0.5).is_err());
    assert!(g.permutation(1 << 60).is_err() && g.normal(dims(1 << 60), 0.0, 1.0, DType::F64).is_err());
    assert_eq!(g.state(), state);
}
