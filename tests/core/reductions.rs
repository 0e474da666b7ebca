//! Reductions against naive index-by-index references, over random shapes, layouts and element types.

use crate::kernels::{dtypes, floats, sample, shape};
use crate::support::{Noise, assert_close, bits, elements, indices, relaid, uniform};
use proptest::prelude::*;
use treadle::Tensor;
use treadle::array::DType;
use treadle::kernels::map;
use treadle::ops;

/// `x` in row-major order, with some elements that are NaN, infinite or -0.0, as `odd` says, where its type has them.
fn odd_ones(x: &Tensor, odd: usize, seed: u64) -> Tensor {
    let odd = if x.dtype().is_float() { odd } else { 0 };
    let mut noise = Noise::new(seed);
    let values = elements(x.array()).into_iter().map(|v| match noise.below(30) {
        0 if odd == 1 => f64::NAN,
        1 if odd == 2 => f64::NEG_INFINITY,
        2 if odd == 2 => f64::INFINITY,
        3..30 if odd == 3 => -0.0,
        _ => v,
    });
    ops::cast(&Tensor::from_slice(x.shape(), &values.collect::<Vec<_>>()).unwrap(), x.dtype()).unwrap()
}

/// Shapes whose reductions go by rows and columns, many and few, long and short.
fn larger() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![4 => 1usize..9, 2 => 9usize..40, 1 => 120usize..300], 2..5)
        .prop_filter("not too large", |shape| (300..12_000).contains(&shape.iter().product::<usize>()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn reductions_of_any_axes(shape in prop_oneof![shape(), larger()], dtype in dtypes(), choice in 0usize..256, keepdims: bool, relay: bool, seed in 0u64..1 << 40) {
        let x = sample(&shape, dtype, seed);
        let x = if relay { x } else { Tensor::constant(map::copy(x.array()).unwrap()) };
        let axes: Vec<isize> = (0..shape.len()).filter(|a| choice >> a & 1 == 1).map(|a| a as isize).collect();
        let empty = axes.iter().any(|&a| shape[a as usize] == 0);
        let kept = |at: &[usize]| at.iter().enumerate().filter(|(a, _)| !axes.contains(&(*a as isize))).map(|(_, &i)| i).collect::<Vec<_>>();
        let outer: Vec<usize> = kept(&shape);
        let fold_of = |x: &Tensor, id: f64, f: fn(f64, f64) -> f64| {
            let mut out = vec![id; outer.iter().product()];
            for (at, value) in indices(&shape).iter().zip(elements(x.array())) {
                let flat = kept(at).iter().zip(&outer).fold(0, |flat, (&i, &n)| flat * n + i);
                out[flat] = f(out[flat], value);
            }
            out
        };
        let fold = |id: f64, f: fn(f64, f64) -> f64| fold_of(&x, id, f);
        let sum = ops::sum(&x, Some(&axes), keepdims).unwrap();
        // Terms may cancel: what is rounded is as large as they are.
        let largest = fold(0.0, |a, b| a + b.abs()).into_iter().fold(1.0, f64::max);
        assert_close("sum", &elements(sum.array()), &fold(0.0, |a, b| a + b), 1e-6 * largest);
        let any = elements(ops::any(&x, Some(&axes), keepdims).unwrap().array());
        assert_close("any", &any, &fold(0.0, |a, b| a.max((b != 0.0) as u8 as f64)), 0.0);
        let all = elements(ops::all(&x, Some(&axes), keepdims).unwrap().array());
        assert_close("all", &all, &fold(1.0, |a, b| a.min((b != 0.0) as u8 as f64)), 0.0);
        // Of ones and minus ones, so that products are exact.
        let signs = uniform(&shape, -1.0, 1.0, seed ^ 1);
        let signs = relaid(&ops::cast(&ops::sign(&signs).unwrap(), if dtype.is_float() { dtype } else { DType::I64 }).unwrap(), seed);
        let product = ops::prod(&signs, Some(&axes), keepdims).unwrap();
        assert_close("prod", &elements(product.array()), &fold_of(&signs, 1.0, |a, b| a * b), 0.0);
        prop_assert_eq!(sum.ndim(), if keepdims { shape.len() } else { outer.len() });
        if empty {
            prop_assert!(outer.contains(&0) || ops::max(&x, Some(&axes), keepdims).is_err());
        } else {
            let largest = ops::max(&x, Some(&axes), keepdims).unwrap();
            assert_close("max", &elements(largest.array()), &fold(f64::NEG_INFINITY, f64::max), 0.0);
            let smallest = ops::min(&x, Some(&axes), keepdims).unwrap();
            assert_close("min", &elements(smallest.array()), &fold(f64::INFINITY, f64::min), 0.0);
        }
    }

    #[test]
    fn rows_among_others_give_what_they_give_alone((rows, c) in (2usize..40, prop_oneof![1usize..34, 34usize..150]), dtype in dtypes(), odd in 0usize..4, seed in 0u64..1 << 40) {
        let x = odd_ones(&sample(&[rows, c], dtype, seed), odd, seed);
        type Reduction = fn(&Tensor, Option<&[isize]>, bool) -> treadle::Result<Tensor>;
        for (name, f) in [("sum", ops::sum as Reduction), ("prod", ops::prod), ("max", ops::max), ("min", ops::min)] {
            for (axis, x) in [(1, x.clone()), (1, ops::narrow(&x, 1, 0, c.div_ceil(2)).unwrap()), (0, ops::transpose(&x))] {
                let got = bits(&f(&x, Some(&[axis]), false).unwrap());
                let one = |i: usize| bits(&f(&ops::narrow(&x, 1 - axis as usize, i, 1).unwrap(), None, false).unwrap())[0];
                prop_assert_eq!(got, (0..rows).map(one).collect::<Vec<_>>(), "{} along {}", name, axis);
            }
        }
    }

    #[test]
    fn places_of_extremes(shape in prop_oneof![3 => shape(), 1 => Just(vec![300, 40]), 1 => Just(vec![2, 140, 20])], dtype in dtypes(), odd in 0usize..4, seed in 0u64..1 << 40) {
        let x = relaid(&odd_ones(&sample(&shape, dtype, seed), odd, seed), seed);
        let (at, values) = (indices(&shape), elements(x.array()));
        for axis in (0..shape.len()).filter(|_| !values.is_empty()) {
            for (f, sign) in [(ops::argmax as fn(&Tensor, Option<isize>, bool) -> treadle::Result<Tensor>, 1.0), (ops::argmin, -1.0)] {
                let kept: Vec<usize> = shape.iter().enumerate().map(|(a, &n)| if a == axis { 1 } else { n }).collect();
                let mut best = vec![(f64::NEG_INFINITY, 0); kept.iter().product()];
                let mut seen = vec![false; best.len()];
                for (at, &value) in at.iter().zip(&values) {
                    let flat = (0..shape.len()).fold(0, |flat, a| flat * kept[a] + if a == axis { 0 } else { at[a] });
                    let (most, _) = best[flat];
                    if !seen[flat] || sign * value > most || (value.is_nan() && !most.is_nan()) {
                        (best[flat], seen[flat]) = ((sign * value, at[axis]), true);
                    }
                }
                let want: Vec<f64> = best.iter().map(|&(_, place)| place as f64).collect();
                prop_assert_eq!(elements(f(&x, Some(axis as isize), true).unwrap().array()), want, "axis {} of {:?}", axis, shape);
            }
        }
        if let Some(first) = values.first() {
            let most = values.iter().fold(*first, |most, &x| if x > most || x.is_nan() { x } else { most });
            let place = values.iter().position(|&x| x == most || x.is_nan()).unwrap();
            prop_assert_eq!(elements(ops::argmax(&x, None, false).unwrap().array()), [place as f64]);
        }
    }

    #[test]
    fn places_of_extremes_in_rows((rows, n) in prop_oneof![(1usize..40, 1usize..130), (1usize..40, 130usize..800), (1usize..3, 16_300usize..16_500), (1usize..3, 32_700usize..33_000)], dtype in dtypes(), odd in 0usize..4, spread in prop_oneof![Just(2.0), Just(1e6)], seed in 0u64..1 << 40) {
        let values: Vec<f64> = Noise::new(seed).values(rows * n, -spread, spread).into_iter().map(f64::trunc).collect();
        let x = ops::cast(&ops::cast(&Tensor::from_slice(&[rows, n], &values).unwrap(), DType::I64).unwrap(), dtype).unwrap();
        // One alone, anywhere; or many.
        let mut values = elements(odd_ones(&x, if spread == 2.0 { odd } else { 0 }, seed).array());
        if dtype.is_float() && spread != 2.0 && odd > 0 {
            let place = Noise::new(!seed).below(values.len());
            values[place] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][odd - 1];
        }
        let x = ops::cast(&Tensor::from_slice(&[rows, n], &values).unwrap(), dtype).unwrap();
        for (f, sign) in [(ops::argmax as fn(&Tensor, Option<isize>, bool) -> treadle::Result<Tensor>, 1.0), (ops::argmin, -1.0)] {
            let place = |row: &[f64]| {
                let most = row.iter().fold(f64::NEG_INFINITY, |most, &x| most.max(sign * x));
                row.iter().position(|x| x.is_nan()).or(row.iter().position(|x| sign * x == most)).unwrap() as f64
            };
            prop_assert_eq!(elements(f(&x, Some(1), false).unwrap().array()), values.chunks(n).map(place).collect::<Vec<_>>());
            prop_assert_eq!(elements(f(&x, None, false).unwrap().array()), [place(&values)]);
        }
    }

    #[test]
    fn variances_of_rows_far_from_zero((rows, n) in prop_oneof![(1usize..40, 1usize..130), (1usize..3, 65_000usize..140_000)], dtype in floats(), far in prop_oneof![Just(0.0), Just(1.0), Just(1e3), Just(-1e6)], spread in prop_oneof![Just(0.0), Just(1.0), Just(1e-6)], seed in 0u64..1 << 40) {
        let x = ops::add(&uniform(&[rows, n], -spread, spread, seed), &Tensor::from_slice(&[1], &[far]).unwrap()).unwrap();
        let x = ops::cast(&x, dtype).unwrap();
        // In float64 from the first element on, which is as near as any.
        let exact = |row: &[f64]| {
            let near: Vec<f64> = row.iter().map(|x| x - row[0]).collect();
            let mean = near.iter().sum::<f64>() / row.len() as f64;
            near.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / row.len() as f64
        };
        let values = elements(x.array());
        let tolerance = if dtype == DType::F32 { 1e-6 } else { 1e-12 };
        for (axis, want) in [(Some(&[1isize][..]), values.chunks(n).map(exact).collect::<Vec<_>>()), (None, vec![exact(&values)])] {
            let got = elements(ops::var(&x, axis, false, 0.0).unwrap().array());
            for (&got, want) in got.iter().zip(want) {
                prop_assert!((got - want).abs() <= tolerance * want, "{} instead of {} along {:?}", got, want, axis);
            }
        }
    }

    #[test]
    fn sums_of_all_do_not_hang_on_the_order_of_axes(shape in prop::collection::vec(1usize..40, 2..4), dtype in floats(), seed in 0u64..1 << 40) {
        let x = ops::cast(&uniform(&shape, -1.0, 1.0, seed), dtype).unwrap();
        let turned = ops::permute(&x, if shape.len() == 2 { &[1, 0] } else { &[2, 0, 1] }).unwrap();
        prop_assert_eq!(bits(&ops::sum(&turned, None, false).unwrap()), bits(&ops::sum(&x, None, false).unwrap()));
    }
}

#[test]
fn reductions_that_cast_do_so_in_parts() {
    let values: Vec<u8> = Noise::new(3).values(3 * 700 * 501, 0.0, 4.0).into_iter().map(|x| x as u8).collect();
    let x = ops::permute(&Tensor::from_slice(&[700, 3, 501], &values).unwrap(), &[1, 0, 2]).unwrap();
    let wide = ops::cast(&x, DType::I64).unwrap();
    for axes in [None, Some(&[0][..]), Some(&[1]), Some(&[2]), Some(&[0, 2]), Some(&[1, 2])] {
        for keepdims in [false, true] {
            let (sum, want) = (ops::sum(&x, axes, keepdims).unwrap(), ops::sum(&wide, axes, keepdims).unwrap());
            assert_eq!((sum.shape(), elements(sum.array())), (want.shape(), elements(want.array())), "sum over {axes:?}");
            let (all, least) = (ops::all(&x, axes, keepdims).unwrap(), ops::min(&wide, axes, keepdims).unwrap());
            let want: Vec<f64> = elements(least.array()).into_iter().map(|x| (x != 0.0) as u8 as f64).collect();
            assert_eq!(elements(all.array()), want, "all over {axes:?}");
        }
    }
}
