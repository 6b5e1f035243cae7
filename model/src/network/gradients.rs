//! Gradients of training against central differences of the reference in `f64`: of each kind of layer, and of known networks.

use super::*;
use crate::graph::Op;
use crate::zoo;
use candle_core::backprop::GradStore;
use serde_json::{Value, json};

/// Far apart compared with the step of a difference; some are exactly zero.
fn drawn(count: usize, name: &str) -> Vec<f32> {
    let mut generator = generator(1, name);
    (0..count).map(|at| if at % 11 == 5 { 0.0 } else { unit(&mut generator) * 2.0 - 1.0 }).collect()
}

fn network(typed: &Value) -> Network {
    let graph = zoo::read(&typed.to_string()).graph().unwrap();
    let network = Network::initialise(Arc::new(graph), 3).unwrap();
    for (name, variable) in network.weights().filter(|(name, _)| !name.contains(".weight")) {
        let values = drawn(variable.elem_count(), name).into_iter().map(|x| 0.3 * x).collect();
        variable.set(&Tensor::from_vec(values, variable.shape(), &Device::Cpu).unwrap()).unwrap();
    }
    network
}

/// The sum of all outputs, each times a number of its own that tells it from others.
fn weighed(ys: &Tensor) -> Tensor {
    let factors: Vec<f32> = (0..ys.elem_count()).map(|at| 1.0 + (at % 7) as f32 / 3.0).collect();
    let factors = Tensor::from_vec(factors, ys.elem_count(), ys.device()).unwrap().to_dtype(ys.dtype()).unwrap();
    (ys.flatten_all().unwrap() * factors).unwrap().sum_all().unwrap()
}

/// The same network in `f64`, whose norms take the statistics of the batch.
struct Reference(Network);

impl Reference {
    fn of(network: &Network) -> Self {
        let wide = |variable: &Var| Var::from_tensor(&variable.to_dtype(DType::F64).unwrap()).unwrap();
        let variables = network.variables().iter().map(|(name, variable)| (name.clone(), wide(variable))).collect();
        Self(Network { graph: network.graph.clone(), variables })
    }

    fn value(&self, xs: &Tensor, lengths: Option<&[usize]>, frozen: &BTreeSet<String>) -> f64 {
        let ys = self.0.walk(xs, lengths.map(<[usize]>::to_vec), |node, inputs, lengths| match &node.op {
            Op::BatchNorm { epsilon, .. } if !frozen.contains(&node.name) => {
                self.batch_norm(node, &inputs[0], lengths, *epsilon)
            }
            _ => self.0.eval(node, inputs, lengths, &mut Ok),
        });
        weighed(&ys.unwrap()).to_scalar().unwrap()
    }

    fn batch_norm(&self, node: &Node, xs: &Tensor, lengths: Option<&[usize]>, epsilon: f32) -> Result<Tensor> {
        let of = |end: &str| self.0.of(node, end).map(Tensor::detach);
        let rows = match (xs.rank(), lengths) {
            (4, _) => xs.transpose(0, 1)?.flatten_from(1)?.t()?,
            (3, Some(lengths)) => {
                let valid = lengths
                    .iter()
                    .enumerate()
                    .map(|(at, length)| xs.narrow(0, at, 1)?.squeeze(0)?.narrow(0, 0, *length));
                Tensor::cat(&valid.collect::<Result<Vec<_>>>()?, 0)?
            }
            _ => xs.flatten(0, xs.rank() - 2)?,
        };
        let mean = rows.mean(0)?;
        let variance = rows.broadcast_sub(&mean)?.sqr()?.mean(0)?;
        let ys = plain::batch_norm(xs, [&of("weight")?, &of("bias")?, &mean, &variance], epsilon)?;
        let ys = plain::activate(&ys, self.0.inner(node))?;
        lengths::filled(&ys, lengths.filter(|_| xs.rank() == 3), 0.0)
    }
}

/// Where a network is to be looked at.
struct Case<'a> {
    batch: usize,
    lengths: Option<&'a [usize]>,
    frozen: &'a [&'a str],
    /// Elements of each variable, at most.
    places: usize,
    /// Of the difference, or of the largest gradient.
    within: f64,
}

