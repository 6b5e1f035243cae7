use crate::architecture::{Architecture, ArchitectureError};
use crate::graph::{Graph, Source};
use crate::zoo;
use proptest::prelude::*;
use serde_json::json;

#[test]
fn the_seed_has_the_shapes_and_sizes_that_keras_prints() {
    let graph = zoo::read(zoo::SEED_CNN).graph().unwrap();
    let shapes: Vec<_> = graph.nodes.iter().map(|node| (node.name.as_str(), node.shape.as_slice())).collect();
    assert_eq!(
        shapes,
        [
            ("conv2d_1", &[32, 26, 26][..]),
            ("max_pool2d_1", &[32, 13, 13]),
            ("flatten_1", &[5408]),
            ("dense_1", &[128]),
            ("dense_2", &[10])
        ]
    );
    assert_eq!(graph.parameter_count(), 693_962);
    assert!(graph.classifies());
}

#[test]
fn a_description_comes_back_as_it_was_typed() {
    let layers = json!([{"name": "a", "conv2d": {"filters": 3, "kernel": [3, 1], "batchNorm": true, "groups": 3}},
        {"maxPool2d": {"size": 3, "padding": 1}, "from": "input"}, {"globalAvgPool": {}, "from": "a"},
        {"gru": {"units": 2, "bidirectional": true}}, {"add": {}, "from": ["a", "input"]}, {"activation": "relu6"},
        {"residual": {"filters": 4, "block": "inverted", "expand": 2}}, {"flatten": {}}, {"batchNorm": {"eps": 0.5, "momentum": 0.2}},
        {"conv2d": {"filters": 3, "kernel": 3, "dilation": [2, 1], "useBias": false}}, {"depthwiseConv2d": {"kernel": 3, "multiplier": 2}},
        {"separableConv2d": {"filters": 2, "kernel": 3, "activation": "hardSwish"}}, {"conv1d": {"filters": 2, "kernel": 3, "padding": "causal", "dilation": 4}},
        {"maxPool1d": {"size": 3, "stride": 1}}, {"globalMaxPool": {}}, {"statsPool": {}}, {"layerNorm": {"eps": 0.1}}, {"reshape": {"shape": [2, 3]}},
        {"embedding": {"vocabulary": 9, "dimension": 2, "paddingId": 1}}, {"concat": {"axis": 1}, "from": ["a", "input"]}, {"upsample2d": {"factor": 3}},
        {"rnn": {"units": 2, "layers": 2, "dropout": 0.5, "activation": "relu"}}, {"activation": "leakyRelu"}, {"activation": "silu"}]);
    for dtype in ["f32", "u32"] {
        let typed = json!({"input": {"shape": [3, 4, 4], "dtype": dtype}, "layers": layers});
        let typed: Architecture = serde_json::from_value(typed).unwrap();
        assert_eq!(serde_json::from_value::<Architecture>(serde_json::to_value(&typed).unwrap()).unwrap(), typed);
    }
}

/// Shape errors, word for word.
#[test]
fn what_does_not_fit_is_said_with_layer_finding_and_remedy() {
    let check = |shape: serde_json::Value, layers: serde_json::Value, expected: &str| {
        let typed: Architecture = serde_json::from_value(json!({"input": {"shape": shape}, "layers": layers})).unwrap();
        assert_eq!(typed.graph().unwrap_err().to_string(), expected);
    };
    let conv = json!({"conv2d": {"filters": 32, "kernel": 3}});
    check(
        json!([1, 28, 28]),
        json!([conv, {"maxPool2d": {}}, {"dropout": {"rate": 0.5}}, {"dense": {"units": 10}}]),
        "layers[3] \"dense_1\": dense after [32, 13, 13]; add flatten or globalAvgPool before it",
    );
    check(
        json!([1, 5, 5]),
        json!([conv, {"name": "b", "conv2d": {"filters": 1, "kernel": 1}}, {"conv2d": {"filters": 8, "kernel": 5}}]),
        "layers[2] \"conv2d_3\": kernel 5\u{d7}5 does not fit 3\u{d7}3 with padding valid",
    );
    check(
        json!([1, 5, 5]),
        json!([{"conv2d": {"filters": 8, "kernel": 1, "padding": 1}}]),
        "layers[0] \"conv2d_1\": padding is 1; need less than the kernel: a window of nothing but padding sees nothing",
    );
    check(json!([4]), json!([conv]), "layers[0] \"conv2d_1\": conv2d after [4]; it needs [channels, height, width]");
    check(
        json!([4]),
        json!([{"dense": {"units": 0}}]),
        "layers[0] \"dense_1\": units is 0; need at least 1 and at most 1,048,576",
    );
    check(
        json!([4]),
        json!([{"dense": {"units": 3, "activation": "softmax"}}, {"dense": {"units": 3}}]),
        "layers[0] \"dense_1\": softmax in the middle; only the last layer may have it",
    );
    check(json!([4]), json!([]), "layers: none; a network has at least one");
    check(
        json!([0]),
        json!([{"flatten": {}}]),
        "input.shape: [0]; need 1 to 4 sizes of at least 1, channels first, without the batch; the time of [time] or [time, features] may be -1",
    );
    check(
        json!([1, 1 << 20, 1 << 20]),
        json!([{"flatten": {}}]),
        "layers[0] \"flatten_1\": activation beyond 67108864; make the layer smaller",
    );
    check(
        json!([4]),
        json!([{"name": "a", "flatten": {}}, {"name": "a", "flatten": {}}]),
        "layers[1] \"a\": two layers have this name",
    );
}

