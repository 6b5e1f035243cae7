//! The router in front of real servers: forwarding, fail-over, routes that change under load.

#![allow(clippy::unwrap_used, reason = "in tests")]

#[path = "routing/bounds.rs"]
mod bounds;
mod common;
#[path = "routing/sampling.rs"]
mod sampling;

use axum::body::HttpBody as _;
use bytes::Bytes;
use common::{Client, LIMITS as SERVERS, LOOPBACK, MODEL, Server, client, request, settings, start, tiny};
use http_body_util::Full;
use prost::Message as _;
use sconce_edge_runtime::catalogue::{Control, Source, Sources};
use sconce_edge_runtime::engine::Executor;
use sconce_edge_runtime::route::{self, Files, Limits};
use sconce_edge_runtime::wire::model_infer_request::InferRequestedOutputTensor;
use sconce_edge_runtime::wire::{ModelConfigRequest, ModelInferRequest, ModelMetadataRequest, ServerLiveRequest};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tonic::Code;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::ServiceExt as _;

const LIMITS: Limits = Limits {
    max_message_bytes: 1 << 20,
    room_bytes: 1 << 26,
    body_timeout: Duration::from_secs(60),
    attempt_timeout: Duration::from_secs(1),
};

struct Router {
    folder: TempDir,
    address: SocketAddr,
    metrics: SocketAddr,
}

impl Router {
    async fn start() -> Self {
        Self::start_with(LIMITS).await
    }

    async fn start_with(limits: Limits) -> Self {
        Self::start_by("http://127.0.0.1:9/".parse().unwrap(), limits).await
    }

    /// A collector.
    async fn start_beside(collector: http::Uri) -> Self {
        Self::start_by(collector, LIMITS).await
    }

    async fn start_by(collector: http::Uri, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (grpc, metrics) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let (address, told) = (grpc.local_addr().unwrap(), metrics.local_addr().unwrap());
        let (routes, taps) = (folder.path().join("routes.json"), folder.path().join("taps.json"));
        tokio::spawn(async move {
            let files = Files { routes: &routes, taps: Some(&taps), collector: &collector };
            route::run(grpc, metrics, files, limits, std::future::pending().boxed().shared()).await
        });
        Self { folder, address, metrics: told }
    }

    /// As the agent writes: beside the file, then in its place.
    fn routes(&self, backends: &[(&str, SocketAddr)]) {
        let backends: Vec<_> =
            backends.iter().map(|(tier, address)| serde_json::json!({"tier": tier, "address": address})).collect();
        write(
            self.folder.path(),
            &serde_json::json!({"schema": 1, "models": {MODEL: {"backends": backends}}}).to_string(),
        );
    }

    /// Which answers of the model are samples.
    fn taps(&self, wish: &serde_json::Value) {
        let taps = serde_json::json!({"schema": 1, "models": {MODEL: wish}}).to_string();
        std::fs::write(self.folder.path().join("taps.json"), taps).unwrap();
    }

    async fn client(&self) -> Client {
        client(self.address).await
    }

    /// Lines of its metrics that say so.
    async fn counted(&self, what: &str) -> Vec<String> {
        let mut stream = TcpStream::connect(self.metrics).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text.lines().filter(|line| line.starts_with(what)).map(str::to_owned).collect()
    }
}

use futures::FutureExt as _;

fn write(folder: &Path, text: &str) {
    std::fs::write(folder.join("routes.json.new"), text).unwrap();
    std::fs::rename(folder.join("routes.json.new"), folder.join("routes.json")).unwrap();
}

/// Clients on gRPC's C core saw no status in what a backend refused: an empty body followed the head.
#[tokio::test]
async fn what_a_backend_refuses_is_a_head_alone() {
    let (server, router) = (Server::start(Executor::Inline, 4, 64).await, Router::start().await);
    router.routes(&[("Edge", server.address)]);
    let message = ModelInferRequest { model_version: "9".into(), ..request(1) }.encode_to_vec();
    let frame = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
    let address = format!("http://{}", router.address);
    let asked = http::Request::post(format!("{address}/inference.GRPCInferenceService/ModelInfer"))
        .header("content-type", "application/grpc")
        .body(Body::new(Full::new(Bytes::from(frame))))
        .unwrap();
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    let answer = channel.oneshot(asked).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "5");
    assert!(answer.body().is_end_stream());
}

