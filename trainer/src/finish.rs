//! What follows training: compress, evaluate, gate, write.

use crate::against::Against;
use crate::answer::{Answer, alone, interval95, value};
use crate::base::Base;
use crate::compress::{Compressed, Course, compress};
use crate::data::{DataSet, Part};
use crate::evaluate::{Evaluated, evaluate, latencies};
use crate::fit::FitError;
use crate::gate::{PartAccuracy, Verdict, verdict, worst};
use crate::manifest::{Compress, Spec, share};
use crate::output::{self, OutputError};
use crate::prepared::Prepared;
use candle_core::{DType, Device, Tensor};
use sconce_model::architecture::Architecture;
use sconce_model::artifact::{self, ArtifactError, Description, Evaluation, Measured};
use sconce_model::digest::sha256;
use sconce_model::network::Network;
use sconce_model::preprocess::Preprocess;
use sconce_model::variant::Variant;
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum FinishError {
    #[error(transparent)]
    Fit(#[from] FitError),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("cannot compute")]
    Tensor(#[from] candle_core::Error),
}

/// What a manifest asks for, with its data.
pub struct Opened {
    /// The manifest's.
    pub name: String,
    pub spec: Spec,
    /// As typed, or the base's.
    pub architecture: Architecture,
    pub base: Option<Base>,
    pub preprocess: Preprocess,
    pub data: DataSet,
    pub train: Prepared,
    pub validation: Prepared,
    /// What the network must be better than, if that is asked for.
    pub against: Option<Against>,
}

impl Opened {
    /// What is trained on what: whether a checkpoint is of this run.
    pub fn recipe(&self) -> String {
        let Self { spec, architecture, base, preprocess, data, .. } = self;
        let base = base.as_ref().map(|base| (&base.digest, base.learned_from()));
        sha256(json!([architecture, base, preprocess, spec.fit, data.digest]).to_string().as_bytes())
    }

    /// All that decides what the artifact is, and whether it is published.
    pub fn made_of(&self) -> String {
        let Spec { compress, accept, .. } = &self.spec;
        let against = self.against.as_ref().map(|against| &against.digest);
        sha256(format!("{} {} {compress:?} {accept:?} {against:?}", self.name, self.recipe()).as_bytes())
    }
}

/// A variant, whether it passed or not.
pub struct Row {
    pub verdict: Verdict,
    pub bytes: u64,
    /// Of one request, on this machine.
    pub latency: Duration,
    pub measured: Measured,
    pub answers: Vec<Answer>,
}

/// What another model tells of the same test samples.
pub struct Before {
    pub uri: String,
    /// Its metric.
    pub value: f64,
}

/// What became of a trained network.
pub struct Finished {
    /// The trained network first.
    pub rows: Vec<Row>,
    /// Of the forms that could not be made.
    pub refused: Vec<Verdict>,
    /// The trained network on each data set of a mix alone, none where there is one; and where it tells anomalies, on these alone, and on the
    /// rest.
    pub parts: Vec<PartAccuracy>,
    pub before: Option<Before>,
    /// Of the variants that passed: the artifact's.
    pub evaluation: Evaluation,
}

/// Leaves an artifact in the folder; `say` is told what is being made.
///
/// # Errors
/// [`FinishError`] if the data does not fit, or the folder cannot be written.
pub fn finish(
    network: Network,
    opened: &mut Opened,
    folder: &Path,
    say: &dyn Fn(&str),
) -> Result<Finished, FinishError> {
    let Opened { spec, architecture, base, preprocess, data, train, validation, against, .. } = opened;
    let (architecture, base) = (&*architecture, base.as_ref());
    let head = base.map(|base| base.head.as_str());
    let nothing = Compress::default();
    let settings = spec.compress.as_ref().unwrap_or(&nothing);
    let course = Course { architecture, train, validation, fit: &spec.fit, compress: settings, base, say };
    let Compressed { mut variants, architectures, refused } = compress(network, &course)?;
    let evaluated = evaluate(&variants, data, preprocess, head, against.as_ref())?;
    let Evaluated { mut evaluation, mut answers, before, references } = evaluated;
    let before = against.as_ref().zip(before).map(|(against, value)| Before { uri: against.uri.clone(), value });
    let latencies = latencies(&variants, &one(&variants, train)?)?;
    let most = share(&settings.max_accuracy_drop).unwrap_or_default();
    let first = variants.first().and_then(|variant| answers.get(&variant.name)).cloned().unwrap_or_default();
    let names = variants.first().map(|variant| variant.network.graph().labels()).unwrap_or_default();
    let mut parts = by_part(data.test.parts(), &first);
    // Whoever finds none of them is right on all the others, which are many.
    if variants.first().is_some_and(|variant| variant.network.threshold().is_some()) {
        parts.extend(by_class(&names, &first));
    }
    let row = |(variant, latency): (&Variant, Duration)| -> Result<Row, FinishError> {
        let measured = evaluation.variants[&variant.name].clone();
        let answers = answers.remove(&variant.name).unwrap_or_default();
        let verdict = verdict(&variant.name, &measured, worst(&first, &answers, data.test.groups()), most);
        Ok(Row { verdict, bytes: artifact::bytes(variant, head)?, latency, measured, answers })
    };
    let rows: Vec<Row> = variants.iter().zip(latencies).map(row).collect::<Result<_, _>>()?;
    let passed = |name: &str| rows.iter().any(|row| row.verdict.variant == name && row.verdict.passed);
    variants.retain(|variant| passed(&variant.name));
    evaluation.variants.retain(|name, _| passed(name));
    let description = Description {
        labels: names,
        architecture,
        head,
        architectures: &architectures,
        preprocess,
        variants: &variants,
        references: &references,
        evaluation: &evaluation,
    };
    output::write(folder, &description)?;
    Ok(Finished { rows, refused, parts, before, evaluation })
}

/// An input: a sample, or where there are features alone one that is as dark.
fn one(variants: &[Variant], train: &Prepared) -> Result<Tensor, FinishError> {
    if !train.are_features() {
        return Ok(train.batch(&[train.longest()])?);
    }
    let input = variants.first().map(|variant| variant.network.graph().input.clone()).unwrap_or_default();
    let shape: Vec<usize> = std::iter::once(1).chain(input).collect();
    Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?)
}

fn by_class(names: &[String], answers: &[Answer]) -> Vec<PartAccuracy> {
    let of = |(class, name): (usize, &String)| {
        let of_class: Vec<_> = answers.iter().filter(|answer| answer.label() == Some(class)).cloned().collect();
        part(name, &of_class)
    };
    names.iter().enumerate().map(of).collect()
}

/// The answers stand as the parts' samples do, one part after the other.
fn by_part(parts: &[Part], answers: &[Answer]) -> Vec<PartAccuracy> {
    let mut rest = answers;
    let of = |Part { name, count }: &Part| {
        let (of_part, others) = rest.split_at((*count).min(rest.len()));
        rest = others;
        part(name, of_part)
    };
    parts.iter().map(of).collect()
}

fn part(name: &str, answers: &[Answer]) -> PartAccuracy {
    let alone = alone(answers);
    PartAccuracy { name: name.into(), accuracy: value(&alone), most: interval95(&alone).1, count: alone.len() }
}

impl Finished {
    /// What became of every form that was asked for.
    pub fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.rows.iter().map(|row| &row.verdict).chain(&self.refused)
    }

    /// Size, time and accuracy of each variant beside those of the trained network, for people.
    pub fn table(&self) -> String {
        let Some(first) = self.rows.first() else { return String::new() };
        let header = format!(
            "{:<14} {:>10} {:>6} {:>10} {:>6} {:>9} {:>7}  verdict\n",
            "variant", "bytes", "\u{d7}", "time", "\u{d7}", first.measured.metric, "points"
        );
        let line = |row: &Row| {
            let times = |new: f64, old: f64| new / old.max(f64::MIN_POSITIVE);
            let points = (row.measured.value - first.measured.value) * 100.0;
            let mut line = format!(
                "{:<14} {:>10} {:>6.2} {:>7.1} µs {:>6.2} {:>9.4} {points:>+7.2}  {}",
                row.verdict.variant,
                row.bytes,
                times(row.bytes as f64, first.bytes as f64),
                row.latency.as_secs_f64() * 1e6,
                row.slower(first),
                row.measured.value,
                row.judgement(first),
            );
            line.truncate(line.trim_end().len());
            line + "\n"
        };
        let refused = |Verdict { variant, reason, .. }: &Verdict| format!("{variant:<14} {reason}\n");
        let rows: String = self.rows.iter().map(line).collect();
        header + &rows + &self.refused.iter().map(refused).collect::<String>()
    }
}

impl Row {
    /// What is to be said of it in a few words, beside the trained network.
    pub fn judgement(&self, first: &Self) -> String {
        match (self.verdict.passed, self.slower(first) > 1.0) {
            (true, true) => "passed, not faster here".into(),
            (true, false) => "passed".into(),
            // The numbers stand before it.
            (false, _) => self.verdict.reason.rsplit("  ").next().unwrap_or_default().into(),
        }
    }

    /// Its time beside another's.
    pub fn slower(&self, than: &Self) -> f64 {
        self.latency.as_secs_f64() / than.latency.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}
