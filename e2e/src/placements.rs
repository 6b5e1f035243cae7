//! Waiting for decisions, and reading them.

use crate::bed::{Bed, placement_name};
use anyhow::{Context as _, Result};
use kube::api::Api;
use sconce_api::{EdgePlacement, Tier, condition};
use std::time::Duration;

/// Namespace of the examples.
pub const NAMESPACE: &str = "vision";

/// Long enough for an image pull, a fetch over a slow link and a warm-up on a busy machine; and for what clients waited to be told
/// twice, a minute apart, and to last for a while.
const LIMIT: Duration = Duration::from_secs(240);

/// `True/Reason` of a placement's condition; empty where it has none.
pub fn stands(placement: &EdgePlacement, kind: &str) -> String {
    let conditions = placement.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    condition(conditions, kind).map(|found| format!("{}/{}", found.status, found.reason)).unwrap_or_default()
}

pub fn tier(placement: &EdgePlacement) -> Option<Tier> {
    Some(placement.status.as_ref()?.decision.as_ref()?.tier)
}

/// Ready in that tier, with that tier's endpoint in front.
pub fn serves_from(placement: &EdgePlacement, wanted: Tier) -> bool {
    let first = placement.status.as_ref().and_then(|status| status.endpoints.first());
    tier(placement) == Some(wanted)
        && stands(placement, "Ready").starts_with("True")
        && first.is_some_and(|endpoint| endpoint.tier == wanted)
}

impl Bed {
    pub fn placements(&self) -> Api<EdgePlacement> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub async fn until_placement(
        &self,
        model: &str,
        site: &str,
        what: &str,
        holds: impl Fn(&EdgePlacement) -> bool + Send,
    ) -> Result<EdgePlacement> {
        let name = placement_name(model, site);
        let holds = move |found: Option<&EdgePlacement>| found.is_some_and(&holds);
        let found = self.until(&self.placements(), &name, &format!("{model} at {site}: {what}"), LIMIT, holds).await?;
        found.context("a condition on an object that exists held without the object")
    }

    pub async fn until_served(&self, model: &str, site: &str, wanted: Tier) -> Result<EdgePlacement> {
        self.until_placement(model, site, &format!("served from {wanted}"), move |found| serves_from(found, wanted))
            .await
    }
}
