//! Models by name and version: pure, whatever it is that runs.

use super::Model;
use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;

/// Names, and the versions of each, the newest last. A small value: changes are made to a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Models<M>(BTreeMap<String, Vec<Entry<M>>>);

/// A version that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<M> {
    /// Empty where nothing was ever loaded.
    pub version: String,
    pub running: Option<M>,
    /// Why it does not run; or why what runs is not what was last to be loaded.
    pub reason: String,
}

/// Why there is nobody to ask.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unserved {
    #[error("Request for unknown model: no model \"{asked}\" here; this server has {known}")]
    Model { asked: String, known: String },
    #[error("no version \"{asked}\" of \"{model}\" here; this server has {known}")]
    Version { asked: String, model: String, known: String },
    #[error("\"{model}\" is not served at the moment: {why}")]
    Unavailable { model: String, why: String },
}

/// What runs says who it is.
pub trait Named {
    fn name(&self) -> &str;
    fn version(&self) -> &str;
}

impl Named for Arc<Model> {
    fn name(&self) -> &str {
        &self.identity.name
    }

    fn version(&self) -> &str {
        &self.identity.version
    }
}

impl<M> Default for Models<M> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<M> Models<M> {
    /// The version that is asked for, or the newest that runs.
    ///
    /// # Errors
    /// [`Unserved`] says what there is instead.
    pub fn named(&self, name: &str, version: &str) -> Result<&M, Unserved> {
        let Some(entries) = self.0.get(name) else {
            return Err(Unserved::Model { asked: name.into(), known: listed(self.0.keys()) });
        };
        let entry = if version.is_empty() {
            entries.iter().rev().find(|entry| entry.running.is_some()).or(entries.last())
        } else {
            entries.iter().find(|entry| entry.version == version)
        };
        let Some(entry) = entry else {
            let known = listed(entries.iter().map(|entry| &entry.version));
            return Err(Unserved::Version { asked: version.into(), model: name.into(), known });
        };
        let why = || Unserved::Unavailable { model: name.into(), why: entry.reason.clone() };
        entry.running.as_ref().ok_or_else(why)
    }

    /// All that are known, by name and then by version.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Entry<M>)> {
        self.0.iter().flat_map(|(name, entries)| entries.iter().map(|entry| (name.as_str(), entry)))
    }

    /// Those that run.
    pub fn running(&self) -> impl Iterator<Item = &M> {
        self.all().filter_map(|(_, entry)| entry.running.as_ref())
    }

    /// Names of models that run.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let runs = |entries: &[Entry<M>]| entries.iter().any(|entry| entry.running.is_some());
        self.0.iter().filter(move |(_, entries)| runs(entries)).map(|(name, _)| name.as_str())
    }

    /// A model might be loaded.
    pub fn known(&mut self, name: &str) {
        if !self.0.contains_key(name) {
            self.0.insert(name.into(), vec![Entry::without(String::new(), "not loaded")]);
        }
    }

    /// A version could not be loaded. `None`: whichever is there was to be replaced.
    pub fn failed(&mut self, name: &str, version: Option<&str>, why: &str) {
        let entries = self.0.entry(name.into()).or_default();
        match entries.iter_mut().find(|entry| version.is_none_or(|version| entry.version == version)) {
            Some(entry) => entry.reason = why.into(),
            None => entries.push(Entry::without(version.unwrap_or_default().into(), why)),
        }
        entries.sort_by(newest_last);
    }

    /// Leaves a model these versions; those that went are returned.
    pub fn keep(&mut self, name: &str, versions: &[String]) -> Vec<Entry<M>> {
        let entries = self.0.get_mut(name);
        entries
            .map(|entries| entries.extract_if(.., |entry| !versions.contains(&entry.version)).collect())
            .unwrap_or_default()
    }

    /// All versions of a model end; `None` if there is no such model.
    pub fn unload(&mut self, name: &str) -> Option<Vec<M>> {
        let entries = self.0.get_mut(name)?;
        let ended = entries.iter_mut().filter_map(|entry| {
            let ended = entry.running.take()?;
            entry.reason = "unloaded".into();
            Some(ended)
        });
        Some(ended.collect())
    }
}

impl<M: Named> Models<M> {
    /// A version runs. Those in whose place it does are returned: the same version, or any if it is the only one that a model
    /// can have.
    pub fn put(&mut self, running: M, alone: bool) -> Vec<Entry<M>> {
        let version = running.version().to_owned();
        let entries = self.0.entry(running.name().to_owned()).or_default();
        let ended = entries.extract_if(.., |entry| alone || entry.version == version).collect();
        entries.push(Entry { version, running: Some(running), reason: String::new() });
        entries.sort_by(newest_last);
        ended
    }
}

