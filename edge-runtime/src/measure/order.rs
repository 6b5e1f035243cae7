//! What the node's agent wants measured, and what came of it: two files, and what is to be done next. Pure but for the files.

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::time::{Duration, Instant};

pub const WANTED: &str = "wanted.json";
pub const MEASURED: &str = "measured.json";
const SCHEMA: u32 = 1;

/// Until what failed is tried again: a registry may be away, or the node busy. Twice as long after each further failure, since
/// each try fetches the model anew.
const RETRY: Duration = Duration::from_secs(600);
const LONGEST: Duration = Duration::from_secs(6 * 3600);

/// The agent's file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    pub schema: u32,
    /// Of the node's hardware: what was measured on another counts no more.
    pub class: String,
    pub variants: Vec<Ask>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// `oci://HOST/REPOSITORY`.
    pub from: String,
    pub digest: String,
    pub variant: String,
}

/// Our file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    pub schema: u32,
    pub class: String,
    pub variants: Vec<Outcome>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub digest: String,
    pub variant: String,
    #[serde(flatten)]
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all_fields = "camelCase")]
pub enum State {
    /// Under way; after a start of this process: it ended the process before.
    Begun,
    Measured {
        threads: u64,
        batches: Vec<Batch>,
    },
    Failed {
        why: String,
        /// Failures of its version in a row; 0 = it is tried no more.
        #[serde(default)]
        failures: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    pub size: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub samples: u64,
}

/// What has come of what was wanted since the start of this process, and before.
#[derive(Default)]
pub struct Outcomes {
    measured: Measured,
    /// By digest, what failed: variants of a version have the same registry.
    failed: BTreeMap<String, Failed>,
    /// What makes this node wait otherwise than others, which lost the registry at the same moment.
    node: RandomState,
}

struct Failed {
    /// In a row.
    failures: u32,
    until: Instant,
}

impl Outcomes {
    /// Goes on from the file. What had begun then ended this process, and would again.
    pub fn read(folder: &Path, now: Instant) -> Self {
        let mut measured: Measured = read(&folder.join(MEASURED)).filter(known).unwrap_or_default();
        for outcome in measured.variants.iter_mut().filter(|outcome| outcome.state == State::Begun) {
            let why = "the measurement ended its container: does the model need more memory than that may have?";
            outcome.state = State::Failed { why: why.into(), failures: 0 };
        }
        let mut outcomes = Self { measured, ..Self::default() };
        for Outcome { digest, state, .. } in &outcomes.measured.variants {
            if let State::Failed { failures: failures @ 1.., .. } = *state {
                let known = outcomes.failed.get(digest).map_or(0, |failed| failed.failures).max(failures);
                let until = now + delay(&outcomes.node, digest, known);
                outcomes.failed.insert(digest.clone(), Failed { failures: known, until });
            }
        }
        outcomes
    }

    /// The first that was not measured yet, or failed long ago. Of what is not wanted any more nothing is kept.
    pub fn next(&mut self, wanted: &Wanted, now: Instant) -> Option<Ask> {
        if self.measured.class != wanted.class {
            *self = Self::default();
            self.measured = Measured { schema: SCHEMA, class: wanted.class.clone(), variants: Vec::new() };
        }
        let is_wanted = |outcome: &Outcome| wanted.variants.iter().any(|ask| outcome.is_of(ask));
        self.measured.variants.retain(is_wanted);
        wanted.variants.iter().find(|ask| self.is_due(ask, now)).cloned()
    }

    fn is_due(&self, ask: &Ask, now: Instant) -> bool {
        let known = self.measured.variants.iter().find(|outcome| outcome.is_of(ask));
        match known.map(|outcome| &outcome.state) {
            None => true,
            Some(State::Failed { failures: 0, .. }) => false,
            Some(State::Failed { .. }) => self.failed.get(&ask.digest).is_none_or(|failed| failed.until <= now),
            Some(_) => false,
        }
    }

    pub fn note(&mut self, ask: &Ask, mut state: State, now: Instant) {
        match &mut state {
            State::Failed { failures, .. } => *failures = self.failed_now(&ask.digest, now),
            // Its registry answers: what else of it failed is tried at once.
            State::Measured { .. } => drop(self.failed.remove(&ask.digest)),
            State::Begun => {}
        }
        self.measured.variants.retain(|outcome| !outcome.is_of(ask));
        let Ask { digest, variant, .. } = ask.clone();
        self.measured.variants.push(Outcome { digest, variant, state });
    }

    /// Failures in a row of the version; those of its variants that come one after the other are one.
    fn failed_now(&mut self, digest: &str, now: Instant) -> u32 {
        let before = self.failed.get(digest);
        let failures = match before {
            Some(before) if before.until > now => return before.failures,
            before => before.map_or(0, |before| before.failures).saturating_add(1),
        };
        let until = now + delay(&self.node, digest, failures);
        self.failed.insert(digest.to_owned(), Failed { failures, until });
        failures
    }

    /// Writes the file whole: a reader sees the old one or the new one.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let (path, new) = (folder.join(MEASURED), folder.join("measured.json.new"));
        let bytes = serde_json::to_vec(&self.measured)?;
        let written = std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, &path));
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

/// 10, 20, 40 minutes, at most 6 hours; and up to a quarter of that on top, by lot.
fn delay(node: &RandomState, digest: &str, failures: u32) -> Duration {
    let delay = RETRY.saturating_mul(1 << (failures.clamp(1, 16) - 1)).min(LONGEST);
    let lot = node.hash_one((digest, failures)) % 1024;
    delay + delay.mul_f64(lot as f64 / 4096.0)
}

impl Outcome {
    fn is_of(&self, ask: &Ask) -> bool {
        self.digest == ask.digest && self.variant == ask.variant
    }
}

