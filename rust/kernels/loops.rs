//! The loops of element-wise kernels, and the functions of elements that they run.
//!
//! Invariant: a result hangs on the elements at its own index alone. A function whose formula for vectors does not fit every element
//! says which are rare. Loops compute those too, and note that there were some; they are computed again afterwards, with a formula that
//! fits more elements, if there is one, and else one by one, so that the loops stay without branches.

use super::simd::{Avx2, Far, Isa, Level, Plain, lanes_only};
use super::stream::{self, CHUNK};
use crate::array::Element;
use crate::simd;

/// A function of one element.
pub trait Unary<T: Element, R: Element>: Copy + Sync {
    /// Rough cost in tenths of a nanosecond, for deciding whether threads pay.
    const COST: usize = 2;
    /// Whether there is a formula for [`Far`].
    const FAR: bool = false;
    fn apply<I: Isa>(self, x: T) -> R;
    /// Whether the formula for `I` does not fit this element: [`Far`] may, and [`Plain`] does.
    #[inline(always)]
    fn is_rare<I: Isa>(self, _x: T) -> bool {
        false
    }
}

/// A function of two elements.
pub trait Binary<T: Element, R: Element>: Copy + Sync {
    const COST: usize = 3;
    fn apply<I: Isa>(self, a: T, b: T) -> R;
    /// Whether the formula for `I` does not fit these elements.
    #[inline(always)]
    fn is_rare<I: Isa>(self, _a: T, _b: T) -> bool {
        false
    }
}

/// A function of two elements of which one is known: the left or the right.
#[derive(Clone, Copy)]
pub struct Left<F, T>(pub F, pub T);
#[derive(Clone, Copy)]
pub struct Right<F, T>(pub F, pub T);
impl<T: Element, R: Element, F: Binary<T, R>> Unary<T, R> for Left<F, T> {
    const COST: usize = F::COST;
    #[inline(always)]
    fn apply<I: Isa>(self, x: T) -> R {
        self.0.apply::<I>(self.1, x)
    }
    #[inline(always)]
    fn is_rare<I: Isa>(self, x: T) -> bool {
        self.0.is_rare::<I>(self.1, x)
    }
}
impl<T: Element, R: Element, F: Binary<T, R>> Unary<T, R> for Right<F, T> {
    const COST: usize = F::COST;
    #[inline(always)]
    fn apply<I: Isa>(self, x: T) -> R {
        self.0.apply::<I>(x, self.1)
    }
    #[inline(always)]
    fn is_rare<I: Isa>(self, x: T) -> bool {
        self.0.is_rare::<I>(x, self.1)
    }
}

