//! Requests that came over REST: JSON, with binary data behind it where its head says so, or one tensor alone.

use super::{DecodeError, ENCODED, classes, flag, no_shared_memory, schedule, whole_number};
use crate::request::{Contents, Form, Given, Request, Wanted};
use crate::wire::json::{InferRequest, InputTensor, Parameters};
use bytes::Bytes;
use sconce_model::artifact::TensorSpec;

/// Parts a body where `Inference-Header-Content-Length` says that its JSON ends; without the header all of it is JSON. `body`
/// is uncompressed.
///
/// # Errors
/// [`DecodeError`] if that is no length, or beyond the body.
pub fn split(mut body: Bytes, header: Option<&str>) -> Result<(Bytes, Bytes), DecodeError> {
    let Some(text) = header else { return Ok((body, Bytes::new())) };
    let got: usize = text.trim().parse().map_err(|_| DecodeError::HeaderLength { got: text.into() })?;
    if got > body.len() {
        return Err(DecodeError::HeaderBeyond { got, body: body.len() });
    }
    let head = body.split_to(got);
    Ok((head, body))
}

/// Reads a body of JSON, `head`, and the binary data that follows it.
///
/// # Errors
/// [`DecodeError`] with the place in the JSON, or with the bytes that were expected.
pub fn rest(head: &[u8], mut binary: Bytes) -> Result<Request, DecodeError> {
    let request: InferRequest =
        serde_json::from_slice(head).map_err(|error| DecodeError::Json { why: error.to_string() })?;
    let find = finder(&request.parameters);
    let (priority, timeout) = schedule(&find)?;
    let form = form(flag(&find, "binary_data_output")?.unwrap_or(false));
    let inputs = request.inputs.into_iter().map(|input| given(input, &mut binary));
    let inputs = inputs.collect::<Result<_, _>>()?;
    if !binary.is_empty() {
        return Err(DecodeError::BinaryLeft { left: binary.len() });
    }
    let outputs = request.outputs.into_iter().map(|output| {
        let find = finder(&output.parameters);
        no_shared_memory(&find)?;
        let of_output = flag(&find, "binary_data")?.map_or(form, self::form);
        Ok(Wanted { classes: classes(&find)?, name: output.name, form: of_output })
    });
    Ok(Request { id: request.id, inputs, outputs: outputs.collect::<Result<_, _>>()?, form, priority, timeout })
}

/// The whole body is the model's one input, raw: as many rows as it has bytes for; or one sequence, where they are of any length.
///
/// # Errors
/// [`DecodeError`] if the model has not the one.
pub fn whole(body: Bytes, input: Option<&TensorSpec>) -> Result<Request, DecodeError> {
    let spec = input.ok_or(DecodeError::Whole)?;
    let each = spec.shape.get(1..).unwrap_or_default();
    let row_bytes = each.iter().map(|&size| size.unsigned_abs() as usize).product::<usize>() * size_of::<f32>();
    // What is no whole number of rows is told so by the check of its bytes.
    let rows = (body.len() / row_bytes.max(1)).max(1) as i64;
    let shape = match each {
        [-1, rest @ ..] => [1, rows].iter().chain(rest).copied().collect(),
        _ => std::iter::once(rows).chain(each.iter().copied()).collect(),
    };
    let input =
        Given { name: spec.name.clone(), datatype: spec.datatype.clone(), shape, contents: Contents::Raw(body) };
    Ok(alone(input, Form::Raw))
}

/// The whole body is one encoded image.
pub fn image(body: Bytes) -> Request {
    let (name, datatype) = (ENCODED.to_owned(), "BYTES".to_owned());
    let input = Given { name, datatype, shape: vec![1, 1], contents: Contents::Elements(vec![body]) };
    alone(input, Form::Typed)
}

fn alone(input: Given, form: Form) -> Request {
    let id = String::new();
    Request { id, inputs: vec![input], outputs: Vec::new(), form, priority: 0, timeout: None }
}

fn given(input: InputTensor, binary: &mut Bytes) -> Result<Given, DecodeError> {
    let InputTensor { name, datatype, shape, parameters, data } = input;
    let find = finder(&parameters);
    no_shared_memory(&find)?;
    let contents = match (whole_number(&find, "binary_data_size", 0)?, data) {
        (Some(_), Some(_)) => return Err(DecodeError::Both { name, raw: "binary_data_size", typed: "data" }),
        (None, None) => return Err(DecodeError::Missing { name }),
        (Some(need), None) => match usize::try_from(need).ok().filter(|need| *need <= binary.len()) {
            Some(need) => Contents::Raw(binary.split_to(need)),
            None => return Err(DecodeError::BinaryShort { name, need, left: binary.len() }),
        },
        (None, Some(data)) => match data.other {
            Some(other) => Contents::Other(other),
            None if data.sizes.len() > 1 && !same(&data.sizes, &shape) => {
                return Err(DecodeError::Nested { name, got: data.sizes, shape });
            }
            None if data.texts.is_empty() => Contents::Doubles(data.values),
            None => Contents::Strings(data.texts),
        },
    };
    Ok(Given { name, datatype, shape, contents })
}

fn same(sizes: &[usize], shape: &[i64]) -> bool {
    sizes.len() == shape.len() && sizes.iter().zip(shape).all(|(&size, &need)| i64::try_from(size) == Ok(need))
}

fn form(binary: bool) -> Form {
    if binary { Form::Raw } else { Form::Typed }
}

fn finder(parameters: &Parameters) -> impl Fn(&str) -> Option<crate::request::Parameter> {
    |name| parameters.0.get(name).cloned()
}
