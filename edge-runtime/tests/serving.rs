//! One server: what it answers, and what it says to those who ask wrongly.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;

use common::{MODEL, PIXELS, Server, request};
use prometheus_client::registry::Registry;
use sconce_edge_runtime::batch::Policy;
use sconce_edge_runtime::decode::decode;
use sconce_edge_runtime::engine::{Engine, EngineError};
use sconce_edge_runtime::load::load;
use sconce_edge_runtime::metrics::Metrics;
use sconce_edge_runtime::wire::{
    InferTensorContents, ModelInferRequest, ModelMetadataRequest, ModelReadyRequest, raw_fp32,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

#[tokio::test]
async fn raw_and_typed_contents_get_the_same_answer_in_their_own_form() {
    let server = Server::start(4, 16).await;
    let mut client = server.client().await;
    let raw = client.model_infer(request(2)).await.unwrap().into_inner();
    assert_eq!((raw.model_name.as_str(), raw.id.as_str(), raw.outputs[0].shape.as_slice()), (MODEL, "7", &[2, 3][..]));
    let mut typed = request(2);
    let values =
        typed.raw_input_contents.remove(0).chunks(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect();
    typed.inputs[0].contents = Some(InferTensorContents { fp32_contents: values, ..Default::default() });
    let typed = client.model_infer(typed).await.unwrap().into_inner();
    assert!(typed.raw_output_contents.is_empty() && raw.outputs[0].contents.is_none());
    let values = &typed.outputs[0].contents.as_ref().unwrap().fp32_contents;
    assert_eq!(raw.raw_output_contents[0], raw_fp32(values));
    assert!((values[..3].iter().sum::<f32>() - 1.0).abs() < 1e-5, "probabilities: {values:?}");
}

#[tokio::test]
async fn metadata_and_health_are_told() {
    let server = Server::start(4, 16).await;
    let mut client = server.client().await;
    let metadata = client
        .model_metadata(ModelMetadataRequest { name: MODEL.into(), version: String::new() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((metadata.inputs[0].name.as_str(), metadata.inputs[0].shape.as_slice()), ("input", &[-1, 1, 8, 8][..]));
    assert!(
        client
            .model_ready(ModelReadyRequest { name: MODEL.into(), version: String::new() })
            .await
            .unwrap()
            .into_inner()
            .ready
    );
    let mut health =
        HealthClient::new(Channel::from_shared(format!("http://{}", server.address)).unwrap().connect_lazy());
    for service in ["", MODEL] {
        let status = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner().status;
        assert_eq!(status, tonic_health::ServingStatus::Serving as i32);
    }
}

/// Every malformed request gets its code, a sentence that says what was expected, and harms nobody else.
#[tokio::test]
async fn malformed_requests_are_told_what_was_expected() {
    let server = Server::start(4, 16).await;
    let mut client = server.client().await;
    let with = |change: &dyn Fn(&mut ModelInferRequest)| {
        let mut request = request(1);
        change(&mut request);
        request
    };
    let contents = |contents: InferTensorContents| {
        with(&move |request| {
            request.raw_input_contents.clear();
            request.inputs[0].contents = Some(contents.clone());
        })
    };
    let cases: [(ModelInferRequest, Code, &str); 14] = [
        (
            with(&|r| r.model_name = "other".into()),
            Code::NotFound,
            "no model \"other\" here; this server has \"tiny.test\"",
        ),
        (with(&|r| r.inputs.clear()), Code::InvalidArgument, "0 inputs; the model takes one, \"input\""),
        (with(&|r| r.inputs[0].name = "x".into()), Code::InvalidArgument, "input \"x\"; the model takes \"input\""),
        (
            with(&|r| r.inputs[0].datatype = "INT8".into()),
            Code::InvalidArgument,
            "has datatype \"INT8\"; the model takes FP32",
        ),
        (
            with(&|r| r.inputs[0].shape = vec![1, 8, 8]),
            Code::InvalidArgument,
            "has shape [1, 8, 8]; the model takes [-1, 1, 8, 8], -1 being 1 to 4",
        ),
        (with(&|r| r.inputs[0].shape = vec![5, 1, 8, 8]), Code::InvalidArgument, "-1 being 1 to 4"),
        (with(&|r| r.inputs[0].shape = vec![-1, 1, 8, 8]), Code::InvalidArgument, "has shape [-1, 1, 8, 8]"),
        (with(&|r| r.inputs[0].shape = vec![i64::MAX, 1, 8, 8]), Code::InvalidArgument, "-1 being 1 to 4"),
        (
            with(&|r| r.raw_input_contents[0].truncate(255)),
            Code::InvalidArgument,
            "has 255 bytes; shape [1, 1, 8, 8] of FP32 needs 256",
        ),
        (
            with(&|r| r.raw_input_contents.push(Default::default())),
            Code::InvalidArgument,
            "2 raw_input_contents for one input; send one",
        ),
        (
            with(&|r| r.inputs[0].contents = Some(Default::default())),
            Code::InvalidArgument,
            "both raw_input_contents and contents are set",
        ),
        (
            with(&|r| r.raw_input_contents[0] = raw_fp32(&[f32::NAN; PIXELS])),
            Code::InvalidArgument,
            "has NaN at 0; numbers must be finite",
        ),
        (
            contents(InferTensorContents { fp32_contents: vec![0.0; 3], ..Default::default() }),
            Code::InvalidArgument,
            "has 3 fp32_contents; shape [1, 1, 8, 8] needs 64",
        ),
        (
            contents(InferTensorContents { int_contents: vec![0; PIXELS], ..Default::default() }),
            Code::InvalidArgument,
            "holds int_contents",
        ),
    ];
    for (request, code, expected) in cases {
        let status = client.model_infer(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(expected), "{}", status.message());
    }
    client.model_infer(request(1)).await.unwrap();
    let mut asked = request(1);
    asked.outputs.push(sconce_edge_runtime::wire::model_infer_request::InferRequestedOutputTensor {
        name: "scores".into(),
        ..Default::default()
    });
    assert!(client.model_infer(asked).await.unwrap_err().message().contains("the model gives \"output\""));
}

#[tokio::test]
async fn a_batch_answers_each_request_with_its_own_rows() {
    let server = Server::start(16, 256).await;
    let alone = server.client().await.model_infer(request(1)).await.unwrap().into_inner().raw_output_contents;
    let client = server.client().await;
    let many = (0..64).map(|_| {
        let mut client = client.clone();
        async move { client.model_infer(request(1)).await.unwrap().into_inner().raw_output_contents }
    });
    for answer in futures::future::join_all(many).await {
        let number = |bytes: &[u8]| f32::from_le_bytes(bytes[..4].try_into().unwrap());
        assert!((number(&answer[0]) - number(&alone[0])).abs() < 1e-5);
    }
}

#[tokio::test]
async fn a_deadline_that_has_passed_costs_no_compute() {
    let server = Server::start(1, 1).await;
    let client = server.client().await;
    let mut late = Request::new(request(1));
    late.set_timeout(std::time::Duration::from_nanos(1));
    let code = client.clone().model_infer(late).await.unwrap_err().code();
    // tonic's own timer may be first, and says CANCELLED.
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&code), "{code:?}");
}

#[tokio::test]
async fn told_to_stop_it_finishes_what_it_has_begun() {
    let mut server = Server::start(4, 256).await;
    let client = server.client().await;
    let open: Vec<_> = (0..64)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.model_infer(request(4)).await.map(drop) })
        })
        .collect();
    // At least one has been answered: the others are on their way or in the queue.
    client.clone().model_infer(request(1)).await.unwrap();
    server.stop.take().unwrap().send(()).unwrap();
    for answer in open {
        match answer.await.unwrap() {
            Ok(()) => {}
            // A request that the server had not begun when it stopped is told so, and may be sent again.
            Err(status) => assert!(
                [Code::Unavailable, Code::Unknown, Code::Internal, Code::Cancelled].contains(&status.code()),
                "{status}"
            ),
        }
    }
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_full_queue_answers_at_once() {
    let server = Server::soon_full().await;
    let client = server.client().await;
    let flood = (0..40).map(|_| {
        let mut client = client.clone();
        async move { client.model_infer(request(1)).await.map(drop).map_err(|status| status.code()) }
    });
    let answers = futures::future::join_all(flood).await;
    let refused = answers.iter().filter(|answer| **answer == Err(Code::Unavailable)).count();
    let served = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(refused + served, 40, "others: {answers:?}");
    assert!(refused > 0 && served > 0, "refused {refused}, served {served}");
}

#[tokio::test]
async fn late_work_is_refused_before_the_model_runs() {
    let folder = tempfile::tempdir().unwrap();
    sconce_model::artifact::testing::write_tiny(folder.path(), 7).unwrap();
    let loaded = load(folder.path(), None, "f32", 4, 1).unwrap();
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::new(&mut registry, MODEL, "", "f32"));
    let policy = Policy { max_batch_size: 4, max_queue_delay: Duration::ZERO };
    let engine = Engine::start(loaded.runner, policy, 16, metrics).unwrap();
    let input = decode(request(1), &loaded.signature).unwrap();
    let past = Instant::now();
    assert_eq!(engine.submit(&input, Some(past)).await.unwrap_err(), EngineError::Late);
    engine.submit(&input, None).await.unwrap();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("sconce_batch_size_count 1"), "{text}");
}
