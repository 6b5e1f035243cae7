//! `EdgeDataset`: what is collected at the edge, what must not leave it, and where the rest goes.

use crate::amounts::*;
use crate::common::*;
use crate::selector::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Samples that the sites of a fleet collect.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "sconce.dev",
    version = "v1alpha1",
    kind = "EdgeDataset",
    plural = "edgedatasets",
    namespaced,
    status = "EdgeDatasetStatus",
    derive = "PartialEq",
    shortname = "ed",
    category = "sconce",
    doc = "Samples that the sites of a fleet collect.",
    printcolumn(name = "Samples", type_ = "integer", json_path = ".status.samples"),
    printcolumn(name = "Labelled", type_ = "integer", json_path = ".status.labelled"),
    printcolumn(name = "Held", type_ = "integer", json_path = ".status.held"),
    printcolumn(name = "Dropped", type_ = "integer", json_path = ".status.dropped"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes"),
    printcolumn(name = "Privacy", type_ = "string", json_path = ".spec.privacy.policy"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS label of at most 40 characters that begins with a letter")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.fleetRef.name == oldSelf.fleetRef.name").message("fleetRef is immutable: make a new EdgeDataset").reason(Reason::FieldValueForbidden),
    validation = Rule::new("self.kind == oldSelf.kind").message("kind is immutable: make a new EdgeDataset").reason(Reason::FieldValueForbidden),
    validation = Rule::new("self.uri == oldSelf.uri").message("uri is immutable: make a new EdgeDataset").reason(Reason::FieldValueForbidden),
    validation = Rule::new("self.privacy.policy != 'Masked' || self.kind == 'Image'").message("Masked covers images alone: for Audio and Sensor choose Raw, FeaturesOnly or StatisticsOnly"),
    validation = Rule::new("self.privacy.policy != 'FeaturesOnly' || !has(self.sources) || self.sources.size() == 0").message("FeaturesOnly keeps what models make of their requests, and sources have no model: leave sources out"),
    validation = Rule::new("!has(self.sources) || self.sources.all(source, (self.kind == 'Image' || !has(source.mjpeg)) && (self.kind == 'Audio' || !has(source.microphone)))").message("a source mjpeg gives images: let kind be Image; microphone gives sound: let kind be Audio"),
    validation = Rule::new("!has(self.sources) || !has(self.privacy.consent) || self.privacy.consent == 'None' || self.sources.all(source, !has(source.mjpeg) && !has(source.microphone))").message("mjpeg and microphone cannot tell of consent: leave them out, or let consent be None")
)]
pub struct EdgeDatasetSpec {
    /// The fleet whose sites collect. Immutable.
    pub fleet_ref: NameRef,
    /// Which sites, by the labels of their EdgeSite; absent = all sites of the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sites: Option<Selector>,
    /// Where samples go: s3://BUCKET/PREFIX, with endpoint and credentials that are the collectors' own; or pvc://CLAIM/FOLDER, a
    /// folder of a PersistentVolumeClaim that the chart's node.collector.claims names. Trainings read it by the claim of that name
    /// in their own namespace. Immutable.
    #[schemars(
        length(max = 512),
        regex(
            pattern = r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/-]*)?|pvc://[a-z0-9]([-a-z0-9]{0,55}[a-z0-9])?(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}){0,7})$"
        )
    )]
    pub uri: String,
    /// What a sample is. Immutable.
    pub kind: SampleKind,
    /// Whence samples come, beside requests of models whose `collect` names this dataset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub sources: Vec<DatasetSource>,
    /// What must not leave a node. Enforced there, before anything is queued.
    pub privacy: DatasetPrivacy,
    /// What a node holds until it is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer: Option<DatasetBuffer>,
    /// When and how fast a node sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<DatasetUpload>,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum SampleKind {
    /// JPEG or PNG.
    Image,
    /// WAV.
    Audio,
    /// JSON.
    Sensor,
}

