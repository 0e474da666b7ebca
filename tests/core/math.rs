//! Elementary functions: the errors that `kernels/math.rs` states, over a sweep of all float32, and against values of many
//! digits for float64. `TREADLE_ALL_FLOATS=1` sweeps every float32.

use treadle::kernels::math::Math;
use treadle::kernels::simd::{Baseline, Fma, Isa};

type F32 = fn(f32) -> f32;
type F64 = fn(f64) -> f64;

/// Name, function, reference, largest error in units of the last place.
fn rows<I: Isa>() -> Vec<(&'static str, F32, F64, f64)> {
    vec![
        ("exp", f32::exp_on::<I>, f64::exp, 1.0),
        ("expm1", f32::expm1_on::<I>, f64::exp_m1, 2.0),
        ("log", f32::log_on::<I>, f64::ln, 1.0),
        ("log1p", f32::log1p_on::<I>, f64::ln_1p, 2.0),
        ("tanh", f32::tanh_on::<I>, f64::tanh, 3.0),
        ("sigmoid", f32::sigmoid_on::<I>, |x| 1.0 / (1.0 + (-x).exp()), 3.0),
        ("erf", f32::erf_on::<I>, erf, 3.0),
        ("sin", f32::sin_on::<I>, f64::sin, 1.0),
        ("cos", f32::cos_on::<I>, f64::cos, 1.0),
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
    let step = if std::env::var_os("TREADLE_ALL_FLOATS").is_some() { 1 } else { 4001 };
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
    sweep::<Fma>("fma");
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
                check("exp", x.exp_on::<Fma>(), want);
            }
            for (x, want) in [(inf, f64::INFINITY), (-inf, -1.0), (nan, f64::NAN), (0.0, 0.0), (-0.0, -0.0), (-1e4, -1.0)] {
                check("expm1", x.expm1_on::<Fma>(), want);
            }
            for (x, want) in
                [(inf, f64::INFINITY), (-inf, f64::NAN), (nan, f64::NAN), (0.0, f64::NEG_INFINITY), (-0.0, f64::NEG_INFINITY), (-1.0, f64::NAN), (1.0, 0.0)]
            {
                check("log", x.log_on::<Fma>(), want);
            }
            for (x, want) in [(inf, f64::INFINITY), (-1.0, f64::NEG_INFINITY), (-2.0, f64::NAN), (nan, f64::NAN), (0.0, 0.0), (-0.0, -0.0)] {
                check("log1p", x.log1p_on::<Fma>(), want);
            }
            for (x, want) in [(inf, 1.0), (-inf, -1.0), (nan, f64::NAN), (0.0, 0.0), (-0.0, -0.0), (50.0, 1.0)] {
                check("tanh", x.tanh_on::<Fma>(), want);
                check("erf", x.erf_on::<Fma>(), want);
            }
            for (x, want) in [(inf, 1.0), (-inf, 0.0), (nan, f64::NAN), (0.0, 0.5), (-1e4, 0.0)] {
                check("sigmoid", x.sigmoid_on::<Fma>(), want);
            }
        };
    }
    edges!(f32);
    edges!(f64);
}

