//! Answers over REST.

use crate::request::{Answer, Answered, Form, Values};
use crate::wire::json::{BinarySize, Elements, InferResponse, Made, OutputTensor};
use serde::ser::Error as _;
use serde_json::Error;

/// The body, and how long its JSON is where binary data follows.
///
/// # Errors
/// If an answer makes no JSON: it has no number for NaN, nor for infinity, and its strings are texts.
pub fn rest(answer: &Answer) -> serde_json::Result<(Vec<u8>, Option<usize>)> {
    let mut binary = Vec::new();
    let outputs = answer.outputs.iter().map(|output| {
        let (parameters, data) = match output.form {
            Form::Raw => {
                let raw = output.values.raw();
                let size = raw.len();
                binary.push(raw);
                (Some(BinarySize { binary_data_size: size }), None)
            }
            Form::Typed => (None, Some(elements(output)?)),
        };
        let (datatype, shape) = (output.values.datatype(), &output.shape[..]);
        Ok(OutputTensor { name: &output.name, datatype, shape, parameters, data })
    });
    let outputs = outputs.collect::<serde_json::Result<_>>()?;
    let parameters = answer.backbone.as_deref().map(|backbone| Made { backbone });
    let (model_name, model_version, id) = (&*answer.model, &*answer.version, &*answer.id);
    let response = InferResponse { model_name, model_version, id, parameters, outputs };
    let mut body = serde_json::to_vec(&response)?;
    if binary.is_empty() {
        return Ok((body, None));
    }
    let head = body.len();
    binary.iter().for_each(|raw| body.extend_from_slice(raw));
    Ok((body, Some(head)))
}

fn elements(output: &Answered) -> serde_json::Result<Elements<'_>> {
    let no =
        |what: String| Error::custom(format!("\"{}\" has {what}, which is no JSON; ask for binary data", output.name));
    match &output.values {
        Values::Fp32(values) => match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(no(value.to_string())),
            None => Ok(Elements::Fp32(values)),
        },
        Values::Int32(values) => Ok(Elements::Int32(values)),
        Values::Bytes(elements) => {
            let texts = elements.iter().map(|element| std::str::from_utf8(element)).collect::<Result<_, _>>();
            texts.map(Elements::Bytes).map_err(|_| no("bytes that are no UTF-8".into()))
        }
    }
}
