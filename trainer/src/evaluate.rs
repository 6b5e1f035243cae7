//! The test split is read here, once, through the network that serves.

use crate::data::DataSet;
use crate::fit::{FitError, Prepared, accuracy};
use sconce_model::artifact::{self, Evaluation, Measured};
use sconce_model::metrics::{confusion, wilson95};
use sconce_model::network::Network;
use sconce_model::preprocess::Preprocess;

/// # Errors
/// [`FitError`] if preprocessing does not fit.
pub fn evaluate(network: &Network, data: &mut DataSet, preprocess: &Preprocess) -> Result<Evaluation, FitError> {
    let answers = Prepared::new(data.test.read(), preprocess, &network.graph().input)?.answers(network)?;
    let right = answers.iter().filter(|(label, answer)| label == answer).count();
    let measured = Measured {
        metric: "accuracy".into(),
        value: accuracy(&answers),
        wilson95: wilson95(right as u64, answers.len() as u64),
        confusion: confusion(network.graph().units(), answers.iter().copied()),
    };
    Ok(Evaluation {
        schema: 1,
        dataset: artifact::DataSet { name: data.name.clone(), digest: data.digest.clone(), n: data.test.len() as u64 },
        test_reads: data.test.reads(),
        variants: [(artifact::F32.to_owned(), measured)].into(),
    })
}
