//! Batch norm: forward in training and eval, forward and backward, over the shapes of the contract.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use support::random;
use treadle::ops::{self, BatchNormConfig};

const TRAIN: BatchNormConfig = BatchNormConfig { training: true, momentum: Some(0.1), eps: 1e-5, unbiased: false, relu: false };
const SHAPES: &[&[usize]] = &[&[32, 64], &[64, 128], &[128, 256], &[1024, 512], &[8192, 512], &[65536, 64], &[64, 16384], &[64, 64, 256]];

fn batch_norm(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch_norm");
    group.sample_size(30);
    for shape in SHAPES {
        let (x, dy) = (random(shape, 1).requiring_grad().expect("floats"), random(shape, 2));
        let (w, b) = (random(&shape[1..2], 3).requiring_grad().expect("floats"), random(&shape[1..2], 4).requiring_grad().expect("floats"));
        let label = format!("{shape:?}");
        group.throughput(Throughput::Bytes(4 * x.size() as u64));
        group.bench_function(BenchmarkId::new("forward", &label), |bench| {
            bench.iter(|| treadle::autograd::no_grad(|| ops::batch_norm(&x, Some(&w), Some(&b), None, None, TRAIN)))
        });
        group.bench_function(BenchmarkId::new("forward and backward", &label), |bench| {
            bench.iter(|| {
                [&x, &w, &b].into_iter().try_for_each(|t| t.set_grad(None))?;
                let (y, _) = ops::batch_norm(&x, Some(&w), Some(&b), None, None, TRAIN)?;
                y.backward(Some(dy.clone()), false, false)
            })
        });
    }
    group.finish();
}

criterion_group!(benches, batch_norm);
criterion_main!(benches);
