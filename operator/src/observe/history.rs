//! What happened at each home: when the model came there, what its clients waited since, and what might be better.

use super::snapshot::{Resolved, micros, model_name};
use super::{SiteView, World};
use crate::names;
use crate::plan;
use crate::status::{self, Truth};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use sconce_api::{Decision, EdgeFleet, EdgeModel, Reason, condition};
use std::collections::BTreeMap;

/// Routers tell of the last five minutes, by tier.
const WINDOW_SECONDS: i64 = 300;

/// From so many answers on, what clients waited whole counts more than what the parts predict.
const ENOUGH: i64 = 1_000;

pub fn stability(
    world: &World,
    fleet: &EdgeFleet,
    name: &str,
    site: &SiteView,
    models: &[Resolved<'_>],
) -> plan::Stability {
    let spec = fleet.spec.stability.clone().unwrap_or_default();
    let settle = spec.settle.parse().map_or(300, |settle| settle.as_secs());
    let history = models.iter().filter_map(|(model, _)| Some((model_name(model), history(world, name, site, model)?)));
    plan::Stability {
        now: world.now.as_second(),
        min_gain_millis: spec.min_gain.millis().unwrap_or(15_000),
        settle_seconds: i64::try_from(settle).unwrap_or(i64::MAX),
        history: history.collect(),
        held: BTreeMap::new(),
    }
}

fn history(world: &World, name: &str, site: &SiteView, model: &EdgeModel) -> Option<plan::History> {
    let key = (model.namespace().unwrap_or_default(), names::placement(&model.name_any(), name));
    let status = world.placements.get(&key)?.status.as_ref()?;
    let decision = status.decision.as_ref()?;
    let since = seconds(&decision.since);
    let observed = status::observed(world, &site.nodes, model, decision.tier);
    let within = status::within_budget(&observed, decision.tier, &model.spec.terms_at(site.labels()).latency_budget);
    let is_own = tells_of_it(decision, world.now.as_second());
    let waited = observed.here.filter(|waited| is_own && waited.count >= ENOUGH && within.reason != Reason::Failing);
    let missed_since = || {
        let before = condition(&status.conditions, within.kind).filter(|before| before.status == "False");
        before.map_or(world.now.as_second(), |before| seconds(&before.last_transition_time)).max(since)
    };
    Some(plan::History {
        since,
        left: decision.left.as_ref().map(|left| plan::Left {
            tier: left.tier,
            node: left.node.clone(),
            variant: left.variant.clone(),
        }),
        better_since: decision.better.as_ref().map(|better| seconds(&better.since)),
        // Nothing takes no time: such a measurement is none.
        measured_p99_us: waited.and_then(|waited| waited.p99).map(|p99| micros(&p99)).filter(|us| *us > 0),
        missed_since: (is_own && within.truth == Truth::False).then(missed_since),
    })
}

/// Whether routers tell of this place alone: they tell by tier, so for as long as they look back also of what served before.
fn tells_of_it(decision: &Decision, now: i64) -> bool {
    decision.left.is_none() || seconds(&decision.since).saturating_add(WINDOW_SECONDS) <= now
}

fn seconds(time: &Time) -> i64 {
    time.0.as_second()
}