/// Of sequences of any length, word for word.
#[test]
fn what_needs_a_time_of_a_length_is_said() {
    let check_input = |input: serde_json::Value, layers: serde_json::Value, expected: &str| {
        let typed: Architecture = serde_json::from_value(json!({"input": input, "layers": layers})).unwrap();
        assert_eq!(typed.graph().unwrap_err().to_string(), expected);
    };
    let check = |layers: serde_json::Value, expected: &str| check_input(json!({"shape": [-1, 4]}), layers, expected);
    check(
        json!([{"flatten": {}}, {"dense": {"units": 2}}]),
        "layers[0] \"flatten_1\": flatten over time -1; use globalAvgPool, or returnSequences: false",
    );
    check(
        json!([{"gru": {"units": 3, "returnSequences": true}}]),
        "layers[0] \"gru_1\": an output over time -1; use globalAvgPool, or returnSequences: false",
    );
    check(
        json!([{"reshape": {"shape": [2048]}}]),
        "layers[0] \"reshape_1\": reshape over time -1; use globalAvgPool, or returnSequences: false, before it",
    );
    let branch = |name: &str, kernel: usize| json!({"name": name, "conv1d": {"filters": 4, "kernel": kernel, "padding": "valid"}, "from": "input"});
    check(
        json!([branch("a", 2), branch("b", 2), {"concat": {}, "from": ["a", "b"]}]),
        "layers[2] \"concat_1\": concat over time -1; side by side are features, with axis: 1",
    );
    check(
        json!([{"conv1d": {"filters": 4, "kernel": 3, "stride": 2, "padding": "same"}}]),
        "layers[0] \"conv1d_1\": padding is same; need valid, causal or a number, for over time -1 same adds another one to each length",
    );
    // Of 512 steps both make 256, of 511 one makes 256 and the other 255.
    let half = |name: &str, padding: usize| json!({"name": name, "conv1d": {"filters": 4, "kernel": 2, "stride": 2, "padding": padding}, "from": "input"});
    let odd =
        json!({"name": "b", "conv1d": {"filters": 4, "kernel": 1, "stride": 2, "padding": "valid"}, "from": "input"});
    check(
        json!([half("a", 0), odd, {"add": {}, "from": ["a", "b"]}, {"globalAvgPool": {}}]),
        "layers[2] \"add_1\": add over time -1; what it reads has other times than the first; pad all alike",
    );
    check_input(
        json!({"shape": [-1, 4], "maxLength": 0}),
        json!([{"globalAvgPool": {}}]),
        "input.maxLength: 0; need 1 to 65,536 steps",
    );
    for shape in [json!([-1, 4, 4]), json!([4, -1]), json!([-2]), json!([])] {
        let typed: Architecture =
            serde_json::from_value(json!({"input": {"shape": shape}, "layers": [{"flatten": {}}]})).unwrap();
        assert!(matches!(typed.graph(), Err(ArchitectureError::Input { .. })), "{shape}");
    }
}