/// Its address, and the samples of digits that come to it, each with what is said of its answer.
async fn collector() -> (http::Uri, UnboundedReceiver<(serde_json::Value, Bytes)>) {
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: http::Uri = format!("http://{}/", collector.local_addr().unwrap()).parse().unwrap();
    let (taken, samples) = tokio::sync::mpsc::unbounded_channel();
    let take = async move |headers: http::HeaderMap, content: Bytes| {
        let said: serde_json::Value = serde_json::from_slice(headers["x-sconce-answer"].as_bytes()).unwrap();
        taken.send((said, content)).unwrap();
        http::StatusCode::CREATED
    };
    let app = axum::Router::new().route("/v1/answers/vision/digits", axum::routing::post(take));
    tokio::spawn(axum::serve(collector, app).into_future());
    (address, samples)
}

/// The client has its answer, whole, whether or not a collector takes it.
#[tokio::test]
async fn requests_of_a_model_that_is_collected_come_to_the_collector_with_their_answers() {
    let (address, mut samples) = collector().await;

    let (server, router) = (Server::start(Executor::Inline, 4, 64).await, Router::start_beside(address).await);
    let wish = serde_json::json!({"dataset": "vision/digits", "share": 1});
    router.taps(&wish);
    router.routes(&[("Edge", server.address)]);
    let mut client = router.client().await;
    let direct = server.client().await.model_infer(request(1)).await.unwrap().into_inner();
    // Until the router has read what is collected, answers go by.
    let (said, content) = loop {
        assert_eq!(client.model_infer(request(1)).await.unwrap().into_inner(), direct);
        if let Ok(sample) = tokio::time::timeout(Duration::from_millis(50), samples.recv()).await {
            break sample.unwrap();
        }
    };
    assert_eq!((&said["model"], &said["tier"], &said["why"]), (&MODEL.into(), &"Edge".into(), &"Uniform".into()));
    let (score, margin) = (said["score"].as_f64().unwrap(), said["margin"].as_f64().unwrap());
    assert!((0.0..=1.0).contains(&score) && (0.0..=score).contains(&margin), "{said}");
    assert!(content.starts_with(b"\x93NUMPY\x01\x00"), "{content:?}");

    // No lot any more, and no answer that is sure enough.
    router.taps(&serde_json::json!({"dataset": "vision/digits", "share": 0, "marginBelow": 1}));
    let unsure = async {
        loop {
            client.model_infer(request(1)).await.unwrap();
            let sample = tokio::time::timeout(Duration::from_millis(50), samples.recv()).await;
            if let Some((said, _)) = sample.ok().flatten().filter(|(said, _)| said["why"] == "Hard") {
                break said;
            }
        }
    };
    let said = tokio::time::timeout(Duration::from_secs(30), unsure).await.unwrap();
    assert_eq!(said["probability"], 1.0, "{said}");
}

