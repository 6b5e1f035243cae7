//! The collector's file and the taps file of the router, from objects. Pure.

use sconce_api::{
    Amount, Consent, DatasetPrivacy, DatasetSource, DurationText, EdgeDataset, EdgeModel, EdgeSite, ModelCollect,
    Percent, PrivacyPolicy,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Where folders that are watched lie on each node, those of each namespace apart: no dataset reads another namespace's.
const INBOX: &str = "/var/lib/sconce/inbox";

/// Both files.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    pub collect: Value,
    pub taps: Value,
}

/// What a site collects: datasets of its fleet that select it, and requests of models that name one of them.
pub fn files<'a>(
    site: &EdgeSite,
    datasets: impl IntoIterator<Item = &'a EdgeDataset>,
    models: impl IntoIterator<Item = &'a EdgeModel>,
) -> Files {
    let labels = site.metadata.labels.clone().unwrap_or_default();
    let is_here = |dataset: &&EdgeDataset| {
        dataset.spec.fleet_ref == site.spec.fleet_ref
            && dataset.spec.sites.as_ref().is_none_or(|sites| sites.matches(&labels))
            // What is about to be deleted collects no more.
            && dataset.metadata.deletion_timestamp.is_none()
    };
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let here: BTreeMap<String, Value> = datasets
        .into_iter()
        .filter(is_here)
        .map(|found| (format!("{}/{}", name(&found.metadata.namespace), name(&found.metadata.name)), dataset(found)))
        .collect();
    let taps: BTreeMap<String, Value> = models
        .into_iter()
        .filter_map(|model| {
            let (namespace, collect) = (name(&model.metadata.namespace), model.spec.collect.as_ref()?);
            let dataset = format!("{namespace}/{}", collect.dataset_ref.name);
            let is_collected = here.contains_key(&dataset);
            is_collected.then(|| {
                let features = here[&dataset]["privacy"]["policy"] == "FeaturesOnly";
                (format!("{}.{namespace}", name(&model.metadata.name)), tap(&dataset, collect, features))
            })
        })
        .collect();
    Files { collect: json!({"schema": 1, "datasets": here}), taps: json!({"schema": 1, "models": taps}) }
}

fn dataset(found: &EdgeDataset) -> Value {
    let (spec, namespace) = (&found.spec, found.metadata.namespace.as_deref().unwrap_or_default());
    let (buffer, upload) = (spec.buffer.clone().unwrap_or_default(), spec.upload.clone().unwrap_or_default());
    let mut sending = Map::new();
    sending.insert("delaySeconds".into(), json!(seconds(&upload.delay)));
    if let Some(bits) = upload.max_rate.as_ref().and_then(Amount::units) {
        sending.insert("bytesPerSecond".into(), json!(bits / 8));
    }
    if let Some(window) = &upload.window {
        sending.insert("window".into(), json!(window));
    }
    let mut written = json!({
        "uri": spec.uri,
        "kind": spec.kind,
        "privacy": privacy(&spec.privacy),
        "sources": spec.sources.iter().filter_map(|one| source(namespace, one)).collect::<Vec<_>>(),
        "buffer": {"maxBytes": buffer.max_size.units(), "maxAgeSeconds": seconds(&buffer.max_age)},
        "upload": sending,
    });
    // A collector that knows no consent refuses the dataset, then.
    if spec.privacy.consent == Some(Consent::Required) {
        written["consent"] = json!(true);
    }
    written
}

fn privacy(privacy: &DatasetPrivacy) -> Value {
    let mask = privacy.mask.clone().unwrap_or_default();
    match privacy.policy {
        PrivacyPolicy::Raw => json!({"policy": "Raw"}),
        PrivacyPolicy::FeaturesOnly => json!({"policy": "FeaturesOnly"}),
        PrivacyPolicy::StatisticsOnly => json!({"policy": "StatisticsOnly"}),
        PrivacyPolicy::Masked => {
            let mut zones: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
            for zone in &mask.zones {
                let rectangle = json!({"x": zone.left, "y": zone.top, "width": zone.width, "height": zone.height});
                zones.entry(&zone.camera).or_default().push(rectangle);
            }
            json!({"policy": "Masked", "mask": {"zones": zones, "blocks": mask.blocks}})
        }
    }
}

/// `None` of one that a newer version knows.
fn source(namespace: &str, source: &DatasetSource) -> Option<Value> {
    let share = source.share.as_ref().map_or(1.0, share);
    Some(match source {
        DatasetSource { http: Some(_), .. } => json!({"share": share, "http": {}}),
        DatasetSource { directory: Some(directory), .. } => {
            json!({"share": share, "directory": {"path": format!("{INBOX}/{namespace}/{}", directory.name)}})
        }
        DatasetSource { mqtt: Some(mqtt), .. } => {
            json!({"share": share, "mqtt": {"broker": mqtt.broker, "topic": mqtt.topic}})
        }
        DatasetSource { mjpeg: Some(camera), .. } => {
            json!({"share": share, "mjpeg": {"url": camera.url, "everySeconds": seconds(&camera.every)}})
        }
        DatasetSource { microphone: Some(microphone), .. } => {
            let (window, every) = (seconds(&microphone.window), seconds(&microphone.every));
            json!({"share": share, "microphone": {"url": microphone.url, "windowSeconds": window, "everySeconds": every}})
        }
        _ => return None,
    })
}

