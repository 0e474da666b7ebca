//! Batch norm kernels against a float64 reference, over layouts, masks, thread counts and offsets.

use crate::support::Noise;
use proptest::prelude::*;
use treadle::kernels::columns::{Gradients, Options, Planes, Stats, backward_eval, backward_train, forward_eval, forward_train};
use treadle::kernels::parallel;

/// Uniform numbers in −1..1.
fn noise(len: usize, seed: u64) -> Vec<f64> {
    Noise::new(seed).values(len, -1.0, 1.0)
}

/// Near-normal numbers: twelve uniform ones added up.
fn normal(len: usize, seed: u64) -> Vec<f64> {
    noise(len * 12, seed).chunks(12).map(|u| u.iter().sum::<f64>() / 2.0).collect()
}

fn to_f32(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

/// How x lies in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lay {
    Contiguous,
    ChannelsLast,
    /// (c, l, n) in memory.
    Transposed,
    /// Every second element of rows with a gap between them.
    Gapped,
    Reversed,
}
const LAYS: [Lay; 5] = [Lay::Contiguous, Lay::ChannelsLast, Lay::Transposed, Lay::Gapped, Lay::Reversed];

/// Values laid out in a buffer whose other elements are NaN.
struct Laid<T> {
    data: Vec<T>,
    shape: [usize; 3],
    strides: [isize; 3],
    offset: usize,
}

impl Laid<f64> {
    fn new(values: &[f64], [n, c, l]: [usize; 3], lay: Lay) -> Self {
        let (strides, offset, size) = match lay {
            Lay::Contiguous => ([c * l, l, 1].map(|s| s as isize), 0, n * c * l),
            Lay::ChannelsLast => ([c * l, 1, c].map(|s| s as isize), 0, n * c * l),
            Lay::Transposed => ([1, n * l, n].map(|s| s as isize), 0, n * c * l),
            Lay::Gapped => ([2 * c * l + 3, 2 * l, 2].map(|s| s as isize), 5, n * (2 * c * l + 3) + 5),
            Lay::Reversed => ([-((c * l) as isize), l as isize, 1], (n.max(1) - 1) * c * l, n * c * l),
        };
        let mut laid = Laid { data: vec![f64::NAN; size], shape: [n, c, l], strides, offset };
        for (i, &x) in values.iter().enumerate() {
            let at = [i / (c * l), i / l % c, i % l];
            let index = offset as isize + (0..3).map(|k| at[k] as isize * strides[k]).sum::<isize>();
            laid.data[index as usize] = x;
        }
        laid
    }

    fn to_f32(&self) -> Laid<f32> {
        Laid { data: to_f32(&self.data), shape: self.shape, strides: self.strides, offset: self.offset }
    }
}

impl<T> Laid<T> {
    fn planes(&self) -> Planes<'_, T> {
        let [n, c, l] = self.shape;
        Planes { data: &self.data, n, c, l, strides: self.strides, offset: self.offset }
    }
}

/// What batch norm must give, in float64, position by position.
#[derive(Default)]
struct Reference {
    y: Vec<f64>,
    mean: Vec<f64>,
    var: Vec<f64>,
    dx: Vec<f64>,
    dw: Vec<f64>,
    db: Vec<f64>,
    /// Largest term of dx before its terms cancel: what its rounding is relative to.
    dx_scale: f64,
}

struct Case {
    shape: [usize; 3],
    x: Vec<f64>,
    dy: Vec<f64>,
    w: Vec<f64>,
    b: Vec<f64>,
    mask: Option<Vec<bool>>,
    relu: bool,
    /// Given statistics instead of those of the batch.
    given: Option<(Vec<f64>, Vec<f64>)>,
}
const EPS: f64 = 1e-5;

fn reference(case: &Case) -> Reference {
    let [n, c, l] = case.shape;
    let size = n * c * l;
    let mut r = Reference { y: vec![0.0; size], dx: vec![0.0; size], ..Default::default() };
    for ch in 0..c {
        let kept = |p: &usize| case.mask.as_ref().is_none_or(|m| m[*p]);
        let places: Vec<usize> = (0..n * l).filter(kept).map(|p| (p / l * c + ch) * l + p % l).collect();
        let count = places.len() as f64;
        let mean_of = |f: &dyn Fn(usize) -> f64| places.iter().map(|&i| f(i)).sum::<f64>() / count;
        let (mut m, mut v) = (0.0, 0.0);
        if let Some((mean, var)) = &case.given {
            (m, v) = (mean[ch], var[ch]);
        } else if count > 0.0 {
            m = mean_of(&|i| case.x[i]);
            m += mean_of(&|i| case.x[i] - m);
            v = mean_of(&|i| (case.x[i] - m).powi(2));
        }
        let invstd = 1.0 / (v + EPS).sqrt();
        let hat = |i: usize| (case.x[i] - m) * invstd;
        let y = |i: usize| case.w[ch] * hat(i) + case.b[ch];
        let g = |i: usize| if case.relu && y(i) <= 0.0 { 0.0 } else { case.dy[i] };
        let db: f64 = places.iter().map(|&i| g(i)).sum();
        let dw: f64 = places.iter().map(|&i| g(i) * hat(i)).sum();
        for &i in &places {
            r.y[i] = if case.relu { y(i).max(0.0) } else { y(i) };
            let through = if case.given.is_some() { 0.0 } else { db / count + hat(i) * dw / count };
            r.dx[i] = case.w[ch] * invstd * (g(i) - through);
            r.dx_scale = r.dx_scale.max((case.w[ch] * invstd * g(i)).abs());
        }
        r.mean.push(m);
        r.var.push(v);
        r.dw.push(dw);
        r.db.push(db);
    }
    r
}

