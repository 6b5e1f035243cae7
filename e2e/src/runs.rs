//! Waiting for what a recipe's runs come to, and for the model that follows them.

use crate::bed::Bed;
use crate::placements::NAMESPACE;
use anyhow::{Context as _, Result};
use kube::api::Api;
use sconce_api::{EdgeModel, EdgeTraining, TrainingRun, condition};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);

impl Bed {
    /// Waits for the newest run of a recipe, of more than `before`, to be as wanted.
    pub async fn until_run(
        &self,
        training: &str,
        before: usize,
        what: &str,
        holds: impl Fn(&TrainingRun) -> bool,
    ) -> Result<TrainingRun> {
        let newest = |found: Option<&EdgeTraining>| {
            let runs = found.and_then(|training| training.status.as_ref()).map(|status| status.runs.as_slice())?;
            runs.first().filter(|_| runs.len() > before).cloned()
        };
        let trainings: Api<EdgeTraining> = Api::namespaced(self.client.clone(), NAMESPACE);
        let is_so = |found: Option<&EdgeTraining>| newest(found).is_some_and(|run| holds(&run));
        let found = self.until(&trainings, training, what, LIMIT, is_so).await?;
        newest(found.as_ref()).context("it was just there")
    }

    /// Waits until a model is Ready with a published artifact.
    pub async fn until_follows(&self, model: &str, artifact: &str) -> Result<()> {
        let models: Api<EdgeModel> = Api::namespaced(self.client.clone(), NAMESPACE);
        let follows = |found: Option<&EdgeModel>| {
            found.and_then(|model| model.status.as_ref()).is_some_and(|status| {
                status.desired.as_ref().is_some_and(|desired| artifact.ends_with(&desired.digest))
                    && condition(&status.conditions, "Ready").is_some_and(|ready| ready.status == "True")
            })
        };
        self.until(&models, model, "the model serves what was published", LIMIT, follows).await.map(drop)
    }
}
