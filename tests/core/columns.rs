//! Batch norm kernels against a float64 reference, over layouts, masks, thread counts and offsets.

use crate::columns_reference::*;
use crate::support::{alone, settled};
use proptest::prelude::*;
use treadle::kernels::columns::{Gradients, Options, Planes, Stats, backward_eval, backward_train, forward_eval, forward_train, in_pieces};
use treadle::kernels::parallel;

fn check(case: &Case, lays: (Lay, Lay)) {
    let (x, dy) = (Laid::new(&case.x, case.shape, lays.0), Laid::new(&case.dy, case.shape, lays.1));
    compare(case, run!(f64, case, x, dy), 1e-11);
    compare(case, run!(f32, case, x.to_f32(), dy.to_f32()), 4e-6);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]
    #[test]
    fn agrees_with_float64(
        n in 2usize..70, c in 1usize..140, l in prop_oneof![Just(1usize), 2usize..12, 30usize..70], seed in 0u64..1000,
        lays in (0usize..5, 0usize..5), masked: bool, relu: bool, given: bool,
    ) {
        let c = if l > 20 { c % 9 + 1 } else { c };
        let mut case = case([n, c, l], seed);
        case.mask = masked.then(|| noise(n * l, seed + 9).iter().map(|&u| u > -0.3).collect());
        case.given = given.then(|| (noise(c, seed + 4), noise(c, seed + 5).iter().map(|v| v.abs() + 0.1).collect()));
        let mut case = rounded(case);
        if let Some((mean, var)) = &mut case.given {
            mean.iter_mut().chain(var).for_each(|v| *v = *v as f32 as f64);
        }
        // Values at the ReLU's edge may fall on either side.
        case.relu = false;
        prop_assume!(!relu || reference(&case).y.iter().all(|y| *y == 0.0 || y.abs() > 1e-6));
        case.relu = relu;
        check(&case, (LAYS[lays.0], LAYS[lays.1]));
    }
}

#[test]
fn agrees_on_shapes_of_every_plan() {
    for shape in [
        [32, 64, 1],
        [1, 64, 40],
        [2, 3, 1],
        [400, 300, 1],
        [700, 200, 1],
        [1500, 300, 1],
        [9000, 20, 1],
        [3, 2100, 1],
        [40, 8, 9],
        [4, 3, 300],
        [2, 2, 70_000],
        [1, 1, 150_000],
        [600, 30, 16],
        [5, 40, 33],
    ] {
        for lays in [(Lay::Contiguous, Lay::Contiguous), (Lay::ChannelsLast, Lay::Contiguous), (Lay::ChannelsLast, Lay::ChannelsLast)] {
            check(&rounded(case(shape, 5)), lays);
        }
    }
}

#[test]
fn broadcast_cotangent() {
    for shape in [[33, 70, 1], [6, 5, 40], [7, 6, 5]] {
        let mut case = rounded(case(shape, 3));
        let value = case.dy[0];
        case.dy.fill(value);
        let x = Laid::new(&case.x, shape, Lay::Contiguous);
        let dy = Laid { data: vec![case.dy[0]], shape, strides: [0; 3], offset: 0 };
        compare(&case, run!(f64, &case, x, dy), 1e-11);
        compare(&case, run!(f32, &case, x.to_f32(), dy.to_f32()), 4e-6);
    }
}

/// Largest error of y over columns of N(0, 1) + offset, and of the variance (relative).
fn errors(shape: [usize; 3], offset: f64) -> (f64, f64) {
    let mut case = case(shape, 11);
    case.x.iter_mut().for_each(|x| *x = (*x + offset) as f32 as f64);
    case.w.fill(1.0);
    case.b.fill(0.0);
    let x = Laid::new(&case.x, shape, Lay::Contiguous).to_f32();
    let got = run!(f32, &case, x, x);
    let want = reference(&case);
    let worst = |a: &[f64], b: &[f64]| a.iter().zip(b).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
    let relative: Vec<f64> = got.var.iter().zip(&want.var).map(|(g, w)| g / w).collect();
    (worst(&got.y, &want.y), worst(&relative, &vec![1.0; relative.len()]))
}

#[test]
fn accurate_at_every_offset() {
    for shape in [[4096, 64, 1], [4096, 8, 1], [4096, 2, 1], [16, 4, 256], [512, 6, 8], [2, 2, 100_000], [64, 300, 1]] {
        for offset in [0.0, 1e3, 1e5, 1e6, 1e7] {
            let (y, var) = errors(shape, offset);
            assert!(y <= 1e-6, "y of {shape:?} + {offset} is off by {y}");
            assert!(var <= 1e-6, "variance of {shape:?} + {offset} is off by {var}");
        }
    }
}