#[test]
fn ways_that_have_the_same_time_at_any_length_meet() {
    let conv = |name: &str, from: &str, kernel: usize| json!({"name": name, "conv1d": {"filters": 4, "kernel": kernel, "padding": "valid"}, "from": from});
    let typed: Architecture = serde_json::from_value(json!({"input": {"shape": [-1, 4], "maxLength": 9}, "layers": [
        conv("a", "input", 3), conv("b", "a", 3), conv("c", "input", 5), {"add": {}, "from": ["b", "c"]}, {"lstm": {"units": 2}}]})).unwrap();
    let graph = typed.graph().unwrap();
    assert_eq!((graph.input.clone(), graph.lengths()), (vec![9, 4], Some(5..=9)));
    assert_eq!(graph.steps(7).unwrap(), [Some(5), Some(3), Some(3), Some(3), None]);
    assert_eq!(serde_json::to_value(&typed).unwrap()["input"], json!({"shape": [-1, 4], "maxLength": 9}));
}

/// What is wrong with the wiring, and with the layers of sequences and of deep networks, word for word.
#[test]
fn wiring_that_does_not_hold_is_said_with_its_place() {
    let check = |shape: serde_json::Value, layers: serde_json::Value, expected: &str| {
        let typed: Architecture = serde_json::from_value(json!({"input": {"shape": shape}, "layers": layers})).unwrap();
        assert_eq!(typed.graph().unwrap_err().to_string(), expected);
    };
    let named = |name: &str, stride: usize| json!({"name": name, "conv2d": {"filters": 4, "kernel": 1, "stride": stride}, "from": "input"});
    check(
        json!([1, 4, 4]),
        json!([named("a", 1), named("b", 1), {"add": {}, "from": ["a1", "b"]}]),
        "layers[2] from: no earlier layer \"a1\"; did you mean \"a\"?",
    );
    check(
        json!([1, 4, 4]),
        json!([named("a", 1), {"flatten": {}, "from": "flatten_1"}]),
        "layers[1] from: no earlier layer \"flatten_1\"; name one above it, or input",
    );
    check(
        json!([1, 4, 4]),
        json!([named("a", 1), named("b", 2), {"add": {}, "from": ["a", "b"]}]),
        "layers[2] add: [4, 4, 4] and [4, 2, 2] differ; stride 2 on one branch?",
    );
    check(json!([4]), json!([{"add": {}}]), "layers[0] from: add reads two or more layers, got 0");
    check(
        json!([4]),
        json!([{"name": "a", "flatten": {}}, {"flatten": {}, "from": ["a", "input"]}]),
        "layers[1] from: flatten reads one layer; add sums several, concat puts them side by side, got 2",
    );
    check(
        json!([1, 4, 4]),
        json!([named("a", 1), named("b", 1), {"flatten": {}}]),
        "node \"a\" is never used; name it in from of a later layer, or leave it out",
    );
    check(json!([4]), json!([{"name": "input", "flatten": {}}]), "layers[0] \"input\": two layers have this name");
    check(
        json!([3, 4, 4]),
        json!([{"conv2d": {"filters": 32, "kernel": 1, "groups": 3}}]),
        "layers[0] \"conv2d_1\": groups 3 does not divide filters 32",
    );
    check(
        json!([4, 4, 4]),
        json!([{"conv2d": {"filters": 6, "kernel": 1, "groups": 3}}]),
        "layers[0] \"conv2d_1\": groups 3 does not divide channels 4",
    );
    check(json!([4]), json!([{"gru": {"units": 4}}]), "layers[0] \"gru_1\": gru after [4]; it needs [time, features]");
    check(
        json!([5, 4]),
        json!([{"lstm": {"units": 4, "layers": 17}}]),
        "layers[0] \"lstm_1\": layers is 17; need at least 1 and at most 16",
    );
    check(
        json!([1 << 20, 4]),
        json!([{"rnn": {"units": 65}}]),
        "layers[0] \"rnn_1\": projection beyond 67108864; make the layer smaller",
    );
    check(
        json!([3, 4]),
        json!([{"conv1d": {"filters": 4, "kernel": 5}}]),
        "layers[0] \"conv1d_1\": kernel 5\u{d7}1 does not fit 3\u{d7}1 with padding valid",
    );
    check(
        json!([4]),
        json!([{"globalAvgPool": {}}]),
        "layers[0] \"global_avg_pool_1\": globalAvgPool after [4]; it needs an image or a sequence",
    );
    check(
        json!([4]),
        json!([{"batchNorm": {"eps": 0}}]),
        "layers[0] \"batch_norm_1\": eps is 0; need above 0, at most 1",
    );
    check(
        json!([8]),
        json!([{"residual": {"filters": 8}}]),
        "layers[0] \"residual_1_1\": residual after [8]; it needs [channels, height, width]",
    );
    check(
        json!([8, 4, 4]),
        json!([{"residual": {"filters": 6, "block": "bottleneck"}}]),
        "layers[0] \"residual_1\": filters is 6; need a multiple of 4: a bottleneck has a quarter inside",
    );
    check(
        json!([8, 4, 4]),
        json!([{"residual": {"filters": 8, "expand": 6}}]),
        "layers[0] \"residual_1\": expand is 6; need block inverted, or no expand",
    );
    check(
        json!([8, 4, 4]),
        json!([{"residual": {"filters": 8, "repeat": 1 << 20}}]),
        "layers[0] \"residual_1_205_add\": more than 1024 layers once residual blocks are expanded; repeat them less",
    );
}

