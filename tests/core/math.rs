//! Elementary functions: the errors that `kernels/math.rs` states, over a sweep of all float32, and against values of many
//! digits for float64. `TREADLE_ALL_FLOATS=1` sweeps every float32.

use treadle::kernels::math::{Math, inverse_root, power};
use treadle::kernels::simd::{Avx2, Baseline, Far, Isa, Plain};

type F32 = fn(f32) -> f32;
type F64 = fn(f64) -> f64;

/// The sine of any argument, as loops over elements come to it.
fn sin<T: Math, I: Isa>(x: T) -> T {
    match (x.is_far::<I>(), x.is_far::<Far<I>>()) {
        (true, true) => x.sin_on::<Plain>(),
        (true, false) => x.sin_on::<Far<I>>(),
        _ => x.sin_on::<I>(),
    }
}

fn cos<T: Math, I: Isa>(x: T) -> T {
    match (x.is_far::<I>(), x.is_far::<Far<I>>()) {
        (true, true) => x.cos_on::<Plain>(),
        (true, false) => x.cos_on::<Far<I>>(),
        _ => x.cos_on::<I>(),
    }
}

/// Name, function, reference, largest error in units of the last place.
fn rows<I: Isa>() -> Vec<(&'static str, F32, F64, f64)> {
    vec![
        ("exp", f32::exp_on::<I>, f64::exp, 1.0),
        ("exp_down", |x| (-x.abs()).exp_down_on::<I>(), |x| (-x.abs()).exp(), 1.0),
        ("expm1", f32::expm1_on::<I>, f64::exp_m1, 2.0),
        ("log", f32::log_on::<I>, f64::ln, 1.0),
        ("log1p", f32::log1p_on::<I>, f64::ln_1p, 2.0),
        ("tanh", f32::tanh_on::<I>, f64::tanh, 3.0),
        ("sigmoid", f32::sigmoid_on::<I>, |x| 1.0 / (1.0 + (-x).exp()), 3.0),
        ("erf", f32::erf_on::<I>, erf, 3.0),
        ("sin", sin::<f32, I>, f64::sin, 1.0),
        ("cos", cos::<f32, I>, f64::cos, 1.0),
        ("inverse_root", |x| inverse_root(f64::from(x.abs())), |x| 1.0 / x.abs().sqrt(), 0.501),
        ("cube", power::cube::<f32, I>, |x| x * x * x, if I::FMA { 1.0 } else { 1.5 }),
        ("fourth", power::fourth::<f32, I>, |x| x * x * (x * x), if I::FMA { 1.0 } else { 2.5 }),
    ]
}

/// Series near zero, Lentz's continued fraction of erfc beyond.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a < 2.0 {
        let (mut term, mut sum) = (a, a);
        for k in 1..60 {
            term *= -a * a / k as f64;
            sum += term / (2 * k + 1) as f64;
        }
        return (sum * std::f64::consts::FRAC_2_SQRT_PI).copysign(x);
    }
    if a > 6.0 {
        return if a.is_nan() { x } else { 1f64.copysign(x) };
    }
    let mut fraction = a;
    for k in (1..80).rev() {
        fraction = a + k as f64 / 2.0 / fraction;
    }
    (1.0 - (-a * a).exp() / (fraction * std::f64::consts::PI.sqrt())).copysign(x)
}

/// The distance of two neighbouring float32 at `x`.
fn ulp32(x: f64) -> f64 {
    let x = (x.abs() as f32).clamp(f32::MIN_POSITIVE, f32::MAX);
    (f32::from_bits(x.to_bits() + 1).min(f32::MAX) as f64 - x as f64).max(f32::from_bits(1) as f64)
}

fn sweep<I: Isa>(label: &str) {
    let step = if std::env::var_os("TREADLE_ALL_FLOATS").is_some() { 1 } else { 1009 };
    for (name, f, reference, limit) in rows::<I>() {
        let mut worst = (0.0, 0.0f32);
        for bits in (0..=u32::MAX).step_by(step) {
            let x = f32::from_bits(bits);
            let (got, want) = (f(x), reference(x as f64));
            if want.is_nan() || !(want as f32).is_finite() || got.is_nan() || !got.is_finite() {
                let same = (got.is_nan() && want.is_nan()) || got == want as f32;
                let rounding = !got.is_nan() && (got as f64 - want).abs() <= 2.0 * f32::MAX as f64 * f32::EPSILON as f64;
                assert!(same || rounding, "{name} on {label}: f({x:e}) is {got:e}, expected {want:e}");
                continue;
            }
            let error = (got as f64 - want).abs() / ulp32(want);
            if error > worst.0 {
                worst = (error, x);
            }
        }
        println!("{name:>8} on {label}: {:.3} ulp at {:e}", worst.0, worst.1);
        assert!(worst.0 <= limit, "{name} on {label}: error of {} ulp at {:e}, expected at most {limit}", worst.0, worst.1);
    }
}