const CASE: Case<'static> = Case { batch: 3, lengths: None, frozen: &[], places: 12, within: 1e-3 };

fn check(typed: Value, case: &Case<'_>) {
    let network = network(&typed);
    let shape: Vec<usize> = std::iter::once(case.batch).chain(network.graph.input.iter().copied()).collect();
    let words = network.graph.nodes.iter().find_map(|node| match node.op {
        Op::Embedding { .. } => Some(node.parameters[0].shape[0]),
        _ => None,
    });
    let values = drawn(shape.iter().product(), "xs");
    let values = match words {
        Some(words) => (0..values.len()).map(|at| (at * 5 % words) as f32).collect(),
        None => values,
    };
    let xs = Var::from_tensor(&Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap()).unwrap();
    let frozen: BTreeSet<String> = case.frozen.iter().map(|name| (*name).to_owned()).collect();
    // Before the step, which moves running statistics.
    let reference = Reference::of(&network);
    let training = Training { seed: 1, epoch: 1, step: 1, frozen: &frozen };
    // Not by `forward_t`, which trains no layer without weights alone.
    let train =
        |node: &Node, inputs: &[Tensor], lengths: Option<&[usize]>| network.train(node, inputs, lengths, &training);
    let ys = network.walk(xs.as_tensor(), case.lengths.map(<[usize]>::to_vec), train).unwrap();
    let wide = xs.to_dtype(DType::F64).unwrap();
    let (got, want) =
        (f64::from(weighed(&ys).to_scalar::<f32>().unwrap()), reference.value(&wide, case.lengths, &frozen));
    assert!((got - want).abs() <= 1e-4 * want.abs().max(1.0), "{typed}: says {got}, the reference {want}");
    let gradients = weighed(&ys).backward().unwrap();
    let is_frozen = |name: &str| frozen.iter().any(|layer| name.starts_with(&format!("{layer}.")));
    for (name, variable) in network.weights() {
        let gradient = gradients.get(variable.as_tensor());
        if is_frozen(name) {
            assert!(gradient.is_none(), "{typed}: {name} is frozen, and has a gradient");
            continue;
        }
        let gradient = gradient.unwrap_or_else(|| panic!("{typed}: {name} has no gradient"));
        let moved = &reference.0.variables[name];
        compare(&format!("{typed}: {name}"), gradient, case, &moved.as_detached_tensor(), |values| {
            moved.set(values).unwrap();
            reference.value(&wide, case.lengths, &frozen)
        });
    }
    if words.is_none() {
        let gradient = gradients.get(xs.as_tensor()).unwrap_or_else(|| panic!("{typed}: the input has no gradient"));
        compare(&format!("{typed}: input"), gradient, case, &wide, |values| {
            reference.value(values, case.lengths, &frozen)
        });
    }
}

/// `value` is the reference's with the variable as given; it is left as it was.
fn compare(what: &str, gradient: &Tensor, case: &Case<'_>, variable: &Tensor, value: impl Fn(&Tensor) -> f64) {
    const STEP: f64 = 1e-5;
    let gradient: Vec<f32> = gradient.flatten_all().unwrap().to_vec1().unwrap();
    let values: Vec<f64> = variable.flatten_all().unwrap().to_vec1().unwrap();
    let largest = gradient.iter().fold(0.0_f64, |most, g| most.max(f64::from(*g).abs()));
    for index in (0..values.len()).step_by(1 + values.len() / case.places) {
        let at = |x: f64| {
            let mut moved = values.clone();
            moved[index] = x;
            value(&Tensor::from_vec(moved, variable.shape(), &Device::Cpu).unwrap())
        };
        let (above, here, below) = (at(values[index] + STEP), at(values[index]), at(values[index] - STEP));
        let (difference, got) = ((above - below) / (2.0 * STEP), f64::from(gradient[index]));
        let (right, left) = ((above - here) / STEP, (here - below) / STEP);
        // At a bend both sides differ, and the slope is one of them, or between.
        let is_bent = (right - left).abs() > 1e-2 * difference.abs().max(1.0);
        let within = case.within * difference.abs().max(largest).max(1e-2);
        let is_right = if is_bent {
            got >= left.min(right) - within && got <= left.max(right) + within
        } else {
            (got - difference).abs() <= within
        };
        assert!(is_right, "{what}[{index}]: {got}, by differences {difference} ({left} and {right})");
    }
}

