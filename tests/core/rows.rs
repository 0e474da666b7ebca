//! Kernels and ops over rows: fused against composed, gradients of first and second order, threads, edges and errors.

use crate::rows_cases::{Case, Op, all_cases, cross_entropies, group_norms, labels, norms, softmaxes};
use crate::support::{alone, assert_close, bits, directions, elements, moved, relaid, settled, uniform};
use treadle::array::{Array, DType};
use treadle::autograd::grad;
use treadle::kernels::{parallel, rows};
use treadle::ops::{self, ClassLoss, Reduction};
use treadle::{Error, Result, Tensor};

/// Value and first-order gradients of all inputs, for a fixed random cotangent.
fn run(op: &Op, inputs: &[Tensor], seed: u64) -> Result<Vec<Tensor>> {
    let leaves: Vec<Tensor> = inputs.iter().map(Tensor::requiring_grad).collect::<Result<_>>()?;
    let y = op(&leaves)?;
    let cotangent = ops::cast(&uniform(y.shape(), -1.0, 1.0, seed), y.dtype())?;
    let grads = grad(std::slice::from_ref(&y), &leaves, Some(&[Some(cotangent)]), false, false)?;
    Ok(std::iter::once(y.detach()).chain(grads.into_iter().map(|g| g.expect("every input is used"))).collect())
}

fn values(tensors: &[Tensor]) -> Vec<Vec<f64>> {
    tensors.iter().map(|t| elements(t.array())).collect()
}

fn compare(case: &Case, inputs: &[Tensor], tolerance: f64) {
    let widened: Vec<Tensor> = inputs.iter().map(|x| ops::cast(x, DType::F64).expect("a cast")).collect();
    let got = values(&run(&case.fused, inputs, 3).expect(&case.name));
    let want = values(&run(&case.composed, &widened, 3).expect(&case.name));
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        assert_close(&format!("{} output {i}", case.name), got, want, tolerance);
    }
}

#[test]
fn fused_agrees_with_composed() {
    for case in all_cases() {
        compare(&case, &case.inputs, 1e-12);
        let narrow: Vec<Tensor> = case.inputs.iter().map(|x| ops::cast(x, DType::F32).expect("a cast")).collect();
        compare(&case, &narrow, 1e-6);
    }
}

