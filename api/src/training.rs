//! `EdgeTraining`: a recipe for a model. What a network, its preprocessing and its fitting may be, the trainer knows; here their
//! shape is checked.

use crate::amounts::*;
use crate::common::*;
use crate::recipe::*;
use crate::trigger::{RunData, TrainingTrigger};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A recipe: from a data set to a published model. Each run of it is a Job.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "sconce.dev",
    version = "v1alpha1",
    kind = "EdgeTraining",
    plural = "edgetrainings",
    namespaced,
    status = "EdgeTrainingStatus",
    derive = "PartialEq",
    shortname = "et",
    category = "sconce",
    doc = "A recipe: from a data set to a published model. Each run of it is a Job.",
    printcolumn(name = "Dataset", type_ = "string", json_path = ".spec.dataset.uri"),
    printcolumn(name = "Collected", type_ = "string", json_path = ".spec.dataset.ref.name"),
    printcolumn(name = "Last-Run", type_ = "string", json_path = ".status.runs[0].state"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.runs[0].progress.epoch"),
    printcolumn(name = "Accuracy", type_ = "string", json_path = ".status.runs[0].accuracy"),
    printcolumn(name = "Published", type_ = "string", json_path = ".status.conditions[?(@.type==\"Published\")].status"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Artifact", type_ = "string", json_path = ".status.runs[0].artifact", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS label of at most 40 characters that begins with a letter")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.architecture) != has(self.base)").message("need architecture or base, exactly one"),
    validation = Rule::new("self.output.uri == oldSelf.output.uri").message("output.uri is immutable: make a new EdgeTraining").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(oldSelf.dataset.ref) || !has(self.dataset.ref) || self.dataset.ref.name == oldSelf.dataset.ref.name").message("dataset.ref is immutable: make a new EdgeTraining").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.trigger) || !(has(self.trigger.samples) || has(self.trigger.drift) || has(self.trigger.minNew)) || has(self.dataset.ref)").message("trigger.samples, drift and minNew count in an EdgeDataset: they need dataset.ref"),
    validation = Rule::new("!has(self.trigger) || has(self.trigger.manual) || has(self.accept)").message("runs that nobody begins need accept.minAccuracy: what was learned from labels by lot would be published")
)]
pub struct EdgeTrainingSpec {
    /// What is learned from.
    pub dataset: TrainingData,
    /// The network, in Keras' words. Exactly one of architecture and base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
    /// A trained model that the network begins from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// What is done to every sample, here and where the model serves, in this order. Absent = what the base does, if there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub preprocess: Vec<PreprocessStep>,
    /// How the network is fitted to the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    /// Smaller forms of the model, beside f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<Compress>,
    /// What a model must reach to be published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<Accept>,
    /// When it runs; absent = once for each change of the recipe. All but manual need accept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<TrainingTrigger>,
    /// Where accepted models are published.
    pub output: TrainingOutput,
    /// Where and with what the Job runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<TrainingRunSpec>,
    /// Stop the run that is going on, and begin none. Without `run.claimName` it begins anew afterwards. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.ref) != has(self.uri)").message("dataset needs exactly one of ref and uri"),
    validation = Rule::new("has(self.uri) == has(self.format) && (has(self.ref) || !has(self.secretRef))").message("format goes with uri, and uri needs it; secretRef goes with ref")
)]
pub struct TrainingData {
    /// An EdgeDataset of this namespace: what its nodes have sent, as far as it is labelled. Immutable.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<NameRef>,
    /// synthetic:digits, drawn by the trainer, or pvc://CLAIM/FOLDER, a folder of a PersistentVolumeClaim of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 512),
        regex(
            pattern = r"^(synthetic:[a-z0-9-]{1,63}|pvc://[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?(/[A-Za-z0-9._-]{1,63}){0,7})$"
        )
    )]
    pub uri: Option<String>,
    /// How its files are laid out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<DataFormat>,
    /// With ref: a Secret of this namespace with AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, which
    /// the trainer gets as its environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
    /// Learned and tested beside it, such as what the model knew before: a site's samples alone would let it forget that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub mix: Vec<MixedData>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MixedData {
    /// Such as synthetic:digits, drawn by the trainer.
    #[schemars(length(max = 512), regex(pattern = r"^synthetic:[a-z0-9-]{1,63}$"))]
    pub uri: String,
    pub format: DataFormat,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum DataFormat {
    Idx,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrainingOutput {
    /// Repository in an OCI registry, without a tag: each run's model has the run's name as its tag. Immutable.
    #[schemars(
        length(max = 400),
        regex(pattern = r"^oci://[a-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$")
    )]
    pub uri: String,
    /// A Secret of this namespace, of type kubernetes.io/dockerconfigjson, with the name and the password by which the registry lets
    /// us push. It opens the registry of `base`, too, if that has none of its own. Absent = anybody may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
    /// A Secret of this namespace whose key signing.key signs each model that is published: a private key (P-256, PEM). Another
    /// name is another recipe. Absent = unsigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key_ref: Option<NameRef>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrainingRunSpec {
    /// Cloud runs on the cloud nodes of any fleet, Edge on the edge nodes of any. Default: Cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// What a run takes: it gets so much, and no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<RunResources>,
    /// Kueue's LocalQueue: the run waits until the queue admits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub queue_name: Option<String>,
    /// PersistentVolumeClaim that keeps checkpoints, so that a run goes on elsewhere after the loss of its pod. Absent = they
    /// live with the pod: a crashed trainer goes on, a lost pod begins anew. Of earlier runs the newest keeps its folder there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub claim_name: Option<String>,
    /// Longest time that a run may take, at least 1s; then it has failed. Default: 6h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) >= duration('1s')", "message": "run.deadline must be at least 1s"}]))]
    pub deadline: Option<DurationText>,
    /// How often a crashed run is tried again. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub retries: Option<i64>,
    /// Jobs of ended runs that are kept, for their logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<KeptRuns>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunResources {
    /// Cores, such as 2 or 500m. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Amount>,
    /// Memory, such as 2Gi. Default: 2Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Amount>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeptRuns {
    /// Jobs that ended well. Default: 3.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 100))]
    pub succeeded: i64,
    /// Jobs that failed. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 100))]
    pub failed: i64,
}

