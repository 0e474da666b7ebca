//! Per-channel normalisation of x (N, C, L): the kernels of batch norm (Ioffe & Szegedy 2015).
//!
//! ```text
//! m = mean(x), v = mean((x − m)²)        per channel, over the kept positions
//! x̂ = (x − m) / sqrt(v + eps),  y = w·x̂ + b
//! db = Σ dy,  dw = Σ dy·x̂,  dx = w / sqrt(v + eps) · (dy − db/count − x̂·dw/count)
//! ```
//!
//! Invariant: blocks are fixed by shape and strides, a channel's sum runs over short float runs that are added up in
//! float64 in index order, so neither threads nor the vector width decide a bit. Sums are of `x − pivot` with a pivot near
//! the mean, never `E[x²] − E[x]²`.
//!
//! Two orientations: `tiles` keeps many channels in registers and walks rows (L small, channels contiguous), `runs` walks
//! one channel along L. Whatever does not lie so is gathered into small buffers on the way.

mod backward;
mod forward;
mod layout;
mod runs;
mod stats;
mod tiles;

pub use backward::{Gradients, backward_eval, backward_train, in_pieces};
pub use forward::{forward_eval, forward_train};
pub use layout::Planes;
pub use stats::Stats;
pub(super) use stats::expand;

/// Everything about a batch norm that is not its input.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a, T> {
    /// w of shape (C,); 1 if absent.
    pub weight: Option<&'a [T]>,
    /// b of shape (C,); 0 if absent.
    pub bias: Option<&'a [T]>,
    /// Added to the variance.
    pub eps: f64,
    /// Which of the N·L positions count; the others become zeros.
    pub mask: Option<&'a [bool]>,
    /// Whether max(·, 0) follows, in the same sweep.
    pub relu: bool,
}

impl<T> Default for Options<'_, T> {
    fn default() -> Self {
        Options { weight: None, bias: None, eps: 1e-5, mask: None, relu: false }
    }
}

/// Bytes of a strip of channels that still lie in the second-level cache when they are read again, beside as many that are written: rows
/// a multiple of 4 KiB apart fall into few of its sets.
const CACHED: usize = 256 << 10;
/// Strips narrower than this many channels fall into too few sets of the cache.
const NARROW: usize = 128;
/// Widest strip, so that its sums stay near.
const WIDE: usize = 1024;
/// Positions of one sum, and elements of one piece, of a sweep over runs longer than the cache holds.
const SPAN: usize = 1 << 15;
/// Bytes of a piece of memory that is read as fast as a longer one, and most channels whose sums are kept at hand to make one.
const STREAM: usize = 8 << 10;
const MANY: usize = 16;
/// Below this length of a channel's runs, (C, L) is treated as C·L columns.
const SHORT: usize = 32;

/// Columns of a strip when all `rows` of `row_bytes / cols` bytes each fit the cache: `None` if strips would be too narrow.
fn strip_width(rows: usize, cols: usize, bytes_per_element: usize) -> Option<usize> {
    let fits = (CACHED / (rows * bytes_per_element).max(1)).min(WIDE);
    if fits >= cols {
        return Some(cols);
    }
    let even = cols.div_ceil(cols.div_ceil(fits.max(1))).next_multiple_of(64);
    (fits >= NARROW).then_some(even.min(fits / 64 * 64))
}

/// Neighbouring channels that take turns when all `bytes` of each fit the cache: `None` if not even one does. A run of each makes a
/// piece of memory that is read as a stream, and there are several groups to share out.
fn group_width(l: usize, c: usize, bytes: usize, bytes_per_element: usize) -> Option<usize> {
    let stream = (STREAM / (l * bytes_per_element).max(1)).min(c.div_ceil(8)).min(MANY);
    let fits = CACHED / bytes.max(1);
    (fits > 0).then(|| stream.min(fits).max(1))
}

/// Rows per block of a sweep over more than the cache holds: at most 64 blocks of at least 256 KiB.
fn sweep_rows(rows: usize, row_bytes: usize) -> usize {
    rows.div_ceil(64).max((256 << 10) / row_bytes.max(1)).next_multiple_of(tiles::TALL)
}
