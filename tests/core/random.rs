//! Random numbers: known answers, the same bits everywhere, and the distributions they claim.

use crate::support::elements;
use std::sync::Mutex;
use treadle::array::{Array, DType, Dims};
use treadle::kernels::random::Generator;
use treadle::kernels::{parallel, simd};
use treadle::{Tensor, ops};

static SETTINGS: Mutex<()> = Mutex::new(());

fn dims(n: usize) -> Dims {
    Dims::new(&[n]).unwrap()
}

/// One of everything, at a size that threads share.
fn draws() -> Vec<Vec<u64>> {
    let mut g = Generator::new(0x1234_5678_9ABC_DEF0);
    let n = dims(200_003);
    let arrays = [
        g.uniform(n, -1.0, 3.0, DType::F32),
        g.uniform(n, 0.0, 1.0, DType::F64),
        g.normal(n, 0.0, 1.0, DType::F32),
        g.normal(n, 2.0, 0.5, DType::F64),
        g.integers(n, -7, 1000),
        g.bernoulli(n, 0.3, 1.0, DType::F32),
        g.permutation(5000),
    ];
    arrays.into_iter().map(|a| elements(&a.unwrap()).into_iter().map(f64::to_bits).collect()).collect()
}

#[test]
fn first_numbers_of_philox() {
    // The published answer for key and counter zero begins with the words 6627e8d5 e169c58d bc57ac4c 9b00dbd8.
    let words = [0x6627_e8d5u32, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8];
    let u = elements(&Generator::new(0).uniform(dims(64), 0.0, 1.0, DType::F32).unwrap());
    let got: Vec<f64> = (0..4).map(|w| u[16 * w]).collect();
    let want: Vec<f64> = words.iter().map(|w| (w >> 8) as f64 / (1u64 << 24) as f64).collect();
    assert_eq!(got, want);
}

#[test]
fn bits_do_not_depend_on_threads_or_instruction_sets() {
    let _alone = SETTINGS.lock().unwrap_or_else(|e| e.into_inner());
    let (threads, level) = (parallel::num_threads(), simd::level());
    let want = draws();
    for n in [1, 2, 3, 8] {
        parallel::set_num_threads(n);
        assert!(draws() == want, "{n} threads drew other bits");
    }
    for level in [simd::Level::Avx2, simd::Level::Baseline] {
        simd::limit_level(level);
        assert!(draws() == want, "{} drew other bits", level.name());
    }
    simd::limit_level(level);
    parallel::set_num_threads(threads);
}

#[test]
fn a_state_continues_where_it_was_taken() {
    let mut g = Generator::new(5);
    g.normal(dims(1000), 0.0, 1.0, DType::F32).unwrap();
    let mut twin = Generator::from_state(g.state());
    let (a, b) = (g.uniform(dims(77), 0.0, 1.0, DType::F64).unwrap(), twin.uniform(dims(77), 0.0, 1.0, DType::F64).unwrap());
    assert_eq!(elements(&a), elements(&b));
    assert_ne!(elements(&a), elements(&g.uniform(dims(77), 0.0, 1.0, DType::F64).unwrap()));
}

/// Largest distance between the distribution of a sample and `cdf` (Kolmogorov and Smirnov), times √n.
fn distance(sample: &Array, cdf: impl Fn(f64) -> f64) -> f64 {
    let mut values = elements(sample);
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let gap = |(i, &x): (usize, &f64)| (cdf(x) - i as f64 / n).abs().max((cdf(x) - (i + 1) as f64 / n).abs());
    values.iter().enumerate().map(gap).fold(0.0, f64::max) * n.sqrt()
}

#[test]
fn distributions() {
    use treadle::kernels::math::Math;
    use treadle::kernels::simd::Fma;
    let mut g = Generator::new(11);
    let n = dims(200_000);
    let normal_cdf = |x: f64| 0.5 * (1.0 + (x / std::f64::consts::SQRT_2).erf_on::<Fma>());
    // 1.95 is exceeded by chance once in a thousand.
    for dtype in [DType::F32, DType::F64] {
        assert!(distance(&g.uniform(n, 0.0, 1.0, dtype).unwrap(), |x| x) < 1.95);
        assert!(distance(&g.normal(n, 0.0, 1.0, dtype).unwrap(), normal_cdf) < 1.95);
    }
    let share = elements(&g.bernoulli(n, 0.3, 1.0, DType::F32).unwrap()).iter().sum::<f64>() / 200_000.0;
    assert!((share - 0.3).abs() < 0.004, "share of ones is {share}");
    let mut counts = [0.0f64; 10];
    elements(&g.integers(n, 0, 10).unwrap()).iter().for_each(|&i| counts[i as usize] += 1.0);
    let chi_square: f64 = counts.iter().map(|c| (c - 20_000.0).powi(2) / 20_000.0).sum();
    assert!(chi_square < 27.9, "chi-square of 10 classes is {chi_square}");
}

#[test]
fn permutations_hold_every_number_once_and_every_order_alike() {
    let mut g = Generator::new(3);
    let mut order = elements(&g.permutation(1000).unwrap());
    order.sort_by(f64::total_cmp);
    assert!(order.iter().enumerate().all(|(i, &x)| x == i as f64));
    let mut counts = std::collections::HashMap::<Vec<u64>, f64>::new();
    for _ in 0..24_000 {
        let key = elements(&g.permutation(4).unwrap()).into_iter().map(f64::to_bits).collect();
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
    let values = elements(y.array());
    assert!(values.iter().all(|&v| v == 0.0 || v == (2.0f32 * (1.0f64 / 0.75) as f32) as f64));
    let dropped = values.iter().filter(|&&v| v == 0.0).count();
    assert!((2300..2700).contains(&dropped), "dropped {dropped} of 10000");
    ops::sum(&y, None, false).unwrap().backward(None, false, false).unwrap();
    let want: Vec<f64> = values.iter().map(|v| v / 2.0).collect();
    crate::support::assert_close("dx", &elements(x.grad().unwrap().array()), &want, 1e-6);
    assert_ne!(values, elements(ops::dropout(&x, 0.25, &mut g).unwrap().array()));
}

#[test]
fn what_is_refused_draws_nothing() {
    let mut g = Generator::new(1);
    let state = g.state();
    assert!(g.uniform(dims(4), 2.0, 1.0, DType::F32).is_err());
    assert!(g.normal(dims(4), 0.0, -1.0, DType::F32).is_err());
    assert!(g.normal(dims(4), 0.0, 1.0, DType::I64).is_err());
    assert!(g.bernoulli(dims(4), 1.5, 1.0, DType::F32).is_err());
    assert!(g.integers(dims(4), 3, 3).is_err());
    assert_eq!(g.state(), state);
}
