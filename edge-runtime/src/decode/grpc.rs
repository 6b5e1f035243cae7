//! Requests that came over gRPC.

use super::{DecodeError, classes, no_shared_memory, schedule};
use crate::logs::Settings;
use crate::request::{Contents, Form, Given, Parameter, Request, Wanted};
use crate::wire::infer_parameter::ParameterChoice;
use crate::wire::log_settings_request::SettingValue;
use crate::wire::log_settings_request::setting_value::ParameterChoice as Choice;
use crate::wire::{InferParameter, InferTensorContents, LogSettingsRequest, ModelInferRequest};
use std::collections::HashMap;

/// The answer will be raw if the request was.
///
/// # Errors
/// [`DecodeError`] if the message contradicts itself.
pub fn grpc(message: ModelInferRequest) -> Result<Request, DecodeError> {
    let (priority, timeout) = schedule(&|name| found(&message.parameters, name))?;
    let (raws, need) = (message.raw_input_contents, message.inputs.len());
    let form = if raws.is_empty() { Form::Typed } else { Form::Raw };
    if form == Form::Raw && raws.len() != need {
        return Err(DecodeError::RawCount { got: raws.len(), need });
    }
    let mut raws = raws.into_iter();
    let inputs = message.inputs.into_iter().map(|input| {
        no_shared_memory(&|name| found(&input.parameters, name))?;
        let contents = match (raws.next(), input.contents) {
            (Some(_), Some(_)) => {
                let (raw, typed) = ("raw_input_contents", "contents");
                return Err(DecodeError::Both { name: input.name, raw, typed });
            }
            (Some(bytes), None) => Contents::Raw(bytes),
            (None, contents) => typed(contents.unwrap_or_default()),
        };
        Ok(Given { name: input.name, datatype: input.datatype, shape: input.shape, contents })
    });
    let inputs = inputs.collect::<Result<_, _>>()?;
    let outputs = message.outputs.into_iter().map(|output| {
        let find = |name: &str| found(&output.parameters, name);
        no_shared_memory(&find)?;
        Ok(Wanted { classes: classes(&find)?, name: output.name, form })
    });
    Ok(Request { id: message.id, inputs, outputs: outputs.collect::<Result<_, _>>()?, form, priority, timeout })
}

/// Settings of the log. A setting without a value is an empty text, which none of them takes.
pub fn log(message: LogSettingsRequest) -> Settings {
    let value = |value: SettingValue| match value.parameter_choice {
        Some(Choice::BoolParam(value)) => Parameter::Bool(value),
        Some(Choice::Uint32Param(value)) => Parameter::Uint(value.into()),
        Some(Choice::StringParam(value)) => Parameter::Text(value),
        None => Parameter::Text(String::new()),
    };
    message.settings.into_iter().map(|(name, setting)| (name, value(setting))).collect()
}

fn typed(contents: InferTensorContents) -> Contents {
    let others = [
        ("bool_contents", contents.bool_contents.is_empty()),
        ("int64_contents", contents.int64_contents.is_empty()),
        ("uint_contents", contents.uint_contents.is_empty()),
        ("uint64_contents", contents.uint64_contents.is_empty()),
        ("fp64_contents", contents.fp64_contents.is_empty()),
    ];
    match others.into_iter().find(|(_, empty)| !empty) {
        Some((field, _)) => Contents::Other(field),
        None => match (contents.fp32_contents, contents.int_contents, contents.bytes_contents) {
            (numbers, integers, elements) if integers.is_empty() && elements.is_empty() => Contents::Numbers(numbers),
            (numbers, integers, elements) if numbers.is_empty() && elements.is_empty() => Contents::Integers(integers),
            (numbers, integers, elements) if numbers.is_empty() && integers.is_empty() => Contents::Elements(elements),
            _ => Contents::Other("contents of two types"),
        },
    }
}

fn found(parameters: &HashMap<String, InferParameter>, name: &str) -> Option<Parameter> {
    Some(match parameters.get(name)?.parameter_choice.clone()? {
        ParameterChoice::BoolParam(value) => Parameter::Bool(value),
        ParameterChoice::Int64Param(value) => Parameter::Int(value),
        ParameterChoice::Uint64Param(value) => Parameter::Uint(value),
        ParameterChoice::DoubleParam(value) => Parameter::Float(value),
        ParameterChoice::StringParam(value) => Parameter::Text(value),
    })
}
