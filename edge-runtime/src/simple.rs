//! The model that Triton's public examples ask: two inputs of 16 whole numbers, their sum and their difference. It needs no
//! artifact, and so shows whether a client and this server understand each other.

use crate::decode::DecodeError;
use crate::request::{Answered, Contents, Form, Given, Values, Wanted};
use sconce_model::artifact::TensorSpec;

pub const NAME: &str = "simple";
pub const INPUTS: [&str; 2] = ["INPUT0", "INPUT1"];
pub const OUTPUTS: [&str; 2] = ["OUTPUT0", "OUTPUT1"];
/// Rows of one request, at most, as Triton's has it.
pub const MAX_BATCH_SIZE: usize = 8;

const DATATYPE: &str = "INT32";
const COLUMNS: usize = 16;
const SHAPE: [i64; 2] = [-1, COLUMNS as i64];

/// As metadata tells it.
pub fn tensor(name: &str) -> TensorSpec {
    TensorSpec { name: name.into(), datatype: DATATYPE.into(), shape: SHAPE.into() }
}

/// The outputs that are wanted, in `form` all of them if none is named.
///
/// # Errors
/// [`DecodeError`] says what was expected.
pub fn answer(inputs: Vec<Given>, wanted: Vec<Wanted>, form: Form) -> Result<Vec<Answered>, DecodeError> {
    let [xs, ys] = both(inputs)?;
    let (rows, ys_rows) = (xs.len() / COLUMNS, ys.len() / COLUMNS);
    if rows != ys_rows {
        let (got, need) = (vec![ys_rows as i64, SHAPE[1]], vec![rows as i64, SHAPE[1]]);
        return Err(DecodeError::Shape { name: INPUTS[1].into(), got, need, max: MAX_BATCH_SIZE });
    }
    let all = || OUTPUTS.map(|name| Wanted { name: name.into(), classes: None, form }).into();
    let wanted: Vec<Wanted> = if wanted.is_empty() { all() } else { wanted };
    let each = wanted.into_iter().map(|Wanted { name, classes, form }| {
        let of = match OUTPUTS.iter().position(|output| *output == name) {
            Some(0) => i32::wrapping_add,
            Some(_) => i32::wrapping_sub,
            None => return Err(DecodeError::Output { got: name, name: OUTPUTS.join(" and ") }),
        };
        if let Some(classes) = classes {
            let need = "none, since this model gives no scores,";
            return Err(DecodeError::Parameter { name: "classification", got: classes.to_string(), need });
        }
        let values = Values::Int32(xs.iter().zip(&ys).map(|(&x, &y)| of(x, y)).collect());
        Ok(Answered { name, shape: vec![rows as i64, SHAPE[1]], values, form })
    });
    each.collect()
}

/// Both inputs, whatever their order.
fn both(inputs: Vec<Given>) -> Result<[Vec<i32>; 2], DecodeError> {
    let mut found = [None, None];
    for input in inputs {
        let Some(place) = INPUTS.iter().position(|name| *name == input.name) else {
            return Err(DecodeError::Name { got: input.name, name: INPUTS.join(" and ") });
        };
        if found[place].is_some() {
            return Err(DecodeError::Twice { what: "input", name: input.name });
        }
        found[place] = Some(numbers(input)?);
    }
    match found {
        [Some(xs), Some(ys)] => Ok([xs, ys]),
        [None, _] => Err(DecodeError::Missing { name: INPUTS[0].into() }),
        [_, None] => Err(DecodeError::Missing { name: INPUTS[1].into() }),
    }
}