#[test]
fn layouts_do_not_matter() {
    let _settled = settled();
    for (seed, case) in all_cases().into_iter().enumerate().filter(|(_, case)| case.inputs[0].size() > 0) {
        let strided: Vec<Tensor> = case.inputs.iter().map(|x| relaid(x, seed as u64 + 1)).collect();
        let (a, b) = (run(&case.fused, &case.inputs, 4).unwrap(), run(&case.fused, &strided, 4).unwrap());
        a.iter().zip(&b).for_each(|(a, b)| assert_eq!(bits(a), bits(b), "{}", case.name));
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let _alone = alone();
    for (n, c) in [(20_000, 10), (3_000, 32), (700, 333), (40, 9000)] {
        let groups = group_norms(&[(&[n / 4, 4, c], 2), (&[n, c / 2 * 2], 2)]);
        for case in softmaxes(n, c).into_iter().chain(norms(n, c)).chain(cross_entropies(n, c)).chain(groups) {
            let inputs: Vec<Tensor> = case.inputs.iter().map(|x| ops::cast(x, DType::F32).unwrap()).collect();
            let mut first: Option<Vec<Vec<u64>>> = None;
            for threads in [1, 2, 3, 8] {
                parallel::set_num_threads(threads);
                let got: Vec<Vec<u64>> = run(&case.fused, &inputs, 5).unwrap().iter().map(bits).collect();
                assert_eq!(*first.get_or_insert_with(|| got.clone()), got, "{} with {threads} threads", case.name);
            }
        }
    }
}

/// All that the kernels make of rows as long as `w`.
fn made_of(x: &[f32], dy: &[f32], w: &[f32]) -> Vec<Vec<f32>> {
    let c = w.len();
    let (n, mut stats, mut moments) = (x.len() / c, vec![[0.0; 2]; x.len() / c], vec![[0.0; 3]; x.len() / c]);
    let target: Vec<i64> = (0..n).map(|r| (x[r * c].to_bits() as usize % c) as i64).collect();
    let classes = rows::Classes { target: &target, weight: None, smoothing: 0.1, ignore: 3 };
    let norm = rows::Norm { weight: Some(w), bias: Some(w), groups: 1, l: 1, eps: 1e-5, centred: true };
    let mut made = vec![vec![0.0; x.len()]; 7];
    let [p, dp, log_p, dlog_p, dx, y, dy_of] = &mut made[..] else { unreachable!() };
    rows::softmax(x, c, p);
    rows::softmax_backward(p, dy, c, dp);
    rows::log_softmax(x, c, log_p);
    rows::log_softmax_backward(log_p, dy, c, dlog_p);
    let mut losses = vec![0.0; n];
    rows::cross_entropy(x, c, &classes, &mut losses, &mut stats);
    rows::cross_entropy_backward(x, c, &classes, rows::Scale::All(0.5), &stats, dx);
    rows::norm(x, c, &norm, y, &mut moments);
    rows::norm_backward(x, dy, c, &norm, &moments, dy_of, false);
    made.extend([losses, stats.concat(), moments.concat()]);
    made
}

#[test]
fn rows_from_afar_are_as_those_that_are_near() {
    let _settled = settled();
    for (n, c) in [(30_000, 10), (9_001, 33), (3_001, 100), (701, 512), (601, 513)] {
        let values = |n: usize, seed| -> Vec<f32> { elements(uniform(&[n * c], -3.0, 3.0, seed).array()).iter().map(|&x| x as f32).collect() };
        let (x, dy, w) = (values(n, 51), values(n, 52), values(1, 53));
        let whole = made_of(&x, &dy, &w);
        let mut parts = vec![Vec::new(); whole.len()];
        for (x, dy) in x.chunks(50 * c).zip(dy.chunks(50 * c)) {
            made_of(x, dy, &w).into_iter().zip(&mut parts).for_each(|(made, all)| all.extend(made));
        }
        for (i, (a, b)) in whole.iter().zip(&parts).enumerate() {
            assert!(a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits())), "result {i} of ({n}, {c})");
        }
    }
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    elements(a.array()).iter().zip(elements(b.array())).map(|(a, b)| a * b).sum()
}

/// ⟨f'(x)ᵀ u, d⟩ as a tensor that can be differentiated again.
fn slope(op: &Op, leaves: &[Tensor], u: &Tensor, d: &[Tensor]) -> Tensor {
    let y = op(leaves).unwrap();
    let grads = grad(&[y], leaves, Some(&[Some(u.clone())]), true, true).unwrap();
    let terms = grads.into_iter().zip(d).map(|(g, d)| ops::sum(&ops::mul(&g.unwrap(), d).unwrap(), None, false).unwrap());
    terms.reduce(|a, b| ops::add(&a, &b).unwrap()).unwrap()
}

#[test]
fn gradients_agree_with_differences() {
    const H: f64 = 1e-4;
    let small = |case: &Case| (1..=400).contains(&case.inputs[0].size());
    for case in all_cases().into_iter().filter(small) {
        let (name, x) = (&case.name, &case.inputs);
        let (d, e) = (directions(x, 20), directions(x, 30));
        let value = |h: f64| (case.fused)(&moved(x, &d, h)).unwrap();
        let u = uniform(value(0.0).shape(), -1.0, 1.0, 40);
        let first = (dot(&value(H), &u) - dot(&value(-H), &u)) / (2.0 * H);
        let grads = run(&case.fused, x, 40).unwrap();
        let got: f64 = grads[1..].iter().zip(&d).map(|(g, d)| dot(g, d)).sum();
        assert_close(&format!("{name}: first order"), &[got], &[first], 1e-6);

        let leaves_at = |h: f64| -> Vec<Tensor> { moved(x, &e, h).iter().map(|x| x.requiring_grad().unwrap()).collect() };
        let slope_at = |h: f64| slope(&case.fused, &leaves_at(h), &u, &d).item().unwrap();
        let leaves = leaves_at(0.0);
        let s = slope(&case.fused, &leaves, &u, &d);
        assert_close(&format!("{name}: recorded first order"), &[s.item().unwrap()], &[got], 1e-9);
        let got: f64 = match s.requires_grad() {
            true => grad(&[s], &leaves, None, false, false).unwrap().iter().zip(&e).map(|(g, e)| g.as_ref().map_or(0.0, |g| dot(g, e))).sum(),
            false => 0.0,
        };
        let second = (slope_at(H) - slope_at(-H)) / (2.0 * H);
        assert_close(&format!("{name}: second order"), &[got], &[second], 1e-5);
    }
}

