//! What a network is for: its task, which the last activation says unless it is typed, the names of what it says, and its loss.

use super::{Activation, Architecture, ArchitectureError as Error, InputType};
use crate::graph::{Graph, Init, Node, Op, Parameter, Role, Source};
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
    /// The input again, in training: served, it is said how likely the input is an anomaly, by how far both are apart.
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
            return Err(wrong("labels", got, "none: it says normal or anomaly".into()));
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

/// The name of the node that holds what is said against the input.
const ANOMALY: &str = "anomaly";

/// The node behind all layers, if the task needs one.
pub(super) fn closing(graph: &Graph, origins: &[usize]) -> Result<Option<Node>, Error> {
    if graph.task() != Task::Anomaly {
        return Ok(None);
    }
    if let Some(taken) = graph.nodes.iter().position(|node| node.name == ANOMALY) {
        let got = format!("anomaly, and layers[{}] is called so", origins[taken]);
        return Err(wrong("task", got, "another name for that".into()));
    }
    let threshold =
        Parameter { name: format!("{ANOMALY}.threshold"), shape: vec![1], init: Init::Ones, role: Role::Statistic };
    Ok(Some(Node {
        name: ANOMALY.into(),
        op: Op::Anomaly,
        inputs: vec![Source::Node(graph.nodes.len() - 1), Source::Input],
        shape: vec![2],
        parameters: vec![threshold],
        flops: 3 * graph.input.iter().product::<usize>() as u64,
    }))
}

