//! Whatever is sent: it is refused, or it is a tensor as the model takes it.

use super::{Checked, DecodeError, Input, Signature, check, grpc, rest, split, whole};
use crate::request::Request;
use crate::wire::model_infer_request::InferInputTensor;
use crate::wire::{InferTensorContents, ModelInferRequest, raw_fp32};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message as _;
use sconce_model::artifact::TensorSpec;

fn signature() -> Signature {
    let tensor =
        |name: &str, shape: &[i64]| TensorSpec { name: name.into(), datatype: "FP32".into(), shape: shape.into() };
    Signature {
        input: tensor("x", &[-1, 2]),
        lengths: None,
        words: None,
        output: tensor("y", &[-1, 3]),
        images: None,
        labels: Vec::new(),
        max_batch_size: 4,
    }
}

fn checked(request: Result<Request, DecodeError>) -> Result<Input, DecodeError> {
    let request = request?;
    match check(request.inputs, &request.outputs, &signature())? {
        Checked::Tensor(input) => Ok(input),
        Checked::Images(..) => unreachable!("the model takes no images"),
    }
}

fn sound(read: Result<Input, DecodeError>) -> Result<(), TestCaseError> {
    match read {
        Ok(Input { xs, rows }) => {
            prop_assert_eq!(xs.dims(), [rows, 2]);
            prop_assert!((1..=4).contains(&rows));
            let values: Vec<f32> = xs.flatten_all().and_then(|xs| xs.to_vec1()).unwrap();
            prop_assert!(values.iter().all(|value| value.is_finite()));
        }
        Err(error) => prop_assert!(!error.to_string().is_empty()),
    }
    Ok(())
}

/// One that is not known failed everybody in its batch, -1 was word 0, and 1.5 was word 1.
#[test]
fn what_is_no_word_is_refused() {
    let signature = Signature { words: Some(3), ..signature() };
    let told = |second: f32| {
        let mut message = messages()[0].clone();
        message.inputs[0].shape = vec![1, 2];
        message.inputs[0].contents =
            Some(InferTensorContents { fp32_contents: vec![0.0, second], ..Default::default() });
        let request = grpc(message).unwrap();
        check(request.inputs, &request.outputs, &signature).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(told(2.0), Ok(()));
    for no_word in [3.0, -1.0, 1.5, 1e30] {
        let expected = format!("input \"x\" has {no_word} at 1; the model knows words by whole numbers from 0 to 2");
        assert_eq!(told(no_word), Err(expected));
    }
}

const JSON: &str = r#"{"id":"1","parameters":{"timeout":5,"priority":1},"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[[1,-2.5]]}],"outputs":[{"name":"y","parameters":{"classification":1}}]}"#;
const HEAD: &str = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"parameters":{"binary_data_size":16}}]}"#;

fn over_rest(body: Vec<u8>, header: Option<&str>) -> Result<Input, DecodeError> {
    let read = split(body.into(), header).and_then(|(head, binary)| rest(&head, binary));
    checked(read)
}

fn with_binary() -> Vec<u8> {
    [HEAD.as_bytes(), &raw_fp32(&[1.0, 2.0, 3.0, 4.0])].concat()
}

fn messages() -> [ModelInferRequest; 2] {
    let input = InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: vec![2, 2],
        contents: Some(InferTensorContents { fp32_contents: vec![1.0, 2.0, 3.0, 4.0], ..Default::default() }),
        ..Default::default()
    };
    let typed = ModelInferRequest { inputs: vec![input.clone()], ..Default::default() };
    let raw = ModelInferRequest {
        inputs: vec![InferInputTensor { contents: None, ..input }],
        raw_input_contents: vec![raw_fp32(&[1.0, 2.0, 3.0, 4.0])],
        ..Default::default()
    };
    [typed, raw]
}

#[test]
fn what_is_spoilt_below_is_sound_before() {
    over_rest(JSON.into(), None).unwrap();
    over_rest(with_binary(), Some(&HEAD.len().to_string())).unwrap();
    for message in messages() {
        checked(grpc(message)).unwrap();
    }
}

