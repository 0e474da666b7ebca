//! The caching pool: blocks of memory by size class, reused instead of returned to the system.
//!
//! Invariants: every block handed out is 64-byte aligned, at least as large as asked, and every byte of it is initialised
//! (fresh memory is zeroed, reused memory holds old values). Whoever takes or gives memory never waits for a lock. Only what users
//! call does, and a fork, so that no child finds the lock taken.

use super::classes::{ALIGN, CLASSES, HEADER, class_bytes, class_of};
use super::limit::memory_limit;
use super::poison;
use super::stats::{Counted, Counters, MemoryStats};
use std::alloc::Layout as Memory;
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Blocks of up to this many bytes are kept by the thread that freed them.
const SMALL: usize = (256 << 10) + HEADER;
/// Bytes that one thread keeps per size class.
const SMALL_CAP: usize = 1 << 20;
/// From here on blocks are maps of their own, aligned so that the kernel can back them with huge pages.
const HUGE: usize = 2 << 20;
/// What is left of a map beyond whole huge pages comes in pages of the usual size, of which only those that are written take memory,
/// unless it is at least so much of another huge page.
const NEARLY_HUGE: usize = HUGE - HUGE / 8;
/// A multiple of every usual page.
const PAGE: usize = 64 << 10;
/// A shared block serves requests of this many classes below its own too, down to a quarter of its size: batches and sequences of
/// many lengths live in the blocks of the longest.
const REACH: usize = 8;
/// How often a thread that ends tries to leave its counts.
const TRIES: usize = 1000;

/// Bytes of the map of a block.
fn map_bytes(bytes: usize) -> usize {
    bytes.next_multiple_of(if bytes % HUGE >= NEARLY_HUGE { HUGE } else { PAGE })
}

/// A block of memory and its size class.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub ptr: NonNull<u8>,
    pub class: u16,
}
// SAFETY: a block is plain memory owned by whoever holds the value; nothing in it is tied to a thread.
unsafe impl Send for Block {}

impl Block {
    fn bytes(self) -> usize {
        class_bytes(self.class as usize)
    }

    /// A block of that class of which `used` bytes are needed now.
    fn from_system(class: usize, used: usize) -> Option<Block> {
        let bytes = class_bytes(class);
        let ptr = if bytes >= HUGE { map_huge(bytes, used)? } else { allocate(bytes)? };
        Some(Block { ptr, class: class as u16 })
    }

    fn to_system(self) {
        let bytes = self.bytes();
        poison::open(self.ptr, bytes);
        if bytes >= HUGE && cfg!(target_os = "linux") {
            // SAFETY: `ptr` is a private map of exactly `map_bytes(bytes)` bytes made by `map_huge`.
            #[cfg(target_os = "linux")]
            unsafe {
                libc::munmap(self.ptr.as_ptr().cast(), map_bytes(bytes));
            }
        } else {
            // SAFETY: `ptr` came from `allocate` with this very layout.
            unsafe { std::alloc::dealloc(self.ptr.as_ptr(), memory(bytes)) }
        }
    }
}

fn memory(bytes: usize) -> Memory {
    Memory::from_size_align(bytes, ALIGN).expect("class sizes are far below isize::MAX")
}

fn allocate(bytes: usize) -> Option<NonNull<u8>> {
    // SAFETY: the layout has a size above zero.
    NonNull::new(unsafe { std::alloc::alloc_zeroed(memory(bytes)) })
}

/// An anonymous map aligned to the huge page size, in huge pages as far as `used` bytes fill them.
#[cfg(target_os = "linux")]
fn map_huge(bytes: usize, used: usize) -> Option<NonNull<u8>> {
    let size = map_bytes(bytes);
    // SAFETY: a fresh private map; the parts cut off lie inside it and are never used.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let base = libc::mmap(std::ptr::null_mut(), size + HUGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if base == libc::MAP_FAILED {
            return None;
        }
        let start = (base as usize).next_multiple_of(HUGE);
        let (head, tail) = (start - base as usize, base as usize + HUGE - start);
        if head > 0 {
            libc::munmap(base, head);
        }
        if tail > 0 {
            libc::munmap((start + size) as *mut _, tail);
        }
        libc::madvise(start as *mut _, map_bytes(used) / HUGE * HUGE, libc::MADV_HUGEPAGE);
        NonNull::new(start as *mut u8)
    }
}
#[cfg(not(target_os = "linux"))]
fn map_huge(bytes: usize, _used: usize) -> Option<NonNull<u8>> {
    allocate(bytes)
}