/// What is wrong with layers of words, of several inputs, and with single values, word for word.
#[test]
fn values_that_do_not_suit_a_layer_are_said_with_what_does() {
    let check_of = |input: serde_json::Value, layers: serde_json::Value, expected: &str| {
        let typed: Architecture = serde_json::from_value(json!({"input": input, "layers": layers})).unwrap();
        assert_eq!(typed.graph().unwrap_err().to_string(), expected);
    };
    let check = |shape: serde_json::Value, layers: serde_json::Value, expected: &str| {
        check_of(json!({"shape": shape}), layers, expected);
    };
    let embedding = json!({"embedding": {"vocabulary": 9, "dimension": 2}});
    check(
        json!([4]),
        json!([embedding]),
        "layers[0] \"embedding_1\": embedding needs dtype u32, got f32; say dtype: u32 in input, and let it read that",
    );
    check_of(
        json!({"shape": [4], "dtype": "u32"}),
        json!([embedding, {"embedding": {"vocabulary": 9, "dimension": 2}}]),
        "layers[1] \"embedding_2\": embedding needs dtype u32, got f32; say dtype: u32 in input, and let it read that",
    );
    check_of(
        json!({"shape": [4], "dtype": "u32"}),
        json!([{"dense": {"units": 2}}]),
        "layers[0] \"dense_1\": dense reads words, dtype u32; only an embedding does",
    );
    check_of(
        json!({"shape": [4, 2], "dtype": "u32"}),
        json!([embedding]),
        "layers[0] \"embedding_1\": embedding after [4, 2]; it needs [time]",
    );
    check_of(
        json!({"shape": [4], "dtype": "u32"}),
        json!([{"embedding": {"vocabulary": 9, "dimension": 2, "paddingId": 9}}]),
        "layers[0] \"embedding_1\": paddingId is 9; need a number below vocabulary",
    );
    let pair = json!([{"name": "a", "conv2d": {"filters": 2, "kernel": 1}}, {"concat": {}, "from": ["a", "input"]}]);
    let with_axis = |axis: usize| {
        let mut layers = pair.clone();
        layers[1]["concat"]["axis"] = axis.into();
        layers
    };
    check(json!([3, 4, 4]), with_axis(1), "layers[1] concat: [2, 4, 4] and [3, 4, 4] differ in more than axis 1");
    check(
        json!([3, 4, 4]),
        with_axis(3),
        "layers[1] \"concat_1\": axis is 3; need an axis of what it reads, from 0 on, without the batch",
    );
    check(
        json!([3, 4]),
        json!([{"concat": {}, "from": "input"}]),
        "layers[0] from: concat reads two or more layers, got 1",
    );
    check(
        json!([3, 4]),
        json!([{"reshape": {"shape": [5, 2]}}]),
        "layers[0] \"reshape_1\": reshape from [3, 4] to [5, 2]; need as many values",
    );
    check(
        json!([3, 4, 4]),
        json!([{"layerNorm": {}}]),
        "layers[0] \"layer_norm_1\": layerNorm after [3, 4, 4]; it needs a sequence or a list of features; images have batchNorm",
    );
    check(
        json!([3, 4, 4]),
        json!([{"conv2d": {"filters": 2, "kernel": 1, "padding": "causal"}}]),
        "layers[0] \"conv2d_1\": padding is causal; need valid, same or a number; only conv1d is causal",
    );
    check(
        json!([3, 4, 4]),
        json!([{"conv2d": {"filters": 2, "kernel": 3, "dilation": 2}}]),
        "layers[0] \"conv2d_1\": kernel 3\u{d7}3 does not fit 4\u{d7}4 with padding valid",
    );
    check(
        json!([5, 4]),
        json!([{"rnn": {"units": 2, "activation": "silu"}}]),
        "layers[0] \"rnn_1\": activation is silu; need tanh, sigmoid or relu",
    );
    check(
        json!([5, 4]),
        json!([{"gru": {"units": 2, "activation": "tanh"}}]),
        "layers[0] \"gru_1\": activation is tanh; need none: its gates have theirs",
    );
    check(
        json!([5, 4]),
        json!([{"lstm": {"units": 2, "dropout": 1.0}}]),
        "layers[0] \"lstm_1\": dropout is 1; need a share in [0, 1)",
    );
    check(
        json!([4]),
        json!([{"batchNorm": {"momentum": 0}}]),
        "layers[0] \"batch_norm_1\": momentum is 0; need above 0, at most 1",
    );
    check(
        json!([3, 4, 4]),
        json!([{"upsample2d": {"factor": 0}}]),
        "layers[0] \"upsample2d_1\": factor is 0; need at least 1 and at most 1,048,576",
    );
    check(
        json!([3, 4, 4]),
        json!([{"separableConv2d": {"filters": 2, "kernel": 5}}]),
        "layers[0] \"separable_conv2d_1_depthwise\": kernel 5\u{d7}5 does not fit 4\u{d7}4 with padding valid",
    );
}

