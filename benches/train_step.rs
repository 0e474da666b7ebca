//! One whole training step of an MLP with batch norm and ReLU: forward, cross-entropy, backward and the optimizer.

mod mlp;
mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use mlp::{Mlp, labels};
use support::random;

fn train_step(c: &mut Criterion) {
    let mut group = c.benchmark_group("train_step");
    for [h, n, d] in [[32usize, 16, 16], [64, 32, 64], [128, 64, 784], [256, 128, 784], [512, 256, 784]] {
        for (name, adam) in [("SGD", false), ("Adam", true)] {
            let (x, target, mut mlp) = (random(&[n, d], 99), labels(n), Mlp::new(d, h, adam));
            group.bench_function(format!("hidden {h}, batch {n}, inputs {d}, {name}"), |b| b.iter(|| mlp.step(&x, &target)));
        }
    }
    group.finish();
}

fn inference(c: &mut Criterion) {
    let mut group = c.benchmark_group("inference");
    for [h, n, d] in [[64usize, 1, 64], [64, 64, 64], [256, 1, 784]] {
        let (x, mut mlp) = (random(&[n, d], 99), Mlp::new(d, h, false));
        group.bench_function(format!("hidden {h}, batch {n}, inputs {d}"), |b| b.iter(|| mlp.infer(&x)));
    }
    group.finish();
}

criterion_group!(benches, train_step, inference);
criterion_main!(benches);
