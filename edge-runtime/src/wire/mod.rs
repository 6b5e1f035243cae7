//! The Open Inference Protocol's messages: over gRPC generated from `proto/`, over REST in [`json`].

#![allow(clippy::all, missing_docs)]

mod codec;
pub mod http2;
pub mod json;

pub use codec::Codec;

tonic::include_proto!("inference");

/// The path of inference over gRPC.
pub const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// The parameter of an answer that names what made the features in it, by digest.
pub const BACKBONE: &str = "backbone";

/// For gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));

/// Raw contents of an `FP32` tensor.
pub fn raw_fp32(values: &[f32]) -> bytes::Bytes {
    values.iter().map(|value| value.to_le_bytes()).collect::<Vec<_>>().into_flattened().into()
}

/// Raw contents of an `INT32` tensor.
pub fn raw_int32(values: &[i32]) -> bytes::Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Raw contents of a `BYTES` tensor: before each element its length, 32 bits, little-endian.
pub fn raw_bytes(elements: &[bytes::Bytes]) -> bytes::Bytes {
    let mut raw = Vec::with_capacity(elements.iter().map(|element| 4 + element.len()).sum());
    for element in elements {
        raw.extend_from_slice(&(element.len() as u32).to_le_bytes());
        raw.extend_from_slice(element);
    }
    raw.into()
}

/// Numbers of enumerations, as JSON names them.
mod names {
    use serde::Serializer;

    pub fn data_type<S: Serializer>(number: &i32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(super::DataType::try_from(*number).unwrap_or_default().as_str_name())
    }

    pub fn kind<S: Serializer>(number: &i32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(super::model_instance_group::Kind::try_from(*number).unwrap_or_default().as_str_name())
    }
}
