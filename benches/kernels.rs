//! Throughput of the kernels: element-wise, reductions, rows and GEMM, at sizes in cache and beyond.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use support::random;
use treadle::kernels::simd::{Level, limit_level};
use treadle::{Result, Tensor, ops};

type Op = fn(&Tensor) -> Result<Tensor>;

fn elementwise(c: &mut Criterion) {
    let ops: &[(&str, Op)] = &[("exp", ops::exp), ("log", ops::log), ("tanh", ops::tanh), ("sigmoid", ops::sigmoid), ("gelu", ops::gelu), ("relu", ops::relu)];
    let mut group = c.benchmark_group("elementwise");
    for size in [1usize << 10, 1 << 20] {
        let x = ops::abs(&random(&[size], 1)).expect("floats");
        group.throughput(Throughput::Elements(size as u64));
        for (name, op) in ops {
            group.bench_with_input(BenchmarkId::new(*name, size), &x, |b, x| b.iter(|| op(x)));
        }
        group.bench_with_input(BenchmarkId::new("add", size), &x, |b, x| b.iter(|| ops::add(x, x)));
    }
    group.finish();
}

fn reductions(c: &mut Criterion) {
    let mut group = c.benchmark_group("reductions");
    for shape in [[64usize, 100], [2048, 1024]] {
        let x = random(&shape, 2);
        let label = format!("{} by {}", shape[0], shape[1]);
        group.throughput(Throughput::Elements((shape[0] * shape[1]) as u64));
        group.bench_function(BenchmarkId::new("sum of rows", &label), |b| b.iter(|| ops::sum(&x, Some(&[1]), false)));
        group.bench_function(BenchmarkId::new("sum of columns", &label), |b| b.iter(|| ops::sum(&x, Some(&[0]), false)));
        group.bench_function(BenchmarkId::new("argmax of rows", &label), |b| b.iter(|| ops::argmax(&x, Some(1), false)));
        group.bench_function(BenchmarkId::new("softmax of rows", &label), |b| b.iter(|| ops::softmax(&x, 1)));
    }
    group.finish();
}

/// By every instruction set that the processor has.
fn gemm(c: &mut Criterion) {
    let mut group = c.benchmark_group("gemm");
    for [m, k, n] in [[1usize, 784, 100], [64, 64, 64], [64, 784, 100], [256, 256, 256], [1024, 1024, 1024]] {
        let (x, w) = (random(&[m, k], 3), random(&[n, k], 4));
        group.throughput(Throughput::Elements((2 * m * k * n) as u64));
        for level in [Level::Avx2, Level::Avx512, Level::Amx].into_iter().filter(|&level| limit_level(level) == level) {
            let label = format!("{m} by {k} times {k} by {n}, transposed");
            group.bench_function(BenchmarkId::new(label, level.name()), |b| b.iter(|| ops::linear(&x, &w, None)));
        }
    }
    limit_level(Level::Amx);
    group.finish();
}

criterion_group!(benches, elementwise, reductions, gemm);
criterion_main!(benches);