/// One of http, directory, mqtt, mjpeg and microphone.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.http), has(self.directory), has(self.mqtt), has(self.mjpeg), has(self.microphone)].filter(one, one).size() == 1").message("a source is exactly one of http, directory, mqtt, mjpeg and microphone"))]
pub struct DatasetSource {
    /// Share of samples that is taken, by lot; absent = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = SHARE))]
    pub share: Option<Percent>,
    /// Whoever posts to the node's collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSource>,
    /// Files that come into a folder of the node; taken, they are removed. Folders in it are labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectorySource>,
    /// Messages of a broker, MQTT 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<MqttSource>,
    /// Pictures of a camera that answers with JPEG after JPEG.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mjpeg: Option<MjpegSource>,
    /// Sound of a microphone that answers with WAV without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub microphone: Option<MicrophoneSource>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
pub struct HttpSource {}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectorySource {
    /// Name of a folder in /var/lib/sconce/inbox/NAMESPACE on each node, that of the EdgeDataset's namespace.
    #[schemars(length(max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MqttSource {
    /// mqtt://HOST:PORT, as the node reaches it, or mqtts:// for TLS: the collectors know the broker's authority.
    #[schemars(length(max = 253), regex(pattern = r"^mqtts?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$"))]
    pub broker: String,
    /// Topic filter, such as door/+/image. Each node hears all of it; of $share/NAME/door/+/image each message is for one of them.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^(#|([^+#/]*|[+])(/([^+#/]*|[+]))*(/#)?)$') && (!self.startsWith('$share') || self.matches('^[$]share/[^+#/]+/.+$'))").message("topic must be an MQTT topic filter such as door/+/image: + is a whole level, # whatever follows at the end"))]
    pub topic: String,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MjpegSource {
    /// Address of the camera, as the node reaches it.
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^\s@]+$"))]
    pub url: String,
    /// A picture is taken this often, between 1s and 24h.
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("every must be between 1s and 24h"))]
    pub every: DurationText,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.window) <= duration(self.every)").message("window is at most as long as every"))]
