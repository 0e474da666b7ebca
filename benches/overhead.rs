//! What an operation costs beside its arithmetic: tiny tensors, forward and backward.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use support::random;
use treadle::autograd::no_grad;
use treadle::ops;

fn forward(c: &mut Criterion) {
    let (x, y) = (random(&[4], 1), random(&[4], 2));
    c.bench_function("add, 4 elements", |b| b.iter(|| ops::add(black_box(&x), black_box(&y))));
    let m = random(&[4, 4], 3);
    c.bench_function("matmul, 4 by 4", |b| b.iter(|| ops::matmul(black_box(&m), black_box(&m))));
    c.bench_function("sum, 16 elements", |b| b.iter(|| ops::sum(black_box(&m), None, false)));
}

fn recorded(c: &mut Criterion) {
    let x = random(&[4], 1).requiring_grad().expect("floats");
    c.bench_function("exp recorded, 4 elements", |b| b.iter(|| ops::exp(black_box(&x))));
    c.bench_function("chain of 100 ops, forward and backward", |b| {
        b.iter(|| {
            let mut y = x.clone();
            for _ in 0..100 {
                y = ops::tanh(&y)?;
            }
            x.set_grad(None)?;
            ops::sum(&y, None, false)?.backward(None, false, false)
        })
    });
    c.bench_function("chain of 100 ops, not recorded", |b| {
        b.iter(|| {
            no_grad(|| {
                let mut y = x.clone();
                for _ in 0..100 {
                    y = ops::tanh(&y)?;
                }
                treadle::Result::Ok(y)
            })
        })
    });
}

criterion_group!(benches, forward, recorded);
criterion_main!(benches);
