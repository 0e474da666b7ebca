//! First and second derivatives of every op against finite differences, by table.
//!
//! Each check is in float64, in a random direction, for a random cotangent, with inputs in random layouts, so that it costs
//! a few forwards whatever the size and no expected gradient is zero by construction.

use crate::gradient_table::{Row, ints, table};
use crate::support::{Noise, assert_close, bits, directions, elements, indices, moved, relaid, uniform};
use treadle::array::DType;
use treadle::autograd;
use treadle::ops;
use treadle::{Result, Tensor};

fn leaves(inputs: &[Tensor]) -> Vec<Tensor> {
    inputs.iter().map(|x| x.requiring_grad().expect("floats")).collect()
}

fn dot(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    ops::sum(&ops::mul(a, b)?, None, false)
}

/// The derivative of `f` at t = 0, by central differences of fourth order.
fn slope(f: impl Fn(f64) -> f64) -> f64 {
    let h = 1e-3;
    (8.0 * (f(h) - f(-h)) - (f(2.0 * h) - f(-2.0 * h))) / (12.0 * h)
}

/// Σ ⟨gradient of ⟨f(x), cotangent⟩ with respect to xᵢ, direction ᵢ⟩.
fn directional(row: &Row, inputs: &[Tensor], cotangent: &Tensor, direction: &[Tensor], create: bool) -> Result<(Tensor, Vec<Tensor>)> {
    let xs = leaves(inputs);
    let loss = dot(&(row.function)(&xs)?, cotangent)?;
    let grads = autograd::grad(&[loss], &xs, None, create, create)?;
    let mut total = Tensor::from_slice(&[], &[0.0])?;
    for (g, d) in grads.iter().zip(direction) {
        if let Some(g) = g {
            total = ops::add(&total, &dot(g, d)?)?;
        }
    }
    Ok((total, xs))
}

fn agree(name: &str, order: &str, got: f64, want: f64) {
    let error = (got - want).abs() / want.abs().max(1.0);
    assert!(error < 1e-7, "{name}: {order} derivative is {got}, finite differences give {want}");
}

fn check(row: &Row, seed: u64) -> Result<()> {
    let inputs: Vec<Tensor> = row.inputs.iter().enumerate().map(|(i, x)| relaid(x, seed + i as u64)).collect();
    let y = (row.function)(&inputs)?;
    let cotangent = uniform(y.shape(), 0.5, 1.5, seed + 100);
    let (u, v) = (directions(&inputs, seed + 200), directions(&inputs, seed + 300));
    let value = |t: f64| dot(&(row.function)(&moved(&inputs, &u, t)).unwrap(), &cotangent).unwrap().item().unwrap();
    let (first, _) = directional(row, &inputs, &cotangent, &u, false)?;
    agree(row.name, "first", first.item()?, slope(value));

    let (first, xs) = directional(row, &inputs, &cotangent, &u, true)?;
    agree(row.name, "recorded first", first.item()?, slope(value));
    let gradient = |t: f64| directional(row, &moved(&inputs, &v, t), &cotangent, &u, false).unwrap().0.item().unwrap();
    let want = slope(gradient);
    let mut second = 0.0;
    if first.requires_grad() {
        for (g, d) in autograd::grad(&[first], &xs, None, false, false)?.iter().zip(&v) {
            second += g.as_ref().map_or(Ok(0.0), |g| dot(g, d)?.item())?;
        }
    }
    agree(row.name, "second", second, want);
    Ok(())
}

#[test]
fn every_row_of_the_table_matches_finite_differences() {
    for row in table() {
        for seed in [1, 1001, 2001] {
            check(&row, seed).unwrap_or_else(|e| panic!("{}: {e}", row.name));
        }
    }
}

/// Public functions of `rust/ops` that have no gradient of their own to check, or one that is zero.
const NOT_DIFFERENTIABLE: &[&str] = &[
    "all",
    "any",
    "apply",
    "arange",
    "arange_count",
    "argmax",
    "argmin",
    "assign",
    "ceil",
    "composed",
    "even_sizes",
    "eye",
    "floor",
    "floor_divide",
    "index_work",
    "logical_not",
    "match_weak",
    "one_hot",
    "remainder",
    "round",
    "sign",
    "step",
    "take_scaled",
    "take_work",
];

