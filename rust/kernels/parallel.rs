//! Work over threads: fork-join over blocks that are fixed by shape, in a pool of our own.
//!
//! Invariant: how blocks are shared out never decides a bit of the result. A block's work depends on its index alone,
//! and partial results are merged in index order by the caller.
//!
//! The pool is built at the first work that is worth it, and the thread that builds it is one of its workers.
//! A forked child has no worker threads, so it runs on one thread and can never wait for one that does not exist.

use super::interrupt::Watched;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::cell::Cell;
use std::marker::PhantomData;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

/// Work below this many nanoseconds (as the caller estimates it) stays on the calling thread: waking a sleeping
/// worker costs 10–30 µs, so less work than this would only be delayed.
pub const WORTH_SHARING_NS: usize = 40_000;

/// How long a worker stays awake after a region.
const LINGER: Duration = Duration::from_micros(200);

/// The number of the latest region.
static REGION: AtomicUsize = AtomicUsize::new(0);
/// Workers that stay awake.
static LINGERING: AtomicUsize = AtomicUsize::new(0);
static WANTED: AtomicUsize = AtomicUsize::new(0);
static POOL: Mutex<Option<(usize, Arc<ThreadPool>)>> = Mutex::new(None);
static FORKED: AtomicBool = AtomicBool::new(false);
static WATCH_FORK: Once = Once::new();

thread_local! {
    /// Set while this thread is inside a parallel region: inner regions then split inside the same pool.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

fn available() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Threads that parallel kernels may use. In a forked child this is 1.
pub fn num_threads() -> usize {
    if FORKED.load(Ordering::Relaxed) {
        return 1;
    }
    match WANTED.load(Ordering::Relaxed) {
        0 => {
            let n = available();
            WANTED.store(n, Ordering::Relaxed);
            n
        }
        n => n,
    }
}

/// Sets the number of threads for all later work. Results do not depend on it.
pub fn set_num_threads(n: usize) {
    WANTED.store(n.clamp(1, 1024), Ordering::Relaxed);
}

extern "C" fn after_fork_in_child() {
    FORKED.store(true, Ordering::Relaxed);
}

/// The pool for `threads` threads, built (or rebuilt after `set_num_threads`) on demand; `None` if the system gives none.
fn pool(threads: usize) -> Option<Arc<ThreadPool>> {
    let mut slot = POOL.lock().unwrap_or_else(|e| e.into_inner());
    if let Some((n, pool)) = slot.as_ref()
        && *n == threads
    {
        return Some(pool.clone());
    }
    // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
    WATCH_FORK.call_once(|| unsafe {
        libc::pthread_atfork(None, None, Some(after_fork_in_child));
    });
    let named = |i| format!("treadle-{i}");
    let first = ThreadPoolBuilder::new().num_threads(threads).thread_name(named).use_current_thread().build();
    // A thread can belong to one pool only; one that already does gets a pool it enters from outside.
    let built = first.or_else(|_| ThreadPoolBuilder::new().num_threads(threads).thread_name(named).build()).ok()?;
    let built = Arc::new(built);
    *slot = Some((threads, built.clone()));
    Some(built)
}

/// A set of numbered blocks that can be cut in two: what a parallel loop runs over.
pub trait Blocks: Send + Sized {
    fn count(&self) -> usize;
    fn split_at(self, mid: usize) -> (Self, Self);
}

/// Runs `f(first_block_index, part)` over contiguous parts that together cover all blocks, on several threads when
/// `work_ns` (a rough estimate of the whole work in nanoseconds) is worth it. `f` must treat every block by its index
/// alone: how many blocks a part holds is not fixed. Where work is watched, parts are left out once it is to stop.
pub fn drive<B: Blocks>(blocks: B, work_ns: usize, f: impl Fn(usize, B) + Sync) {
    let watched = Watched::current();
    if !watched.stops() {
        share(blocks, work_ns, &watched, &|first, part| {
            if !watched.stops() {
                f(first, part);
            }
        });
    }
}

fn share<B: Blocks>(blocks: B, work_ns: usize, watched: &Watched, f: &(impl Fn(usize, B) + Sync)) {
    let (count, pieces) = (blocks.count(), watched.pieces(work_ns));
    let threads = num_threads().min(count);
    if threads < 2 || work_ns < WORTH_SHARING_NS {
        return in_turn(blocks, pieces, f);
    }
    // Two parts per thread even out blocks of unequal cost without many hand-overs.
    let parts = (2 * threads).min(work_ns / (WORTH_SHARING_NS / 4)).max(pieces).clamp(2, count);
    if INSIDE.get() {
        return halve(blocks, 0, parts, watched, f);
    }
    let Some(pool) = pool(num_threads()) else {
        return in_turn(blocks, pieces, f);
    };
    let region = REGION.fetch_add(1, Ordering::Relaxed) + 1;
    enter(&pool, watched, pieces, || {
        watched.inside(|| {
            INSIDE.set(true);
            let _leave = Leave;
            halve(blocks, 0, parts, watched, f);
        });
        if LINGERING.load(Ordering::Relaxed) + 1 < threads {
            LINGERING.fetch_add(1, Ordering::Relaxed);
            rayon::spawn(move || linger(region));
        }
    });
}

/// Runs `work` in the pool. A thread that is not of the pool would only wait: where work is watched, it asks meanwhile.
fn enter(pool: &ThreadPool, watched: &Watched, pieces: usize, work: impl FnOnce() + Send) {
    if pieces < 2 || pool.current_thread_index().is_some() {
        return pool.install(work);
    }
    let (done, caller) = (AtomicBool::new(false), std::thread::current());
    pool.in_place_scope(|scope| {
        scope.spawn(|_| {
            let _done = Done(&done, &caller);
            work();
        });
        watched.wait(&done);
    });
}

/// Says that a job is over, also when it panics.
struct Done<'a>(&'a AtomicBool, &'a std::thread::Thread);
impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        self.1.unpark();
    }
}

