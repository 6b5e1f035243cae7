//! What a variant makes features with: all that is before its head, by a name that is the same wherever the same features are made.

use super::{Artifact, ArtifactError, CONFIG, weights};
use crate::architecture::Architecture;
use crate::digest::named;
use crate::graph::{Node, Op};
use crate::network::Network;
use crate::plan::Plan;
use crate::variant::{Arithmetic, Quantisation, Variant};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// The part of a variant before its head.
pub struct Backbone {
    /// With the weights of the variant.
    pub network: Network,
    pub arithmetic: Arithmetic,
    /// Of the preprocessing, the layers and their weights, as a digest is written: equal digests make equal features.
    pub digest: String,
}

impl Backbone {
    /// What makes the features: of `(rows, ..input)`, in the order of the graph.
    ///
    /// # Errors
    /// If a weight cannot be read.
    pub fn plan(&self) -> candle_core::Result<Plan> {
        Plan::compile(&self.network, &self.arithmetic)
    }
}

impl Artifact {
    /// What a variant of this artifact makes features with. `None` where there is nothing of the kind: no layer before the head
    /// multiplies, so that features would be the input itself or name its words, or the head reads past what is before it.
    ///
    /// # Errors
    /// [`ArtifactError`] if the variant is of another artifact.
    pub fn backbone(&self, variant: &Variant) -> Result<Option<Backbone>, ArtifactError> {
        let graph = variant.network.graph();
        let own = self.head().filter(|head| graph.before(head).is_some());
        let Some(head) = own.or(graph.head()) else { return Ok(None) };
        let nodes = graph.before(head).unwrap_or_default();
        let Some((network, _)) = variant.network.split(head).filter(|_| nodes.iter().any(multiplies)) else {
            return Ok(None);
        };
        let broken = |why: String| ArtifactError::Broken { file: CONFIG.into(), why };
        let entry = self.variants.iter().find(|entry| entry.name == variant.name);
        let typed = entry.and_then(|entry| entry.architecture.as_ref()).unwrap_or(&self.config.architecture);
        let architecture: Architecture =
            serde_json::from_value(typed.clone()).map_err(|error| broken(error.to_string()))?;
        let layers = architecture.before(head).map_err(|error| broken(error.to_string()))?;
        let layers = layers.ok_or_else(|| broken(format!("it has no node \"{head}\", which its variant has")))?;
        let names: Vec<&String> = nodes.iter().map(|node| &node.name).collect();
        let what = json!([self.preprocess, architecture.input, layers, names, arithmetic(&variant.arithmetic, nodes)]);
        let weights = weights::encode_part(variant, nodes, "the backbone")?.unwrap_or_default();
        let mut hasher = Sha256::new();
        hasher.update(what.to_string());
        hasher.update(weights);
        Ok(Some(Backbone { network, arithmetic: variant.arithmetic.clone(), digest: named(hasher) }))
    }
}

/// Looked up by a word alone, an input could be read from its features.
fn multiplies(node: &Node) -> bool {
    node.matrices().next().is_some() && !matches!(node.op, Op::Embedding { .. })
}

/// Weights as bytes say all but how what they are multiplied with becomes bytes.
fn arithmetic(arithmetic: &Arithmetic, nodes: &[Node]) -> serde_json::Value {
    let inputs: BTreeMap<&String, (u32, u8)> = match arithmetic {
        Arithmetic::F32 | Arithmetic::F16 => BTreeMap::new(),
        Arithmetic::I8(Quantisation { inputs, .. }) => {
            let of_backbone = inputs.iter().filter(|(name, _)| nodes.iter().any(|node| node.name == **name));
            of_backbone.map(|(name, input)| (name, (input.scale.to_bits(), input.zero_point))).collect()
        }
    };
    json!([arithmetic.name(), inputs])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::testing::{write_drawn, write_tiny, write_update};
    use crate::ops::values;
    use crate::variant::{F16, F32, INT8};
    use candle_core::{Device, Tensor};
    use sconce_kernels::{Cpu, IsaToken, Threads};
    use std::path::Path;

    fn of(folder: &Path, variant: &str) -> Option<Backbone> {
        let artifact = Artifact::open(folder).unwrap();
        artifact.backbone(&artifact.variant(variant).unwrap()).unwrap()
    }

    #[test]
    fn a_backbone_has_a_name_that_no_head_changes_and_every_form_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let [base, update, other] = ["base", "update", "other"].map(|name| folder.path().join(name));
        write_tiny(&base, 7).unwrap();
        write_update(&update, &base, 8).unwrap();
        write_tiny(&other, 8).unwrap();
        let digests: Vec<_> = [F32, F16, INT8]
            .map(|variant| [&base, &update, &other].map(|from| of(from, variant).unwrap().digest))
            .into();
        for [base, update, other] in &digests {
            assert!(base == update && base != other && base.starts_with("sha256:"), "{base} {update} {other}");
        }
        assert!(digests[0][0] != digests[1][0] && digests[1][0] != digests[2][0] && digests[2][0] != digests[0][0]);
        // What is made of raw material before is a part of it.
        let file = base.join("preprocess.json");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("0.0039", "0.0038")).unwrap();
        assert_ne!(of(&base, F32).unwrap().digest, digests[0][0]);
    }

    #[test]
    fn features_are_what_the_head_would_have_read() {
        let folder = tempfile::tempdir().unwrap();
        write_tiny(folder.path(), 7).unwrap();
        let network = Artifact::open(folder.path()).unwrap().variant(F32).unwrap().network;
        let (reference, _) = network.split("dense_1").unwrap();
        let xs: Vec<f32> = (0..128).map(|at| (at * 7 % 11) as f32 / 11.0).collect();
        let xs = Tensor::from_vec(xs, (2, 1, 8, 8), &Device::Cpu).unwrap();
        let expected = values(&reference.infer(&xs).unwrap()).unwrap();
        let cpu = Cpu { isa: IsaToken::detect().unwrap(), threads: &Threads::one() };
        for (variant, most) in [(F32, 1e-5), (F16, 1e-2), (INT8, 0.2)] {
            let plan = of(folder.path(), variant).unwrap().plan().unwrap();
            assert_eq!(plan.output(), [36]);
            let made = plan.infer(cpu, &[&xs], &mut plan.scratch(2)).unwrap().remove(0);
            let made = values(&made).unwrap();
            let far = made.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(made.len() == 72 && far < most && made.iter().any(|value| *value > 0.1), "{variant}: {far}");
        }
    }

    #[test]
    fn what_would_give_the_input_itself_or_less_than_the_head_reads_is_no_backbone() {
        let layers = json!([{"flatten": {}, "name": "flat"}, {"dense": {"units": 16}, "name": "a"},
            {"add": {}, "from": ["flat", "a"], "name": "sum"}, {"dense": {"units": 16}, "name": "b"},
            {"dense": {"units": 3, "activation": "softmax"}}]);
        let folder = tempfile::tempdir().unwrap();
        write_drawn(folder.path(), json!({"input": {"shape": [1, 4, 4]}, "layers": layers}), 3).unwrap();
        let file = folder.path().join(CONFIG);
        let written = std::fs::read_to_string(&file).unwrap();
        let is_one = |head: &str| {
            std::fs::write(&file, written.replace("\"head\": \"dense_1\"", &format!("\"head\": \"{head}\""))).unwrap();
            of(folder.path(), F32).is_some()
        };
        assert_eq!(["dense_1", "b", "sum", "a", "flat"].map(is_one), [true, true, false, false, false]);
    }
}