fn three() -> i64 {
    3
}

fn one() -> i64 {
    1
}

impl Default for KeptRuns {
    fn default() -> Self {
        Self { succeeded: three(), failed: one() }
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeTrainingStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The newest first, at most 6; the newest that was published is always among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 6), extend("x-kubernetes-list-type" = "atomic"))]
    pub runs: Vec<TrainingRun>,
    /// Labelled samples of the EdgeDataset that are learned from: what it has beyond them is new. Moved by each run that ends
    /// Succeeded or Rejected, to what there was when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cursor: Option<i64>,
    /// Ready, Training, Accepted, Published; Reconciling and Stalled only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// One run of the recipe.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrainingRun {
    /// Name of the Job.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Of the recipe that it follows, 16 hex digits.
    #[schemars(length(max = 16))]
    pub recipe_hash: String,
    pub state: RunState,
    /// With dataset.ref.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<RunData>,
    /// The annotation sconce.dev/run-requested when it began, its first 63 characters: that request is met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub request: Option<String>,
    /// Why it is so, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<TrainingProgress>,
    /// Which forms of the model are good enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub verdicts: Vec<VariantVerdict>,
    /// Of the f32 form, on held-out data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Percent>,
    /// What was published, by digest: oci://HOST/REPOSITORY@sha256:…
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub artifact: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
}

impl TrainingRun {
    /// What was accepted and published, by digest.
    pub fn published(&self) -> Option<&str> {
        self.artifact.as_deref().filter(|_| self.state == RunState::Succeeded)
    }
}

/// Waiting: for a node, or for the queue. Succeeded: published. Rejected: trained, and not good enough.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum RunState {
    Waiting,
    Running,
    Suspended,
    Succeeded,
    Rejected,
    Failed,
}

impl RunState {
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Rejected | Self::Failed)
    }
}

/// How far a run has come, at most 30 s old.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrainingProgress {
    /// Epochs that are done.
    #[schemars(range(min = 0))]
    pub epoch: i64,
    /// Epochs in all.
    #[schemars(range(min = 0))]
    pub epochs: i64,
    /// Of the last epoch, two significant digits, such as 0.051.
    #[schemars(length(max = 16))]
    pub loss: String,
    /// Of the last epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Percent>,
    /// Time that the remaining epochs take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<DurationText>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VariantVerdict {
    #[schemars(length(max = 63))]
    pub variant: String,
    /// Whether it was published.
    pub passed: bool,
    /// Why, with its numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub reason: Option<String>,
}

impl EdgeTraining {
    /// What the newest run that was published has published: the run and its artifact, by digest.
    pub fn published(&self) -> Option<(&TrainingRun, &str)> {
        let mut runs = self.status.iter().flat_map(|status| &status.runs);
        runs.find_map(|run| Some((run, run.published()?)))
    }
}
