//! Answers over REST.

use crate::request::{Answer, Form, Values};
use crate::wire::json::{BinarySize, Elements, InferResponse, OutputTensor};
use serde::ser::Error as _;

/// The body, and how long its JSON is where binary data follows.
///
/// # Errors
/// If an answer makes no JSON: it has no number for NaN, nor for infinity.
pub fn rest(answer: &Answer) -> serde_json::Result<(Vec<u8>, Option<usize>)> {
    for output in &answer.outputs {
        let (Form::Typed, Values::Fp32(values)) = (output.form, &output.values) else { continue };
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(serde_json::Error::custom(format!(
                "\"{}\" has {value}, which is no JSON; ask for binary data",
                output.name
            )));
        }
    }
    let mut binary = Vec::new();
    let outputs = answer.outputs.iter().map(|output| {
        let (parameters, data) = match (output.form, &output.values) {
            (Form::Raw, values) => {
                let raw = values.raw();
                let size = raw.len();
                binary.push(raw);
                (Some(BinarySize { binary_data_size: size }), None)
            }
            (Form::Typed, Values::Fp32(values)) => (None, Some(Elements::Fp32(values))),
            (Form::Typed, Values::Int32(values)) => (None, Some(Elements::Int32(values))),
            (Form::Typed, Values::Bytes(texts)) => (None, Some(Elements::Bytes(texts))),
        };
        OutputTensor { name: &output.name, datatype: output.values.datatype(), shape: &output.shape, parameters, data }
    });
    let outputs = outputs.collect();
    let response = InferResponse { model_name: &answer.model, model_version: &answer.version, id: &answer.id, outputs };
    let mut body = serde_json::to_vec(&response)?;
    if binary.is_empty() {
        return Ok((body, None));
    }
    let head = body.len();
    binary.iter().for_each(|raw| body.extend_from_slice(raw));
    Ok((body, Some(head)))
}
