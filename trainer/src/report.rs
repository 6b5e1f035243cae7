//! What a run did, as JSON for programs. It has times, so it is no part of the artifact, whose bytes repeat.

use crate::fit::Epoch;
use crate::gate::Verdict;
use sconce_model::artifact::Evaluation;
use sconce_model::graph::Graph;
use sconce_model::variant::F32;
use serde_json::{Value, json};

/// A finished run.
pub struct Run<'a> {
    pub graph: &'a Graph,
    pub train: usize,
    pub validation: usize,
    pub epochs: &'a [Epoch],
    pub evaluation: &'a Evaluation,
    pub accepted: bool,
    /// Address by digest.
    pub published: Option<&'a str>,
}

pub fn report(run: &Run<'_>) -> Value {
    let epoch = |epoch: &Epoch| {
        json!({"number": epoch.number, "loss": epoch.loss, "accuracy": epoch.accuracy, "validation": epoch.validation,
               "validationLoss": epoch.validation_loss,                "seconds": epoch.took.as_secs_f64()})
    };
    json!({
        "schema": 1,
        "isa": isa(),
        "network": {"parameters": run.graph.parameter_count(), "flops": run.graph.flops()},
        "samples": {"train": run.train, "validation": run.validation, "test": run.evaluation.dataset.n},
        "epochs": run.epochs.iter().map(epoch).collect::<Vec<_>>(),
        "evaluation": run.evaluation,
        "accepted": run.accepted,
        "published": run.published,
    })
}

/// The last line of a run for programs: `digest` is that of the artifact, whether it was published or not.
pub fn result(digest: &str, run: &Run<'_>, verdicts: &[Verdict]) -> Value {
    let verdict =
        |Verdict { variant, passed, reason }: &Verdict| json!({"variant": variant, "passed": passed, "reason": reason});
    json!({"result": {
        "digest": digest,
        "published": run.published,
        "accepted": run.accepted,
        "accuracy": run.evaluation.variants.get(F32).map(|measured| measured.value),
        "verdicts": verdicts.iter().map(verdict).collect::<Vec<_>>(),
    }})
}

/// The widest vectors of this machine: times of one say little about another.
fn isa() -> &'static str {
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
