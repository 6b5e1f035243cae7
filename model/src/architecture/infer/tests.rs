use crate::architecture::Architecture;
use proptest::prelude::*;
use serde_json::json;

const SEED: &str = r#"{"input": {"shape": [1, 28, 28]}, "layers": [
    {"conv2d": {"filters": 32, "kernel": [3, 3], "activation": "relu"}}, {"maxPool2d": {"size": [2, 2]}}, {"flatten": {}},
    {"dense": {"units": 128, "activation": "relu"}}, {"dense": {"units": 10, "activation": "softmax"}}]}"#;

#[test]
fn the_seed_has_the_shapes_and_sizes_that_keras_prints() {
    let graph = serde_json::from_str::<Architecture>(SEED).unwrap().graph().unwrap();
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
    let typed: Architecture = serde_json::from_str(SEED).unwrap();
    assert_eq!(serde_json::from_value::<Architecture>(serde_json::to_value(&typed).unwrap()).unwrap(), typed);
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
        "layers[0] \"conv2d_1\": padding is 1; need less than the kernel: a window of nothing but zeros sees nothing",
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
        "input.shape: [0]; need 1 to 4 sizes of at least 1, channels first, without the batch",
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

/// Typing errors: serde names the place, we the fault.
#[test]
fn a_layer_has_exactly_one_known_kind() {
    let check = |layer: serde_json::Value, expected: &str| {
        let error = serde_json::from_value::<Architecture>(json!({"input": {"shape": [4]}, "layers": [layer]}))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(
        json!({"conv2d": {"filters": 1, "kernel": 1}, "dense": {"units": 1}}),
        "exactly one kind per layer, got conv2d and dense",
    );
    check(json!({}), "exactly one kind per layer, got none");
    check(
        json!({"attention": {"heads": 4}}),
        "unknown kind \"attention\"; known are conv2d, maxPool2d, flatten, dense, activation, dropout",
    );
    check(json!({"name": "a.b", "flatten": {}}), "name: need 1 to 63 letters, digits, _ or -, got \"a.b\"");
    check(json!({"dense": {"units": 1, "unit": 2}}), "dense: unknown field `unit`");
}

proptest! {
    #[test]
    fn hostile_sizes_never_panic(shape in prop::collection::vec(any::<usize>(), 0..5), filters: usize, kernel in any::<[usize; 2]>(), stride: usize, zeros: usize, same: bool) {
        let padding = if same { json!("same") } else { json!(zeros) };
        let layers = json!([{"conv2d": {"filters": filters, "kernel": kernel, "stride": stride, "padding": padding}}, {"maxPool2d": {"size": kernel}}, {"flatten": {}}, {"dense": {"units": filters}}]);
        let typed: Architecture = serde_json::from_value(json!({"input": {"shape": shape}, "layers": layers})).unwrap();
        let _ = typed.graph();
    }

    #[test]
    fn same_padding_keeps_the_size_divided_by_the_stride(size in 1_usize..40, kernel in 1_usize..8, stride in 1_usize..4) {
        let layers = json!([{"conv2d": {"filters": 2, "kernel": kernel, "stride": stride, "padding": "same"}}]);
        let typed: Architecture = serde_json::from_value(json!({"input": {"shape": [1, size, size]}, "layers": layers})).unwrap();
        prop_assert_eq!(&typed.graph().unwrap().nodes[0].shape, &[2, size.div_ceil(stride), size.div_ceil(stride)]);
    }
}
