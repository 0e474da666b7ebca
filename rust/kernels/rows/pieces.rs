//! Group norm of rows made of pieces of l elements that have a weight and a bias of their own, where l is no less than a window.
//!
//! Invariant: sums run over each piece by itself and are added up in float64 in the order of pieces.

use super::norm::{Norm, finish, measure, pivot};
use super::order::{Grouped, stages};
use super::{map, sums};
use crate::kernels::simd::Float;
use crate::simd;

fn at<T: Float>(parameters: Option<&[T]>, channel: usize, value: T) -> T {
    parameters.map_or(value, |p| p[channel])
}

simd! {
    /// See [`super::norm()`]; `first` is the number of the first row.
    pub(super) fn forward_part<T: Float>(first: usize, c: usize, x: &[T], norm: &Norm<'_, T>, y: &mut [T], stats: &mut [[T; 3]]) {
        let (l, pieces) = (norm.l, c / norm.l);
        stages!(
            Grouped,
            c,
            stats.len(),
            |r| stats[r][0] = pivot(c, &x[r * c..], norm),
            {
                let found = measure(c, &x[r * c..], &mut stats[r][0], norm);
                finish(&mut stats[r..=r], &[found], norm);
            },
            {
                let ([pivot, rest, scale], channel) = (stats[r], (first + r) % norm.groups * pieces);
                for i in 0..pieces {
                    let (w, b) = (at(norm.weight, channel + i, T::ONE), at(norm.bias, channel + i, T::ZERO));
                    let here = r * c + i * l;
                    map(l, [&x[here..]], &mut y[here..], |[x]| ((x - pivot - rest) * scale).mul_add_on::<I>(w, b));
                }
            }
        );
    }

    /// See [`super::norm_backward`].
    pub(super) fn backward_part<T: Float>(
        first: usize, c: usize, x: &[T], dy: &[T], norm: &Norm<'_, T>, stats: &[[T; 3]], dx: &mut [T], out: &mut [f64],
    ) {
        let (l, pieces) = (norm.l, c / norm.l);
        let (dw, db) = out.split_at_mut(out.len() / 2);
        for (r, &[pivot, rest, scale]) in stats.iter().enumerate() {
            let channel = (first + r) % norm.groups * pieces;
            let mut totals = [0.0; 2];
            for i in 0..pieces {
                let here = r * c + i * l;
                let [s1, s2] = sums(l, [&x[here..], &dy[here..]], |[x, dy]| [dy, (x - pivot - rest) * scale * dy]);
                let w = at(norm.weight, channel + i, T::ONE).to_f64();
                totals = [totals[0] + w * s1, totals[1] + w * s2];
                if !dw.is_empty() {
                    dw[channel + i] += s2;
                    db[channel + i] += s1;
                }
            }
            let [mean, slope] = totals.map(|total| T::from_f64(total / c as f64));
            let mean = if norm.centred { mean } else { T::ZERO };
            for i in 0..pieces {
                let (here, w) = (r * c + i * l, at(norm.weight, channel + i, T::ONE));
                map(l, [&x[here..], &dy[here..]], &mut dx[here..], |[x, dy]| (dy * w - mean - (x - pivot - rest) * scale * slope) * scale);
            }
        }
    }
}
