//! Hands requests with their answers to the collector beside the router, after the client has its answer: in no client's way.
//! What the collector cannot take in time is dropped, and counted.
//!
//! Where features alone may leave, whoever has answered is asked what its model's backbone makes of the request: a client's request
//! is then handed to nobody else.

mod choose;
mod content;
mod features;
mod file;

pub use choose::{Choice, Chooser, Lots, Why};
pub use file::{Taps, TapsError, Wish, parse};

use bytes::Bytes;
use choose::is_looked_into;
use content::{Features, Scores, asking, content};
use features::{Asking, Content, Servers, made};
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What waits to be handed over, at most, with its answers.
const QUEUE_BYTES: usize = 16 << 20;
/// What an answer takes that waits, beside its frames.
const BESIDE: usize = 1024;
/// A larger request is no sample, nor one with a larger answer.
const LARGEST: usize = 4 << 20;
/// Handed over at once: the collector gathers for 200 ms before it writes.
const AT_ONCE: usize = 8;
/// A collector that says nothing for so long has not taken it; a server that does gives no features.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request that was answered: gRPC frames, as they went over the wire.
pub struct Answered {
    pub model: String,
    pub tier: String,
    /// Who has answered.
    pub server: SocketAddr,
    /// What the client says of consent.
    pub consent: Option<HeaderValue>,
    pub request: Bytes,
    pub answer: Bytes,
}

/// Of a request, and of what is handed over of it.
pub const CONSENT: &str = "x-sconce-consent";
/// In bytes; what is longer is none.
pub const LONGEST_CONSENT: usize = 256;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    model: String,
    outcome: &'static str,
}

type Counts = Family<Outcome, Counter>;
type Collector = Client<HttpConnector, Full<Bytes>>;

/// An answer that waits, its lot drawn.
struct Queued {
    answered: Answered,
    wish: Wish,
    lot: f64,
    room: OwnedSemaphorePermit,
}

/// What the collector is handed.
struct Sample {
    model: String,
    dataset: String,
    said: Map<String, Value>,
    consent: Option<HeaderValue>,
    content: Content,
    _room: OwnedSemaphorePermit,
}

/// The router's end.
#[derive(Clone)]
pub struct Tap {
    wishes: watch::Receiver<Arc<Taps>>,
    queue: mpsc::UnboundedSender<Queued>,
    /// The queue is bounded by bytes.
    room: Arc<Semaphore>,
    lots: Arc<Lots>,
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
        let (tap, answers) = Self::with(wishes, counts.clone());
        tokio::spawn(look(answers, collector.clone(), counts));
        Ok((tap, watching))
    }

    fn with(wishes: watch::Receiver<Arc<Taps>>, counts: Counts) -> (Self, mpsc::UnboundedReceiver<Queued>) {
        let (queue, answers) = mpsc::unbounded_channel();
        let (room, lots) = (Arc::new(Semaphore::new(QUEUE_BYTES)), Arc::default());
        (Self { wishes, queue, room, lots, counts }, answers)
    }

    /// Whether answers of a model are looked at.
    pub fn wants(&self, model: &str) -> bool {
        self.wishes.borrow().models.contains_key(model)
    }

    /// Takes an answer if there is room, and never waits.
    pub fn offer(&self, answered: Answered) {
        let Some(wish) = self.wishes.borrow().models.get(&answered.model).cloned() else { return };
        let lot = self.lots.draw();
        if !is_looked_into(&wish, lot) {
            return count(&self.counts, &answered.model, "passed");
        }
        let (request, answer) = (answered.request.len(), answered.answer.len());
        if request > LARGEST || answer > LARGEST {
            return count(&self.counts, &answered.model, "large");
        }
        let room = self.room.clone().try_acquire_many_owned((request + answer + BESIDE) as u32);
        let Ok(room) = room else { return count(&self.counts, &answered.model, "busy") };
        // Who looks at them lives as long as the router.
        self.queue.send(Queued { answered, wish, lot, room }).ok();
    }
}

