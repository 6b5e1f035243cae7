//! The reference against other implementations of the same layers, where candle-nn has one.

use super::*;
use crate::zoo;
use candle_nn::rnn::{GRU, GRUConfig, LSTM, LSTMConfig, RNN as _};
use candle_nn::{VarBuilder, VarMap};
use serde_json::json;

fn network(typed: serde_json::Value) -> Network {
    let graph = zoo::read(&typed.to_string()).graph().unwrap();
    let network = Network::initialise(Arc::new(graph), 3).unwrap();
    let mut generator = generator(3, "biases");
    for (_, bias) in network.variables().iter().filter(|(name, _)| name.contains("bias")) {
        let values: Vec<f32> = (0..bias.elem_count()).map(|_| unit(&mut generator) - 0.5).collect();
        bias.set(&Tensor::from_vec(values, bias.shape(), &Device::Cpu).unwrap()).unwrap();
    }
    network
}

fn assert_close(got: &Tensor, expected: &Tensor) {
    assert_eq!(got.dims(), expected.dims());
    let differences = (got - expected).unwrap().abs().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(differences.iter().all(|difference| *difference <= 1e-6), "{differences:?}");
}

#[test]
fn gru_and_lstm_are_those_of_candle_nn() {
    let xs = Tensor::rand(-1f32, 1.0, (3, 7, 5), &Device::Cpu).unwrap();
    for cell in ["gru", "lstm"] {
        let layer = json!({"name": "r", cell: {"units": 6, "returnSequences": true}});
        let network = network(json!({"input": {"shape": [7, 5]}, "layers": [layer]}));
        let names = VarMap::new();
        for (name, variable) in network.variables() {
            names.data().lock().unwrap().insert(name.clone(), variable.clone());
        }
        let weights = VarBuilder::from_varmap(&names, DType::F32, &Device::Cpu).pp("r");
        let states: Vec<Tensor> = if cell == "gru" {
            let gru = GRU::new(5, 6, GRUConfig::default(), weights).unwrap();
            gru.seq(&xs).unwrap().into_iter().map(|state| state.h).collect()
        } else {
            let lstm = LSTM::new(5, 6, LSTMConfig::default(), weights).unwrap();
            lstm.seq(&xs).unwrap().into_iter().map(|state| state.h().clone()).collect()
        };
        assert_close(&network.infer(&xs).unwrap(), &Tensor::stack(&states, 1).unwrap());
    }
}

#[test]
fn reading_from_the_end_is_reading_the_turned_sequence() {
    let typed = |both: bool| json!({"input": {"shape": [7, 5]}, "layers": [{"name": "r", "rnn": {"units": 6, "bidirectional": both}}]});
    let (both, xs) = (network(typed(true)), Tensor::rand(-1f32, 1.0, (3, 7, 5), &Device::Cpu).unwrap());
    let reversed = both
        .variables()
        .iter()
        .filter_map(|(name, variable)| Some((name.strip_suffix("_reverse")?.to_owned(), variable.as_tensor().clone())));
    let forward = Network::load(network(typed(false)).graph().clone(), &reversed.collect()).unwrap();
    let got = both.infer(&xs).unwrap().narrow(1, 6, 6).unwrap();
    assert_close(&got, &forward.infer(&xs.flip(&[1]).unwrap()).unwrap());
}

#[test]
fn padding_of_a_mean_is_not_counted() {
    let pool = json!({"avgPool2d": {"size": 3, "stride": 2, "padding": 1}});
    let network = network(json!({"input": {"shape": [2, 5, 5]}, "layers": [pool]}));
    let ones = Tensor::ones((1, 2, 5, 5), DType::F32, &Device::Cpu).unwrap();
    assert_close(&network.infer(&ones).unwrap(), &Tensor::ones((1, 2, 3, 3), DType::F32, &Device::Cpu).unwrap());
}

/// In PyTorch's words: `(x - mean) / √(variance + eps) · weight + bias`.
#[test]
fn batch_norm_takes_its_statistics_from_the_weights() {
    let network = network(json!({"input": {"shape": [2]}, "layers": [{"name": "n", "batchNorm": {"eps": 1.0}}]}));
    let set = |name: &str, values: [f32; 2]| {
        network.variables()[name].set(&Tensor::new(&values, &Device::Cpu).unwrap()).unwrap();
    };
    set("n.running_mean", [1.0, 2.0]);
    set("n.running_var", [3.0, 8.0]);
    set("n.weight", [2.0, 3.0]);
    set("n.bias", [0.5, 0.0]);
    let xs = Tensor::new(&[[3f32, 5.0]], &Device::Cpu).unwrap();
    assert_close(&network.infer(&xs).unwrap(), &Tensor::new(&[[2.5f32, 3.0]], &Device::Cpu).unwrap());
}

#[test]
fn network_without_weights_is_not_trained() {
    let network = network(json!({"input": {"shape": [4]}, "layers": [{"activation": "relu"}]}));
    let xs = Tensor::zeros((1, 4), DType::F32, &Device::Cpu).unwrap();
    let training = Training { seed: 1, epoch: 1, step: 1, frozen: &BTreeSet::new() };
    let error = network.forward_t(&xs, None, Mode::Train(training)).unwrap_err().to_string();
    assert!(error.starts_with("no layer learns anything; training needs at least one with weights"), "{error}");
}
