//! Whether operations are recorded, per thread.

use std::cell::Cell;

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(true) };
}

/// Whether operations on this thread are recorded for backward.
#[inline]
pub fn is_recording() -> bool {
    RECORDING.get()
}

/// Switches recording on or off and returns what it was.
pub fn set_recording(on: bool) -> bool {
    RECORDING.replace(on)
}

/// Runs `f` with recording on or off and restores what was before, also when `f` panics.
pub fn with_recording<R>(on: bool, f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            set_recording(self.0);
        }
    }
    let _restore = Restore(set_recording(on));
    f()
}

/// Runs `f` without recording.
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    with_recording(false, f)
}

thread_local! {
    static RECOMPUTING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a forward runs a second time for backward (checkpointing), so that running statistics must not move again.
pub fn is_recomputing() -> bool {
    RECOMPUTING.get()
}

/// Marks a second forward, and returns what was before.
pub fn set_recomputing(on: bool) -> bool {
    RECOMPUTING.replace(on)
}