#[test]
fn float32_errors_with_fused_multiply_add() {
    sweep::<Avx2>("fma");
}

#[test]
fn float32_errors_without_it() {
    sweep::<Baseline>("baseline");
}

#[test]
fn edges() {
    fn check<T: Math + std::fmt::Debug>(name: &str, got: T, want: f64) {
        let got = got.to_f64();
        assert!(got == want && got.is_sign_negative() == want.is_sign_negative() || got.is_nan() && want.is_nan(), "{name}: got {got}, expected {want}");
    }
    macro_rules! edges {
        ($t:ident) => {
            let (inf, nan) = ($t::INFINITY, $t::NAN);
            for (x, want) in [(inf, f64::INFINITY), (-inf, 0.0), (nan, f64::NAN), (0.0, 1.0), (-0.0, 1.0), (-1e4, 0.0), (1e4, f64::INFINITY)] {
                check("exp", x.exp_on::<Avx2>(), want);
            }
            for (x, want) in [(-inf, 0.0), (nan, f64::NAN), (-nan, f64::NAN), (0.0, 1.0), (-0.0, 1.0), (-1e4, 0.0)] {
                check("exp_down", x.exp_down_on::<Avx2>(), want);
            }
            for (x, want) in [(inf, f64::INFINITY), (-inf, -1.0), (nan, f64::NAN), (0.0, 0.0), (-0.0, -0.0), (-1e4, -1.0)] {
                check("expm1", x.expm1_on::<Avx2>(), want);
            }
            for (x, want) in
                [(inf, f64::INFINITY), (-inf, f64::NAN), (nan, f64::NAN), (0.0, f64::NEG_INFINITY), (-0.0, f64::NEG_INFINITY), (-1.0, f64::NAN), (1.0, 0.0)]
            {
                check("log", x.log_on::<Avx2>(), want);
            }
            for (x, want) in [(inf, f64::INFINITY), (-1.0, f64::NEG_INFINITY), (-2.0, f64::NAN), (nan, f64::NAN), (0.0, 0.0), (-0.0, -0.0)] {
                check("log1p", x.log1p_on::<Avx2>(), want);
            }
            for (x, want) in [(inf, 1.0), (-inf, -1.0), (nan, f64::NAN), (0.0, 0.0), (-0.0, -0.0), (50.0, 1.0)] {
                check("tanh", x.tanh_on::<Avx2>(), want);
                check("erf", x.erf_on::<Avx2>(), want);
            }
            for (x, want) in [(inf, 1.0), (-inf, 0.0), (nan, f64::NAN), (0.0, 0.5), (-1e4, 0.0)] {
                check("sigmoid", x.sigmoid_on::<Avx2>(), want);
            }
            for (x, want) in [(f64::INFINITY, 0.0), (f64::NAN, f64::NAN), (0.0, f64::INFINITY), (-1.0, f64::NAN), (-f64::INFINITY, f64::NAN)] {
                check("inverse_root", inverse_root::<$t>(x), want);
            }
            for x in [f64::MAX, 1e300, 1e100, 4e76, 1e-60, f64::MIN_POSITIVE] {
                check("inverse_root far out", inverse_root::<$t>(x), (1.0 / x.sqrt()) as $t as f64);
            }
            for (x, sin, cos) in [(inf, f64::NAN, f64::NAN), (-inf, f64::NAN, f64::NAN), (nan, f64::NAN, f64::NAN), (0.0, 0.0, 1.0), (-0.0, -0.0, 1.0)] {
                check("sin", x.sin_on::<Avx2>(), sin);
                check("sin of any", self::sin::<$t, Avx2>(x), sin);
                check("cos", x.cos_on::<Avx2>(), cos);
            }
        };
    }
    edges!(f32);
    edges!(f64);
}

/// Lines of function, argument and value, the value to 25 digits.
const DIGITS: &str = include_str!("math_digits.txt");

