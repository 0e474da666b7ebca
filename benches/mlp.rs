//! The network that is measured, d → h → h → 10 with batch norm and ReLU, as its Python layers call the core.

use crate::support::random;
use treadle::array::{Array, DType};
use treadle::autograd::no_grad;
use treadle::ops::{self, BatchNormConfig, ClassLoss, Reduction, Running};
use treadle::optim::{Adam, Sgd};
use treadle::{Result, Tensor};

const NORM: BatchNormConfig = BatchNormConfig { training: true, momentum: Some(0.1), eps: 1e-5, unbiased: false, relu: true };
const LOSS: ClassLoss = ClassLoss { reduction: Reduction::Mean, label_smoothing: 0.0, ignore_index: -100 };
const SGD: Sgd = Sgd { lr: 0.01, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0, maximize: false };
const ADAM: Adam = Adam { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, decoupled: false, maximize: false };

/// Parameters, running statistics (mean and variance of each norm), and Adam's moments where it is Adam that updates.
pub struct Mlp {
    parameters: Vec<Tensor>,
    running: Vec<[Array; 2]>,
    moments: Option<Vec<[Array; 2]>>,
    steps: u64,
}

impl Mlp {
    pub fn new(d: usize, h: usize, adam: bool) -> Mlp {
        let shapes: [&[usize]; 10] = [&[h, d], &[h], &[h], &[h], &[h, h], &[h], &[h], &[h], &[10, h], &[10]];
        let parameters = shapes.iter().enumerate().map(|(i, shape)| random(shape, 1 + i as u32).requiring_grad().expect("floats")).collect();
        let zeros = |shape: &[usize]| Array::zeros(shape, DType::F32).expect("fits memory");
        let ones = || Array::from_slice(&[h], &vec![1.0f32; h]).expect("fits memory");
        let running = (0..2).map(|_| [zeros(&[h]), ones()]).collect();
        let moments = adam.then(|| shapes.iter().map(|shape| [zeros(shape), zeros(shape)]).collect());
        Mlp { parameters, running, moments, steps: 0 }
    }

    fn logits(&mut self, x: &Tensor, training: bool) -> Result<Tensor> {
        let p = &self.parameters;
        let mut h = x.clone();
        for (layer, [mean, var]) in p[..8].chunks(4).zip(&mut self.running) {
            h = ops::linear(&h, &layer[0], Some(&layer[1]))?;
            let running = Running { mean, var, batches: None };
            h = ops::batch_norm(&h, Some(&layer[2]), Some(&layer[3]), Some(running), None, BatchNormConfig { training, ..NORM })?.0;
        }
        ops::linear(&h, &p[8], Some(&p[9]))
    }

    /// One training step.
    pub fn step(&mut self, x: &Tensor, target: &Tensor) -> Result<()> {
        ops::cross_entropy(&self.logits(x, true)?, target, None, LOSS)?.backward(None, false, false)?;
        self.steps += 1;
        for (i, p) in self.parameters.iter_mut().enumerate() {
            let gradient = p.grad().expect("every parameter is used").into_array();
            match &mut self.moments {
                None => SGD.update(p.array_mut(), &gradient, None, false)?,
                Some(moments) => {
                    let [m, v] = &mut moments[i];
                    ADAM.update(p.array_mut(), &gradient, m, v, self.steps)?;
                }
            }
            p.set_grad(None)?;
        }
        Ok(())
    }

    /// A forward in evaluation.
    pub fn infer(&mut self, x: &Tensor) -> Result<Tensor> {
        no_grad(|| self.logits(x, false))
    }
}

/// Labels 0 to 9 in turn.
pub fn labels(n: usize) -> Tensor {
    let labels: Vec<i64> = (0..n as i64).map(|i| i % 10).collect();
    Tensor::from_slice(&[n], &labels).expect("fits memory")
}
