//! Sequences of any length: each is answered as by a network that was made for its length, to the bit.

use super::random::sequences;
use super::{assert_close, infer, inputs, int8, network_of, values};
use crate::network::{Mode, Network};
use crate::plan::Plan;
use crate::variant::Arithmetic;
use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use sconce_kernels::{Cpu, IsaToken, Threads};
use serde_json::{Value, json};

/// The same weights for sequences of so many steps alone.
fn fixed(network: &Network, layers: &[Value], steps: usize) -> Network {
    let features = &network.graph().input[1..];
    let shape: Vec<usize> = std::iter::once(steps).chain(features.iter().copied()).collect();
    let input = json!({"shape": shape});
    let graph = network_of(&input, layers, 0).expect("the language takes the time, and windows fit").graph().clone();
    let weights =
        network.variables().iter().map(|(name, weight)| (name.clone(), weight.as_detached_tensor())).collect();
    Network::load(graph, &weights).unwrap()
}

/// Behind a shorter sequence something else, up to the longest.
fn lengthened(xs: &Tensor, longest: &Tensor) -> Tensor {
    let (rows, steps) = (xs.dims()[0], xs.dims()[1]);
    let rest = longest.narrow(0, 0, rows).unwrap().narrow(1, steps, longest.dims()[1] - steps).unwrap();
    Tensor::cat(&[xs, &rest], 1).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sequence_is_answered_as_by_a_network_for_its_length((input, layers) in sequences(), back in 0..20_usize, seed in any::<u64>()) {
        let any = json!({"shape": [-1, input[1]], "maxLength": input[0]});
        let network = network_of(&any, &layers, seed);
        prop_assume!(network.is_some());
        let network = network.unwrap();
        let lengths = network.graph().lengths().unwrap();
        prop_assert_eq!(*lengths.end(), input[0]);
        let steps = lengths.end() - back % lengths.clone().count();
        let longest = inputs(&network, 3, seed);
        let shorter = longest.narrow(1, 0, steps).unwrap().contiguous().unwrap();
        let fixed = fixed(&network, &layers, steps);
        let what = format!("{steps} of {any} {}", json!(layers));

        let told = Tensor::full(steps as u32, 3, &Device::Cpu).unwrap();
        let masked = network.forward_t(&lengthened(&shorter, &longest), Some(&told), Mode::Eval).unwrap();
        assert_close(&values(&masked), &values(&fixed.forward_t(&shorter, None, Mode::Eval).unwrap()), &what);

        let cpu = Cpu { isa: IsaToken::detect().unwrap(), threads: &Threads::one() };
        let int8 = int8(&network, &longest).map(|variant| variant.arithmetic);
        for arithmetic in [Some(Arithmetic::F32), int8].into_iter().flatten() {
            let [of_any, of_one] = [&network, &fixed].map(|network| Plan::compile(network, &arithmetic).unwrap());
            let mut scratch = of_any.scratch(3);
            let first = infer_in(&of_any, cpu, &longest, &mut scratch);
            prop_assert_eq!(infer_in(&of_any, cpu, &shorter, &mut scratch), values(&infer(&of_one, cpu, &shorter)), "{}", &what);
            prop_assert_eq!(infer_in(&of_any, cpu, &longest, &mut scratch), first, "{}", &what);
        }
    }
}

fn infer_in(plan: &Plan, cpu: Cpu<'_>, xs: &Tensor, scratch: &mut crate::plan::Scratch) -> Vec<f32> {
    values(&plan.infer(cpu, &[xs], scratch).unwrap()[0])
}

fn speech() -> Network {
    let layers = [
        json!({"conv1d": {"filters": 8, "kernel": 3, "stride": 2, "padding": "valid"}}),
        json!({"gru": {"units": 6, "bidirectional": true}}),
        json!({"dense": {"units": 3, "activation": "softmax"}}),
    ];
    network_of(&json!({"shape": [-1, 4], "maxLength": 40}), &layers, 7).unwrap()
}

/// More lengths than are kept, in one batch and one after the other; the weights are there once.
#[test]
fn requests_of_all_lengths_are_answered_together() {
    let network = speech();
    let plan = Plan::compile(&network, &Arithmetic::F32).unwrap();
    assert_eq!(plan.lengths(), Some(3..=40));
    let cpu = Cpu { isa: IsaToken::detect().unwrap(), threads: &Threads::one() };
    let longest = inputs(&network, 1, 3);
    let requests: Vec<Tensor> =
        (3..=40).chain([5, 5, 40, 3]).map(|steps| longest.narrow(1, 0, steps).unwrap().contiguous().unwrap()).collect();
    let mut scratch = plan.scratch(3);
    let together = plan.infer(cpu, &requests.iter().collect::<Vec<_>>(), &mut scratch).unwrap();
    for (xs, ys) in requests.iter().zip(&together) {
        assert_eq!(values(ys), values(&infer(&plan, cpu, xs)), "{} steps", xs.dims()[1]);
    }
    let shorter = plan.at(7).unwrap();
    for (one, other) in plan.steps.iter().zip(&shorter.steps) {
        assert_eq!(one.weight_bytes() == 0, other.weight_bytes() == 0, "{one}");
    }
    assert!(plan.at(2).is_none(), "no window fits");
}

#[test]
fn other_lengths_are_refused_with_those_that_are_taken() {
    let plan = Plan::compile(&speech(), &Arithmetic::F32).unwrap();
    let cpu = Cpu { isa: IsaToken::detect().unwrap(), threads: &Threads::one() };
    for shape in [vec![1, 2, 4], vec![1, 41, 4], vec![1, 5, 3], vec![1, 5], vec![5]] {
        let xs = Tensor::zeros(shape.clone(), DType::F32, &Device::Cpu).unwrap();
        let error = plan.infer(cpu, &[&xs], &mut plan.scratch(1)).unwrap_err().to_string();
        let expected = format!("the plan needs (batch, [40, 4]) or sequences from 3 steps on, got {shape:?}");
        assert!(error.contains(&expected), "{error}");
    }
}
