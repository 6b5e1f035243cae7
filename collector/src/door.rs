//! The doors: where devices post samples and people their labels, and, for this machine alone, where its router hands over
//! requests with their answers.

use crate::bounds::{Bounds, bounded};
use crate::clock::Now;
use crate::config::{Dataset, From};
use crate::counts::{Counts, Drop};
use crate::intake::{Chosen, Intake, Taken, Took};
use crate::metrics;
use crate::sample::{Answer, Id, Label, Why};
use crate::store::Outcome;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// The largest sample; a segment holds four.
pub const LARGEST: usize = 4 << 20;
/// What may be on its way through each door at once.
const PUBLIC_BYTES: usize = 32 << 20;
const PRIVATE_BYTES: usize = 16 << 20;
/// Of what a sender says of a sample.
pub const LONGEST: usize = 256;

/// A dataset that is collected now.
pub struct Open {
    pub dataset: Dataset,
    pub intake: Intake,
}

/// Those that are collected now, by `NAMESPACE/NAME`.
#[derive(Clone, Default)]
pub struct Datasets {
    open: Arc<RwLock<BTreeMap<String, Arc<Open>>>>,
    refused: Arc<AtomicUsize>,
}

impl Datasets {
    pub fn get(&self, name: &str) -> Option<Arc<Open>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub fn all(&self) -> BTreeMap<String, Arc<Open>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn insert(&self, name: String, open: Arc<Open>) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(name, open);
    }

    /// How many the configuration has that cannot be collected.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    pub fn refuse(&self, datasets: usize) {
        self.refused.store(datasets, Ordering::Relaxed);
    }

    pub fn remove(&self, name: &str) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// For devices and people near the node.
pub fn public(datasets: Datasets) -> Router {
    Router::new()
        .route("/v1/samples/{namespace}/{name}", post(post_sample))
        .route("/v1/feedback/{namespace}/{name}", post(post_feedback))
        .route_layer(from_fn_with_state(Bounds::of(PUBLIC_BYTES), bounded))
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(text))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(datasets)
}

/// For this machine: its router, its agent, and whoever reads metrics.
pub fn private(datasets: Datasets) -> Router {
    Router::new()
        .route("/v1/answers/{namespace}/{name}", post(post_answer))
        .route_layer(from_fn_with_state(Bounds::of(PRIVATE_BYTES), bounded))
        .route("/v1/status", get(status))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(datasets)
}

type Named = Path<(String, String)>;

/// A refusal, in words.
struct Refused(StatusCode, String);

impl axum::response::IntoResponse for Refused {
    fn into_response(self) -> Response {
        told(self.0, &json!({"error": self.1}))
    }
}

fn told(status: StatusCode, what: &serde_json::Value) -> Response {
    let json = [(http::header::CONTENT_TYPE, "application/json")];
    (status, json, Body::from(format!("{what}\n"))).into_response()
}

fn open(datasets: &Datasets, (namespace, name): (String, String)) -> Result<Arc<Open>, Refused> {
    datasets.get(&format!("{namespace}/{name}")).ok_or_else(|| {
        let known: Vec<String> = datasets.all().into_keys().collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Refused(
            StatusCode::NOT_FOUND,
            format!("no dataset {namespace}/{name} is collected here; collected are: {known}"),
        )
    })
}

/// A header's text, if there is one.
fn header(headers: &HeaderMap, name: &str) -> Result<Option<String>, Refused> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| text.len() <= LONGEST);
    text.map(|text| Some(text.to_owned())).ok_or_else(|| {
        Refused(StatusCode::BAD_REQUEST, format!("the header {name} is to be ASCII, of at most {LONGEST} characters"))
    })
}

async fn post_sample(
    State(datasets): State<Datasets>,
    Path(named): Named,
    headers: HeaderMap,
    content: Bytes,
) -> Result<Response, Refused> {
    let open = open(&datasets, named)?;
    let source = open.dataset.sources.iter().find(|source| matches!(source.from, From::Http {}));
    let share = source.map(|source| source.share).ok_or_else(|| {
        Refused(StatusCode::FORBIDDEN, "this dataset takes no posted samples: it has no source http".into())
    })?;
    let camera = header(&headers, "x-sconce-camera")?.unwrap_or_else(|| "http".into());
    let author = header(&headers, "x-sconce-author")?.unwrap_or_else(|| "http".into());
    let label = header(&headers, "x-sconce-label")?.filter(|label| !label.is_empty());
    let taken = Taken {
        content,
        source: "http".into(),
        camera,
        group: header(&headers, "x-sconce-group")?,
        label: label.map(|value| Label { value, author, source: "http".into(), time: Now::read().wall }),
        consent: header(&headers, "x-sconce-consent").unwrap_or_default(),
        chosen: Chosen::Share(share),
    };
    Ok(answer(open.intake.take(taken).await))
}

/// What the router says of an answer, beside the request's content.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answered {
    #[serde(flatten)]
    answer: Answer,
    why: Why,
    probability: f64,
}

