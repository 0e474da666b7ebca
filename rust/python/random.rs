//! Random tensors, and the generators they are drawn from.

use super::convert::{check_device, kind, one_shape_of, only_tensor, repr, shape_of};
use super::dtype::optional_dtype;
use super::error::{is_refusal, run_short, run_whole};
use super::functions::{Object, finish};
use super::tensor::PyTensor;
use crate::array::{DType, Dims};
use crate::kernels::random::{Drawing, Generator, check_probability};
use crate::{Result, Tensor, ops};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;
use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A stream of random numbers (Philox4x32-10), the same on every platform and at any number of threads.
///
/// Args:
///     seed: An integer in [0, 2**64).
///
/// Example:
///     >>> g = treadle.Generator(7)
///     >>> state = g.get_state()
///     >>> a = treadle.rand(3, generator=g)
///     >>> g.set_state(state)
///     >>> b = treadle.rand(3, generator=g)  # equals a
///
/// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
#[pyclass(name = "Generator", module = "treadle", frozen)]
pub struct PyGenerator(Mutex<Generator>);

impl PyGenerator {
    /// Held only while the GIL is, and no longer than it takes to draw: the numbers are computed afterwards. So nobody waits for
    /// it while this thread waits for the GIL, and it is free wherever the process may be forked.
    fn lock(&self) -> MutexGuard<'_, Generator> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(expected: &str, got: &Bound<'_, PyAny>) -> PyErr {
    repr(got).map_or_else(|error| error, |got| PyValueError::new_err(format!("{expected}, got {got}")))
}

/// What `object` was extracted as; integers too large for it are a ValueError.
fn in_range<T>(object: &Bound<'_, PyAny>, expected: &str, extracted: PyResult<T>) -> PyResult<T> {
    extracted.map_err(|e| if e.is_instance_of::<PyOverflowError>(object.py()) { refused(expected, object) } else { e })
}

fn checked_seed(seed: &Bound<'_, PyAny>) -> PyResult<u64> {
    seed.extract().map_err(|e| if is_refusal(seed.py(), &e) { refused("generator: expected a seed in [0, 2**64)", seed) } else { e })
}

#[pymethods]
impl PyGenerator {
    #[new]
    #[pyo3(signature = (seed=None))]
    fn new(seed: Option<&Bound<'_, PyAny>>) -> PyResult<PyGenerator> {
        Ok(PyGenerator(Mutex::new(Generator::new(seed.map_or(Ok(0), checked_seed)?))))
    }
    /// Starts over with another seed, and returns the generator.
    fn manual_seed<'py>(slf: Bound<'py, Self>, seed: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        *slf.get().lock() = Generator::new(checked_seed(seed)?);
        Ok(slf)
    }
    /// The seed the stream began with.
    #[getter]
    fn seed(&self) -> u64 {
        self.lock().seed()
    }
    /// (seed, counter): what `set_state` continues from.
    fn get_state(&self) -> (u64, u64) {
        self.lock().state()
    }
    /// Continues where a generator with this state stopped.
    fn set_state(&self, state: &Bound<'_, PyAny>) -> PyResult<()> {
        let expected = "set_state: expected a state (seed, counter) of two integers in [0, 2**64)";
        let found = state.extract().map_err(|e| if is_refusal(state.py(), &e) { refused(expected, state) } else { e })?;
        *self.lock() = Generator::from_state(found);
        Ok(())
    }
    fn __repr__(&self) -> String {
        let (seed, counter) = self.lock().state();
        format!("Generator(seed={seed}, counter={counter})")
    }
    fn __reduce__(slf: Bound<'_, Self>) -> (Bound<'_, PyAny>, (u64,), (u64, u64)) {
        let state = slf.get().get_state();
        (slf.get_type().into_any(), (state.0,), state)
    }
    fn __setstate__(&self, state: &Bound<'_, PyAny>) -> PyResult<()> {
        self.set_state(state)
    }
}

/// The default generator of all threads.
fn shared_generator(py: Python<'_>) -> PyResult<&Py<PyGenerator>> {
    static SHARED: PyOnceLock<Py<PyGenerator>> = PyOnceLock::new();
    SHARED.get_or_try_init(py, || Py::new(py, PyGenerator(Mutex::new(Generator::new(0)))))
}

thread_local! {
    /// What stands in for the default generator on this thread.
    static OWN: RefCell<Option<Py<PyGenerator>>> = const { RefCell::new(None) };
}

/// The generator used where none is given.
#[pyfunction]
fn default_generator(py: Python<'_>) -> PyResult<Py<PyGenerator>> {
    match OWN.with_borrow(|own| own.as_ref().map(|own| own.clone_ref(py))) {
        Some(own) => Ok(own),
        None => shared_generator(py).map(|shared| shared.clone_ref(py)),
    }
}

