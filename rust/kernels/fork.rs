//! Which process this is: a forked child has one thread, which may have been another than its parent's main one, and inherits what
//! the others of its parent were in the middle of.

use crate::array;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};

static FORKS: AtomicUsize = AtomicUsize::new(0);
static WATCH: Once = Once::new();
/// Works that a fork waits for.
static WHOLE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn before_fork() {
    while WHOLE.load(Acquire) > 0 {
        std::thread::yield_now();
    }
    array::before_fork();
}

extern "C" fn after_fork_in_parent() {
    array::after_fork();
}

extern "C" fn after_fork_in_child() {
    FORKS.fetch_add(1, Relaxed);
    WHOLE.store(0, Relaxed);
    array::after_fork();
}

/// Work under a lock that goes on while Python runs other threads: a fork waits for its end, so that no child finds the lock taken.
/// It begins with the GIL, which whoever forks from Python holds, and must not need it until this is dropped.
pub struct Whole(());

impl Whole {
    pub fn begin() -> Whole {
        generation();
        WHOLE.fetch_add(1, AcqRel);
        Whole(())
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        // A child that was forked without the GIL begins at none.
        let _ = WHOLE.fetch_update(AcqRel, Relaxed, |n| n.checked_sub(1));
    }
}

/// The same as long as this is the same process, another in a child forked after the first call.
pub fn generation() -> usize {
    // SAFETY: the handlers read and write atomics, and take and let go of a lock on the thread that forks.
    WATCH.call_once(|| unsafe {
        libc::pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child));
    });
    FORKS.load(Relaxed)
}
