//! Kernels against naive index-by-index references, over random shapes, layouts and element types.

use crate::support::{alone, assert_close, broadcast_element, elements, indices, relaid, settled, uniform};
use proptest::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use treadle::array::{Array, DType, Dims, Element, Scalar, Slice};
use treadle::kernels::turn::{Rows, turn};
use treadle::kernels::{map, simd};
use treadle::ops::{self, Index};
use treadle::{Error, Tensor};

/// Shapes with zeros and ones among the sizes.
pub fn shape() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1 => Just(0usize), 3 => Just(1), 12 => 2usize..6, 1 => 30usize..70], 0..4)
}

/// Two shapes that broadcast together.
fn broadcast_pair() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
    (shape(), any::<u64>()).prop_map(|(full, choice)| {
        let thin = |bits: u64| full.iter().enumerate().map(|(i, &n)| if bits >> i & 1 == 1 { 1 } else { n }).collect::<Vec<_>>();
        let (a, b) = (thin(choice), thin(choice >> 8));
        let cut = (choice >> 16) as usize % (full.len() + 1);
        if choice >> 32 & 1 == 1 { (a[cut..].to_vec(), b) } else { (a, b[cut..].to_vec()) }
    })
}

pub fn floats() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::F64)]
}

pub fn dtypes() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::F64), Just(DType::I64), Just(DType::U8), Just(DType::Bool)]
}

/// A tensor in a random layout.
pub fn sample(shape: &[usize], dtype: DType, seed: u64) -> Tensor {
    let (low, high) = if dtype == DType::U8 { (0.0, 30.0) } else { (-4.0, 4.0) };
    let x = uniform(shape, low, high, seed);
    let x = if dtype.is_float() { x } else { ops::round(&x).unwrap() };
    relaid(&ops::cast(&x, dtype).unwrap(), seed)
}

#[test]
fn samples_lie_in_other_layouts_whatever_their_type() {
    for dtype in [DType::F32, DType::F64, DType::I64, DType::U8, DType::Bool] {
        let samples: Vec<Tensor> = (0..20).map(|seed| sample(&[3, 4], dtype, seed)).collect();
        assert!(samples.iter().any(|x| x.dtype() == dtype && !x.array().is_contiguous()), "every {dtype} lies in row-major order");
        let x = ops::cast(&uniform(&[3, 4], 0.0, 9.0, 1), dtype).unwrap();
        assert_eq!(elements(relaid(&x, 7).array()), elements(x.array()));
    }
}

pub fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F32 { 2e-6 } else { 1e-14 }
}

#[test]
fn views_of_other_sizes_or_with_axes_twice_are_refused() {
    let x = Array::zeros(&[2, 3], DType::F32).unwrap();
    for sizes in [&[7][..], &[5], &[2, 2], &[], &[usize::MAX, 2]] {
        let shape = Dims::new(sizes).unwrap();
        assert!(x.reshape_view(shape).is_none() && x.permute(&[1, 0]).reshape_view(shape).is_none(), "{shape}");
    }
    for order in [&[][..], &[0], &[0, 0], &[0, 1, 1], &[0, 64]] {
        assert!(catch_unwind(AssertUnwindSafe(|| x.permute(order))).is_err(), "{order:?}");
    }
}

