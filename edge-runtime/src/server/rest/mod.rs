//! The door of REST: the protocol's paths, as JSON with or without binary data.

mod body;
mod trouble;

use super::accept::Io;
use super::{Limits, Refusal, Service};
use crate::decode;
use crate::encode;
use crate::logs::Settings;
use crate::spans;
use crate::wire::json::{ControlRequest, IndexRequest, Parameters};
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, any, get, post};
use futures::{Stream, StreamExt as _};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;
use trouble::Trouble;

/// How long the JSON is that binary data follows; 0: all of it is one tensor.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// Of the protocol's extensions, those that are not served.
const UNSERVED: [&str; 6] = [
    "/v2/trace/setting",
    "/v2/models/{model}/trace/setting",
    "/v2/models/{model}/generate",
    "/v2/models/{model}/generate_stream",
    "/v2/systemsharedmemory/{*path}",
    "/v2/cudasharedmemory/{*path}",
];
/// Serves until the service stops; what has begun is finished.
pub(super) async fn serve(mut incoming: impl Stream<Item = Io> + Unpin, service: Arc<Service>, limits: Limits) {
    let mut stopping = pin!(service.stopping());
    let router = TowerToHyperService::new(spans::door(router(service.clone(), limits)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout);
    let connections = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            Some(stream) = incoming.next() => stream,
            () = &mut stopping => break,
        };
        let connection = http.serve_connection(TokioIo::new(stream), router.clone());
        // Clients that break off, or are too slow, end it with an error: nobody is left to be told.
        tokio::spawn(connections.watch(connection));
    }
    drop(incoming);
    connections.shutdown().await;
}

#[derive(Clone)]
struct Door {
    service: Arc<Service>,
    limits: Limits,
}

fn router(service: Arc<Service>, limits: Limits) -> Router {
    let of_model = |router: Router<Door>, path: &str, route: MethodRouter<Door>| {
        router
            .route(&format!("/v2/models/{{model}}{path}"), route.clone())
            .route(&format!("/v2/models/{{model}}/versions/{{version}}{path}"), route)
    };
    let mut router = Router::new()
        .route("/v2", get(server_metadata))
        .route("/v2/health/live", get(async || reply(StatusCode::OK, &json!({"live": true}))))
        .route("/v2/health/ready", get(server_ready))
        .route("/v2/models", get(models))
        .route("/v2/models/stats", get(all_statistics))
        .route("/v2/logging", get(log).post(set_log))
        .route("/v2/repository/index", post(index))
        .route("/v2/repository/models/{model}/load", post(load))
        .route("/v2/repository/models/{model}/unload", post(unload));
    for path in UNSERVED {
        router = router.route(path, any(unserved));
    }
    for (path, route) in [
        ("", get(model_metadata)),
        ("/ready", get(model_ready)),
        ("/infer", post(infer)),
        ("/config", get(model_config)),
        ("/stats", get(model_statistics)),
    ] {
        router = of_model(router, path, route);
    }
    router
        .fallback(async |request: Request| Trouble::Path { path: request.uri().path().to_owned() })
        .method_not_allowed_fallback(async |request: Request| Trouble::Method {
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
        })
        .with_state(Door { service, limits })
}

/// The model and the version that the path names.
struct Asked {
    model: String,
    /// Empty: whichever is there.
    version: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Trouble> {
        let path = Path::<BTreeMap<String, String>>::from_request_parts(parts, state).await;
        let Path(mut names) = path.map_err(|_| Trouble::Path { path: parts.uri.path().to_owned() })?;
        let mut named = |name: &str| names.remove(name).unwrap_or_default();
        Ok(Self { model: named("model"), version: named("version") })
    }
}

type Answer = Result<Response, Trouble>;