macro_rules! run {
    ($T:ident, $case:expr, $x:expr, $dy:expr) => {{
        let (case, x, dy) = ($case, &$x, &$dy);
        let (x, dy) = (x.planes(), dy.planes());
        let cast = |v: &[f64]| v.iter().map(|&v| v as $T).collect::<Vec<$T>>();
        let (w, b) = (cast(&case.w), cast(&case.b));
        let options = Options { weight: Some(&w[..]), bias: Some(&b[..]), eps: EPS, mask: case.mask.as_deref(), relu: case.relu };
        let c = case.shape[1];
        let mut y = vec![$T::NAN; case.x.len()];
        let (mut dx, mut dw, mut db) = (y.clone(), vec![$T::NAN; c], vec![$T::NAN; c]);
        let mut stats = Stats::new(c);
        let out = Gradients { dx: Some(&mut dx), dw: Some(&mut dw), db: Some(&mut db) };
        if let Some((mean, var)) = &case.given {
            let (mean, var) = (cast(mean), cast(var));
            forward_eval(&x, &mean, &var, &options, &mut y);
            backward_eval(&dy, &x, &mean, &var, &options, out);
        } else {
            forward_train(&x, &options, &mut y, &mut stats);
            backward_train(&dy, &x, &options, &stats, out);
        }
        let wide = |v: Vec<$T>| v.into_iter().map(|v| v as f64).collect::<Vec<f64>>();
        Reference { y: wide(y), mean: stats.mean, var: stats.var, dx: wide(dx), dw: wide(dw), db: wide(db), dx_scale: 1.0 }
    }};
}

fn assert_near(name: &str, got: &[f64], want: &[f64], tolerance: f64) {
    let scale = want.iter().fold(1.0f64, |a, b| a.max(b.abs()));
    assert_near_at(name, got, want, tolerance, scale);
}

fn assert_near_at(name: &str, got: &[f64], want: &[f64], tolerance: f64, scale: f64) {
    assert_eq!(got.len(), want.len(), "{name}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * scale, "{name}[{i}]: {g} is not {w} (scale {scale})");
    }
}

fn compare(case: &Case, got: Reference, tolerance: f64) {
    let want = reference(case);
    assert_near("y", &got.y, &want.y, tolerance);
    assert_near_at("dx", &got.dx, &want.dx, tolerance, want.dx_scale.max(1.0));
    assert_near("dw", &got.dw, &want.dw, tolerance);
    assert_near("db", &got.db, &want.db, tolerance);
    if case.given.is_none() {
        assert_near("mean", &got.mean, &want.mean, tolerance);
        assert_near("var", &got.var, &want.var, tolerance);
    }
}

fn case(shape: [usize; 3], seed: u64) -> Case {
    let [n, c, l] = shape;
    Case {
        shape,
        x: normal(n * c * l, seed),
        dy: normal(n * c * l, seed + 1),
        w: noise(c, seed + 2),
        b: noise(c, seed + 3),
        mask: None,
        relu: false,
        given: None,
    }
}

/// Rounds the inputs to float32, so that both types and the reference see the same numbers.
fn rounded(mut case: Case) -> Case {
    for v in [&mut case.x, &mut case.dy, &mut case.w, &mut case.b] {
        v.iter_mut().for_each(|v| *v = *v as f32 as f64);
    }
    case
}

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
            let (mut y, mut stats) = (vec![f32::NAN; data.len()], Stats::new(c));
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
    let (mut y, mut stats) = (vec![0.0; n * c], Stats::new(c));
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
            let (mut y, mut stats) = (vec![0.0; data.len()], Stats::new(c));
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
    let before = parallel::num_threads();
    for shape in [[1024, 512, 1], [9000, 70, 1], [20_000, 64, 1], [64, 3000, 1], [32, 16, 256], [2, 3, 90_000], [900, 40, 12]] {
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
    parallel::set_num_threads(before);
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
        let fields: [(fn(&mut Case) -> &mut Vec<f64>, &[f64]); 3] = [(|c| &mut c.x, &got.dx), (|c| &mut c.w, &got.dw), (|c| &mut c.b, &got.db)];
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
        let (mut stats, mut dw) = (Stats::new(c), vec![1.0f32; c]);
        let x = Planes::contiguous(&[], n, c, l);
        forward_train(&x, &Options::default(), &mut [], &mut stats);
        assert_eq!(stats.count, n * l);
        let out = Gradients { dx: Some(&mut []), dw: Some(&mut dw), db: None };
        backward_train(&x, &x, &Options::default(), &stats, out);
        assert!(dw.iter().all(|&d| d == 0.0));
    }
}