/// Runs all blocks on this thread, in as many pieces as can be looked between.
fn in_turn<B: Blocks>(blocks: B, pieces: usize, f: &(impl Fn(usize, B) + Sync)) {
    let (count, mut rest, mut first) = (blocks.count(), blocks, 0);
    let each = count.div_ceil(pieces.max(1));
    while count - first > each {
        let (piece, others) = rest.split_at(each);
        f(first, piece);
        (first, rest) = (first + each, others);
    }
    if count > 0 {
        f(first, rest);
    }
}

/// Keeps a worker awake until the next region begins, or for [`LINGER`]: to wake one takes longer than many a region does.
fn linger(region: usize) {
    let start = Instant::now();
    while REGION.load(Ordering::Relaxed) == region && start.elapsed() < LINGER {
        for _ in 0..64 {
            std::hint::spin_loop();
        }
        // Whoever else waits for this processor goes first.
        std::thread::yield_now();
    }
    LINGERING.fetch_sub(1, Ordering::Relaxed);
}

/// Leaves the parallel region even when a block panics.
struct Leave;
impl Drop for Leave {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

fn halve<B: Blocks>(blocks: B, first: usize, parts: usize, watched: &Watched, f: &(impl Fn(usize, B) + Sync)) {
    let count = blocks.count();
    if watched.stops() {
        return;
    }
    if parts < 2 || count < 2 {
        return f(first, blocks);
    }
    let left_parts = parts.div_ceil(2);
    let mid = (count * left_parts / parts).clamp(1, count - 1);
    let (left, right) = blocks.split_at(mid);
    let job = |blocks, first, parts| watched.inside(|| halve(blocks, first, parts, watched, f));
    rayon::join(|| job(left, first, left_parts), || job(right, first + mid, parts - left_parts));
}

/// Block numbers alone, for work that writes nothing or through atomics.
pub struct Count(pub usize);
impl Blocks for Count {
    fn count(&self) -> usize {
        self.0
    }
    fn split_at(self, mid: usize) -> (Self, Self) {
        (Count(mid), Count(self.0 - mid))
    }
}

/// A slice cut into chunks of `chunk` elements (the last may be shorter).
pub struct Chunks<'a, T> {
    pub slice: &'a mut [T],
    pub chunk: usize,
}
impl<T: Send> Blocks for Chunks<'_, T> {
    fn count(&self) -> usize {
        self.slice.len().div_ceil(self.chunk)
    }
    fn split_at(self, mid: usize) -> (Self, Self) {
        let at = (mid * self.chunk).min(self.slice.len());
        let (a, b) = self.slice.split_at_mut(at);
        (Chunks { slice: a, chunk: self.chunk }, Chunks { slice: b, chunk: self.chunk })
    }
}

