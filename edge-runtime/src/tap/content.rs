//! What a request held and an answer said, off their gRPC frames, and what of a request is asked of its model. Pure.

use crate::decode::FEATURES;
use crate::wire::infer_parameter::ParameterChoice;
use crate::wire::model_infer_request::InferRequestedOutputTensor;
use crate::wire::{BACKBONE, ModelInferRequest, ModelInferResponse};
use bytes::Bytes;
use prost::Message as _;

/// What a classifier said.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    pub version: String,
    pub class: u64,
    /// From 0 to 1.
    pub best: f64,
    pub margin: f64,
}

fn message(frame: &Bytes) -> Option<Bytes> {
    let head = frame.get(..5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    (head[0] == 0 && frame.len() >= 5 + length).then(|| frame.slice(5..5 + length))
}

/// What a server said; `None` of what is no answer.
pub fn said(frame: &Bytes) -> Option<ModelInferResponse> {
    ModelInferResponse::decode(message(frame)?).ok()
}

/// The first output that is scores of one sample; `None` of another task, of a batch, or of what a backbone has made.
pub fn scores(answer: &ModelInferResponse) -> Option<Scores> {
    if answer.parameters.contains_key(BACKBONE) {
        return None;
    }
    let mut raws = answer.raw_output_contents.iter();
    answer.outputs.iter().find_map(|output| {
        let raw = raws.next();
        let values: Vec<f32> = match (raw, &output.contents) {
            (Some(raw), _) => raw.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            (None, contents) => contents.as_ref()?.fp32_contents.clone(),
        };
        let is_one = output.datatype == "FP32" && matches!(output.shape[..], [_] | [1, _]);
        (is_one && values.len() > 1).then(|| ranked(&answer.model_version, &values)).flatten()
    })
}

fn ranked(version: &str, values: &[f32]) -> Option<Scores> {
    let values = shares(values)?;
    let mut order: Vec<(usize, f64)> = values.into_iter().enumerate().collect();
    order.sort_by(|one, other| other.1.total_cmp(&one.1));
    let ((class, best), (_, second)) = (*order.first()?, *order.get(1)?);
    Some(Scores { version: version.to_owned(), class: class as u64, best, margin: best - second })
}

/// Probabilities as they are; other scores are logits.
fn shares(values: &[f32]) -> Option<Vec<f64>> {
    let values: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
    if values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let sum: f64 = values.iter().sum();
    if values.iter().all(|value| *value >= 0.0) && (sum - 1.0).abs() < 0.01 {
        return Some(values);
    }
    let most = values.iter().copied().fold(f64::MIN, f64::max);
    let powers: Vec<f64> = values.iter().map(|value| (value - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    Some(powers.into_iter().map(|power| power / sum).collect())
}

/// What a backbone made of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// As NumPy writes a tensor.
    pub content: Bytes,
    /// Digest of what made them.
    pub backbone: String,
    /// Of the model whose backbone it is.
    pub version: String,
}

/// The same input for the same model, which is asked what its backbone makes of it; `None` of a batch: it is no one sample.
pub fn asking(frame: &Bytes) -> Option<ModelInferRequest> {
    let ModelInferRequest { model_name, model_version, inputs, raw_input_contents, .. } =
        ModelInferRequest::decode(message(frame)?).ok()?;
    if inputs.iter().any(|input| !is_one(&input.shape)) {
        return None;
    }
    let outputs = vec![InferRequestedOutputTensor { name: FEATURES.into(), ..Default::default() }];
    Some(ModelInferRequest { model_name, model_version, inputs, outputs, raw_input_contents, ..Default::default() })
}

fn is_one(shape: &[i64]) -> bool {
    shape.first() == Some(&1)
}

/// `None` of a batch's, and of an answer that does not say what made it: it is no features, whatever it is called.
pub fn features(answer: &ModelInferResponse) -> Option<Features> {
    let ParameterChoice::StringParam(backbone) = answer.parameters.get(BACKBONE)?.parameter_choice.clone()? else {
        return None;
    };
    let [output] = &answer.outputs[..] else { return None };
    let values = match answer.raw_output_contents.first() {
        Some(raw) => raw.clone(),
        None => crate::wire::raw_fp32(&output.contents.as_ref()?.fp32_contents),
    };
    let is_sample = output.name == FEATURES && output.datatype == "FP32" && is_one(&output.shape);
    let version = answer.model_version.clone();
    is_sample.then(|| Features { content: npy("<f4", &output.shape, &values), backbone, version })
}

/// The first input: a file as it was sent, or a tensor as NumPy writes it; `None` of what is neither.
pub fn content(frame: &Bytes) -> Option<Bytes> {
    let request = ModelInferRequest::decode(message(frame)?).ok()?;
    let input = request.inputs.first()?;
    let raw = request.raw_input_contents.first().cloned();
    if input.datatype == "BYTES" {
        return match (raw, &input.contents) {
            (Some(raw), _) => {
                let (length, rest) = raw.split_first_chunk()?;
                (rest.len() == u32::from_le_bytes(*length) as usize).then(|| raw.slice(4..))
            }
            (None, contents) => match &contents.as_ref()?.bytes_contents[..] {
                [file] => Some(file.clone()),
                _ => None,
            },
        };
    }
    let values = match raw {
        Some(raw) => raw,
        None if input.datatype == "FP32" => crate::wire::raw_fp32(&input.contents.as_ref()?.fp32_contents),
        None => return None,
    };
    Some(npy(descriptor(&input.datatype)?, &input.shape, &values))
}

fn descriptor(datatype: &str) -> Option<&'static str> {
    Some(match datatype {
        "BOOL" => "|b1",
        "UINT8" => "|u1",
        "INT8" => "|i1",
        "INT32" => "<i4",
        "INT64" => "<i8",
        "FP16" => "<f2",
        "FP32" => "<f4",
        "FP64" => "<f8",
        _ => return None,
    })
}

/// Version 1.0 of the format: a magic word, and a header of Python padded to 64 bytes.
fn npy(descriptor: &str, shape: &[i64], values: &[u8]) -> Bytes {
    let shape: String = shape.iter().map(|length| format!("{length}, ")).collect();
    let mut header = format!("{{'descr': '{descriptor}', 'fortran_order': False, 'shape': ({}), }}", shape.trim_end());
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::model_infer_request::InferInputTensor;
    use crate::wire::model_infer_response::InferOutputTensor;
    use crate::wire::{InferParameter, raw_bytes, raw_fp32};

    fn frame(message: &impl prost::Message) -> Bytes {
        let body = message.encode_to_vec();
        [&[0][..], &(body.len() as u32).to_be_bytes(), &body].concat().into()
    }

    fn response(name: &str, shape: Vec<i64>, values: &[f32]) -> ModelInferResponse {
        let output = InferOutputTensor { name: name.into(), datatype: "FP32".into(), shape, ..Default::default() };
        ModelInferResponse {
            model_version: "2".into(),
            outputs: vec![output],
            raw_output_contents: vec![raw_fp32(values)],
            ..Default::default()
        }
    }

    fn answered(shape: Vec<i64>, values: &[f32]) -> Option<Scores> {
        scores(&said(&frame(&response("scores", shape, values))).unwrap())
    }

    fn made(shape: Vec<i64>) -> ModelInferResponse {
        let digest = ParameterChoice::StringParam("sha256:07".into());
        let parameters = [(BACKBONE.into(), InferParameter { parameter_choice: Some(digest) })].into();
        ModelInferResponse { parameters, ..response(FEATURES, shape, &[0.25, 0.75]) }
    }

    fn asked(datatype: &str, shape: Vec<i64>, raw: Bytes) -> Option<Bytes> {
        let input = InferInputTensor { name: "x".into(), datatype: datatype.into(), shape, ..Default::default() };
        content(&frame(&ModelInferRequest { inputs: vec![input], raw_input_contents: vec![raw], ..Default::default() }))
    }

    #[test]
    fn scores_are_probabilities_or_become_them() {
        let sure = answered(vec![1, 3], &[0.25, 0.625, 0.125]).unwrap();
        assert_eq!(sure, Scores { version: "2".into(), class: 1, best: 0.625, margin: 0.375 });
        let logits = answered(vec![3], &[-1.0, 3.0, 3.0]).unwrap();
        assert!(logits.margin.abs() < 1e-9 && logits.best < 0.5, "{logits:?}");
        assert_eq!(answered(vec![2, 2], &[1.0, 0.0, 0.0, 1.0]), None, "a batch");
        assert_eq!(answered(vec![1, 2], &[f32::NAN, 0.0]), None);
        assert_eq!(said(&Bytes::from_static(b"\0\0\0\0\x09nonsense")), None);
    }

    /// A client that asked for features gave the tap a sample whose classes were their places.
    #[test]
    fn features_are_no_scores_and_of_one_sample() {
        assert_eq!(scores(&made(vec![1, 2])), None);
        let one = features(&made(vec![1, 2])).unwrap();
        assert_eq!(
            (&*one.backbone, &*one.version, &one.content[128..]),
            ("sha256:07", "2", &raw_fp32(&[0.25, 0.75])[..])
        );
        assert_eq!(features(&response(FEATURES, vec![1, 2], &[0.25, 0.75])), None, "it does not say what made them");
        assert_eq!(features(&made(vec![2, 1])), None, "a batch");
        let asked = |shape: &[i64]| {
            let input = InferInputTensor {
                name: "x".into(),
                datatype: "FP32".into(),
                shape: shape.into(),
                ..Default::default()
            };
            let request = ModelInferRequest { model_name: "m".into(), inputs: vec![input], ..Default::default() };
            asking(&frame(&request)).map(|asking| asking.outputs[0].name.clone())
        };
        assert_eq!([asked(&[1, 2]), asked(&[2, 1]), asked(&[])], [Some(FEATURES.into()), None, None]);
    }

    #[test]
    fn a_file_is_as_it_was_and_a_tensor_is_numpys() {
        let file = Bytes::from_static(b"\xff\xd8...");
        assert_eq!(asked("BYTES", vec![1], raw_bytes(std::slice::from_ref(&file))), Some(file.clone()));
        assert_eq!(asked("BYTES", vec![2], raw_bytes(&[file.clone(), file])), None);
        let npy = asked("FP32", vec![1, 2], raw_fp32(&[1.5, -2.0])).unwrap();
        assert!(
            npy.starts_with(b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2,), }")
        );
        assert_eq!((npy.len(), &npy[128..]), (136, &raw_fp32(&[1.5, -2.0])[..]));
        assert_eq!(asked("STRING", vec![1], Bytes::new()), None);
    }
}
