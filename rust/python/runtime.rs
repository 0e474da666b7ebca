//! Threads, memory and facts about the machine.

use crate::array;
use crate::autograd::live_nodes;
use crate::kernels::{parallel, simd};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Sets how many threads kernels may use. Results do not depend on it.
///
/// Threads start at the first work worth sharing, stay awake for 200 µs after the last, and on Linux keep off the processor of the
/// thread that calls.
///
/// Args:
///     n: The calling thread and its helpers, in [1, 1024]. At first as many as the process may use processors.
///
/// Raises:
///     ValueError: n is out of range.
///
/// Example:
///     >>> treadle.set_num_threads(1)
#[pyfunction]
fn set_num_threads(n: isize) -> PyResult<()> {
    if !(1..=1024).contains(&n) {
        return Err(PyValueError::new_err(format!("set_num_threads: expected a number in [1, 1024], got {n}")));
    }
    parallel::set_num_threads(n as usize);
    Ok(())
}

/// How many threads kernels may use; 1 in a forked child.
#[pyfunction]
fn get_num_threads() -> usize {
    parallel::num_threads()
}

/// The instruction set kernels run on: "avx512", "avx2+fma", "neon" or "baseline".
#[pyfunction]
fn cpu_features() -> &'static str {
    simd::level().name()
}

/// Counters of the memory pool, in blocks and bytes, and the number of recorded operations alive.
#[pyfunction]
fn memory_stats(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let stats = array::memory_stats();
    let out = PyDict::new(py);
    out.set_item("live_blocks", stats.live_blocks)?;
    out.set_item("live_bytes", stats.live_bytes)?;
    out.set_item("cached_bytes", stats.cached_bytes)?;
    out.set_item("cap_bytes", stats.cap_bytes)?;
    out.set_item("hits", stats.hits)?;
    out.set_item("misses", stats.misses)?;
    out.set_item("live_nodes", live_nodes())?;
    Ok(out)
}

/// Returns cached memory to the system.
#[pyfunction]
fn empty_cache() {
    array::empty_cache();
}

/// Limits the memory the pool keeps for reuse, and returns what it has beyond; 0 restores the default, a quarter of what there is.
#[pyfunction]
fn set_cache_cap(bytes: usize) {
    array::set_cache_cap(bytes);
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    add_all!(m, set_num_threads, get_num_threads, cpu_features, memory_stats, empty_cache, set_cache_cap);
    Ok(())
}
