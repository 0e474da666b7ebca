//! Views read and written in whatever layout, against element by element references: rows short and long, about as many as a piece
//! holds, repeated, spread, turned and reversed.

use crate::support::{alone, bits, broadcast_element, elements, indices, relaid, settled, uniform};
use proptest::prelude::*;
use treadle::array::{DType, Slice};
use treadle::kernels::{map, parallel};
use treadle::{Tensor, ops};

/// Sizes about those at which kernels read in another way.
fn shape() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![4 => Just(1usize), 4 => 2usize..4, 4 => 4usize..8, 4 => 8usize..18, 2 => 30usize..70, 2 => 120usize..140, 1 => 1000usize..1100];
    prop::collection::vec(size, 1..5).prop_filter("small enough", |sizes| sizes.iter().product::<usize>() <= 20_000)
}

fn dtypes() -> impl Strategy<Value = DType> {
    prop::sample::select(DType::ALL.to_vec())
}

/// Whole numbers in a random layout; `thin` makes axes ones, of which the first `cut` are left out.
pub fn sample(shape: &[usize], (thin, cut): (u64, usize), dtype: DType, seed: u64) -> Tensor {
    let sizes: Vec<usize> = shape.iter().enumerate().map(|(i, &n)| if thin >> i & 1 == 1 { 1 } else { n }).collect();
    let x = ops::floor(&uniform(&sizes[cut.min(shape.len())..], 0.0, 9.0, seed)).unwrap();
    let x = ops::cast(&x, dtype).unwrap();
    // Row-major order, and the order of another axis alone, more often than chance would have it.
    match seed % 4 {
        0 => x,
        1 if x.ndim() > 1 => {
            let order: Vec<usize> = (1..x.ndim()).chain([0]).collect();
            let mut back = vec![0; order.len()];
            order.iter().enumerate().for_each(|(i, &axis)| back[axis] = i);
            Tensor::constant(map::copy(&x.array().permute(&order)).unwrap().permute(&back))
        }
        _ => relaid(&x, seed),
    }
}

