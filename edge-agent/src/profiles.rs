//! Which variants are to be measured on this node, and what is told of those that were. Pure.

use crate::round::{duration_text, two_digits};
use sconce_api::{BatchTime, EdgeModelVersion, NodeProfile};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

pub const SCHEMA: u32 = 1;
/// As many as the API takes.
const MOST: usize = 64;
const MOST_SIZES: usize = 6;
/// Of the EdgeNode's 32 KiB: the rest is for what clients waited.
const MOST_BYTES: usize = 16 << 10;

/// What the measurer beside us is asked for.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub schema: u32,
    /// Of the node's hardware: what was measured on another counts no more.
    pub class: String,
    pub variants: Vec<Ask>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// `oci://HOST/REPOSITORY`.
    pub from: String,
    pub digest: String,
    pub variant: String,
}

/// What it answers.
#[derive(Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    pub schema: u32,
    pub class: String,
    pub variants: Vec<Outcome>,
}

#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub digest: String,
    pub variant: String,
    #[serde(flatten)]
    pub state: State,
}

#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "state")]
pub enum State {
    Begun,
    Measured { threads: i64, batches: Vec<Batch> },
    Failed { why: String },
}

#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    pub size: i64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub samples: u64,
}

/// What is known of the variants that may run here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profiles {
    /// Measured since this start of the agent, or of the measurer.
    pub rows: Vec<NodeProfile>,
    /// Digests of the versions that may run here.
    pub wanted: BTreeSet<String>,
    pub standing: Standing,
}

/// How far the measuring has got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub asked: usize,
    pub measured: usize,
    pub failed: usize,
    /// Of the first that could not be measured: what, and why.
    pub failure: Option<String>,
}

impl Standing {
    pub fn is_done(&self) -> bool {
        self.measured + self.failed >= self.asked
    }
}

/// Variants of the versions that may run here, in their order.
pub fn asks<'a>(versions: impl IntoIterator<Item = &'a EdgeModelVersion>) -> Vec<Ask> {
    let of_version = |version: &'a EdgeModelVersion| {
        let from = version.spec.uri.split('@').next().unwrap_or_default();
        let variants = version.status.iter().flat_map(|status| &status.variants);
        variants.map(move |variant| Ask {
            from: from.to_owned(),
            digest: version.spec.digest.clone(),
            variant: variant.name.clone(),
        })
    };
    // Two models may have the same artifact.
    let mut seen = BTreeSet::new();
    let asks = versions.into_iter().flat_map(of_version);
    asks.filter(|ask| seen.insert((ask.digest.clone(), ask.variant.clone()))).take(MOST).collect()
}

/// What was not measured before: `told` is what the EdgeNode says.
pub fn wanted(class: &str, asks: &[Ask], told: &[NodeProfile]) -> Wanted {
    let is_told = |ask: &&Ask| told.iter().any(|told| is_of(told, ask));
    let variants = asks.iter().filter(|ask| !is_told(ask)).cloned().collect();
    Wanted { schema: SCHEMA, class: class.into(), variants }
}

fn is_of(profile: &NodeProfile, ask: &Ask) -> bool {
    (&profile.digest, &profile.variant) == (&ask.digest, &ask.variant)
}

/// What has come of the asks.
pub fn profiles(class: &str, asks: &[Ask], told: &[NodeProfile], measured: &Measured) -> Profiles {
    let outcomes: &[Outcome] = if measured.class == class { &measured.variants } else { &[] };
    let mut profiles = Profiles::default();
    profiles.standing.asked = asks.len();
    profiles.wanted = asks.iter().map(|ask| ask.digest.clone()).collect();
    for ask in asks {
        if told.iter().any(|told| is_of(told, ask)) {
            profiles.standing.measured += 1;
            continue;
        }
        let outcome =
            outcomes.iter().find(|outcome| (&outcome.digest, &outcome.variant) == (&ask.digest, &ask.variant));
        match outcome.map(|outcome| &outcome.state) {
            None | Some(State::Begun) => {}
            Some(State::Measured { threads, batches }) => {
                profiles.standing.measured += 1;
                profiles.rows.push(row(ask, *threads, batches));
            }
            Some(State::Failed { why }) => {
                profiles.standing.failed += 1;
                let repository = ask.from.trim_start_matches("oci://");
                profiles.standing.failure.get_or_insert(format!("{} of {repository}: {why}", ask.variant));
            }
        }
    }
    profiles
}

fn row(ask: &Ask, threads: i64, batches: &[Batch]) -> NodeProfile {
    let batch = |batch: &Batch| BatchTime {
        size: batch.size,
        p50: duration_text(Duration::from_nanos(batch.p50_ns)),
        p99: duration_text(Duration::from_nanos(batch.p99_ns)),
        samples: Some(two_digits(batch.samples) as i64),
    };
    NodeProfile {
        digest: ask.digest.clone(),
        variant: ask.variant.clone(),
        threads,
        batches: batches.iter().take(MOST_SIZES).map(batch).collect(),
    }
}

