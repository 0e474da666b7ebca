//! Element-wise operations that are one kernel, against the definitions that they stand for.

use crate::support::{alone, bits, broadcast_element, elements, indices, relaid, uniform};
use proptest::prelude::*;
use std::slice::from_ref;
use treadle::array::{DType, Element, Scalar};
use treadle::kernels::simd::{self, Level};
use treadle::ops::{self, Reduction};
use treadle::{Result, Tensor, autograd};

const EDGES: [f64; 13] = [0.0, -0.0, 0.3, -0.3, 0.7, -0.7, 1.0, 2.0, -2.0, 1e30, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];

/// Values with edges among them, in a random layout.
fn sample(shape: &[usize], dtype: DType, seed: u64) -> Tensor {
    let mut values = elements(uniform(shape, -2.0, 2.0, seed).array());
    values.iter_mut().enumerate().filter(|(i, _)| (i + seed as usize).is_multiple_of(3)).for_each(|(i, v)| *v = EDGES[i % EDGES.len()]);
    let x = Tensor::from_slice(shape, &values).unwrap();
    relaid(&ops::cast(&x, dtype).unwrap(), seed)
}

fn floats() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::F64)]
}

fn shape() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1 => Just(0usize), 3 => Just(1), 9 => 2usize..6, 1 => 250usize..600], 0..3)
}

/// The result and the gradients of `f` under a cotangent of another layout, in bits.
fn derived(f: impl Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) -> Vec<Vec<u64>> {
    let leaves: Vec<Tensor> = inputs.iter().map(|x| x.requiring_grad().unwrap()).collect();
    let y = f(&leaves).unwrap();
    let cotangent = relaid(&ops::cast(&uniform(y.shape(), -1.0, 1.0, 5), y.dtype()).unwrap(), 6);
    let grads = autograd::grad(from_ref(&y), &leaves, Some(&[Some(cotangent)]), false, false).unwrap();
    [Some(y)].iter().chain(&grads).flatten().map(bits).collect()
}

/// The same bits, but that any NaN is as good as another and 0 as −0.
fn assert_same(name: &str, got: &[Vec<u64>], want: &[Vec<u64>]) {
    assert_eq!(got.len(), want.len(), "{name}: a gradient is missing");
    for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
        let (g, w) = (f64::from_bits(*got), f64::from_bits(*want));
        assert!(g == w || g.is_nan() && w.is_nan(), "{name}: got {g}, expected {w}");
    }
}

fn constant(x: f64, like: &Tensor) -> Result<Tensor> {
    ops::match_weak(Scalar::Float(x), like.dtype())
}

