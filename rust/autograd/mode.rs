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

/// Whether operations are recorded and a forward is run again: what Python code on a thread sees of its surroundings.
#[derive(Clone, Copy)]
pub struct Mode {
    recording: bool,
    recomputing: bool,
}

impl Mode {
    /// That of this thread.
    pub fn current() -> Mode {
        Mode { recording: is_recording(), recomputing: is_recomputing() }
    }

    fn set(self) {
        set_recording(self.recording);
        set_recomputing(self.recomputing);
    }

    /// Runs `f` in this mode and restores what was before.
    pub fn run<R>(self, f: impl FnOnce() -> R) -> R {
        let before = Mode::current();
        self.set();
        let result = f();
        before.set();
        result
    }
}