/// What the EdgeNode says from now on: what it said, and what is new. One that was told is told no other way: two measurements
/// differ. Where there is no room for all, those go that nothing here asks for.
pub fn told(old: &[NodeProfile], new: &Profiles) -> Vec<NodeProfile> {
    let is_new = |row: &&NodeProfile| !old.iter().any(|old| (&old.digest, &old.variant) == (&row.digest, &row.variant));
    let mut rows: Vec<NodeProfile> = old.iter().chain(new.rows.iter().filter(is_new)).cloned().collect();
    rows.sort_by_key(|row| !new.wanted.contains(&row.digest));
    let mut bytes = 0;
    let fits = |row: &NodeProfile| {
        bytes += serde_json::to_string(row).map_or(0, |text| text.len() + 1);
        bytes <= MOST_BYTES
    };
    let mut rows: Vec<_> = rows.into_iter().take_while(fits).take(MOST).collect();
    rows.sort_by(|one, other| (&one.digest, &one.variant).cmp(&(&other.digest, &other.variant)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn version(digest: &str, variants: &[&str]) -> EdgeModelVersion {
        let variants: Vec<_> =
            variants.iter().map(|name| json!({"name": name, "bytes": 1, "memory": 1, "flops": 1})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": "digits-1", "namespace": "vision"},
            "spec": {"modelRef": {"name": "digits"}, "uri": format!("oci://r:5000/m/digits@{digest}"), "digest": digest},
            "status": {"variants": variants},
        }))
        .unwrap()
    }

    fn profile(digest: &str, variant: &str) -> NodeProfile {
        let ask = Ask { from: "oci://r:5000/m/digits".into(), digest: digest.into(), variant: variant.into() };
        row(&ask, 1, &[1, 4, 16].map(|size| Batch { size, p50_ns: 412_345, p99_ns: 1_234_567, samples: 1234 }))
    }

    #[test]
    fn what_was_told_is_not_asked_again() {
        let asks = asks([&version("sha256:a", &["f32", "int8"]), &version("sha256:a", &["f32"])]);
        assert_eq!(asks.len(), 2);
        let wanted = wanted("amd64-avx2-2", &asks, &[profile("sha256:a", "f32")]);
        let ask = Ask { from: "oci://r:5000/m/digits".into(), digest: "sha256:a".into(), variant: "int8".into() };
        assert_eq!(wanted, Wanted { schema: 1, class: "amd64-avx2-2".into(), variants: vec![ask] });
    }

    #[test]
    fn outcomes_become_rows_and_a_standing() {
        let asks = asks([&version("sha256:a", &["f32", "int8", "f16"])]);
        let answer = json!({"schema": 1, "class": "c", "variants": [
            {"digest": "sha256:a", "variant": "int8", "state": "Measured", "threads": 1,
                "batches": [{"size": 1, "p50Ns": 412_345, "p99Ns": 1_234_567, "samples": 1234}]},
            {"digest": "sha256:a", "variant": "f16", "state": "Failed", "why": "RegistryUnreachable", "failures": 2},
            {"digest": "sha256:b", "variant": "f16", "state": "Begun"}]});
        let measured: Measured = serde_json::from_value(answer).unwrap();
        let profiles = super::profiles("c", &asks, &[profile("sha256:a", "f32")], &measured);
        let batch = BatchTime { size: 1, p50: "410us".into(), p99: "1200us".into(), samples: Some(1200) };
        let expected =
            NodeProfile { digest: "sha256:a".into(), variant: "int8".into(), threads: 1, batches: vec![batch] };
        assert_eq!(profiles.rows, [expected]);
        let failure = Some("f16 of r:5000/m/digits: RegistryUnreachable".to_owned());
        assert_eq!(profiles.standing, Standing { asked: 3, measured: 2, failed: 1, failure });
        let elsewhere = super::profiles("another", &asks, &[], &measured);
        assert_eq!((elsewhere.rows.len(), elsewhere.standing.is_done()), (0, false));
    }

    #[test]
    fn what_was_told_stays_and_what_nobody_asks_for_goes_first() {
        let digest = |index: usize| format!("sha256:{index:064x}");
        let old: Vec<_> = (0..60).map(|index| profile(&digest(index), "f32")).collect();
        let wanted = BTreeSet::from([digest(59), digest(99)]);
        let faster = NodeProfile { threads: 2, ..profile(&digest(59), "f32") };
        let new = Profiles { rows: vec![faster, profile(&digest(99), "f32")], wanted, standing: Standing::default() };
        let told = told(&old, &new);
        let has = |index| told.iter().find(|row| row.digest == digest(index)).map(|row| row.threads);
        assert_eq!((has(59), has(99), has(0)), (Some(1), Some(1), Some(1)));
        assert!(told.len() >= 48 && serde_json::to_string(&told).unwrap().len() <= MOST_BYTES + 2, "{}", told.len());
        assert_eq!(super::told(&told, &new), told, "and then all stays");
    }
}
