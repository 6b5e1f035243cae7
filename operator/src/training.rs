//! What a recipe is, and what a trainer says of its run: one line an epoch, one at the end. Pure.

use crate::artifact::percent;
use crate::names::short_hash;
use crate::status::shortened;
use kube::{Resource, ResourceExt};
use sconce_api::{DurationText, EdgeDataset, EdgeTraining, Percent, TrainingProgress, VariantVerdict};
use serde::Deserialize;
use serde_json::{Value, json};

/// What the trainer reads: the spec without what concerns only the Job, and when there is one.
pub struct Recipe {
    pub manifest: Value,
    /// 16 hex digits. Another recipe is another run.
    pub hash: String,
}

impl Recipe {
    /// `dataset` is what `spec.dataset.ref` names. Where that lies is no part of the recipe, nor is what opens it.
    pub fn of(training: &EdgeTraining, dataset: Option<&EdgeDataset>) -> Self {
        let mut spec = serde_json::to_value(&training.spec).unwrap_or(Value::Null);
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|name, _| !["run", "suspend", "trigger"].contains(&name.as_str()));
        }
        for opened in ["dataset", "base", "output"] {
            if let Some(fields) = spec.get_mut(opened).and_then(Value::as_object_mut) {
                fields.remove("secretRef");
            }
        }
        let hash = short_hash(&spec.to_string(), 16);
        if let Some(dataset) = dataset {
            let mix = spec["dataset"].get_mut("mix").map(Value::take);
            spec["dataset"] = json!({"uri": dataset.spec.uri, "format": "collected"});
            if let Some(mix) = mix {
                spec["dataset"]["mix"] = mix;
            }
        }
        let manifest = json!({
            "apiVersion": EdgeTraining::api_version(&()), "kind": EdgeTraining::kind(&()),
            "metadata": {"name": training.name_any()}, "spec": spec,
        });
        Self { manifest, hash }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Epoch {
    epoch: i64,
    epochs: i64,
    loss: f64,
    accuracy: Option<f64>,
    eta_seconds: Option<f64>,
}

/// How far the run is, by the last epoch that the log tells of.
pub fn progress(log: &str) -> Option<TrainingProgress> {
    let told: Epoch = log.lines().rev().find_map(|line| serde_json::from_str(line).ok())?;
    let eta = told.eta_seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    Some(TrainingProgress {
        epoch: told.epoch,
        epochs: told.epochs,
        loss: significant(told.loss),
        accuracy: told.accuracy.map(percent),
        eta: eta.map(|seconds| duration(seconds as u64)),
    })
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Published: the artifact by digest.
    Published {
        artifact: String,
        told: Told,
    },
    NotAccepted(Told),
    /// Another try would end as this one did.
    Refused(String),
}

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub accuracy: Option<Percent>,
    pub verdicts: Vec<VariantVerdict>,
    /// Of what was read.
    pub digest: Option<String>,
    /// Why it is not good enough.
    pub why: Option<String>,
}

#[derive(Deserialize)]
struct Words {
    result: Result,
}

#[derive(Deserialize)]
struct Result {
    published: Option<String>,
    accuracy: Option<f64>,
    #[serde(default)]
    verdicts: Vec<VariantVerdict>,
    dataset: Option<Read>,
    why: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Read {
    digest: Option<String>,
}

/// The last words of a trainer; `None` if they are none of ours.
pub fn outcome(words: &str) -> Option<Outcome> {
    let Words { result } = words.lines().rev().find_map(|line| serde_json::from_str(line).ok())?;
    if let Some(error) = result.error {
        return Some(Outcome::Refused(error));
    }
    let mut verdicts = result.verdicts;
    verdicts.truncate(8);
    for verdict in &mut verdicts {
        verdict.variant = shortened(&verdict.variant, 63);
        verdict.reason = verdict.reason.take().map(|reason| shortened(&reason, 256));
    }
    let digest = result.dataset.and_then(|read| Some(shortened(&read.digest?, 128)));
    let why = result.why.map(|why| shortened(&why, 384));
    let told = Told { accuracy: result.accuracy.map(percent), verdicts, digest, why };
    Some(match result.published {
        Some(artifact) => Outcome::Published { artifact, told },
        None => Outcome::NotAccepted(told),
    })
}

/// Two significant digits: jitter is no news.
fn significant(loss: f64) -> String {
    if !loss.is_finite() || loss == 0.0 {
        return loss.to_string();
    }
    if loss.abs() >= 1e6 {
        return format!("{loss:.1e}");
    }
    let decimals = (1 - loss.abs().log10().floor() as i32).clamp(0, 9);
    format!("{loss:.*}", decimals as usize)
}

/// In its largest unit, from ten of them on.
fn duration(seconds: u64) -> DurationText {
    DurationText(match seconds {
        0..600 => format!("{seconds}s"),
        600..36_000 => format!("{}m", seconds / 60),
        _ => format!("{}h", seconds / 3600),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn training(spec: Value) -> EdgeTraining {
        let mut all = json!({"dataset": {"uri": "synthetic:digits", "format": "idx"},
            "architecture": {"input": {"shape": [1, 28, 28]}, "layers": [{"flatten": {}}]}, "output": {"uri": "oci://r:5000/m/d"}});
        for (name, value) in spec.as_object().unwrap() {
            all[name] = value.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "digits", "namespace": "vision"}, "spec": all})).unwrap()
    }