impl<M> Entry<M> {
    fn without(version: String, why: &str) -> Self {
        Self { version, running: None, reason: why.into() }
    }
}

/// By number, where versions are numbers.
fn newest_last<M>(a: &Entry<M>, b: &Entry<M>) -> std::cmp::Ordering {
    let number = |entry: &Entry<M>| entry.version.parse::<u64>().ok();
    (number(a), &a.version).cmp(&(number(b), &b.version))
}

/// As messages have it.
pub(super) fn listed(names: impl Iterator<Item = impl std::fmt::Debug>) -> String {
    let names: Vec<_> = names.map(|name| format!("{name:?}")).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a model "a": its version, and how often that was loaded.
    #[derive(Clone, Debug, PartialEq)]
    struct Run(&'static str, u32);

    impl Named for Run {
        fn name(&self) -> &str {
            "a"
        }

        fn version(&self) -> &str {
            self.0
        }
    }

    fn models(runs: &[Run]) -> Models<Run> {
        let mut models = Models::default();
        runs.iter().for_each(|run| drop(models.put(run.clone(), false)));
        models
    }

    fn told(models: &Models<Run>) -> Vec<(String, Option<u32>, String)> {
        models
            .all()
            .map(|(_, entry)| (entry.version.clone(), entry.running.as_ref().map(|run| run.1), entry.reason.clone()))
            .collect()
    }

    #[test]
    fn the_newest_that_runs_is_who_answers_unless_a_version_is_named() {
        let mut models = models(&[Run("10", 1), Run("9", 1), Run("2", 1)]);
        assert_eq!(models.named("a", ""), Ok(&Run("10", 1)));
        assert_eq!(models.named("a", "9"), Ok(&Run("9", 1)));
        let told = |error: Result<&Run, Unserved>| error.unwrap_err().to_string();
        assert_eq!(
            told(models.named("b", "")),
            "Request for unknown model: no model \"b\" here; this server has \"a\""
        );
        assert_eq!(
            told(models.named("a", "7")),
            "no version \"7\" of \"a\" here; this server has \"2\", \"9\", \"10\""
        );
        models.failed("a", Some("11"), "rotten");
        assert_eq!(models.named("a", ""), Ok(&Run("10", 1)));
        assert_eq!(told(models.named("a", "11")), "\"a\" is not served at the moment: rotten");
        assert_eq!(models.unload("a").map(|ended| ended.len()), Some(3));
        assert_eq!(told(models.named("a", "")), "\"a\" is not served at the moment: rotten");
        assert_eq!(told(models.named("a", "9")), "\"a\" is not served at the moment: unloaded");
        assert_eq!((models.unload("b"), models.names().next()), (None, None));
    }

    #[test]
    fn a_version_replaces_itself_and_one_that_stands_alone_all_others() {
        let mut models = models(&[Run("1", 1), Run("2", 1)]);
        models.failed("a", Some("1"), "rotten");
        assert_eq!(told(&models), [("1".into(), Some(1), "rotten".into()), ("2".into(), Some(1), String::new())]);
        let ended = models.put(Run("1", 2), false);
        assert_eq!(ended[0].running, Some(Run("1", 1)));
        assert_eq!(told(&models), [("1".into(), Some(2), String::new()), ("2".into(), Some(1), String::new())]);
        assert_eq!(models.keep("a", &["1".into()])[0].version, "2");
        let ended = models.put(Run("sha256-0", 1), true);
        assert_eq!((ended.len(), told(&models)), (1, vec![("sha256-0".into(), Some(1), String::new())]));
        models.failed("a", None, "rotten");
        assert_eq!(told(&models), [("sha256-0".into(), Some(1), "rotten".into())]);
    }

    #[test]
    fn what_is_known_and_was_never_loaded_says_so() {
        let mut models = models(&[Run("1", 1)]);
        models.known("a");
        models.known("b");
        models.failed("c", None, "rotten");
        assert_eq!(models.named("b", "").unwrap_err().to_string(), "\"b\" is not served at the moment: not loaded");
        assert_eq!(models.named("c", "").unwrap_err().to_string(), "\"c\" is not served at the moment: rotten");
        assert_eq!(models.names().collect::<Vec<_>>(), ["a"]);
    }
}