#[test]
fn steps_and_classes_beyond_any_size_do_not_overflow() {
    let x = uniform(&[3], 0.0, 1.0, 1);
    for (step, at) in [(isize::MAX, 0), (isize::MIN, 2), (-isize::MAX, 2)] {
        let y = ops::get(&x, &[Index::Slice { start: None, stop: None, step }]).unwrap();
        assert_eq!(elements(y.array()), [elements(x.array())[at]]);
    }
    let one_hot = |class: i64| ops::one_hot(&Tensor::from_slice(&[1], &[class]).unwrap(), None, DType::F32);
    assert!(matches!(one_hot(-1), Err(Error::Index(_))) && matches!(one_hot(i64::MAX), Err(Error::Memory(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() })]

    #[test]
    fn binary_ops_broadcast((a, b) in broadcast_pair(), dtype in dtypes(), seed in 0u64..1 << 40) {
        let (x, y) = (sample(&a, dtype, seed), sample(&b, dtype, seed + 1));
        type Reference = fn(f64, f64) -> f64;
        type Op = fn(&Tensor, &Tensor) -> treadle::Result<Tensor>;
        let rows: &[(&str, Op, Reference)] = &[
            ("add", ops::add, |a, b| a + b),
            ("mul", ops::mul, |a, b| a * b),
            ("maximum", ops::maximum, f64::max),
            ("less", ops::less, |a, b| (a < b) as u8 as f64),
            ("equal", ops::equal, |a, b| (a == b) as u8 as f64),
        ];
        for (name, op, reference) in rows {
            let z = op(&x, &y).unwrap();
            let want: Vec<f64> = indices(z.shape()).iter().map(|at| {
                let value = reference(broadcast_element(x.array(), at), broadcast_element(y.array(), at));
                // What the element type can hold.
                match z.dtype() { DType::Bool => (value != 0.0) as u8 as f64, DType::U8 => value.rem_euclid(256.0), DType::F32 => value as f32 as f64, _ => value }
            }).collect();
            assert_close(name, &elements(z.array()), &want, tolerance(z.dtype()));
        }
    }

    #[test]
    fn shapes_that_do_not_broadcast_are_refused(a in 2usize..5, b in 5usize..9) {
        let error = ops::add(&uniform(&[3, a], 0.0, 1.0, 1), &uniform(&[b], 0.0, 1.0, 2)).unwrap_err();
        prop_assert_eq!(error.to_string(), format!("add: expected shapes that broadcast together, got (3, {a}) and ({b},)"));
    }

    #[test]
    fn products_of_matrices(m in 0usize..40, k in 0usize..40, n in 0usize..40, batch in 1usize..4, dtype in floats(), seed in 0u64..1 << 40) {
        let (a, b) = (sample(&[batch, m, k], dtype, seed), sample(&[k, n], dtype, seed + 1));
        let c = ops::matmul(&a, &b).unwrap();
        let (x, y) = (elements(a.array()), elements(b.array()));
        let want: Vec<f64> = indices(&[batch, m, n]).iter().map(|at| (0..k).map(|i| x[(at[0] * m + at[1]) * k + i] * y[i * n + at[2]]).sum()).collect();
        assert_close("matmul", &elements(c.array()), &want, if dtype == DType::F32 { 1e-5 } else { 1e-13 });
    }

    #[test]
    fn slices_are_views(n in 1usize..20, start in 0usize..20, step in prop_oneof![-3isize..0, 1isize..4], seed in 0u64..1 << 40) {
        let start = start % n;
        let room = if step > 0 { n - 1 - start } else { start };
        let len = room / step.unsigned_abs() + 1;
        let x = uniform(&[3, n], -1.0, 1.0, seed);
        let y = ops::slice(&x, &[Slice { start: 0, step: 1, len: 3 }, Slice { start, step, len }]).unwrap();
        let all = elements(x.array());
        let want: Vec<f64> = indices(&[3, len]).iter().map(|at| all[at[0] * n + (start as isize + at[1] as isize * step) as usize]).collect();
        prop_assert_eq!(elements(y.array()), want);
        prop_assert!(std::ptr::eq(x.array().data::<f64>(), y.array().data::<f64>()), "a slice copied its elements");
    }

    #[test]
    fn casts_hold_what_the_type_can(shape in shape(), from in dtypes(), to in dtypes(), seed in 0u64..1 << 40) {
        let x = sample(&shape, from, seed);
        let y = map::cast(x.array(), to).unwrap();
        let want: Vec<f64> = elements(x.array()).into_iter().map(|v| match to {
            DType::Bool => (v != 0.0) as u8 as f64,
            DType::I64 => v.trunc(),
            // Floats are held at the ends of the range, integers wrap around.
            DType::U8 if from.is_float() => v.trunc().clamp(0.0, 255.0),
            DType::U8 => v.rem_euclid(256.0),
            DType::F32 => v as f32 as f64,
            DType::F64 => v,
        }).collect();
        assert_close("cast", &elements(&y), &want, 0.0);
    }

    #[test]
    fn takes_and_puts_back(rows in 1usize..9, picks in prop::collection::vec(-9i64..9, 0..12), seed in 0u64..1 << 40) {
        let x = relaid(&uniform(&[rows, 4], -1.0, 1.0, seed), seed);
        let index = Tensor::from_slice(&[picks.len()], &picks).unwrap();
        let fits = picks.iter().all(|&p| -(rows as i64) <= p && p < rows as i64);
        let taken = ops::take(&x, &index, 0);
        prop_assert_eq!(taken.is_ok(), fits);
        if let Ok(taken) = taken {
            let all = elements(x.array());
            let row = |p: i64| if p < 0 { (p + rows as i64) as usize } else { p as usize };
            let want: Vec<f64> = picks.iter().flat_map(|&p| all[row(p) * 4..][..4].to_vec()).collect();
            prop_assert_eq!(elements(taken.array()), want);
            let added = ops::index_add(&Tensor::constant(treadle::array::Array::zeros(&[rows, 4], DType::F64).unwrap()), &index, &taken, 0).unwrap();
            let mut sums = vec![0.0; rows * 4];
            for &p in &picks {
                for c in 0..4 {
                    sums[row(p) * 4 + c] += all[row(p) * 4 + c];
                }
            }
            assert_close("index_add", &elements(added.array()), &sums, 1e-14);
        }
    }
}

#[test]
fn ranges_and_identities() {
    let range = |start: f64, stop: f64, step: f64| elements(ops::arange(start.into(), stop.into(), step.into(), DType::F32).unwrap().array());
    assert_eq!(range(0.0, 1.0, 0.25), [0.0, 0.25, 0.5, 0.75]);
    assert_eq!(range(3.0, -3.0, -2.0), [3.0, 1.0, -1.0]);
    assert!(range(3.0, 3.0, 1.0).is_empty() && ops::arange(Scalar::Int(0), Scalar::Int(1), Scalar::Int(0), DType::I64).is_err());
    let far = ops::arange(Scalar::Int(i64::MAX - 2), Scalar::Int(i64::MAX), Scalar::Int(1), DType::I64).unwrap();
    assert_eq!(far.array().as_slice::<i64>(), Some(&[i64::MAX - 2, i64::MAX - 1][..]));
    for (n, m) in [(2, 3), (3, 2), (2, 2), (0, 2), (2, 0)] {
        let want: Vec<f64> = indices(&[n, m]).iter().map(|at| (at[0] == at[1]) as u8 as f64).collect();
        assert_eq!(elements(ops::eye(n, m, DType::U8).unwrap().array()), want);
    }
}

#[test]
fn promotion_is_numpys() {
    use DType::*;
    let rows = [
        (F32, F32, F32),
        (F32, F64, F64),
        (F32, I64, F64),
        (F32, U8, F32),
        (F32, Bool, F32),
        (F64, I64, F64),
        (I64, U8, I64),
        (U8, Bool, U8),
        (Bool, Bool, Bool),
    ];
    for (a, b, want) in rows {
        let (x, y) = (sample(&[2], a, 1), sample(&[2], b, 2));
        assert_eq!(ops::add(&x, &y).unwrap().dtype(), want, "{a} + {b}");
        assert_eq!(ops::mul(&y, &x).unwrap().dtype(), want, "{b} * {a}");
    }
    for (scalar, dtype, want) in
        [(Scalar::Float(1.5), F32, F32), (Scalar::Float(1.5), I64, F64), (Scalar::Int(2), U8, U8), (Scalar::Int(2), Bool, I64), (Scalar::Bool(true), U8, U8)]
    {
        let x = sample(&[2], dtype, 1);
        let y = ops::match_weak(scalar, dtype).unwrap();
        assert_eq!(ops::add(&x, &y).unwrap().dtype(), want, "{dtype} + {scalar:?}");
    }
}

#[test]
fn integers_are_rounded_once() {
    let x = Tensor::from_slice(&[1], &[(1i64 << 60) + (1 << 36) + 1]).unwrap();
    assert_eq!(ops::cast(&x, DType::F32).unwrap().item().unwrap(), ((1i64 << 60) + (1 << 37)) as f64);
}

#[test]
fn quotients_by_infinity_are_rounded_down() {
    let floor = |a: f64, b: f64| ops::floor_divide(&Tensor::from_slice(&[], &[a]).unwrap(), &Tensor::from_slice(&[], &[b]).unwrap()).unwrap().item().unwrap();
    for (a, b, want) in
        [(-5.0, f64::INFINITY, -1.0), (5.0, f64::INFINITY, 0.0), (5.0, f64::NEG_INFINITY, -1.0), (-5.0, f64::NEG_INFINITY, 0.0), (-7.0, 2.0, -4.0)]
    {
        assert_eq!(floor(a, b), want, "{a} // {b}");
    }
}

#[test]
fn a_view_without_elements_is_a_slice() {
    let empty = Tensor::from_slice::<f32>(&[0, 3], &[]).unwrap().into_array();
    let mut view = empty.slice(1, Slice { start: 1, len: 2, step: 1 });
    drop(empty);
    assert_eq!(view.as_slice::<f32>(), Some(&[][..]));
    assert!(view.fresh::<f32>().is_empty());
}

/// Results that are written past the caches have the bits of those that are not.
#[test]
fn large_results_are_the_small_ones_side_by_side() {
    let _settled = settled();
    let n = (9 << 20) + 13;
    let [x, y] = [1, 2].map(|seed| ops::cast(&uniform(&[n], -4.0, 4.0, seed), DType::F32).unwrap());
    let scalar = ops::match_weak(Scalar::Float(0.7), DType::F32).unwrap();
    type Op<'a> = &'a dyn Fn(&Tensor, &Tensor) -> treadle::Result<Tensor>;
    // Some of these sines are of arguments that vectors leave out.
    let wide = ops::match_weak(Scalar::Float(2500.0), DType::F32).unwrap();
    let rows: [(&str, Op); 6] = [
        ("exp", &|x, _| ops::exp(x)),
        ("sin", &|x, _| ops::sin(&ops::mul(x, &wide)?)),
        ("add", &ops::add),
        ("scalar on the right", &|x, _| ops::sub(x, &scalar)),
        ("scalar on the left", &|x, _| ops::sub(&scalar, x)),
        ("less", &ops::less),
    ];
    for (name, op) in rows {
        let whole = ops::cast(&op(&x, &y).unwrap(), DType::F32).unwrap();
        let whole = whole.array().as_slice::<f32>().unwrap();
        let step = 1 << 20;
        for from in (0..n).step_by(step) {
            let part = |x: &Tensor| ops::slice(x, &[Slice { start: from, len: step.min(n - from), step: 1 }]).unwrap();
            let small = ops::cast(&op(&part(&x), &part(&y)).unwrap(), DType::F32).unwrap();
            let small = small.array().as_slice::<f32>().unwrap();
            assert!(whole[from..from + small.len()] == *small, "{name} differs after element {from}");
        }
    }
}

#[test]
fn matrices_are_turned_and_nothing_else_is_written() {
    fn check<T: Element + PartialEq + std::fmt::Debug>() {
        for (rows, cols) in [(1, 1), (50, 1), (2, 3), (31, 8), (7, 30), (3, 5), (4, 16), (10, 64), (16, 16), (17, 33), (32, 20), (50, 100), (64, 7)] {
            for (gap, free, width) in [(0, 0, rows), (3, 5, rows), (3, 40, rows + 20)] {
                let (stride, from) = (cols + gap, 2);
                let data: Vec<T> = (0..from + rows * stride).map(|i| T::from_f64((i % 251) as f64)).collect();
                let (mark, step) = (T::from_f64(253.0), rows + free);
                let mut y = vec![mark; cols * step];
                turn(Rows { data: &data, from, stride, rows, cols }, &mut y, step, width);
                for (c, y) in y.chunks(step).enumerate() {
                    for (r, &y) in y.iter().enumerate().filter(|&(r, _)| r < rows || r >= width) {
                        let want = if r < rows { data[from + r * stride + c] } else { mark };
                        assert_eq!(y, want, "row {r}, column {c} of ({rows}, {cols}), {gap} and {free} elements apart");
                    }
                }
            }
        }
    }
    let _alone = alone();
    for level in [simd::Level::Avx512, simd::Level::Baseline] {
        simd::limit_level(level);
        check::<f32>();
        check::<f64>();
        check::<u8>();
        check::<i64>();
    }
}
