//! Models without an artifact: those that Triton's public examples ask. They show whether a client and this server understand
//! each other.

mod read;
#[cfg(test)]
mod tests;

use crate::decode::{DecodeError, once};
use crate::request::{Answered, Form, Given, Values, Wanted};
use read::{decimals, integers, texts};
use sconce_model::artifact::TensorSpec;

/// Rows of one request, at most, as Triton has it for each of them.
pub const MAX_BATCH_SIZE: usize = 8;
/// Of one row, at most, where there may be any number: empty elements are many in a small request.
const MAX_COLUMNS: i64 = 1024;

const INPUTS: [&str; 2] = ["INPUT0", "INPUT1"];
const OUTPUTS: [&str; 2] = ["OUTPUT0", "OUTPUT1"];

/// Each is of rows, with its tensors alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// Sums and differences of two times 16 whole numbers.
    Simple,
    /// The same of numbers that are written as texts.
    SimpleString,
    /// Gives back what it gets: any bytes, in any number.
    SimpleIdentity,
}

impl Builtin {
    pub const ALL: [Self; 3] = [Self::Simple, Self::SimpleString, Self::SimpleIdentity];

    pub fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::SimpleString => "simple_string",
            Self::SimpleIdentity => "simple_identity",
        }
    }

    pub fn inputs(self) -> Vec<TensorSpec> {
        self.tensors(INPUTS)
    }

    pub fn outputs(self) -> Vec<TensorSpec> {
        self.tensors(OUTPUTS)
    }

    /// Of a request; no example comes near it.
    pub fn largest_request(self) -> usize {
        1 << 20
    }

    /// The outputs that are wanted, in `form` all of them if none is named.
    ///
    /// # Errors
    /// [`DecodeError`] says what was expected.
    pub fn answer(self, inputs: Vec<Given>, wanted: Vec<Wanted>, form: Form) -> Result<Vec<Answered>, DecodeError> {
        let (shape, values) = match self {
            Self::Simple => {
                let (shape, [xs, ys]) = self.read(INPUTS, inputs, integers)?;
                (shape, sums_and_differences(&xs, &ys).map(Values::Int32).into())
            }
            Self::SimpleString => {
                let (shape, [xs, ys]) = self.read(INPUTS, inputs, decimals)?;
                let written = |values: Vec<i32>| values.iter().map(|value| value.to_string().into()).collect();
                (shape, sums_and_differences(&xs, &ys).map(written).map(Values::Bytes).into())
            }
            Self::SimpleIdentity => {
                let (shape, [xs]) = self.read([INPUTS[0]], inputs, texts)?;
                (shape, vec![Values::Bytes(xs)])
            }
        };
        named(&OUTPUTS[..values.len()], &shape, values, wanted, form)
    }

    fn datatype(self) -> &'static str {
        if self == Self::Simple { "INT32" } else { "BYTES" }
    }

    /// Of any number of rows; -1 for any number of columns, up to [`MAX_COLUMNS`].
    fn shape(self) -> [i64; 2] {
        [-1, if self == Self::SimpleIdentity { -1 } else { 16 }]
    }

    fn tensors(self, names: [&str; 2]) -> Vec<TensorSpec> {
        let names = if self == Self::SimpleIdentity { &names[..1] } else { &names };
        let tensor = |name: &&str| TensorSpec {
            name: (*name).into(),
            datatype: self.datatype().into(),
            shape: self.shape().into(),
        };
        names.iter().map(tensor).collect()
    }
}

fn sums_and_differences(xs: &[i32], ys: &[i32]) -> [Vec<i32>; 2] {
    [i32::wrapping_add, i32::wrapping_sub].map(|of| xs.iter().zip(ys).map(|(&x, &y)| of(x, y)).collect())
}

/// Those of all outputs, each by its name, that are wanted.
fn named(
    names: &[&str],
    shape: &[i64],
    values: Vec<Values>,
    wanted: Vec<Wanted>,
    form: Form,
) -> Result<Vec<Answered>, DecodeError> {
    once("output", wanted.iter().map(|output| output.name.as_str()))?;
    let all = || names.iter().map(|name| Wanted { name: (*name).into(), classes: None, form }).collect();
    let wanted: Vec<Wanted> = if wanted.is_empty() { all() } else { wanted };
    let mut left: Vec<_> = names.iter().zip(values).collect();
    let each = wanted.into_iter().map(|Wanted { name, classes, form }| {
        let Some(place) = left.iter().position(|(output, _)| **output == name) else {
            return Err(DecodeError::Output { got: name, name: names.join("\" and \"") });
        };
        if let Some(classes) = classes {
            let need = "none, since this model gives no scores,";
            return Err(DecodeError::Parameter { name: "classification", got: classes.to_string(), need });
        }
        Ok(Answered { name, shape: shape.into(), values: left.swap_remove(place).1, form })
    });
    each.collect()
}
