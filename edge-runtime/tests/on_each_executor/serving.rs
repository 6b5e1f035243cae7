//! One server: what it answers, and what it says to those who ask wrongly.

use super::EXECUTOR;
use crate::common::{LIMITS, LOOPBACK, MODEL, PIXELS, Server, policy, request, settings, start};
use sconce_edge_runtime::catalogue::{Control, Settings, Source, Sources};
use sconce_edge_runtime::server::Limits;
use sconce_edge_runtime::wire::infer_parameter::ParameterChoice;
use sconce_edge_runtime::wire::model_infer_request::InferRequestedOutputTensor;
use sconce_edge_runtime::wire::{
    DataType, InferParameter, InferTensorContents, ModelConfigRequest, ModelInferRequest, ModelMetadataRequest,
    ModelReadyRequest, ModelStatisticsRequest, RepositoryIndexRequest, RepositoryModelLoadRequest, StatisticDuration,
    raw_fp32,
};
use tokio::net::TcpListener;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

#[tokio::test]
async fn raw_and_typed_contents_get_the_same_answer_in_their_own_form() {
    let server = Server::start(EXECUTOR, 4, 16).await;
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
    let server = Server::start(EXECUTOR, 4, 16).await;
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
    let server = Server::start(EXECUTOR, 4, 16).await;
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
    let cases = [
        (
            with(&|r| {
                r.inputs.push(r.inputs[0].clone());
                r.raw_input_contents.push(r.raw_input_contents[0].clone());
            }),
            Code::InvalidArgument,
            "input \"input\" is given twice",
        ),
        (
            with(&|r| r.outputs = vec![InferRequestedOutputTensor { name: "output".into(), ..Default::default() }; 2]),
            Code::InvalidArgument,
            "output \"output\" is given twice",
        ),
        (
            with(&|r| r.model_name = "other".into()),
            Code::NotFound,
            "Request for unknown model: no model \"other\" here; this server has \"tiny.test\"",
        ),
        (
            with(&|r| {
                r.inputs.clear();
                r.raw_input_contents.clear();
            }),
            Code::InvalidArgument,
            "0 inputs; the model takes one, \"input\"",
        ),
        (with(&|r| r.inputs[0].name = "x".into()), Code::InvalidArgument, "input \"x\"; the model takes \"input\""),
        (
            with(&|r| r.inputs[0].datatype = "INT8".into()),
            Code::InvalidArgument,
            "has datatype \"INT8\"; the model takes FP32",
        ),
        (
            with(&|r| r.inputs[0].shape = vec![1, 8, 8]),
            Code::InvalidArgument,
            "has shape [1, 8, 8]; the model takes [-1, 1, 8, 8], the first being 1 to 4",
        ),
        (with(&|r| r.inputs[0].shape = vec![5, 1, 8, 8]), Code::InvalidArgument, "the first being 1 to 4"),
        (with(&|r| r.inputs[0].shape = vec![-1, 1, 8, 8]), Code::InvalidArgument, "has shape [-1, 1, 8, 8]"),
        (with(&|r| r.inputs[0].shape = vec![i64::MAX, 1, 8, 8]), Code::InvalidArgument, "the first being 1 to 4"),
        (
            with(&|r| r.raw_input_contents[0].truncate(255)),
            Code::InvalidArgument,
            "has 255 bytes; shape [1, 1, 8, 8] of FP32 needs 256",
        ),
        (
            with(&|r| r.raw_input_contents.push(Default::default())),
            Code::InvalidArgument,
            "2 raw_input_contents for 1 inputs; send one for each",
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
            "has 3 numbers; shape [1, 1, 8, 8] needs 64",
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
    let huge = with(&|r| r.raw_input_contents[0] = vec![0; 2 << 20].into());
    let status = client.model_infer(huge).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(status.message().contains("the limit is: 1048576 bytes"), "{}", status.message());
    client.model_infer(request(1)).await.unwrap();
    let mut asked = request(1);
    asked.outputs.push(InferRequestedOutputTensor { name: "scores".into(), ..Default::default() });
    assert!(client.model_infer(asked).await.unwrap_err().message().contains("the model gives \"output\""));
}

/// What it had computed it refused to send, since no request of the model could be as large.
#[tokio::test]
async fn an_answer_may_be_larger_than_any_request() {
    let folder = tempfile::tempdir().unwrap();
    let typed = serde_json::json!({"input": {"shape": [1]}, "layers": [
        {"dense": {"units": 2, "activation": "relu"}}, {"dense": {"units": 100, "activation": "softmax"}}]});
    sconce_model::artifact::testing::write_drawn(folder.path(), typed, 7).unwrap();
    let source = Source { version: None, folder: folder.path().into(), digest: None };
    let sources = Sources::new([(MODEL.into(), source)], None).unwrap();
    let settings = Settings { policy: policy(256), ..settings(EXECUTOR) };
    let catalogue = start(sources, Control::None, settings).await;
    let max_message_bytes = catalogue.only().unwrap().largest_request();
    let limits = Limits { max_message_bytes, ..LIMITS };
    let server = Server::of(catalogue, TcpListener::bind(LOOPBACK).await.unwrap(), None, limits).await;
    let mut asked = request(1);
    (asked.inputs[0].shape, asked.raw_input_contents) = (vec![256, 1], vec![raw_fp32(&[0.5; 256])]);
    let answer = server.client().await.model_infer(asked).await.unwrap().into_inner();
    assert_eq!(answer.raw_output_contents[0].len(), 256 * 100 * 4);
    assert!(256 * 100 * 4 > max_message_bytes);
}

/// Each in its place: a stream goes on after one that was refused.
#[tokio::test]
async fn a_stream_answers_in_order_and_errors_stay_in_it() {
    let server = Server::start(EXECUTOR, 4, 64).await;
    let mut client = server.client().await;
    let requests = (0..20).map(|index| {
        let rows = if index % 5 == 3 { 9 } else { 1 };
        ModelInferRequest { id: index.to_string(), ..request(rows) }
    });
    let requests: Vec<_> = requests.collect();
    let answers = client.model_stream_infer(futures::stream::iter(requests)).await.unwrap().into_inner();
    let answers: Vec<_> = futures::TryStreamExt::try_collect(answers).await.unwrap();
    assert_eq!(answers.len(), 20);
    for (index, answer) in answers.into_iter().enumerate() {
        let response = answer.infer_response.unwrap();
        assert_eq!(response.id, index.to_string());
        if index % 5 == 3 {
            assert!(answer.error_message.contains("the first being 1 to 4"), "{}", answer.error_message);
        } else {
            assert_eq!((answer.error_message.as_str(), response.raw_output_contents[0].len()), ("", 12));
        }
    }
}

#[tokio::test]
async fn parameters_choose_classes_order_and_patience() {
    let server = Server::start(EXECUTOR, 4, 64).await;
    let mut client = server.client().await;
    let number = |choice| InferParameter { parameter_choice: Some(choice) };
    let mut asked = request(2);
    let parameters = [("classification".to_owned(), number(ParameterChoice::Int64Param(2)))].into();
    asked.outputs = vec![InferRequestedOutputTensor { name: "output".into(), parameters }];
    asked.parameters = [("priority".to_owned(), number(ParameterChoice::Uint64Param(1)))].into();
    let answer = client.model_infer(asked.clone()).await.unwrap().into_inner();
    assert_eq!((answer.outputs[0].datatype.as_str(), answer.outputs[0].shape.as_slice()), ("BYTES", &[2, 2][..]));
    let raw = &answer.raw_output_contents[0];
    let first = &raw[4..4 + u32::from_le_bytes(raw[..4].try_into().unwrap()) as usize];
    let first = std::str::from_utf8(first).unwrap();
    let [score, index, label] = first.split(':').collect::<Vec<_>>()[..] else { panic!("{first}") };
    assert!(
        score.parse::<f32>().unwrap() > 0.3 && ["a", "b", "c"][index.parse::<usize>().unwrap()] == label,
        "{first}"
    );

    for (name, choice, code, expected) in [
        (
            "timeout",
            ParameterChoice::Int64Param(1),
            Code::Unavailable,
            "waited in the queue for longer than its timeout",
        ),
        ("timeout", ParameterChoice::Int64Param(-1), Code::InvalidArgument, "\"timeout\" is -1; a whole number from 0"),
        ("priority", ParameterChoice::StringParam("high".into()), Code::InvalidArgument, "\"priority\" is \"high\""),
    ] {
        let mut asked = request(1);
        asked.parameters = [(name.to_owned(), number(choice))].into();
        let status = client.model_infer(asked).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(expected), "{}", status.message());
    }
    asked.outputs[0].parameters = [("classification".to_owned(), number(ParameterChoice::Int64Param(0)))].into();
    assert!(client.model_infer(asked).await.unwrap_err().message().contains("a whole number from 1 is needed"));
}

#[tokio::test]
async fn statistics_configuration_and_index_are_told() {
    let server = Server::start(EXECUTOR, 4, 64).await;
    let mut client = server.client().await;
    for rows in [1, 3, 9] {
        client.model_infer(request(rows)).await.ok();
    }
    let (name, version) = (MODEL.to_owned(), String::new());
    let statistics = client.model_statistics(ModelStatisticsRequest::default()).await.unwrap().into_inner();
    let model = &statistics.model_stats[0];
    assert_eq!((model.name.as_str(), model.inference_count, model.execution_count), (MODEL, 4, 2));
    let stages = model.inference_stats.as_ref().unwrap();
    let counted = |stage: &Option<StatisticDuration>| stage.as_ref().unwrap().count;
    assert_eq!((counted(&stages.success), counted(&stages.fail), counted(&stages.compute_infer)), (2, 1, 2));
    assert_eq!(model.batch_stats.iter().map(|batch| batch.batch_size).collect::<Vec<_>>(), [1, 3]);
    assert!(model.last_inference > 0 && stages.compute_infer.as_ref().unwrap().ns > 0);

    let config = client.model_config(ModelConfigRequest { name, version }).await.unwrap().into_inner().config.unwrap();
    assert_eq!((config.max_batch_size, config.input[0].dims.as_slice()), (4, &[1, 8, 8][..]));
    assert_eq!((config.input[0].data_type(), config.output[0].dims.as_slice()), (DataType::TypeFp32, &[3][..]));
    let index = client.repository_index(RepositoryIndexRequest::default()).await.unwrap().into_inner();
    assert_eq!((index.models[0].name.as_str(), index.models[0].state.as_str()), (MODEL, "READY"));
    let load = RepositoryModelLoadRequest { model_name: "other".into(), ..Default::default() };
    let refused = client.repository_model_load(load).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let expected = "clients cannot load models here; start the server with --model-control-mode explicit";
    assert_eq!(refused.message(), expected);
}

/// Inline, the two threads run batches at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_answers_each_request_with_its_own_rows() {
    let server = Server::start(EXECUTOR, 16, 256).await;
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
    let server = Server::start(EXECUTOR, 1, 1).await;
    let client = server.client().await;
    let mut late = Request::new(request(1));
    late.set_timeout(std::time::Duration::from_nanos(1));
    let code = client.clone().model_infer(late).await.unwrap_err().code();
    // tonic's own timer may be first, and says CANCELLED.
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&code), "{code:?}");
}

#[tokio::test]
async fn told_to_stop_it_finishes_what_it_has_begun() {
    let mut server = Server::start(EXECUTOR, 4, 256).await;
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
