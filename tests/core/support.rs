//! What the core's tests share: numbers that are the same everywhere, tensors in random layouts, and naive references.

use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use treadle::array::{Array, Slice};
use treadle::autograd::no_grad;
use treadle::kernels::{map, parallel, simd};
use treadle::{Tensor, ops};

/// The number of threads and the instruction set are the whole process's, and the latter decides bits.
static SETTINGS: RwLock<()> = RwLock::new(());

/// The settings as they were, which come back when this is dropped, whether the test passed or not.
pub struct Alone {
    threads: usize,
    level: simd::Level,
    _held: RwLockWriteGuard<'static, ()>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        parallel::set_num_threads(self.threads);
        simd::limit_level(self.level);
    }
}

/// For tests that change the settings: no other of these, and none of those that compare bits, runs meanwhile.
pub fn alone() -> Alone {
    let held = SETTINGS.write().unwrap_or_else(|e| e.into_inner());
    Alone { threads: parallel::num_threads(), level: simd::level(), _held: held }
}

/// For tests that compare bits: the settings stay as they are.
pub fn settled() -> RwLockReadGuard<'static, ()> {
    SETTINGS.read().unwrap_or_else(|e| e.into_inner())
}

/// A stream of numbers that depends on its seed alone (SplitMix64).
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Uniform in low..high.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((self.bits() >> 11) as f64 / (1u64 << 53) as f64)
    }

    pub fn values(&mut self, n: usize, low: f64, high: f64) -> Vec<f64> {
        (0..n).map(|_| self.uniform(low, high)).collect()
    }
}

/// A float64 tensor of uniform numbers.
pub fn uniform(shape: &[usize], low: f64, high: f64, seed: u64) -> Tensor {
    let values = Noise::new(seed).values(shape.iter().product(), low, high);
    Tensor::from_slice(shape, &values).expect("a small tensor")
}

/// A random direction for every input.
pub fn directions(inputs: &[Tensor], seed: u64) -> Vec<Tensor> {
    inputs.iter().enumerate().map(|(i, x)| uniform(x.shape(), -1.0, 1.0, seed + i as u64)).collect()
}

/// x + t·d for every float64 input and its direction, off the tape.
pub fn moved(inputs: &[Tensor], directions: &[Tensor], t: f64) -> Vec<Tensor> {
    let step = |x: &Tensor, d: &Tensor| ops::add(x, &ops::mul(d, &Tensor::from_slice(&[], &[t])?)?);
    inputs.iter().zip(directions).map(|(x, d)| no_grad(|| step(x, d)).expect("same shapes")).collect()
}

/// The same values in another layout: permuted, with gaps, or reversed, as `seed` decides.
pub fn relaid(x: &Tensor, seed: u64) -> Tensor {
    let mut noise = Noise::new(seed);
    let ndim = x.ndim();
    let mut order: Vec<usize> = (0..ndim).collect();
    for i in (1..ndim).rev() {
        order.swap(i, noise.below(i + 1));
    }
    let mut back = vec![0; ndim];
    order.iter().enumerate().for_each(|(i, &axis)| back[axis] = i);
    let steps: Vec<isize> = (0..ndim).map(|_| [1, 1, 2, -1, -2][noise.below(5)]).collect();
    // A parent whose slice, permuted back, is x.
    let permuted: Vec<usize> = order.iter().map(|&a| x.shape()[a]).collect();
    let sizes: Vec<usize> = permuted.iter().zip(&steps).map(|(&n, &s)| n * s.unsigned_abs() + 1).collect();
    let view = |parent: &Array| {
        let cut = permuted.iter().zip(&steps).enumerate().fold(parent.clone(), |parent, (axis, (&len, &step))| {
            let start = if step > 0 { 0 } else { (len.max(1) - 1) * step.unsigned_abs() };
            parent.slice(axis, Slice { start, step, len })
        });
        cut.permute(&back)
    };
    let parent = uniform(&sizes, -9.0, 9.0, seed);
    let mut values = elements(parent.array());
    for (at, value) in positions(&view(parent.array())).into_iter().zip(elements(x.array())) {
        values[at] = value;
    }
    let parent = Tensor::from_slice(&sizes, &values).expect("a small tensor");
    // Cast before it is cut: a cast writes what it makes in row-major order.
    Tensor::constant(view(&map::cast(parent.array(), x.dtype()).expect("a small tensor")))
}

/// Every index of a shape, in row-major order.
pub fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    let size: usize = shape.iter().product();
    (0..size)
        .map(|mut flat| {
            let mut index = vec![0; shape.len()];
            for axis in (0..shape.len()).rev() {
                index[axis] = flat % shape[axis];
                flat /= shape[axis];
            }
            index
        })
        .collect()
}

/// Where each element lies in the buffer, in row-major order of the shape.
fn positions(x: &Array) -> Vec<usize> {
    let layout = x.layout();
    let place = |index: Vec<usize>| {
        let offset: isize = index.iter().enumerate().map(|(axis, &i)| i as isize * layout.strides()[axis]).sum();
        (layout.offset as isize + offset) as usize
    };
    indices(x.shape()).into_iter().map(place).collect()
}

/// The elements as float64, in row-major order: the naive way to read an array.
pub fn elements(x: &Array) -> Vec<f64> {
    treadle::with_dtype!(x.dtype(), T => {
        use treadle::array::Element;
        let data = x.data::<T>();
        positions(x).into_iter().map(|at| data[at].to_f64()).collect()
    })
}

/// The element of `x` that NumPy's broadcasting pairs with `index` of the wider shape.
pub fn broadcast_element(x: &Array, index: &[usize]) -> f64 {
    let skip = index.len() - x.ndim();
    let layout = x.layout();
    let offset: isize = (0..x.ndim()).map(|axis| if x.shape()[axis] == 1 { 0 } else { index[skip + axis] as isize * layout.strides()[axis] }).sum();
    let at = (layout.offset as isize + offset) as usize;
    treadle::with_dtype!(x.dtype(), T => {
        use treadle::array::Element;
        x.data::<T>()[at].to_f64()
    })
}

/// Asserts that numbers agree to a tolerance relative to the largest of them (at least 1); NaN equals NaN.
pub fn assert_close(name: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{name}: number of elements");
    let scale = want.iter().filter(|w| w.is_finite()).fold(1.0f64, |m, w| m.max(w.abs()));
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let same = g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= tolerance * scale;
        assert!(same, "{name}: element {i} is {g}, expected {w}");
    }
}

/// The bits of a float32 or float64 tensor.
pub fn bits(x: &Tensor) -> Vec<u64> {
    elements(x.array()).into_iter().map(f64::to_bits).collect()
}
