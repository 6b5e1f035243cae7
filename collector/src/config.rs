//! The configuration file: which datasets this node collects, how, and where to. On Kubernetes the node's agent writes it.

use crate::privacy::Privacy;
use crate::sample::Kind;
use crate::window::{Window, zone};
use jiff::civil::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

pub const SCHEMA: u32 = 1;

#[derive(Serialize, Clone, Debug, PartialEq)]
pub struct Config {
    pub schema: u32,
    /// By `NAMESPACE/NAME`.
    pub datasets: BTreeMap<String, Dataset>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dataset {
    /// `s3://BUCKET/PREFIX`, `pvc://CLAIM/FOLDER` or `file:///FOLDER`.
    pub uri: String,
    /// Absent = samples of every kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    pub privacy: Privacy,
    /// Samples without a mark of consent are dropped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub consent: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    #[serde(default)]
    pub buffer: Buffer,
    #[serde(default)]
    pub upload: Upload,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// What a sample is taken with: its probability, from 0 to 1.
    #[serde(default = "all", skip_serializing_if = "is_all")]
    pub share: f64,
    #[serde(flatten)]
    pub from: From,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub enum From {
    /// Who posts to this node.
    Http {},
    /// Files that come into a folder; taken, they are removed. Folders in it are labels.
    Directory { path: std::path::PathBuf },
    /// Messages of a broker, MQTT 5.
    #[serde(rename_all = "camelCase")]
    Mqtt { broker: String, topic: String },
    /// Parts of what a microphone sends as WAV without end: so many seconds, once in so many.
    #[serde(rename_all = "camelCase")]
    Microphone { url: String, window_seconds: u64, every_seconds: u64 },
    /// Pictures of a camera that sends JPEG after JPEG.
    #[serde(rename_all = "camelCase")]
    Mjpeg { url: String, every_seconds: u64 },
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Buffer {
    pub max_bytes: u64,
    pub max_age_seconds: u64,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Upload {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Hours>,
    /// How long a sample waits for others to go with it, and for its label.
    pub delay_seconds: u64,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hours {
    pub start: Time,
    pub end: Time,
    #[serde(default = "utc")]
    pub time_zone: String,
}

fn all() -> f64 {
    1.0
}

fn is_all(share: &f64) -> bool {
    *share >= 1.0
}

fn utc() -> String {
    "UTC".into()
}

impl Default for Buffer {
    fn default() -> Self {
        Self { max_bytes: 1 << 30, max_age_seconds: 168 * 3600 }
    }
}

impl Default for Upload {
    fn default() -> Self {
        Self { bytes_per_second: None, window: None, delay_seconds: 60 }
    }
}

impl Hours {
    /// # Errors
    /// In words, if there is no such time zone, or if it is never open.
    pub fn window(&self) -> Result<Window, String> {
        if self.start == self.end {
            return Err(format!(
                "the window from {} to {} is never open: without one it is always",
                self.start, self.end
            ));
        }
        Ok(Window { start: self.start, end: self.end, zone: zone(&self.time_zone)? })
    }
}

impl Upload {
    pub fn delay(&self) -> Duration {
        Duration::from_secs(self.delay_seconds)
    }
}

#[derive(thiserror::Error, Debug)]
pub enum ConfigError {
    #[error("cannot read {file}")]
    Read { file: std::path::PathBuf, source: std::io::Error },
    #[error("no configuration: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the configuration has schema {got}; this collector knows {SCHEMA}: use a newer one")]
    Schema { got: u32 },
}

/// Datasets that cannot be collected as they are configured, and why.
pub type Refused = BTreeMap<String, String>;

/// The configuration without those datasets that cannot be collected, and these: one stops no other.
///
/// # Errors
/// [`ConfigError`]; the collector then goes on with what it had.
pub fn parse(bytes: &[u8]) -> Result<(Config, Refused), ConfigError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Unread {
        schema: u32,
        datasets: BTreeMap<String, serde_json::Value>,
    }
    let Unread { schema, datasets } = serde_json::from_slice(bytes)?;
    if schema != SCHEMA {
        return Err(ConfigError::Schema { got: schema });
    }
    let (mut config, mut refused) = (Config { schema, datasets: BTreeMap::new() }, Refused::new());
    for (name, dataset) in datasets {
        let read = serde_json::from_value(dataset).map_err(|error| error.to_string());
        match read.and_then(|dataset: Dataset| dataset.check(&name).map(|()| dataset)) {
            Ok(dataset) => drop(config.datasets.insert(name, dataset)),
            Err(why) => drop(refused.insert(name, why)),
        }
    }
    Ok((config, refused))
}

/// Room for sixteen segments of the smallest size.
const LEAST_BUFFER: u64 = 4 << 20;

impl Dataset {
    fn check(&self, name: &str) -> Result<(), String> {
        let is_word = |word: &str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        };
        if !name.split_once('/').is_some_and(|(namespace, name)| is_word(namespace) && is_word(name)) {
            return Err("a dataset is called NAMESPACE/NAME, of letters, digits, dots and dashes".into());
        }
        if self.buffer.max_bytes < LEAST_BUFFER {
            return Err(format!(
                "a buffer of {} bytes is too small: let it be {LEAST_BUFFER} or more",
                self.buffer.max_bytes
            ));
        }
        if let Some(source) = self.sources.iter().find(|source| !(0.0..=1.0).contains(&source.share)) {
            return Err(format!("a share is between 0 and 1, not {}", source.share));
        }
        let is_mute = |source: &&Source| matches!(source.from, From::Mjpeg { .. } | From::Microphone { .. });
        if self.consent && self.sources.iter().any(|source| is_mute(&source)) {
            return Err(
                "a camera and a microphone cannot tell of consent, which this dataset needs: leave them out".into()
            );
        }
        if self.privacy == Privacy::FeaturesOnly && !self.sources.is_empty() {
            return Err(
                "FeaturesOnly keeps what models make of their requests, and a source has no model: leave sources out"
                    .into(),
            );
        }
        if let Privacy::Masked { mask } = &self.privacy
            && (mask.blocks == Some(0) || (mask.zones.is_empty() && mask.blocks.is_none()))
        {
            return Err("Masked needs zones, or one block or more: else it would cover nothing".into());
        }
        self.upload.window.as_ref().map_or(Ok(()), |hours| hours.window().map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(text: &str) -> Result<Config, String> {
        let text = format!(r#"{{"schema": 1, "datasets": {{"vision/digits": {text}}}}}"#);
        let (config, mut refused) = parse(text.as_bytes()).map_err(|error| error.to_string())?;
        refused.remove("vision/digits").map_or(Ok(config), Err)
    }

    #[test]
    fn a_configuration_is_read_with_its_defaults() {
        let text = r#"{"uri": "s3://lake/digits", "privacy": {"policy": "Masked", "mask": {"blocks": 8}},
            "sources": [{"http": {}}, {"mqtt": {"broker": "mqtt://door:1883", "topic": "door/+/image"}, "share": 0.5}],
            "upload": {"window": {"start": "22:00", "end": "05:00", "timeZone": "Europe/Berlin"}}}"#;
        let config = dataset(text).unwrap();
        let digits = &config.datasets["vision/digits"];
        assert_eq!(digits.sources[0], Source { share: 1.0, from: From::Http {} });
        assert_eq!((digits.buffer.max_bytes, digits.upload.delay_seconds), (1 << 30, 60));
        let (again, _) = parse(&serde_json::to_vec(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn what_the_agent_writes_is_read() {
        let (config, refused) = parse(include_bytes!("../tests/agents.json")).unwrap();
        assert_eq!(refused, Refused::new());
        let digits = &config.datasets["vision/digits"];
        assert_eq!((digits.kind, digits.sources.len(), digits.sources[0].share), (Some(Kind::Image), 4, 0.5));
        assert_eq!(config.datasets["vision/seen"].privacy, Privacy::FeaturesOnly);
        assert!(!digits.consent && config.datasets["vision/voices"].consent);
        assert_eq!(digits.upload.bytes_per_second, Some(200_000));
    }

    /// One of them stopped all.
    #[test]
    fn a_dataset_that_cannot_be_collected_stops_no_other() {
        let text = br#"{"schema": 1, "datasets": {
            "vision/good": {"uri": "s3://l", "privacy": {"policy": "Raw"}},
            "vision/mars": {"uri": "s3://l", "privacy": {"policy": "Raw"}, "upload": {"window": {"start": "22:00", "end": "05:00", "timeZone": "Mars"}}},
            "vision/new": {"uri": "s3://l", "privacy": {"policy": "Raw"}, "sources": [{"lidar": {}}]}}}"#;
        let (config, refused) = parse(text).unwrap();
        assert_eq!(config.datasets.keys().collect::<Vec<_>>(), ["vision/good"]);
        assert_eq!(refused.keys().collect::<Vec<_>>(), ["vision/mars", "vision/new"]);
        assert!(refused["vision/mars"].contains("no time zone"), "{refused:?}");
    }

    #[test]
    fn what_cannot_be_done_is_refused_in_words() {
        let check = |text: &str, expected: &str| {
            let error = dataset(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(r#"{"uri": "s3://l", "privacy": {"policy": "Masked", "mask": {}}}"#, "would cover nothing");
        check(r#"{"uri": "s3://l", "privacy": {"policy": "Unheard"}}"#, "Unheard");
        check(
            r#"{"uri": "s3://l", "privacy": {"policy": "FeaturesOnly"}, "sources": [{"http": {}}]}"#,
            "a source has no model: leave sources out",
        );
        check(
            r#"{"uri": "s3://l", "privacy": {"policy": "Raw"}, "consent": true, "sources": [{"mjpeg": {"url": "http://c", "everySeconds": 1}}]}"#,
            "cannot tell of consent",
        );
        check(r#"{"uri": "s3://l", "privacy": {"policy": "Raw"}, "buffer": {"maxBytes": 7}}"#, "too small");
        check(
            r#"{"uri": "s3://l", "privacy": {"policy": "Raw"}, "sources": [{"http": {}, "share": 2}]}"#,
            "between 0 and 1",
        );
        check(
            r#"{"uri": "s3://l", "privacy": {"policy": "Raw"}, "upload": {"window": {"start": "22:00", "end": "05:00", "timeZone": "Mars"}}}"#,
            "no time zone",
        );
        assert!(matches!(parse(br#"{"schema": 2, "datasets": {}}"#), Err(ConfigError::Schema { got: 2 })));
    }
}
