//! Answers over gRPC.

use crate::logs::Settings;
use crate::request::{Answer, Form, Parameter, Values};
use crate::wire::infer_parameter::ParameterChoice;
use crate::wire::log_settings_response::SettingValue;
use crate::wire::log_settings_response::setting_value::ParameterChoice as Choice;
use crate::wire::model_infer_response::InferOutputTensor;
use crate::wire::{BACKBONE, InferParameter, InferTensorContents, LogSettingsResponse, ModelInferResponse};

/// All outputs are raw, or none is: so the protocol has it.
pub fn grpc(answer: Answer) -> ModelInferResponse {
    let mut raw_output_contents = Vec::new();
    let outputs = answer.outputs.into_iter().map(|output| {
        let datatype = output.values.datatype().to_owned();
        let contents = match (output.form, output.values) {
            (Form::Raw, values) => {
                raw_output_contents.push(values.raw());
                None
            }
            (Form::Typed, Values::Fp32(fp32_contents)) => {
                Some(InferTensorContents { fp32_contents, ..Default::default() })
            }
            (Form::Typed, Values::Int32(int_contents)) => {
                Some(InferTensorContents { int_contents, ..Default::default() })
            }
            (Form::Typed, Values::Bytes(bytes_contents)) => {
                Some(InferTensorContents { bytes_contents, ..Default::default() })
            }
        };
        InferOutputTensor { name: output.name, datatype, shape: output.shape, parameters: Default::default(), contents }
    });
    let outputs = outputs.collect();
    ModelInferResponse {
        model_name: answer.model,
        model_version: answer.version,
        id: answer.id,
        parameters: answer.backbone.map(said).into_iter().collect(),
        outputs,
        raw_output_contents,
    }
}

/// What made the features.
fn said(backbone: String) -> (String, InferParameter) {
    (BACKBONE.into(), InferParameter { parameter_choice: Some(ParameterChoice::StringParam(backbone)) })
}

/// Settings of the log.
pub fn log(settings: Settings) -> LogSettingsResponse {
    let choice = |value: Parameter| match value {
        Parameter::Bool(value) => Some(Choice::BoolParam(value)),
        Parameter::Uint(value) => u32::try_from(value).ok().map(Choice::Uint32Param),
        Parameter::Text(value) => Some(Choice::StringParam(value)),
        Parameter::Int(_) | Parameter::Float(_) => None,
    };
    let setting = |(name, value)| (name, SettingValue { parameter_choice: choice(value) });
    LogSettingsResponse { settings: settings.into_iter().map(setting).collect() }
}
