//! The same inputs give the same bits at 1, 2, 3 and 8 threads, and on every instruction set where sums decide.

use crate::products::matrix;
use crate::support::{Noise, alone, bits, uniform};
use treadle::array::DType;
use treadle::kernels::gemm::{Gemm, gemm_into};
use treadle::kernels::{parallel, simd};
use treadle::{Result, Tensor, autograd, ops};

fn f32(shape: &[usize], seed: u64) -> Tensor {
    ops::cast(&uniform(shape, -1.0, 1.0, seed), DType::F32).unwrap()
}

/// Runs a forward and a backward over every kind of kernel, at sizes that are shared between threads.
fn everything() -> Result<Vec<Vec<u64>>> {
    let x = f32(&[700, 300], 1).requiring_grad()?;
    let w = f32(&[200, 300], 2).requiring_grad()?;
    let b = f32(&[200], 3).requiring_grad()?;
    let (gamma, beta) = (f32(&[200], 4).requiring_grad()?, f32(&[200], 5).requiring_grad()?);
    let config = ops::BatchNormConfig { training: true, momentum: Some(0.1), eps: 1e-5, unbiased: false, relu: true };
    let h = ops::linear(&x, &w, Some(&b))?;
    let (h, _) = ops::batch_norm(&h, Some(&gamma), Some(&beta), None, None, config)?;
    let h = ops::mul(&ops::gelu(&h)?, &ops::sigmoid(&h)?)?;
    let mut noise = Noise::new(6);
    let mut places = |shape: &[usize], n| {
        let places: Vec<i64> = (0..shape.iter().product()).map(|_| noise.below(n) as i64).collect();
        Tensor::from_slice(shape, &places)
    };
    let columns = places(&[200], 200)?;
    let parts = [
        ops::linear_relu(&x, &w, Some(&b))?,
        ops::sum(&h, Some(&[0]), false)?,
        ops::sum(&h, Some(&[1]), false)?,
        ops::logsumexp(&h, Some(&[1]), false)?,
        ops::softmax(&h, -1)?,
        ops::var(&h, Some(&[0]), false, 0.0)?,
        ops::var(&h.detach(), Some(&[1]), false, 0.0)?,
        ops::var(&h.detach(), None, false, 0.0)?,
        ops::matmul(&ops::transpose(&h), &h)?,
        ops::matmul(&ops::reshape(&h, &[3500, 5, 8])?, &ops::reshape(&h, &[3500, 8, 5])?)?,
        ops::max(&h, Some(&[0]), false)?,
        ops::sum(&h, None, false)?,
        ops::sum(&ops::transpose(&ops::reshape(&h, &[14_000, 10])?), Some(&[0]), false)?,
        ops::prod(&ops::reshape(&h, &[35_000, 4])?, Some(&[1]), false)?,
        ops::sum(&ops::reshape(&h, &[700, 50, 4])?, Some(&[0, 2]), false)?,
        ops::sum(&ops::narrow(&ops::reshape(&h, &[700, 50, 4])?, 2, 0, 2)?, None, false)?,
        ops::sum(&ops::narrow(&ops::reshape(&h, &[3500, 10, 4])?, 2, 1, 2)?, Some(&[1, 2]), false)?,
        ops::sum(&ops::reshape(&h, &[3500, 10, 4])?, Some(&[1]), false)?,
        ops::max(&ops::reshape(&h, &[70, 20, 2, 50])?, Some(&[0, 3]), false)?,
        ops::take(&h, &columns, 1)?,
        ops::index_add(&h, &columns, &h, 1)?,
        ops::gather(&h, &places(&[700, 200], 200)?, 1)?,
        ops::gather(&h, &places(&[500, 200], 700)?, 0)?,
    ];
    let mut loss = ops::sum(&h, None, false)?;
    for part in &parts {
        loss = ops::add(&loss, &ops::mean(&ops::square(part)?, None, false)?)?;
    }
    let inputs = [x, w, b, gamma, beta];
    let grads = autograd::grad(&[loss], &inputs, None, false, false)?;
    Ok(parts.iter().chain(grads.iter().flatten()).map(bits).collect())
}

#[test]
fn threads_do_not_change_bits() {
    let _alone = alone();
    parallel::set_num_threads(1);
    let want = everything().unwrap();
    assert_eq!(want.len(), 28);
    for threads in [2, 3, 8, 1] {
        parallel::set_num_threads(threads);
        assert!(everything().unwrap() == want, "{threads} threads gave other bits");
    }
}

/// Bits of `a·b` and `c + a·b`, of every layout of the two.
fn products<T: Gemm>((m, k, n): (usize, usize, usize)) -> Vec<u64> {
    let mut noise = Noise::new((m * 31 + k * 7 + n) as u64);
    let mut draw = |len: usize| noise.values(len, -1.0, 1.0).into_iter().map(T::from_f64).collect::<Vec<T>>();
    let (x, y, before) = (draw(m * k), draw(k * n), draw(m * n));
    let mut found = Vec::new();
    for (turned, accumulate) in (0..4).flat_map(|turned| [(turned, false), (turned, true)]) {
        let mut c = before.clone();
        gemm_into(&mut c, matrix(&x, m, k, turned & 1 == 1), matrix(&y, k, n, turned & 2 == 2), accumulate);
        found.extend(c.into_iter().map(|c| c.to_f64().to_bits()));
    }
    found
}

#[test]
fn threads_do_not_change_bits_of_products() {
    let _alone = alone();
    let long = [(2, 4096, 128), (128, 5000, 3), (3, 1500, 160), (1, 3000, 700), (700, 3000, 1), (16, 300, 900), (9, 1025, 97)];
    let deep = [(3, 60_000, 12), (1, 12, 60_000), (8, 20, 20_000), (10, 20_000, 10), (1, 300_000, 1), (60, 9000, 33), (1, 700, 700)];
    let wide = [(4000, 20, 10), (4000, 64, 15), (64, 784, 100), (100, 784, 100), (130, 513, 127), (96, 1024, 96), (600, 300, 70)];
    let square = [(130, 60, 784), (784, 60, 130), (520, 70, 530), (1030, 40, 260), (260, 40, 2100), (300, 2, 2000), (200, 1100, 200), (290, 900, 340)];
    for level in [simd::Level::Amx, simd::Level::Avx512, simd::Level::Avx2, simd::Level::Baseline] {
        simd::limit_level(level);
        for shape in long.into_iter().chain(deep).chain(wide).chain(square) {
            parallel::set_num_threads(1);
            let want = (products::<f32>(shape), products::<f64>(shape));
            for threads in [2, 3, 8] {
                parallel::set_num_threads(threads);
                assert!((products::<f32>(shape), products::<f64>(shape)) == want, "{shape:?} with {threads} threads gave other bits");
            }
        }
    }
}

#[test]
fn threads_do_not_change_bits_from_many_callers() {
    let _alone = alone();
    let want = everything().unwrap();
    let callers: Vec<_> = (0..4).map(|_| std::thread::spawn(|| everything().unwrap())).collect();
    for caller in callers {
        assert!(caller.join().unwrap() == want, "a caller among several got other bits");
    }
}

#[test]
fn instruction_sets_agree_on_sums() {
    let _alone = alone();
    let x = f32(&[513, 217], 9);
    let sums = || [ops::sum(&x, Some(&[0]), false), ops::sum(&x, Some(&[1]), false), ops::sum(&x, None, false)].map(|s| bits(&s.unwrap()));
    let want = sums();
    for level in [simd::Level::Avx2, simd::Level::Baseline] {
        simd::limit_level(level);
        assert!(sums() == want, "{} gave other bits", level.name());
    }
}
