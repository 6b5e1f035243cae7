//! The Open Inference Protocol's messages and stubs, generated from `proto/`.

#![allow(clippy::all, missing_docs)]

tonic::include_proto!("inference");

/// For gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));

/// Raw contents of an `FP32` tensor.
pub fn raw_fp32(values: &[f32]) -> bytes::Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
