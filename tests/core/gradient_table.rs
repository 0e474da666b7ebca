//! The table of gradients: every op, with inputs at which it is smooth. `gradients.rs` holds each row to finite differences.

use crate::support::uniform;
use treadle::array::{DType, Scalar, Slice};
use treadle::autograd::no_grad;
use treadle::kernels::random::Generator;
use treadle::ops::{self, Index, Reduction};
use treadle::{Result, Tensor};

type Function = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// An op, and inputs at which it is smooth.
pub struct Row {
    pub name: &'static str,
    pub function: Function,
    pub inputs: Vec<Tensor>,
}

fn row(name: &'static str, inputs: Vec<Tensor>, function: impl Fn(&[Tensor]) -> Result<Tensor> + 'static) -> Row {
    Row { name, function: Box::new(function), inputs }
}

/// One input of the shape (3, 4).
fn one(name: &'static str, low: f64, high: f64, f: impl Fn(&Tensor) -> Result<Tensor> + 'static) -> Row {
    row(name, vec![uniform(&[3, 4], low, high, 1)], move |x| f(&x[0]))
}

/// Two inputs that broadcast against each other.
fn two(name: &'static str, range: [f64; 2], f: impl Fn(&Tensor, &Tensor) -> Result<Tensor> + 'static) -> Row {
    let inputs = vec![uniform(&[2, 3, 1], range[0], range[1], 2), uniform(&[3, 4], range[0], range[1], 3)];
    row(name, inputs, move |x| f(&x[0], &x[1]))
}

pub fn ints(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::from_slice(shape, values).expect("a small tensor")
}

fn unary_rows() -> Vec<Row> {
    vec![
        one("exp", -2.0, 2.0, ops::exp),
        one("expm1", -2.0, 2.0, ops::expm1),
        one("log", 0.2, 3.0, ops::log),
        one("log1p", -0.7, 3.0, ops::log1p),
        one("sqrt", 0.2, 3.0, ops::sqrt),
        one("rsqrt", 0.2, 3.0, ops::rsqrt),
        one("square", -2.0, 2.0, ops::square),
        one("cube", -2.0, 2.0, ops::cube),
        one("fourth", -2.0, 2.0, ops::fourth),
        one("power", 0.5, 2.0, |x| ops::power(x, -2.0)),
        one("huber", -2.0, 2.0, |x| ops::huber(x, 0.8)),
        one("reciprocal", 0.3, 2.0, ops::reciprocal),
        one("tanh", -2.0, 2.0, ops::tanh),
        one("sigmoid", -3.0, 3.0, ops::sigmoid),
        one("relu", -2.0, 2.0, ops::relu),
        one("leaky_relu", -2.0, 2.0, |x| ops::leaky_relu(x, 0.1)),
        one("elu", -2.0, 2.0, |x| ops::elu(x, 1.3)),
        one("gelu", -3.0, 3.0, ops::gelu),
        one("silu", -3.0, 3.0, ops::silu),
        one("softplus", -3.0, 3.0, ops::softplus),
        one("log_sigmoid", -3.0, 3.0, ops::log_sigmoid),
        one("erf", -2.0, 2.0, ops::erf),
        one("sin", -3.0, 3.0, ops::sin),
        one("cos", -3.0, 3.0, ops::cos),
        one("neg", -2.0, 2.0, ops::neg),
        one("abs", -2.0, 2.0, ops::abs),
    ]
}

fn binary_rows() -> Vec<Row> {
    vec![
        two("add", [-2.0, 2.0], ops::add),
        two("sub", [-2.0, 2.0], ops::sub),
        two("mul", [-2.0, 2.0], ops::mul),
        two("div", [0.5, 2.0], ops::div),
        two("pow", [0.5, 2.0], ops::pow),
        two("pow by 2", [0.5, 2.0], |a, _| ops::pow(a, &ops::match_weak(Scalar::Float(2.0), a.dtype())?)),
        two("pow by -1.5", [0.5, 2.0], |a, _| ops::pow(a, &ops::match_weak(Scalar::Float(-1.5), a.dtype())?)),
        two("maximum", [-2.0, 2.0], ops::maximum),
        two("minimum", [-2.0, 2.0], ops::minimum),
        two("choose", [-2.0, 2.0], |a, b| ops::choose(&ops::greater(a, b)?.detach(), &ops::mul(a, b)?, b)),
        one("masked_fill", -2.0, 2.0, |x| ops::masked_fill(x, &ops::greater(x, &ops::sin(x)?)?, 0.5)),
        one("clip", -2.0, 2.0, |x| ops::clip(x, Some(Scalar::Float(-0.7)), Some(Scalar::Float(1.1)))),
    ]
}

