//! Work over threads: fork-join over blocks that are fixed by shape.
//!
//! Invariant: how blocks are shared out never decides a bit of the result. A block's work depends on its index alone,
//! and partial results are merged in index order by the caller.
//!
//! A forked child has none of its parent's threads, so it runs on one and can never wait for one that does not exist. Work that was
//! shared when the process forked, in a handler of a signal, ends in a panic there if a thread was in the middle of a part.

use super::interrupt::Watched;
use super::workers;
use smallvec::SmallVec;
use std::marker::PhantomData;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Work below this many nanoseconds (as the caller estimates it) stays on the calling thread: to share takes 2 µs where helpers
/// are awake, and as much to call for one that sleeps, which then finds nothing left to do.
pub const WORTH_SHARING_NS: usize = 16_000;

static WANTED: AtomicUsize = AtomicUsize::new(0);

fn available() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Threads that parallel kernels may use. In a forked child this is 1.
pub fn num_threads() -> usize {
    if workers::is_forked() {
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
    // Two parts per thread even out blocks of unequal cost without many hand-overs. Where there are to be more, every thread has as many.
    let parts = (2 * threads).min(work_ns / (WORTH_SHARING_NS / 4)).max(pieces.next_multiple_of(threads)).clamp(2, count);
    let parts = cut(blocks, parts);
    workers::run(threads - 1, watched, &|thread| {
        // Every thread begins at a place of its own, the same each time: what it wrote last time is in its cache.
        let own = thread % threads * parts.len() / threads;
        for part in parts[own..].iter().chain(&parts[..own]) {
            // Whoever holds the lock takes the part.
            let taken = part.try_lock().ok().and_then(|mut part| part.take());
            if let Some((first, blocks)) = taken {
                f(first, blocks);
            }
        }
    });
}

/// What threads take for themselves: the number of its first block, and the blocks.
type Part<B> = Mutex<Option<(usize, B)>>;

fn cut<B: Blocks>(blocks: B, parts: usize) -> SmallVec<[Part<B>; 8]> {
    let (count, mut rest, mut first) = (blocks.count(), blocks, 0);
    let mut out = SmallVec::new();
    for end in (1..parts).map(|i| count * i / parts) {
        let (part, others) = rest.split_at(end - first);
        out.push(Mutex::new(Some((first, part))));
        (first, rest) = (end, others);
    }
    out.push(Mutex::new(Some((first, rest))));
    out
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
    let run = |first: usize, part: Chunks<T>| {
        for (i, c) in part.slice.chunks_mut(part.chunk).enumerate() {
            f(first + i, c);
        }
    };
    // Compiled once for a type of elements, however many kernels share out theirs.
    let run: &(dyn Fn(usize, Chunks<T>) + Sync) = &run;
    drive(Chunks { slice: out, chunk: chunk.max(1) }, work_ns, run);
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

    /// Elements from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
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
