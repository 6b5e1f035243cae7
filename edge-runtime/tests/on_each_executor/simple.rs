//! Triton's example, over both wires: whole numbers in every form.

use super::EXECUTOR;
use super::rest::{LENGTH, ask};
use crate::common::{LIMITS, LOOPBACK, Server, settings, start};
use sconce_edge_runtime::catalogue::{Control, Model, Sources};
use sconce_edge_runtime::wire::model_infer_request::InferInputTensor;
use sconce_edge_runtime::wire::{
    InferTensorContents, ModelConfigRequest, ModelInferRequest, ModelStatisticsRequest, raw_int32,
};
use serde_json::json;
use tokio::net::TcpListener;
use tonic::Code;

async fn server() -> Server {
    let catalogue = start(Sources::default(), Control::None, settings(EXECUTOR)).await;
    catalogue.add(Model::simple(catalogue.metrics()));
    Server::of(catalogue, TcpListener::bind(LOOPBACK).await.unwrap(), None, LIMITS).await
}

fn input(name: &str, values: Option<Vec<i32>>) -> InferInputTensor {
    let contents = values.map(|int_contents| InferTensorContents { int_contents, ..Default::default() });
    InferInputTensor { name: name.into(), datatype: "INT32".into(), shape: vec![1, 16], contents, ..Default::default() }
}

#[tokio::test]
async fn whole_numbers_are_added_and_subtracted_in_every_form() {
    let server = server().await;
    let mut client = server.client().await;
    // More than a number of 32 bits with a point could hold exactly.
    let xs: Vec<i32> = (0..16).map(|x| (1 << 30) + x).collect();
    let ys = vec![-1; 16];
    let (sum, difference): (Vec<i32>, Vec<i32>) = xs.iter().map(|x| (x - 1, x + 1)).unzip();

    let inputs = vec![input("INPUT0", Some(xs.clone())), input("INPUT1", Some(ys.clone()))];
    let typed = ModelInferRequest { model_name: "simple".into(), inputs, ..Default::default() };
    let answer = client.model_infer(typed).await.unwrap().into_inner();
    let of = |index: usize| answer.outputs[index].contents.as_ref().unwrap().int_contents.clone();
    assert_eq!((of(0), of(1), answer.outputs[0].datatype.as_str()), (sum.clone(), difference.clone(), "INT32"));

    let inputs = vec![input("INPUT1", None), input("INPUT0", None)];
    let raw_input_contents = vec![raw_int32(&ys), raw_int32(&xs)];
    let raw = ModelInferRequest { model_name: "simple".into(), inputs, raw_input_contents, ..Default::default() };
    let answer = client.model_infer(raw).await.unwrap().into_inner();
    assert_eq!(answer.raw_output_contents, [raw_int32(&sum), raw_int32(&difference)]);

    let given = |name: &str, data: &[i32]| json!({"name": name, "datatype": "INT32", "shape": [1, 16], "data": data});
    let infer = "/v2/models/simple/infer";
    let body = json!({"inputs": [given("INPUT0", &xs), given("INPUT1", &ys)], "outputs": [{"name": "OUTPUT1"}]});
    let reply = ask(server.rest, "POST", infer, &[], body.to_string().as_bytes()).await.json();
    let expected = json!([{"name": "OUTPUT1", "datatype": "INT32", "shape": [1, 16], "data": difference}]);
    assert_eq!(reply["outputs"], expected);
    let whole = ask(server.rest, "POST", infer, &[(LENGTH, "0")], &raw_int32(&xs)).await;
    assert_eq!((whole.status, whole.error().contains("a body without JSON is one input")), (400, true));
}

#[tokio::test]
async fn it_is_told_and_counted_as_any_other() {
    let server = server().await;
    let mut client = server.client().await;
    let config = ModelConfigRequest { name: "simple".into(), version: "1".into() };
    let config = client.model_config(config).await.unwrap().into_inner().config.unwrap();
    let names: Vec<_> = config.output.iter().map(|output| output.name.as_str()).collect();
    assert_eq!((names, config.max_batch_size, config.dynamic_batching), (vec!["OUTPUT0", "OUTPUT1"], 8, None));
    let inputs = vec![input("INPUT0", Some(vec![0; 16])), input("INPUT1", Some(vec![0; 15]))];
    let short = ModelInferRequest { model_name: "simple".into(), inputs: inputs.clone(), ..Default::default() };
    let refused = client.model_infer(short).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "input \"INPUT1\" has 15 numbers; shape [1, 16] needs 16");
    let inputs = vec![inputs[0].clone(), InferInputTensor { name: "INPUT1".into(), ..inputs[0].clone() }];
    let whole = ModelInferRequest { model_name: "simple".into(), inputs, ..Default::default() };
    client.model_infer(whole).await.unwrap();
    let statistics = client.model_statistics(ModelStatisticsRequest::default()).await.unwrap().into_inner();
    let stages = statistics.model_stats[0].inference_stats.unwrap();
    assert_eq!((stages.success.unwrap().count, stages.fail.unwrap().count), (1, 1));
}
