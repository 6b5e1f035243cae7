//! A network in two: what makes features of an input, and what judges them.

use super::Network;
use crate::architecture::Output;
use crate::graph::{Graph, Node, Source};
use std::sync::Arc;

impl Network {
    /// The backbone, and the head that begins with this node: two networks with the weights of this one, so that what moves theirs
    /// moves these. The head's input is what the backbone gives. None where the head reads anything else, or there is no backbone.
    pub fn split(&self, head: &str) -> Option<(Self, Self)> {
        let before = self.graph.before(head)?;
        let last = before.len().checked_sub(1)?;
        let moved = |source: &Source| match *source {
            Source::Node(read) if read == last => Some(Source::Input),
            Source::Node(read) => read.checked_sub(last + 1).map(Source::Node),
            Source::Input => None,
        };
        let node = |node: &Node| {
            let inputs: Option<Vec<Source>> = node.inputs.iter().map(moved).collect();
            inputs.map(|inputs| Node { inputs, ..node.clone() })
        };
        let after: Option<Vec<Node>> = self.graph.nodes[before.len()..].iter().map(node).collect();
        let any_time = self.graph.any_time;
        let after_backbone = self.graph.steps(self.graph.input[0]).and_then(|steps| steps[last]);
        let (input, nodes) = (self.graph.input.clone(), before.to_vec());
        let backbone = Graph { input, any_time, nodes, output: Output::default() };
        let any_time = any_time && after_backbone.is_some();
        let output = self.graph.output.clone();
        let head = Graph { input: before[last].shape.clone(), any_time, nodes: after?, output };
        Some((self.part(backbone), self.part(head)))
    }

    fn part(&self, graph: Graph) -> Self {
        let variable = |name: &String| self.variables.get(name).map(|variable| (name.clone(), variable.clone()));
        let variables = graph.parameters().filter_map(|parameter| variable(&parameter.name)).collect();
        Self { graph: Arc::new(graph), variables }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Mode, Training};
    use crate::ops::values;
    use crate::zoo;
    use candle_core::{Device, Tensor};
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    fn network(input: &Value, layers: &Value) -> Network {
        let typed = json!({"input": {"shape": input}, "layers": layers});
        Network::initialise(Arc::new(zoo::read(&typed.to_string()).graph().unwrap()), 3).unwrap()
    }

    /// Dropout and all.
    #[test]
    fn a_head_alone_has_the_gradients_that_it_has_behind_its_frozen_backbone() {
        let layers = json!([{"conv2d": {"filters": 3, "kernel": 2, "batchNorm": true, "activation": "relu"}}, {"flatten": {}},
            {"dropout": {"rate": 0.5}}, {"dense": {"units": 4}, "name": "head"}, {"dense": {"units": 2}}]);
        let network = network(&json!([2, 4, 3]), &layers);
        let (backbone, head) = network.split("head").unwrap();
        let names: Vec<_> = head.variables().keys().collect();
        assert_eq!(names, ["dense_2.bias", "dense_2.weight", "head.bias", "head.weight"]);
        let xs: Vec<f32> = (0..48).map(|at| (at * 7 % 11) as f32 / 11.0).collect();
        let xs = Tensor::from_vec(xs, (2, 2, 4, 3), &Device::Cpu).unwrap();
        let gradients = |network: &Network, xs: &Tensor, frozen: &BTreeSet<String>| {
            let training = Training { seed: 1, epoch: 1, step: 1, frozen };
            let ys = network.forward_t(xs, None, Mode::Train(training)).unwrap();
            ys.sqr().unwrap().sum_all().unwrap().backward().unwrap()
        };
        let frozen = backbone.graph().nodes.iter().map(|node| node.name.clone()).collect();
        let whole = gradients(&network, &xs, &frozen);
        let alone = gradients(&head, &backbone.infer(&xs).unwrap(), &BTreeSet::new());
        assert_eq!(network.unlearned(&whole, &frozen).unwrap(), None);
        for (name, variable) in head.weights() {
            let [whole, alone] = [&whole, &alone].map(|all| values(all.get(variable.as_tensor()).unwrap()).unwrap());
            assert!(whole.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-5), "{name}: {whole:?} {alone:?}");
        }
    }

    #[test]
    fn parts_have_the_weights_of_the_whole_and_say_together_what_it_says() {
        let layers =
            json!([{"dense": {"units": 3, "activation": "relu"}}, {"dense": {"units": 2, "activation": "softmax"}}]);
        let network = network(&json!([4]), &layers);
        let (backbone, head) = network.split("dense_2").unwrap();
        let bias = &head.variables()["dense_2.bias"];
        bias.set(&Tensor::new(&[0.5_f32, -0.5], &Device::Cpu).unwrap()).unwrap();
        let xs = Tensor::new(&[[0.1_f32, 0.7, -0.3, 0.9]], &Device::Cpu).unwrap();
        let parts = head.infer(&backbone.infer(&xs).unwrap()).unwrap();
        assert_eq!(values(&parts).unwrap(), values(&network.infer(&xs).unwrap()).unwrap());
    }

    #[test]
    fn a_head_that_reads_past_its_backbone_is_no_part() {
        let layers = json!([{"dense": {"units": 4}, "name": "a"}, {"dense": {"units": 4}, "name": "b"}, {"add": {}, "from": ["a", "b"]}]);
        let network = network(&json!([4]), &layers);
        assert!(network.split("a").is_none(), "nothing is before it");
        assert!(network.split("b").is_some_and(|(_, head)| head.graph().nodes.len() == 2));
        let layers = json!([{"dense": {"units": 4}, "name": "a"}, {"dense": {"units": 4}, "name": "b"}, {"add": {}, "from": ["input", "b"]}]);
        assert!(self::network(&json!([4]), &layers).split("b").is_none());
    }
}
