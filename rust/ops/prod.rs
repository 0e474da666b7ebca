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
        let (x, recorded) = (dx.input(0, &self.x), dx.recording());
        dx.give(0, || {
            let dy = restore(dy, x.shape(), &self.axes)?;
            mul(&dy, &product_of_others(&x, &self.axes, recorded)?)
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
fn product_of_others(x: &Tensor, axes: &[usize], is_recorded: bool) -> Result<Tensor> {
    if x.array().size() == 0 {
        return Ok(x.clone());
    }
    let kept = (0..x.ndim()).filter(|a| !axes.contains(a));
    let n = axes.iter().map(|&a| x.shape()[a]).product::<usize>();
    // What is recorded is, and so has derivatives; besides, columns beside each other are faster together.
    let by_columns = is_recorded || axes.iter().all(|a| a + 1 != x.ndim()) && n < x.size();
    let order: Axes = if by_columns { axes.iter().copied().chain(kept).collect() } else { kept.chain(axes.iter().copied()).collect() };
    let moved = shape::ordered(x, order.clone());
    let others = if by_columns {
        let rows = shape::to_shape(&moved, Dims::new(&[n, x.size() / n])?)?;
        let before = recurrence(&narrow(&rows, 0, 0, n - 1)?, None, false)?;
        mul(&before, &recurrence(&narrow(&rows, 0, 1, n - 1)?, None, true)?)?
    } else {
        Tensor::constant(running::others(shape::to_shape(&moved, Dims::new(&[x.size() / n, n])?)?.array())?)
    };
    Ok(shape::ordered(&shape::to_shape(&others, *moved.shape())?, shape::inverse(&order)))
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
