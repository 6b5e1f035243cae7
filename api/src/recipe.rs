//! The parts of a recipe that the trainer reads: their kinds are checked here, their attributes by the trainer, which names what
//! is wrong with a layer by its shapes, as no schema can.

use crate::amounts::*;
use crate::common::NameRef;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value, json};

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Architecture {
    pub input: NetworkInput,
    /// Layers in their order: each has exactly one kind, and optionally `name` and `from`.
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub layers: Vec<Layer>,
    /// What the network is for. Absent = the last activation says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<NetworkOutput>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkOutput {
    /// Default: classification after softmax, multilabel after sigmoid, else regression. anomaly learns to say normal inputs again, and tells what it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// A name for each value of the last layer, in their order. Default: of classes their numbers, from 0 on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub labels: Vec<String>,
    /// Default: the one that goes with the task; of regression, which has meanSquaredError, too, huber.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<OutputLoss>,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Task {
    Classification,
    Multilabel,
    Regression,
    Count,
    Anomaly,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OutputLoss {
    CrossEntropy,
    BinaryCrossEntropy,
    Huber,
    Poisson,
    MeanSquaredError,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkInput {
    /// Channels first, without the batch; -1 stands for the time of sequences of any length, as [-1] or [-1, features].
    #[schemars(length(min = 1, max = 4), inner(range(min = -1, max = 65536)))]
    pub shape: Vec<i64>,
    /// Steps of the longest sequence, where the time is -1. Default: 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65536))]
    pub max_length: Option<i32>,
    /// u32: whole numbers, which name words, for an embedding. Default: f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<InputType>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Base {
    /// A published model of ours, by digest: oci://HOST/REPOSITORY@sha256:…
    #[schemars(
        length(max = 512),
        regex(pattern = r"^oci://[a-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+@sha256:[0-9a-f]{64}$")
    )]
    pub uri: String,
    /// A Secret of this namespace, of type kubernetes.io/dockerconfigjson, with the name and the password by which the registry lets
    /// us pull. Absent = that of `output`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
    /// Backbone: all layers before the head stay as they are, to the byte. None: all layers learn. Default: Backbone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze: Option<Freeze>,
    /// Layers in the place of the model's own head, which is its last layer with weights that multiply, and all after it.
    /// Absent = its own, initialised anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub head: Vec<Layer>,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum Freeze {
    Backbone,
    None,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum InputType {
    F32,
    U32,
}

macro_rules! one_of {
    ($(#[doc = $doc:literal])+ $type:ident, $kinds:ident = [$($kind:literal),+ $(,)?], beside $beside:expr) => {
        $(#[doc = $doc])+
        #[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
        #[serde(transparent)]
        pub struct $type(pub Map<String, Value>);

        const $kinds: &[&str] = &[$($kind),+];

        impl $type {
            /// What one may be.
            pub const KINDS: &[&str] = $kinds;
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                exactly_one($kinds, $beside)
            }
        }
    };
}

one_of!(
    /// A layer as typed.
    Layer,
    LAYERS = [
        "conv2d", "depthwiseConv2d", "separableConv2d", "conv1d", "maxPool2d", "avgPool2d", "maxPool1d",
        "globalAvgPool", "globalMaxPool", "statsPool", "batchNorm", "layerNorm", "flatten", "reshape", "embedding",
        "dense", "activation", "dropout", "rnn", "gru", "lstm", "add", "concat", "upsample2d", "residual",
    ],
    beside json!({
        "name": {"type": "string", "maxLength": 63, "description": "Default: the kind and a number, such as conv2d_1."},
        "from": {"x-kubernetes-preserve-unknown-fields": true, "description": "The layer that it reads, or a list of them; absent = the one before it."},
    })
);

one_of!(
    /// A step of the preprocessing as typed.
    PreprocessStep,
    STEPS = ["decode", "resize", "centerCrop", "scale", "normalize"],
    beside json!({})
);

one_of!(
    /// An optimiser as typed.
    Optimizer,
    OPTIMIZERS = ["adam", "sgd"],
    beside json!({})
);

one_of!(
    /// How the learning rate changes, as typed.
    Schedule,
    SCHEDULES = ["cosine", "step"],
    beside json!({})
);

one_of!(
    /// What is done to images by chance, as typed.
    Augment,
    AUGMENTS = ["shift", "rotate", "scale", "flip", "erase", "brightness", "noise"],
    beside json!({})
);

/// An object with one of the kinds, whose attributes are the trainer's affair.
fn exactly_one(kinds: &[&str], beside: Value) -> Schema {
    let mut properties = match beside {
        Value::Object(beside) => beside,
        _ => Map::new(),
    };
    let most = properties.len() + 1;
    for kind in kinds {
        // Of all kinds the one that is said by a word.
        let typed = match *kind {
            "activation" => json!({"type": "string", "maxLength": 63}),
            _ => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        };
        properties.insert((*kind).into(), typed);
    }
    let one_of: Vec<Value> = kinds.iter().map(|kind| json!({"required": [kind]})).collect();
    json_schema!({"type": "object", "minProperties": 1, "maxProperties": most, "properties": properties, "oneOf": one_of})
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fit {
    /// Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub epochs: Option<i64>,
    /// Samples in one step. Default: 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_096))]
    pub batch_size: Option<i64>,
    /// Default: adam with a learningRate of 0.001.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<Optimizer>,
    /// Of all that is drawn: the same seed makes the same model. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub seed: Option<i64>,
    /// Share of the training split that choices are made on. Default: 10%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = r"^[0-9]{1,2}(\.[0-9]{1,3})?%$"))]
    pub validation: Option<Percent>,
    /// Whose first weights are drawn: keras or torch. Default: keras.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    /// How the learning rate changes; absent = it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// What is minimised: labelSmoothing is the share of the target that all classes have in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "open")]
    pub loss: Option<Map<String, Value>>,
    /// balanced: all classes count the same, however few samples one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeights>,
    /// Most that the norm of all gradients together may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "norm")]
    pub clip_norm: Option<Number>,
    /// Ends a run once its metric (accuracy or loss, on the validation) has not improved for `patience` epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    /// What is done to images by chance, each time that they are learned from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub augment: Vec<Augment>,
    /// How often the run is kept, to go on from after a crash. Default: after each epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Init {
    Keras,
    Torch,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ClassWeights {
    Balanced,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EarlyStopping {
    /// Default: accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    #[schemars(range(min = 1, max = 10_000))]
    pub patience: i64,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Metric {
    Accuracy,
    Loss,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    #[schemars(range(min = 1, max = 10_000))]
    pub every_epochs: i64,
}

/// An object whose fields are the trainer's affair.
fn open(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A hyper-parameter: a number, which nobody compares.
fn norm(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "number", "minimum": 1e-6, "maximum": 1e6})
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compress {
    /// Forms beside f32.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub variants: Vec<Form>,
    /// A form that may have lost more points of accuracy than this, with 95 % confidence, is left out. Default: 0.5%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = SHARE))]
    pub max_accuracy_drop: Option<Percent>,
    /// How the pruned forms lose channels and units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<Prune>,
    /// The student of the distilled forms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distill: Option<Distill>,
}

/// f16: weights of two bytes. int8: weights and products of bytes. pruned: without the weakest channels and units. distilled: a
/// smaller network, which learned from the trained one.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    F16,
    Int8,
    Pruned,
    #[serde(rename = "pruned-int8")]
    PrunedInt8,
    Distilled,
    #[serde(rename = "distilled-int8")]
    DistilledInt8,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prune {
    /// Of the channels and units of each layer that can lose some: the weakest go. Default: 50%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = SHARE))]
    pub share: Option<Percent>,
    /// To learn again what was lost. Default: a fifth of fit.epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub epochs: Option<i64>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Distill {
    /// The student's layers, as those of the architecture; it reads and says what its teacher does.
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub layers: Vec<Layer>,
    /// What the answers of both are softened by, at least 1. Default: 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "temperature")]
    pub temperature: Option<Number>,
    /// Of the loss, that the teacher's answers have; the labels have the rest. Default: 70%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = SHARE))]
    pub share: Option<Percent>,
    /// Default: as many as fit.epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub epochs: Option<i64>,
}

/// A hyper-parameter: a number, which nobody compares.
fn temperature(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "number", "minimum": 1, "maximum": 1000})
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Accept {
    /// Least accuracy of the f32 form on held-out data; below it nothing is published.
    #[schemars(extend("pattern" = SHARE))]
    pub min_accuracy: Percent,
    /// By how many points of accuracy a run must be better than the newest accepted artifact of this EdgeTraining, both asked the same
    /// test samples; 0% = not worse. Absent = not compared. Of the first run of a base, the base is what is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = SHARE))]
    pub improve_by: Option<Percent>,
}