fn count(counts: &Counts, model: &str, outcome: &'static str) {
    counts.get_or_create(&Outcome { model: model.to_owned(), outcome }).inc();
}

async fn look(mut answers: mpsc::UnboundedReceiver<Queued>, collector: Uri, counts: Counts) {
    let mut choosers: BTreeMap<String, Chooser> = BTreeMap::new();
    let mut servers = Servers::default();
    let client: Collector = Client::builder(TokioExecutor::new()).build_http();
    let mut under_way = JoinSet::new();
    while let Some(queued) = answers.recv().await {
        let model = queued.answered.model.clone();
        let sample = match chosen(choosers.entry(model.clone()).or_default(), &mut servers, queued) {
            Ok(sample) => sample,
            Err(outcome) => {
                count(&counts, &model, outcome);
                continue;
            }
        };
        if under_way.len() == AT_ONCE {
            under_way.join_next().await;
        }
        let (client, collector, counts) = (client.clone(), collector.clone(), counts.clone());
        under_way.spawn(async move {
            let model = sample.model.clone();
            let outcome = hand_over(&client, &collector, sample).await;
            count(&counts, &model, outcome);
        });
    }
    under_way.join_all().await;
}

/// # Errors
/// What becomes of one that is none.
fn chosen(chooser: &mut Chooser, servers: &mut Servers, queued: Queued) -> Result<Sample, &'static str> {
    let Queued { answered, wish, lot, room } = queued;
    let Answered { model, tier, server, consent, request, answer } = answered;
    let answer = content::said(&answer);
    let scores = answer.as_ref().and_then(content::scores);
    let choice = chooser.choose(&wish, scores.as_ref(), lot, SystemTime::now());
    let Choice { why, probability } = choice.ok_or("passed")?;
    let content = if wish.features {
        let request = asking(&request).ok_or("strange")?;
        let version = answer.ok_or("strange")?.model_version;
        Content::Features(servers.channel(server), Box::new(Asking { request, version }))
    } else {
        Content::Own(content(&request).ok_or("strange")?)
    };
    let object = |value: Value| value.as_object().cloned().unwrap_or_default();
    let mut said = object(json!({"model": model, "tier": tier, "why": why, "probability": probability}));
    // Of what is no classifier's there is nothing to tell.
    if let Some(Scores { version, class, best, margin }) = scores {
        said.extend(object(json!({"version": version, "prediction": class, "score": best, "margin": margin})));
    }
    Ok(Sample { model, dataset: wish.dataset, said, consent, content, _room: room })
}

/// To the collector; returns what it made of it. Of one without features it is told, too: it counts what is dropped.
async fn hand_over(client: &Collector, collector: &Uri, sample: Sample) -> &'static str {
    let Sample { model, dataset, mut said, consent, content, _room } = sample;
    let (content, is_whole) = match content {
        Content::Own(content) => (content, true),
        Content::Features(server, asking) => match made(server, &model, *asking).await {
            Some(Features { content, backbone, .. }) => {
                said.insert("backbone".into(), backbone.into());
                (content, true)
            }
            None => (Bytes::new(), false),
        },
    };
    let request = Request::post(format!("{collector}v1/answers/{dataset}"));
    let request = request.header("x-sconce-answer", Value::Object(said).to_string());
    let request = match &consent {
        Some(consent) => request.header(CONSENT, consent),
        None => request,
    };
    let outcome = match request.body(Full::new(content)) {
        Ok(request) => timeout(PATIENCE, post(client, request)).await.unwrap_or("unreachable"),
        Err(_) => "strange",
    };
    if is_whole { outcome } else { "featureless" }
}

