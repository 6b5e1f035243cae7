//! From the wire to a tensor: every byte is checked here, once.

use crate::wire::{InferTensorContents, ModelInferRequest};
use candle_core::{Device, Tensor};
use sconce_model::artifact::TensorSpec;
use thiserror::Error;

/// What a model takes and gives.
#[derive(Clone, Debug)]
pub struct Signature {
    pub input: TensorSpec,
    pub output: TensorSpec,
    pub max_batch_size: usize,
}

/// A request that has been checked.
#[derive(Debug)]
pub struct Input {
    /// `(rows, ..input)`.
    pub xs: Tensor,
    pub rows: usize,
    pub id: String,
    /// The request's contents were raw: so will be the answer's.
    pub raw: bool,
}

#[derive(Debug, Error, PartialEq)]
pub enum DecodeError {
    #[error("{got} inputs; the model takes one, \"{name}\"")]
    Inputs { got: usize, name: String },
    #[error("input \"{got}\"; the model takes \"{name}\"")]
    Name { got: String, name: String },
    #[error("output \"{got}\" was asked for; the model gives \"{name}\"")]
    Output { got: String, name: String },
    #[error("input \"{name}\" has datatype {got:?}; the model takes {need}")]
    Datatype { name: String, got: String, need: String },
    #[error("input \"{name}\" has shape {got:?}; the model takes {need:?}, -1 being 1 to {max}")]
    Shape { name: String, got: Vec<i64>, need: Vec<i64>, max: usize },
    #[error("both raw_input_contents and contents are set; the protocol allows one of them")]
    Both,
    #[error("{got} raw_input_contents for one input; send one")]
    RawCount { got: usize },
    #[error("input \"{name}\" has {got} bytes; shape {shape:?} of FP32 needs {need}")]
    Bytes { name: String, got: usize, shape: Vec<i64>, need: usize },
    #[error("input \"{name}\" has {got} fp32_contents; shape {shape:?} needs {need}")]
    Elements { name: String, got: usize, shape: Vec<i64>, need: usize },
    #[error("input \"{name}\" holds {field}; an FP32 tensor is sent in fp32_contents or raw_input_contents")]
    Field { name: String, field: &'static str },
    #[error("input \"{name}\" has {value} at {index}; numbers must be finite")]
    NotFinite { name: String, index: usize, value: f32 },
    #[error("input \"{name}\" makes no tensor: {why}")]
    Tensor { name: String, why: String },
}

/// # Errors
/// [`DecodeError`] says what was expected.
pub fn decode(request: ModelInferRequest, signature: &Signature) -> Result<Input, DecodeError> {
    let spec = &signature.input;
    let name = || spec.name.clone();
    if let Some(other) = request.outputs.iter().find(|output| output.name != signature.output.name) {
        return Err(DecodeError::Output { got: other.name.clone(), name: signature.output.name.clone() });
    }
    let [tensor] = &request.inputs[..] else {
        return Err(DecodeError::Inputs { got: request.inputs.len(), name: name() });
    };
    if tensor.name != spec.name {
        return Err(DecodeError::Name { got: tensor.name.clone(), name: name() });
    }
    if tensor.datatype != spec.datatype {
        return Err(DecodeError::Datatype { name: name(), got: tensor.datatype.clone(), need: spec.datatype.clone() });
    }
    let (rows, elements) = rows_and_elements(&tensor.shape, signature).ok_or_else(|| DecodeError::Shape {
        name: name(),
        got: tensor.shape.clone(),
        need: spec.shape.clone(),
        max: signature.max_batch_size,
    })?;
    let raw = !request.raw_input_contents.is_empty();
    let values = match (&request.raw_input_contents[..], &tensor.contents) {
        ([_, ..], Some(_)) => return Err(DecodeError::Both),
        ([bytes], None) => {
            let need = elements * size_of::<f32>();
            if bytes.len() != need {
                return Err(DecodeError::Bytes { name: name(), got: bytes.len(), shape: tensor.shape.clone(), need });
            }
            bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
        }
        (more @ [_, _, ..], None) => return Err(DecodeError::RawCount { got: more.len() }),
        ([], contents) => typed(contents.as_ref(), elements, &tensor.shape, &spec.name)?,
    };
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(DecodeError::NotFinite { name: name(), index, value: values[index] });
    }
    let shape: Vec<usize> = tensor.shape.iter().map(|&size| size as usize).collect();
    let xs = Tensor::from_vec(values, shape, &Device::Cpu)
        .map_err(|error| DecodeError::Tensor { name: name(), why: error.to_string() })?;
    Ok(Input { xs, rows, id: request.id, raw })
}

/// `None` if the shape is not the model's.
fn rows_and_elements(shape: &[i64], signature: &Signature) -> Option<(usize, usize)> {
    let (&rows, rest) = shape.split_first()?;
    let rows = usize::try_from(rows).ok().filter(|rows| (1..=signature.max_batch_size).contains(rows))?;
    let need = signature.input.shape.get(1..)?;
    if rest != need {
        return None;
    }
    let elements = rest.iter().try_fold(rows, |product, &size| product.checked_mul(usize::try_from(size).ok()?))?;
    Some((rows, elements))
}

fn typed(
    contents: Option<&InferTensorContents>,
    need: usize,
    shape: &[i64],
    name: &str,
) -> Result<Vec<f32>, DecodeError> {
    let empty = InferTensorContents::default();
    let contents = contents.unwrap_or(&empty);
    let others = [
        ("bool_contents", contents.bool_contents.is_empty()),
        ("int_contents", contents.int_contents.is_empty()),
        ("int64_contents", contents.int64_contents.is_empty()),
        ("uint_contents", contents.uint_contents.is_empty()),
        ("uint64_contents", contents.uint64_contents.is_empty()),
        ("fp64_contents", contents.fp64_contents.is_empty()),
        ("bytes_contents", contents.bytes_contents.is_empty()),
    ];
    if let Some((field, _)) = others.into_iter().find(|(_, empty)| !empty) {
        return Err(DecodeError::Field { name: name.into(), field });
    }
    if contents.fp32_contents.len() != need {
        return Err(DecodeError::Elements {
            name: name.into(),
            got: contents.fp32_contents.len(),
            shape: shape.to_vec(),
            need,
        });
    }
    Ok(contents.fp32_contents.clone())
}
