//! What ops over rows must agree with: each with its definition and inputs.

use crate::support::{Noise, uniform};
use treadle::ops::{self, ClassLoss, Reduction};
use treadle::{Result, Tensor};

/// Rows and columns: one column, short rows, about a whole number of lanes, long rows, none.
const SHAPES: [(usize, usize); 16] =
    [(1, 1), (5, 1), (1, 2), (3, 4), (40, 5), (128, 10), (18, 15), (17, 16), (33, 31), (70, 32), (7, 33), (9, 64), (4, 100), (3, 2500), (0, 10), (0, 40)];

pub type Op = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// An op with the definition it must agree with, and what it takes.
pub struct Case {
    pub name: String,
    pub fused: Op,
    pub composed: Op,
    pub inputs: Vec<Tensor>,
}

impl Case {
    fn new(
        name: String,
        inputs: Vec<Tensor>,
        fused: impl Fn(&[Tensor]) -> Result<Tensor> + 'static,
        composed: impl Fn(&[Tensor]) -> Result<Tensor> + 'static,
    ) -> Case {
        Case { name, fused: Box::new(fused), composed: Box::new(composed), inputs }
    }
}

pub fn labels(n: usize, c: usize, seed: u64) -> Tensor {
    let mut noise = Noise::new(seed);
    let target: Vec<i64> = (0..n).map(|i| if i % 5 == 3 { -100 } else { noise.below(c) as i64 }).collect();
    Tensor::from_slice(&[n], &target).expect("a small tensor")
}

pub fn cross_entropies(n: usize, c: usize) -> Vec<Case> {
    let x = uniform(&[n, c], -3.0, 3.0, 5);
    let weight = uniform(&[c], 0.5, 2.0, 6);
    let mut cases = Vec::new();
    for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
        for (label_smoothing, weighted) in [(0.0, false), (0.1, false), (0.0, true), (0.3, true)] {
            let how = ClassLoss { reduction, label_smoothing, ignore_index: -100 };
            let (target, w) = (labels(n, c, 7), weighted.then(|| weight.clone()));
            let (target2, w2) = (target.clone(), w.clone());
            let cast = |w: &Option<Tensor>, x: &Tensor| w.as_ref().map(|w| ops::cast(w, x.dtype()).expect("a cast"));
            cases.push(Case::new(
                format!("cross_entropy ({n}, {c}) {reduction:?} smoothing {label_smoothing} weighted {weighted}"),
                vec![x.clone()],
                move |i| ops::cross_entropy(&i[0], &target, cast(&w, &i[0]).as_ref(), how),
                move |i| ops::cross_entropy::composed(&i[0], &target2, cast(&w2, &i[0]).as_ref(), how),
            ));
        }
    }
    cases
}

pub fn norms(n: usize, c: usize) -> Vec<Case> {
    // Rows of one element have no variance: their gradient is what is left of eps.
    let eps = if c == 1 { 0.5 } else { 1e-5 };
    let (x, w, b) = (uniform(&[n, c], -2.0, 3.0, 8), uniform(&[c], 0.5, 2.0, 9), uniform(&[c], -1.0, 1.0, 10));
    vec![
        Case::new(
            format!("layer_norm ({n}, {c})"),
            vec![x.clone()],
            move |i| ops::layer_norm(&i[0], &[c], None, None, eps),
            move |i| ops::layer_norm::composed(&i[0], 1, None, None, eps, true),
        ),
        Case::new(
            format!("layer_norm ({n}, {c}) affine"),
            vec![x.clone(), w.clone(), b],
            move |i| ops::layer_norm(&i[0], &[c], Some(&i[1]), Some(&i[2]), eps),
            move |i| ops::layer_norm::composed(&i[0], 1, Some(&i[1]), Some(&i[2]), eps, true),
        ),
        Case::new(
            format!("rms_norm ({n}, {c})"),
            vec![x, w],
            move |i| ops::rms_norm(&i[0], &[c], Some(&i[1]), eps),
            move |i| ops::layer_norm::composed(&i[0], 1, Some(&i[1]), None, eps, false),
        ),
    ]
}

