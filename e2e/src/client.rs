//! What the client pods report: requests sent from inside a site to its node's router.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// One measured run of `digits-client run`, as it prints it with `-o json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answers {
    pub model: String,
    pub sent: u64,
    pub failed: u64,
    #[serde(default)]
    pub errors: Vec<String>,
    pub accuracy: f64,
    #[serde(rename = "p50Ms")]
    pub p50_ms: f64,
    #[serde(rename = "p99Ms")]
    pub p99_ms: f64,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

/// What a run of the client asks for.
#[derive(Clone, Debug, Default)]
pub struct ClientRun {
    pub model: String,
    pub count: Option<u64>,
    pub rate: Option<u64>,
    pub duration: Option<String>,
    /// Only these of the client's images.
    pub images: Option<Range<usize>>,
    /// As they look once the site's world has shifted.
    pub shifted: bool,
}

impl ClientRun {
    pub fn of(model: &str) -> Self {
        Self { model: model.into(), ..Self::default() }
    }

    pub fn count(self, count: u64) -> Self {
        Self { count: Some(count), ..self }
    }

    pub fn rate(self, rate: u64) -> Self {
        Self { rate: Some(rate), ..self }
    }

    pub fn duration(self, duration: &str) -> Self {
        Self { duration: Some(duration.into()), ..self }
    }

    pub fn images(self, images: Range<usize>) -> Self {
        Self { images: Some(images), ..self }
    }

    pub fn shifted(self, shifted: bool) -> Self {
        Self { shifted, ..self }
    }

    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = ["run", "-o", "json", "--model", &self.model].map(String::from).into();
        let optional = [
            ("--count", self.count.map(|count| count.to_string())),
            ("--rate", self.rate.map(|rate| rate.to_string())),
            ("--duration", self.duration.clone()),
            ("--images", self.images.as_ref().map(|images| format!("{}..{}", images.start, images.end))),
        ];
        for (flag, value) in optional {
            arguments.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
        }
        arguments.extend(self.shifted.then(|| "--shifted".to_owned()));
        arguments
    }
}