#[test]
fn constant_columns_are_exactly_the_bias() {
    for shape in [[37, 70, 1], [4096, 70, 1], [9000, 70, 1], [5, 3, 50], [7, 5, 6], [3, 2, 70_001]] {
        for value in [0.0f32, 0.1, 1e7 + 1.0, -3.3e30, 1e-30] {
            let [n, c, l] = shape;
            let data = vec![value; n * c * l];
            let (mut y, mut stats) = (vec![f32::NAN; data.len()], Stats::new(c).unwrap());
            forward_train(&Planes::contiguous(&data, n, c, l), &Options::default(), &mut y, &mut stats);
            assert!(y.iter().all(|&y| y == 0.0), "{shape:?} of {value}: {:?}", &y[..3]);
            assert!(stats.mean.iter().all(|&m| m == value as f64) && stats.var.iter().all(|&v| v == 0.0));
        }
    }
}

#[test]
fn huge_values_neither_overflow_nor_poison() {
    for shape in [[64, 40, 1], [6, 3, 50], [9000, 20, 1], [8, 4, 4]] {
        let mut case = case(shape, 7);
        case.x.iter_mut().for_each(|x| *x = (*x * 1e30) as f32 as f64);
        // The reference's eps is nothing beside 1e60.
        let x = Laid::new(&case.x, shape, Lay::Contiguous).to_f32();
        let dy = Laid::new(&case.dy, shape, Lay::Contiguous).to_f32();
        let (got, want) = (run!(f32, &case, x, dy), reference(&case));
        assert_near("y", &got.y, &want.y, 1e-6);
        let up = |v: &[f64]| v.iter().map(|v| v * 1e30).collect::<Vec<f64>>();
        assert_near("dx", &up(&got.dx), &up(&want.dx), 1e-5);
        assert_near("dw", &got.dw, &want.dw, 1e-5);
    }
}

#[test]
fn a_far_pivot_is_replaced() {
    // All eight places that make the pivot hold outliers.
    let (n, c) = (4000, 3);
    let mut x = to_f32(&normal(n * c, 2));
    for i in 0..8 {
        x[i * n / 8 * c..][..c].fill(3e4);
    }
    let wide: Vec<f64> = x.iter().map(|&x| x as f64).collect();
    let want = reference(&Case { x: wide, ..case([n, c, 1], 2) });
    let (mut y, mut stats) = (vec![0.0; n * c], Stats::new(c).unwrap());
    forward_train(&Planes::contiguous(&x, n, c, 1), &Options::default(), &mut y, &mut stats);
    let relative = |g: &f64, w: &f64| (g / w - 1.0).abs();
    assert!(stats.var.iter().zip(&want.var).all(|(g, w)| relative(g, w) < 1e-6));
}

#[test]
fn not_a_number_stays_in_its_channel() {
    for shape in [[20, 70, 1], [5, 4, 40], [5, 4, 8]] {
        for poison in [f32::NAN, f32::INFINITY] {
            let [n, c, l] = shape;
            let mut data = to_f32(&normal(n * c * l, 1));
            data[2 * l] = poison;
            let (mut y, mut stats) = (vec![0.0; data.len()], Stats::new(c).unwrap());
            forward_train(&Planes::contiguous(&data, n, c, l), &Options::default(), &mut y, &mut stats);
            for (i, y) in y.iter().enumerate() {
                assert_eq!(y.is_nan(), i / l % c == 2, "{shape:?}[{i}]");
            }
            assert!(!stats.var[2].is_finite() && stats.var[1].is_finite());
        }
    }
}

#[test]
fn masked_positions_do_not_count_whatever_they_hold() {
    for shape in [[50, 70, 1], [6, 5, 40], [6, 5, 7]] {
        let [n, c, l] = shape;
        let mut case = rounded(case(shape, 4));
        let mask: Vec<bool> = (0..n * l).map(|p| p % 3 != 0).collect();
        for (i, x) in case.x.iter_mut().enumerate() {
            if !mask[i / (c * l) * l + i % l] {
                *x = f64::NAN;
            }
        }
        case.mask = Some(mask);
        check(&case, (Lay::Contiguous, Lay::Contiguous));
        case.mask = Some(vec![false; n * l]);
        let x = Laid::new(&case.x, shape, Lay::Contiguous);
        let got = run!(f64, &case, x, x);
        assert!(got.y.iter().chain(&got.dx).chain(&got.dw).chain(&got.db).all(|&v| v == 0.0));
    }
}