pub struct MicrophoneSource {
    /// Address of the microphone, as the node reaches it.
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^\s@]+$"))]
    pub url: String,
    /// A sample is so long, between 1s and 30s.
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('30s')").message("window must be between 1s and 30s"))]
    pub window: DurationText,
    /// One is taken this often, between 1s and 24h.
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("every must be between 1s and 24h"))]
    pub every: DurationText,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.policy == 'Masked') == has(self.mask)").message("Masked needs a mask, and no other policy has one"),
    validation = Rule::new("!has(oldSelf.consent) || oldSelf.consent == 'None' || (has(self.consent) && self.consent == 'Required')").message("consent that is required stays so: make a new EdgeDataset").reason(Reason::FieldValueForbidden),
    validation = Rule::new("self.policy == oldSelf.policy || oldSelf.policy == 'Raw' || self.policy == 'StatisticsOnly' || (oldSelf.policy == 'Masked' && self.policy == 'FeaturesOnly')").message("privacy may only get stricter: for a looser policy make a new EdgeDataset").reason(Reason::FieldValueForbidden)
)]
pub struct DatasetPrivacy {
    /// From the loosest to the strictest; it may only get stricter. Of a mask that is edited nobody judges whether it is. FeaturesOnly:
    /// of requests of models what the model's backbone makes of them, from which much can be guessed.
    pub policy: PrivacyPolicy,
    /// Required: a sample whose sender tells of none is dropped, by the header x-sconce-consent, a message's user property consent, or
    /// a folder's file .consent. Default: None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent: Option<Consent>,
    /// With Masked: what is covered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<DatasetMask>,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum Consent {
    None,
    Required,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum PrivacyPolicy {
    Raw,
    Masked,
    FeaturesOnly,
    StatisticsOnly,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.blocks) || (has(self.zones) && self.zones.size() > 0)").message("a mask needs zones or blocks: else it would cover nothing"))]
pub struct DatasetMask {
    /// Rectangles that are blacked out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub zones: Vec<MaskZone>,
    /// Each picture becomes so many blocks wide, each of one colour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub blocks: Option<i64>,
}

// No field is called `y`: to YAML 1.1, and so to kubectl, that is `true`.
/// In percent of the picture.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaskZone {
    /// Of which camera: an MQTT topic, a camera's host, a folder, or what a sender says; * is every one that has no zone.
    #[schemars(length(min = 1, max = 253))]
    pub camera: String,
    /// How far its left side is from the picture's.
    #[schemars(range(min = 0, max = 100))]
    pub left: i64,
    /// How far its upper side is from the picture's.
    #[schemars(range(min = 0, max = 100))]
    pub top: i64,
    #[schemars(range(min = 1, max = 100))]
    pub width: i64,
    #[schemars(range(min = 1, max = 100))]
    pub height: i64,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DatasetBuffer {
    /// Disk on each node, in bytes, 16Mi or more. When it is full, unlabelled easy samples go first. Default: 1Gi.
    #[serde(default = "default_size")]
    #[x_kube(validation = Rule::new("quantity(string(self)).compareTo(quantity('16Mi')) >= 0").message("maxSize must be 16Mi or more"))]
    pub max_size: Amount,
    /// A sample that could not be sent for so long is dropped. Default: 168h.
    #[serde(default = "default_age")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m')").message("maxAge must be 1m or more"))]
    pub max_age: DurationText,
}

fn default_size() -> Amount {
    "1Gi".into()
}

fn default_age() -> DurationText {
    "168h".into()
}

impl Default for DatasetBuffer {
    fn default() -> Self {
        Self { max_size: default_size(), max_age: default_age() }
    }
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DatasetUpload {
    /// Bits per second that a node sends at most; absent = no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("quantity(string(self)).compareTo(quantity('8k')) >= 0").message("maxRate must be 8k or more"))]
    pub max_rate: Option<Amount>,
    /// The part of the day in which it sends; absent = always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<UploadWindow>,
    /// How long a sample waits for others to go with it, and for its label. Default: 1m.
    #[serde(default = "default_delay")]
    pub delay: DurationText,
}

fn default_delay() -> DurationText {
    "1m".into()
}

impl Default for DatasetUpload {
    fn default() -> Self {
        Self { max_rate: None, window: None, delay: default_delay() }
    }
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.start != self.end").message("a window that ends as it starts is never open: leave it out to send always"))]
pub struct UploadWindow {
    /// Such as 22:00.
    #[schemars(length(max = 5), regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub start: String,
    /// Such as 05:00; before the start = on the next day.
    #[schemars(length(max = 5), regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub end: String,
    /// By IANA's name, such as Europe/Berlin. Default: UTC.
    #[serde(default = "utc")]
    #[schemars(length(max = 63))]
    pub time_zone: String,
}

fn utc() -> String {
    "UTC".into()
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeDatasetStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// That have arrived.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub samples: i64,
    /// Labelled ones: that have arrived so, and `imported`.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub labelled: i64,
    /// Samples that `sconce data import` has labelled, each counted once. It writes this itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub imported: Option<i64>,
    /// That nodes hold.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub held: i64,
    /// That are gone unsent; each node counts them by reason.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub dropped: i64,
    /// That collect for it.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub nodes: i64,
    /// When `samples` last grew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_arrival: Option<Time>,
    /// Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// What a node's collector has counted for one dataset.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Collected {
    #[schemars(length(max = 63))]
    pub namespace: String,
    #[schemars(length(max = 63))]
    pub name: String,
    /// Samples that are held.
    #[schemars(range(min = 0))]
    pub held: i64,
    #[schemars(range(min = 0))]
    pub held_bytes: i64,
    /// Samples that have arrived.
    #[schemars(range(min = 0))]
    pub sent: i64,
    /// Those of them that had a label.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub labelled: i64,
    /// Samples that are gone unsent, by reason.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[schemars(schema_with = "counts")]
    pub dropped: std::collections::BTreeMap<String, i64>,
}

fn counts(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {"type": "integer", "format": "int64", "minimum": 0},
    })
}
