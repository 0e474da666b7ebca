//! Batch norm: forward in training, forward and backward, over the shapes of the contract, as bytes a second; a table at the end
//! holds them against copies of the same array, by one thread and by all, measured by turns with them.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use std::hint::black_box;
use std::time::Instant;
use support::random;
use treadle::autograd::no_grad;
use treadle::kernels::parallel;
use treadle::ops::{self, BatchNormConfig};
use treadle::{Result, Tensor};

const TRAIN: BatchNormConfig = BatchNormConfig { training: true, momentum: Some(0.1), eps: 1e-5, unbiased: false, relu: false };
const SHAPES: &[&[usize]] = &[&[32, 64], &[64, 128], &[128, 256], &[1024, 512], &[8192, 512], &[65536, 64], &[64, 16384], &[4096, 4096], &[64, 64, 256]];
/// Bytes per element: forward reads twice and writes once, backward reads four times and writes once.
const FORWARD: usize = 4 * 3;
const BOTH: usize = FORWARD + 4 * 5;
const ROUNDS: usize = 15;
/// Bytes that one sample moves at least, so that a clock's tick and the waking of threads do not count.
const SAMPLE: usize = 32 << 20;

struct Layer {
    x: Tensor,
    dy: Tensor,
    w: Tensor,
    b: Tensor,
}

impl Layer {
    fn new(shape: &[usize]) -> Layer {
        let leaf = |shape: &[usize], seed| random(shape, seed).requiring_grad().expect("floats");
        Layer { x: leaf(shape, 1), dy: random(shape, 2), w: leaf(&shape[1..2], 3), b: leaf(&shape[1..2], 4) }
    }

    fn forward(&self) -> Result<Tensor> {
        Ok(no_grad(|| ops::batch_norm(&self.x, Some(&self.w), Some(&self.b), None, None, TRAIN))?.0)
    }

    fn both(&self) -> Result<()> {
        [&self.x, &self.w, &self.b].into_iter().try_for_each(|t| t.set_grad(None))?;
        let (y, _) = ops::batch_norm(&self.x, Some(&self.w), Some(&self.b), None, None, TRAIN)?;
        y.backward(Some(self.dy.clone()), false, false)
    }
}

fn batch_norm(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch_norm");
    group.sample_size(30);
    for shape in SHAPES {
        let (layer, label) = (Layer::new(shape), format!("{shape:?}"));
        group.throughput(Throughput::Bytes((FORWARD * layer.x.size()) as u64));
        group.bench_function(BenchmarkId::new("forward", &label), |bench| bench.iter(|| layer.forward()));
        group.throughput(Throughput::Bytes((BOTH * layer.x.size()) as u64));
        group.bench_function(BenchmarkId::new("forward and backward", &label), |bench| bench.iter(|| layer.both()));
    }
    group.finish();
}

/// Bytes a second of one sample: `work`, which moves `bytes`, as often as it is told.
fn rate(bytes: usize, work: impl FnOnce(usize)) -> f64 {
    let repeats = SAMPLE.div_ceil(bytes);
    let started = Instant::now();
    work(repeats);
    (bytes * repeats) as f64 / started.elapsed().as_secs_f64()
}

fn copy(source: &[f32], target: &mut [f32], repeats: usize) {
    (0..repeats).for_each(|_| black_box(&mut *target).copy_from_slice(black_box(source)));
}

/// Every thread copies its part over and over, without waiting for the others.
fn copy_all(source: &[f32], target: &mut [f32], repeats: usize) {
    let part = source.len().div_ceil(parallel::num_threads());
    std::thread::scope(|scope| {
        for (target, source) in target.chunks_mut(part).zip(source.chunks(part)) {
            scope.spawn(move || copy(source, target, repeats));
        }
    });
}

/// Medians over rounds of every work by turns, the table's row for one shape.
fn compared(shape: &[usize]) -> [f64; 4] {
    let layer = Layer::new(shape);
    let n = layer.x.size();
    let (source, mut target) = (vec![1.0f32; n], vec![0.0f32; n]);
    let mut samples: [Vec<f64>; 4] = Default::default();
    for _ in 0..=ROUNDS {
        samples[0].push(rate(FORWARD * n, |repeats| (0..repeats).for_each(|_| drop(black_box(layer.forward())))));
        samples[1].push(rate(BOTH * n, |repeats| (0..repeats).for_each(|_| drop(black_box(layer.both())))));
        samples[2].push(rate(8 * n, |repeats| copy(&source, &mut target, repeats)));
        samples[3].push(rate(8 * n, |repeats| copy_all(&source, &mut target, repeats)));
    }
    samples.map(|mut sample| {
        let sample = &mut sample[1..];
        sample.sort_by(f64::total_cmp);
        sample[sample.len() / 2]
    })
}

fn shares() {
    println!("\nGB/s; in brackets of the copy with all threads");
    println!("{:>16} {:>18} {:>24} {:>12} {:>18}", "shape", "forward", "forward and backward", "copy, one", "copy, all threads");
    for shape in SHAPES {
        let [forward, both, one, all] = compared(shape);
        let share = |rate: f64| format!("{:.1} ({:.0}%)", rate / 1e9, 100.0 * rate / all);
        println!("{:>16} {:>18} {:>24} {:>12.1} {:>18.1}", format!("{shape:?}"), share(forward), share(both), one / 1e9, all / 1e9);
    }
}

criterion_group!(benches, batch_norm);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    shares();
}
