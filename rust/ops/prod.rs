//! Products along axes, and the recurrence that their gradient is made of.

use super::binary::mul;
use super::reduce::restore;
use super::shape::{self, Axes, narrow};
use crate::Result;
use crate::array::{Array, Dims};
use crate::autograd::{Inputs, Op, Tensor};
use crate::kernels::{recurrence as running, reduce as kernel};
use smallvec::SmallVec;

/// y = Πx; dx = dy · Π of the others.
struct Prod {
    x: Array,
    axes: Axes,
}
impl Op for Prod {
    fn name(&self) -> &'static str {
        "prod"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let x = dx.input(0, &self.x);
        dx.give(0, || {
            let dy = restore(dy, x.shape(), &self.axes)?;
            mul(&dy, &product_of_others(&x, &self.axes)?)
        })
    }
}

/// Product along axes; bools and uint8 are multiplied as int64.
pub fn prod(x: &Tensor, axes: Option<&[isize]>, keepdims: bool) -> Result<Tensor> {
    let axes = kernel::reduced_axes(axes, x.ndim(), "prod")?;
    let y = kernel::prod(x.array(), &axes, keepdims)?;
    Ok(Tensor::record(y, &[x], || Prod { x: x.array().clone(), axes }))
}

/// For each element the product of the others along `axes`: of those before it and those after it, so zeros need no special case.
fn product_of_others(x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    if x.array().size() == 0 {
        return Ok(x.clone());
    }
    let order: Axes = axes.iter().copied().chain((0..x.ndim()).filter(|a| !axes.contains(a))).collect();
    let moved = shape::ordered(x, order.clone());
    let n = axes.iter().map(|&a| x.shape()[a]).product::<usize>();
    let rows = shape::to_shape(&moved, Dims::new(&[n, x.array().size() / n])?)?;
    let before = recurrence(&narrow(&rows, 0, 0, n - 1)?, None, false)?;
    let after = recurrence(&narrow(&rows, 0, 1, n - 1)?, None, true)?;
    let others = shape::to_shape(&mul(&before, &after)?, *moved.shape())?;
    Ok(shape::ordered(&others, shape::inverse(&order)))
}

/// yᵢ₊₁ = aᵢ·yᵢ + bᵢ₊₁ down the rows from y₀ = b₀ on; `upwards`, yᵢ = aᵢ·yᵢ₊₁ + bᵢ. With w, the same of dy the other way: db = w and
/// daᵢ = wᵢ₊₁·yᵢ; `upwards`, daᵢ = wᵢ·yᵢ₊₁.
struct Recurrence {
    a: Array,
    y: Array,
    upwards: bool,
}
impl Op for Recurrence {
    fn name(&self) -> &'static str {
        "recurrence"
    }
    fn backward(&self, dy: &Tensor, dx: &mut Inputs<'_>) -> Result<()> {
        let (a, y) = (dx.input(0, &self.a), dx.output(&self.y));
        let w = recurrence(&a, Some(dy), !self.upwards)?;
        let (of_w, of_y) = if self.upwards { (0, 1) } else { (1, 0) };
        let n = a.shape()[0];
        dx.give(0, || mul(&narrow(&w, 0, of_w, n)?, &narrow(&y, 0, of_y, n)?))?;
        if dx.edges().len() > 1 { dx.give(1, || Ok(w)) } else { Ok(()) }
    }
}

/// The recurrence of the kernel; without b the products of the rows of a up to each.
fn recurrence(a: &Tensor, b: Option<&Tensor>, upwards: bool) -> Result<Tensor> {
    let y = running::recurrence(a.array(), b.map(Tensor::array), upwards)?;
    let kept = y.clone();
    let inputs: SmallVec<[&Tensor; 2]> = std::iter::once(a).chain(b).collect();
    Ok(Tensor::record(y, &inputs, || Recurrence { a: a.array().clone(), y: kept, upwards }))
}
