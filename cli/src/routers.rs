//! What the routers count, asked through the API server: `kubectl get --raw …/pods/NAME:8002/proxy/metrics`.

use anyhow::{Context as _, Result};
use futures::future::join_all;
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use std::collections::BTreeMap;
use std::time::Duration;

const NAMESPACE: &str = "sconce-node";
/// An answer later than this would not be of this moment.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a router has counted of one model since it started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub requests: f64,
    /// Those of them that ended with another code than Ok.
    pub errors: f64,
    /// How many took so many seconds at most, by the text of the bound.
    pub waited: BTreeMap<String, f64>,
}

/// By model, as clients name it.
pub type Counted = BTreeMap<String, Counts>;

/// Of each node that has a router: its counts, or why they are not known.
pub type Routers = BTreeMap<String, Result<Counted, String>>;

/// Asks all of them at once.
pub async fn ask(client: &Client) -> Result<Routers> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let routers = ListParams::default().labels("app.kubernetes.io/name=sconce-node");
    let pods = pods.list(&routers).await.with_context(|| format!("listing the routers in {NAMESPACE}"))?;
    let asked = pods.into_iter().filter_map(|pod| {
        let node = pod.spec.as_ref()?.node_name.clone()?;
        Some(async move { (node, counted(client, &pod.name_any()).await) })
    });
    Ok(join_all(asked).await.into_iter().collect())
}

async fn counted(client: &Client, pod: &str) -> Result<Counted, String> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8002/proxy/metrics");
    let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    match tokio::time::timeout(PATIENCE, client.request_text(request)).await {
        Ok(Ok(text)) => Ok(read(&text)),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
            Err(format!("it takes the right to get pods/proxy in {NAMESPACE}"))
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}

/// What a router's metrics say of its models.
pub fn read(metrics: &str) -> Counted {
    let mut counted = Counted::new();
    for (name, labels, value) in metrics.lines().filter_map(sample) {
        let Some(model) = labels.get("model") else { continue };
        let counts = counted.entry((*model).to_owned()).or_default();
        match (name, labels.get("le"), labels.get("code")) {
            ("sconce_router_request_seconds_bucket", Some(bound), _) => {
                *counts.waited.entry((*bound).to_owned()).or_default() += value;
            }
            ("sconce_router_requests_total", _, code) => {
                counts.requests += value;
                counts.errors += if code == Some(&"Ok") { 0.0 } else { value };
            }
            _ => {}
        }
    }
    counted
}

/// Name, labels and value of a line, in Prometheus' form. Our labels' values have neither quotes nor commas.
fn sample(line: &str) -> Option<(&str, BTreeMap<&str, &str>, f64)> {
    let (name, rest) = line.split_once('{')?;
    let (labels, value) = rest.split_once('}')?;
    let labels =
        labels.split(',').filter_map(|label| label.split_once('=')).map(|(key, value)| (key, value.trim_matches('"')));
    Some((name, labels.collect(), value.split_whitespace().next()?.parse().ok()?))
}

impl Counts {
    /// What came in after `before`, by the same router; one that has started anew counts from nothing.
    pub fn since(&self, before: &Self) -> Self {
        if self.requests < before.requests {
            return self.clone();
        }
        let waited = self
            .waited
            .iter()
            .map(|(bound, count)| (bound.clone(), (count - before.waited.get(bound).copied().unwrap_or(0.0)).max(0.0)));
        Self {
            requests: self.requests - before.requests,
            errors: self.errors - before.errors,
            waited: waited.collect(),
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        for (bound, count) in &other.waited {
            *self.waited.entry(bound.clone()).or_default() += count;
        }
    }

    /// The time within which this share of the requests was answered, between the bounds as if evenly spread: as Prometheus'
    /// `histogram_quantile` has it. `None` without requests.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let mut bounds: Vec<(f64, f64)> =
            self.waited.iter().filter_map(|(bound, count)| Some((bound.parse().ok()?, *count))).collect();
        bounds.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let total = bounds.last()?.1;
        if total <= 0.0 {
            return None;
        }
        let rank = share * total;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in bounds {
            if count >= rank && bound.is_infinite() {
                break;
            }
            if count >= rank {
                lower += (bound - lower) * (rank - below) / (count - below).max(f64::MIN_POSITIVE);
                break;
            }
            (lower, below) = (bound, count);
        }
        Duration::try_from_secs_f64(lower).ok()
    }
}
