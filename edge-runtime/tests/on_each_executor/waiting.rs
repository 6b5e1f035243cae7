//! The queue before a model: who waits there, who is told that it is full, and who leaves it.

use super::EXECUTOR;
use crate::common::{LIMITS, LOOPBACK, MODEL, SERVED, Server, request, settings, start, tiny};
use prometheus_client::registry::Registry;
use sconce_edge_runtime::batch::Policy;
use sconce_edge_runtime::catalogue::{Control, Settings, Source, Sources};
use sconce_edge_runtime::decode::{Checked, Input, check, grpc};
use sconce_edge_runtime::engine::{Engine, EngineError, Terms};
use sconce_edge_runtime::load::{load, open};
use sconce_edge_runtime::metrics::Metrics;
use sconce_edge_runtime::wire::{ModelInferRequest, ModelInferResponse, ModelStatisticsRequest, ServerLiveRequest};
use sconce_model::artifact::signature::Trust;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

#[tokio::test]
async fn a_full_queue_answers_at_once() {
    let server = Server::soon_full(EXECUTOR).await;
    let client = server.client().await;
    let flood = (0..40).map(|_| {
        let mut client = client.clone();
        async move { client.model_infer(request(1)).await.map(drop).map_err(|status| status.message().to_owned()) }
    });
    let answers = futures::future::join_all(flood).await;
    let full = |answer: &&Result<(), String>| answer.as_ref().is_err_and(|why| why.starts_with(FULL));
    let refused = answers.iter().filter(full).count();
    let served = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(refused + served, 40, "others: {answers:?}");
    assert!(refused > 0 && served > 0, "refused {refused}, served {served}");
}

const FULL: &str = "the queue is full (1 requests wait)";

/// A server whose queue is full for good, its model the only one or one of two, and who waits there.
async fn full(others: &[&str]) -> (Server, impl Future<Output = Result<Response<ModelInferResponse>, Status>>) {
    let policy = Policy { max_batch_size: 4, max_queue_delay: HOUR };
    let folder = tiny(7);
    let source = Source { version: None, folder: folder.path().into(), digest: None };
    let sources = [MODEL].iter().chain(others).map(|name| ((*name).to_owned(), source.clone()));
    let sources = Sources::new(sources, None).unwrap();
    let catalogue = start(sources, Control::None, Settings { policy, queue_size: 1, ..settings(EXECUTOR) }).await;
    let server = Server::of(catalogue, TcpListener::bind(LOOPBACK).await.unwrap(), None, LIMITS).await;
    let (mut one, mut other) = (server.client().await, server.client().await);
    // Whichever comes first waits for others.
    let first = Box::pin(async move { one.model_infer(request(1)).await });
    let second = Box::pin(async move { other.model_infer(request(1)).await });
    let (refused, waits) = soon(futures::future::select(first, second)).await.factor_first();
    assert!(refused.unwrap_err().message().starts_with(FULL));
    (server, waits)
}

/// What comes within a minute, if at all.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("within a minute")
}

#[tokio::test]
async fn a_full_queue_is_told_before_the_body_has_come() {
    let (server, _waits) = full(&[]).await;
    let channel = Channel::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let never = Request::new(futures::stream::pending::<ModelInferRequest>());
    let path = http::uri::PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
    let codec = tonic_prost::ProstCodec::<_, ModelInferResponse>::default();
    let refused = soon(client.client_streaming(never, path, codec)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().starts_with(FULL), "{refused}");
}

/// Their bodies, of 100 KB, pass by; all of them are counted.
#[tokio::test]
async fn whoever_is_told_before_the_body_has_come_can_ask_again() {
    let (server, _waits) = full(&[]).await;
    let mut client = server.client().await;
    for _ in 0..30 {
        let asked = (0..40).map(|_| {
            let mut client = client.clone();
            async move { client.model_infer(request(400)).await.unwrap_err() }
        });
        for refused in soon(futures::future::join_all(asked)).await {
            assert!(refused.message().starts_with(FULL), "{refused}");
        }
    }
    let statistics = client.model_statistics(ModelStatisticsRequest::default()).await.unwrap().into_inner();
    let failed = statistics.model_stats[0].inference_stats.as_ref().unwrap().fail.as_ref().unwrap();
    assert_eq!(failed.count, 1_201);
}

