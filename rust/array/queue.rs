//! Drops without recursion: a chain of values, each of which holds the next, may be longer than the stack is deep.

use std::cell::RefCell;
use std::thread::LocalKey;

/// Values of a thread that wait to be dropped.
pub struct Queue<T> {
    /// Whether one is being dropped.
    active: bool,
    waiting: Vec<T>,
}

impl<T> Queue<T> {
    pub const EMPTY: Queue<T> = Queue { active: false, waiting: Vec::new() };
}

/// Drops `value`. What is handed in meanwhile, by its drop, waits until that is over.
pub fn drop_in_turn<T>(queue: &'static LocalKey<RefCell<Queue<T>>>, value: T) {
    let mut value = Some(value);
    let outermost = queue.try_with(|queue| {
        let mut queue = queue.borrow_mut();
        queue.waiting.extend(value.take());
        !std::mem::replace(&mut queue.active, true)
    });
    if outermost != Ok(true) {
        return;
    }
    while let Some(value) = queue.with(|queue| queue.borrow_mut().waiting.pop()) {
        drop(value);
    }
    queue.with(|queue| queue.borrow_mut().active = false);
}