#[test]
fn an_offset_costs_no_precision() {
    let eps = 1e-5;
    for (n, c) in [(50, 10), (20, 32), (8, 768), (2, 20_000)] {
        // What float32 holds of values around 1000 is the input; float64 of the same values is the truth.
        let x = ops::cast(&uniform(&[n, c], 999.0, 1001.0, 17), DType::F32).unwrap();
        let wide = ops::cast(&x, DType::F64).unwrap();
        let pairs = [
            (ops::layer_norm(&x, &[c], None, None, eps), ops::layer_norm::composed(&wide, 1, None, None, eps, true)),
            (ops::rms_norm(&x, &[c], None, eps), ops::layer_norm::composed(&wide, 1, None, None, eps, false)),
            (ops::softmax(&x, 1), ops::softmax(&wide, 1)),
            (ops::log_softmax(&x, 1), ops::log_softmax(&wide, 1)),
        ];
        for (got, want) in pairs {
            assert_close(&format!("({n}, {c})"), &elements(got.unwrap().array()), &elements(want.unwrap().array()), 1e-6);
        }
    }
}

#[test]
fn infinities_and_nan_stay_in_their_row() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    for c in [3, 40] {
        let mut values = vec![0.0; 4 * c];
        values[0] = -inf;
        values[c] = inf;
        values[2 * c] = nan;
        values[3 * c..].fill(-inf);
        let x = Tensor::from_slice(&[4, c], &values).unwrap();
        let p = elements(ops::softmax(&x, 1).unwrap().array());
        assert_close("a masked class", &p[..c], &[vec![0.0], vec![1.0 / (c - 1) as f64; c - 1]].concat(), 1e-15);
        assert!(p[c..].iter().all(|p| p.is_nan()), "an infinite logit, NaN, and rows of nothing but -inf");
        let target = Tensor::from_slice(&[4], &[1i64, -1, -1, -1]).unwrap();
        let how = ClassLoss { reduction: Reduction::Sum, label_smoothing: 0.0, ignore_index: -1 };
        let leaf = x.requiring_grad().unwrap();
        let loss = ops::cross_entropy(&leaf, &target, None, how).unwrap();
        assert_close("ignored rows", &[loss.item().unwrap()], &[((c - 1) as f64).ln()], 1e-15);
        loss.backward(None, false, false).unwrap();
        let dx = elements(leaf.grad().unwrap().array());
        assert!(dx[..c].iter().all(|d| d.is_finite()) && dx[c..].iter().all(|&d| d == 0.0), "gradients of ignored rows are zero");
    }
    let y = ops::layer_norm(&Tensor::from_slice(&[2, 2], &[1.0, nan, 1.0, 2.0]).unwrap(), &[2], None, None, 0.0).unwrap();
    let y = elements(y.array());
    assert!(y[0].is_nan() && y[1].is_nan() && y[2..] == [-1.0, 1.0]);
}

#[test]
fn every_row_ignored_is_a_mean_of_nothing() {
    let x = uniform(&[3, 4], -1.0, 1.0, 18);
    let target = Tensor::from_slice(&[3], &[7i64; 3]).unwrap();
    let how = ClassLoss { reduction: Reduction::Mean, label_smoothing: 0.0, ignore_index: 7 };
    assert!(ops::cross_entropy(&x, &target, None, how).unwrap().item().unwrap().is_nan());
}