pub fn softmaxes(n: usize, c: usize) -> Vec<Case> {
    let x = uniform(&[n, c], -4.0, 4.0, 11);
    vec![
        Case::new(format!("softmax ({n}, {c})"), vec![x.clone()], |i| ops::softmax(&i[0], 1), |i| ops::exp(&ops::softmax::composed(&i[0], 1)?)),
        Case::new(format!("log_softmax ({n}, {c})"), vec![x], |i| ops::log_softmax(&i[0], -1), |i| ops::softmax::composed(&i[0], 1)),
    ]
}

/// Three axes: the middle one, several trailing ones.
fn volumes() -> Vec<Case> {
    let x = uniform(&[3, 4, 5], -2.0, 2.0, 12);
    let (w, b) = (uniform(&[4, 5], 0.5, 2.0, 13), uniform(&[4, 5], -1.0, 1.0, 14));
    vec![
        Case::new("softmax axis 1".into(), vec![x.clone()], |i| ops::softmax(&i[0], 1), |i| ops::exp(&ops::softmax::composed(&i[0], 1)?)),
        Case::new("log_softmax axis 0".into(), vec![x.clone()], |i| ops::log_softmax(&i[0], 0), |i| ops::softmax::composed(&i[0], 0)),
        Case::new(
            "layer_norm of two axes".into(),
            vec![x, w, b],
            |i| ops::layer_norm(&i[0], &[4, 5], Some(&i[1]), Some(&i[2]), 1e-5),
            |i| ops::layer_norm::composed(&i[0], 2, Some(&i[1]), Some(&i[2]), 1e-5, true),
        ),
    ]
}

/// (N, C, …) and groups: no positions, few (a weight per element), about a window of them and more, images, one channel a
/// group, one group, none.
pub fn group_norms(shapes: &[(&[usize], usize)]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &(shape, groups) in shapes {
        let (x, c) = (uniform(shape, -2.0, 3.0, 12), shape[1]);
        let (w, b) = (uniform(&[c], 0.5, 2.0, 15), uniform(&[c], -1.0, 1.0, 16));
        let plain = move |i: &[Tensor]| ops::group_norm(&i[0], groups, None, None, 1e-3);
        let affine = move |i: &[Tensor]| ops::group_norm(&i[0], groups, Some(&i[1]), Some(&i[2]), 1e-3);
        let (name, define) = (format!("group_norm {shape:?} in {groups}"), ops::group_norm::composed);
        cases.push(Case::new(name.clone(), vec![x.clone()], plain, move |i| define(&i[0], groups, None, None, 1e-3)));
        let composed = move |i: &[Tensor]| define(&i[0], groups, Some(&i[1]), Some(&i[2]), 1e-3);
        cases.push(Case::new(format!("{name} affine"), vec![x, w, b], affine, composed));
    }
    cases
}

/// Columns of matrices: fewer than lanes, as many, more; more than are added up at once, both ways.
fn softmaxes_down() -> Vec<Case> {
    let mut cases = Vec::new();
    for (sizes, axis) in [([3, 4, 15], 1), ([3, 4, 16], 1), ([2, 3, 49], 1), ([2, 130, 20], 1), ([40, 3, 50], 0)] {
        let x = uniform(&sizes, -4.0, 4.0, 17);
        let composed = move |i: &[Tensor]| ops::softmax::composed(&i[0], axis);
        let raised = move |i: &[Tensor]| ops::exp(&composed(i)?);
        cases.push(Case::new(format!("softmax {sizes:?} axis {axis}"), vec![x.clone()], move |i| ops::softmax(&i[0], axis), raised));
        cases.push(Case::new(format!("log_softmax {sizes:?} axis {axis}"), vec![x], move |i| ops::log_softmax(&i[0], axis), composed));
    }
    cases
}

pub fn all_cases() -> Vec<Case> {
    let mut cases = volumes();
    cases.extend(softmaxes_down());
    cases.extend(group_norms(&[
        (&[3, 4, 5], 2),
        (&[5, 12], 3),
        (&[9, 64], 4),
        (&[2, 6, 15], 3),
        (&[3, 2, 16], 2),
        (&[2, 4, 19], 2),
        (&[3, 4, 40], 1),
        (&[2, 4, 5, 7], 2),
        (&[2, 3, 1100], 3),
        (&[0, 4, 20], 2),
        (&[3, 4, 0], 2),
    ]));
    for (n, c) in SHAPES {
        cases.extend(softmaxes(n, c));
        cases.extend(norms(n, c));
        cases.extend(cross_entropies(n, c));
    }
    cases
}
