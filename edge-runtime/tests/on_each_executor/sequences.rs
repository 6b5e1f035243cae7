//! Sequences of any length: each is answered, whatever the others in its batch are.

use super::EXECUTOR;
use super::rest::{INFER, LENGTH, ask};
use crate::common::{LOOPBACK, MODEL, Server, policy, settings, start};
use candle_core::{Device, Tensor};
use sconce_edge_runtime::catalogue::{Control, Settings, Source, Sources};
use sconce_edge_runtime::wire::model_infer_request::InferInputTensor;
use sconce_edge_runtime::wire::{ModelInferRequest, ModelMetadataRequest, raw_fp32};
use sconce_kernels::{Cpu, IsaToken, Threads};
use sconce_model::artifact::{Artifact, testing::write_drawn};
use serde_json::json;
use tokio::net::TcpListener;

const FEATURES: usize = 3;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let typed = json!({"input": {"shape": [-1, FEATURES], "maxLength": 50}, "layers": [
        {"conv1d": {"filters": 5, "kernel": 3, "padding": "valid", "activation": "relu"}}, {"gru": {"units": 6}},
        {"dense": {"units": 3, "activation": "softmax"}}]});
    write_drawn(folder.path(), typed, 7).unwrap();
    folder
}

async fn server(folder: &tempfile::TempDir) -> Server {
    let source = Source { version: None, folder: folder.path().into(), digest: None };
    let sources = Sources::new([(MODEL.into(), source)], None).unwrap();
    let settings = Settings { policy: policy(8), queue_size: 64, ..settings(EXECUTOR) };
    let catalogue = start(sources, Control::None, settings).await;
    Server::of(catalogue, TcpListener::bind(LOOPBACK).await.unwrap(), None, crate::common::LIMITS).await
}

fn values(rows: usize, steps: usize) -> Vec<f32> {
    (0..rows * steps * FEATURES).map(|index| (index * steps % 13) as f32 / 13.0 - 0.5).collect()
}

fn request(rows: usize, steps: usize) -> ModelInferRequest {
    let shape = [rows, steps, FEATURES].map(|size| size as i64).into();
    let input = InferInputTensor { name: "input".into(), datatype: "FP32".into(), shape, ..Default::default() };
    let raw_input_contents = vec![raw_fp32(&values(rows, steps))];
    ModelInferRequest { model_name: MODEL.into(), inputs: vec![input], raw_input_contents, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_length_is_answered_as_the_plan_answers_it_alone() {
    let folder = folder();
    let server = server(&folder).await;
    let plan = Artifact::open(folder.path()).unwrap().variant("f32").unwrap().plan().unwrap();
    let cpu = Cpu { isa: IsaToken::detect().unwrap(), threads: &Threads::one() };
    let client = server.client().await;
    let mut asked = tokio::task::JoinSet::new();
    for steps in (3..=50).rev() {
        let (mut client, rows) = (client.clone(), 1 + steps % 2);
        asked.spawn(async move { (rows, steps, client.model_infer(request(rows, steps)).await.unwrap().into_inner()) });
    }
    while let Some(answered) = asked.join_next().await {
        let (rows, steps, answer) = answered.unwrap();
        let xs = Tensor::from_vec(values(rows, steps), (rows, steps, FEATURES), &Device::Cpu).unwrap();
        let ys = plan.infer(cpu, &[&xs], &mut plan.scratch(rows)).unwrap().remove(0);
        let expected: Vec<f32> = ys.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(answer.raw_output_contents, [raw_fp32(&expected)], "{rows} of {steps} steps");
        assert_eq!(answer.outputs[0].shape, [rows as i64, 3]);
    }
}

#[tokio::test]
async fn what_is_taken_is_told_and_all_else_is_refused_with_it() {
    let folder = folder();
    let server = server(&folder).await;
    let mut client = server.client().await;
    let metadata = ModelMetadataRequest { name: MODEL.into(), version: String::new() };
    assert_eq!(client.model_metadata(metadata).await.unwrap().into_inner().inputs[0].shape, [-1, -1, 3]);
    for steps in [0, 2, 51] {
        let refused = client.model_infer(request(1, steps)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        let expected = format!(
            "input \"input\" has sequences of {steps} steps; the model takes 3 to 50: send shorter parts, or fill up"
        );
        assert_eq!(refused.message(), expected);
    }
    let raw = raw_fp32(&values(1, 20));
    let reply = ask(server.rest, "POST", INFER, &[(LENGTH, "0")], &raw).await;
    let expected = client.model_infer(request(1, 20)).await.unwrap().into_inner().raw_output_contents.remove(0);
    assert_eq!(reply.status, 200);
    assert!(reply.body.ends_with(&expected), "a body without JSON is one sequence");
}