/// Some bytes are replaced, by ones that JSON likes as often as by any, and the end may be cut off.
fn spoil(bytes: &mut Vec<u8>, spoils: &[(Index, u8)], cut: Option<Index>) {
    for (place, byte) in spoils {
        let place = place.index(bytes.len());
        bytes[place] = *byte;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len()));
    }
}

fn spoils() -> impl Strategy<Value = Vec<(Index, u8)>> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(br#"0123456789-+.eE[]{},:" "#.to_vec())];
    vec((any::<Index>(), byte), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8 * ProptestConfig::default().cases, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn spoilt_json_is_refused_or_sound(spoils in spoils(), cut in any::<Option<Index>>()) {
        let mut body = JSON.as_bytes().to_vec();
        spoil(&mut body, &spoils, cut);
        sound(over_rest(body, None))?;
    }

    #[test]
    fn spoilt_binary_is_refused_or_sound(spoils in spoils(), cut in any::<Option<Index>>(), off in -20_i64..20) {
        let mut body = with_binary();
        spoil(&mut body, &spoils, cut);
        sound(over_rest(body, Some(&(HEAD.len() as i64 + off).to_string())))?;
    }

    #[test]
    fn any_header_and_any_body_are_refused_or_sound(header in "\\PC{0,8}", body in vec(any::<u8>(), 0..64)) {
        sound(over_rest(body.clone(), Some(&header)))?;
        sound(checked(whole(Bytes::from(body), Some(&signature().input))))?;
    }

    #[test]
    fn spoilt_messages_are_refused_or_sound(raw in 0..2_usize, spoils in spoils(), cut in any::<Option<Index>>()) {
        let mut bytes = messages()[raw].encode_to_vec();
        spoil(&mut bytes, &spoils, cut);
        if let Ok(message) = ModelInferRequest::decode(&bytes[..]) {
            sound(checked(grpc(message)))?;
        }
    }

    #[test]
    fn sequences_of_lengths_that_are_taken_come_as_they_are(rows in 0..6_i64, steps in -2..12_i64, features in 1..4_i64) {
        let signature = Signature {
            input: TensorSpec { name: "x".into(), datatype: "FP32".into(), shape: vec![-1, -1, 2] },
            lengths: Some(3..=9),
            ..signature()
        };
        let mut message = messages()[0].clone();
        message.inputs[0].shape = vec![rows, steps, features];
        let count = (rows * steps * features).max(0) as usize;
        message.inputs[0].contents = Some(InferTensorContents { fp32_contents: vec![0.5; count], ..Default::default() });
        let request = grpc(message).unwrap();
        match check(request.inputs, &request.outputs, &signature) {
            Ok(Checked::Tensor(Input { xs, .. })) => {
                prop_assert!((3..=9).contains(&steps) && (1..=4).contains(&rows) && features == 2);
                prop_assert_eq!(xs.dims(), [rows as usize, steps as usize, 2]);
            }
            Ok(Checked::Images(..)) => unreachable!("the model takes no images"),
            Err(error) if !(3..=9).contains(&steps) => {
                let expected = format!("input \"x\" has sequences of {steps} steps; the model takes 3 to 9: send shorter parts, or fill up");
                prop_assert_eq!(error.to_string(), expected);
            }
            Err(DecodeError::Shape { .. }) => prop_assert!(!(1..=4).contains(&rows) || features != 2),
            Err(other) => prop_assert!(false, "{}", other),
        }
        let body = vec![0; (8 * steps.max(1)) as usize];
        let alone = whole(body.into(), Some(&signature.input)).unwrap();
        prop_assert_eq!(&alone.inputs[0].shape, &[1, steps.max(1), 2]);
    }

    #[test]
    fn any_shape_is_refused_or_sound(shape in vec(any::<i64>(), 0..5), count in 0..20_usize) {
        let mut message = messages()[0].clone();
        message.inputs[0].shape = shape;
        message.inputs[0].contents = Some(InferTensorContents { fp32_contents: vec![0.5; count], ..Default::default() });
        sound(checked(grpc(message)))?;
    }
}