fn alone(input: Value, layer: Value) {
    check(json!({"input": {"shape": input}, "layers": [layer]}), &CASE);
}

#[test]
fn convolutions_of_every_stride_padding_dilation_and_group() {
    for channels in [2, 6] {
        for (kernel, stride, padding, dilation, groups) in [
            (json!(3), json!(1), json!("same"), json!(1), 1),
            (json!([3, 2]), json!([2, 1]), json!("same"), json!(1), 1),
            (json!([2, 3]), json!([1, 3]), json!(1), json!(1), 1),
            (json!(1), json!(1), json!("valid"), json!(1), 1),
            (json!([2, 1]), json!(1), json!(0), json!([2, 1]), 1),
            (json!(3), json!(2), json!(1), json!(1), 2),
            (json!(2), json!(1), json!("valid"), json!(2), 2),
        ] {
            let layer = json!({"conv2d": {"filters": 4, "kernel": kernel, "stride": stride, "padding": padding,
                "dilation": dilation, "groups": groups, "activation": "tanh"}});
            alone(json!([channels, 7, 6]), layer);
        }
    }
    alone(json!([40, 5, 5]), json!({"conv2d": {"filters": 6, "kernel": 3, "padding": 1, "groups": 2}}));
    alone(
        json!([40, 6, 5]),
        json!({"conv2d": {"filters": 6, "kernel": 3, "stride": 2, "padding": "same", "activation": "relu"}}),
    );
    alone(
        json!([3, 7, 5]),
        json!({"depthwiseConv2d": {"kernel": 3, "stride": 2, "padding": "same", "activation": "relu6"}}),
    );
    alone(json!([3, 7, 5]), json!({"depthwiseConv2d": {"kernel": [2, 3], "multiplier": 2}}));
    alone(
        json!([3, 7, 5]),
        json!({"separableConv2d": {"filters": 4, "kernel": 3, "batchNorm": true, "activation": "silu"}}),
    );
}

#[test]
fn convolutions_and_pools_of_sequences() {
    for padding in [json!("valid"), json!("same"), json!("causal"), json!(1)] {
        alone(json!([9, 4]), json!({"conv1d": {"filters": 5, "kernel": 3, "padding": padding, "activation": "relu"}}));
    }
    alone(
        json!([9, 20]),
        json!({"conv1d": {"filters": 5, "kernel": 3, "stride": 2, "padding": "causal", "dilation": 2}}),
    );
    alone(json!([9, 4]), json!({"maxPool1d": {"size": 3, "stride": 2, "padding": 1}}));
}

#[test]
fn pools_of_every_size_stride_and_padding() {
    for kind in ["maxPool2d", "avgPool2d"] {
        for (size, stride, padding) in [
            (json!(2), json!(2), json!("valid")),
            (json!(3), json!(2), json!(1)),
            (json!([3, 2]), json!([1, 3]), json!("same")),
            (json!([1, 3]), json!([2, 1]), json!("valid")),
        ] {
            alone(json!([2, 11, 7]), json!({kind: {"size": size, "stride": stride, "padding": padding}}));
        }
    }
    for kind in ["globalAvgPool", "globalMaxPool", "statsPool"] {
        alone(json!([3, 4, 5]), json!({kind: {}}));
        alone(json!([6, 5]), json!({kind: {}}));
    }
}

#[test]
fn norms_of_images_sequences_and_features() {
    for shape in [json!([3, 4, 5]), json!([6, 5]), json!([5])] {
        check(
            json!({"input": {"shape": shape}, "layers": [{"batchNorm": {}}, {"activation": "tanh"}]}),
            &Case { batch: 5, ..CASE },
        );
    }
    for shape in [json!([6, 5]), json!([7])] {
        check(
            json!({"input": {"shape": shape}, "layers": [{"layerNorm": {"eps": 0.001}}, {"activation": "tanh"}]}),
            &CASE,
        );
    }
}