async fn post_answer(
    State(datasets): State<Datasets>,
    Path(named): Named,
    headers: HeaderMap,
    content: Bytes,
) -> Result<Response, Refused> {
    let open = open(&datasets, named)?;
    let said = headers.get("x-sconce-answer").map(|value| value.as_bytes()).unwrap_or_default();
    let Answered { answer: given, why, probability } = serde_json::from_slice(said)
        .map_err(|error| Refused(StatusCode::BAD_REQUEST, format!("the header x-sconce-answer: {error}")))?;
    let taken = Taken {
        content,
        source: format!("model:{}", given.model),
        camera: given.model.clone(),
        group: None,
        label: None,
        consent: header(&headers, "x-sconce-consent").unwrap_or_default(),
        chosen: Chosen::Answered { answer: given, why, probability },
    };
    Ok(answer(open.intake.take(taken).await))
}

fn dropped(status: StatusCode, why: Drop, what: &str) -> Response {
    told(status, &json!({"error": what, "reason": why.name()}))
}

pub fn too_large() -> Response {
    dropped(StatusCode::PAYLOAD_TOO_LARGE, Drop::TooLarge, "larger than a sample may be")
}

pub fn busy() -> Response {
    dropped(StatusCode::TOO_MANY_REQUESTS, Drop::Busy, "more comes than can be written; send again later")
}

fn answer(took: Took) -> Response {
    match took {
        Took::Stored(id, Outcome::Kept) => told(StatusCode::CREATED, &json!({"id": id, "outcome": "kept"})),
        Took::Stored(id, Outcome::Duplicate) => told(StatusCode::OK, &json!({"id": id, "outcome": "duplicate"})),
        Took::Stored(_, Outcome::Dropped(why)) => match why {
            Drop::TooLarge => too_large(),
            Drop::Busy => busy(),
            Drop::DiskFull => dropped(StatusCode::INSUFFICIENT_STORAGE, why, "the disk has no room; send again later"),
            Drop::Private => {
                dropped(StatusCode::UNPROCESSABLE_ENTITY, why, "the policy became stricter meanwhile; send again")
            }
            _ => dropped(StatusCode::INSUFFICIENT_STORAGE, why, "the buffer is full of samples that are worth more"),
        },
        Took::NotChosen => told(StatusCode::ACCEPTED, &json!({"outcome": "not chosen, by lot"})),
        Took::Counted => told(StatusCode::ACCEPTED, &json!({"outcome": "counted in the statistics, not kept"})),
        Took::Refused(refusal) => told(
            StatusCode::UNPROCESSABLE_ENTITY,
            &json!({"error": refusal.to_string(), "reason": refusal.why().name()}),
        ),
    }
}

#[derive(Deserialize)]
struct Feedback {
    id: Id,
    label: String,
    author: String,
}

async fn post_feedback(
    State(datasets): State<Datasets>,
    Path(named): Named,
    content: Bytes,
) -> Result<Response, Refused> {
    let open = open(&datasets, named)?;
    let Feedback { id, label: value, author } = serde_json::from_slice(&content).map_err(|error| {
        Refused(StatusCode::BAD_REQUEST, format!("feedback is {{\"id\", \"label\", \"author\"}}: {error}"))
    })?;
    if ![&value, &author].iter().all(|text| (1..=LONGEST).contains(&text.len())) {
        return Err(Refused(StatusCode::BAD_REQUEST, format!("label and author have 1 to {LONGEST} bytes each")));
    }
    let now = Now::read();
    let label = Label { value, author, source: "feedback".into(), time: now.wall };
    let labelled = open.intake.keeper.with(move |store| store.label(id, label, &now)).await;
    match labelled {
        Ok(Ok(true)) => Ok(told(StatusCode::OK, &json!({"id": id, "outcome": "labelled"}))),
        Ok(Ok(false)) => Err(Refused(
            StatusCode::NOT_FOUND,
            format!("the sample {id} is not held here, or is on its way; label it where it has arrived"),
        )),
        Ok(Err(error)) => Err(Refused(StatusCode::INSUFFICIENT_STORAGE, error.to_string())),
        Err(error) => Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// What is told of a dataset.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub held: u64,
    pub held_bytes: u64,
    #[serde(flatten)]
    pub counts: Counts,
}

pub async fn statuses(datasets: &Datasets) -> BTreeMap<String, Status> {
    let mut statuses = BTreeMap::new();
    for (name, open) in datasets.all() {
        let status = open.intake.keeper.with(|store| {
            let (held, held_bytes) = store.holds();
            Status { held, held_bytes, counts: store.counts().clone() }
        });
        if let Ok(status) = status.await {
            statuses.insert(name, status);
        }
    }
    statuses
}

async fn text(State(datasets): State<Datasets>) -> String {
    metrics::text(&statuses(&datasets).await, datasets.refused())
}

async fn status(State(datasets): State<Datasets>) -> Response {
    told(StatusCode::OK, &json!({"schema": 1, "datasets": statuses(&datasets).await}))
}