    #[test]
    fn another_recipe_is_another_hash_and_how_it_is_run_is_none() {
        let hash = |spec: Value| Recipe::of(&training(spec), None).hash;
        let plain = hash(json!({}));
        assert_eq!(plain.len(), 16);
        assert_eq!(hash(json!({"run": {"retries": 0}, "suspend": true})), plain);
        assert_ne!(hash(json!({"fit": {"epochs": 3}})), plain);
        assert_eq!(hash(json!({"output": {"uri": "oci://r:5000/m/d", "secretRef": {"name": "push"}}})), plain);
        let signed = json!({"output": {"uri": "oci://r:5000/m/d", "signingKeyRef": {"name": "release"}}});
        assert_ne!(hash(signed), plain, "what is signed is another model");
        let manifest = Recipe::of(&training(json!({"run": {"retries": 0}})), None).manifest;
        assert_eq!((&manifest["kind"], manifest["spec"].get("run")), (&json!("EdgeTraining"), None));
    }

    #[test]
    fn what_a_model_must_reach_is_part_of_the_recipe_and_reaches_the_trainer() {
        let recipe = |accept: Value| Recipe::of(&training(json!({"accept": accept})), None);
        let (floor, better) = (json!({"minAccuracy": "97%"}), json!({"minAccuracy": "97%", "improveBy": "0.5%"}));
        let [plain, compared] = [floor, better].map(|accept| {
            let recipe = recipe(accept.clone());
            assert_eq!(recipe.manifest["spec"]["accept"], accept);
            recipe
        });
        assert_ne!(compared.hash, plain.hash);
    }

    #[test]
    fn a_network_reaches_the_trainer_as_it_was_typed() {
        let typed = json!({"input": {"shape": [4]}, "layers": [{"dense": {"units": 2, "activation": "softmax"}}],
            "output": {"task": "classification", "labels": ["cat", "dog"], "loss": "crossEntropy"}});
        let manifest = Recipe::of(&training(json!({"architecture": typed})), None).manifest;
        assert_eq!(manifest["spec"]["architecture"], typed);
    }

    #[test]
    fn what_was_collected_is_read_where_its_dataset_says() {
        let of = |dataset: Value, trigger: Value| training(json!({"dataset": dataset, "trigger": trigger}));
        let nightly = of(json!({"ref": {"name": "digits"}}), json!({"schedule": {"cron": "0 3 * * *"}}));
        let mix = json!([{"uri": "synthetic:digits", "format": "idx"}]);
        let opened = json!({"ref": {"name": "digits"}, "secretRef": {"name": "lake"}});
        let by_hand = of(opened, json!({"manual": {}}));
        let dataset = |uri: &str| -> EdgeDataset {
            serde_json::from_value(
                json!({"metadata": {"name": "digits"}, "spec": {"fleetRef": {"name": "shops"}, "uri": uri,
                "kind": "Image", "privacy": {"policy": "Raw"}}}),
            )
            .unwrap()
        };
        let mixed = of(json!({"ref": {"name": "digits"}, "mix": mix}), json!({"manual": {}}));
        let manifest = Recipe::of(&mixed, Some(&dataset("s3://lake/digits"))).manifest;
        assert_eq!(manifest["spec"]["dataset"]["mix"], mix);
        let recipe = Recipe::of(&nightly, Some(&dataset("s3://lake/digits")));
        assert_eq!(recipe.manifest["spec"]["dataset"], json!({"uri": "s3://lake/digits", "format": "collected"}));
        assert_eq!(recipe.manifest["spec"].get("trigger"), None);
        assert_eq!(Recipe::of(&by_hand, Some(&dataset("s3://other"))).hash, recipe.hash, "the recipe is the same");
    }

    #[test]
    fn the_last_epoch_of_a_log_is_the_progress() {
        let log = "Data: digits\n{\"epoch\": 1, \"epochs\": 10, \"loss\": 0.81234, \"accuracy\": 0.9, \"etaSeconds\": 90}\n\
            {\"epoch\": 2, \"epochs\": 10, \"loss\": 0.051234, \"accuracy\": 0.98412, \"etaSeconds\": 4321.0}\nwrote it\n";
        let expected = TrainingProgress {
            epoch: 2,
            epochs: 10,
            loss: "0.051".into(),
            accuracy: Some("98.41%".into()),
            eta: Some("72m".into()),
        };
        assert_eq!(progress(log), Some(expected));
        assert_eq!(progress("Data: digits\n"), None);
        assert_eq!([0.0, 12.34, 1.234, 0.000_123_4].map(significant), ["0", "12", "1.2", "0.00012"]);
    }

    #[test]
    fn last_words_say_what_came_of_it() {
        let words = |result: Value| outcome(&format!("lines before\n{}\n", json!({ "result": result })));
        let verdict = VariantVerdict { variant: "f32".into(), passed: true, reason: Some("accuracy 0.98".into()) };
        let digest = Some("sha256:11".into());
        let told = Told { accuracy: Some("98.1%".into()), verdicts: vec![verdict.clone()], digest, why: None };
        let said = json!({"dataset": {"samples": 3, "digest": "sha256:11"}, "digest": "sha256:00", "published": "oci://r/m@sha256:00", "accepted": true, "accuracy": 0.981, "verdicts": [verdict]});
        let artifact = "oci://r/m@sha256:00".to_owned();
        assert_eq!(words(said.clone()), Some(Outcome::Published { artifact, told: told.clone() }));
        let mut worse = said;
        worse["published"] = Value::Null;
        worse["why"] = json!("test accuracy 0.981 is below spec.accept.minAccuracy 99%");
        let why = worse["why"].as_str().map(str::to_owned);
        assert_eq!(words(worse), Some(Outcome::NotAccepted(Told { why, ..told })));
        assert_eq!(words(json!({"error": "no such field"})), Some(Outcome::Refused("no such field".into())));
        assert_eq!(outcome("error: the disk is full"), None);
    }
}