#[test]
fn recurrent_layers_of_every_kind() {
    for cell in ["rnn", "gru", "lstm"] {
        alone(json!([5, 3]), json!({cell: {"units": 4}}));
        alone(json!([5, 3]), json!({cell: {"units": 4, "bidirectional": true, "layers": 2}}));
        alone(json!([5, 4]), json!({cell: {"units": 4, "bidirectional": true, "returnSequences": true}}));
        let layers = json!([{cell: {"units": 3, "layers": 2, "bidirectional": true}}]);
        check(json!({"input": {"shape": [5, 2]}, "layers": layers}), &Case { lengths: Some(&[5, 2, 1]), ..CASE });
    }
    for activation in ["sigmoid", "relu"] {
        alone(json!([5, 3]), json!({"rnn": {"units": 4, "activation": activation}}));
    }
}

#[test]
fn activations_and_what_rearranges() {
    for activation in ["relu", "relu6", "leakyRelu", "hardSwish", "silu", "tanh"] {
        check(
            json!({"input": {"shape": [9]}, "layers": [{"dense": {"units": 8}}, {"activation": activation}, {"dense": {"units": 3}}]}),
            &CASE,
        );
        alone(json!([4, 5]), json!({"dense": {"units": 3, "activation": activation}}));
    }
    alone(json!([2, 3, 2]), json!({"upsample2d": {"factor": 3}}));
    check(
        json!({"input": {"shape": [2, 4, 3]}, "layers": [
            {"name": "a", "conv2d": {"filters": 2, "kernel": 1}}, {"name": "b", "conv2d": {"filters": 2, "kernel": 1}, "from": "input"},
            {"name": "c", "add": {"activation": "relu"}, "from": ["a", "b", "input"]}, {"concat": {"axis": 1}, "from": ["c", "b"]},
            {"reshape": {"shape": [6, 8]}}, {"flatten": {}}, {"dense": {"units": 2}}]}),
        &CASE,
    );
    check(
        json!({"input": {"shape": [6], "dtype": "u32"}, "layers": [{"embedding": {"vocabulary": 9, "dimension": 4, "paddingId": 5}}, {"layerNorm": {}}, {"globalMaxPool": {}}]}),
        &Case { places: 4, ..CASE },
    );
}