fn reduction_rows() -> Vec<Row> {
    vec![
        one("sum", -2.0, 2.0, |x| ops::sum(x, Some(&[0]), false)),
        one("mean", -2.0, 2.0, |x| ops::mean(x, Some(&[-1]), true)),
        one("mean of all", -2.0, 2.0, |x| ops::mean(x, None, false)),
        one("var", -2.0, 2.0, |x| ops::var(x, Some(&[1]), false, 1.0)),
        row("var of long rows", vec![uniform(&[2, 4, 10], -2.0, 2.0, 1)], |x| ops::var(&ops::sin(&x[0])?, Some(&[2, 1]), true, 1.0)),
        one("std", -2.0, 2.0, |x| ops::std(x, Some(&[0]), false, 0.0)),
        one("prod", 0.3, 2.0, |x| ops::prod(x, Some(&[1]), false)),
        row("prod with zeros", vec![Tensor::from_slice(&[3, 3], &[0.0, 1.5, 2.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0]).unwrap()], |x| {
            ops::prod(&x[0], Some(&[1]), false)
        }),
        row("prod of outer axes", vec![uniform(&[3, 2, 4], 0.3, 2.0, 1)], |x| ops::prod(&x[0], Some(&[0, 2]), true)),
        row("prod of inner axes", vec![uniform(&[2, 3, 2, 3], 0.3, 2.0, 1)], |x| ops::prod(&x[0], Some(&[1, 2]), false)),
        one("max", -2.0, 2.0, |x| ops::max(x, Some(&[1]), false)),
        one("min", -2.0, 2.0, |x| ops::min(x, None, false)),
        one("logsumexp", -2.0, 2.0, |x| ops::logsumexp(x, Some(&[0]), false)),
        one("softmax", -2.0, 2.0, |x| ops::softmax(x, -1)),
        one("softmax of columns", -2.0, 2.0, |x| ops::softmax(x, 0)),
        one("log_softmax", -2.0, 2.0, |x| ops::log_softmax(x, 1)),
    ]
}

fn shape_rows() -> Vec<Row> {
    vec![
        one("reshape", -2.0, 2.0, |x| ops::reshape(x, &[2, -1])),
        one("flatten", -2.0, 2.0, |x| ops::flatten(x, 0, -1)),
        one("permute", -2.0, 2.0, |x| ops::permute(x, &[1, 0])),
        one("transpose", -2.0, 2.0, |x| Ok(ops::transpose(x))),
        one("swapaxes", -2.0, 2.0, |x| ops::swapaxes(x, 0, 1)),
        one("broadcast_to", -2.0, 2.0, |x| ops::broadcast_to(x, &[2, 3, 4])),
        one("squeeze", -2.0, 2.0, |x| ops::squeeze(&ops::unsqueeze(x, 1)?, Some(&[1]))),
        one("unsqueeze", -2.0, 2.0, |x| ops::unsqueeze(x, -1)),
        one("flip", -2.0, 2.0, |x| ops::flip(x, Some(&[1]))),
        one("slice", -2.0, 2.0, |x| ops::slice(x, &[Slice { start: 0, step: 1, len: 2 }, Slice { start: 3, step: -2, len: 2 }])),
        one("narrow", -2.0, 2.0, |x| ops::narrow(x, 1, 1, 2)),
        two("concatenate", [-2.0, 2.0], |a, b| ops::concatenate(&[ops::reshape(a, &[6])?, ops::reshape(b, &[12])?], 0)),
        two("stack", [-2.0, 2.0], |a, b| ops::stack(&[ops::broadcast_to(a, &[2, 3, 4])?, ops::broadcast_to(b, &[2, 3, 4])?], 1)),
        one("split", -2.0, 2.0, |x| {
            let parts = ops::split(x, &[1, 3], 1)?;
            ops::mul(&parts[0], &parts[1])
        }),
        one("cast", -2.0, 2.0, |x| ops::cast(&ops::square(x)?, DType::F64)),
        one("get", -2.0, 2.0, |x| ops::get(x, &[Index::Array(ints(&[4], &[2, 0, 2, -1]))])),
        two("set", [-2.0, 2.0], |a, b| ops::set(&ops::broadcast_to(a, &[2, 3, 4])?, &[Index::Int(1), Index::Ellipsis], &ops::square(b)?)),
        two("set where a place comes twice", [-2.0, 2.0], |a, b| {
            ops::set(&ops::broadcast_to(a, &[2, 3, 4])?, &[Index::Int(0), Index::Array(ints(&[3], &[2, 0, 2]))], &ops::square(b)?)
        }),
        one("take", -2.0, 2.0, |x| ops::take(x, &ints(&[2, 2], &[0, 3, 3, 1]), 1)),
        two("index_add", [-2.0, 2.0], |a, b| ops::index_add(&ops::broadcast_to(a, &[2, 3, 4])?, &ints(&[2], &[1, 1]), &ops::broadcast_to(b, &[2, 3, 4])?, 0)),
        one("gather", -2.0, 2.0, |x| ops::gather(x, &ints(&[3, 2], &[0, 3, 1, 1, 2, 0]), 1)),
    ]
}

