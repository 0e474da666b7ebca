//! Group norm (Wu & He 2018): layer norm over rows that hold the channels of one group at all positions, then y = w x̂ + b per
//! channel.

use super::binary::{add, mul};
use super::layer_norm::{float_type, layer_norm};
use super::shape::reshape;
use crate::autograd::{Tensor, linear};
use crate::{Result, bail};

fn check(x: &Tensor, groups: usize, parameters: &[(&str, Option<&Tensor>)]) -> Result<()> {
    if x.ndim() < 2 {
        bail!(Value, "group_norm: expected shape (N, C, ...), got {}", x.shape());
    }
    let c = x.shape()[1];
    if groups == 0 {
        bail!(Value, "group_norm: expected at least one group, got 0");
    }
    if !c.is_multiple_of(groups) {
        bail!(Value, "group_norm: expected channels that divide into {groups} groups, got {c} in shape {}", x.shape());
    }
    for (what, given) in parameters {
        if let Some(given) = given
            && given.shape()[..] != [c]
        {
            bail!(Value, "group_norm: expected a {what} of shape ({c},), got {}", given.shape());
        }
    }
    Ok(())
}

/// Normalises `x` (N, C, …) over each of `groups` equal groups of channels; weight and bias are (C,).
pub fn group_norm(x: &Tensor, groups: usize, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let dtype = float_type(x, &[weight, bias], eps, "group_norm")?;
    check(x, groups, &[("weight", weight), ("bias", bias)])?;
    let x = linear::cast(x, dtype)?;
    let row = x.shape()[1..].iter().product::<usize>() / groups;
    let rows = reshape(&x, &[(x.shape()[0] * groups) as isize, row as isize])?;
    let sizes: Vec<isize> = x.shape().iter().map(|&n| n as isize).collect();
    let mut y = reshape(&layer_norm(&rows, &[row], None, None, eps)?, &sizes)?;
    let mut per_channel = vec![1; x.ndim() - 1];
    per_channel[0] = -1;
    if let Some(w) = weight {
        y = mul(&y, &reshape(w, &per_channel)?)?;
    }
    if let Some(b) = bias {
        y = add(&y, &reshape(b, &per_channel)?)?;
    }
    Ok(y)
}