fn huber(x: &Tensor, y: &Tensor, delta: f64) -> Result<Tensor> {
    let error = ops::sub(x, y)?;
    let (size, zero) = (ops::abs(&error)?, constant(0.0, &error)?);
    let is_far = ops::greater(&size, &constant(delta, &error)?)?;
    let near = ops::mul(&constant(0.5, &error)?, &ops::square(&ops::choose(&is_far, &zero, &error)?)?)?;
    let beyond = ops::choose(&is_far, &ops::sub(&size, &constant(0.5 * delta, &error)?)?, &zero)?;
    ops::choose(&is_far, &ops::mul(&constant(delta, &error)?, &beyond)?, &near)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() })]

    #[test]
    fn choices(shape in shape(), thin in 0u64..512, dtype in prop::sample::select(DType::ALL.to_vec()), seed in 0u64..1 << 40) {
        let part = |bits: u64| shape.iter().enumerate().map(|(i, &n)| if bits >> i & 1 == 1 { 1 } else { n }).collect::<Vec<_>>();
        let condition = ops::greater(&sample(&part(thin), DType::F64, seed), &Tensor::from_slice(&[], &[0.1]).unwrap()).unwrap();
        let condition = relaid(&condition, seed + 3);
        let (a, b) = (sample(&part(thin >> 3), dtype, seed + 1), sample(&part(thin >> 6), dtype, seed + 2));
        let y = ops::choose(&condition, &a, &b).unwrap();
        let want = indices(y.shape()).iter().map(|at| {
            let taken = if broadcast_element(condition.array(), at) == 1.0 { &a } else { &b };
            broadcast_element(taken.array(), at).to_bits()
        }).collect::<Vec<_>>();
        prop_assert_eq!(bits(&y), want);
    }

    #[test]
    fn clipping_is_the_smaller_of_the_larger(shape in shape(), dtype in floats(), bounds in prop::sample::subsequence(EDGES.to_vec(), 2), given in 0..4, seed in 0u64..1 << 40) {
        let x = sample(&shape, dtype, seed);
        let [low, high] = [0, 1].map(|i| (given >> i & 1 == 1).then(|| Scalar::Float(bounds[i])));
        let composed = |x: &[Tensor]| {
            let mut y = x[0].detach();
            if let Some(low) = low {
                y = ops::maximum(&y, &ops::match_weak(low, dtype)?)?;
            }
            if let Some(high) = high {
                y = ops::minimum(&y, &ops::match_weak(high, dtype)?)?;
            }
            // What lies inside has the slope 1.
            let mut inside = ops::equal(&x[0], &x[0])?;
            if let Some(low) = low.filter(|low| low.as_f64() != f64::NEG_INFINITY) {
                inside = ops::logical_and(&inside, &ops::greater(&x[0], &ops::match_weak(low, dtype)?)?)?;
            }
            if let Some(high) = high.filter(|high| high.as_f64() != f64::INFINITY) {
                inside = ops::logical_and(&inside, &ops::less(&x[0], &ops::match_weak(high, dtype)?)?)?;
            }
            let slope = ops::choose(&inside, &x[0], &constant(0.0, &x[0])?)?;
            ops::add(&y, &ops::sub(&slope, &slope.detach())?)
        };
        let finite = ops::choose(&ops::isfinite(&x).unwrap(), &x, &constant(0.5, &x).unwrap()).unwrap();
        assert_same("clip", &derived(|x| ops::clip(&x[0], low, high), from_ref(&finite)), &derived(composed, from_ref(&finite)));
        let limit = |x: &Tensor, bound: Option<Scalar>, f: fn(&Tensor, &Tensor) -> Result<Tensor>| bound.map_or(Ok(x.clone()), |bound| f(x, &ops::match_weak(bound, dtype)?));
        let want = limit(&limit(&x, low, ops::maximum).unwrap(), high, ops::minimum).unwrap();
        prop_assert_eq!(bits(&ops::clip(&x, low, high).unwrap()), bits(&want));
    }

    #[test]
    fn huber_is_its_definition(shape in shape(), dtype in floats(), delta in prop::sample::select(vec![0.3, 0.7, 1e30, 1e300, f64::INFINITY]), seed in 0u64..1 << 40) {
        let inputs = [sample(&shape, dtype, seed), sample(&shape, dtype, seed + 1)];
        let got = derived(|x| ops::huber_loss(&x[0], &x[1], delta, Reduction::None), &inputs);
        assert_same("huber_loss", &got, &derived(|x| huber(&x[0], &x[1], delta), &inputs));
    }

    /// Far arguments among near ones get what they get alone, or the standard library's values, and change no other's bits.
    #[test]
    fn sines_hang_on_their_element_alone(shape in shape(), dtype in floats(), seed in 0u64..1 << 40) {
        let x = sample(&shape, dtype, seed);
        let far = ops::greater(&ops::abs(&x).unwrap(), &constant(5e6, &x).unwrap()).unwrap();
        let near = relaid(&ops::choose(&far, &constant(0.5, &x).unwrap(), &x).unwrap(), seed + 1);
        let of = |f: fn(f64) -> f64, single: fn(f32) -> f32, x: f64| if dtype == DType::F32 { single(x as f32) as f64 } else { f(x) };
        for (name, op) in [("sin", ops::sin as fn(&Tensor) -> Result<Tensor>), ("cos", ops::cos)] {
            let got = derived(|x| op(&x[0]), from_ref(&x));
            let mut want = derived(|x| op(&x[0]), from_ref(&near));
            let dy = elements(ops::cast(&uniform(&shape, -1.0, 1.0, 5), dtype).unwrap().array());
            for (i, x) in elements(x.array()).into_iter().enumerate().filter(|(_, x)| x.abs() > 5e6) {
                let (sin, cos) = (of(f64::sin, f32::sin, x), of(f64::cos, f32::cos, x));
                let (y, slope) = if name == "sin" { (sin, cos) } else { (cos, -sin) };
                let dx = dy[i] * slope;
                let single = ops::cast(&Tensor::from_slice(&[1], &[x]).unwrap(), dtype).unwrap();
                let alone = elements(op(&single).unwrap().array())[0];
                prop_assert!(if dtype == DType::F32 { (alone - y).abs() <= 6e-8 } else { alone == y } || y.is_nan() && alone.is_nan(), "{name} of {x} is {alone}, not {y}");
                want[0][i] = alone.to_bits();
                want[1][i] = if dtype == DType::F32 { dx as f32 as f64 } else { dx }.to_bits();
            }
            assert_same(name, &got, &want);
        }
    }

    #[test]
    fn powers_of_one_exponent_are_those_of_many(shape in shape(), dtype in floats(), e in prop::sample::select(vec![-2.0, -0.5, 0.0, 1.7, 5.0, f64::INFINITY, f64::NAN]), seed in 0u64..1 << 40) {
        let x = sample(&shape, dtype, seed);
        let many = ops::cast(&Tensor::from_slice(&[1], &[e]).unwrap(), dtype).unwrap();
        let got = derived(|x| ops::pow(&x[0], &constant(e, &x[0])?), from_ref(&x));
        let shaped = |x: &[Tensor]| ops::reshape(&ops::pow(&x[0], &many)?, &x[0].shape().iter().map(|&n| n as isize).collect::<Vec<_>>());
        assert_same("pow", &got, &derived(shaped, from_ref(&x)));
    }
}