/// What the agent wants; nothing where there is no file of its yet.
pub fn wanted(folder: &Path) -> Option<Wanted> {
    read(&folder.join(WANTED)).filter(|wanted: &Wanted| wanted.schema == SCHEMA)
}

fn known(measured: &Measured) -> bool {
    measured.schema == SCHEMA
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = std::fs::read(path).ok()?;
    let read = serde_json::from_slice(&bytes);
    read.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "not understood; as if it were not there"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(class: &str, variants: &[&str]) -> Wanted {
        let ask =
            |variant: &&str| Ask { from: "oci://r/m".into(), digest: "sha256:aa".into(), variant: (*variant).into() };
        Wanted { schema: 1, class: class.into(), variants: variants.iter().map(ask).collect() }
    }

    fn next(outcomes: &mut Outcomes, wanted: &Wanted, now: Instant) -> String {
        outcomes.next(wanted, now).map(|ask| ask.variant).unwrap_or_default()
    }

    #[test]
    fn each_is_measured_once_and_again_on_another_class() {
        let (mut outcomes, now) = (Outcomes::default(), Instant::now());
        let both = wanted("a", &["f32", "int8"]);
        assert_eq!(next(&mut outcomes, &both, now), "f32");
        outcomes.note(&both.variants[0], State::Begun, now);
        assert_eq!(next(&mut outcomes, &both, now), "int8");
        outcomes.note(&both.variants[0], State::Measured { threads: 1, batches: Vec::new() }, now);
        outcomes.note(&both.variants[1], State::Measured { threads: 1, batches: Vec::new() }, now);
        assert_eq!(next(&mut outcomes, &both, now), "");
        assert_eq!(next(&mut outcomes, &wanted("a", &["f32"]), now), "");
        assert_eq!(outcomes.measured.variants.len(), 1, "of what is not wanted nothing is kept");
        assert_eq!(next(&mut outcomes, &wanted("b", &["f32"]), now), "f32");
    }

    fn failed() -> State {
        State::Failed { why: "RegistryUnreachable".into(), failures: 0 }
    }

    /// The longest that the lot makes of it.
    fn within(delay: Duration) -> Duration {
        delay + delay / 4
    }

    #[test]
    fn what_failed_is_tried_again_after_a_while_and_what_ended_the_process_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (mut outcomes, now) = (Outcomes::default(), Instant::now());
        let both = wanted("a", &["f32", "int8"]);
        next(&mut outcomes, &both, now);
        outcomes.note(&both.variants[0], failed(), now);
        outcomes.note(&both.variants[1], State::Begun, now);
        assert_eq!(next(&mut outcomes, &both, now + RETRY / 2), "");
        assert_eq!(next(&mut outcomes, &both, now + within(RETRY)), "f32");
        outcomes.write(folder.path()).unwrap();

        let mut again = Outcomes::read(folder.path(), now);
        assert_eq!(next(&mut again, &both, now + RETRY / 2), "");
        assert_eq!(next(&mut again, &both, now + within(RETRY)), "f32");
        again.note(&both.variants[0], State::Measured { threads: 1, batches: Vec::new() }, now);
        assert_eq!(next(&mut again, &both, now + LONGEST * 9), "");
        let ended = again.measured.variants.iter().find(|outcome| outcome.variant == "int8").unwrap();
        let State::Failed { why, .. } = &ended.state else { panic!("{:?}", again.measured) };
        assert!(why.contains("more memory"), "{why}");
    }

    /// A model that cannot be measured was fetched again every ten minutes.
    #[test]
    fn each_failure_of_a_version_is_followed_by_a_longer_wait() {
        let folder = tempfile::tempdir().unwrap();
        let (mut outcomes, mut now) = (Outcomes::default(), Instant::now());
        let both = wanted("a", &["f32", "int8"]);
        for minutes in [10, 20, 40, 80, 160, 320, 360, 360] {
            // At first each is tried; later the first speaks for its version.
            while let Some(ask) = outcomes.next(&both, now) {
                outcomes.note(&ask, failed(), now);
            }
            let wait = Duration::from_secs(minutes * 60);
            assert_eq!(next(&mut outcomes, &both, now + wait - Duration::from_secs(1)), "", "{minutes} min");
            // Over a start of this process, too.
            outcomes.write(folder.path()).unwrap();
            outcomes = Outcomes::read(folder.path(), now);
            assert_eq!(next(&mut outcomes, &both, now + wait - Duration::from_secs(1)), "", "{minutes} min");
            now += within(wait);
            assert_eq!(next(&mut outcomes, &both, now), "f32");
        }
        outcomes.note(&both.variants[0], State::Measured { threads: 1, batches: Vec::new() }, now);
        assert_eq!(next(&mut outcomes, &both, now), "int8", "what the registry has again is tried at once");
        outcomes.note(&both.variants[1], failed(), now);
        assert_eq!(next(&mut outcomes, &both, now + within(RETRY)), "int8");
    }

    #[test]
    fn files_that_are_none_are_as_if_they_were_not_there() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(super::wanted(folder.path()), None);
        std::fs::write(folder.path().join(WANTED), r#"{"schema":2,"class":"a","variants":[]}"#).unwrap();
        assert_eq!(super::wanted(folder.path()), None);
        std::fs::write(folder.path().join(WANTED), r#"{"schema":1,"class":"a","variants":[]}"#).unwrap();
        assert_eq!(super::wanted(folder.path()), Some(wanted("a", &[])));
        std::fs::write(folder.path().join(MEASURED), "{").unwrap();
        assert_eq!(Outcomes::read(folder.path(), Instant::now()).measured, Measured::default());
    }
}
