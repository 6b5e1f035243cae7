//! Models of words: a request that names one that is not known is refused, or fails, alone.

use super::EXECUTOR;
use crate::common::{LIMITS, LOOPBACK, MODEL, SERVED, Server, settings, start};
use candle_core::{Device, Tensor};
use prometheus_client::registry::Registry;
use sconce_edge_runtime::batch::Policy;
use sconce_edge_runtime::catalogue::{Control, Source, Sources};
use sconce_edge_runtime::decode::Input;
use sconce_edge_runtime::engine::{Engine, EngineError, Terms};
use sconce_edge_runtime::load::{load, open};
use sconce_edge_runtime::metrics::Metrics;
use sconce_edge_runtime::wire::model_infer_request::InferInputTensor;
use sconce_edge_runtime::wire::{ModelInferRequest, raw_fp32};
use sconce_model::artifact::signature::Trust;
use sconce_model::artifact::testing::write_drawn;
use serde_json::json;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::Code;

/// Of nine words.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let typed = json!({"input": {"shape": [3], "dtype": "u32"}, "layers": [
        {"embedding": {"vocabulary": 9, "dimension": 4}}, {"globalMaxPool": {}},
        {"dense": {"units": 5, "activation": "relu"}}, {"dense": {"units": 3, "activation": "softmax"}}]});
    write_drawn(folder.path(), typed, 7).unwrap();
    folder
}

fn naming(words: &[f32]) -> ModelInferRequest {
    let shape = vec![words.len() as i64 / 3, 3];
    let input = InferInputTensor { name: "input".into(), datatype: "FP32".into(), shape, ..Default::default() };
    let raw_input_contents = vec![raw_fp32(words)];
    ModelInferRequest { model_name: MODEL.into(), inputs: vec![input], raw_input_contents, ..Default::default() }
}

#[tokio::test]
async fn words_that_the_model_does_not_know_are_refused() {
    let folder = folder();
    let source = Source { version: None, folder: folder.path().into(), digest: None };
    let sources = Sources::new([(MODEL.into(), source)], None).unwrap();
    let catalogue = start(sources, Control::None, settings(EXECUTOR)).await;
    let server = Server::of(catalogue, TcpListener::bind(LOOPBACK).await.unwrap(), None, LIMITS).await;
    let mut client = server.client().await;
    for no_word in [9.0, -1.0, 0.5] {
        let refused = client.model_infer(naming(&[0.0, 8.0, 1.0, 2.0, no_word, 3.0])).await.unwrap_err();
        let expected =
            format!("input \"input\" has {no_word} at 4; the model knows words by whole numbers from 0 to 8");
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, &*expected));
    }
    client.model_infer(naming(&[0.0, 8.0, 1.0])).await.unwrap();
}

/// Whatever it is that a model fails at: all who were in one batch with it failed.
#[tokio::test]
async fn in_a_batch_that_fails_only_those_fail_whose_fault_it_is() {
    let folder = folder();
    let runner = load(&open(folder.path(), None, &Trust::default()).unwrap(), "f32", 4, 1).unwrap().runner;
    // A batch runs once it is full.
    let policy = Policy { max_batch_size: 4, max_queue_delay: Duration::from_secs(3600) };
    let metrics = Metrics::new(&mut Registry::default()).of(SERVED);
    let engine = Engine::start(runner, policy, 16, metrics, EXECUTOR).unwrap();
    let asked = [1.0, 99.0, 2.0, 3.0].map(|word| {
        let xs = Tensor::from_vec(vec![0.0_f32, word, 0.0], (1, 3), &Device::Cpu).unwrap();
        engine.submit(Input { xs, rows: 1 }, Terms::default())
    });
    let answers = tokio::time::timeout(Duration::from_secs(60), futures::future::join_all(asked)).await.unwrap();
    let [one, other, two, three] = &answers[..] else { panic!("{answers:?}") };
    assert!(matches!(other, Err(EngineError::Failed { .. })), "{other:?}");
    for good in [one, two, three] {
        assert_eq!(good.as_ref().unwrap().ys.dims(), [1, 3]);
    }
}
