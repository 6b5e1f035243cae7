//! The test split is read here, once, through the plans that serve.

use crate::against::Against;
use crate::answer::{Answer, Told, f1_of_each, interval95, mean_absolute_error, value};
use crate::calibration::ece;
use crate::data::{DataSet, NORMAL, Samples};
use crate::fit::FitError;
use crate::prepared::Prepared;
use candle_core::Tensor;
use sconce_kernels::{Cpu, IsaToken, Threads};
use sconce_model::architecture::Task;
use sconce_model::artifact::{Evaluation, Measured, Paired};
use sconce_model::drift::{Moments, Reference};
use sconce_model::metrics::{confusion, drop_upper95, mean_drop_upper95};
use sconce_model::plan::Plan;
use sconce_model::preprocess::Preprocess;
use sconce_model::variant::Variant;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Requests that a variant's time is the median of.
const ROUNDS: usize = 101;

/// What was measured, and what each variant said of every sample.
pub struct Evaluated {
    pub evaluation: Evaluation,
    pub answers: BTreeMap<String, Vec<Answer>>,
    /// What the metric is of the model that is to be improved on.
    pub before: Option<f64>,
    /// What each is held against where it serves, if there are enough samples to tell.
    pub references: BTreeMap<String, Reference>,
}

/// Every variant on the same samples; the first is the one that the others are held against.
///
/// Of features the head alone is asked, which begins with the node `head`; their digest says that the variant's backbone made them.
///
/// # Errors
/// [`FitError`] if preprocessing does not fit, or the test split was read already.
pub fn evaluate(
    variants: &[Variant],
    data: &mut DataSet,
    preprocess: &Preprocess,
    head: Option<&str>,
    against: Option<&Against>,
) -> Result<Evaluated, FitError> {
    let (mut measured, mut said, mut references) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let own = data.test.parts().first().map_or(data.test.len(), |part| part.count);
    let samples = data.test.read()?;
    let before = against.map(|against| against.answers(samples, preprocess)).transpose()?;
    let mut first: Option<(&str, Vec<Answer>)> = None;
    for variant in variants {
        let graph = variant.network.graph();
        let plan = reading(samples, variant, head)?;
        let prepared = Prepared::new(samples, preprocess, plan.input())?;
        let answers = prepared.answers(&plan, graph)?;
        let order: Vec<usize> = (0..answers.len()).collect();
        let weights = prepared.weights(&order).unwrap_or_else(|| vec![1.0; answers.len()]);
        // There are more anomalies among what is tested than among what comes.
        let comes = |at: &usize| graph.task() != Task::Anomaly || answers[*at].label() == Some(usize::from(NORMAL));
        let rows: Vec<usize> = (0..own).filter(comes).collect();
        references.extend(Some(variant.name.clone()).zip(reference(
            &answers,
            prepared.moments().as_deref(),
            &weights,
            &rows,
        )));
        let measure = Measured {
            path: variant.arithmetic.name().into(),
            metric: metric(graph.task()).into(),
            value: value(&answers),
            wilson95: interval95(&answers),
            // How likely an anomaly is, is no confidence that was learned.
            ece: graph.classifies().then(|| ece(&answers)),
            confusion: confused(graph.units(), &answers),
            f1: f1_of_each(&answers),
            mean_absolute_error: mean_absolute_error(&answers),
            paired: first.as_ref().map(|(against, before)| paired(against, before, &answers)),
        };
        measured.insert(variant.name.clone(), measure);
        first = first.or_else(|| Some((&variant.name, answers.clone())));
        said.insert(variant.name.clone(), answers);
    }
    let evaluation =
        Evaluation { schema: 1, dataset: data.described(), test_reads: data.test.reads(), variants: measured };
    let before = before.map(|answers| value(&answers));
    Ok(Evaluated { evaluation, answers: said, before, references })
}

/// The plan that these samples are asked: the variant's, or of features that of the part that begins with the node `head`.
pub(crate) fn reading(samples: &Samples, variant: &Variant, head: Option<&str>) -> Result<Plan, FitError> {
    if !samples.are_features() {
        return Ok(variant.plan()?);
    }
    let (_, head) = head.and_then(|head| variant.network.split(head)).ok_or(FitError::NoHead)?;
    Ok(Plan::compile(&head, &variant.arithmetic)?)
}

