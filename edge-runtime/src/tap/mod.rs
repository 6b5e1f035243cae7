//! Hands requests with their answers to the collector beside the router, after the client has its answer: in no client's way.
//! What the collector cannot take in time is dropped, and counted.

mod choose;
mod content;
mod file;

pub use choose::{Choice, Chooser, Why};
pub use file::{Taps, TapsError, Wish, parse};

use bytes::Bytes;
use content::{answer, content};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Answers that wait to be looked at.
const QUEUE: usize = 64;
/// A larger request is no sample.
const LARGEST: usize = 4 << 20;
/// A collector that says nothing for so long has not taken it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request that was answered: gRPC frames, as they went over the wire.
pub struct Answered {
    pub model: String,
    pub tier: String,
    pub request: Bytes,
    pub answer: Bytes,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    model: String,
    outcome: &'static str,
}

type Counts = Family<Outcome, Counter>;
type Collector = Client<HttpConnector, Full<Bytes>>;

/// The router's end.
#[derive(Clone)]
pub struct Tap {
    wishes: watch::Receiver<Arc<Taps>>,
    queue: mpsc::Sender<Answered>,
    counts: Counts,
}

impl Tap {
    /// One that looks at answers, and reads its wishes anew until what comes with it is dropped. Without a file it wishes nothing.
    ///
    /// # Errors
    /// If the file's folder cannot be watched.
    pub fn start(file: Option<&Path>, collector: &Uri, registry: &mut Registry) -> anyhow::Result<(Self, JoinSet<()>)> {
        let (wishes, watching) = file::watch(file)?;
        let counts = Counts::default();
        registry.register(
            "sconce_router_samples",
            "Answers of models that are collected, by what became of them",
            counts.clone(),
        );
        let (queue, answers) = mpsc::channel(QUEUE);
        let tap = Self { wishes: wishes.clone(), queue, counts: counts.clone() };
        tokio::spawn(look(answers, wishes, collector.clone(), counts));
        Ok((tap, watching))
    }

    /// Whether answers of a model are looked at.
    pub fn wants(&self, model: &str) -> bool {
        self.wishes.borrow().models.contains_key(model)
    }

    /// Takes an answer if there is room, and never waits.
    pub fn offer(&self, answered: Answered) {
        if answered.request.len() > LARGEST {
            return count(&self.counts, &answered.model, "large");
        }
        if let Err(error) = self.queue.try_send(answered) {
            count(&self.counts, &error.into_inner().model, "busy");
        }
    }
}

fn count(counts: &Counts, model: &str, outcome: &'static str) {
    counts.get_or_create(&Outcome { model: model.to_owned(), outcome }).inc();
}

async fn look(
    mut answers: mpsc::Receiver<Answered>,
    wishes: watch::Receiver<Arc<Taps>>,
    collector: Uri,
    counts: Counts,
) {
    let mut choosers: BTreeMap<String, Chooser> = BTreeMap::new();
    let client: Collector = Client::builder(TokioExecutor::new()).build_http();
    while let Some(Answered { model, tier, request, answer: frame }) = answers.recv().await {
        let Some(wish) = wishes.borrow().models.get(&model).cloned() else { continue };
        let scores = answer(&frame);
        let chooser = choosers.entry(model.clone()).or_default();
        let Some(Choice { why, probability }) =
            chooser.choose(&wish, scores.as_ref(), chooser.draw(), SystemTime::now())
        else {
            count(&counts, &model, "passed");
            continue;
        };
        let Some(content) = content(&request) else {
            count(&counts, &model, "strange");
            continue;
        };
        let said = json!({
            "model": model,
            "version": scores.as_ref().map(|scores| scores.version.as_str()).unwrap_or_default(),
            "tier": tier,
            "prediction": scores.as_ref().map_or(0, |scores| scores.class),
            "score": scores.as_ref().map_or(0.0, |scores| scores.best),
            "margin": scores.as_ref().map_or(0.0, |scores| scores.margin),
            "why": why,
            "probability": probability,
        });
        let request = Request::post(format!("{collector}v1/answers/{}", wish.dataset))
            .header("x-sconce-answer", said.to_string())
            .body(Full::new(content));
        let outcome = match request {
            Ok(request) => timeout(PATIENCE, hand_over(&client, request)).await.unwrap_or("unreachable"),
            Err(_) => "strange",
        };
        count(&counts, &model, outcome);
    }
}

/// To the collector; returns what it made of it.
async fn hand_over(client: &Collector, request: Request<Full<Bytes>>) -> &'static str {
    let Ok(answer) = client.request(request).await else { return "unreachable" };
    let is_taken = answer.status().is_success();
    // The connection is used again once all was read.
    answer.into_body().collect().await.ok();
    if is_taken { "taken" } else { "refused" }
}
