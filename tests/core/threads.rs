//! Work over threads: every block once, from wherever it is asked for, and a panic reaches whoever asked.

use crate::support::alone;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use treadle::array;
use treadle::kernels::fork;
use treadle::kernels::interrupt::watched;
use treadle::kernels::parallel::{Count, drive, for_chunks, set_num_threads};

/// Enough to be shared, whatever it is.
const LONG: usize = 10_000_000;

fn counts(n: usize) -> Vec<usize> {
    let mut counts = vec![0; n];
    for_chunks(&mut counts, 3, LONG, |i, part| part.iter_mut().enumerate().for_each(|(j, c)| *c += 3 * i + j + 1));
    counts
}

#[test]
fn every_block_is_worked_on_once() {
    for n in [1, 2, 3, 7, 100, 1000] {
        assert_eq!(counts(n), (1..=n).collect::<Vec<_>>());
    }
}

#[test]
fn regions_within_regions_and_of_many_callers_end() {
    let total = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..200 {
                    drive(Count(5), LONG, |_, outer| {
                        for _ in 0..outer.0 {
                            drive(Count(7), LONG, |_, inner| {
                                total.fetch_add(inner.0, Relaxed);
                            });
                        }
                    });
                }
            });
        }
    });
    assert_eq!(total.into_inner(), 8 * 200 * 5 * 7);
}

#[test]
fn a_question_that_panics_does_so_when_the_helpers_have_left() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    static LEFT: AtomicBool = AtomicBool::new(false);
    fn ask() -> bool {
        assert!(!ASKED.load(Relaxed), "the question panics");
        false
    }
    let _threads = alone();
    set_num_threads(2);
    let (caller, begin) = (std::thread::current().id(), Instant::now());
    let caught = catch_unwind(|| {
        watched(ask, || {
            drive(Count(2), LONG, |_, _| {
                if std::thread::current().id() != caller {
                    ASKED.store(true, Relaxed);
                    std::thread::sleep(Duration::from_millis(150));
                    LEFT.store(true, Relaxed);
                }
                while !ASKED.load(Relaxed) && begin.elapsed() < Duration::from_secs(10) {
                    std::thread::yield_now();
                }
            });
        })
    });
    assert!(caught.is_err() && LEFT.load(Relaxed));
}

#[test]
fn a_panic_reaches_the_caller_and_leaves_the_threads_at_work() {
    for bad in 0..64 {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            drive(Count(64), LONG, |first, part| assert!(!(first..first + part.0).contains(&bad), "block {bad}"));
        }));
        let panic = caught.expect_err("a block panicked");
        assert_eq!(panic.downcast_ref::<String>(), Some(&format!("block {bad}")));
        assert_eq!(counts(100), (1..=100).collect::<Vec<_>>());
    }
}

#[test]
fn a_fork_waits_for_who_holds_the_pools_lists() {
    fork::generation();
    array::memory_stats();
    let (tell, told) = std::sync::mpsc::channel();
    let holder = std::thread::spawn(move || {
        array::before_fork();
        tell.send(()).expect("somebody waits");
        std::thread::sleep(Duration::from_millis(100));
        array::after_fork();
    });
    told.recv().expect("the lists are held");
    let mut status = 0;
    // SAFETY: the child reads counters and ends; if it waits for ever, the alarm ends it.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::alarm(20);
            array::memory_stats();
            libc::_exit(0);
        }
        libc::waitpid(child, &mut status, 0);
    }
    assert_eq!(status, 0);
    holder.join().expect("ends");
}