#[test]
fn every_op_has_a_row() {
    let table = table();
    let tested = |name: &str| table.iter().any(|row| row.name.split([' ', ',']).next() == Some(name));
    let mut names: Vec<String> = ops::NAMES.iter().chain(ops::NUMERIC_NAMES).map(ToString::to_string).collect();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/rust/ops");
    for file in std::fs::read_dir(folder).expect("the sources") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("readable");
        let functions = text.lines().filter_map(|line| line.strip_prefix("pub fn ")?.split(['(', '<']).next());
        names.extend(functions.filter(|name| !name.starts_with('$')).map(ToString::to_string));
    }
    for name in &names {
        assert!(tested(name) != NOT_DIFFERENTIABLE.contains(&&**name), "the op {name} is to have a row in the gradient table, or else no gradient");
    }
    for name in NOT_DIFFERENTIABLE {
        assert!(names.iter().any(|n| n == name), "there is no op {name}");
    }
}

#[test]
fn gradients_of_products_are_those_of_the_others() {
    // Rows and columns, within tiles and beyond, with one zero in some, several in others.
    for (shape, axes) in [
        ([7, 5, 3], vec![1]),
        ([2, 40, 300], vec![1]),
        ([1, 9, 600], vec![1]),
        ([50, 1, 4], vec![1]),
        ([6, 30, 5], vec![0, 2]),
        ([3, 2, 9], vec![]),
        ([40, 2, 70], vec![2]),
        ([3, 5, 1], vec![0, 1, 2]),
        ([2, 30, 1], vec![1, 2]),
    ] {
        for dtype in [DType::F32, DType::F64] {
            let x = ops::mul(
                &uniform(&shape, 0.5, 1.5, 3),
                &ops::cast(&ops::less(&uniform(&shape, 0.0, 1.0, 4), &Tensor::from_slice(&[], &[0.97]).unwrap()).unwrap(), DType::F64).unwrap(),
            )
            .unwrap();
            let x = relaid(&ops::cast(&x, dtype).unwrap(), 5).requiring_grad().unwrap();
            let loss = ops::sum(&ops::prod(&x, Some(&axes), false).unwrap(), None, false).unwrap();
            let grads = autograd::grad(&[loss], std::slice::from_ref(&x), None, false, false).unwrap();
            let (at, values) = (indices(&shape), elements(x.array()));
            let beside = |i: &[usize], j: &[usize]| (0..3).all(|a| axes.contains(&(a as isize)) || i[a] == j[a]);
            let step = (at.len() / 200).max(1);
            let others = |i: usize| at.iter().zip(&values).filter(|&(j, _)| j != &at[i] && beside(&at[i], j)).map(|(_, v)| v).product::<f64>();
            let want: Vec<f64> = (0..at.len()).step_by(step).map(others).collect();
            let got: Vec<f64> = elements(grads[0].as_ref().unwrap().array()).into_iter().step_by(step).collect();
            assert_close("prod", &got, &want, if dtype == DType::F32 { 1e-5 } else { 1e-13 });
        }
    }
}

/// What goes along rows at once has the bits of recurrences, which are recorded: beyond pieces, with zeros and without.
#[test]
fn gradients_of_products_are_those_that_are_recorded() {
    for (shape, axes) in
        [(vec![140_001], vec![0]), (vec![3, 70_000], vec![1]), (vec![9, 41, 6], vec![1, 2]), (vec![5, 8, 3], vec![0, 2]), (vec![7, 1], vec![1])]
    {
        for (dtype, zeros) in [(DType::F32, 0), (DType::F64, 0), (DType::F32, 1), (DType::F32, 2)] {
            let x = ops::cast(&uniform(&shape, 0.98, 1.02, 7), dtype).unwrap();
            let mut values = elements(x.array());
            (0..zeros).for_each(|i| values[(i + 1) * shape.iter().product::<usize>() / 3] = 0.0);
            let x = ops::cast(&Tensor::from_slice(&shape, &values).unwrap(), dtype).unwrap();
            for x in [x.clone(), relaid(&x, 5)] {
                let x = x.requiring_grad().unwrap();
                let gradient = |recorded| {
                    let y = ops::sum(&ops::prod(&x, Some(&axes), false).unwrap(), None, false).unwrap();
                    bits(autograd::grad(&[y], std::slice::from_ref(&x), None, false, recorded).unwrap()[0].as_ref().unwrap())
                };
                assert!(gradient(false) == gradient(true), "{shape:?} along {axes:?} of {dtype:?} with {zeros} zeros");
            }
        }
    }
}

