//! One layer as typed: exactly one kind key, in Keras' words, and optionally `name` and `from`.

use super::attributes::{
    Activation, Add, BatchNorm, Concat, Conv1d, Conv2d, Dense, DepthwiseConv2d, Dropout, Embedding, LayerNorm, Pool1d,
    Pool2d, Recurrent, Reshape, Residual, SeparableConv2d, Upsample2d,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct Layer {
    pub name: Option<String>,
    /// The layers that it reads, or `input`; empty: the one before it.
    pub from: Vec<String>,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Kind {
    Conv2d(Conv2d),
    DepthwiseConv2d(DepthwiseConv2d),
    SeparableConv2d(SeparableConv2d),
    Conv1d(Conv1d),
    MaxPool2d(Pool2d),
    AvgPool2d(Pool2d),
    MaxPool1d(Pool1d),
    GlobalAvgPool {},
    GlobalMaxPool {},
    StatsPool {},
    BatchNorm(BatchNorm),
    LayerNorm(LayerNorm),
    Flatten {},
    Reshape(Reshape),
    Embedding(Embedding),
    Dense(Dense),
    Activation(Activation),
    Dropout(Dropout),
    Rnn(Recurrent),
    Gru(Recurrent),
    Lstm(Recurrent),
    Add(Add),
    Concat(Concat),
    Upsample2d(Upsample2d),
    Residual(Residual),
}

impl Kind {
    /// The keys that a layer may have, one of them.
    pub const KEYS: [&str; 25] = [
        "conv2d",
        "depthwiseConv2d",
        "separableConv2d",
        "conv1d",
        "maxPool2d",
        "avgPool2d",
        "maxPool1d",
        "globalAvgPool",
        "globalMaxPool",
        "statsPool",
        "batchNorm",
        "layerNorm",
        "flatten",
        "reshape",
        "embedding",
        "dense",
        "activation",
        "dropout",
        "rnn",
        "gru",
        "lstm",
        "add",
        "concat",
        "upsample2d",
        "residual",
    ];

    /// The key, and the stem of default names, as Keras has them: `maxPool2d`, `max_pool2d`.
    fn words(&self) -> (&'static str, &'static str) {
        match self {
            Kind::Conv2d(_) => ("conv2d", "conv2d"),
            Kind::DepthwiseConv2d(_) => ("depthwiseConv2d", "depthwise_conv2d"),
            Kind::SeparableConv2d(_) => ("separableConv2d", "separable_conv2d"),
            Kind::Conv1d(_) => ("conv1d", "conv1d"),
            Kind::MaxPool2d(_) => ("maxPool2d", "max_pool2d"),
            Kind::AvgPool2d(_) => ("avgPool2d", "avg_pool2d"),
            Kind::MaxPool1d(_) => ("maxPool1d", "max_pool1d"),
            Kind::GlobalMaxPool {} => ("globalMaxPool", "global_max_pool"),
            Kind::StatsPool {} => ("statsPool", "stats_pool"),
            Kind::LayerNorm(_) => ("layerNorm", "layer_norm"),
            Kind::Reshape(_) => ("reshape", "reshape"),
            Kind::Embedding(_) => ("embedding", "embedding"),
            Kind::Concat(_) => ("concat", "concat"),
            Kind::Upsample2d(_) => ("upsample2d", "upsample2d"),
            Kind::GlobalAvgPool {} => ("globalAvgPool", "global_avg_pool"),
            Kind::BatchNorm(_) => ("batchNorm", "batch_norm"),
            Kind::Flatten {} => ("flatten", "flatten"),
            Kind::Dense(_) => ("dense", "dense"),
            Kind::Activation(_) => ("activation", "activation"),
            Kind::Dropout(_) => ("dropout", "dropout"),
            Kind::Rnn(_) => ("rnn", "rnn"),
            Kind::Gru(_) => ("gru", "gru"),
            Kind::Lstm(_) => ("lstm", "lstm"),
            Kind::Add(_) => ("add", "add"),
            Kind::Residual(_) => ("residual", "residual"),
        }
    }

    pub fn key(&self) -> &'static str {
        self.words().0
    }

    /// The stem of default names: `conv2d_1`, `max_pool2d_1`.
    pub fn stem(&self) -> &'static str {
        self.words().1
    }
}

impl TryFrom<Map<String, Value>> for Layer {
    type Error = String;

    fn try_from(mut typed: Map<String, Value>) -> Result<Self, String> {
        let name = match typed.remove("name") {
            None => None,
            Some(Value::String(name)) if is_name(&name) => Some(name),
            Some(other) => return Err(format!("name: need 1 to 63 letters, digits, _ or -, got {other}")),
        };
        let from = typed.remove("from").map_or_else(|| Ok(Vec::new()), names)?;
        let keys: Vec<&str> = typed.keys().map(String::as_str).collect();
        let [key] = keys[..] else {
            let got = if keys.is_empty() { "none".to_owned() } else { keys.join(" and ") };
            return Err(format!("exactly one kind per layer, got {got}"));
        };
        if !Kind::KEYS.contains(&key) {
            return Err(format!("unknown kind \"{key}\"; known are {}", Kind::KEYS.join(", ")));
        }
        let key = key.to_owned();
        let kind = serde_json::from_value(Value::Object(typed)).map_err(|error| format!("{key}: {error}"))?;
        Ok(Self { name, from, kind })
    }
}

/// Names become those of tensors and columns of tables.
fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// One name, or a list of names.
fn names(typed: Value) -> Result<Vec<String>, String> {
    let wrong = format!("from: need a name or a list of names, got {typed}");
    let listed = match typed {
        Value::Array(listed) if !listed.is_empty() => listed,
        Value::String(_) => vec![typed],
        _ => return Err(wrong),
    };
    let name = |typed| match typed {
        Value::String(name) if is_name(&name) => Ok(name),
        _ => Err(wrong.clone()),
    };
    listed.into_iter().map(name).collect()
}

impl From<Layer> for Map<String, Value> {
    fn from(layer: Layer) -> Self {
        // Numbers, strings and lists only: all of them are JSON, and an enum is a map of its key.
        let Ok(Value::Object(mut typed)) = serde_json::to_value(layer.kind) else { return Map::new() };
        if let Some(name) = layer.name {
            typed.insert("name".into(), name.into());
        }
        match &layer.from[..] {
            [] => None,
            [from] => typed.insert("from".into(), from.as_str().into()),
            several => typed.insert("from".into(), several.into()),
        };
        typed
    }
}