/// Arguments and values, computed with 50 digits.
#[allow(clippy::approx_constant)]
#[rustfmt::skip]
const DIGITS: &[(&str, &[(f64, f64)])] = &[
    ("exp", &[(-745.0, 5e-324), (-700.0, 9.85967654375977e-305), (-50.0, 1.9287498479639178e-22), (-1.5, 0.22313016014842982), (-1e-09, 0.999999999), (0.3, 1.3498588075760032), (1.0, 2.718281828459045), (20.0, 485165195.4097903), (700.3, 1.3690700720098904e+304), (709.7, 1.6549840276802644e+308), (-1.0481414916324345, 0.3505887160724048), (0.17691690118380743, 1.193531907917473), (-0.520179333807683, 0.5944139398960827), (0.4156801543847779, 1.5154010969524525), (0.5028812164322161, 1.653478443448625), (-1.7378845630407476, 0.17589209596999486)]),
    ("expm1", &[(-50.0, -1.0), (-1.2, -0.6988057880877979), (-0.4, -0.32967995396436073), (-1e-05, -9.999950000166666e-06), (1e-12, 1.0000000000005e-12), (0.01, 0.010050167084168058), (0.34, 0.4049475905635938), (0.36, 0.43332941456034024), (0.7, 1.0137527074704764), (3.0, 19.085536923187668), (100.0, 2.6881171418161356e+43), (700.0, 1.0142320547350045e+304), (-1.9473280337805035, -0.8573452685716514), (1.34987632838584, 2.8569485061528965), (-0.9625839426879694, -0.6180952101562188), (-1.0626761558132145, -0.654470119881409), (1.9825793420418512, 6.261448610373007), (-0.11894596991020823, -0.11214422960696686)]),
    ("log", &[(5e-324, -744.4400719213812), (1e-310, -713.8013788281542), (1e-05, -11.512925464970229), (0.3, -1.2039728043259361), (0.7, -0.35667494393873245), (0.7072, -0.3464417676587033), (0.99999, -1.0000050000287824e-05), (1.00001, 9.999950000398841e-06), (1.41, 0.34358970439007686), (1.4143, 0.34663470904431704), (3.0, 1.0986122886681098), (10000000000.0, 23.025850929940457), (1e+300, 690.7755278982137), (4.1839426418592, 1.431254017743988), (2.387002511409681, 0.8700383994758216), (3.198950021315368, 1.162822637624133), (0.7615759558773845, -0.27236536654249), (3.1779546848430904, 1.1562378089955854), (4.341546082645051, 1.46823052491462)]),
    ("log1p", &[(-0.999999, -13.815510557935518), (-0.5, -0.6931471805599453), (-0.29, -0.3424903089467759), (-0.001, -0.0010005003335835335), (-1e-10, -1.00000000005e-10), (1e-17, 1e-17), (1e-08, 9.999999950000001e-09), (0.01, 0.009950330853168083), (0.4, 0.33647223662121295), (0.42, 0.35065687161316933), (1.0, 0.6931471805599453), (7.0, 2.0794415416798357), (1000000000000000.0, 34.538776394910684), (2.6206742398126734, 1.2866602625864385), (3.7088467624454364, 1.549443029310281), (3.3603432620942666, 1.4725507841000465), (0.32951687675271657, 0.28481562568032837), (3.7935689289712187, 1.5672752131063412), (2.9595869188272745, 1.3761397063979093)]),
    ("tanh", &[(-19.5, -1.0), (-3.0, -0.9950547536867305), (-0.9, -0.7162978701990245), (-0.3, -0.2913126124515909), (-0.0001, -9.999999966666667e-05), (1e-10, 1e-10), (0.1, 0.09966799462495582), (0.35, 0.3363755443363322), (0.55, 0.5005202111902353), (1.7, 0.935409070603099), (8.0, 0.9999997749296758), (-0.7949293619371507, -0.6611924511533901), (-1.875952994121, -0.9541307590429959), (1.4621089479157825, 0.898061423082053), (-0.10900364533813267, -0.10857396771413118), (0.8752956962632124, 0.70405475664957), (1.5152512010219268, 0.9078665117097657)]),
    ("sigmoid", &[(-700.0, 9.85967654375977e-305), (-40.0, 4.248354255291589e-18), (-3.0, 0.04742587317756678), (-0.2, 0.4501660026875221), (-1e-08, 0.4999999975), (0.1, 0.52497918747894), (1.0, 0.7310585786300049), (5.0, 0.9933071490757152), (37.0, 0.9999999999999999), (0.8565179344448102, 0.701932638047839), (1.684394670335498, 0.8434855813521108), (-0.4201463839970243, 0.3964817222611518), (1.2036350839409131, 0.7691708134156682), (-0.22151577579695747, 0.4448464005861808), (1.7423468868180843, 0.8509849184286647)]),
    ("erf", &[(-5.0, -0.9999999999984626), (-2.0, -0.9953222650189527), (-1.0001, -0.8427422995485203), (-0.9999, -0.8426592780487595), (-0.5, -0.5204998778130465), (-1e-06, -1.1283791670951364e-06), (1e-15, 1.1283791670955127e-15), (0.1, 0.1124629160182849), (0.3, 0.3286267594591274), (0.8, 0.7421009647076605), (1.0, 0.8427007929497149), (1.5, 0.9661051464753108), (2.5, 0.999593047982555), (3.7, 0.9999998328489421), (5.8, 0.9999999999999998), (1.5154666413521665, 0.9679024341862804), (-1.6101827610764912, -0.9772222705028935), (-1.4561245591973244, -0.960531724637478), (-1.1320522350674507, -0.8906150238452608), (1.8619205555928118, 0.9915403845784005), (-0.25535253349028286, -0.28199251174063045)]),
];

#[test]
fn float64_errors() {
    fn all<I: Isa>(name: &str) -> F64 {
        match name {
            "exp" => f64::exp_on::<I>,
            "expm1" => f64::expm1_on::<I>,
            "log" => f64::log_on::<I>,
            "log1p" => f64::log1p_on::<I>,
            "tanh" => f64::tanh_on::<I>,
            "sigmoid" => f64::sigmoid_on::<I>,
            "erf" => f64::erf_on::<I>,
            other => panic!("{other} is not in the table"),
        }
    }
    for (name, values) in DIGITS {
        for f in [all::<Fma>(name), all::<Baseline>(name)] {
            for &(x, want) in *values {
                let ulp = (f64::from_bits(want.abs().max(f64::MIN_POSITIVE).to_bits() + 1) - want.abs().max(f64::MIN_POSITIVE)).max(f64::from_bits(1));
                let error = (f(x) - want).abs() / ulp;
                assert!(error <= 4.0, "{name}({x:e}) is {:e}, expected {want:e}: {error} ulp", f(x));
            }
        }
    }
}