/// What of the shape an operand has: most often all of it.
fn part() -> impl Strategy<Value = (u64, usize)> {
    prop_oneof![2 => Just((0, 0)), 3 => (0u64..16, Just(0usize)), 1 => (0u64..16, 0usize..4)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn one_operand(shape in shape(), dtype in dtypes(), to in dtypes(), seed in 0u64..1 << 40) {
        let x = sample(&shape, (0, 0), dtype, seed);
        let want = elements(x.array());
        let copy = map::copy(x.array()).unwrap();
        prop_assert!(copy.is_contiguous());
        prop_assert_eq!(elements(&copy), &want[..]);
        let of = |v: &f64| if to == DType::Bool { (*v != 0.0) as u8 as f64 } else { *v };
        prop_assert_eq!(elements(ops::cast(&x, to).unwrap().array()), want.iter().map(of).collect::<Vec<_>>());
        let one = ops::match_weak(treadle::array::Scalar::Int(1), dtype).unwrap();
        let more = ops::maximum(&x, &one).unwrap();
        prop_assert_eq!(elements(more.array()), want.iter().map(|v| v.max(1.0)).collect::<Vec<_>>());
    }

    #[test]
    fn two_operands(shape in shape(), parts in (part(), part()), dtype in dtypes(), seed in 0u64..1 << 40, other in 0u64..1 << 40) {
        let (a, b) = (sample(&shape, parts.0, dtype, seed), sample(&shape, parts.1, dtype, other));
        let (less, larger) = (ops::less(&a, &b).unwrap(), ops::maximum(&a, &b).unwrap());
        let pairs: Vec<(f64, f64)> =
            indices(less.shape()).iter().map(|at| (broadcast_element(a.array(), at), broadcast_element(b.array(), at))).collect();
        prop_assert_eq!(elements(less.array()), pairs.iter().map(|(a, b)| (a < b) as u8 as f64).collect::<Vec<_>>());
        prop_assert_eq!(elements(larger.array()), pairs.iter().map(|(a, b)| a.max(*b)).collect::<Vec<_>>());
    }

    #[test]
    fn three_operands(shape in shape(), parts in (part(), part(), part()), dtype in dtypes(), seeds in prop::array::uniform3(0u64..1 << 40)) {
        let condition = sample(&shape, parts.0, DType::I64, seeds[0]);
        let condition = ops::less(&condition, &Tensor::from_slice(&[], &[4i64]).unwrap()).unwrap();
        let (a, b) = (sample(&shape, parts.1, dtype, seeds[1]), sample(&shape, parts.2, dtype, seeds[2]));
        let y = ops::choose(&condition, &a, &b).unwrap();
        let want: Vec<f64> = indices(y.shape()).iter().map(|at| {
            let taken = if broadcast_element(condition.array(), at) == 1.0 { &a } else { &b };
            broadcast_element(taken.array(), at)
        }).collect();
        prop_assert_eq!(elements(y.array()), want);
    }

    #[test]
    fn parts_of_an_array(shape in shape(), axis in 0usize..4, lengths in prop::collection::vec(0usize..20, 1..4), dtype in dtypes(), seed in 0u64..1 << 40) {
        let axis = axis % shape.len();
        let parts: Vec<Tensor> = lengths.iter().zip(seed..).map(|(&n, seed)| {
            let mut sizes = shape.clone();
            sizes[axis] = n;
            sample(&sizes, (0, 0), dtype, seed)
        }).collect();
        let y = ops::concatenate(&parts, axis as isize).unwrap();
        let want: Vec<f64> = indices(y.shape()).into_iter().map(|mut at| {
            let part = lengths.iter().position(|&n| at[axis] < n || { at[axis] -= n; false }).unwrap();
            broadcast_element(parts[part].array(), &at)
        }).collect();
        prop_assert_eq!((y.dtype(), elements(y.array())), (dtype, want));
    }
}

/// A matrix in row-major order, and one whose columns lie so.
fn both_ways(rows: usize, cols: usize) -> [Tensor; 2] {
    let x = uniform(&[rows, cols], -1.0, 1.0, 1);
    let turned = map::copy(&x.array().permute(&[1, 0])).unwrap().permute(&[1, 0]);
    [x, Tensor::constant(turned)]
}

#[test]
fn results_lie_as_their_operands_do() {
    for (rows, cols) in [(3, 5), (40, 30), (300, 200)] {
        let [x, turned] = both_ways(rows, cols);
        let row = uniform(&[cols], -1.0, 1.0, 2);
        let positive = |x: &Tensor| ops::greater(x, &Tensor::from_slice(&[], &[0.0]).unwrap()).unwrap();
        type Op<'a> = &'a dyn Fn(&Tensor) -> Tensor;
        let rows_of: [(&str, Op); 5] = [
            ("relu", &|x| ops::relu(x).unwrap()),
            ("mul", &|x| ops::mul(x, x).unwrap()),
            ("add of a row", &|x| ops::add(x, &row).unwrap()),
            ("where", &|x| ops::choose(&positive(x), x, &row).unwrap()),
            ("cast", &|x| ops::cast(x, DType::F32).unwrap()),
        ];
        for (name, op) in rows_of {
            let (plain, y) = (op(&x), op(&turned));
            assert_eq!(elements(plain.array()), elements(y.array()), "{name} of ({rows}, {cols})");
            assert_eq!((plain.array().layout().strides(), y.array().layout().strides()), (&[cols as isize, 1][..], &[1, rows as isize][..]), "{name}");
            // Others take what lies so.
            assert_eq!(elements(ops::reshape(&y, &[-1]).unwrap().array()), elements(plain.array()), "{name}");
            assert_eq!(bits(&ops::transpose(&y)), bits(&ops::transpose(&plain)), "{name}");
        }
        // Where the orders differ, it is row-major.
        let sum = ops::add(&turned, &x).unwrap();
        assert!(sum.array().is_contiguous());
        assert_eq!(elements(sum.array()), elements(ops::add(&x, &x).unwrap().array()));
    }
}

#[test]
fn threads_do_not_change_views() {
    let _alone = alone();
    let (x, row, column) = (uniform(&[3000, 37], -1.0, 1.0, 1), uniform(&[37], -1.0, 1.0, 2), uniform(&[3000, 1], -1.0, 1.0, 3));
    let flipped = ops::slice(&x, &[Slice { start: 2999, len: 3000, step: -1 }, Slice { start: 36, len: 37, step: -1 }]).unwrap();
    let run = || {
        let sums = [&row, &column, &flipped].map(|y| ops::add(&x, y).unwrap());
        let down = ops::softmax(&ops::reshape(&x, &[10, 300, 37]).unwrap(), 1).unwrap();
        let one = ops::log_softmax(&x, 0).unwrap();
        let copy = Tensor::constant(map::copy(flipped.array()).unwrap());
        sums.iter().chain([&down, &one, &copy]).map(bits).collect::<Vec<_>>()
    };
    parallel::set_num_threads(1);
    let want = run();
    for threads in [2, 3, 8] {
        parallel::set_num_threads(threads);
        assert!(run() == want, "with {threads} threads");
    }
}

/// Down columns a softmax adds up what it adds up along rows.
#[test]
fn softmax_of_any_axis_is_that_of_the_last() {
    let _settled = settled();
    for (shape, axis) in [([3, 5, 16], 1), ([2, 70, 17], 1), ([1, 200, 130], 1), ([4, 3, 784], 1), ([40, 4, 31], 0), ([2, 300, 5], 1), ([1, 2, 64], 1)] {
        let mut values = elements(uniform(&shape, -4.0, 4.0, 7).array());
        // A column of infinities, one with a NaN, one far out.
        for j in 0..shape[axis] {
            let at = j * shape[axis + 1..].iter().product::<usize>();
            (values[at], values[at + 2]) = (f64::NEG_INFINITY, values[at + 2] + 1e4);
        }
        values[1] = f64::NAN;
        for dtype in [DType::F32, DType::F64] {
            let x = ops::cast(&Tensor::from_slice(&shape, &values).unwrap(), dtype).unwrap();
            for op in [ops::softmax, ops::log_softmax] {
                let rows = Tensor::constant(map::copy(&x.array().swap_axes(axis, 2)).unwrap());
                let want = elements(&op(&rows, 2).unwrap().array().swap_axes(axis, 2));
                let got = elements(op(&x, axis as isize).unwrap().array());
                let tolerance = if dtype == DType::F32 { 2e-6 } else { 4e-15 };
                for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                    let near = (got - want).abs() <= tolerance * want.abs().max(1e-3) || got == want || got.is_nan() && want.is_nan();
                    assert!(near, "element {i} of {shape:?} along {axis}: {got}, along rows {want}");
                }
            }
        }
    }
}
