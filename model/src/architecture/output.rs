//! What a network is for: its task, which the last activation says unless it is typed, the names of what it says, and its loss.

use super::{Activation, Architecture, ArchitectureError as Error, InputType};
use crate::graph::Graph;
use crate::ops::Loss;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// As typed; [`Graph::task`] and [`Graph::loss`] know what is not said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Output {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// A name for each value of the output's last axis, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<OutputLoss>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Task {
    /// One class for each input.
    Classification,
    /// Each value on its own says yes or no.
    Multilabel,
    /// Amounts.
    Regression,
    /// How many: the rate is softplus of what the network says, in training and for whoever reads a served answer.
    Count,
    /// The input again: what is far from it is strange.
    Anomaly,
}

/// What training makes small, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OutputLoss {
    CrossEntropy,
    BinaryCrossEntropy,
    Huber,
    Poisson,
    MeanSquaredError,
}

impl Task {
    /// What a network is for that ends so, and does not say.
    pub fn after(last: Activation) -> Self {
        match last {
            Activation::Softmax => Self::Classification,
            Activation::Sigmoid => Self::Multilabel,
            _ => Self::Regression,
        }
    }

    /// As it is typed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Classification => "classification",
            Self::Multilabel => "multilabel",
            Self::Regression => "regression",
            Self::Count => "count",
            Self::Anomaly => "anomaly",
        }
    }

    /// Those that go with it; the first one if none is said.
    pub(crate) fn losses(self) -> &'static [OutputLoss] {
        match self {
            Self::Classification => &[OutputLoss::CrossEntropy],
            Self::Multilabel => &[OutputLoss::BinaryCrossEntropy],
            Self::Regression => &[OutputLoss::Huber, OutputLoss::MeanSquaredError],
            Self::Count => &[OutputLoss::Poisson],
            Self::Anomaly => &[OutputLoss::MeanSquaredError],
        }
    }

    /// What a network for it has at its end, if this is not that.
    fn lacks(self, last: Activation) -> Option<&'static str> {
        match (self, last) {
            (Self::Classification, Activation::Softmax) | (Self::Multilabel, Activation::Sigmoid) => None,
            (Self::Classification, _) => Some("softmax at the end"),
            (Self::Multilabel, _) => Some("sigmoid at the end"),
            (Self::Count, last) => (last != Activation::None).then_some("no activation at the end"),
            (Self::Regression | Self::Anomaly, last) => {
                (last == Activation::Softmax).then_some("another activation at the end")
            }
        }
    }
}

impl OutputLoss {
    /// As it is typed.
    fn word(self) -> &'static str {
        match self {
            Self::CrossEntropy => "crossEntropy",
            Self::BinaryCrossEntropy => "binaryCrossEntropy",
            Self::Huber => "huber",
            Self::Poisson => "poisson",
            Self::MeanSquaredError => "meanSquaredError",
        }
    }
}

impl From<OutputLoss> for Loss {
    /// With the settings that Keras has.
    fn from(typed: OutputLoss) -> Self {
        match typed {
            OutputLoss::CrossEntropy => Self::cross_entropy(),
            OutputLoss::BinaryCrossEntropy => Self::BinaryCrossEntropy,
            OutputLoss::Huber => Self::Huber { delta: 1.0 },
            OutputLoss::Poisson => Self::Poisson,
            OutputLoss::MeanSquaredError => Self::MeanSquares,
        }
    }
}

/// Whether what is said of the output goes with the network.
pub(super) fn check(typed: &Architecture, graph: &Graph) -> Result<(), Error> {
    let Output { labels, loss, .. } = &typed.output;
    let (task, last) = (graph.task(), graph.last_activation());
    let otherwise = |need: &str| format!("{need}, or task: {}", Task::after(last).word());
    if let Some(need) = task.lacks(last) {
        let after = if last == Activation::None { "no activation" } else { last.word() };
        return Err(wrong("task", format!("{} after {after}", task.word()), otherwise(need)));
    }
    if task == Task::Anomaly {
        let (read, said) = (&typed.input.shape, graph.nodes.last().map_or(&graph.input, |node| &node.shape));
        if typed.input.dtype == InputType::U32 {
            let need = otherwise("amounts, dtype f32 in input");
            return Err(wrong("task", "anomaly of words, dtype u32".into(), need));
        }
        // A time of any length is a size of none.
        if !read.iter().copied().eq(said.iter().map(|&size| size as i64)) {
            let need = otherwise("an output like the input");
            return Err(wrong("task", format!("anomaly of {read:?}, and the output is {said:?}"), need));
        }
        if !labels.is_empty() {
            let got = format!("{} for anomaly", labels.len());
            return Err(wrong("labels", got, "none: it says the input again".into()));
        }
    }
    if !labels.is_empty() && labels.len() != graph.units() {
        return Err(Error::Labels { units: graph.units(), labels: labels.len() });
    }
    let mut known = BTreeMap::new();
    for (index, label) in labels.iter().enumerate() {
        let field = || format!("labels[{index}]");
        if label.trim().is_empty() {
            return Err(wrong(field(), format!("{label:?}"), "a name".into()));
        }
        if let Some(first) = known.insert(label, index) {
            return Err(wrong(field(), format!("{label:?}"), format!("another name than labels[{first}]")));
        }
    }
    match loss.filter(|loss| !task.losses().contains(loss)) {
        Some(loss) => {
            let fitting: Vec<&str> = task.losses().iter().map(|loss| loss.word()).collect();
            Err(wrong("loss", format!("{} for {}", loss.word(), task.word()), fitting.join(" or ")))
        }
        None => Ok(()),
    }
}

fn wrong(field: impl Into<String>, got: String, need: String) -> Error {
    Error::Output { field: field.into(), got, need }
}
