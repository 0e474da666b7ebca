//! One whole training step of an MLP with batch norm and ReLU: forward, cross-entropy, backward and SGD.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use support::random;
use treadle::ops::{self, BatchNormConfig, ClassLoss, Reduction};
use treadle::optim::Sgd;
use treadle::{Result, Tensor};

const TRAIN: BatchNormConfig = BatchNormConfig { training: true, momentum: Some(0.1), eps: 1e-5, unbiased: false, relu: true };
const LOSS: ClassLoss = ClassLoss { reduction: Reduction::Mean, label_smoothing: 0.0, ignore_index: -100 };
const SGD: Sgd = Sgd { lr: 0.01, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0, maximize: false };

/// d → h → h → 10.
struct Mlp(Vec<Tensor>);

impl Mlp {
    fn new(d: usize, h: usize) -> Mlp {
        let shapes: [&[usize]; 10] = [&[h, d], &[h], &[h], &[h], &[h, h], &[h], &[h], &[h], &[10, h], &[10]];
        Mlp(shapes.iter().enumerate().map(|(i, shape)| random(shape, 1 + i as u32).requiring_grad().expect("floats")).collect())
    }

    fn step(&mut self, x: &Tensor, target: &Tensor) -> Result<()> {
        let p = &self.0;
        let mut h = x.clone();
        for layer in p[..8].chunks(4) {
            h = ops::linear(&h, &layer[0], Some(&layer[1]))?;
            h = ops::batch_norm(&h, Some(&layer[2]), Some(&layer[3]), None, None, TRAIN)?.0;
        }
        let logits = ops::linear(&h, &p[8], Some(&p[9]))?;
        ops::cross_entropy(&logits, target, None, LOSS)?.backward(None, false, false)?;
        for p in &mut self.0 {
            let gradient = p.grad().expect("every parameter is used").into_array();
            SGD.update(p.array_mut(), &gradient, None, false)?;
            p.set_grad(None)?;
        }
        Ok(())
    }
}

fn train_step(c: &mut Criterion) {
    let mut group = c.benchmark_group("train_step");
    for [h, n, d] in [[32usize, 16, 16], [64, 32, 64], [128, 64, 784], [256, 128, 784], [512, 256, 784]] {
        let (x, mut mlp) = (random(&[n, d], 99), Mlp::new(d, h));
        let target: Vec<i64> = (0..n as i64).map(|i| i % 10).collect();
        let target = Tensor::from_slice(&[n], &target).expect("fits memory");
        group.bench_function(format!("hidden {h}, batch {n}, inputs {d}"), |b| b.iter(|| mlp.step(&x, &target)));
    }
    group.finish();
}

criterion_group!(benches, train_step);
criterion_main!(benches);