#[test]
fn class_weights_may_want_a_gradient() {
    let (x, target) = (uniform(&[6, 4], -1.0, 1.0, 19), labels(6, 4, 20));
    let weight = uniform(&[4], 0.5, 2.0, 21).requiring_grad().unwrap();
    let how = ClassLoss { reduction: Reduction::Mean, label_smoothing: 0.1, ignore_index: -100 };
    ops::cross_entropy(&x, &target, Some(&weight), how).unwrap().backward(None, false, false).unwrap();
    assert!(weight.grad().is_some());
}

#[test]
fn probabilities_agree_with_class_numbers() {
    let (x, target) = (uniform(&[6, 4], -1.0, 1.0, 22), Tensor::from_slice(&[6], &[0i64, 1, 2, 3, 3, 1]).unwrap());
    let p = ops::one_hot(&target, Some(4), DType::F64).unwrap();
    for label_smoothing in [0.0, 0.2] {
        let how = ClassLoss { reduction: Reduction::Mean, label_smoothing, ignore_index: -100 };
        let [a, b] = [&target, &p].map(|t| ops::cross_entropy(&x, t, None, how).unwrap().item().unwrap());
        assert_close("cross_entropy", &[a], &[b], 1e-14);
    }
}

fn message<T>(result: Result<T>) -> String {
    match result.map(|_| ()).unwrap_err() {
        Error::Value(m) => format!("value: {m}"),
        Error::Type(m) => format!("type: {m}"),
        Error::Index(m) => format!("index: {m}"),
        other => panic!("unexpected kind: {other}"),
    }
}

#[test]
fn errors_name_both_facts() {
    let x = uniform(&[4, 10], -1.0, 1.0, 23);
    let ints = Tensor::constant(Array::zeros(&[4, 10], DType::I64).unwrap());
    let how = ClassLoss { reduction: Reduction::Mean, label_smoothing: 0.0, ignore_index: -100 };
    let classes = |t: &[i64]| ops::cross_entropy(&x, &Tensor::from_slice(&[t.len()], t).unwrap(), None, how);
    let cases = [
        (message(classes(&[0, -100, 9, 10])), "index: cross_entropy: expected class numbers in [0, 10), got 10 at position 3"),
        (message(classes(&[-1, 0, 0, 0])), "index: cross_entropy: expected class numbers in [0, 10), got -1 at position 0"),
        (message(classes(&[0, 0])), "value: cross_entropy: expected a target of shape (4,), got (2,)"),
        (message(ops::cross_entropy(&ints, &ints, None, how)), "type: cross_entropy: expected float scores, got int64"),
        (message(ops::layer_norm(&x, &[4], None, None, 1e-5)), "value: layer_norm: expected trailing shape (4,), got shape (4, 10)"),
        (message(ops::layer_norm(&x, &[], None, None, 1e-5)), "value: layer_norm: expected a normalized_shape of at least one axis, got ()"),
        (message(ops::layer_norm(&x, &[10], None, Some(&x), 1e-5)), "value: layer_norm: expected a bias of shape (10,), got (4, 10)"),
        (message(ops::layer_norm(&x, &[10], None, None, -1.0)), "value: layer_norm: expected eps of at least 0, got -1"),
        (message(ops::rms_norm(&ints, &[10], None, 1e-5)), "type: rms_norm: expected float32 or float64, got int64"),
        (message(ops::group_norm(&x, 3, None, None, 1e-5)), "value: group_norm: expected channels that divide into 3 groups, got 10 in shape (4, 10)"),
        (message(ops::softmax(&uniform(&[3, 0], 0.0, 1.0, 1), 1)), "value: softmax: expected at least one element along axis 1, got shape (3, 0)"),
    ];
    for (got, want) in cases {
        assert_eq!(got, want);
    }
}