/// What `as` gives, at vector lengths and beside them.
#[test]
fn casts_of_floats_are_held_at_the_ends() {
    fn check<T: Element>(name: &str, values: &[f64], as_i64: fn(T) -> i64, as_u8: fn(T) -> u8) {
        let values: Vec<T> = values.iter().cycle().take(values.len() * 5 + 3).map(|&v| T::from_f64(v)).collect();
        let x = Tensor::from_slice(&[values.len()], &values).unwrap();
        let [whole, byte, truth] = [DType::I64, DType::U8, DType::Bool].map(|dtype| ops::cast(&x, dtype).unwrap().into_array());
        let level = simd::level().name();
        for (i, &v) in values.iter().enumerate() {
            let got = (whole.data::<i64>()[i], byte.data::<u8>()[i], truth.data::<bool>()[i]);
            assert_eq!(got, (as_i64(v), as_u8(v), v != T::default()), "{name} {v:?} on {level}");
        }
    }
    let end = 2f64.powi(63);
    let mut values = EDGES.to_vec();
    for v in
        [end, end.next_down(), (end as f32).next_down().into(), end.next_up(), 2f64.powi(31), 255.9, 256.0, 255.0, 254.99, 1e-45, 5e-324, 4503599627370497.5]
    {
        values.extend([v, -v]);
    }
    let _alone = alone();
    for level in [Level::Avx512, Level::Avx2, Level::Baseline] {
        simd::limit_level(level);
        check::<f32>("float32", &values, |x| x as i64, |x| x as u8);
        check::<f64>("float64", &values, |x| x as i64, |x| x as u8);
    }
}
