//! Weights in safetensors files: as f32, as f16, or as bytes beside the scales of their outputs.

use super::ArtifactError;
use crate::graph::Node;
use crate::ops::values;
use crate::variant::{Arithmetic, Variant, dequantised};
use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensors, View};
use sconce_kernels::half::{f16_to_f32, f32_to_f16, is_f16};
use sconce_kernels::pack::byte;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// `conv2d_1.weight_scale` holds the scales of `conv2d_1.weight`, one per output.
const SCALE: &str = "_scale";

/// What the files of a variant hold: f32 tensors, and bytes with their scales, by the names of the weights.
#[derive(Default)]
pub(super) struct Stored {
    floats: BTreeMap<String, Tensor>,
    bytes: BTreeMap<String, Bytes>,
}

struct Bytes {
    shape: Vec<usize>,
    values: Vec<i8>,
}

/// The tensors of a network, and the scales of those that were bytes, by the names of the weights.
pub(super) struct Weights {
    pub tensors: BTreeMap<String, Tensor>,
    pub scales: BTreeMap<String, Vec<f32>>,
}

impl Stored {
    /// Reads one more file, as safetensors wrote it.
    ///
    /// # Errors
    /// [`ArtifactError::Broken`] if it is none, or holds numbers that no variant has.
    pub(super) fn read(&mut self, file: &str, bytes: &[u8]) -> Result<(), ArtifactError> {
        let broken = |why: String| ArtifactError::Broken { file: file.into(), why };
        for (name, view) in SafeTensors::deserialize(bytes).map_err(|error| broken(error.to_string()))?.iter() {
            let data = view.data();
            let shape = view.shape().to_vec();
            let floats = match view.dtype() {
                Dtype::F32 => data.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect(),
                Dtype::F16 => data.as_chunks().0.iter().map(|two| f16_to_f32(u16::from_le_bytes(*two))).collect(),
                Dtype::I8 => {
                    let values: Vec<i8> = data.iter().map(|byte| byte.cast_signed()).collect();
                    if values.contains(&i8::MIN) {
                        return Err(broken(format!("tensor \"{name}\" holds -128; bytes of weights are -127 to 127")));
                    }
                    self.bytes.insert(name.into(), Bytes { shape, values });
                    continue;
                }
                other => return Err(broken(format!("tensor \"{name}\" is {other:?}; known are F32, F16 and I8"))),
            };
            let tensor = Tensor::from_vec::<_, f32>(floats, shape, &Device::Cpu);
            self.floats.insert(name.into(), tensor.map_err(|error| broken(error.to_string()))?);
        }
        Ok(())
    }

    /// Gives bytes their values.
    ///
    /// # Errors
    /// What is wrong with the scales of a tensor of bytes.
    pub(super) fn dequantise(mut self) -> Result<Weights, String> {
        let mut scales = BTreeMap::new();
        for (name, Bytes { shape, values }) in self.bytes {
            let outputs = shape.first().copied().unwrap_or_default();
            let of_outputs = self.floats.remove(&format!("{name}{SCALE}"));
            let of_outputs = of_outputs.and_then(|scales| scales.to_vec1::<f32>().ok());
            let of_outputs = of_outputs
                .filter(|scales| {
                    scales.len() == outputs && scales.iter().all(|scale| scale.is_normal() && *scale > 0.0)
                })
                .ok_or_else(|| format!("tensor \"{name}\" needs {outputs} scales above 0 in \"{name}{SCALE}\""))?;
            let floats = dequantised(&values, &of_outputs);
            let tensor = Tensor::from_vec(floats, shape, &Device::Cpu).map_err(|error| error.to_string())?;
            self.floats.insert(name.clone(), tensor);
            scales.insert(name, of_outputs);
        }
        Ok(Weights { tensors: self.floats, scales })
    }
}

struct Encoded {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl View for &Encoded {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.data.as_slice().into()
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// A file of weights: its path in the artifact, and its bytes.
pub(super) type Part = (String, Vec<u8>);

pub(super) fn size(parts: &[Part]) -> u64 {
    parts.iter().map(|(_, bytes)| bytes.len() as u64).sum()
}

/// The files that hold a variant's weights: those of the backbone, if it has some, then those of the head. The same weights are
/// the same bytes whatever stands in the other file. `head` is the node that the head begins with; [`crate::graph::Graph::head`] where it is not
/// said, or this graph has no such node.
pub(super) fn encode(variant: &Variant, head: Option<&str>) -> Result<Vec<Part>, ArtifactError> {
    let graph = variant.network.graph();
    let backbone = head.and_then(|head| graph.before(head)).or_else(|| graph.before(graph.head()?)).unwrap_or_default();
    let (before, after) = graph.nodes.split_at(backbone.len());
    let parts = [("backbone", before), ("head", after)].map(|(part, nodes)| {
        let file = format!("weights/{}/{part}.safetensors", variant.name);
        encode_part(variant, nodes, &file).map(|bytes| bytes.map(|bytes| (file, bytes)))
    });
    parts.into_iter().filter_map(Result::transpose).collect()
}

/// None of nodes without weights.
pub(super) fn encode_part(variant: &Variant, nodes: &[Node], file: &str) -> Result<Option<Vec<u8>>, ArtifactError> {
    let broken = |why: String| ArtifactError::Broken { file: file.into(), why };
    let mut tensors = BTreeMap::new();
    for parameter in nodes.iter().flat_map(|node| &node.parameters) {
        let name = &parameter.name;
        let Some(variable) = variant.network.variables().get(name) else {
            return Err(broken(format!("tensor \"{name}\" is missing")));
        };
        let (shape, values) = (variable.dims().to_vec(), values(variable).map_err(|error| broken(error.to_string()))?);
        let scales = match &variant.arithmetic {
            Arithmetic::I8(quantisation) => quantisation.weights.get(name),
            Arithmetic::F32 | Arithmetic::F16 => None,
        };
        let (dtype, data) = match scales {
            Some(scales) => {
                let rows = values.chunks_exact(values.len() / scales.len()).zip(scales);
                let data =
                    rows.flat_map(|(row, scale)| row.iter().map(move |value| byte(*value, *scale).cast_unsigned()));
                let data = data.collect();
                let scale = Encoded { dtype: Dtype::F32, shape: vec![scales.len()], data: little_endian(scales) };
                tensors.insert(format!("{name}{SCALE}"), scale);
                (Dtype::I8, data)
            }
            None if variant.arithmetic != Arithmetic::F32
                && parameter.is_matrix()
                && values.iter().copied().all(is_f16) =>
            {
                (Dtype::F16, values.iter().flat_map(|value| f32_to_f16(*value).to_le_bytes()).collect())
            }
            _ => (Dtype::F32, little_endian(&values)),
        };
        tensors.insert(name.clone(), Encoded { dtype, shape, data });
    }
    if tensors.is_empty() {
        return Ok(None);
    }
    safetensors::serialize(&tensors, None).map(Some).map_err(|error| broken(error.to_string()))
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
