//! All that is known of one placement: asked for when somebody looks closer.

use super::view::micros;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use sconce_api::{Basis, Decision, EdgePlacement, Prediction, Rejection, Term, Waited};
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    version: String,
    replicas: Option<i64>,
    since: Option<Timestamp>,
    /// Points per hour.
    cost: Option<String>,
    predicted: Option<Predicted>,
    observed: Option<Observed>,
    rejected: Vec<Rejection>,
    conditions: Vec<Said>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Predicted {
    /// Link, transfer, queue and compute.
    terms: [NamedTerm; 4],
    p99_us: Option<u64>,
    bound_us: Option<u64>,
    basis: Basis,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NamedTerm {
    name: &'static str,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
    basis: Basis,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Observed {
    p50_us: Option<u64>,
    p99_us: Option<u64>,
    count: i64,
    errors: i64,
    rps: String,
}

#[derive(Serialize)]
struct Said {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    since: Timestamp,
}

pub fn details(placement: &EdgePlacement) -> Details {
    let status = placement.status.clone().unwrap_or_default();
    let decision: Option<&Decision> = status.decision.as_ref();
    Details {
        version: placement.spec.version_ref.name.clone(),
        replicas: decision.map(|decision| decision.replicas),
        since: decision.map(|decision| decision.since.0),
        cost: status.cost.as_ref().map(ToString::to_string),
        predicted: status.predicted.as_ref().map(predicted),
        observed: status.observed.as_ref().map(observed),
        rejected: status.rejected,
        conditions: status.conditions.into_iter().map(said).collect(),
    }
}

fn predicted(prediction: &Prediction) -> Predicted {
    let Prediction { link, transfer, queue, compute, p99, bound, basis } = prediction;
    let named =
        |name, term: &Term| NamedTerm { name, p50_us: micros(&term.p50), p99_us: micros(&term.p99), basis: term.basis };
    Predicted {
        terms: [named("link", link), named("transfer", transfer), named("queue", queue), named("compute", compute)],
        p99_us: micros(p99),
        bound_us: micros(bound),
        basis: *basis,
    }
}

fn observed(waited: &Waited) -> Observed {
    Observed {
        p50_us: waited.p50.as_ref().and_then(micros),
        p99_us: waited.p99.as_ref().and_then(micros),
        count: waited.count,
        errors: waited.errors,
        rps: waited.rps.to_string(),
    }
}

fn said(condition: Condition) -> Said {
    let Condition { type_, status, reason, message, last_transition_time, .. } = condition;
    Said { kind: type_, status, reason, message, since: last_transition_time.0 }
}