fn numbers(Given { name, datatype, shape, contents }: Given) -> Result<Vec<i32>, DecodeError> {
    if datatype != DATATYPE {
        return Err(DecodeError::Datatype { name, got: datatype, need: DATATYPE.into() });
    }
    let rows = match shape[..] {
        [rows, columns] if columns == SHAPE[1] => usize::try_from(rows).ok(),
        _ => None,
    };
    let Some(rows) = rows.filter(|rows| (1..=MAX_BATCH_SIZE).contains(rows)) else {
        return Err(DecodeError::Shape { name, got: shape, need: SHAPE.into(), max: MAX_BATCH_SIZE });
    };
    let need = rows * COLUMNS;
    let values: Vec<i32> = match contents {
        Contents::Raw(bytes) if bytes.len() != need * 4 => {
            return Err(DecodeError::Bytes { name, got: bytes.len(), shape, datatype: DATATYPE, need: need * 4 });
        }
        Contents::Raw(bytes) => {
            bytes.chunks_exact(4).map(|word| i32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
        }
        Contents::Integers(values) => values,
        Contents::Doubles(values) => match values.iter().find(|value| f64::from(**value as i32) != **value) {
            Some(value) => return Err(DecodeError::NoInteger { name, got: value.to_string() }),
            None => values.into_iter().map(|value| value as i32).collect(),
        },
        Contents::Numbers(values) if values.is_empty() => Vec::new(),
        Contents::Numbers(_) => return Err(DecodeError::NoInteger { name, got: "fp32_contents".into() }),
        Contents::Elements(_) => return Err(DecodeError::NoInteger { name, got: "bytes_contents".into() }),
        Contents::Base64(_) => return Err(DecodeError::NoInteger { name, got: "strings".into() }),
        Contents::Other(field) => return Err(DecodeError::NoInteger { name, got: field.into() }),
    };
    if values.len() != need {
        return Err(DecodeError::Elements { name, got: values.len(), shape, need });
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(name: &str, rows: i64, contents: Contents) -> Given {
        Given { name: name.into(), datatype: DATATYPE.into(), shape: vec![rows, 16], contents }
    }

    #[test]
    fn sums_and_differences_are_of_each_pair() {
        let xs: Vec<i32> = (0..16).collect();
        let raw = xs.iter().flat_map(|x| x.to_le_bytes()).collect();
        let inputs =
            || vec![given("INPUT1", 1, Contents::Integers(vec![i32::MAX; 16])), given("INPUT0", 1, Contents::Raw(raw))];
        let outputs = answer(inputs(), Vec::new(), Form::Raw).unwrap();
        let of = |f: fn(i32, i32) -> i32| Values::Int32(xs.iter().map(|x| f(*x, i32::MAX)).collect());
        assert_eq!(outputs.iter().map(|output| output.name.as_str()).collect::<Vec<_>>(), OUTPUTS);
        assert_eq!([&outputs[0].values, &outputs[1].values], [&of(i32::wrapping_add), &of(i32::wrapping_sub)]);
        assert_eq!(outputs[0].shape, [1, 16]);
    }

    #[test]
    fn what_is_no_pair_of_inputs_is_told() {
        let ones = |rows: i64| Contents::Doubles(vec![1.0; rows as usize * 16]);
        let check = |inputs: Vec<Given>, expected: &str| {
            let told = answer(inputs, Vec::new(), Form::Typed).unwrap_err().to_string();
            assert!(told.contains(expected), "{told}");
        };
        let first = || given("INPUT0", 1, ones(1));
        check(vec![first()], "input \"INPUT1\" has neither data nor binary_data_size");
        check(vec![first(), first()], "is given twice");
        check(vec![given("x", 1, ones(1))], "input \"x\"; the model takes \"INPUT0 and INPUT1\"");
        check(vec![given("INPUT0", 9, ones(9))], "has shape [9, 16]; the model takes [-1, 16], -1 being 1 to 8");
        check(vec![given("INPUT0", 2, ones(1))], "has 16 numbers; shape [2, 16] needs 32");
        check(vec![first(), given("INPUT1", 2, ones(2))], "\"INPUT1\" has shape [2, 16]; the model takes [1, 16]");
        check(vec![given("INPUT0", 1, Contents::Doubles(vec![1.5; 16]))], "has 1.5; an INT32 tensor is sent as");
        check(vec![given("INPUT0", 1, Contents::Doubles(vec![3e9; 16]))], "has 3000000000; an INT32 tensor");
        check(
            vec![given("INPUT0", 1, Contents::Raw(vec![0; 63].into()))],
            "has 63 bytes; shape [1, 16] of INT32 needs 64",
        );
    }
}
