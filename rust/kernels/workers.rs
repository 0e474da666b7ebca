//! The threads that help a caller with its work. They are started at the first work that is worth sharing; a caller always
//! works itself, so nobody ever waits for a thread that has not begun.
//!
//! Invariant: what a caller shares lies on its stack. A helper enters a [`Region`] only while that is listed, under the lock of the
//! list; the caller takes it off the list, then waits until every helper has left.
//!
//! To wake a sleeping thread takes 50 µs and more in a virtual machine, longer than many a region takes. So whoever waits, on
//! either side, stays awake for [`LINGER`] first.

use super::fork;
use super::interrupt::Watched;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long one who waits stays awake.
const LINGER: Duration = Duration::from_micros(200);
/// Looks between two questions what time it is.
const LOOKS: usize = 16;

/// What is shared: called once by the caller with 0, and by every helper with the helper's number.
type Job<'a> = &'a (dyn Fn(usize) + Sync);

struct Region {
    /// Lives as long as the region is listed or somebody is inside.
    job: Job<'static>,
    watched: Watched,
    /// Helpers that may still enter.
    room: AtomicUsize,
    inside: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    caller: Thread,
    caller_sleeps: AtomicBool,
}

/// Everything that is listed, and who could work on it.
struct Team {
    regions: Vec<Arc<Region>>,
    threads: Vec<JoinHandle<()>>,
    asleep: usize,
    /// The processor that the threads keep off.
    off: Option<usize>,
}

static TEAM: Mutex<Team> = Mutex::new(Team { regions: Vec::new(), threads: Vec::new(), asleep: 0, off: None });
static WORK: Condvar = Condvar::new();
/// Counts the regions that were ever listed.
static LISTED: AtomicUsize = AtomicUsize::new(0);
/// Helpers that wait awake.
static AWAKE: AtomicUsize = AtomicUsize::new(0);
/// The generation in which work was first shared, plus one; 0 before.
static BEGUN: AtomicUsize = AtomicUsize::new(0);

/// Whether this process was forked from one that had helpers: it has none of them, and starts none.
pub fn is_forked() -> bool {
    let begun = BEGUN.load(Ordering::Relaxed);
    begun != 0 && begun != fork::generation() + 1
}

fn team() -> MutexGuard<'static, Team> {
    TEAM.lock().unwrap_or_else(|e| e.into_inner())
}

/// Runs `job` here and on up to `helpers` other threads at once; returns when all have done.
pub fn run(helpers: usize, watched: &Watched, job: Job<'_>) {
    // SAFETY: only the lifetime changes. Below, nobody is inside any more when `job`'s own ends, and nobody can enter.
    let job = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
    let region = Arc::new(Region {
        job,
        watched: watched.clone(),
        room: AtomicUsize::new(helpers),
        inside: AtomicUsize::new(0),
        panic: Mutex::new(None),
        caller: std::thread::current(),
        caller_sleeps: AtomicBool::new(false),
    });
    let _ = BEGUN.compare_exchange(0, fork::generation() + 1, Ordering::Relaxed, Ordering::Relaxed);
    list(&region, helpers);
    let own = catch_unwind(AssertUnwindSafe(|| job(0)));
    // In a child forked meanwhile nobody can enter, and a helper of the parent may have held the lock.
    if !is_forked() {
        team().regions.retain(|other| !Arc::ptr_eq(other, &region));
    }
    let asked = region.wait();
    assert!(region.is_left(), "expected to end in the process that began it, got forked amid work that threads share; fork before or after it");
    let helper = region.panic.lock().unwrap_or_else(|e| e.into_inner()).take();
    if let Some(panic) = own.err().or(asked.err()).or(helper) {
        resume_unwind(panic);
    }
}

/// Lists a region and wakes as many helpers as it has room for and are not awake.
fn list(region: &Arc<Region>, helpers: usize) {
    let mut team = team();
    while team.threads.len() < helpers {
        let number = team.threads.len() + 1;
        let Ok(thread) = std::thread::Builder::new().name(format!("treadle-{number}")).spawn(move || help(number)) else { break };
        team.threads.push(thread);
        team.off = None;
    }
    keep_off_caller(&mut team);
    team.regions.push(region.clone());
    let wake = helpers.saturating_sub(AWAKE.load(Ordering::Relaxed)).min(team.asleep);
    drop(team);
    LISTED.fetch_add(1, Ordering::Release);
    (0..wake).for_each(|_| WORK.notify_one());
}