fn wrong(field: impl Into<String>, got: String, need: String) -> Error {
    Error::Output { field: field.into(), got, need }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo;
    use serde_json::json;

    #[test]
    fn an_output_comes_back_as_it_was_typed() {
        for output in
            [json!({"task": "count", "labels": ["cars"], "loss": "poisson"}), json!({"loss": "meanSquaredError"})]
        {
            let typed = json!({"input": {"shape": [4]}, "layers": [{"dense": {"units": 1}}], "output": output});
            let read: Architecture = serde_json::from_value(typed).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap()["output"], output);
        }
    }

    /// A network with four inputs, whose last layer has so many units and ends so.
    fn ending(units: usize, activation: &str, output: serde_json::Value) -> Result<Graph, Error> {
        let layers = json!([{"dense": {"units": units, "activation": activation}}]);
        let typed = json!({"input": {"shape": [4]}, "layers": layers, "output": output});
        serde_json::from_value::<Architecture>(typed).unwrap().graph()
    }

    #[test]
    fn what_a_network_ends_in_says_its_task_unless_that_is_typed() {
        let check = |activation: &str, output: serde_json::Value, task: Task, loss: Loss, closing: Activation| {
            let graph = ending(4, activation, output.clone()).unwrap();
            assert_eq!((graph.task(), graph.loss(), graph.closing()), (task, loss, closing), "{activation} {output}");
            assert_eq!(json!(task), json!(task.word()));
        };
        let (unsaid, huber) = (json!({}), Loss::Huber { delta: 1.0 });
        check("softmax", unsaid.clone(), Task::Classification, Loss::cross_entropy(), Activation::Softmax);
        check("sigmoid", unsaid.clone(), Task::Multilabel, Loss::BinaryCrossEntropy, Activation::Sigmoid);
        check("none", unsaid.clone(), Task::Regression, huber.clone(), Activation::None);
        check("relu", unsaid, Task::Regression, huber.clone(), Activation::None);
        check("none", json!({"task": "count"}), Task::Count, Loss::Poisson, Activation::None);
        check("none", json!({"task": "anomaly"}), Task::Anomaly, Loss::MeanSquares, Activation::None);
        check("none", json!({"loss": "meanSquaredError"}), Task::Regression, Loss::MeanSquares, Activation::None);
        // A sigmoid that is no answer of yes or no stays in training, where what it says is compared.
        check("sigmoid", json!({"task": "anomaly"}), Task::Anomaly, Loss::MeanSquares, Activation::None);
        check("sigmoid", json!({"task": "regression"}), Task::Regression, huber, Activation::None);
        let classes = ending(3, "softmax", json!({})).unwrap().labels();
        assert_eq!(classes, ["0", "1", "2"]);
        let named = json!({"labels": ["cat", "dog", "neither"]});
        assert_eq!(ending(3, "softmax", named.clone()).unwrap().labels(), ["cat", "dog", "neither"]);
        assert_eq!(ending(3, "none", named).unwrap().labels(), ["cat", "dog", "neither"]);
        assert!(ending(3, "none", json!({})).unwrap().labels().is_empty(), "amounts without names have none");
        let autoencoder = Architecture {
            output: serde_json::from_value(json!({"task": "anomaly"})).unwrap(),
            ..zoo::read(zoo::AUTOENCODER)
        };
        let graph = autoencoder.graph().unwrap();
        assert_eq!((graph.task(), graph.units(), graph.head()), (Task::Anomaly, 2, None));
        assert_eq!(graph.labels(), ["normal", "anomaly"]);
        let mut named = autoencoder;
        named.layers[3].name = Some("anomaly".into());
        let expected = "output.task: anomaly, and layers[3] is called so; need another name for that";
        assert_eq!(named.graph().unwrap_err().to_string(), expected);
    }

    /// What is typed of the output and contradicts the network, or itself, word for word.
    #[test]
    fn an_output_that_the_network_does_not_have_is_said_with_what_it_has() {
        let check = |units: usize, activation: &str, output: serde_json::Value, expected: &str| {
            assert_eq!(ending(units, activation, output).unwrap_err().to_string(), expected);
        };
        check(
            10,
            "softmax",
            json!({"labels": ["0", "1", "2", "3", "4", "5", "6", "7", "8"]}),
            "output: 10 units, 9 labels",
        );
        check(2, "softmax", json!({"labels": ["cat", " "]}), "output.labels[1]: \" \"; need a name");
        check(
            3,
            "none",
            json!({"labels": ["cat", "dog", "cat"]}),
            "output.labels[2]: \"cat\"; need another name than labels[0]",
        );
        let task = |task: &str| json!({"task": task});
        check(
            4,
            "sigmoid",
            task("classification"),
            "output.task: classification after sigmoid; need softmax at the end, or task: multilabel",
        );
        check(
            4,
            "none",
            task("multilabel"),
            "output.task: multilabel after no activation; need sigmoid at the end, or task: regression",
        );
        check(
            4,
            "softmax",
            task("regression"),
            "output.task: regression after softmax; need another activation at the end, or task: classification",
        );
        check(
            4,
            "softmax",
            task("anomaly"),
            "output.task: anomaly after softmax; need another activation at the end, or task: classification",
        );
        check(
            1,
            "relu",
            task("count"),
            "output.task: count after relu; need no activation at the end, or task: regression",
        );
        check(
            3,
            "sigmoid",
            task("anomaly"),
            "output.task: anomaly of [4], and the output is [3]; need an output like the input, or task: multilabel",
        );
        check(
            4,
            "none",
            json!({"task": "anomaly", "labels": ["a", "b", "c", "d"]}),
            "output.labels: 4 for anomaly; need none: it says normal or anomaly",
        );
        check(4, "softmax", json!({"loss": "huber"}), "output.loss: huber for classification; need crossEntropy");
        check(
            4,
            "none",
            json!({"loss": "poisson"}),
            "output.loss: poisson for regression; need huber or meanSquaredError",
        );
        let anomaly = |input: serde_json::Value, layers: serde_json::Value, expected: &str| {
            let typed = json!({"input": input, "layers": layers, "output": {"task": "anomaly"}});
            let error = serde_json::from_value::<Architecture>(typed).unwrap().graph().unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        let words =
            json!([{"embedding": {"vocabulary": 9, "dimension": 2}}, {"gru": {"units": 2}}, {"dense": {"units": 4}}]);
        anomaly(
            json!({"shape": [4], "dtype": "u32"}),
            words.clone(),
            "output.task: anomaly of words, dtype u32; need amounts, dtype f32 in input, or task: regression",
        );
        // As many values as the longest has, which others have not.
        anomaly(
            json!({"shape": [-1, 2], "maxLength": 3}),
            json!([{"gru": {"units": 6}}, {"reshape": {"shape": [3, 2]}}]),
            "output.task: anomaly of [-1, 2], and the output is [3, 2]; need an output like the input, or task: regression",
        );
        let unknown = |output: serde_json::Value| {
            let typed = json!({"input": {"shape": [4]}, "layers": [{"flatten": {}}], "output": output});
            serde_json::from_value::<Architecture>(typed).unwrap_err().to_string()
        };
        assert_eq!(unknown(json!({"names": []})), "unknown field `names`, expected one of `task`, `labels`, `loss`");
        assert_eq!(
            unknown(task("ranking")),
            "unknown variant `ranking`, expected one of `classification`, `multilabel`, `regression`, `count`, `anomaly`"
        );
    }
}