simd! {
    pub fn unary_run<T: Element, R: Element, F: Unary<T, R>>(f: F, x: &[T], out: &mut [R]) {
        let mut rare = false;
        for (o, &x) in out.iter_mut().zip(x) {
            *o = f.apply::<I>(x);
            rare |= f.is_rare::<I>(x);
        }
        if rare {
            unary_rare(f, x, out);
        }
    }

    pub fn binary_run<T: Element, R: Element, F: Binary<T, R>>(f: F, a: &[T], b: &[T], out: &mut [R]) {
        let mut rare = false;
        for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
            *o = f.apply::<I>(a, b);
            rare |= f.is_rare::<I>(a, b);
        }
        if rare {
            binary_rare(f, a, b, out);
        }
    }

    /// [`unary_run`] past the caches; on the baseline, for which it is not worth an instance, that itself.
    pub fn unary_stream_run<T: Element, R: Element, F: Unary<T, R>>(f: F, x: &[T], out: &mut [R]) {
        if I::LEVEL as u8 == Level::Baseline as u8 {
            return unary_run(f, x, out);
        }
        let mut rare = false;
        let ((chunks, x_rest), (out_chunks, rest)) = (x.as_chunks::<CHUNK>(), out.as_chunks_mut());
        for (out, x) in out_chunks.iter_mut().zip(chunks) {
            stream::ask(x, stream::ahead::<T>(), CHUNK);
            let mut y = [R::default(); CHUNK];
            for i in 0..CHUNK {
                y[i] = f.apply::<I>(x[i]);
                rare |= f.is_rare::<I>(x[i]);
            }
            stream::put::<I, R>(out, &y);
            lanes_only();
        }
        stream::fence();
        unary_run(f, x_rest, rest);
        if rare {
            unary_rare(f, x, out);
        }
    }

    /// [`binary_run`] past the caches; on the baseline, for which it is not worth an instance, that itself.
    pub fn binary_stream_run<T: Element, R: Element, F: Binary<T, R>>(f: F, a: &[T], b: &[T], out: &mut [R]) {
        if I::LEVEL as u8 == Level::Baseline as u8 {
            return binary_run(f, a, b, out);
        }
        let mut rare = false;
        let ((a_chunks, a_rest), (b_chunks, b_rest), (out_chunks, rest)) = (a.as_chunks::<CHUNK>(), b.as_chunks::<CHUNK>(), out.as_chunks_mut());
        for ((out, a), b) in out_chunks.iter_mut().zip(a_chunks).zip(b_chunks) {
            stream::ask(a, stream::ahead::<T>(), CHUNK);
            stream::ask(b, stream::ahead::<T>(), CHUNK);
            let mut y = [R::default(); CHUNK];
            for i in 0..CHUNK {
                y[i] = f.apply::<I>(a[i], b[i]);
                rare |= f.is_rare::<I>(a[i], b[i]);
            }
            stream::put::<I, R>(out, &y);
            lanes_only();
        }
        stream::fence();
        binary_run(f, a_rest, b_rest, rest);
        if rare {
            binary_rare(f, a, b, out);
        }
    }

    pub fn select_run<T: Element>(condition: &[bool], a: &[T], b: &[T], out: &mut [T]) {
        for (((o, &c), &a), &b) in out.iter_mut().zip(condition).zip(a).zip(b) {
            *o = if c { a } else { b };
        }
    }

    pub fn binary_in_place_run<T: Element, F: Binary<T, T>>(f: F, a: &mut [T], b: &[T]) {
        for (a, &b) in a.iter_mut().zip(b) {
            *a = f.apply::<I>(*a, b);
        }
    }

    /// What [`Far`] fits among what is rare, by windows that hold something so. Returns whether more is rare there, too.
    fn far_run<T: Element, R: Element, F: Unary<T, R>>(f: F, x: &[T], out: &mut [R]) -> bool {
        if !I::FMA {
            // The loop itself had the library's.
            return false;
        }
        let mut beyond = false;
        for (x, out) in x.chunks(WINDOW).zip(out.chunks_mut(WINDOW)) {
            let (mut window, mut y, mut rare) = ([T::default(); WINDOW], [R::default(); WINDOW], false);
            window[..x.len()].copy_from_slice(x);
            for &x in &window {
                rare |= f.is_rare::<I>(x);
            }
            if !rare {
                continue;
            }
            y[..out.len()].copy_from_slice(out);
            for l in 0..WINDOW {
                let far = f.apply::<Far<I>>(window[l]);
                y[l] = if f.is_rare::<I>(window[l]) { far } else { y[l] };
                beyond |= f.is_rare::<Far<I>>(window[l]);
            }
            out.copy_from_slice(&y[..out.len()]);
        }
        beyond
    }
}

/// Elements that are computed again together.
const WINDOW: usize = 16;

#[cold]
#[inline(never)]
fn unary_rare<T: Element, R: Element, F: Unary<T, R>>(f: F, x: &[T], out: &mut [R]) {
    if const { F::FAR } {
        if far_run(f, x, out) {
            unary_plain::<T, R, F, Far<Avx2>>(f, x, out);
        }
    } else {
        unary_plain::<T, R, F, Avx2>(f, x, out);
    }
}

/// What is rare for `I`, one by one.
#[inline(always)]
fn unary_plain<T: Element, R: Element, F: Unary<T, R>, I: Isa>(f: F, x: &[T], out: &mut [R]) {
    for (o, &x) in out.iter_mut().zip(x).filter(|(_, x)| f.is_rare::<I>(**x)) {
        *o = f.apply::<Plain>(x);
    }
}

#[cold]
#[inline(never)]
fn binary_rare<T: Element, R: Element, F: Binary<T, R>>(f: F, a: &[T], b: &[T], out: &mut [R]) {
    for ((o, &a), &b) in out.iter_mut().zip(a).zip(b).filter(|((_, a), b)| f.is_rare::<Avx2>(**a, **b)) {
        *o = f.apply::<Plain>(a, b);
    }
}
