//! What batch norm must give, computed plainly in float64, and inputs in many layouts to give the kernels.

use crate::support::Noise;
use treadle::kernels::columns::Planes;

/// Uniform numbers in −1..1.
pub fn noise(len: usize, seed: u64) -> Vec<f64> {
    Noise::new(seed).values(len, -1.0, 1.0)
}

/// Near-normal numbers: twelve uniform ones added up.
pub fn normal(len: usize, seed: u64) -> Vec<f64> {
    noise(len * 12, seed).chunks(12).map(|u| u.iter().sum::<f64>() / 2.0).collect()
}

pub fn to_f32(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

/// How x lies in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lay {
    Contiguous,
    ChannelsLast,
    /// (c, l, n) in memory.
    Transposed,
    /// Every second element of rows with a gap between them.
    Gapped,
    Reversed,
}
pub const LAYS: [Lay; 5] = [Lay::Contiguous, Lay::ChannelsLast, Lay::Transposed, Lay::Gapped, Lay::Reversed];

/// Values laid out in a buffer whose other elements are NaN.
pub struct Laid<T> {
    pub data: Vec<T>,
    pub shape: [usize; 3],
    pub strides: [isize; 3],
    pub offset: usize,
}

impl Laid<f64> {
    pub fn new(values: &[f64], [n, c, l]: [usize; 3], lay: Lay) -> Self {
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

    pub fn to_f32(&self) -> Laid<f32> {
        Laid { data: to_f32(&self.data), shape: self.shape, strides: self.strides, offset: self.offset }
    }
}

impl<T> Laid<T> {
    pub fn planes(&self) -> Planes<'_, T> {
        let [n, c, l] = self.shape;
        Planes { data: &self.data, n, c, l, strides: self.strides, offset: self.offset }
    }
}

/// What batch norm must give, in float64, position by position.
#[derive(Default)]
pub struct Reference {
    pub y: Vec<f64>,
    pub mean: Vec<f64>,
    pub var: Vec<f64>,
    pub dx: Vec<f64>,
    pub dw: Vec<f64>,
    pub db: Vec<f64>,
    /// Largest term of dx before its terms cancel: what its rounding is relative to.
    pub dx_scale: f64,
}

pub struct Case {
    pub shape: [usize; 3],
    pub x: Vec<f64>,
    pub dy: Vec<f64>,
    pub w: Vec<f64>,
    pub b: Vec<f64>,
    pub mask: Option<Vec<bool>>,
    pub relu: bool,
    /// Given statistics instead of those of the batch.
    pub given: Option<(Vec<f64>, Vec<f64>)>,
}
pub const EPS: f64 = 1e-5;

pub fn reference(case: &Case) -> Reference {
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

/// Runs the kernels of an element type on laid-out inputs.
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
        let mut stats = Stats::new(c).unwrap();
        let given = case.given.as_ref().map(|(mean, var)| (cast(mean), cast(var)));
        match &given {
            Some((mean, var)) => forward_eval(&x, mean, var, &options, &mut y),
            None => forward_train(&x, &options, &mut y, &mut stats),
        }
        let backward = |dy: Option<&Planes<$T>>, dx: &mut [$T], dw: &mut [$T], db: &mut [$T]| {
            let out = Gradients { dx: Some(dx), dw: Some(dw), db: Some(db) };
            match &given {
                Some((mean, var)) => backward_eval(dy, &x, mean, var, &options, out),
                None => backward_train(dy, &x, &options, &stats, out),
            }
        };
        let [n, _, l] = case.shape;
        if !in_pieces(&x, &options) || given.is_some() {
            let mut over = cast(&case.dy);
            backward(None, &mut over, &mut dw, &mut db);
            let sums = (dw.clone(), db.clone());
            backward(Some(&Planes::contiguous(&cast(&case.dy), n, c, l)), &mut dx, &mut dw, &mut db);
            assert!(over == dx && sums == (dw.clone(), db.clone()), "dx over dy of {:?} is not dx apart", case.shape);
        }
        backward(Some(&dy), &mut dx, &mut dw, &mut db);
        let wide = |v: Vec<$T>| v.into_iter().map(|v| v as f64).collect::<Vec<f64>>();
        Reference { y: wide(y), mean: stats.mean, var: stats.var, dx: wide(dx), dw: wide(dw), db: wide(db), dx_scale: 1.0 }
    }};
}

pub fn assert_near(name: &str, got: &[f64], want: &[f64], tolerance: f64) {
    let scale = want.iter().fold(1.0f64, |a, b| a.max(b.abs()));
    assert_near_at(name, got, want, tolerance, scale);
}

pub fn assert_near_at(name: &str, got: &[f64], want: &[f64], tolerance: f64, scale: f64) {
    assert_eq!(got.len(), want.len(), "{name}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * scale, "{name}[{i}]: {g} is not {w} (scale {scale})");
    }
}

pub fn compare(case: &Case, got: Reference, tolerance: f64) {
    let want = reference(case);
    assert_near("y", &got.y, &want.y, tolerance);
    assert_near_at("dx", &got.dx, &want.dx, tolerance, want.dx_scale.max(1.0));
    // Sums of n·l random terms are about √(n·l) long; their rounding is relative to that, however much cancels.
    let length = ((case.shape[0] * case.shape[2]) as f64).sqrt().max(1.0);
    assert_near_at("dw", &got.dw, &want.dw, tolerance, length);
    assert_near_at("db", &got.db, &want.db, tolerance, length);
    if case.given.is_none() {
        assert_near("mean", &got.mean, &want.mean, tolerance);
        assert_near("var", &got.var, &want.var, tolerance);
    }
}

pub fn case(shape: [usize; 3], seed: u64) -> Case {
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
pub fn rounded(mut case: Case) -> Case {
    for v in [&mut case.x, &mut case.dy, &mut case.w, &mut case.b] {
        v.iter_mut().for_each(|v| *v = *v as f32 as f64);
    }
    case
}
pub(crate) use run;
