//! From a tensor to the wire.

use crate::decode::Signature;
use crate::wire::model_infer_response::InferOutputTensor;
use crate::wire::{InferTensorContents, ModelInferResponse, raw_fp32};
use candle_core::Tensor;

/// An answer to one request.
#[derive(Debug)]
pub struct Output {
    /// `(rows, ..output)`.
    pub ys: Tensor,
}

/// Who answers, as the protocol wants to know.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: String,
    pub version: String,
}

/// # Errors
/// If the tensor is no `f32`: the model's fault, not the request's.
pub fn encode(
    output: &Output,
    id: String,
    raw: bool,
    identity: &Identity,
    signature: &Signature,
) -> candle_core::Result<ModelInferResponse> {
    let values: Vec<f32> = output.ys.flatten_all()?.to_vec1()?;
    let (contents, raw_output_contents) = if raw {
        (None, vec![raw_fp32(&values)])
    } else {
        (Some(InferTensorContents { fp32_contents: values, ..InferTensorContents::default() }), Vec::new())
    };
    let tensor = InferOutputTensor {
        name: signature.output.name.clone(),
        datatype: signature.output.datatype.clone(),
        shape: output.ys.dims().iter().map(|&size| size as i64).collect(),
        parameters: Default::default(),
        contents,
    };
    Ok(ModelInferResponse {
        model_name: identity.name.clone(),
        model_version: identity.version.clone(),
        id,
        parameters: Default::default(),
        outputs: vec![tensor],
        raw_output_contents,
    })
}
