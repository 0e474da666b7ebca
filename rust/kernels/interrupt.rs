//! Whether long work is to stop: the thread that began it asks now and then, all who share it see the answer.
//!
//! Invariant: once stopped, pieces are left out and results are worthless. So only work whose result is dropped then is watched,
//! and whatever changes what was there before runs in [`whole`].

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Work between two looks, as kernels estimate it.
const PIECE_NS: usize = 5_000_000;
/// Time between two questions: each waits for the GIL.
const PAUSE: Duration = Duration::from_millis(20);

struct Watch {
    owner: usize,
    stopped: AtomicBool,
    ask: fn() -> bool,
}

thread_local! {
    static THREAD: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Relaxed)
    };
    static CURRENT: RefCell<Watched> = const { RefCell::new(Watched(None)) };
    /// Jobs of other threads that this one is in the middle of. To wait for the GIL inside one could be to wait for oneself.
    static FOREIGN: Cell<usize> = const { Cell::new(0) };
    static ASKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// What the work of a thread belongs to: something that may be stopped, or nothing of the kind.
#[derive(Clone)]
pub struct Watched(Option<Arc<Watch>>);

/// Puts back what was there before, also after a panic.
struct Restore(Watched, usize);
impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.replace(Watched(self.0.0.take()));
        FOREIGN.set(self.1);
    }
}

impl Watched {
    pub fn current() -> Watched {
        CURRENT.with_borrow(Clone::clone)
    }

    fn is_mine(&self) -> bool {
        self.0.as_ref().is_some_and(|watch| watch.owner == THREAD.with(|n| *n))
    }

    /// Whether to stop. On the thread that began the work, asks if it is time to.
    pub fn stops(&self) -> bool {
        let Some(watch) = &self.0 else { return false };
        if watch.stopped.load(Relaxed) {
            return true;
        }
        if !self.is_mine() || FOREIGN.get() > 0 || ASKED.get().is_some_and(|at| at.elapsed() < PAUSE) {
            return false;
        }
        // The answer may take code of the caller's, which is no part of this work.
        let stop = whole(watch.ask);
        ASKED.set(Some(Instant::now()));
        watch.stopped.store(stop, Relaxed);
        stop
    }

    /// How many pieces to cut work into so that it can stop between them.
    pub fn pieces(&self, work_ns: usize) -> usize {
        if self.0.is_some() { work_ns / PIECE_NS } else { 0 }
    }

    /// Runs a job of this work on whatever thread took it up.
    pub fn inside<R>(&self, job: impl FnOnce() -> R) -> R {
        let foreign = FOREIGN.get() + usize::from(!self.is_mine());
        let _before = Restore(CURRENT.replace(self.clone()), FOREIGN.replace(foreign));
        job()
    }

    /// Waits until `done`, asking meanwhile. Whoever is done unparks this thread.
    pub fn wait(&self, done: impl Fn() -> bool) {
        while !done() {
            std::thread::park_timeout(PAUSE);
            self.stops();
        }
    }
}

/// Whether the current work is to stop.
pub fn stops() -> bool {
    Watched::current().stops()
}

/// Runs `work`, asking now and then whether to stop. Says whether it was stopped; its result is worthless then.
pub fn watched<R>(ask: fn() -> bool, work: impl FnOnce() -> R) -> (R, bool) {
    let watch = Arc::new(Watch { owner: THREAD.with(|n| *n), stopped: AtomicBool::new(false), ask });
    let watched = Watched(Some(watch.clone()));
    ASKED.set(Some(Instant::now()));
    let result = watched.inside(work);
    (result, watch.stopped.load(Relaxed))
}

/// Runs what must not be left half done.
pub fn whole<R>(work: impl FnOnce() -> R) -> R {
    let _before = Restore(CURRENT.replace(Watched(None)), FOREIGN.get());
    work()
}