/// What is to be expected where the model serves, which is what `rows` are like: of a mix the first set's, for the rest is there so that
/// nothing is forgotten, and does not come. Samples that are there for being hard count by the inverse of their probability. None if they
/// are too few.
fn reference(answers: &[Answer], inputs: Option<&[Moments]>, weights: &[f32], rows: &[usize]) -> Option<Reference> {
    let said = rows.iter().map(|&row| (answers[row].class, answers[row].confidence, weights[row]));
    let reference = Reference::of(said)?;
    Some(match inputs {
        Some(inputs) => {
            let inputs: Vec<_> = rows.iter().map(|&row| (inputs[row], weights[row])).collect();
            reference.with_inputs(&inputs)
        }
        None => reference,
    })
}

pub fn paired(against: &str, before: &[Answer], after: &[Answer]) -> Paired {
    let drops: Vec<f64> = drops(before.iter().zip(after)).collect();
    let count = |of: fn(&f64) -> bool| drops.iter().filter(|drop| of(drop)).count() as u64;
    let (right_to_wrong, wrong_to_right) = (count(|drop| *drop > 0.0), count(|drop| *drop < 0.0));
    let are_amounts = after.iter().any(|answer| matches!(answer.told, Told::Amounts(_)));
    let drop_upper95 = if are_amounts { mean_drop_upper95(drops) } else { drop_upper95(drops) };
    Paired { against: against.into(), right_to_wrong, wrong_to_right, drop_upper95 }
}

/// By how much each scores less than before.
pub fn drops<'a>(pairs: impl Iterator<Item = (&'a Answer, &'a Answer)>) -> impl Iterator<Item = f64> {
    pairs.map(|(before, after)| before.score - after.score)
}

/// What the value of an evaluation is.
pub fn metric(task: Task) -> &'static str {
    match task {
        Task::Classification | Task::Anomaly | Task::Multilabel => "accuracy",
        Task::Regression | Task::Count => "r2",
    }
}

/// None where samples have no class.
fn confused(classes: usize, answers: &[Answer]) -> Vec<Vec<u64>> {
    if answers.iter().any(|answer| !matches!(answer.told, Told::Class(_))) {
        return vec![];
    }
    confusion(classes, answers.iter().filter_map(|answer| Some((answer.label()?, answer.class))))
}

/// What one request takes on this machine, one thread, in the median; all variants in turn, so that they meet the same noise.
///
/// # Errors
/// If a plan does not fit.
pub fn latencies(variants: &[Variant], xs: &Tensor) -> candle_core::Result<Vec<Duration>> {
    let cpu = Cpu { isa: IsaToken::detect().map_err(candle_core::Error::wrap)?, threads: &Threads::one() };
    let mut plans = Vec::with_capacity(variants.len());
    for variant in variants {
        let plan = variant.plan()?;
        let scratch = plan.scratch(1);
        plans.push((plan, scratch, Vec::with_capacity(ROUNDS)));
    }
    for _ in 0..ROUNDS {
        for (plan, scratch, took) in &mut plans {
            let began = Instant::now();
            plan.infer(cpu, &[xs], scratch)?;
            took.push(began.elapsed());
        }
    }
    let median = |(_, _, mut took): (_, _, Vec<Duration>)| {
        took.sort_unstable();
        took[ROUNDS / 2]
    };
    Ok(plans.into_iter().map(median).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mixed_in_is_not_expected_where_the_model_serves() {
        let answer = |class| Answer { class, confidence: 0.9, score: 1.0, loss: 0.1, told: Told::Class(class) };
        let answers: Vec<Answer> = [vec![answer(1); 150], vec![answer(2); 450]].concat();
        let told = |weights: &[f32], own: usize| {
            let reference = reference(&answers, None, weights, &(0..own).collect::<Vec<_>>())?;
            Some((reference.classes.counts[1], reference.classes.counts[2]))
        };
        let alike = [1.0; 600];
        assert_eq!((told(&alike, 150), told(&alike, 600)), (Some((150, 0)), Some((150, 450))));
        assert_eq!(told(&alike, 99), None, "too few tell nothing");
        let mut rare = alike;
        rare[..75].fill(0.0);
        assert_eq!(told(&rare, 150), None, "those that count are too few");
    }
}