#[test]
fn products_have_derivatives_of_any_order() {
    let x = Tensor::from_slice(&[4], &[0.0, 2.0, 3.0, 0.0]).unwrap().requiring_grad().unwrap();
    let mut y = ops::prod(&x, None, false).unwrap();
    for i in 0..4 {
        let grads = autograd::grad(&[y], std::slice::from_ref(&x), None, true, true).unwrap();
        y = ops::sum(&ops::narrow(grads[0].as_ref().unwrap(), 0, i, 1).unwrap(), None, false).unwrap();
    }
    assert_eq!(y.item().unwrap(), 1.0);
}

/// The gradients in float32 of f at one point each of a and b.
fn gradients_at(f: fn(&Tensor, &Tensor) -> Result<Tensor>, a: f32, b: f32) -> [f64; 2] {
    let [a, b] = [a, b].map(|x| Tensor::from_slice(&[], &[x]).unwrap().requiring_grad().unwrap());
    f(&a, &b).unwrap().backward(None, false, false).unwrap();
    [a, b].map(|x| x.grad().unwrap().item().unwrap())
}

#[test]
fn the_square_of_a_divisor_neither_overflows_nor_vanishes() {
    for (a, b) in [(1e-25f32, 1e-25f32), (1e30, 1e25), (-3e-30, 2e-24), (1e38, 3e38)] {
        let (wide_a, wide_b) = (a as f64, b as f64);
        let (got, want) = (gradients_at(ops::div, a, b), [1.0 / wide_b, -wide_a / (wide_b * wide_b)]);
        for (got, want) in got.into_iter().zip(want) {
            assert!((got - want).abs() <= 1e-6 * want.abs(), "{a:e} / {b:e}: got {got:e}, expected {want:e}");
        }
    }
}

#[test]
fn equal_infinities_share_a_gradient() {
    for x in [f32::INFINITY, f32::NEG_INFINITY, 1.0] {
        assert_eq!(gradients_at(ops::maximum, x, x), [0.5, 0.5]);
        assert_eq!(gradients_at(ops::minimum, x, x), [0.5, 0.5]);
    }
    assert_eq!(gradients_at(ops::maximum, f32::INFINITY, 1.0), [1.0, 0.0]);
    assert_eq!(gradients_at(ops::minimum, f32::INFINITY, 1.0), [0.0, 1.0]);
}

#[test]
fn the_divisor_of_a_remainder_may_be_infinite() {
    assert_eq!(gradients_at(ops::remainder, -5.0, f32::INFINITY), [1.0, 1.0]);
    assert_eq!(gradients_at(ops::remainder, 5.0, f32::INFINITY), [1.0, 0.0]);
}

#[test]
fn a_padding_row_gets_no_gradient() {
    let w = uniform(&[4, 3], -1.0, 1.0, 1).requiring_grad().unwrap();
    let y = ops::embedding(&ints(&[3], &[2, 0, 2]), &w, Some(2)).unwrap();
    ops::sum(&y, None, false).unwrap().backward(None, false, false).unwrap();
    let want = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    assert_eq!(elements(w.grad().unwrap().array()), want);
}

#[test]
fn float32_gradients_are_close_to_float64() {
    let mut noise = Noise::new(7);
    for row in table() {
        let y = (row.function)(&row.inputs).unwrap();
        let cotangent = uniform(y.shape(), 0.5, 1.5, noise.bits());
        let gradients = |dtype: DType| {
            let xs: Vec<Tensor> = leaves(&row.inputs.iter().map(|x| ops::cast(x, dtype).unwrap()).collect::<Vec<_>>());
            let loss = dot(&(row.function)(&xs).unwrap(), &ops::cast(&cotangent, dtype).unwrap()).unwrap();
            autograd::grad(&[loss], &xs, None, false, false).unwrap()
        };
        for (g, want) in gradients(DType::F32).into_iter().zip(gradients(DType::F64)) {
            let (Some(g), Some(want)) = (g, want) else { continue };
            crate::support::assert_close(row.name, &elements(g.array()), &elements(want.array()), 2e-5);
        }
    }
}
