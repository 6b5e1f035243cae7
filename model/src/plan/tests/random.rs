//! Random architectures: chains and graphs, of images and of sequences.

use super::{assert_close, inputs, int8, network, rounded, values};
use crate::plan::Plan;
use crate::variant::Arithmetic;
use proptest::prelude::*;
use sconce_kernels::{Cpu, IsaToken, Threads};
use serde_json::{Value, json};

fn activation() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["none", "relu", "relu6", "leakyRelu", "hardSwish", "silu", "tanh", "sigmoid"])
}

fn padding() -> impl Strategy<Value = Value> {
    prop_oneof![Just(json!("valid")), Just(json!("same")), Just(json!(1))]
}

/// Layers of any kind of input that keep its shape.
fn plain_layer() -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => activation().prop_map(|activation| json!({"activation": activation})),
        2 => Just(json!({"batchNorm": {}})),
        1 => Just(json!({"dropout": {"rate": 0.5}})),
    ]
}

fn depthwise(stride: std::ops::Range<usize>) -> impl Strategy<Value = Value> {
    let kernel = (1..4_usize, 1..4_usize);
    (kernel, stride, activation(), any::<bool>(), any::<bool>()).prop_map(|((height, width), stride, activation, norm, bias)| {
        json!({"depthwiseConv2d": {"kernel": [height, width], "stride": stride, "padding": "same", "activation": activation,
            "batchNorm": norm, "useBias": bias}})
    })
}

fn image_layer() -> impl Strategy<Value = Value> {
    let sizes = (1..20_usize, 1..4_usize, 1..4_usize, 1..3_usize, 1..3_usize);
    let conv = (sizes, padding(), activation(), any::<bool>(), any::<bool>());
    let pool = (
        prop_oneof![Just("maxPool2d"), Just("avgPool2d")],
        1..4_usize,
        1..3_usize,
        prop_oneof![Just(json!("valid")), Just(json!("same"))],
    );
    let blocks = prop_oneof![Just("basic"), Just("bottleneck"), Just("inverted")];
    prop_oneof![
        6 => conv.prop_map(|((filters, height, width, down, right), padding, activation, norm, bias)| json!({"conv2d": {
            "filters": filters, "kernel": [height, width], "stride": [down, right], "padding": padding,
            "activation": activation, "batchNorm": norm, "useBias": bias}})),
        2 => depthwise(1..3),
        3 => pool.prop_map(|(kind, size, stride, padding)| json!({kind: {"size": size, "stride": stride, "padding": padding}})),
        1 => (1..5_usize, 1..3_usize, 1..3_usize).prop_map(|(of_group, holes, groups)| json!({"conv2d": {
            "filters": groups * of_group, "kernel": 2, "padding": "same", "dilation": holes, "groups": groups}})),
        1 => (1..3_usize).prop_map(|multiplier| json!({"depthwiseConv2d": {"kernel": 3, "padding": 1, "multiplier": multiplier}})),
        1 => (1..9_usize).prop_map(|filters| json!({"separableConv2d": {"filters": filters, "kernel": 2, "batchNorm": true}})),
        1 => (1..3_usize).prop_map(|factor| json!({"upsample2d": {"factor": factor}})),
        // With 32 filters and more, their convolutions are done in tiles.
        3 => (prop_oneof![3 => 1..4_usize, 1 => Just(8)], 1..3_usize, 1..3_usize, blocks).prop_map(|(quarters, stride, repeat, block)| json!({"residual": {
            "filters": 4 * quarters, "stride": stride, "repeat": repeat, "block": block}})),
        3 => plain_layer(),
    ]
}

fn sequence_layer() -> impl Strategy<Value = Value> {
    let conv = (1..20_usize, 1..4_usize, 1..3_usize, padding(), activation(), any::<bool>());
    prop_oneof![
        3 => conv.prop_map(|(filters, kernel, stride, padding, activation, norm)| json!({"conv1d": {
            "filters": filters, "kernel": kernel, "stride": stride, "padding": padding, "activation": activation, "batchNorm": norm}})),
        3 => recurrent(true),
        1 => Just(json!({"layerNorm": {}})),
        1 => (1..4_usize, 1..3_usize).prop_map(|(size, stride)| json!({"maxPool1d": {"size": size, "stride": stride, "padding": "same"}})),
        1 => (1..9_usize, 1..4_usize).prop_map(|(filters, holes)| json!({"conv1d": {
            "filters": filters, "kernel": 3, "padding": "causal", "dilation": holes}})),
        1 => dense(),
        2 => plain_layer(),
    ]
}

fn recurrent(sequences: bool) -> impl Strategy<Value = Value> {
    let kind = prop_oneof![Just("rnn"), Just("gru"), Just("lstm")];
    (kind, 1..36_usize, 1..3_usize, any::<bool>()).prop_map(move |(kind, units, layers, both)| {
        json!({kind: {"units": units, "layers": layers, "bidirectional": both, "returnSequences": sequences}})
    })
}

fn dense() -> impl Strategy<Value = Value> {
    (1..70_usize, activation(), any::<bool>()).prop_map(
        |(units, activation, bias)| json!({"dense": {"units": units, "activation": activation, "useBias": bias}}),
    )
}

fn flat_layer() -> impl Strategy<Value = Value> {
    prop_oneof![4 => dense(), 2 => plain_layer()]
}

