//! What stands beside a tensor in an operator.
//!
//! Invariant: a Python number has a kind but no width, so it becomes a tensor only beside the type of the other operand.

use super::arrays::{is_of_numpy, tensor_like};
use super::convert::{natural, scalar};
use super::error::is_refusal;
use super::tensor::PyTensor;
use crate::array::{Array, DType, Scalar};
use crate::{Tensor, ops};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

/// The other operand of a tensor: a tensor, a weak Python scalar or an array-like.
pub enum Other {
    Tensor(Tensor),
    Scalar(Scalar),
    /// A Python integer beyond int64, as the nearest float64 or as infinity.
    Beyond(f64),
    /// What cannot be converted though it is of a kind that can: raised where it is used, since Python takes an error of the
    /// conversion itself for an operand that the other one may know.
    Wrong(PyErr),
}

impl Other {
    /// As a tensor beside one of type `partner`.
    pub fn beside(self, partner: DType) -> PyResult<Tensor> {
        match self {
            Other::Tensor(t) => Ok(t),
            Other::Scalar(s) => Ok(ops::match_weak(s, partner)?),
            Other::Beyond(x) if partner.is_float() && x.is_finite() => Ok(ops::match_weak(Scalar::Float(x), partner)?),
            Other::Beyond(x) => {
                let dtype = partner.promote_weak(Scalar::Int(0));
                Err(PyValueError::new_err(format!("scalar: expected an integer that fits {dtype}, got {x:e}")))
            }
            Other::Wrong(error) => Err(error),
        }
    }

    /// As a tensor to divide or be divided by one of type `partner`: integers are divided as float64.
    pub fn in_quotient(self, partner: DType) -> PyResult<Tensor> {
        self.beside(if partner.is_float() { partner } else { DType::F64 })
    }

    /// As a tensor to compare with one of type `partner`: by value, also where that type does not hold it.
    pub fn in_comparison(self, partner: DType) -> PyResult<Tensor> {
        match self {
            Other::Scalar(Scalar::Int(i)) if partner == DType::U8 && !(0..=255).contains(&i) => Ok(Tensor::constant(Array::scalar(i)?)),
            Other::Beyond(x) if !partner.is_float() => Ok(Tensor::constant(Array::scalar(f64::INFINITY.copysign(x))?)),
            other => other.beside(partner),
        }
    }

    pub fn dtype(&self) -> Option<DType> {
        match self {
            Other::Tensor(t) => Some(t.dtype()),
            _ => None,
        }
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Other {
    type Error = PyErr;
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let object: &Bound<'py, PyAny> = &object;
        if let Ok(t) = object.cast::<PyTensor>() {
            return Ok(Other::Tensor(t.get().tensor()));
        }
        match scalar(object) {
            Ok(Some(s)) => Ok(Other::Scalar(s)),
            Ok(None) => match tensor_like(object, None) {
                Ok(t) => Ok(Other::Tensor(t)),
                Err(error) if error.is_instance_of::<PyTypeError>(object.py()) => match is_of_numpy(object) {
                    Ok(false) => Err(error),
                    asked => Ok(Other::Wrong(asked.err().unwrap_or(error))),
                },
                Err(error) => Ok(Other::Wrong(error)),
            },
            Err(error) if !is_refusal(object.py(), &error) => Ok(Other::Wrong(error)),
            Err(_) => {
                let infinite = if object.lt(0)? { f64::NEG_INFINITY } else { f64::INFINITY };
                Ok(Other::Beyond(object.extract().unwrap_or(infinite)))
            }
        }
    }
}

/// The other operand, where a tensor is best left in its cell.
pub enum Operand<'a, 'py> {
    Cell(Borrowed<'a, 'py, PyTensor>),
    Other(Other),
}

impl<'a, 'py> FromPyObject<'a, 'py> for Operand<'a, 'py> {
    type Error = PyErr;
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        match object.cast::<PyTensor>() {
            Ok(cell) => Ok(Operand::Cell(cell)),
            Err(_) => Ok(Operand::Other(object.extract()?)),
        }
    }
}

/// Two operands; `operand` makes a tensor of each beside the type of the other, or of two numbers beside what they have in common.
pub fn pair(a: Other, b: Other, operand: fn(Other, DType) -> PyResult<Tensor>) -> PyResult<(Tensor, Tensor)> {
    let (da, db) = (a.dtype(), b.dtype());
    let own = |x: &Other| if let Other::Scalar(s) = x { natural(*s) } else { DType::F32 };
    let common = match (own(&a), own(&b)) {
        (DType::F32, _) | (_, DType::F32) => DType::F32,
        (a, b) => a.promote(b),
    };
    Ok((operand(a, db.unwrap_or(common))?, operand(b, da.unwrap_or(common))?))
}