fn product_rows() -> Vec<Row> {
    let inputs = |shapes: &[&[usize]]| shapes.iter().enumerate().map(|(i, s)| uniform(s, -1.5, 1.5, 20 + i as u64)).collect::<Vec<_>>();
    vec![
        row("matmul", inputs(&[&[3, 4], &[4, 5]]), |x| ops::matmul(&x[0], &x[1])),
        row("matmul in batches", inputs(&[&[2, 1, 3, 4], &[5, 4, 2]]), |x| ops::matmul(&x[0], &x[1])),
        row("matmul of a batch by a matrix", inputs(&[&[2, 5, 3, 4], &[4, 2]]), |x| ops::matmul(&x[0], &x[1])),
        row("matmul of a matrix by a batch", inputs(&[&[3, 4], &[2, 5, 4, 2]]), |x| ops::matmul(&x[0], &x[1])),
        row("matmul of vectors", inputs(&[&[4], &[4]]), |x| ops::matmul(&x[0], &x[1])),
        row("matmul of a vector", inputs(&[&[2, 3, 4], &[4]]), |x| ops::matmul(&x[0], &x[1])),
        row("linear", inputs(&[&[5, 4], &[3, 4], &[3]]), |x| ops::linear(&x[0], &x[1], Some(&x[2]))),
        row("linear in batches", inputs(&[&[2, 5, 4], &[3, 4]]), |x| ops::linear(&x[0], &x[1], None)),
        row("linear_relu", inputs(&[&[5, 4], &[3, 4], &[3]]), |x| ops::linear_relu(&x[0], &x[1], Some(&x[2]))),
        row("linear_relu in batches", inputs(&[&[2, 5, 4], &[3, 4]]), |x| ops::linear_relu(&x[0], &x[1], None)),
        row("embedding", inputs(&[&[6, 3]]), |x| ops::embedding(&ints(&[2, 2], &[5, 0, 2, 5]), &x[0], None)),
        row("custom", inputs(&[&[3, 4]]), |x| {
            let (y, saved) = (no_grad(|| ops::mul(&x[0], &x[0]))?, x[0].clone());
            let backward = move |dy: &Tensor, _: Option<Tensor>| Ok(vec![Some(ops::mul(dy, &ops::add(&saved, &saved)?)?)]);
            Ok(ops::custom(&y, &x[..1], false, std::sync::Arc::new(backward)))
        }),
        row("checkpoint", inputs(&[&[3, 4], &[5, 4]]), |x| {
            let w = x[1].clone();
            let f = move |x: &[Tensor]| ops::tanh(&ops::linear(&x[0], &w, None)?);
            ops::checkpoint(std::sync::Arc::new(f), &x[..1])
        }),
    ]
}