/// Layers in a row, or two ways that meet in a sum, with the way around them or without. `@` stands for a number of its own.
fn part(
    layer: impl Strategy<Value = Value> + 'static,
    keeping: impl Strategy<Value = Value> + Clone + 'static,
) -> impl Strategy<Value = Vec<Value>> {
    let named = |mut layer: Value, name: &str, from: &str| {
        layer["name"] = name.into();
        layer["from"] = from.into();
        layer
    };
    let keeping_beside = (keeping.clone(), 0..2_usize);
    let ways =
        (keeping.clone(), keeping, activation(), any::<bool>()).prop_map(move |(left, right, activation, around)| {
            let mut from = json!(["left@", "right@"]);
            if around {
                from = json!(["around@", "left@", "right@"]);
            }
            vec![
                json!({"name": "around@", "activation": "none"}),
                named(left, "left@", "around@"),
                named(right, "right@", "around@"),
                json!({"add": {"activation": activation}, "from": from}),
            ]
        });
    let beside = keeping_beside.prop_map(move |(left, axis)| {
        vec![
            json!({"name": "around@", "activation": "none"}),
            named(left, "left@", "around@"),
            json!({"concat": {"axis": axis}, "from": ["left@", "around@"]}),
        ]
    });
    prop_oneof![8 => layer.prop_map(|layer| vec![layer]), 2 => ways, 1 => beside]
}

fn parts(parts: Vec<Vec<Value>>) -> Vec<Value> {
    let numbered = |(number, part): (usize, Vec<Value>)| {
        let text = Value::from(part).to_string().replace('@', &number.to_string());
        serde_json::from_str::<Vec<Value>>(&text).unwrap()
    };
    parts.into_iter().enumerate().flat_map(numbered).collect()
}

/// Input shape and layers; some do not fit, and shape inference says so.
fn images() -> impl Strategy<Value = (Vec<usize>, Vec<Value>)> {
    let image = (1..5_usize, 3..15_usize, 3..15_usize);
    let keeping = prop_oneof![2 => depthwise(1..2), 1 => plain_layer()].boxed();
    let last = prop::sample::select(vec!["flatten", "globalAvgPool", "globalMaxPool", "statsPool"]);
    let layers = (
        prop::collection::vec(part(image_layer(), keeping), 0..5),
        proptest::option::of(last),
        prop::collection::vec(part(flat_layer(), plain_layer().boxed()), 0..4),
        any::<bool>(),
    );
    (image, layers).prop_map(|((channels, height, width), (mut image, last, flat, softmax))| {
        let last = if image.is_empty() { Some("flatten") } else { last };
        if let Some(last) = last {
            image.push(vec![json!({last: {}})]);
            image.extend(flat);
        }
        if softmax {
            image.push(vec![json!({"activation": "softmax"})]);
        }
        (vec![channels, height, width], parts(image))
    })
}

/// Input shape and layers likewise.
pub(super) fn sequences() -> impl Strategy<Value = (Vec<usize>, Vec<Value>)> {
    let pools = ["flatten", "globalAvgPool", "globalMaxPool", "statsPool"].map(|pool| json!({pool: {}}));
    let last = prop_oneof![3 => prop::sample::select(pools.to_vec()), 1 => recurrent(false)];
    let layers = (
        prop::collection::vec(part(sequence_layer(), plain_layer().boxed()), 1..4),
        proptest::option::of(last),
        prop::collection::vec(part(flat_layer(), plain_layer().boxed()), 0..3),
    );
    ((2..12_usize, 1..20_usize), layers).prop_map(|((time, features), (mut sequence, last, flat))| {
        if let Some(last) = last {
            sequence.push(vec![last]);
            sequence.extend(flat);
        }
        (vec![time, features], parts(sequence))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plan_says_what_the_reference_says((input, layers) in prop_oneof![3 => images(), 2 => sequences()], rows in 1..6_usize,
        cache in prop::sample::select(vec![0, 1 << 10, 1 << 14, 1 << 30]), seed in any::<u64>()) {
        let network = network(&input, &layers, seed);
        prop_assume!(network.is_some());
        let network = network.unwrap();
        let xs = inputs(&network, rows, seed);
        let expected = network.infer(&xs).unwrap();
        let one = Threads::one();
        for isa in IsaToken::all_present() {
            let plan = Plan::compile(&network, &Arithmetic::F32).unwrap();
            let got = plan.infer(Cpu { isa, threads: &one }, &[&xs], &mut plan.scratch_for(rows, cache)).unwrap().remove(0);
            prop_assert_eq!(got.dims(), expected.dims());
            assert_close(&values(&got), &values(&expected), &format!("{input:?} {}", json!(layers)));
        }
        if let Some(variant) = int8(&network, &xs) {
            // A last bit of difference may tip a value over to the next byte.
            let expected = values(&rounded(&variant, &xs));
            let largest = expected.iter().fold(1.0, |largest: f32, y| largest.max(y.abs()));
            let (plan, cpu) = (variant.plan().unwrap(), Cpu { isa: IsaToken::detect().unwrap(), threads: &one });
            let got = plan.infer(cpu, &[&xs], &mut plan.scratch_for(rows, cache)).unwrap().remove(0);
            for (got, expected) in values(&got).iter().zip(&expected) {
                prop_assert!((got - expected).abs() < 0.02 * largest, "int8: {} {} {:?} {}", got, expected, input, json!(layers));
            }
        }
    }
}
