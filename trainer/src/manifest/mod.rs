//! The `EdgeTraining` manifest, as far as the trainer reads it: strictly.

mod base;
mod compress;
mod fit;

pub use base::{Base, Freeze};
pub use compress::{Compress, Distill, Form, Prune};
pub use fit::{Augment, Axis, Checkpoint, ClassWeights, EarlyStopping, Fit, Init, Loss, Metric, Optimizer, Schedule};

use sconce_model::architecture::{Architecture, Task};
use sconce_model::preprocess::Step;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::path::{Path, PathBuf};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum ManifestError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {why}", path.display())]
    Yaml { path: PathBuf, why: String },
    #[error("{}: {field}: {why}", path.display())]
    Field { path: PathBuf, field: String, why: String },
}

/// What is wrong with a value.
struct Fault {
    field: String,
    why: String,
}

impl Fault {
    fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into() }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EdgeTraining {
    pub api_version: String,
    pub kind: String,
    pub metadata: Metadata,
    pub spec: Spec,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Metadata {
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    pub dataset: DataSource,
    /// Or a base, exactly one.
    #[serde(default)]
    pub architecture: Option<Architecture>,
    #[serde(default)]
    pub base: Option<Base>,
    #[serde(default)]
    pub preprocess: Vec<Step>,
    #[serde(default)]
    pub fit: Fit,
    #[serde(default)]
    pub compress: Option<Compress>,
    #[serde(default)]
    pub accept: Option<Accept>,
    #[serde(default)]
    pub output: Option<Output>,
    /// How a cluster runs it; here it is run at once.
    #[serde(default)]
    pub run: IgnoredAny,
    #[serde(default)]
    pub suspend: IgnoredAny,
    #[serde(default)]
    pub trigger: IgnoredAny,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataSource {
    /// `synthetic:digits` or `file://DIR`; collected, `s3://BUCKET/PREFIX` or `file:///FOLDER`.
    pub uri: String,
    pub format: Format,
    /// Learned and tested beside it, such as what the model knew before: a site's samples alone would let it forget that.
    #[serde(default)]
    pub mix: Vec<DataSource>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Format {
    Idx,
    /// As collectors write it, with the labels beside it.
    Collected,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Accept {
    pub min_accuracy: String,
    /// Points; absent: not compared.
    #[serde(default)]
    pub improve_by: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Output {
    pub uri: String,
    /// What a cluster opens it with.
    #[serde(default)]
    pub secret_ref: IgnoredAny,
    /// What a cluster signs with.
    #[serde(default)]
    pub signing_key_ref: IgnoredAny,
}

/// # Errors
/// [`ManifestError`] names the file, the field and what it needs.
pub fn read(path: &Path) -> Result<EdgeTraining, ManifestError> {
    let text = std::fs::read_to_string(path).map_err(|source| ManifestError::Read { path: path.into(), source })?;
    let manifest: EdgeTraining = serde_saphyr::from_str(&text)
        .map_err(|error| ManifestError::Yaml { path: path.into(), why: error.to_string() })?;
    check(&manifest).map_err(|Fault { field, why }| ManifestError::Field { path: path.into(), field, why })?;
    Ok(manifest)
}

fn check(manifest: &EdgeTraining) -> Result<(), Fault> {
    let fault = |field: &str, why: String| Err(Fault::new(field, why));
    if (manifest.api_version.as_str(), manifest.kind.as_str()) != ("sconce.dev/v1alpha1", "EdgeTraining") {
        let got = format!("{} {}", manifest.api_version, manifest.kind);
        return fault("kind", format!("got {got}, need sconce.dev/v1alpha1 EdgeTraining"));
    }
    if manifest.spec.dataset.mix.iter().any(|source| !source.mix.is_empty()) {
        return fault("spec.dataset.mix", "one of them is a mix, too; name all data sets side by side".into());
    }
    manifest.spec.fit.check()?;
    if let Some(accept) = &manifest.spec.accept
        && share(&accept.min_accuracy).is_none()
    {
        return fault("spec.accept.minAccuracy", format!("{}; need a percentage, such as 97%", accept.min_accuracy));
    }
    if let Some(typed) = manifest.spec.accept.as_ref().and_then(|accept| accept.improve_by.as_deref())
        && share(typed).is_none()
    {
        return fault("spec.accept.improveBy", format!("{typed}; need a percentage, such as 0.5%"));
    }
    match (&manifest.spec.architecture, &manifest.spec.base) {
        (Some(architecture), None) => manifest.spec.check_network(architecture, "spec.architecture"),
        // What it is, is known once it is there.
        (None, Some(base)) => base.check(),
        _ => fault("spec", "need architecture, or base, exactly one".into()),
    }
}

impl Spec {
    /// Whether a network can be trained and compressed as asked; `field` is where it was typed.
    fn check_network(&self, architecture: &Architecture, field: &str) -> Result<(), Fault> {
        let in_architecture = |why: String| Fault::new(field, why);
        let graph = architecture.graph().map_err(|error| in_architecture(error.to_string()))?;
        graph.trainable().map_err(|error| in_architecture(error.to_string()))?;
        let output = graph.nodes.last().map_or(&graph.input, |node| &node.shape);
        match graph.task() {
            Task::Classification => {}
            Task::Anomaly => self.check_anomaly()?,
            // Of each step of a sequence nobody says anything.
            task if output.len() != 1 => {
                return Err(in_architecture(format!(
                    "{} of {output:?}, and samples are told as a row of values each: end in dense after flatten, globalAvgPool or returnSequences: false",
                    task.word()
                )));
            }
            task => self.check_values(task)?,
        }
        if let Some(compress) = &self.compress {
            compress.check(architecture)?;
        }
        if !self.fit.augment.is_empty() && graph.input.len() != 3 {
            let why = format!("it changes images, and the network reads {:?}; leave it out", graph.input);
            return Err(Fault::new("spec.fit.augment", why));
        }
        Ok(())
    }

    /// Whether all that is asked for can be had of normal samples, which alone are learned from.
    fn check_anomaly(&self) -> Result<(), Fault> {
        let Fit { validation, loss, class_weights, early_stopping, .. } = &self.fit;
        let goes_by_accuracy = early_stopping.is_some_and(|stopping| stopping.metric == Metric::Accuracy);
        let faults = [
            (
                share(validation) == Some(0.0),
                "spec.fit.validation",
                "0%; the threshold of anomalies is found on it: need more",
            ),
            (
                loss.label_smoothing > 0.0,
                "spec.fit.loss.labelSmoothing",
                "it is of classes, and anomalies are told without: leave it out",
            ),
            (class_weights.is_some(), "spec.fit.classWeights", "normal samples alone are learned from: leave it out"),
            (
                goes_by_accuracy,
                "spec.fit.earlyStopping.metric",
                "accuracy; of anomalies it is known at the end alone: need loss",
            ),
            (
                self.is_taught(),
                "spec.compress.variants",
                "a student learns classes, and anomalies are told without: leave distilled out",
            ),
        ];
        let fault = faults.into_iter().find(|(is, ..)| *is);
        fault.map_or(Ok(()), |(_, field, why)| Err(Fault::new(field, why)))
    }

    /// Whether all that is asked for can be had where samples have values, and no class.
    fn check_values(&self, task: Task) -> Result<(), Fault> {
        let faults = [
            (self.fit.loss.label_smoothing > 0.0, "spec.fit.loss.labelSmoothing"),
            (self.fit.class_weights.is_some(), "spec.fit.classWeights"),
            (self.is_taught(), "spec.compress.variants: distilled"),
        ];
        let why = || format!("it is of classes, and {} has values of a sample: leave it out", task.word());
        let fault = faults.into_iter().find(|(is, _)| *is);
        fault.map_or(Ok(()), |(_, field)| Err(Fault::new(field, why())))
    }

    /// Whether a student is asked for.
    fn is_taught(&self) -> bool {
        let mut forms = self.compress.iter().flat_map(|compress| &compress.variants);
        forms.any(|form| matches!(form, Form::Distilled | Form::DistilledInt8))
    }

    /// Whether the network that a base gives can be trained and compressed as asked.
    ///
    /// # Errors
    /// [`ManifestError`] names the file, the field and what it needs.
    pub fn check_base(&self, architecture: &Architecture, path: &Path) -> Result<(), ManifestError> {
        self.check_network(architecture, "spec.base").map_err(|Fault { field, why }| ManifestError::Field {
            path: path.into(),
            field,
            why,
        })
    }

    /// Whether so many samples, of so many groups, are enough to train on, and to go by where training stops early or a threshold is
    /// found.
    ///
    /// # Errors
    /// [`ManifestError`] names the file, the field and what it needs.
    pub fn check_split(
        &self,
        (train, validation): (usize, usize),
        groups: usize,
        task: Task,
        path: &Path,
    ) -> Result<(), ManifestError> {
        if (train, validation, task) == (0, 0, Task::Anomaly) {
            let why = "no sample is normal, and from these it learns: label some".into();
            return Err(ManifestError::Field { path: path.into(), field: "spec.dataset".into(), why });
        }
        let why = if train == 0 {
            format!("leaves none of {validation} samples to train on: let it be less")
        } else if validation == 0 && self.fit.early_stopping.is_some() {
            format!(
                "the validation split is empty, {} of {train} samples of {groups} groups, and earlyStopping goes by it: \
                 add samples of more groups, or leave earlyStopping out",
                self.fit.validation
            )
        } else if validation == 0 && task == Task::Anomaly {
            format!(
                "the validation split is empty, {} of {train} normal samples of {groups} groups, and the threshold of anomalies is \
                 found on it: add samples of more groups",
                self.fit.validation
            )
        } else {
            return Ok(());
        };
        Err(ManifestError::Field { path: path.into(), field: "spec.fit.validation".into(), why })
    }
}

/// `97%` is 0.97.
pub fn share(percent: &str) -> Option<f64> {
    let number: f64 = percent.strip_suffix('%')?.parse().ok()?;
    (0.0..=100.0).contains(&number).then_some(number / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: &str, to: &str, expected: &str) {
        let good = include_str!("../../../examples/digits/training.yaml");
        let spoiled = good.replacen(from, to, 1);
        assert_ne!(spoiled, good, "{from} is not in the example");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), spoiled).unwrap();
        let error = read(file.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        check(
            "kind: EdgeTraining",
            "kind: EdgeModel",
            "kind: got sconce.dev/v1alpha1 EdgeModel, need sconce.dev/v1alpha1 EdgeTraining",
        );
        check(
            "format: idx}",
            "format: idx, mix: [{uri: a, format: idx, mix: [{uri: b, format: idx}]}]}",
            "spec.dataset.mix: one of them is a mix, too; name all data sets side by side",
        );
        check("format: idx}", "format: csv}", "unknown variant `csv`, expected one of idx, collected");
        check("epochs: 10", "epochs: 0", "spec.fit.epochs: 0; need 1 to 10,000");
        check("epochs: 10", "epoch: 10", "unknown field `epoch`");
        check(
            "- flatten: {}",
            "- dropout: {rate: 0.5}",
            "spec.architecture: layers[3] \"dense_1\": dense after [32, 13, 13]; add flatten or globalAvgPool before it",
        );
        check(
            "variants: [f16, int8]",
            "variants: [f16, int4]",
            "unknown variant `int4`, expected one of f16, int8, pruned, pruned-int8, distilled, distilled-int8",
        );
        check("variants: [f16, int8]", "variants: [f16, f16]", "spec.compress.variants: a variant is named twice");
        let compress = |variants: &str, expected: &str| check("variants: [f16, int8]", variants, expected);
        compress(
            "variants: [distilled]",
            "spec.compress.variants: distilled: who is the student? Say its distill.layers",
        );
        compress(
            "variants: [pruned], prune: {share: 100%}",
            "spec.compress.prune.share: 100%; need a percentage above 0%",
        );
        compress(
            "variants: [distilled], distill: {layers: [{flatten: {}}, {dense: {units: 9, activation: softmax}}]}",
            "spec.compress.distill.layers: 9 outputs, the teacher has 10; end as it does",
        );
        check(
            "minAccuracy: 97%",
            "minAccuracy: 97%, improveBy: -1%",
            "spec.accept.improveBy: -1%; need a percentage, such as 0.5%",
        );
        check("maxAccuracyDrop: 0.5%", "maxAccuracyDrop: 0.5", "0.5; need a percentage, such as 0.5%");
        check("learningRate: 0.001", "learningRate: 0", "learningRate: 0; need above 0, at most 1");
        let fit = |fit: &str, expected: &str| check("validation: 10%", fit, expected);
        fit("validation: 100%", "spec.fit.validation: 100%; need a percentage below 100%, such as 10%");
        fit("schedule: {cosine: {warmupEpochs: 10}}", "warmupEpochs: 10; need fewer than the 10 epochs");
        fit(
            "schedule: {step: {everyEpochs: 3, factor: 2}}",
            "spec.fit.schedule.step.factor: 2; need above 0, at most 1",
        );
        fit("schedule: {linear: {}}", "unknown variant `linear`, expected one of cosine, step");
        fit("clipNorm: 0", "spec.fit.clipNorm: 0; need a number above 0");
        fit("loss: {labelSmoothing: 1}", "spec.fit.loss.labelSmoothing: 1; need 0 or more, below 1");
        fit(
            "augment: [{shift: {pixels: 2}}, {rotate: {degrees: 200}}]",
            "spec.fit.augment[1].rotate.degrees: 200; need",
        );
        fit("validation: 0%, earlyStopping: {patience: 3}", "validation: 0%; need more than 0% for earlyStopping");
        check(
            "adam: {learningRate: 0.001}",
            "sgd: {nesterov: true}",
            "spec.fit.optimizer.sgd.nesterov: true; need a momentum",
        );
        check("adam: {learningRate: 0.001}", "sgd: {beta: 1}", "unknown field `beta`");
    }

    #[test]
    fn early_stopping_needs_a_validation_split_that_is_not_empty() {
        let good = include_str!("../../../examples/digits/training.yaml");
        let mut spec = serde_saphyr::from_str::<EdgeTraining>(good).unwrap().spec;
        let check = |spec: &Spec, split| {
            spec.check_split(split, 1, Task::Classification, Path::new("t.yaml")).map_err(|error| error.to_string())
        };
        assert_eq!(check(&spec, (40, 0)), Ok(()));
        spec.fit.early_stopping = Some(EarlyStopping { metric: Metric::Accuracy, patience: 3 });
        assert_eq!(check(&spec, (36, 4)), Ok(()));
        let expected = "t.yaml: spec.fit.validation: the validation split is empty, 10% of 40 samples of 1 groups, and \
                        earlyStopping goes by it: add samples of more groups, or leave earlyStopping out";
        assert_eq!(check(&spec, (40, 0)), Err(expected.into()));
        let expected = "t.yaml: spec.fit.validation: leaves none of 40 samples to train on: let it be less";
        assert_eq!(check(&spec, (0, 40)), Err(expected.into()));
        spec.fit.early_stopping = None;
        let error = spec.check_split((40, 0), 1, Task::Anomaly, Path::new("t.yaml")).unwrap_err().to_string();
        let expected = "t.yaml: spec.fit.validation: the validation split is empty, 10% of 40 normal samples of 1 groups, and the \
                        threshold of anomalies is found on it: add samples of more groups";
        assert_eq!(error, expected);
        let error = spec.check_split((0, 0), 9, Task::Anomaly, Path::new("t.yaml")).unwrap_err().to_string();
        assert_eq!(error, "t.yaml: spec.dataset: no sample is normal, and from these it learns: label some");
    }

    #[test]
    fn of_anomalies_only_what_goes_without_classes_can_be_asked_for() {
        let good = "apiVersion: sconce.dev/v1alpha1\nkind: EdgeTraining\nmetadata: {name: a}\nspec:\n  dataset: {uri: 'file:///none', format: collected}\n  \
            architecture: {input: {shape: [4]}, layers: [{dense: {units: 2}}, {dense: {units: 4}}], output: {task: anomaly}}\n  \
            fit: {epochs: 1FIT}\n  compress: {variants: [f16COMPRESS]}\n";
        let typed = |task: &str, fit: &str, compress: &str| {
            let text = good.replace("task: anomaly", task).replace("FIT", fit).replace("COMPRESS", compress);
            super::check(&serde_saphyr::from_str(&text).unwrap())
                .map_err(|Fault { field, why }| format!("{field}: {why}"))
        };
        assert_eq!(typed("task: anomaly", ", earlyStopping: {metric: loss, patience: 3}", ", int8, pruned"), Ok(()));
        let fit = |fit: &str, expected: &str| assert_eq!(typed("task: anomaly", fit, ""), Err(expected.into()));
        fit(", validation: 0%", "spec.fit.validation: 0%; the threshold of anomalies is found on it: need more");
        fit(
            ", loss: {labelSmoothing: 0.1}",
            "spec.fit.loss.labelSmoothing: it is of classes, and anomalies are told without: leave it out",
        );
        fit(", classWeights: balanced", "spec.fit.classWeights: normal samples alone are learned from: leave it out");
        fit(
            ", earlyStopping: {patience: 3}",
            "spec.fit.earlyStopping.metric: accuracy; of anomalies it is known at the end alone: need loss",
        );
        let expected =
            "spec.compress.variants: a student learns classes, and anomalies are told without: leave distilled out";
        assert_eq!(typed("task: anomaly", "", ", distilled"), Err(expected.into()));
        for task in ["regression", "count"] {
            let values = |fit: &str, compress: &str| typed(&format!("task: {task}"), fit, compress);
            assert_eq!(values(", earlyStopping: {patience: 3}", ", int8, pruned"), Ok(()));
            for (fit, compress, field) in [
                (", loss: {labelSmoothing: 0.1}", "", "fit.loss.labelSmoothing"),
                (", classWeights: balanced", "", "fit.classWeights"),
                ("", ", distilled", "compress.variants: distilled"),
            ] {
                let expected =
                    format!("spec.{field}: it is of classes, and {task} has values of a sample: leave it out");
                assert_eq!(values(fit, compress), Err(expected));
            }
        }
    }

    #[test]
    fn what_cannot_be_trained_or_compressed_is_named_before_anything_is_read() {
        check(
            "- conv2d: {filters: 32, kernel: [3, 3], activation: relu}\n      - maxPool2d: {size: [2, 2]}\n      - flatten: {}\n      - dense: {units: 128, activation: relu}",
            "- flatten: {}",
            "spec.compress.variants: int8: only the last layer computes products, and it stays f32; leave int8 out",
        );
        check(
            "- conv2d: {filters: 32, kernel: [3, 3], activation: relu}\n      - maxPool2d: {size: [2, 2]}\n      - flatten: {}\n      - dense: {units: 128, activation: relu}\n      - dense: {units: 10, activation: softmax}",
            "- flatten: {}",
            "spec.architecture: no layer learns anything; training needs at least one with weights, such as dense",
        );
    }
}