struct Local {
    lists: Vec<Vec<Block>>,
    /// The largest block that was needed to work in.
    scratch: Option<Block>,
    counters: Arc<Counters>,
    /// Whether they are among those of all threads.
    counted: bool,
}

impl Local {
    fn new() -> Local {
        Local { lists: Vec::new(), scratch: None, counters: Arc::default(), counted: false }
    }

    /// Adds to the counters; if another thread holds those of all right now, these join them the next time.
    fn count(&mut self, f: impl FnOnce(&Counters)) {
        if !self.counted
            && let Some(mut all) = shared()
        {
            all.counted.join(self.counters.clone());
            self.counted = true;
        }
        f(&self.counters);
    }

    fn list(&mut self, class: usize) -> &mut Vec<Block> {
        if self.lists.len() <= class {
            self.lists.resize_with(class + 1, Vec::new);
        }
        &mut self.lists[class]
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        for block in self.lists.drain(..).flatten().chain(self.scratch.take()) {
            give_shared(block);
        }
        // A thread that ends may try for long; if it fails, its counters stay among those of the others.
        let mut tries = (0..TRIES).map(|_| shared().ok_or_else(std::thread::yield_now));
        if let Some(mut all) = tries.find_map(Result::ok) {
            all.counted.retire(&self.counters);
        }
    }
}

thread_local! {
    static LOCAL: RefCell<Local> = RefCell::new(Local::new());
}

struct Shared {
    lists: Vec<Vec<Block>>,
    cached: usize,
    counted: Counted,
}

static SHARED: Mutex<Shared> = Mutex::new(Shared { lists: Vec::new(), cached: 0, counted: Counted::NONE });
/// Bytes the shared lists may hold; 0 means a quarter of the machine's memory.
static CAP: AtomicUsize = AtomicUsize::new(0);

/// The shared lists, unless another thread holds them right now.
fn shared() -> Option<MutexGuard<'static, Shared>> {
    for _ in 0..64 {
        if let Ok(guard) = SHARED.try_lock() {
            return Some(guard);
        }
        std::hint::spin_loop();
    }
    None
}

/// The shared lists, as soon as no other thread holds them.
fn shared_at_last() -> MutexGuard<'static, Shared> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// The shared lists, of a thread that forks.
    static FORKING: Cell<Option<MutexGuard<'static, Shared>>> = const { Cell::new(None) };
}

/// Before a fork: takes the shared lists, so that the child, which has no other thread, finds them whole and free.
pub fn before_fork() {
    _ = FORKING.try_with(|held| held.set(Some(shared_at_last())));
}

/// After a fork, in parent and child.
pub fn after_fork() {
    _ = FORKING.try_with(Cell::take);
}

fn cap() -> usize {
    match CAP.load(Relaxed) {
        0 => memory_limit() / 4,
        n => n,
    }
}

fn take_shared(class: usize, reach: usize) -> Option<Block> {
    let mut all = shared()?;
    let reach = if class_bytes(class) > SMALL { reach } else { 0 };
    let block = all.lists.iter_mut().skip(class).take(reach + 1).find_map(Vec::pop)?;
    all.cached -= block.bytes();
    Some(block)
}

fn give_shared(block: Block) {
    let bytes = block.bytes();
    if let Some(mut all) = shared()
        && all.cached + bytes <= cap()
    {
        if all.lists.is_empty() {
            all.lists.resize_with(CLASSES, Vec::new);
        }
        all.lists[block.class as usize].push(block);
        all.cached += bytes;
    } else {
        block.to_system();
    }
}

/// A block of at least `bytes` bytes, or `None` when there is not that much memory, even without what is cached.
pub(super) fn take(bytes: usize) -> Option<Block> {
    take_within(bytes, REACH)
}

/// As [`take`], a block of at most so many classes above the least that will do.
fn take_within(bytes: usize, reach: usize) -> Option<Block> {
    if bytes > memory_limit() {
        return None;
    }
    cached_or_new(bytes, reach).or_else(|| {
        give_up_cached(shared());
        cached_or_new(bytes, reach)
    })
}

fn cached_or_new(bytes: usize, reach: usize) -> Option<Block> {
    let class = class_of(bytes);
    let cached = |local: &mut Local| if class_bytes(class) <= SMALL { local.lists.get_mut(class)?.pop() } else { None };
    let block = LOCAL
        .try_with(|local| {
            let mut local = local.borrow_mut();
            let found = cached(&mut local).or_else(|| take_shared(class, reach));
            let hit = found.is_some();
            let block = found.or_else(|| Block::from_system(class, bytes));
            local.count(|counters| counters.took(hit, block.map(Block::bytes)));
            block
        })
        .unwrap_or_else(|_| Block::from_system(class, bytes))?;
    poison::open(block.ptr, bytes);
    poison::close(block.ptr, bytes, block.bytes());
    Some(block)
}