async fn post(client: &Collector, request: Request<Full<Bytes>>) -> &'static str {
    let Ok(answer) = client.request(request).await else { return "unreachable" };
    let is_taken = answer.status().is_success();
    // The connection is used again once all was read.
    answer.into_body().collect().await.ok();
    if is_taken { "taken" } else { "refused" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::model_infer_request::InferInputTensor;
    use crate::wire::{ModelInferRequest, raw_bytes};
    use axum::Router;
    use axum::routing::post;
    use prost::Message as _;
    use tokio::net::TcpListener;
    use tokio::sync::Barrier;

    fn taps(share: f64) -> watch::Receiver<Arc<Taps>> {
        let dataset = "vision/street".into();
        let wish = Wish { dataset, share, margin_below: None, per_class_per_day: None, features: false };
        watch::channel(Arc::new(Taps { schema: 1, models: [("street.vision".into(), wish)].into() })).1
    }

    fn answered(request: Bytes, answer: usize) -> Answered {
        let consent = Some(HeaderValue::from_static("form 7"));
        Answered {
            model: "street.vision".into(),
            tier: "Edge".into(),
            server: SocketAddr::from(([127, 0, 0, 1], 9)),
            consent,
            request,
            answer: vec![0; answer].into(),
        }
    }

    fn of_a_file(file: &'static [u8]) -> Bytes {
        let input =
            InferInputTensor { name: "x".into(), datatype: "BYTES".into(), shape: vec![1], ..Default::default() };
        let raw_input_contents = vec![raw_bytes(&[Bytes::from_static(file)])];
        let body = ModelInferRequest { inputs: vec![input], raw_input_contents, ..Default::default() }.encode_to_vec();
        [&[0][..], &(body.len() as u32).to_be_bytes(), &body].concat().into()
    }

    fn counted(counts: &Counts, outcome: &'static str) -> u64 {
        counts.get_or_create(&Outcome { model: "street.vision".into(), outcome }).get()
    }

    #[test]
    fn what_waits_is_bounded_by_bytes_and_what_no_lot_chose_does_not_wait() {
        let counts = Counts::default();
        let (tap, mut answers) = Tap::with(taps(1.0), counts.clone());
        (0..5).for_each(|_| tap.offer(answered(vec![0; LARGEST / 2].into(), LARGEST / 2)));
        assert_eq!(counted(&counts, "busy"), 2);
        tap.offer(answered(Bytes::new(), LARGEST + 1));
        tap.offer(answered(vec![0; LARGEST + 1].into(), 0));
        assert_eq!(counted(&counts, "large"), 2);
        assert_eq!(std::iter::from_fn(|| answers.try_recv().ok()).count(), 3);
        tap.offer(answered(Bytes::new(), LARGEST));
        assert_eq!((counted(&counts, "busy"), answers.len()), (2, 1), "there is room again");
        let (tap, answers) = Tap::with(taps(0.0), counts.clone());
        tap.offer(answered(vec![0; LARGEST + 1].into(), 0));
        assert_eq!((counted(&counts, "passed"), answers.len()), (1, 0));
    }

    /// One after the other was handed over: a collector that gathers for 200 ms took five a second. And an answer without scores
    /// was said to be of class 0.
    #[tokio::test]
    async fn several_are_handed_over_at_once_and_say_no_scores_that_were_not_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let (all, (told, mut said)) = (Arc::new(Barrier::new(AT_ONCE)), mpsc::unbounded_channel());
        let gather = async move |headers: http::HeaderMap| {
            all.wait().await;
            assert_eq!(headers[CONSENT], "form 7");
            told.send(headers["x-sconce-answer"].to_str().unwrap().to_owned()).unwrap();
        };
        tokio::spawn(
            axum::serve(listener, Router::new().route("/v1/answers/vision/street", post(gather))).into_future(),
        );
        let counts = Counts::default();
        let (tap, answers) = Tap::with(taps(1.0), counts.clone());
        (0..AT_ONCE).for_each(|_| tap.offer(answered(of_a_file(b"seven"), 9)));
        drop(tap);
        look(answers, collector, counts.clone()).await;
        assert_eq!(counted(&counts, "taken"), AT_ONCE as u64);
        for _ in 0..AT_ONCE {
            let said: Value = serde_json::from_str(&said.recv().await.unwrap()).unwrap();
            let expected = json!({"model": "street.vision", "tier": "Edge", "why": "Uniform", "probability": 1.0});
            assert_eq!(said, expected);
        }
    }
}
