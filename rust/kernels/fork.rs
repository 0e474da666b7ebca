//! Which process this is: a forked child has one thread, which may have been another than its parent's main one, and inherits what
//! the others of its parent were in the middle of.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static FORKS: AtomicUsize = AtomicUsize::new(0);
static WATCH: Once = Once::new();

extern "C" fn after_fork_in_child() {
    FORKS.fetch_add(1, Relaxed);
}

/// The same as long as this is the same process, another in a child forked after the first call.
pub fn generation() -> usize {
    // SAFETY: the handler only adds to an atomic, which is async-signal-safe.
    WATCH.call_once(|| unsafe {
        libc::pthread_atfork(None, None, Some(after_fork_in_child));
    });
    FORKS.load(Relaxed)
}
