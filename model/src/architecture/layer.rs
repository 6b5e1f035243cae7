//! One layer as typed: exactly one kind key, in Keras' words, and optionally `name`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct Layer {
    pub name: Option<String>,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Conv2d(Conv2d),
    MaxPool2d(MaxPool2d),
    Flatten,
    Dense(Dense),
    Activation(Activation),
    Dropout(Dropout),
}

impl Kind {
    /// The keys that a layer may have, one of them.
    pub const KEYS: [&str; 6] = ["conv2d", "maxPool2d", "flatten", "dense", "activation", "dropout"];

    pub fn key(&self) -> &'static str {
        match self {
            Kind::Conv2d(_) => "conv2d",
            Kind::MaxPool2d(_) => "maxPool2d",
            Kind::Flatten => "flatten",
            Kind::Dense(_) => "dense",
            Kind::Activation(_) => "activation",
            Kind::Dropout(_) => "dropout",
        }
    }

    /// The stem of default names, as Keras has them: `conv2d_1`, `max_pool2d_1`.
    pub fn stem(&self) -> &'static str {
        match self {
            Kind::MaxPool2d(_) => "max_pool2d",
            other => other.key(),
        }
    }
}

/// A size of both axes, or `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Pair {
    Both(usize),
    Each([usize; 2]),
}

impl Pair {
    pub fn sizes(self) -> (usize, usize) {
        match self {
            Pair::Both(size) => (size, size),
            Pair::Each([height, width]) => (height, width),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Activation {
    #[default]
    None,
    Relu,
    Tanh,
    Sigmoid,
    Softmax,
}

/// How the borders of an image are filled with zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Padding {
    #[default]
    Valid,
    /// The output is as large as the input divided by the stride, rounded up; asymmetric as in TensorFlow.
    Same,
    /// So many zeros on each side.
    #[serde(untagged)]
    Zeros(usize),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Conv2d {
    pub filters: usize,
    pub kernel: Pair,
    #[serde(default = "one")]
    pub stride: Pair,
    #[serde(default)]
    pub padding: Padding,
    #[serde(default = "yes")]
    pub use_bias: bool,
    #[serde(default)]
    pub activation: Activation,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaxPool2d {
    #[serde(default = "two")]
    pub size: Pair,
    /// Default: `size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<Pair>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dense {
    pub units: usize,
    #[serde(default = "yes")]
    pub use_bias: bool,
    #[serde(default)]
    pub activation: Activation,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dropout {
    /// Share of activations that training sets to zero, in `[0, 1)`.
    pub rate: f32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn one() -> Pair {
    Pair::Both(1)
}

fn two() -> Pair {
    Pair::Both(2)
}

fn yes() -> bool {
    true
}

impl TryFrom<Map<String, Value>> for Layer {
    type Error = String;

    fn try_from(mut typed: Map<String, Value>) -> Result<Self, String> {
        let name = match typed.remove("name") {
            None => None,
            Some(Value::String(name)) if is_name(&name) => Some(name),
            Some(other) => return Err(format!("name: need 1 to 63 letters, digits, _ or -, got {other}")),
        };
        let keys: Vec<&str> = typed.keys().map(String::as_str).collect();
        let [key] = keys[..] else {
            let got = if keys.is_empty() { "none".to_owned() } else { keys.join(" and ") };
            return Err(format!("exactly one kind per layer, got {got}"));
        };
        let key = key.to_owned();
        let value = typed.remove(&key).unwrap_or_default();
        let kind = match key.as_str() {
            "conv2d" => parse(&key, value).map(Kind::Conv2d),
            "maxPool2d" => parse(&key, value).map(Kind::MaxPool2d),
            "flatten" => parse::<Nothing>(&key, value).map(|_| Kind::Flatten),
            "dense" => parse(&key, value).map(Kind::Dense),
            "activation" => parse(&key, value).map(Kind::Activation),
            "dropout" => parse(&key, value).map(Kind::Dropout),
            unknown => Err(format!("unknown kind \"{unknown}\"; known are {}", Kind::KEYS.join(", "))),
        }?;
        Ok(Self { name, kind })
    }
}

/// Names become those of tensors and columns of tables.
fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

fn parse<T: serde::de::DeserializeOwned>(key: &str, value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| format!("{key}: {error}"))
}

impl From<Layer> for Map<String, Value> {
    fn from(layer: Layer) -> Self {
        let key = layer.kind.key().to_owned();
        let value = match layer.kind {
            Kind::Conv2d(conv) => serde_json::to_value(conv),
            Kind::MaxPool2d(pool) => serde_json::to_value(pool),
            Kind::Flatten => serde_json::to_value(Nothing {}),
            Kind::Dense(dense) => serde_json::to_value(dense),
            Kind::Activation(activation) => serde_json::to_value(activation),
            Kind::Dropout(dropout) => serde_json::to_value(dropout),
        };
        let mut typed = Map::new();
        if let Some(name) = layer.name {
            typed.insert("name".into(), name.into());
        }
        // Numbers, strings and lists only: all of them are JSON.
        typed.insert(key, value.unwrap_or_default());
        typed
    }
}