#[test]
fn float64_errors() {
    fn all<I: Isa>(name: &str) -> (F64, f64) {
        match name {
            "exp" => (f64::exp_on::<I>, 1.0),
            "exp_down" => (f64::exp_down_on::<I>, 1.0),
            "expm1" => (f64::expm1_on::<I>, 2.0),
            "log" => (f64::log_on::<I>, 1.0),
            "log1p" => (f64::log1p_on::<I>, 2.0),
            "tanh" => (f64::tanh_on::<I>, 3.0),
            "sigmoid" => (f64::sigmoid_on::<I>, 3.0),
            "erf" => (f64::erf_on::<I>, 3.0),
            "sin" => (sin::<f64, I>, 1.0),
            "cos" => (cos::<f64, I>, 1.0),
            other => panic!("{other} is not in the table"),
        }
    }
    for line in DIGITS.lines() {
        let [name, x, want] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let (x, want): (f64, f64) = (x.parse().unwrap(), want.parse().unwrap());
        let also = (name == "exp" && x <= 0.0).then_some("exp_down");
        for (f, limit) in [Some(name), also].into_iter().flatten().flat_map(|name| [all::<Avx2>(name), all::<Baseline>(name)]) {
            let held = want.abs().max(f64::MIN_POSITIVE);
            let error = (f(x) - want).abs() / (f64::from_bits(held.to_bits() + 1) - held);
            // The value itself was rounded to half a unit.
            assert!(error <= limit + 0.5, "{name}({x:e}) is {:e}, expected {want:e}: {error} ulp", f(x));
        }
    }
}

/// Pairs that keep the power within float32: any two floats, exponents that fill the range, bases next to 1, negative and
/// subnormal bases.
fn pairs() -> impl Iterator<Item = (f32, f32)> {
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    (0..400_000).map(move |i| {
        let (bits, other) = (next(), next());
        let unit = other as f32 / 2f32.powi(31) - 1.0;
        match i % 5 {
            0 => (f32::from_bits(bits), f32::from_bits(other)),
            1 => {
                let x = f32::from_bits(bits & 0x7FFF_FFFF);
                (x, (unit as f64 * 110.0 / (x as f64).ln()) as f32)
            }
            2 => (1.0 + (bits as f32 / 2f32.powi(31) - 1.0) * 1e-3, unit * 1e5),
            3 => (-((bits % 4096) as f32) / 64.0, (unit * 20.0).round()),
            _ => (f32::from_bits(bits & 0x7F_FFFF), unit * 2.0),
        }
    })
}

#[test]
fn float32_powers() {
    for (isa, f) in [("fma", f32::pow_on::<Avx2> as fn(f32, f32) -> f32), ("baseline", f32::pow_on::<Baseline>)] {
        let mut worst = 0f64;
        for (x, y) in pairs() {
            let (got, want) = (f(x, y), (x as f64).powf(y as f64));
            if want.is_nan() || !(want as f32).is_finite() || !got.is_finite() {
                let rounding = (got as f64 - want).abs() <= 2.0 * ulp32(f32::MAX as f64);
                assert!(got.is_nan() && want.is_nan() || got == want as f32 || rounding, "{x:e}^{y:e} on {isa} is {got:e}, expected {want:e}");
                continue;
            }
            let error = (got as f64 - want).abs() / ulp32(want);
            assert!(error <= 2.0 && got.is_sign_negative() == want.is_sign_negative(), "{x:e}^{y:e} on {isa} is {got:e}, expected {want:e}");
            worst = worst.max(error);
        }
        println!("     pow on {isa}: {worst:.3} ulp");
    }
}

/// Every pair of these against the standard library's pow, which has the special cases of C.
#[test]
fn power_edges() {
    let sizes = [0.0, 1e-45, 1e-39, 0.5, 1.0, 2.0, 3.0, 4_194_304.5, 8_388_607.5, 8_388_609.0, 16_777_215.0, 16_777_216.0, f32::MAX, f32::INFINITY, f32::NAN];
    let all: Vec<f32> = sizes.iter().flat_map(|&s| [s, -s]).collect();
    for (&x, &y) in all.iter().flat_map(|x| all.iter().map(move |y| (x, y))) {
        let want = x.powf(y);
        for got in [x.pow_on::<Avx2>(y), x.pow_on::<Baseline>(y)] {
            let near = (got as f64 - want as f64).abs() <= 2.0 * ulp32(want as f64);
            let same = (got == want || near) && got.is_sign_negative() == want.is_sign_negative();
            assert!(same || got.is_nan() && want.is_nan(), "{x:e}^{y:e} is {got:e}, expected {want:e}");
        }
    }
}