/// Of requests that may not leave the router hands over features. One that does not know of them hands over what the collector drops.
fn tap(dataset: &str, collect: &ModelCollect, features: bool) -> Value {
    let mut tap = Map::new();
    tap.insert("dataset".into(), json!(dataset));
    tap.insert("share".into(), json!(share(&collect.share)));
    if let Some(bound) = &collect.margin_below {
        tap.insert("marginBelow".into(), json!(share(bound)));
    }
    if let Some(most) = collect.per_class_per_day {
        tap.insert("perClassPerDay".into(), json!(most));
    }
    if features {
        tap.insert("features".into(), json!(true));
    }
    tap.into()
}

fn share(percent: &Percent) -> f64 {
    percent.millis().unwrap_or(0) as f64 / 100_000.0
}

fn seconds(text: &DurationText) -> u64 {
    text.parse().unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(labels: Value) -> EdgeSite {
        serde_json::from_value(json!({
            "apiVersion": "sconce.dev/v1alpha1", "kind": "EdgeSite",
            "metadata": {"name": "shop-7", "labels": labels},
            "spec": {"fleetRef": {"name": "shops"}},
        }))
        .unwrap()
    }

    fn dataset(name: &str, fleet: &str, rest: Value) -> EdgeDataset {
        let mut spec = json!({"fleetRef": {"name": fleet}, "uri": "s3://lake/digits", "kind": "Image",
            "privacy": {"policy": "Raw"}});
        spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "sconce.dev/v1alpha1", "kind": "EdgeDataset",
            "metadata": {"name": name, "namespace": "vision"}, "spec": spec,
        }))
        .unwrap()
    }

    fn model(name: &str, dataset: &str) -> EdgeModel {
        serde_json::from_value(json!({
            "apiVersion": "sconce.dev/v1alpha1", "kind": "EdgeModel",
            "metadata": {"name": name, "namespace": "vision"},
            "spec": {"fleetRef": {"name": "shops"}, "model": {"uri": "oci://r/m:1"}, "latencyBudget": "20ms",
                "collect": {"datasetRef": {"name": dataset}, "share": "1%", "marginBelow": "30%", "perClassPerDay": 50}},
        }))
        .unwrap()
    }

    /// The collector reads the same file in its own tests.
    #[test]
    fn the_collectors_file_says_what_the_dataset_says() {
        let full = dataset(
            "digits",
            "shops",
            json!({
                "sources": [{"http": {}, "share": "50%"}, {"directory": {"name": "scanner"}},
                    {"mqtt": {"broker": "mqtts://door:8883", "topic": "door/+/image"}},
                    {"mjpeg": {"url": "http://camera/stream", "every": "10s"}}],
                "privacy": {"policy": "Masked", "mask": {"blocks": 64,
                    "zones": [{"camera": "*", "left": 0, "top": 50, "width": 100, "height": 50}]}},
                "buffer": {"maxSize": "2Gi", "maxAge": "336h"},
                "upload": {"maxRate": "1600k", "delay": "5m",
                    "window": {"start": "22:00", "end": "05:00", "timeZone": "Europe/Berlin"}},
            }),
        );
        let of_sound = |name, privacy: Value, source: Value| {
            dataset(name, "shops", json!({"kind": "Audio", "privacy": privacy, "sources": [source]}))
        };
        let microphone = json!({"microphone": {"url": "http://door/sound", "window": "2s", "every": "1m"}});
        let voices = of_sound("voices", json!({"policy": "Raw", "consent": "Required"}), json!({"http": {}}));
        let sounds = of_sound("sounds", json!({"policy": "StatisticsOnly", "consent": "None"}), microphone);
        let seen = dataset("seen", "shops", json!({"privacy": {"policy": "FeaturesOnly"}}));
        let written = files(&site(json!({})), [&full, &voices, &sounds, &seen], []).collect;
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../collector/tests/agents.json");
        let known: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert_eq!(written, known);
    }

    #[test]
    fn a_site_collects_what_selects_it_and_models_give_to_what_is_collected() {
        let north = json!({"matchLabels": {"region": "north"}});
        let datasets = [
            dataset("digits", "shops", json!({})),
            dataset("northern", "shops", json!({"sites": north})),
            dataset("foreign", "banks", json!({})),
        ];
        let models = [model("digits", "digits"), model("other", "northern"), model("lost", "nowhere")];
        let check = |labels: Value, datasets_here: &[&str], models_here: &[&str]| {
            let Files { collect, taps } = files(&site(labels), &datasets, &models);
            let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&collect["datasets"]), datasets_here);
            assert_eq!(names(&taps["models"]), models_here);
        };
        check(json!({"region": "south"}), &["vision/digits"], &["digits.vision"]);
        check(json!({"region": "north"}), &["vision/digits", "vision/northern"], &["digits.vision", "other.vision"]);
        let taps = files(&site(json!({})), &datasets, &models).taps;
        let expected = json!({"dataset": "vision/digits", "share": 0.01, "marginBelow": 0.3, "perClassPerDay": 50});
        assert_eq!(taps["models"]["digits.vision"], expected);
        let private = dataset("digits", "shops", json!({"privacy": {"policy": "FeaturesOnly"}}));
        let taps = files(&site(json!({})), [&private], &models).taps;
        assert_eq!(taps["models"]["digits.vision"]["features"], json!(true));
    }
}