fn reply(status: StatusCode, message: &impl Serialize) -> Response {
    match serde_json::to_vec(message) {
        Ok(body) => (status, [(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => Trouble::Refused(Refusal::Encode { why: error.to_string() }).into_response(),
    }
}

fn told(message: &impl Serialize) -> Answer {
    Ok(reply(StatusCode::OK, message))
}

async fn server_metadata(State(door): State<Door>) -> Answer {
    told(&door.service.server_metadata())
}

async fn server_ready(State(door): State<Door>) -> Answer {
    if !door.service.is_ready() {
        return Err(Refusal::Draining.into());
    }
    told(&json!({"live": true, "ready": true}))
}

async fn models(State(door): State<Door>) -> Answer {
    told(&json!({"models": door.service.catalogue.models().names().collect::<Vec<_>>()}))
}

async fn model_metadata(State(door): State<Door>, asked: Asked) -> Answer {
    told(&door.service.model_metadata(&asked.model, &asked.version)?)
}

async fn model_ready(State(door): State<Door>, asked: Asked) -> Answer {
    if !door.service.model_ready(&asked.model, &asked.version)?.ready {
        // Says why, if it is the model.
        door.service.catalogue.named(&asked.model, &asked.version).map_err(Refusal::from)?;
        return Err(Refusal::Draining.into());
    }
    told(&json!({"name": asked.model, "ready": true}))
}

async fn model_config(State(door): State<Door>, asked: Asked) -> Answer {
    told(&door.service.model_config(&asked.model, &asked.version)?)
}

async fn model_statistics(State(door): State<Door>, asked: Asked) -> Answer {
    told(&door.service.model_statistics(&asked.model, &asked.version)?)
}

async fn all_statistics(State(door): State<Door>) -> Answer {
    told(&door.service.model_statistics("", "")?)
}

async fn index(State(door): State<Door>, request: Request) -> Answer {
    let asked: IndexRequest = json_body(request, &door.limits).await?;
    told(&door.service.index(asked.ready).await?.models)
}

async fn log(State(door): State<Door>) -> Answer {
    told(&door.service.log(&Settings::new())?)
}

async fn set_log(State(door): State<Door>, request: Request) -> Answer {
    let wanted: Parameters = json_body(request, &door.limits).await?;
    told(&door.service.log(&wanted.0)?)
}

async fn load(State(door): State<Door>, asked: Asked, request: Request) -> Answer {
    let control: ControlRequest = json_body(request, &door.limits).await?;
    door.service.load(&asked.model, control.parameters.0.keys()).await?;
    Ok(StatusCode::OK.into_response())
}

async fn unload(State(door): State<Door>, asked: Asked, request: Request) -> Answer {
    let control: ControlRequest = json_body(request, &door.limits).await?;
    door.service.unload(&asked.model, control.parameters.0.keys()).await?;
    Ok(StatusCode::OK.into_response())
}

/// A body that may be left out.
async fn json_body<T: DeserializeOwned + Default>(request: Request, limits: &Limits) -> Result<T, Trouble> {
    let (head, body) = request.into_parts();
    let body = body::read(&head.headers, body, limits).await?;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body).map_err(|error| Trouble::Json { why: error.to_string() })
}

async fn unserved(request: Request) -> Trouble {
    Trouble::Unserved { path: request.uri().path().to_owned() }
}

async fn infer(State(Door { service, limits }): State<Door>, asked: Asked, request: Request) -> Answer {
    // A body for a model that is not here is not worth reading.
    let model = service.asked(&asked.model, &asked.version)?;
    let (head, body) = request.into_parts();
    let body = body::read(&head.headers, body, &limits).await.inspect_err(|_| model.metrics.refused("unreadable"))?;
    let header = head.headers.get(HEADER_LENGTH).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let read = || match header.as_deref().map(str::trim) {
        None if content_type.starts_with(b"image/") => Ok(decode::image(body)),
        Some("0") => decode::whole(body, model.input()),
        header => decode::split(body, header).and_then(|(head, binary)| decode::rest(&head, binary)),
    };
    let answer = service.infer(&model, (Instant::now(), None), read).await?;
    let (body, json_bytes) = encode::rest(&answer).map_err(|error| Refusal::Encode { why: error.to_string() })?;
    let (body, encoding) = body::compressed(&head.headers, body);
    let answers = if json_bytes.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answers));
    if let Some(json_bytes) = json_bytes {
        response.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(json_bytes));
    }
    if let Some(encoding) = encoding {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    Ok(response)
}