/// What comes after the valid steps changes no answer and no gradient.
#[test]
fn sequences_of_different_lengths_are_read_to_their_end() {
    for pool in ["globalAvgPool", "globalMaxPool", "statsPool"] {
        let layers = json!([{"conv1d": {"filters": 5, "kernel": 3, "padding": "same", "batchNorm": true, "activation": "relu"}},
            {"maxPool1d": {}}, {"conv1d": {"filters": 4, "kernel": 3, "stride": 2, "padding": 1}}, {pool: {}}]);
        check(json!({"input": {"shape": [13, 4]}, "layers": layers}), &Case { lengths: Some(&[13, 6, 3]), ..CASE });
    }
    // Layers that read each step alone met minus infinity behind the end, and weights learned no number any more.
    let layers = json!([{"maxPool1d": {}}, {"dense": {"units": 3}}, {"layerNorm": {}}, {"globalAvgPool": {}}]);
    check(json!({"input": {"shape": [13, 4]}, "layers": layers}), &Case { lengths: Some(&[13, 6, 3]), ..CASE });
    let typed = json!({"input": {"shape": [9, 2]}, "layers": [
        {"conv1d": {"filters": 3, "kernel": 3, "padding": "causal"}}, {"gru": {"units": 3, "bidirectional": true, "returnSequences": true}}, {"statsPool": {}}]});
    let network = network(&typed);
    let xs = Tensor::from_vec(drawn(18, "xs"), (1, 9, 2), &Device::Cpu).unwrap();
    let noise = Tensor::full(9f32, (1, 4, 2), &Device::Cpu).unwrap();
    let noisy = Tensor::cat(&[xs.narrow(1, 0, 5).unwrap(), noise], 1).unwrap();
    let five = Tensor::new(&[5u32], &Device::Cpu).unwrap();
    let training = Training { seed: 1, epoch: 1, step: 1, frozen: &BTreeSet::new() };
    for mode in [Mode::Eval, Mode::Train(training)] {
        let said = |xs: &Tensor| {
            network.forward_t(xs, Some(&five), mode).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(said(&xs), said(&noisy));
    }
    let error = network
        .forward_t(&xs, Some(&Tensor::new(&[10u32], &Device::Cpu).unwrap()), Mode::Eval)
        .unwrap_err()
        .to_string();
    assert!(error.contains("length 10; need 1 to 9"), "{error}");
}

#[test]
fn frozen_layers_keep_their_weights_and_statistics() {
    let layers = json!([{"name": "a", "conv2d": {"filters": 3, "kernel": 2, "batchNorm": true, "activation": "relu"}}, {"flatten": {}}, {"dense": {"units": 2}}]);
    let typed = json!({"input": {"shape": [2, 4, 3]}, "layers": layers});
    check(typed.clone(), &Case { frozen: &["a", "a_bn"], ..CASE });
    let network = network(&typed);
    let xs = Tensor::from_vec(drawn(48, "xs"), (2, 2, 4, 3), &Device::Cpu).unwrap();
    let mean = || network.variables()["a_bn.running_mean"].to_vec1::<f32>().unwrap();
    let frozen: BTreeSet<String> = ["a".to_owned(), "a_bn".to_owned()].into();
    let step =
        |frozen| network.forward_t(&xs, None, Mode::Train(Training { seed: 1, epoch: 1, step: 1, frozen })).unwrap();
    step(&frozen);
    assert_eq!(mean(), [0.0; 3]);
    step(&BTreeSet::new());
    assert_ne!(mean(), [0.0; 3]);
}

/// What says nothing during training: a weight that is not moved, and one that should not be.
#[test]
fn a_weight_that_does_not_learn_is_named_and_so_is_a_frozen_one_that_does() {
    let layers =
        json!([{"name": "a", "dense": {"units": 3, "activation": "relu"}}, {"name": "b", "dense": {"units": 2}}]);
    let network = network(&json!({"input": {"shape": [4]}, "layers": layers}));
    let xs = Tensor::from_vec(drawn(8, "xs"), (2, 4), &Device::Cpu).unwrap();
    let (none, a): (BTreeSet<String>, _) = (BTreeSet::new(), BTreeSet::from(["a".to_owned()]));
    let gradients = |frozen: &BTreeSet<String>, scale: f32| {
        let training = Training { seed: 1, epoch: 1, step: 1, frozen };
        let ys = network.forward_t(&xs, None, Mode::Train(training)).unwrap();
        (weighed(&ys) * Tensor::new(scale, &Device::Cpu).unwrap()).unwrap().backward().unwrap()
    };
    let check = |gradients: &GradStore, frozen: &BTreeSet<String>, expected: Option<(&str, &'static str)>| {
        let expected = expected.map(|(variable, fault)| Unlearned { variable: variable.into(), fault });
        assert_eq!(network.unlearned(gradients, frozen).unwrap(), expected);
    };
    check(&gradients(&none, 1.0), &none, None);
    check(&gradients(&a, 1.0), &a, None);
    check(&gradients(&a, 1.0), &none, Some(("a.bias", "no gradient")));
    check(&gradients(&none, 1.0), &a, Some(("a.bias", "a gradient, though it is frozen,")));
    check(&gradients(&none, f32::NAN), &none, Some(("a.bias", "a gradient that is not finite")));
    check(&gradients(&none, 0.0), &none, Some(("a.bias", "a gradient of zeros")));
}

/// At the zoo's own depth and width; the large images are smaller here.
#[test]
fn known_networks() {
    let small = |typed: &str, shape: Value| {
        let mut typed: Value = serde_json::from_str(typed).unwrap();
        typed["input"]["shape"] = shape;
        typed
    };
    let case = Case { batch: 2, places: 2, within: 5e-3, ..CASE };
    check(small(zoo::SEED_CNN, json!([1, 13, 12])), &case);
    for typed in [zoo::RNN, zoo::GRU, zoo::LSTM] {
        check(small(typed, json!([6, 40])), &case);
    }
    check(small(zoo::CONV1D, json!([21, 6])), &case);
    check(small(zoo::AUTOENCODER, json!([784])), &Case { batch: 8, places: 1, ..case });
}
