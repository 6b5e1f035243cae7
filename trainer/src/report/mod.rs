//! What a run did, as JSON for programs and as a page for people. These have times; the page that is a part of the artifact, whose bytes
//! repeat, has none.

mod html;
mod svg;

pub use html::{Reader, page};

use crate::calibration::{Bin, reliability};
use crate::finish::{Before, Finished, Row};
use crate::fit::Epoch;
use crate::gate::{PartAccuracy, Verdict};
use sconce_model::artifact::Measured;
use sconce_model::graph::Graph;
use serde_json::{Value, json};

/// A finished run.
pub struct Run<'a> {
    /// The manifest's.
    pub name: &'a str,
    pub graph: &'a Graph,
    pub train: usize,
    pub validation: usize,
    pub epochs: &'a [Epoch],
    pub finished: &'a Finished,
    /// Why it is not good enough, if it is not.
    pub refusal: Option<&'a str>,
    /// Address by digest.
    pub published: Option<&'a str>,
}

pub fn report(run: &Run<'_>) -> Value {
    let epoch = |epoch: &Epoch| {
        json!({"number": epoch.number, "loss": epoch.loss, "accuracy": epoch.accuracy, "validation": epoch.validation,
               "validationLoss": epoch.validation_loss, "seconds": epoch.took.as_secs_f64()})
    };
    let Finished { rows, refused, parts, before, evaluation } = run.finished;
    let part = |part: &PartAccuracy| json!({"name": part.name, "test": part.count, "accuracy": part.accuracy});
    let variant = |row: &Row| {
        json!({"name": row.verdict.variant, "bytes": row.bytes, "latencyMicros": row.latency.as_secs_f64() * 1e6,
               "accuracy": row.measured.value, "wilson95": row.measured.wilson95, "passed": row.verdict.passed, "reason": row.verdict.reason})
    };
    let unmade =
        |Verdict { variant, passed, reason }: &Verdict| json!({"name": variant, "passed": passed, "reason": reason});
    let bin = |bin: Bin| json!({"count": bin.count, "confidence": bin.confidence, "accuracy": bin.accuracy});
    let calibration = rows.first().filter(|row| row.measured.ece.is_some()).map(|row| {
        json!({"ece": row.measured.ece, "bins": reliability(&row.answers).into_iter().map(bin).collect::<Vec<_>>()})
    });
    json!({
        "schema": 1,
        "isa": isa(),
        "network": {"parameters": run.graph.parameter_count(), "flops": run.graph.flops()},
        "samples": {"train": run.train, "validation": run.validation, "test": evaluation.dataset.n},
        "epochs": run.epochs.iter().map(epoch).collect::<Vec<_>>(),
        "evaluation": evaluation,
        "variants": rows.iter().map(variant).chain(refused.iter().map(unmade)).collect::<Vec<_>>(),
        "calibration": calibration,
        "before": before.as_ref().map(|Before { uri, value }| json!({"uri": uri, "accuracy": value})),
        "parts": parts.iter().map(part).collect::<Vec<_>>(),
        "accepted": run.refusal.is_none(),
        "published": run.published,
    })
}

/// The last line of a run for programs: `digest` is that of the artifact, whether it was published or not.
pub fn result(digest: &str, run: &Run<'_>) -> Value {
    let verdict =
        |Verdict { variant, passed, reason }: &Verdict| json!({"variant": variant, "passed": passed, "reason": reason});
    json!({"result": {
        "digest": digest,
        "published": run.published,
        "accepted": run.refusal.is_none(),
        "why": run.refusal,
        "dataset": {"digest": run.finished.evaluation.dataset.digest},
        "metric": run.finished.rows.first().map(|row| &row.measured.metric),
        "accuracy": run.finished.rows.first().map(|row| row.measured.value),
        "verdicts": run.finished.verdicts().map(verdict).collect::<Vec<_>>(),
    }})
}

/// Of labels and amounts, how well each is told: its name, or its number; what is measured; how much that is.
pub fn of_each(graph: &Graph, measured: &Measured) -> Vec<(String, &'static str, f64)> {
    let names = graph.labels();
    let named = |what| {
        move |(at, value): (usize, &f64)| (names.get(at).cloned().unwrap_or_else(|| at.to_string()), what, *value)
    };
    let Measured { f1, mean_absolute_error, .. } = measured;
    if f1.is_empty() {
        mean_absolute_error.iter().enumerate().map(named("mean absolute error")).collect()
    } else {
        f1.iter().enumerate().map(named("F1")).collect()
    }
}

/// The widest vectors of this machine: times of one say little about another.
pub fn isa() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return "avx512";
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            return "avx2";
        }
    }
    std::env::consts::ARCH
}
