//! Built with the feature `otlp`.

use super::endpoint;
use crate::wire::MODEL_INFER;
use anyhow::{Context as _, bail};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Either};
use http::{HeaderMap, Method, Request, Response};
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::task::{Context, Poll};
use tonic::Code;
use tonic::server::NamedService;
use tracing::field::Empty;
use tracing::{Instrument as _, Span, Subscriber, trace_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// Of our spans: whatever the log's level is, they are told, and are no lines of the log.
const TARGET: &str = "sconce::spans";

/// Sends spans in batches, on a thread of its own. Endpoint, sampler, service and the rest are the standard variables'.
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// `None` where the environment names no endpoint. It needs a runtime, and waits for nobody: the endpoint may come later.
    ///
    /// # Errors
    /// If the endpoint is none, or is to be spoken to in another way.
    pub fn start() -> anyhow::Result<Option<Self>> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if !endpoint(variable) {
            return Ok(None);
        }
        let protocol =
            variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
        if let Some(protocol) = protocol.filter(|protocol| protocol != "grpc") {
            bail!(
                "spans are sent by gRPC, not by \"{protocol}\": set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, and a port for it"
            );
        }
        let exporter =
            SpanExporter::builder().with_tonic().build().context("spans cannot be sent to the OTLP endpoint")?;
        let mut resource = Resource::builder_empty()
            .with_service_name("edge-runtime")
            .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())]);
        if let Some(name) = variable("OTEL_SERVICE_NAME") {
            resource = resource.with_service_name(name);
        }
        let provider =
            SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter).build();
        Ok(Some(Self(provider)))
    }

    /// Sends what has not been sent.
    pub async fn end(self) {
        // It blocks; the runtime, perhaps of one thread, has to go on meanwhile.
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown()).await;
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not sent"),
            Err(error) => tracing::warn!(%error, "the last spans were not sent"),
        }
    }
}

/// Nothing: this build can send spans.
pub fn warn() {}

/// What makes OpenTelemetry's spans of ours, where they are sent.
pub fn layer<S>(exporter: Option<&Exporter>) -> Option<impl Layer<S> + use<S>>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    exporter.map(|Exporter(provider)| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("sconce-edge-runtime"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_filter(filter_fn(|metadata| metadata.target() == TARGET))
    })
}

/// A door before which each request for inference gets its span.
pub fn door<S>(inner: S) -> Door<S> {
    Door(inner)
}

/// Tells the span of the request that is being answered which model it asks.
pub fn asked(model: &str, version: &str) {
    Span::current().record("model.name", model).record("model.version", version);
}

#[derive(Clone)]
pub struct Door<S>(S);

impl<S: NamedService> NamedService for Door<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B, R> tower::Service<Request<B>> for Door<S>
where
    S: tower::Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let span = begun(&request);
        if span.is_disabled() {
            return Either::Left(self.0.call(request));
        }
        // Fails only where spans are not sent.
        span.set_parent(TraceContextPropagator::new().extract(&Headers(request.headers()))).ok();
        let answer = span.in_scope(|| self.0.call(request)).instrument(span.clone());
        let ended = async move { answer.await.inspect(|response| answered(&span, response)) };
        Either::Right(ended.boxed())
    }
}

/// Named and described as OpenTelemetry's conventions have it, but for paths: they name whatever a client asks. Streams, and what is
/// asked about the server, have none.
fn begun<B>(request: &Request<B>) -> Span {
    let path = request.uri().path();
    if path == MODEL_INFER {
        trace_span!(
            target: TARGET,
            "infer",
            otel.name = &MODEL_INFER[1..],
            otel.kind = "server",
            otel.status_code = Empty,
            rpc.system = "grpc",
            rpc.service = "inference.GRPCInferenceService",
            rpc.method = "ModelInfer",
            rpc.grpc.status_code = Empty,
            model.name = Empty,
            model.version = Empty,
        )
    } else if request.method() == Method::POST
        && let Some(route) = route(path)
    {
        trace_span!(
            target: TARGET,
            "infer",
            otel.name = format!("POST {route}"),
            otel.kind = "server",
            otel.status_code = Empty,
            http.request.method = "POST",
            http.response.status_code = Empty,
            http.route = route,
            model.name = Empty,
            model.version = Empty,
        )
    } else {
        Span::none()
    }
}

/// Which of REST's routes for inference a path takes.
fn route(path: &str) -> Option<&'static str> {
    match path.strip_prefix("/v2/models/")?.split('/').collect::<Vec<_>>()[..] {
        [_, "infer"] => Some("/v2/models/{model}/infer"),
        [_, "versions", _, "infer"] => Some("/v2/models/{model}/versions/{version}/infer"),
        _ => None,
    }
}

/// The answer's code; of errors those that are the server's, as the conventions have it.
fn answered<B>(span: &Span, response: &Response<B>) {
    // Refusals over gRPC have no body, and their code stands in front.
    let code = response.headers().get("grpc-status").map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
    span.record("rpc.grpc.status_code", code as i32);
    span.record("http.response.status_code", response.status().as_u16());
    let fault = matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    );
    if fault || response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_names_nothing_that_was_asked() {
        let check = |path: &str, expected: Option<&str>| assert_eq!(route(path), expected, "{path}");
        check("/v2/models/digits/infer", Some("/v2/models/{model}/infer"));
        check("/v2/models/digits/versions/3/infer", Some("/v2/models/{model}/versions/{version}/infer"));
        for path in ["/v2/models/infer", "/v2/models/digits/3/infer", "/v2/models/digits/infer/", "/digits/infer"] {
            check(path, None);
        }
    }
}