#[test]
fn fused_relu_has_the_bits_of_a_separate_one() {
    let _settled = settled();
    for shape in [[50, 70, 1], [6, 5, 40], [6, 5, 7], [3000, 90, 1]] {
        let mut case = rounded(case(shape, 4));
        let x = Laid::new(&case.x, shape, Lay::Contiguous).to_f32();
        let dy = Laid::new(&case.dy, shape, Lay::Contiguous).to_f32();
        let plain = run!(f32, &case, x, dy);
        // The ReLU's own backward, then the plain batch norm's.
        let passed = dy.data.iter().zip(&plain.y).map(|(&dy, &y)| if y > 0.0 { dy } else { 0.0 }).collect();
        let passed = Laid { data: passed, ..Laid::new(&case.dy, shape, Lay::Contiguous).to_f32() };
        let apart = run!(f32, &case, x, passed);
        case.relu = true;
        let fused = run!(f32, &case, x, dy);
        assert!(fused.y.iter().zip(&plain.y).all(|(f, p)| *f == if *p < 0.0 { 0.0 } else { *p }));
        assert_eq!((fused.dx, fused.dw, fused.db), (apart.dx, apart.dw, apart.db));
    }
}

#[test]
fn threads_do_not_change_bits() {
    let _alone = alone();
    for shape in [[400, 512, 1], [1024, 512, 1], [9000, 70, 1], [20_000, 64, 1], [64, 3000, 1], [32, 16, 256], [2, 3, 90_000], [900, 40, 12]] {
        let case = rounded(case(shape, 8));
        let x = Laid::new(&case.x, shape, Lay::Contiguous).to_f32();
        let dy = Laid::new(&case.dy, shape, Lay::Contiguous).to_f32();
        let bits = |threads| {
            parallel::set_num_threads(threads);
            let r = run!(f32, &case, x, dy);
            [r.y, r.mean, r.var, r.dx, r.dw, r.db].map(|v| v.into_iter().map(f64::to_bits).collect::<Vec<u64>>())
        };
        let one = bits(1);
        for threads in [2, 3, 8] {
            assert!(bits(threads) == one, "{shape:?} on {threads} threads");
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for (shape, relu) in [([9, 5, 1], false), ([4, 3, 40], true), ([5, 3, 4], false)] {
        let mut case = case(shape, 6);
        case.relu = relu;
        let loss = |case: &Case| {
            let x = Laid::new(&case.x, shape, Lay::Contiguous);
            run!(f64, case, x, x).y.iter().zip(&case.dy).map(|(y, dy)| y * dy).sum::<f64>()
        };
        let (x, dy) = (Laid::new(&case.x, shape, Lay::Contiguous), Laid::new(&case.dy, shape, Lay::Contiguous));
        let got = run!(f64, &case, x, dy);
        type Field = fn(&mut Case) -> &mut Vec<f64>;
        let fields: [(Field, &[f64]); 3] = [(|c| &mut c.x, &got.dx), (|c| &mut c.w, &got.dw), (|c| &mut c.b, &got.db)];
        for (k, (field, gradient)) in fields.into_iter().enumerate() {
            let direction = noise(gradient.len(), 77 + k as u64);
            let mut shifted = |h: f64| {
                let old = field(&mut case).clone();
                field(&mut case).iter_mut().zip(&direction).for_each(|(v, d)| *v += h * d);
                let value = loss(&case);
                *field(&mut case) = old;
                value
            };
            let numeric = (shifted(1e-6) - shifted(-1e-6)) / 2e-6;
            let exact: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
            assert!((numeric - exact).abs() < 1e-6 * exact.abs().max(1.0), "field {k}: {numeric} is not {exact}");
        }
    }
}

#[test]
fn empty_batches_are_empty() {
    for [n, c, l] in [[0, 4, 1], [0, 4, 9], [3, 0, 1], [3, 4, 0]] {
        let (mut stats, mut dw) = (Stats::new(c).unwrap(), vec![1.0f32; c]);
        let x = Planes::contiguous(&[], n, c, l);
        forward_train(&x, &Options::default(), &mut [], &mut stats);
        assert_eq!(stats.count, n * l);
        let out = Gradients { dx: Some(&mut []), dw: Some(&mut dw), db: None };
        backward_train(Some(&x), &x, &Options::default(), &stats, out);
        assert!(dw.iter().all(|&d| d == 0.0));
    }
}
