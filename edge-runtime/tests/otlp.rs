//! Spans as an OTLP receiver gets them: of each request for inference one, within the trace that the client named.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;

use common::process::{self, Process, tiny};
use common::{LOOPBACK, MODEL, client, request};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Keeps all that it is sent.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Receiver {
    async fn start() -> (Self, String) {
        let (receiver, listener) = (Self::default(), TcpListener::bind(LOOPBACK).await.unwrap());
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let service = TraceServiceServer::new(receiver.clone());
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
        (receiver, endpoint)
    }

    /// With the service that each is of.
    fn spans(&self) -> Vec<(String, Span)> {
        let requests = self.0.lock().unwrap();
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
async fn post(address: SocketAddr, context: &str) -> String {
    let body = "{\"inputs\": []}";
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v2/models/{MODEL}/infer HTTP/1.1\r\nhost: test\r\nconnection: close\r\ntraceparent: {context}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
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
    assert_eq!(post(server.rest.unwrap(), &sampled).await, "HTTP/1.1 400 Bad Request");
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
