//! What the pool counts. Every thread has counters of its own, which are added up when somebody asks.
//!
//! Invariant: the sums are over all threads that ever were. One that ends leaves its counts behind, and takes no memory any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// What the pool holds and how well it does.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MemoryStats {
    /// Blocks in use.
    pub live_blocks: i64,
    /// Bytes in use, rounded up to size classes.
    pub live_bytes: i64,
    /// Bytes in the shared lists, ready for reuse.
    pub cached_bytes: i64,
    /// Blocks served from the pool.
    pub hits: i64,
    /// Blocks that had to come from the system.
    pub misses: i64,
    /// Bytes the shared lists may keep.
    pub cap_bytes: i64,
}

/// Counters of one thread. Only their owner writes them, so no locked instruction is needed; anyone may read.
#[derive(Default)]
pub(super) struct Counters {
    live_blocks: AtomicI64,
    live_bytes: AtomicI64,
    hits: AtomicI64,
    misses: AtomicI64,
}

fn bump(counter: &AtomicI64, by: i64) {
    counter.store(counter.load(Relaxed) + by, Relaxed);
}

impl Counters {
    /// A block was asked for: found in the pool or not, and of `got` bytes, if there was one to be had.
    pub fn took(&self, hit: bool, got: Option<usize>) {
        bump(if hit { &self.hits } else { &self.misses }, 1);
        if let Some(bytes) = got {
            bump(&self.live_blocks, 1);
            bump(&self.live_bytes, bytes as i64);
        }
    }

    /// A block of `bytes` bytes was given back.
    pub fn gave(&self, bytes: usize) {
        bump(&self.live_blocks, -1);
        bump(&self.live_bytes, -(bytes as i64));
    }

    fn add_to(&self, sums: &mut MemoryStats) {
        sums.live_blocks += self.live_blocks.load(Relaxed);
        sums.live_bytes += self.live_bytes.load(Relaxed);
        sums.hits += self.hits.load(Relaxed);
        sums.misses += self.misses.load(Relaxed);
    }
}

/// The counters of the threads that run, and the sums of those that have ended.
pub(super) struct Counted {
    threads: Vec<Arc<Counters>>,
    ended: MemoryStats,
}

impl Counted {
    pub const NONE: Counted = {
        let ended = MemoryStats { live_blocks: 0, live_bytes: 0, cached_bytes: 0, hits: 0, misses: 0, cap_bytes: 0 };
        Counted { threads: Vec::new(), ended }
    };

    pub fn join(&mut self, counters: Arc<Counters>) {
        self.threads.push(counters);
    }

    /// Keeps the counts of a thread that ends, whether it had joined or not, and forgets the thread.
    pub fn retire(&mut self, counters: &Arc<Counters>) {
        counters.add_to(&mut self.ended);
        if let Some(at) = self.threads.iter().rposition(|other| Arc::ptr_eq(other, counters)) {
            self.threads.swap_remove(at);
        }
    }

    pub fn sums(&self) -> MemoryStats {
        let mut sums = self.ended;
        self.threads.iter().for_each(|counters| counters.add_to(&mut sums));
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_ended_is_counted_and_forgotten() {
        let (mut all, [joined, late]) = (Counted::NONE, [(); 2].map(|()| Arc::new(Counters::default())));
        all.join(joined.clone());
        joined.took(true, Some(128));
        late.gave(128);
        let before = all.sums();
        assert_eq!((before.live_blocks, before.live_bytes, before.hits), (1, 128, 1));
        all.retire(&joined);
        all.retire(&late);
        assert_eq!((all.threads.len(), Arc::strong_count(&joined)), (0, 1));
        assert_eq!(all.sums(), MemoryStats { live_blocks: 0, live_bytes: 0, ..before });
    }
}
