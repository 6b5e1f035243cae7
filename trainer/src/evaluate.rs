//! The test split is read here, once, through the plans that serve.

use crate::data::DataSet;
use crate::fit::FitError;
use crate::prepared::{Answer, Prepared, accuracy};
use sconce_model::artifact::{self, Evaluation, Measured, Paired};
use sconce_model::metrics::{confusion, drop_upper95, wilson95};
use sconce_model::preprocess::Preprocess;
use sconce_model::variant::Variant;

/// Every variant on the same samples; the first is the one that the others are held against.
///
/// # Errors
/// [`FitError`] if preprocessing does not fit.
pub fn evaluate(variants: &[Variant], data: &mut DataSet, preprocess: &Preprocess) -> Result<Evaluation, FitError> {
    let mut measured = std::collections::BTreeMap::new();
    let mut first: Option<(&Variant, Vec<Answer>)> = None;
    let samples = data.test.read();
    for variant in variants {
        let graph = variant.network.graph();
        let answers = Prepared::new(samples, preprocess, &graph.input)?.answers(&variant.plan()?)?;
        let right = answers.iter().filter(|answer| answer.right()).count();
        let measure = Measured {
            path: variant.arithmetic.name().into(),
            metric: "accuracy".into(),
            value: accuracy(&answers),
            wilson95: wilson95(right as u64, answers.len() as u64),
            confusion: confusion(graph.units(), answers.iter().map(|answer| (answer.label, answer.class))),
            paired: first.as_ref().map(|(against, before)| paired(&against.name, before, &answers)),
        };
        measured.insert(variant.name.clone(), measure);
        first = first.or(Some((variant, answers)));
    }
    Ok(Evaluation {
        schema: 1,
        dataset: artifact::DataSet { name: data.name.clone(), digest: data.digest.clone(), n: data.test.len() as u64 },
        test_reads: data.test.reads(),
        variants: measured,
    })
}

fn paired(against: &str, before: &[Answer], after: &[Answer]) -> Paired {
    let turned = |from: bool| {
        let turned = |(before, after): &(&Answer, &Answer)| before.right() == from && after.right() != from;
        before.iter().zip(after).filter(turned).count() as u64
    };
    let (right_to_wrong, wrong_to_right) = (turned(true), turned(false));
    let drop_upper95 = drop_upper95(right_to_wrong, wrong_to_right, before.len() as u64);
    Paired { against: against.into(), right_to_wrong, wrong_to_right, drop_upper95 }
}