/// Lets a generator, or none, stand in for the default one on this thread, and returns what did before.
#[pyfunction]
#[pyo3(signature = (own))]
fn _set_default_generator(own: Option<Py<PyGenerator>>) -> Option<Py<PyGenerator>> {
    OWN.replace(own)
}

/// Seeds the default generator, and returns it.
#[pyfunction]
fn manual_seed(py: Python<'_>, seed: &Bound<'_, PyAny>) -> PyResult<Py<PyGenerator>> {
    let seed = checked_seed(seed)?;
    let generator = default_generator(py)?;
    *generator.get().lock() = Generator::new(seed);
    Ok(generator)
}

/// What every random function takes besides its distribution.
struct Wanted {
    shape: Dims,
    dtype: Option<DType>,
    requires_grad: bool,
}

impl Wanted {
    fn new(shape: &[usize], dtype: Object<'_, '_>, requires_grad: bool, device: Object<'_, '_>) -> PyResult<Wanted> {
        check_device(device)?;
        Ok(Wanted { shape: Dims::new(shape)?, dtype: optional_dtype(dtype)?, requires_grad })
    }

    fn draw(
        self,
        py: Python<'_>,
        given: Object<'_, '_>,
        natural: DType,
        f: impl FnOnce(&mut Generator, Dims, DType) -> Result<Drawing<'static>>,
    ) -> PyResult<PyTensor> {
        let generator = given_or_default(py, given)?;
        let dtype = self.dtype.unwrap_or(natural);
        let drawing = run_short(|| f(&mut generator.get().lock(), self.shape, dtype))?;
        let array = run_whole(py, self.shape.size()?, || drawing.compute())?;
        finish(Tensor::constant(array), self.requires_grad)
    }
}

/// Uniform in [0, 1).
#[pyfunction]
#[pyo3(signature = (*shape, generator=None, dtype=None, requires_grad=false, device=None))]
fn rand(
    py: Python<'_>,
    shape: &Bound<'_, PyTuple>,
    generator: Object<'_, '_>,
    dtype: Object<'_, '_>,
    requires_grad: bool,
    device: Object<'_, '_>,
) -> PyResult<PyTensor> {
    Wanted::new(&shape_of(shape)?, dtype, requires_grad, device)?.draw(py, generator, DType::F32, |g, s, d| g.uniform(s, 0.0, 1.0, d))
}

/// Normally distributed with mean 0 and standard deviation 1.
#[pyfunction]
#[pyo3(signature = (*shape, generator=None, dtype=None, requires_grad=false, device=None))]
fn randn(
    py: Python<'_>,
    shape: &Bound<'_, PyTuple>,
    generator: Object<'_, '_>,
    dtype: Object<'_, '_>,
    requires_grad: bool,
    device: Object<'_, '_>,
) -> PyResult<PyTensor> {
    Wanted::new(&shape_of(shape)?, dtype, requires_grad, device)?.draw(py, generator, DType::F32, |g, s, d| g.normal(s, 0.0, 1.0, d))
}

/// A number that a distribution has.
fn parameter(op: &str, object: &Bound<'_, PyAny>) -> PyResult<f64> {
    object.extract().or_else(|error: PyErr| match error.is_instance_of::<PyTypeError>(object.py()) || object.is_instance_of::<PyTensor>() {
        true => Err(PyTypeError::new_err(format!("{op}: expected the shape first and numbers after it, got {}", kind(object)?))),
        false => Err(error),
    })
}

fn of_uniform(object: &Bound<'_, PyAny>) -> PyResult<f64> {
    parameter("uniform", object)
}

fn of_normal(object: &Bound<'_, PyAny>) -> PyResult<f64> {
    parameter("normal", object)
}

fn of_bernoulli(object: &Bound<'_, PyAny>) -> PyResult<f64> {
    parameter("bernoulli", object)
}

/// Uniform in [low, high).
#[pyfunction]
#[pyo3(signature = (shape, low=0.0, high=1.0, generator=None, dtype=None, requires_grad=false, device=None))]
#[allow(clippy::too_many_arguments)]
fn uniform(
    py: Python<'_>,
    shape: &Bound<'_, PyAny>,
    #[pyo3(from_py_with = of_uniform)] low: f64,
    #[pyo3(from_py_with = of_uniform)] high: f64,
    generator: Object<'_, '_>,
    dtype: Object<'_, '_>,
    requires_grad: bool,
    device: Object<'_, '_>,
) -> PyResult<PyTensor> {
    Wanted::new(&one_shape_of(shape)?, dtype, requires_grad, device)?.draw(py, generator, DType::F32, move |g, s, d| g.uniform(s, low, high, d))
}

