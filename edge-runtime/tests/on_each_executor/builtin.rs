//! Triton's examples, over both wires: whole numbers and bytes in every form.

use super::EXECUTOR;
use super::rest::{LENGTH, ask};
use crate::common::{LIMITS, LOOPBACK, Server, settings, start};
use bytes::Bytes;
use sconce_edge_runtime::builtin::Builtin;
use sconce_edge_runtime::catalogue::{Control, Model, Sources};
use sconce_edge_runtime::wire::model_infer_request::InferInputTensor;
use sconce_edge_runtime::wire::{
    InferTensorContents, ModelConfigRequest, ModelInferRequest, ModelStatisticsRequest, raw_bytes, raw_int32,
};
use serde_json::json;
use tokio::net::TcpListener;
use tonic::Code;

async fn server() -> Server {
    let catalogue = start(Sources::default(), Control::None, settings(EXECUTOR)).await;
    for builtin in Builtin::ALL {
        catalogue.add(Model::builtin(builtin, catalogue.metrics()));
    }
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
async fn bytes_come_back_in_the_form_in_which_they_came() {
    let server = server().await;
    let mut client = server.client().await;
    let elements = [&b"he\0llo"[..], b"", &[0, 159, 146, 150]].map(Bytes::from_static);
    let of = |contents: Option<InferTensorContents>, raw_input_contents: Vec<Bytes>| {
        let (name, datatype) = ("INPUT0".into(), "BYTES".into());
        let inputs = vec![InferInputTensor { name, datatype, shape: vec![1, 3], contents, ..Default::default() }];
        let model_name = "simple_identity".into();
        ModelInferRequest { model_name, inputs, raw_input_contents, ..Default::default() }
    };
    let contents = InferTensorContents { bytes_contents: elements.to_vec(), ..Default::default() };
    let answer = client.model_infer(of(Some(contents), Vec::new())).await.unwrap().into_inner();
    assert_eq!(answer.outputs[0].contents.as_ref().unwrap().bytes_contents, elements);
    assert_eq!((&answer.outputs[0].shape[..], answer.outputs[0].datatype.as_str()), (&[1, 3][..], "BYTES"));
    let raw = raw_bytes(&elements);
    let answer = client.model_infer(of(None, vec![raw.clone()])).await.unwrap().into_inner();
    assert_eq!(answer.raw_output_contents, std::slice::from_ref(&raw));

    let infer = "/v2/models/simple_identity/infer";
    let body = |given: serde_json::Value, binary: bool| {
        let mut input = json!({"name": "INPUT0", "datatype": "BYTES", "shape": [1, 3]});
        input.as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
        json!({"parameters": {"binary_data_output": binary}, "inputs": [input]}).to_string().into_bytes()
    };
    let texts = body(json!({"data": [["he\u{0}llo", "", "\u{1f4a9}"]]}), false);
    let reply = ask(server.rest, "POST", infer, &[], &texts).await.json();
    assert_eq!(reply["outputs"][0]["data"], json!(["he\u{0}llo", "", "\u{1f4a9}"]));
    let of_binary = |binary: bool| {
        let head = body(json!({"parameters": {"binary_data_size": raw.len()}}), binary);
        (head.len().to_string(), [&head[..], &raw].concat())
    };
    let (length, whole) = of_binary(true);
    let reply = ask(server.rest, "POST", infer, &[(LENGTH, &length)], &whole).await;
    assert!(reply.body.ends_with(&raw), "{}", reply.status);
    // No JSON can say what is no text.
    let (length, whole) = of_binary(false);
    let reply = ask(server.rest, "POST", infer, &[(LENGTH, &length)], &whole).await;
    let expected = "\"OUTPUT0\" has bytes that are no UTF-8, which is no JSON; ask for binary data";
    assert!(reply.error().contains(expected), "{}", reply.error());
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
    let of_it = ModelStatisticsRequest { name: "simple".into(), ..Default::default() };
    let statistics = client.model_statistics(of_it).await.unwrap().into_inner();
    let stages = statistics.model_stats[0].inference_stats.unwrap();
    assert_eq!((stages.success.unwrap().count, stages.fail.unwrap().count), (1, 1));
}