/// A client's request goes to nobody else: the server that has answered it is asked what its backbone makes of it.
#[tokio::test]
async fn where_features_alone_may_leave_the_collector_gets_them_or_nothing() {
    let (address, mut samples) = collector().await;
    let folder = tiny(7);
    let server = Server::of_folder(Executor::Inline, folder.path()).await;
    let router = Router::start_beside(address).await;
    let wish = serde_json::json!({"dataset": "vision/digits", "share": 1, "features": true});
    router.taps(&wish);
    router.routes(&[("Edge", server.address)]);
    let mut client = router.client().await;
    let direct = server.client().await.model_infer(request(1)).await.unwrap().into_inner();
    let mut sample = async || loop {
        assert_eq!(client.model_infer(request(1)).await.unwrap().into_inner(), direct);
        if let Ok(sample) = tokio::time::timeout(Duration::from_millis(50), samples.recv()).await {
            break sample.unwrap();
        }
    };
    let (said, content) = sample().await;
    assert!(said["backbone"].as_str().unwrap().starts_with("sha256:") && said["score"].is_number(), "{said}");
    let header = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, 36,), }";
    assert!(content.starts_with(header) && content.len() == 128 + 36 * 4, "{content:?}");

    // A client's own features are no answer of the model's, and no sample.
    let before = router.counted("sconce_router_request").await;
    let outputs = vec![InferRequestedOutputTensor { name: "features".into(), ..Default::default() }];
    let made = router.client().await.model_infer(ModelInferRequest { outputs, ..request(1) }).await.unwrap();
    assert!(made.metadata().contains_key("sconce-beside") && made.get_ref().parameters.contains_key("backbone"));
    assert_eq!(router.counted("sconce_router_request").await, before);

    // One that gives no features.
    let folder = tiny(7);
    let file = folder.path().join("config.json");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.replace("\"head\": \"dense_1\"", "\"head\": \"conv2d_1\"")).unwrap();
    let bare = Server::of_folder(Executor::Inline, folder.path()).await;
    router.routes(&[("Edge", bare.address)]);
    // Until the router has read the routes the other one answers.
    let empty = async {
        loop {
            let (said, content) = sample().await;
            if said.get("backbone").is_none() {
                break content;
            }
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(30), empty).await.unwrap(), Bytes::new());
    let counted = router.counted("sconce_router_samples_total{").await;
    let outcome = |name: &str| counted.iter().any(|line| line.contains(&format!("outcome=\"{name}\"")));
    assert!(outcome("taken"), "{counted:?}");
}

/// A server of a model of three classes, of which a fourth was answered on held-out samples; a window is five answers.
async fn drifting() -> Server {
    let folder = tiny(7);
    let file = folder.path().join("variants.json");
    let mut variants: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let (mut classes, mut confidence) = ([0; 32], [0; 10]);
    (classes[3], confidence[0]) = (1000, 1000);
    variants["variants"][0]["reference"] = serde_json::json!({"answers": 5, "seconds": 0,
        "classes": {"counts": classes, "limit": 0.9}, "confidence": {"counts": confidence, "limit": 1}});
    std::fs::write(&file, variants.to_string()).unwrap();
    let source = Source { version: None, folder: folder.path().into(), digest: None };
    let sources = Sources::new([(MODEL.into(), source)], None).unwrap();
    let catalogue = start(sources, Control::None, settings(Executor::Inline)).await;
    Server::of(catalogue, TcpListener::bind(LOOPBACK).await.unwrap(), None, SERVERS).await
}

#[tokio::test]
async fn answers_of_a_model_that_drifts_say_so_and_are_counted() {
    let (server, router) = (drifting().await, Router::start().await);
    router.routes(&[("Edge", server.address)]);
    let mut client = router.client().await;
    let mut said = Vec::new();
    for rows in [1, 1, 3].into_iter().cycle().take(12) {
        said.push(client.model_infer(request(rows)).await.unwrap().metadata().contains_key("sconce-drifts"));
    }
    let since = said.iter().position(|drifts| *drifts);
    assert_eq!((since, said[9..].contains(&false)), (Some(8), false), "the third window ends with the ninth: {said:?}");
    let counted = router.counted("sconce_router_requests_drifted_total{").await;
    assert_eq!(counted, [format!("sconce_router_requests_drifted_total{{model=\"{MODEL}\",tier=\"Edge\"}} 4")]);
    let calm = Server::start(Executor::Inline, 4, 64).await;
    let mut calm = calm.client().await;
    for _ in 0..20 {
        assert!(
            !calm.model_infer(request(1)).await.unwrap().metadata().contains_key("sconce-drifts"),
            "nothing is known"
        );
    }
}