#[tokio::test]
async fn a_full_queue_is_no_other_models_concern() {
    let (server, _waits) = full(&["zero"]).await;
    let mut client = server.client().await;
    let unknown = ModelInferRequest { model_name: "nobody".into(), ..request(1) };
    assert_eq!(soon(client.model_infer(unknown)).await.unwrap_err().code(), Code::NotFound);
    // A whole batch waits for nobody.
    let other = ModelInferRequest { model_name: "zero".into(), ..request(4) };
    soon(client.model_infer(other)).await.unwrap();
}

/// However small the queue is.
#[tokio::test]
async fn streams_that_last_leave_room_on_their_connection() {
    let server = Server::start(EXECUTOR, 1, 1).await;
    let mut client = server.client().await;
    let mut open = Vec::new();
    for _ in 0..500 {
        let (asks, asked) = futures::channel::mpsc::unbounded();
        asks.unbounded_send(request(1)).unwrap();
        let mut answers = soon(client.model_stream_infer(asked)).await.unwrap().into_inner();
        let answer = soon(answers.message()).await.unwrap().unwrap();
        assert_eq!(answer.error_message, "");
        open.push((asks, answers));
    }
    assert!(soon(client.server_live(ServerLiveRequest {})).await.unwrap().into_inner().live);
}

#[tokio::test]
async fn late_work_is_refused_before_the_model_runs() {
    let (engine, input, registry) = engine(16, Duration::ZERO);
    let late = Terms { deadline: Some(Instant::now()), ..Terms::default() };
    assert_eq!(engine.submit(input.clone(), late).await.unwrap_err(), EngineError::Late);
    let expired = Terms { expires: Some(Instant::now()), ..Terms::default() };
    assert_eq!(engine.submit(input.clone(), expired).await.unwrap_err(), EngineError::Expired);
    engine.submit(input, Terms::default()).await.unwrap();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("sconce_batch_size_count{model=\"tiny.test\",version=\"1\"} 1"), "{text}");
}

/// The delay fills the queue without a clock: less than a batch waits, a whole one runs.
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn whose_client_is_gone_leaves_its_place_to_another() {
    let (engine, input, registry) = engine(3, HOUR);
    let submit = |rows: usize| Box::pin(engine.submit(rows_of(&input, rows), Terms::default()));
    let (mut first, mut gone, mut third) = (submit(1), submit(1), submit(1));
    for waiting in [&mut first, &mut gone, &mut third] {
        assert!(futures::poll!(waiting).is_pending());
    }
    assert_eq!(submit(1).await.unwrap_err(), EngineError::QueueFull { limit: 3 });
    drop(gone);
    // With it the batch is full.
    let (first, third, last) = tokio::join!(first, third, submit(2));
    assert_eq!([first, third, last].map(|answer| answer.unwrap().ys.dims()[0]), [1, 1, 2]);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("version=\"1\"} 4.0") && text.contains("reason=\"abandoned\"} 1"), "{text}");
}

#[tokio::test]
async fn the_more_urgent_runs_before_those_that_came_earlier() {
    let (engine, input, _) = engine(16, HOUR);
    let submit =
        |rows: usize, level: u8| Box::pin(engine.submit(rows_of(&input, rows), Terms { level, ..Terms::default() }));
    let (mut first, mut second, mut third) = (submit(1, 2), submit(1, 2), submit(1, 3));
    // Least urgent first: its level counts, not when it came.
    for waiting in [&mut third, &mut first, &mut second] {
        assert!(futures::poll!(waiting).is_pending());
    }
    submit(2, 1).await.unwrap();
    first.await.unwrap();
    second.await.unwrap();
    assert!(futures::poll!(&mut third).is_pending(), "there was no room for it in the batch");
}

fn rows_of(input: &Input, rows: usize) -> Input {
    let xs = vec![input.xs.clone(); rows];
    Input { xs: candle_core::Tensor::cat(&xs, 0).unwrap(), rows }
}

/// An engine, an input for it, and what it counts.
fn engine(queue_size: usize, max_queue_delay: Duration) -> (Engine, Input, Registry) {
    let folder = tempfile::tempdir().unwrap();
    sconce_model::artifact::testing::write_tiny(folder.path(), 7).unwrap();
    let loaded = load(&open(folder.path(), None, &Trust::default()).unwrap(), "f32", 4, 1).unwrap();
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let policy = Policy { max_batch_size: 4, max_queue_delay };
    let engine = Engine::start(loaded.runner, policy, queue_size, metrics.of(SERVED), EXECUTOR).unwrap();
    let checked = check(grpc(request(1)).unwrap().inputs, &[], &loaded.signature).unwrap();
    let Checked::Tensor(input) = checked else { unreachable!("it is one") };
    (engine, input, registry)
}