fn norm_rows() -> Vec<Row> {
    let train = ops::BatchNormConfig { training: true, momentum: Some(0.1), eps: 1e-3, unbiased: false, relu: false };
    let inputs = |shape: &[usize]| {
        let c = shape[1];
        vec![uniform(shape, -2.0, 2.0, 31), uniform(&[c], 0.5, 1.5, 32), uniform(&[c], -1.0, 1.0, 33)]
    };
    let trailing = |shape: &[usize]| vec![uniform(shape, -2.0, 2.0, 35), uniform(&[3], 0.5, 1.5, 36), uniform(&[3], -1.0, 1.0, 37)];
    let with = |config: ops::BatchNormConfig| move |x: &[Tensor]| Ok(ops::batch_norm(&x[0], Some(&x[1]), Some(&x[2]), None, None, config)?.0);
    let masked = move |x: &[Tensor]| {
        let mask = Tensor::from_slice(&[4], &[true, false, true, true])?;
        Ok(ops::batch_norm(&x[0], Some(&x[1]), Some(&x[2]), None, Some(&mask), train)?.0)
    };
    let eval = move |x: &[Tensor]| {
        let mut mean = uniform(&[3], -1.0, 1.0, 40).into_array();
        let mut var = uniform(&[3], 0.5, 1.5, 41).into_array();
        let running = ops::Running { mean: &mut mean, var: &mut var, batches: None };
        Ok(ops::batch_norm(&x[0], Some(&x[1]), Some(&x[2]), Some(running), None, ops::BatchNormConfig { training: false, ..train })?.0)
    };
    vec![
        row("batch_norm", inputs(&[6, 3]), with(train)),
        row("batch_norm (N, C, L)", inputs(&[2, 3, 5]), with(train)),
        row("batch_norm, then relu", inputs(&[6, 3]), with(ops::BatchNormConfig { relu: true, ..train })),
        row("batch_norm with a mask", inputs(&[4, 3]), masked),
        row("batch_norm in eval", inputs(&[5, 3]), eval),
        row("layer_norm", trailing(&[2, 4, 3]), |x| ops::layer_norm(&x[0], &[3], Some(&x[1]), Some(&x[2]), 1e-3)),
        row("rms_norm", trailing(&[4, 3])[..2].to_vec(), |x| ops::rms_norm(&x[0], &[3], Some(&x[1]), 1e-3)),
        row("group_norm", inputs(&[2, 4, 3]), |x| ops::group_norm(&x[0], 2, Some(&x[1]), Some(&x[2]), 1e-3)),
        row("dropout", vec![uniform(&[4, 3], -2.0, 2.0, 34)], |x| ops::dropout(&ops::square(&x[0])?, 0.4, &mut Generator::new(9))),
    ]
}

fn loss_rows() -> Vec<Row> {
    let pair = || vec![uniform(&[4, 3], -2.0, 2.0, 50), uniform(&[4, 3], 0.1, 0.9, 51)];
    let logits = || vec![uniform(&[4, 3], -2.0, 2.0, 52)];
    let how = |label_smoothing, reduction| ops::ClassLoss { reduction, label_smoothing, ignore_index: -100 };
    vec![
        row("mse_loss", pair(), |x| ops::mse_loss(&x[0], &x[1], Reduction::Mean)),
        row("l1_loss", pair(), |x| ops::l1_loss(&x[0], &x[1], Reduction::Sum)),
        row("huber_loss", pair(), |x| ops::huber_loss(&x[0], &x[1], 0.8, Reduction::None)),
        row("bce_with_logits", pair(), |x| ops::bce_with_logits(&x[0], &x[1], None, None, Reduction::Mean)),
        row("cross_entropy", logits(), move |x| ops::cross_entropy(&x[0], &ints(&[4], &[2, 0, -100, 1]), None, how(0.0, Reduction::Mean))),
        row("cross_entropy, smoothed and weighted", logits(), move |x| {
            let weight = Tensor::from_slice(&[3], &[0.5, 1.0, 2.0])?;
            ops::cross_entropy(&x[0], &ints(&[4], &[2, 0, 1, 1]), Some(&weight), how(0.1, Reduction::None))
        }),
        row("cross_entropy of probabilities", pair(), move |x| ops::cross_entropy(&x[0], &x[1], None, how(0.0, Reduction::Sum))),
        row("nll_loss", logits(), move |x| ops::nll_loss(&ops::log_softmax(&x[0], 1)?, &ints(&[4], &[2, 0, 1, 1]), None, how(0.0, Reduction::Mean))),
    ]
}

pub fn table() -> Vec<Row> {
    [unary_rows(), binary_rows(), reduction_rows(), shape_rows(), product_rows(), norm_rows(), loss_rows()].into_iter().flatten().collect()
}
