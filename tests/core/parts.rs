//! What is put side by side, cut out and added back, against element by element references over random shapes, layouts and types.

use crate::kernels::dtypes;
use crate::support::{Noise, alone, bits, elements, indices, uniform};
use crate::views::sample;
use proptest::prelude::*;
use treadle::array::{DType, Slice};
use treadle::autograd::grad;
use treadle::kernels::parallel;
use treadle::{Tensor, ops};

/// Sizes about those at which rows are moved in another way.
fn shape() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![2 => Just(1usize), 4 => 2usize..6, 3 => 7usize..18, 2 => 30usize..70, 1 => 120usize..140];
    prop::collection::vec(size, 1..5).prop_filter("small enough", |sizes| sizes.iter().product::<usize>() <= 8000)
}

/// A tensor in a random layout, or one that lies by rows with gaps between them: part of one that is wider along `axis`.
fn part(shape: &[usize], axis: usize, dtype: DType, seed: u64) -> Tensor {
    if !seed.is_multiple_of(3) {
        return sample(shape, (0, 0), dtype, seed);
    }
    let mut wider = shape.to_vec();
    wider[axis] += 1 + seed as usize % 3;
    let whole = ops::cast(&ops::floor(&uniform(&wider, 0.0, 9.0, seed)).unwrap(), dtype).unwrap();
    ops::narrow(&whole, axis, 1, shape[axis]).unwrap()
}

