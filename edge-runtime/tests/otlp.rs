//! Spans as an OTLP receiver gets them: of each request for inference one, within the trace that the client named, and nothing
//! of what was asked.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use common::process::{self, Process, tiny};
use common::{LOOPBACK, MODEL, PIXELS, client, of_images, png, request};
use http_body_util::BodyExt as _;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use sconce_edge_runtime::wire::infer_parameter::ParameterChoice;
use sconce_edge_runtime::wire::{InferParameter, ModelInferRequest, raw_fp32};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tower::util::MapRequestLayer;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// In whatever may be said in words: bytes that nothing else says.
const WORDS: &str = "canary-7f3a9c-do-not-tell";
/// In tensors; as text, whether it is written out as f32 or f64, it begins with `DECIMAL`.
const NUMBER: f32 = 31415.926;
const DECIMAL: &str = "31415.92";

/// Keeps all that it is sent, as it understands it, and as bytes.
#[derive(Clone, Default)]
struct Receiver {
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    bytes: Arc<Mutex<Vec<u8>>>,
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.requests.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Receiver {
    async fn start() -> (Self, String) {
        let (receiver, listener) = (Self::default(), TcpListener::bind(LOOPBACK).await.unwrap());
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let service = TraceServiceServer::new(receiver.clone());
        let bytes = receiver.bytes.clone();
        let tap = MapRequestLayer::new(move |request: http::Request<tonic::body::Body>| {
            let bytes = bytes.clone();
            request.map(|body| {
                tonic::body::Body::new(body.map_frame(move |frame| {
                    frame.data_ref().into_iter().for_each(|data| bytes.lock().unwrap().extend_from_slice(data));
                    frame
                }))
            })
        });
        let server = Server::builder().layer(tap).add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        (receiver, endpoint)
    }

    /// With the service that each is of.
    fn spans(&self) -> Vec<(String, Span)> {
        let requests = self.requests.lock().unwrap();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        let of_resource = resources.flat_map(|of| {
            let service = text(&of.resource.as_ref().unwrap().attributes, "service.name");
            of.scope_spans.iter().flat_map(|scope| &scope.spans).map(move |span| (service.clone(), span.clone()))
        });
        of_resource.collect()
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|attribute| attribute.key == key).and_then(|found| found.value.clone()?.value);
    match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn serve(variables: &[(&str, &str)]) -> (tempfile::TempDir, Process) {
    let model = tiny();
    let folder = model.path().to_str().unwrap();
    let args = ["serve", "--model", folder, "--name", MODEL, "--max-batch-size", "4", "--threads", "1"];
    let process = Process::start_with(&[&args[..], &["--rest", LOOPBACK]].concat(), variables);
    (model, process)
}

/// One request over gRPC, with a trace's context.
async fn ask(address: SocketAddr, model: &str, context: &str) -> Result<(), Status> {
    let mut asked = Request::new(request(1));
    asked.get_mut().model_name = model.into();
    asked.metadata_mut().insert("traceparent", context.parse().unwrap());
    client(address).await.model_infer(asked).await.map(drop)
}

/// The first line of the answer over REST.
async fn post(address: SocketAddr, model: &str, context: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v2/models/{model}/infer?{WORDS} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ntraceparent: {context}\r\n\
         user-agent: {WORDS}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

fn contains(bytes: &[u8], sought: &[u8]) -> bool {
    bytes.windows(sought.len()).any(|window| window == sought)
}

/// Which canaries are in some bytes, in which form.
fn canaries(bytes: &[u8]) -> BTreeSet<&'static str> {
    let tensor = raw_fp32(&[NUMBER; 6]);
    let plain = [("words", WORDS.as_bytes()), ("decimal", DECIMAL.as_bytes()), ("tensor", &tensor[..4])];
    let plain = plain.into_iter().filter(|(_, sought)| contains(bytes, sought)).map(|(form, _)| form);
    let coded = [("words in base64", WORDS.as_bytes()), ("tensor in base64", &tensor[..])];
    let coded = coded.into_iter().filter(|(_, sought)| in_base64(sought).any(|text| contains(bytes, text.as_bytes())));
    plain.chain(coded.map(|(form, _)| form)).collect()
}

/// How some bytes look wherever they stand: without the characters that depend on what is before and behind them.
fn in_base64(bytes: &[u8]) -> impl Iterator<Item = String> {
    (0..3).map(move |before| {
        let text = BASE64_STANDARD_NO_PAD.encode([&[0; 2][..before], bytes].concat());
        text[(before * 8).div_ceil(6)..(before + bytes.len()) * 8 / 6].to_owned()
    })
}

/// Over gRPC: a tensor, an ID and parameters.
fn marked() -> ModelInferRequest {
    let parameter = InferParameter { parameter_choice: Some(ParameterChoice::StringParam(WORDS.into())) };
    let mut asked = request(1);
    asked.id = WORDS.into();
    asked.raw_input_contents = vec![raw_fp32(&[NUMBER; PIXELS])];
    asked.parameters = [(WORDS.to_owned(), parameter.clone())].into();
    asked.inputs[0].parameters = [(WORDS.to_owned(), parameter)].into();
    asked
}

/// An encoded picture with the words behind it, or nothing but the words.
fn pictured(is_picture: bool) -> ModelInferRequest {
    let mut content = if is_picture { png(&[7; PIXELS], 8) } else { Vec::new() };
    content.extend(WORDS.bytes());
    of_images(&[1, 1], &[content])
}

/// One that routes to a server, as a file in `folder` says.
fn route(server: &Process, folder: &Path, variables: &[(&str, &str)]) -> Process {
    let routes = folder.join("routes.json");
    let backends = [json!({"tier": "Edge", "address": server.grpc})];
    std::fs::write(&routes, json!({"schema": 1, "models": {MODEL: {"backends": backends}}}).to_string()).unwrap();
    Process::start_with(&["route", "--routes", routes.to_str().unwrap()], variables)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_a_span_within_its_clients_trace() {
    let (receiver, endpoint) = Receiver::start().await;
    let (_model, mut server) = serve(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_SERVICE_NAME", "shop"),
        ("RUST_LOG", "error,edge_runtime=info"),
    ]);
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    ask(server.grpc, MODEL, &sampled).await.unwrap();
    assert_eq!(ask(server.grpc, "made.up", &sampled).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(post(server.rest.unwrap(), MODEL, &sampled, "{\"inputs\": []}").await, "HTTP/1.1 400 Bad Request");
    // A client that samples itself, and not this one.
    ask(server.grpc, MODEL, &format!("00-{TRACE}-{PARENT}-00")).await.unwrap();
    // Not before the drain has everything been sent, and then it has.
    assert_eq!(server.terminate(), Some(0));
    let spans = receiver.spans();
    let told: Vec<_> = spans
        .iter()
        .map(|(service, span)| {
            let of = |key: &str| text(&span.attributes, key);
            assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.into(), PARENT.into()), "{span:?}");
            assert_eq!(span.name.strip_prefix("POST ").unwrap_or("None"), of("http.route"));
            assert!(span.end_time_unix_nano > span.start_time_unix_nano && span.span_id.len() == 8, "{span:?}");
            (
                service.as_str(),
                span.name.as_str(),
                of("model.name"),
                of("rpc.grpc.status_code"),
                of("http.response.status_code"),
            )
        })
        .collect();
    let (grpc, rest) = ("inference.GRPCInferenceService/ModelInfer", "POST /v2/models/{model}/infer");
    assert_eq!(
        told,
        [
            ("shop", grpc, MODEL.into(), "0".into(), "None".into()),
            ("shop", grpc, "unknown".into(), "5".into(), "None".into()),
            ("shop", rest, MODEL.into(), "None".into(), "400".into()),
        ]
    );
}

#[test]
fn canaries_are_found_in_every_form() {
    let json = json!({"id": WORDS, "data": [NUMBER]}).to_string();
    let check = |bytes: &[u8], expected: &[&str]| assert_eq!(canaries(bytes), expected.iter().copied().collect());
    check(json.as_bytes(), &["words", "decimal"]);
    check(&marked().encode_to_vec(), &["words", "tensor"]);
    check(&pictured(true).encode_to_vec(), &["words"]);
    for before in ["", "a", "ab"] {
        let coded = BASE64_STANDARD_NO_PAD.encode([before.as_bytes(), &marked().encode_to_vec()].concat());
        check(coded.as_bytes(), &["words in base64", "tensor in base64"]);
    }
}

/// Whoever sees traces sees no input: neither the router nor the server puts there what it was asked, or said in a refusal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_asked_is_in_the_spans() {
    let (receiver, endpoint) = Receiver::start().await;
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let (_model, mut server) = serve(&variables);
    let folder = tempfile::tempdir().unwrap();
    let mut router = route(&server, folder.path(), &variables);
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    let mut refused = marked();
    refused.inputs[0].name = WORDS.into();
    for (message, expected) in [
        (marked(), Code::Ok),
        (refused, Code::InvalidArgument),
        (pictured(true), Code::Ok),
        (pictured(false), Code::InvalidArgument),
    ] {
        let mut asked = Request::new(message);
        let metadata = asked.metadata_mut();
        metadata.insert("traceparent", sampled.parse().unwrap());
        metadata.insert("x-request-id", WORDS.parse().unwrap());
        let answer = client(router.grpc).await.model_infer(asked).await;
        assert_eq!(answer.map_or_else(|refusal| refusal.code(), |_| Code::Ok), expected);
    }
    let body = |name: &str| {
        let data = vec![NUMBER; PIXELS];
        let input = json!({"name": name, "datatype": "FP32", "shape": [1, 1, 8, 8], "data": data});
        json!({"id": WORDS, "parameters": {WORDS: WORDS}, "inputs": [input]}).to_string()
    };
    let versioned = format!("{MODEL}/versions/{WORDS}");
    for (model, name, expected) in [
        (MODEL, "input", "HTTP/1.1 200 OK"),
        (MODEL, WORDS, "HTTP/1.1 400 Bad Request"),
        (WORDS, "input", "HTTP/1.1 404 Not Found"),
        (versioned.as_str(), "input", "HTTP/1.1 404 Not Found"),
    ] {
        assert_eq!(post(server.rest.unwrap(), model, &sampled, &body(name)).await, expected);
    }
    assert_eq!([&mut router, &mut server].map(Process::terminate), [Some(0); 2]);
    let received = receiver.bytes.lock().unwrap().clone();
    let spans = receiver.spans();
    assert_eq!(spans.iter().map(|(_, span)| hex(&span.trace_id)).collect::<Vec<_>>(), [TRACE; 8]);
    // What spans tell is seen here.
    assert!(contains(&received, &spans[0].1.trace_id) && contains(&received, MODEL.as_bytes()), "{received:?}");
    assert_eq!(canaries(&received), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_variables_there_is_no_thread_to_send_spans() {
    let is_there = |server: &Process| {
        let threads = std::fs::read_dir(format!("/proc/{}/task", server.child.id())).unwrap();
        let mut names = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap());
        names.any(|name| name.starts_with("OpenTelemetry"))
    };
    let (_model, server) = serve(&[]);
    assert!(!is_there(&server));
    let (_receiver, endpoint) = Receiver::start().await;
    let (_model, server) = serve(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    // It gives itself its name.
    let soon = || {
        is_there(&server) || {
            std::thread::sleep(Duration::from_millis(10));
            false
        }
    };
    assert!((0..1000).any(|_| soon()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_environment_says_holds() {
    let (receiver, endpoint) = Receiver::start().await;
    let (_model, mut server) =
        serve(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_TRACES_SAMPLER", "always_off")]);
    ask(server.grpc, MODEL, &format!("00-{TRACE}-{PARENT}-01")).await.unwrap();
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(receiver.spans(), []);
    // Who asks without a context begins a trace.
    let (_model, mut server) = serve(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &endpoint)]);
    client(server.grpc).await.model_infer(request(1)).await.unwrap();
    assert_eq!(server.terminate(), Some(0));
    let [(service, span)] = &receiver.spans()[..] else { panic!("{:?}", receiver.spans()) };
    assert_eq!((service.as_str(), span.parent_span_id.as_slice()), ("edge-runtime", &[][..]));
}

#[test]
fn what_cannot_be_spoken_to_is_said() {
    let model = tiny();
    let args = ["serve", "--model", model.path().to_str().unwrap(), "--name", MODEL, "--grpc", LOOPBACK];
    let check = |variables: &[(&str, &str)], expected: &str| {
        let mut serve = std::process::Command::new(env!("CARGO_BIN_EXE_edge-runtime"));
        let ended = process::output(serve.args(args).envs(variables.iter().copied()));
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(!ended.status.success() && told.lines().last().is_some_and(|last| last.contains(expected)), "{told}");
    };
    let here = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    check(&[here, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], "set OTEL_EXPORTER_OTLP_PROTOCOL=grpc");
    check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "a collector")], "spans cannot be sent to the OTLP endpoint");
}