#[test]
fn blocks_expand_into_named_layers_with_torch_names_inside() {
    let graph = |block: serde_json::Value| {
        let typed = json!({"input": {"shape": [8, 6, 6]}, "layers": [{"name": "b", "residual": block}]});
        serde_json::from_value::<Architecture>(typed).unwrap().graph().unwrap()
    };
    let names = |graph: &Graph| graph.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>().join(" ");
    let basic = graph(json!({"filters": 16, "stride": 2, "repeat": 2}));
    assert_eq!(
        names(&basic),
        "b_1_shortcut b_1_shortcut_bn b_1_conv1 b_1_conv1_bn b_1_conv2 b_1_conv2_bn b_1_add \
         b_2_conv1 b_2_conv1_bn b_2_conv2 b_2_conv2_bn b_2_add"
    );
    assert_eq!(basic.nodes[6].inputs, [Source::Node(5), Source::Node(1)]);
    assert_eq!(basic.nodes[11].shape, [16, 3, 3]);
    let parameters: Vec<&str> = basic.parameters().map(|parameter| parameter.name.as_str()).take(5).collect();
    let expected = ["weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"];
    assert_eq!(parameters, expected.map(|end| format!("b_1_shortcut{}{end}", if end == "weight" { "." } else { "_" })));
    assert_eq!(
        names(&graph(json!({"filters": 16, "block": "bottleneck"}))),
        "b_1_shortcut b_1_shortcut_bn b_1_conv1 b_1_conv1_bn b_1_conv2 b_1_conv2_bn b_1_conv3 b_1_conv3_bn b_1_add"
    );
    let inverted = graph(json!({"filters": 8, "block": "inverted"}));
    assert_eq!(
        names(&inverted),
        "b_1_expand b_1_expand_bn b_1_depthwise b_1_depthwise_bn b_1_project b_1_project_bn b_1_add"
    );
    assert_eq!(inverted.nodes[0].shape, [48, 6, 6]);
    assert_eq!(inverted.nodes[6].inputs, [Source::Node(5), Source::Input]);
}

