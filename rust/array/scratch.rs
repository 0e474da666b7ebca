//! Memory to work in for the time of a call.

use super::dtype::{DType, Element};
use super::pool::{self, Block};
use std::marker::PhantomData;

/// Elements with unspecified (but initialised) values. Their block is the thread's for whatever it works on next.
pub struct Scratch<T> {
    block: Block,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Element> Scratch<T> {
    /// `None` where there is not that much memory.
    pub fn new(len: usize) -> Option<Scratch<T>> {
        assert!(T::DTYPE != DType::Bool, "any bytes must be values");
        let block = pool::take_scratch(len.checked_mul(size_of::<T>())?)?;
        Some(Scratch { block, len, elements: PhantomData })
    }

    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: the block is 64-byte aligned, at least that long, initialised and ours alone; any bytes are a number.
        unsafe { std::slice::from_raw_parts_mut(self.block.ptr.as_ptr().cast::<T>(), self.len) }
    }
}

impl<T> Drop for Scratch<T> {
    fn drop(&mut self) {
        pool::give_scratch(self.block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_the_block_it_works_in_and_a_larger_one_in_its_place() {
        let place = |len| {
            let mut scratch = Scratch::<f32>::new(len).expect("memory");
            scratch.as_mut_slice().fill(1.0);
            (scratch.as_mut_slice().len(), scratch.block.ptr)
        };
        let first = place(5000);
        assert_eq!(place(300), (300, first.1));
        let large = place(100_000);
        assert_eq!([place(5000).1, place(100_000).1], [large.1; 2]);
    }

    #[test]
    fn two_at_once_do_not_share() {
        let [mut a, mut b] = [40, 50].map(|len| Scratch::<f64>::new(len).expect("memory"));
        a.as_mut_slice().fill(1.0);
        b.as_mut_slice().fill(2.0);
        assert!(a.as_mut_slice().iter().all(|&x| x == 1.0));
    }
}
