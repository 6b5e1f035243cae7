//! When a recipe runs again: by a person, by the clock, by what has been labelled since, or when the world is another.

use crate::amounts::*;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Exactly one of manual, schedule, samples and drift.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.manual), has(self.schedule), has(self.samples), has(self.drift)].filter(one, one).size() == 1").message("a trigger is exactly one of manual, schedule, samples and drift"),
    validation = Rule::new("!has(self.minNew) || has(self.schedule) || has(self.drift)").message("minNew goes with schedule and drift: samples has its own number")
)]
pub struct TrainingTrigger {
    /// Only when somebody sets the annotation sconce.dev/run-requested to a new value; that begins a run with any trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manual: Option<ManualTrigger>,
    /// At times of the clock. What was missed is made up for, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleTrigger>,
    /// When so many labelled samples are new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<SamplesTrigger>,
    /// When a model of the recipe, or one that is collected for its dataset, says something else than it said of held-out samples:
    /// which classes, and how surely, in three windows in a row of 500 answers and 10 minutes at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftTrigger>,
    /// A run by schedule, or by drift, waits until so many labelled samples are new. Default: none by schedule, 1 by drift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub min_new: Option<i64>,
    /// Least time between the starts of two runs, those that a person requests too. Default: none, but 24h before a run by drift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<DurationText>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
pub struct ManualTrigger {}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
pub struct DriftTrigger {}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleTrigger {
    /// Minute, hour, day of the month, month, day of the week, such as 0 3 * * 1-5.
    #[schemars(length(max = 100), regex(pattern = r"^[^ ]+( [^ ]+){4}$"))]
    pub cron: String,
    /// By IANA's name, such as Europe/Berlin. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), regex(pattern = r"^[A-Za-z0-9_+/-]+$"))]
    pub time_zone: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SamplesTrigger {
    /// Labelled samples that have arrived in the EdgeDataset since the last run that learned from it.
    #[schemars(range(min = 1))]
    pub new: i64,
}

/// What a run learns from.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunData {
    /// Labelled samples that the EdgeDataset had when the run began.
    #[schemars(range(min = 0))]
    pub samples: i64,
    /// Of what was read, as the trainer says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub digest: Option<String>,
}