impl<A: Blocks, B: Blocks> Blocks for (A, B) {
    fn count(&self) -> usize {
        self.0.count()
    }
    fn split_at(self, mid: usize) -> (Self, Self) {
        let (a0, a1) = self.0.split_at(mid);
        let (b0, b1) = self.1.split_at(mid);
        ((a0, b0), (a1, b1))
    }
}

impl<A: Blocks, B: Blocks, C: Blocks> Blocks for (A, B, C) {
    fn count(&self) -> usize {
        self.0.count()
    }
    fn split_at(self, mid: usize) -> (Self, Self) {
        let (a0, a1) = self.0.split_at(mid);
        let (b0, b1) = self.1.split_at(mid);
        let (c0, c1) = self.2.split_at(mid);
        ((a0, b0, c0), (a1, b1, c1))
    }
}

/// Runs `f(i, chunk)` for every chunk of `out`.
pub fn for_chunks<T: Send>(out: &mut [T], chunk: usize, work_ns: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    drive(Chunks { slice: out, chunk: chunk.max(1) }, work_ns, |first, part| {
        for (i, c) in part.slice.chunks_mut(part.chunk).enumerate() {
            f(first + i, c);
        }
    });
}

/// A row-major matrix cut into chunks of columns: each part owns its columns of every row.
pub struct ColumnsMut<'a, T> {
    start: *mut T,
    rows: usize,
    /// Elements from one row to the next.
    stride: usize,
    cols: usize,
    chunk: usize,
    owner: PhantomData<&'a mut [T]>,
}
// SAFETY: a part stands for `&mut` access to elements that no other part reaches, which may cross threads like `&mut [T]`.
unsafe impl<T: Send> Send for ColumnsMut<'_, T> {}

impl<'a, T> ColumnsMut<'a, T> {
    /// All `cols` columns of a matrix, to be cut at multiples of `chunk`.
    pub fn new(matrix: &'a mut [T], cols: usize, chunk: usize) -> Self {
        let rows = matrix.len().checked_div(cols).unwrap_or(0);
        assert_eq!(rows * cols, matrix.len(), "a matrix holds whole rows");
        ColumnsMut { start: matrix.as_mut_ptr(), rows, stride: cols, cols, chunk: chunk.max(1), owner: PhantomData }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    /// This part's columns of row `i`.
    #[inline(always)]
    pub fn row_mut(&mut self, i: usize) -> &mut [T] {
        assert!(i < self.rows, "row out of range");
        // SAFETY: `i < rows`, so these `cols` elements lie inside the matrix borrowed in `new`, in columns that this part
        // alone owns; the borrow of `self` keeps the slice from overlapping another one.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.stride), self.cols) }
    }

    /// Chunk number `i` of this part.
    pub fn chunk_mut(&mut self, i: usize) -> ColumnsMut<'_, T> {
        let first = (i * self.chunk).min(self.cols);
        let cols = self.chunk.min(self.cols - first);
        ColumnsMut { start: self.start.wrapping_add(first), cols, owner: PhantomData, ..*self }
    }
}

impl<T: Send> Blocks for ColumnsMut<'_, T> {
    fn count(&self) -> usize {
        self.cols.div_ceil(self.chunk)
    }
    fn split_at(self, mid: usize) -> (Self, Self) {
        let left = (mid * self.chunk).min(self.cols);
        let right = ColumnsMut { start: self.start.wrapping_add(left), cols: self.cols - left, ..self };
        (ColumnsMut { cols: left, ..self }, right)
    }
}