/// What a helper does for ever.
fn help(number: usize) {
    let mut seen = 0;
    loop {
        next(&mut seen).help(number);
    }
}

/// The next region that this thread has entered; `seen` is how many it has looked among. It looks only where there is a new one: a
/// caller that ends takes the lock at the very moment its helpers do.
fn next(seen: &mut usize) -> Arc<Region> {
    loop {
        let listed = LISTED.load(Ordering::Acquire);
        if std::mem::replace(seen, listed) != listed
            && let Some(region) = team().enter()
        {
            return region;
        }
        AWAKE.fetch_add(1, Ordering::Relaxed);
        let more = linger(|| LISTED.load(Ordering::Acquire) != listed);
        AWAKE.fetch_sub(1, Ordering::Relaxed);
        if more {
            continue;
        }
        let mut team = team();
        loop {
            if let Some(region) = team.enter() {
                return region;
            }
            team.asleep += 1;
            team = WORK.wait(team).unwrap_or_else(|e| e.into_inner());
            team.asleep -= 1;
        }
    }
}

/// Waits awake until `done`; false if that takes too long.
fn linger(done: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..LOOKS {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() > LINGER {
            return false;
        }
        // Whoever else waits for this processor goes first.
        std::thread::yield_now();
    }
}

impl Team {
    /// Enters the first region that has room.
    fn enter(&mut self) -> Option<Arc<Region>> {
        let region = self.regions.iter().find(|region| region.room.load(Ordering::Relaxed) > 0)?;
        region.room.fetch_sub(1, Ordering::Relaxed);
        region.inside.fetch_add(1, Ordering::Relaxed);
        Some(region.clone())
    }
}

impl Region {
    fn help(&self, number: usize) {
        let job = || self.watched.inside(|| (self.job)(number));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
            *self.panic.lock().unwrap_or_else(|e| e.into_inner()) = Some(panic);
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
        if self.caller_sleeps.load(Ordering::SeqCst) {
            self.caller.unpark();
        }
    }

    fn is_left(&self) -> bool {
        self.inside.load(Ordering::SeqCst) == 0
    }

    /// Waits until all helpers have left, and asks meanwhile whether to stop. A question that panics puts that off until then. In a
    /// forked child helpers that were inside never leave, so it waits for none.
    fn wait(&self) -> std::thread::Result<()> {
        let done = || self.is_left() || is_forked();
        if linger(done) {
            return Ok(());
        }
        self.caller_sleeps.store(true, Ordering::SeqCst);
        let asked = catch_unwind(AssertUnwindSafe(|| self.watched.wait(done)));
        while !done() {
            std::thread::park();
        }
        asked
    }
}

/// Keeps all helpers off the calling thread's processor, where there are enough others that it may use. Linux in a virtual machine
/// takes idle processors for preempted ones, and wakes a thread behind its caller instead: one was seen to wait 26 of 28 ms.
#[cfg(target_os = "linux")]
fn keep_off_caller(team: &mut Team) {
    use std::os::unix::thread::JoinHandleExt;
    // SAFETY: asks for a number and takes nothing.
    let Ok(here) = usize::try_from(unsafe { libc::sched_getcpu() }) else { return };
    if team.off == Some(here) || here >= libc::CPU_SETSIZE as usize {
        return;
    }
    team.off = Some(here);
    // SAFETY: a set of processors is bits, all of which may be zero; the system is told its size; `here` is one of them; the
    // threads' handles are here, and none of them ever ends.
    unsafe {
        let (mut allowed, size) = (std::mem::zeroed::<libc::cpu_set_t>(), size_of::<libc::cpu_set_t>());
        if libc::sched_getaffinity(0, size, &mut allowed) != 0 {
            return;
        }
        libc::CPU_CLR(here, &mut allowed);
        if (libc::CPU_COUNT(&allowed) as usize) < team.threads.len() {
            return;
        }
        for thread in &team.threads {
            libc::pthread_setaffinity_np(thread.as_pthread_t(), size, &allowed);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn keep_off_caller(_: &mut Team) {}