/// The numbers of parameters are those of PyTorch for the same networks.
#[test]
fn known_networks_have_their_known_sizes() {
    let check = |typed: &str, parameters: usize, kflops: u64| {
        let graph = zoo::read(typed).graph().unwrap();
        assert_eq!((graph.parameter_count(), graph.flops() / 1000), (parameters, kflops));
    };
    check(zoo::RESNET_18, 11_689_512, 3_635_698);
    check(zoo::MOBILENET_V2, 3_504_872, 615_183);
    check(zoo::CONV1D, 48_134, 4_666);
    check(zoo::AUTOENCODER, 438_176, 872);
    for (typed, gates) in [(zoo::RNN, 1), (zoo::GRU, 3), (zoo::LSTM, 4)] {
        // Two layers, each with a bias for the input and one for the state; products at every one of 100 steps.
        let parameters = gates * 128 * ((40 + 128 + 2) + (128 + 128 + 2)) + 128 * 12 + 12;
        let flops = 2 * (100 * gates * 128 * (40 + 128 + 128 + 128) + 128 * 12);
        check(typed, parameters, flops as u64 / 1000);
    }
}

/// Typing errors: serde names the place, we the fault.
#[test]
fn a_layer_has_exactly_one_known_kind() {
    let check = |layer: serde_json::Value, expected: &str| {
        let error = serde_json::from_value::<Architecture>(json!({"input": {"shape": [4]}, "layers": [layer]}))
            .unwrap_err()
            .to_string();
        assert_eq!(error, expected);
    };
    check(
        json!({"conv2d": {"filters": 1, "kernel": 1}, "dense": {"units": 1}}),
        "exactly one kind per layer, got conv2d and dense",
    );
    check(json!({}), "exactly one kind per layer, got none");
    check(
        json!({"attention": {"heads": 4}}),
        "unknown kind \"attention\"; known are conv2d, depthwiseConv2d, separableConv2d, conv1d, maxPool2d, avgPool2d, maxPool1d, \
         globalAvgPool, globalMaxPool, statsPool, batchNorm, layerNorm, flatten, reshape, embedding, dense, activation, dropout, rnn, \
         gru, lstm, add, concat, upsample2d, residual",
    );
    check(json!({"name": "a.b", "flatten": {}}), "name: need 1 to 63 letters, digits, _ or -, got \"a.b\"");
    check(
        json!({"dense": {"units": 1, "unit": 2}}),
        "dense: unknown field `unit`, expected one of `units`, `useBias`, `activation`",
    );
    check(json!({"flatten": {"axis": 1}}), "flatten: unknown field `axis`, there are no fields");
    check(
        json!({"conv1d": {"filters": 1, "kernel": 3, "padding": "full"}}),
        "conv1d: data did not match any variant of untagged enum Padding",
    );
    check(json!({"add": {}, "from": []}), "from: need a name or a list of names, got []");
    check(json!({"add": {}, "from": ["a", 1]}), "from: need a name or a list of names, got [\"a\",1]");
}

proptest! {
    #[test]
    fn hostile_sizes_never_panic(shape in prop::collection::vec(prop_oneof![1 => any::<i64>(), 1 => 1..9_i64, 1 => Just(-1)], 0..5), longest: usize, filters: usize, kernel in any::<[usize; 2]>(), stride: usize, zeros: usize, same: bool) {
        let padding = if same { json!("same") } else { json!(zeros) };
        let layers = [
            json!([{"conv2d": {"filters": filters, "kernel": kernel, "stride": stride, "padding": padding}}, {"maxPool2d": {"size": kernel}}, {"flatten": {}}, {"dense": {"units": filters}}]),
            json!([{"depthwiseConv2d": {"kernel": kernel, "stride": stride, "padding": padding}}, {"avgPool2d": {"size": kernel, "padding": padding}}, {"globalAvgPool": {}}, {"batchNorm": {}}]),
            json!([{"residual": {"filters": filters, "stride": stride, "repeat": zeros, "block": "inverted", "expand": zeros}}]),
            json!([{"conv1d": {"filters": filters, "kernel": zeros, "stride": stride, "padding": padding}}, {"lstm": {"units": filters, "layers": stride, "bidirectional": true}}]),
            json!([{"conv1d": {"filters": filters, "kernel": zeros, "padding": "causal", "dilation": stride}}, {"maxPool1d": {"size": stride, "stride": zeros}}, {"statsPool": {}}, {"layerNorm": {}}]),
            json!([{"conv2d": {"filters": filters, "kernel": kernel, "dilation": stride, "groups": zeros}}, {"upsample2d": {"factor": filters}}, {"concat": {"axis": stride}, "from": ["input", "upsample2d_1"]}]),
            json!([{"separableConv2d": {"filters": filters, "kernel": kernel}}, {"depthwiseConv2d": {"kernel": 1, "multiplier": zeros}}, {"reshape": {"shape": kernel}}]),
        ];
        for layers in layers {
            for input in [json!({"shape": shape}), json!({"shape": shape, "maxLength": longest})] {
                let typed: Architecture = serde_json::from_value(json!({"input": input, "layers": layers})).unwrap();
                let _ = typed.graph().map(|graph| graph.lengths());
            }
        }
    }

    #[test]
    fn same_padding_keeps_the_size_divided_by_the_stride(size in 1_usize..40, kernel in 1_usize..8, stride in 1_usize..4) {
        let layers = json!([{"conv2d": {"filters": 2, "kernel": kernel, "stride": stride, "padding": "same"}}]);
        let typed: Architecture = serde_json::from_value(json!({"input": {"shape": [1, size, size]}, "layers": layers})).unwrap();
        prop_assert_eq!(&typed.graph().unwrap().nodes[0].shape, &[2, size.div_ceil(stride), size.div_ceil(stride)]);
    }
}