#[tokio::test]
async fn requests_are_forwarded_by_name_and_unknown_names_are_told_what_is_routed() {
    let (server, router) = (Server::start(Executor::Inline, 4, 64).await, Router::start().await);
    let mut client = router.client().await;
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    router.routes(&[("Edge", server.address)]);
    let direct = server.client().await.model_infer(request(2)).await.unwrap().into_inner();
    let routed = client.model_infer(request(2)).await.unwrap().into_inner();
    assert_eq!(routed, direct);
    let metadata = client
        .model_metadata(ModelMetadataRequest { name: MODEL.into(), version: String::new() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(metadata.inputs[0].name, "input");
    let config = ModelConfigRequest { name: MODEL.into(), version: String::new() };
    let config = client.model_config(config).await.unwrap().into_inner().config.unwrap();
    assert_eq!(config.max_batch_size, 4);
    let mut wrong = request(1);
    wrong.model_name = "astray".into();
    let status = client.model_infer(wrong).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("no model \"astray\" is routed here; routed are: tiny.test"), "{status}");
    // The server's own refusal is passed on, not tried elsewhere.
    let mut bad = request(1);
    bad.inputs[0].name = "x".into();
    assert_eq!(client.model_infer(bad).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_backend_that_is_not_there_costs_no_request() {
    let (server, router) = (Server::start(Executor::Inline, 4, 64).await, Router::start().await);
    // A port that nobody listens on any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    router.routes(&[("Edge", gone), ("Cloud", server.address)]);
    let mut client = router.client().await;
    for _ in 0..20 {
        client.model_infer(request(1)).await.unwrap();
    }
}

/// It accepts connections and says nothing: only the clock tells.
#[tokio::test]
async fn a_backend_that_hangs_delays_one_request_by_the_attempt_timeout() {
    let (server, router) = (Server::start(Executor::Inline, 4, 64).await, Router::start().await);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    router.routes(&[("Edge", silent.local_addr().unwrap()), ("Cloud", server.address)]);
    let mut client = router.client().await;
    let began = std::time::Instant::now();
    client.model_infer(request(1)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let again = std::time::Instant::now();
    client.model_infer(request(1)).await.unwrap();
    assert!(again.elapsed() < Duration::from_millis(400), "{:?}", again.elapsed());
}

#[tokio::test]
async fn nobody_left_is_unavailable_after_a_short_wait_and_a_backend_that_comes_is_used() {
    let router = Router::start().await;
    router.routes(&[]);
    let mut asking = router.client().await;
    let waiting = tokio::spawn(async move { asking.model_infer(request(1)).await });
    let server = Server::start(Executor::Inline, 4, 64).await;
    router.routes(&[("Edge", server.address)]);
    waiting.await.unwrap().unwrap();

    router.routes(&[]);
    let mut client = router.client().await;
    // The change is on its way to the router: what is answered before it arrives is answered well.
    let status = loop {
        if let Err(status) = client.model_infer(request(1)).await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("no backend answers for \"tiny.test\""), "{status}");
}

#[tokio::test]
async fn bad_routes_change_nothing() {
    let (server, router) = (Server::start(Executor::Inline, 4, 64).await, Router::start().await);
    router.routes(&[("Edge", server.address)]);
    let mut client = router.client().await;
    client.model_infer(request(1)).await.unwrap();
    for bad in ["", "{", r#"{"schema":2,"models":{}}"#] {
        write(router.folder.path(), bad);
        client.model_infer(request(1)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_that_change_and_servers_that_stop_fail_no_request() {
    let router = Router::start().await;
    let mut servers = [Server::start(Executor::Inline, 4, 256).await, Server::start(Executor::Inline, 4, 256).await];
    router.routes(&[("Edge", servers[0].address), ("Cloud", servers[1].address)]);
    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let client = router.client().await;
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let (mut client, over, answered) = (client.clone(), over.clone(), answered.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    client.model_infer(request(1)).await.map_err(|status| status.to_string())?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, String>(())
            })
        })
        .collect();
    let more = |count: usize| {
        let answered = answered.clone();
        async move {
            let goal = answered.load(Ordering::Relaxed) + count;
            let enough = async {
                while answered.load(Ordering::Relaxed) < goal {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), enough).await.ok();
        }
    };
    for round in 0..20 {
        more(20).await;
        let order = if round % 2 == 0 { [1, 0] } else { [0, 1] };
        router.routes(&[("Edge", servers[order[0]].address), ("Cloud", servers[order[1]].address)]);
    }
    for stopped in 0..2 {
        more(20).await;
        let other = servers[1 - stopped].address;
        router.routes(&[("Edge", servers[stopped].address), ("Cloud", other)]);
        more(20).await;
        let address = servers[stopped].address;
        servers[stopped].stop.take().unwrap().send(()).unwrap();
        more(20).await;
        // Back, as after a restart: its old connections end, and its port opens again.
        let old = std::mem::replace(&mut servers[stopped], Server::start(Executor::Inline, 4, 256).await);
        old.task.await.unwrap().unwrap();
        assert_ne!(servers[stopped].address, address);
        router.routes(&[("Edge", servers[stopped].address), ("Cloud", other)]);
        more(20).await;
    }
    over.store(true, Ordering::Relaxed);
    for task in asking {
        task.await.unwrap().unwrap();
    }
}

/// It accepts connections and says nothing; clients with little time have not the attempt timeout to spare.
#[tokio::test]
async fn a_backend_that_hangs_is_left_within_the_deadline_and_then_asked_no_more() {
    let (server, router) = (Server::start(Executor::Inline, 4, 64).await, Router::start().await);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    router.routes(&[("Edge", silent.local_addr().unwrap()), ("Cloud", server.address)]);
    let mut client = router.client().await;
    let within = |ms| {
        let mut request = tonic::Request::new(request(1));
        request.set_timeout(Duration::from_millis(ms));
        request
    };
    client.model_infer(within(900)).await.unwrap();
    // Aside until a probe gets through, and none does: nobody waits for it again.
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        client.model_infer(within(200)).await.unwrap();
    }
}

#[tokio::test]
async fn a_backend_that_comes_back_is_asked_again() {
    let (cloud, router) = (Server::start(Executor::Inline, 4, 64).await, Router::start().await);
    let edge = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    router.routes(&[("Edge", edge), ("Cloud", cloud.address)]);
    let mut client = router.client().await;
    // Each server gives its address as its version.
    let mut who = async || client.model_infer(request(1)).await.unwrap().into_inner().model_version;
    assert_eq!(who().await, cloud.address.to_string());
    let _edge = Server::start_at(Executor::Inline, edge, 4, 64).await;
    let back = async { while who().await != edge.to_string() {} };
    tokio::time::timeout(Duration::from_secs(3), back).await.unwrap();
}

/// Too little time for a second attempt is no reason never to find out.
#[tokio::test]
async fn requests_that_run_out_of_time_make_a_hanging_backend_suspect() {
    let (server, router) = (Server::start(Executor::Inline, 4, 64).await, Router::start().await);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    router.routes(&[("Edge", silent.local_addr().unwrap()), ("Cloud", server.address)]);
    let mut client = router.client().await;
    let answered = async {
        loop {
            let mut request = tonic::Request::new(request(1));
            request.set_timeout(Duration::from_millis(100));
            match client.model_infer(request).await {
                Ok(_) => break,
                Err(status) => {
                    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&status.code()), "{status}")
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(2), answered).await.unwrap();
}

#[tokio::test]
async fn a_full_server_is_said_to_be_full_at_once_and_is_not_put_aside() {
    let (server, router) = (Server::soon_full(Executor::Inline).await, Router::start().await);
    router.routes(&[("Edge", server.address)]);
    let mut first = router.client().await;
    first.model_infer(request(1)).await.unwrap();
    let flood = (0..400).map(|_| {
        let mut client = first.clone();
        async move { client.model_infer(request(1)).await.map(drop) }
    });
    let began = std::time::Instant::now();
    let answers = futures::future::join_all(flood).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert!(!refused.is_empty() && refused.len() < 400, "{} refused", refused.len());
    for status in refused {
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("refuses: Edge at 127.0.0.1") && status.message().contains("queue is full"));
    }
    first.model_infer(request(1)).await.unwrap();
}