/// A random slice of an axis.
fn cut(n: usize, noise: &mut Noise) -> Slice {
    let step = [1, 1, 1, 2, -1, -3][noise.below(6)];
    // Most often as much as there is room for, or half.
    let len = [n, n.div_ceil(2), 1 + noise.below(n)][noise.below(3)].min(1 + (n - 1) / isize::unsigned_abs(step));
    let reach = (len - 1) * isize::unsigned_abs(step);
    let first = noise.below(n - reach);
    Slice { start: if step > 0 { first } else { first + reach }, len, step }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn stacks_along_any_axis(shape in shape(), count in 1usize..20, types in (dtypes(), dtypes()), seed in 0u64..1 << 40) {
        for axis in 0..=shape.len() {
            let type_of = |i: usize| if i % 3 == 2 { types.1 } else { types.0 };
            let parts: Vec<Tensor> = (0..count).map(|i| part(&shape, axis.min(shape.len() - 1), type_of(i), seed + i as u64)).collect();
            let all: Vec<Vec<f64>> = parts.iter().map(|x| elements(x.array())).collect();
            let y = ops::stack(&parts, axis as isize).unwrap();
            let inner: usize = shape[axis..].iter().product();
            let outer: usize = shape[..axis].iter().product();
            let want: Vec<f64> = (0..outer).flat_map(|o| all.iter().flat_map(move |x| x[o * inner..(o + 1) * inner].to_vec())).collect();
            let dtype = if count > 2 { types.0.promote(types.1) } else { types.0 };
            prop_assert_eq!((y.dtype(), y.shape()[axis], y.ndim()), (dtype, count, shape.len() + 1));
            prop_assert_eq!(elements(y.array()), want);
        }
    }

    /// Elements of a few arrays in turn, as they lie from anywhere on, and others between them.
    #[test]
    fn stacks_of_few_along_the_last_axis(n in prop_oneof![1usize..70, 1000usize..9000], count in 2usize..6, dtype in dtypes(), (first, odd) in (0usize..5, 0usize..9), seed in 0u64..1 << 40) {
        let parts: Vec<Tensor> = (0..count)
            .map(|i| {
                let step = if i == odd { 2 } else { 1 };
                let whole = ops::cast(&ops::floor(&uniform(&[first + n * step], 0.0, 9.0, seed + i as u64)).unwrap(), dtype).unwrap();
                ops::slice(&whole, &[Slice { start: first, len: n, step: step as isize }]).unwrap()
            })
            .collect();
        let all: Vec<Vec<f64>> = parts.iter().map(|x| elements(x.array())).collect();
        let want: Vec<f64> = (0..n).flat_map(|i| all.iter().map(move |x| x[i])).collect();
        prop_assert_eq!(elements(ops::stack(&parts, -1).unwrap().array()), want.clone());
        let columns: Vec<Tensor> = parts.iter().map(|x| ops::reshape(x, &[-1, 1]).unwrap()).collect();
        prop_assert_eq!(elements(ops::concatenate(&columns, 1).unwrap().array()), want);
    }

    #[test]
    fn concatenates_along_any_axis(shape in shape(), lengths in prop::collection::vec(0usize..40, 1..12), types in (dtypes(), dtypes()), seed in 0u64..1 << 40) {
        for axis in 0..shape.len() {
            let sizes = |n: usize| [&shape[..axis], &[n], &shape[axis + 1..]].concat();
            let parts: Vec<Tensor> = lengths.iter().enumerate().map(|(i, &n)| part(&sizes(n), axis, if i == 1 { types.1 } else { types.0 }, seed + i as u64)).collect();
            let all: Vec<Vec<f64>> = parts.iter().map(|x| elements(x.array())).collect();
            let y = ops::concatenate(&parts, axis as isize).unwrap();
            let (outer, inner): (usize, usize) = (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
            let rows = |o: usize| all.iter().zip(&lengths).flat_map(move |(x, &n)| x[o * n * inner..(o + 1) * n * inner].to_vec());
            let dtype = if lengths.len() > 1 { types.0.promote(types.1) } else { types.0 };
            prop_assert_eq!((y.dtype(), &y.shape()[..]), (dtype, &sizes(lengths.iter().sum())[..]));
            prop_assert_eq!(elements(y.array()), (0..outer).flat_map(rows).collect::<Vec<_>>());
        }
    }

    /// Gradients of parts that overlap, in any layout, are written and added where the parts came from.
    #[test]
    fn gradients_of_parts_add_up(shape in shape(), count in 1usize..5, double in any::<bool>(), seed in 0u64..1 << 40) {
        let dtype = if double { DType::F64 } else { DType::F32 };
        let mut noise = Noise::new(seed);
        let x = sample(&shape, (0, 0), dtype, seed).requiring_grad().unwrap();
        let mut want = vec![0.0; x.size()];
        let (mut outputs, mut given) = (Vec::new(), Vec::new());
        for i in 0..count as u64 {
            let cuts: Vec<Slice> = shape.iter().map(|&n| if noise.below(2) == 0 { Slice { start: 0, len: n, step: 1 } } else { cut(n, &mut noise) }).collect();
            let y = ops::slice(&x, &cuts).unwrap();
            // Some are there once for many, as those of a sum are.
            let thin = if noise.below(2) == 0 { 0 } else { noise.bits() };
            let dy = sample(y.shape(), (thin, 0), dtype, seed + i);
            let dy = ops::broadcast_to(&dy, y.shape()).unwrap();
            for (at, value) in indices(y.shape()).iter().zip(elements(dy.array())) {
                let place = |flat: usize, axis: usize| flat * shape[axis] + (cuts[axis].start as isize + at[axis] as isize * cuts[axis].step) as usize;
                want[(0..shape.len()).fold(0, place)] += value;
            }
            outputs.push(y);
            given.push(Some(dy));
        }
        let dx = grad(&outputs, std::slice::from_ref(&x), Some(&given), false, false).unwrap().remove(0).unwrap();
        // Whole numbers, so the order of additions is not seen.
        prop_assert_eq!((dx.dtype(), elements(dx.array())), (dtype, want));
    }
}

#[test]
fn gradients_of_a_stack_are_its_places() {
    for axis in 0..3 {
        let xs: Vec<Tensor> = (0..3).map(|i| uniform(&[2, 4], -1.0, 1.0, i).requiring_grad().unwrap()).collect();
        let y = ops::stack(&xs, axis).unwrap();
        let dy = uniform(y.shape(), -1.0, 1.0, 9);
        let found = grad(&[y], &xs, Some(&[Some(dy.clone())]), false, false).unwrap();
        for (i, dx) in found.iter().enumerate() {
            let want = elements(ops::narrow(&dy, axis as usize, i, 1).unwrap().array());
            let dx = dx.as_ref().unwrap();
            assert_eq!((&dx.shape()[..], elements(dx.array())), (&[2, 4][..], want));
        }
    }
}

#[test]
fn threads_do_not_change_what_is_put_side_by_side() {
    let _alone = alone();
    let parts: Vec<Tensor> = [40_000, 1, 70_001, 4096].iter().zip(1..).map(|(&n, seed)| uniform(&[n], -1.0, 1.0, seed)).collect();
    let rows: Vec<Tensor> = [7, 33, 64].iter().zip(1..).map(|(&n, seed)| uniform(&[3000, n], -1.0, 1.0, seed)).collect();
    let (x, index) = (uniform(&[9000, 10], -1.0, 1.0, 5), Tensor::from_slice(&[7], &[9i64, -1, 0, 4, 4, 3, 8]).unwrap());
    let run = || {
        let made = [ops::concatenate(&parts, 0), ops::concatenate(&rows, 1), ops::stack(&[rows[1].clone(), rows[1].clone()], 2), ops::take(&x, &index, 1)];
        made.map(|y| bits(&y.unwrap()))
    };
    parallel::set_num_threads(1);
    let want = run();
    for threads in [2, 3, 8] {
        parallel::set_num_threads(threads);
        assert!(run() == want, "with {threads} threads");
    }
}