/// Gives a block back.
pub(super) fn give(block: Block) {
    let (class, size) = (block.class as usize, block.bytes());
    poison::close(block.ptr, 0, size);
    let kept = LOCAL.try_with(|local| {
        let mut local = local.borrow_mut();
        local.count(|counters| counters.gave(size));
        let room = size <= SMALL && local.list(class).len() < (SMALL_CAP / size).clamp(4, 512);
        if room {
            local.list(class).push(block);
        }
        room
    });
    if kept != Ok(true) {
        give_shared(block);
    }
}

/// As [`take`], a block to work in, for [`give_scratch`]. A thread keeps one, and a larger one in its place, so that works of many
/// sizes share it.
pub(super) fn take_scratch(bytes: usize) -> Option<Block> {
    let kept = LOCAL.try_with(|local| {
        let mut local = local.borrow_mut();
        let block = local.scratch.take()?;
        if block.bytes() < bytes {
            block.to_system();
            return None;
        }
        local.count(|counters| counters.took(true, Some(block.bytes())));
        poison::open(block.ptr, bytes);
        Some(block)
    });
    // It is kept for long, so not one that is larger than it need be.
    kept.ok().flatten().or_else(|| take_within(bytes, 0))
}

/// Gives back a block to work in.
pub(super) fn give_scratch(block: Block) {
    let kept = LOCAL.try_with(|local| {
        let mut local = local.borrow_mut();
        let keeps = local.scratch.is_none();
        if keeps {
            local.count(|counters| counters.gave(block.bytes()));
            poison::close(block.ptr, 0, block.bytes());
            local.scratch = Some(block);
        }
        keeps
    });
    if kept != Ok(true) {
        give(block);
    }
}

/// Reads the pool's counters, summed over threads.
pub fn memory_stats() -> MemoryStats {
    let all = shared_at_last();
    MemoryStats { cached_bytes: all.cached as i64, cap_bytes: cap() as i64, ..all.counted.sums() }
}

/// Returns the cached blocks of this thread and the shared lists to the system.
pub fn empty_cache() {
    give_up_cached(Some(shared_at_last()));
}

/// Returns what this thread has cached to the system, and what the shared lists have if they are given.
fn give_up_cached(all: Option<MutexGuard<'_, Shared>>) {
    let others = all.map(|mut all| {
        all.cached = 0;
        std::mem::take(&mut all.lists)
    });
    let mine = LOCAL.try_with(|local| {
        let mut local = local.borrow_mut();
        (std::mem::take(&mut local.lists), local.scratch.take())
    });
    let (mine, scratch) = mine.unwrap_or_default();
    mine.into_iter().chain(others.unwrap_or_default()).flatten().chain(scratch).for_each(Block::to_system);
}

/// Sets how many bytes the shared lists may keep, and returns what is beyond to the system, the largest blocks first; 0 restores the
/// default, a quarter of the memory there is.
pub fn set_cache_cap(bytes: usize) {
    CAP.store(bytes, Relaxed);
    let mut all = shared_at_last();
    let Shared { lists, cached, .. } = &mut *all;
    for list in lists.iter_mut().rev() {
        while *cached > cap()
            && let Some(block) = list.pop()
        {
            *cached -= block.bytes();
            block.to_system();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Run by `make sanitize`, which expects the sanitizer to end it.
    #[cfg(asan)]
    #[test]
    #[ignore = "the sanitizer must end it"]
    fn a_byte_behind_a_block_is_read() {
        let block = take(100).expect("memory");
        // SAFETY: none; the byte is inside the block but not among those asked for.
        let byte = unsafe { block.ptr.as_ptr().add(100).read_volatile() };
        give(block);
        assert_eq!(byte, byte);
    }

    #[test]
    fn maps_hold_their_blocks_and_waste_less_than_an_eighth_of_a_huge_page() {
        for bytes in [HUGE, HUGE + HEADER, 2 * HUGE - 1, 5 * HUGE / 2 + 7, NEARLY_HUGE + HUGE, 100 * HUGE + 3 * PAGE] {
            assert!((bytes..bytes + HUGE / 8 + 1).contains(&map_bytes(bytes)), "{bytes} in {}", map_bytes(bytes));
        }
        assert_eq!(map_bytes(HUGE + NEARLY_HUGE), 2 * HUGE);
    }
}