/// Normally distributed.
#[pyfunction]
#[pyo3(signature = (shape, mean=0.0, std=1.0, generator=None, dtype=None, requires_grad=false, device=None))]
#[allow(clippy::too_many_arguments)]
fn normal(
    py: Python<'_>,
    shape: &Bound<'_, PyAny>,
    #[pyo3(from_py_with = of_normal)] mean: f64,
    #[pyo3(from_py_with = of_normal)] std: f64,
    generator: Object<'_, '_>,
    dtype: Object<'_, '_>,
    requires_grad: bool,
    device: Object<'_, '_>,
) -> PyResult<PyTensor> {
    Wanted::new(&one_shape_of(shape)?, dtype, requires_grad, device)?.draw(py, generator, DType::F32, move |g, s, d| g.normal(s, mean, std, d))
}

/// Integers (int64) uniform in [low, high).
#[pyfunction]
#[pyo3(signature = (low, high, shape, generator=None, device=None))]
fn randint(
    py: Python<'_>,
    low: &Bound<'_, PyAny>,
    high: &Bound<'_, PyAny>,
    shape: &Bound<'_, PyAny>,
    generator: Object<'_, '_>,
    device: Object<'_, '_>,
) -> PyResult<PyTensor> {
    let bound = |object: &Bound<'_, PyAny>| -> PyResult<i64> { in_range(object, "randint: expected bounds that fit int64", object.extract()) };
    let (low, high) = (bound(low)?, bound(high)?);
    Wanted::new(&one_shape_of(shape)?, None, false, device)?.draw(py, generator, DType::I64, move |g, s, _| g.integers(s, low, high))
}

/// 1 with probability p, otherwise 0.
#[pyfunction]
#[pyo3(signature = (shape, p, generator=None, dtype=None, device=None))]
fn bernoulli(
    py: Python<'_>,
    shape: &Bound<'_, PyAny>,
    #[pyo3(from_py_with = of_bernoulli)] p: f64,
    generator: Object<'_, '_>,
    dtype: Object<'_, '_>,
    device: Object<'_, '_>,
) -> PyResult<PyTensor> {
    Wanted::new(&one_shape_of(shape)?, dtype, false, device)?.draw(py, generator, DType::F32, move |g, s, d| g.bernoulli(s, p, 1.0, d))
}

/// The numbers 0 to n - 1 (int64) in random order.
#[pyfunction]
#[pyo3(signature = (n, generator=None))]
fn randperm(py: Python<'_>, n: &Bound<'_, PyAny>, generator: Object<'_, '_>) -> PyResult<PyTensor> {
    let n = in_range(n, "randperm: expected a count of at least 0 that fits memory", n.extract())?;
    Wanted::new(&[n], None, false, None)?.draw(py, generator, DType::I64, move |g, _, _| g.permutation(n))
}

/// Zeroes elements with probability p and scales the others by 1 / (1 - p); the same values when not training.
#[pyfunction]
#[pyo3(signature = (x, p=0.5, training=true, generator=None))]
fn dropout(py: Python<'_>, x: &Bound<'_, PyAny>, p: f64, training: bool, generator: Object<'_, '_>) -> PyResult<PyTensor> {
    let x = only_tensor(x, "dropout")?;
    check_probability("dropout", p)?;
    if !training || p == 0.0 {
        return run_short(|| Ok(ops::unchanged(&x))).map(PyTensor::new);
    }
    let generator = given_or_default(py, generator)?;
    let mut start = run_short(|| {
        let mut generator = generator.get().lock();
        let start = *generator;
        generator.dropout(x.array(), p).map(|_| start)
    })?;
    run_whole(py, x.size(), || ops::dropout(&x, p, &mut start)).map(PyTensor::new)
}

/// What to draw from. The default generator of all threads is as good as none, so that what stands in for it does so there as well.
fn given_or_default(py: Python<'_>, given: Object<'_, '_>) -> PyResult<Py<PyGenerator>> {
    match given {
        Some(given) if !given.is(shared_generator(py)?) => match given.cast::<PyGenerator>() {
            Ok(given) => Ok(given.clone().unbind()),
            Err(_) => {
                let kind = given.get_type().fully_qualified_name()?;
                Err(PyTypeError::new_err(format!("generator: expected a treadle.Generator or None, got {kind}")))
            }
        },
        _ => default_generator(py),
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyGenerator>()?;
    add_all!(m, default_generator, _set_default_generator, manual_seed, rand, randn, uniform, normal, randint, bernoulli, randperm, dropout);
    Ok(())
}