/// What is before the head stays as it is, with the names that its layers have.
#[test]
fn a_network_gets_another_head() {
    let check = |layers: serde_json::Value, head: &str, expected: &[&str]| {
        let typed = json!({"input": {"shape": [1, 8, 8]}, "layers": layers});
        let architecture: Architecture = serde_json::from_value(typed).unwrap();
        let graph = architecture.graph().unwrap();
        assert_eq!(graph.head(), Some(head));
        let new =
            json!([{"dropout": {"rate": 0.5}}, {"dense": {"units": 9, "activation": "relu"}}, {"dense": {"units": 4}}]);
        let new: Vec<crate::architecture::Layer> = serde_json::from_value(new).unwrap();
        let (changed, first) = architecture.with_head(head, &new).unwrap().unwrap();
        let changed = changed.graph().unwrap();
        let names: Vec<_> = changed.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!((names, first.as_str()), (expected.to_vec(), "dropout_1"));
        let kept = changed.before(&first).unwrap();
        assert_eq!(kept, &graph.nodes[..kept.len()]);
        assert!(architecture.with_head("nobody", &new).unwrap().is_none());
    };
    let conv = json!({"conv2d": {"filters": 2, "kernel": 3, "batchNorm": true}});
    check(
        json!([conv, {"flatten": {}}, {"dense": {"units": 8}}, {"dense": {"units": 10}}, {"activation": "softmax"}]),
        "dense_2",
        &["conv2d_1", "conv2d_1_bn", "flatten_1", "dense_1", "dropout_1", "dense_2", "dense_3"],
    );
    check(
        json!([conv, {"globalAvgPool": {}, "name": "means"}, {"dense": {"units": 8}}]),
        "dense_1",
        &["conv2d_1", "conv2d_1_bn", "means", "dropout_1", "dense_1", "dense_2"],
    );
    // The last weights are in the middle of what was typed as one layer, which is replaced as a whole.
    let separable = json!({"separableConv2d": {"filters": 4, "kernel": 3}});
    let typed = json!({"input": {"shape": [1, 8, 8]}, "layers": [conv, separable]});
    let architecture: Architecture = serde_json::from_value(typed).unwrap();
    let head = architecture.graph().unwrap().head().unwrap().to_owned();
    assert_eq!(head, "separable_conv2d_1_pointwise");
    let pool = serde_json::from_value(json!({"globalAvgPool": {}})).unwrap();
    let (changed, first) = architecture.with_head(&head, std::slice::from_ref(&pool)).unwrap().unwrap();
    assert_eq!((changed.layers.len(), first.as_str()), (2, "global_avg_pool_1"));
    // Names of three classes, and a head that tells two.
    let typed = json!({"input": {"shape": [4]}, "layers": [{"dense": {"units": 8}}, {"dense": {"units": 3, "activation": "softmax"}}],
        "output": {"labels": ["cat", "dog", "neither"]}});
    let architecture: Architecture = serde_json::from_value(typed).unwrap();
    let two = serde_json::from_value(json!({"dense": {"units": 2, "activation": "softmax"}})).unwrap();
    let (changed, _) = architecture.with_head("dense_2", &[two]).unwrap().unwrap();
    assert_eq!(changed.graph().unwrap().labels(), ["0", "1"]);
}