/// Lines of base, exponent and power, the power to 25 digits.
const POWERS: &str = include_str!("power_digits.txt");

#[test]
fn float64_powers() {
    for line in POWERS.lines() {
        let [x, y, want] = line.split(' ').map(|v| v.parse::<f64>().unwrap()).collect::<Vec<_>>()[..] else { panic!("{line}") };
        for got in [x.pow_on::<Avx2>(y), x.pow_on::<Baseline>(y)] {
            // The value itself was rounded to half a unit.
            assert!((got - want).abs() <= 1.5 * ulp64(want), "{x:e}^{y:e} is {got:e}, expected {want:e}");
        }
    }
}

/// Many powers beside the standard library's.
#[test]
fn float64_powers_are_near_the_librarys() {
    let mut noise = crate::support::Noise::new(3);
    for i in 0..200_000 {
        let x = match i % 4 {
            0 => noise.uniform(-700.0, 700.0).exp(),
            1 => noise.uniform(0.5, 2.0),
            2 => 1.0 + noise.uniform(-1e-3, 1e-3),
            _ => f64::from_bits(noise.bits() >> 12),
        };
        let y = if i % 8 < 4 { noise.uniform(-760.0, 720.0) / x.ln() } else { noise.uniform(-3.0, 3.0) };
        let (got, want) = (x.pow_on::<Avx2>(y), x.powf(y));
        let near = (got - want).abs() <= 2.0 * ulp64(want) || want.is_infinite() && got > f64::MAX.next_down();
        assert!(near, "{x:e}^{y:e} is {got:e}, expected {want:e}");
    }
}

/// The distance of two neighbouring float64 at `x`.
fn ulp64(x: f64) -> f64 {
    let x = x.abs().clamp(f64::MIN_POSITIVE, f64::MAX.next_down());
    x.next_up() - x
}

#[test]
fn float64_power_edges() {
    let one: f64 = 1.0;
    let sizes = [0.0, 5e-324, 1e-310, 1e-300, 0.5, one.next_down(), 1.0, one.next_up(), 1.5, 2.0, 3.0, 2_251_799_813_685_248.5, 4_503_599_627_370_495.5];
    let large = [4_503_599_627_370_497.0, 9_007_199_254_740_991.0, 9_007_199_254_740_992.0, 1e300, f64::MAX, f64::INFINITY, f64::NAN];
    let all: Vec<f64> = sizes.iter().chain(&large).flat_map(|&s| [s, -s]).collect();
    for (&x, &y) in all.iter().flat_map(|x| all.iter().map(move |y| (x, y))) {
        let want = x.powf(y);
        for got in [x.pow_on::<Avx2>(y), x.pow_on::<Baseline>(y)] {
            let same = (got == want || (got - want).abs() <= ulp64(want)) && got.is_sign_negative() == want.is_sign_negative();
            assert!(same || got.is_nan() && want.is_nan(), "{x:e}^{y:e} is {got:e}, expected {want:e}");
        }
    }
}

/// Whole numbers of so many bits that their powers fit 128, so that those are known exactly.
#[test]
fn whole_float64_powers() {
    fn error(got: f64, want: u128) -> f64 {
        let ulp = f64::from_bits(got.to_bits() + 1) - got;
        (got as u128).abs_diff(want) as f64 / ulp
    }
    let mut state = 1u64;
    for _ in 0..100_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (m, n) = (state >> 22, state >> 33);
        let (cube, fourth) = ((m as u128).pow(3), (n as u128).pow(4));
        for (got, want, limit) in [
            (power::cube::<f64, Avx2>(m as f64), cube, 1.0),
            (power::cube::<f64, Baseline>(m as f64), cube, 1.5),
            (power::fourth::<f64, Avx2>(n as f64), fourth, 1.0),
            (power::fourth::<f64, Baseline>(n as f64), fourth, 2.5),
        ] {
            assert!(error(got, want) <= limit, "{m} cubed or {n} to the fourth is {got:e}, expected {want}");
        }
    }
    for (x, cube, fourth) in [(f64::INFINITY, f64::INFINITY, f64::INFINITY), (-1e300, f64::NEG_INFINITY, f64::INFINITY), (-0.0, -0.0, 0.0), (1e-200, 0.0, 0.0)]
    {
        assert_eq!((power::cube::<f64, Avx2>(x).to_bits(), power::fourth::<f64, Avx2>(x).to_bits()), (cube.to_bits(), fourth.to_bits()), "{x}");
    }
}
