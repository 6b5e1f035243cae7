//! From Kubernetes objects to the planner's values, with units.

use super::profiles::{OfSite, of_classes, status_of};
use super::{FleetView, SiteView, World, is_ready};
use crate::names;
use crate::plan;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use sconce_api::{
    Amount, Basis, DurationText, EdgeFleet, EdgeModel, EdgeModelSpec, EdgeModelVersion, EdgePlacement, FleetPrices,
    SiteServe, Terms, TierChoice,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Taints of a node that is about to go, or gone though it says nothing.
const LEAVING: &[&str] =
    &["node.kubernetes.io/out-of-service", "ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted"];

/// Round trip between a router and a pod of the same site, where no agent has measured it.
const LOCAL: plan::Term = plan::Term { p50_us: 300, p99_us: 500, basis: Basis::Estimated };

/// A model that can be planned, and the facts of its version.
pub type Resolved<'a> = (&'a EdgeModel, &'a EdgeModelVersion);

pub fn fleet_snapshot(
    world: &World,
    view: &FleetView,
    models: &[Resolved<'_>],
    cloud_load: &BTreeMap<plan::ModelName, BTreeMap<String, u64>>,
) -> plan::FleetSnapshot {
    let with_pools = world.with_pools();
    let models = models.iter().map(|(model, version)| {
        let name = model_name(model);
        let load = model.spec.load.clone().unwrap_or_default();
        plan::FleetModel {
            version: version.name_any(),
            tier: widest_tier(&model.spec),
            data_stays: world.data_stays(model),
            has_pool: with_pools.contains(&super::key(*model)),
            require: model.spec.hardware.clone().unwrap_or_default().require,
            peak_factor_millis: load.peak_factor.millis().unwrap_or(150_000),
            max_batch_size: count(model.spec.serving.clone().unwrap_or_default().max_batch_size),
            variants: variants(version, &OfSite::default()),
            cloud_load: cloud_load.get(&name).cloned().unwrap_or_default(),
            accuracy_floor_millis: model.spec.accuracy_floor.as_ref().and_then(|floor| floor.millis()),
            name,
        }
    });
    let cloud_nodes = view.cloud.iter().map(|node| plan_node(world, node)).collect();
    let reserve = view.fleet.spec.cloud.as_ref().and_then(|cloud| cloud.reserve.millis());
    plan::FleetSnapshot { cloud_nodes, reserve_millis: reserve.unwrap_or(0), models: models.collect() }
}

/// Models as the sites before saw them: most see the same.
pub type Seen = BTreeMap<plan::ModelName, Arc<plan::Model>>;

pub fn site_snapshot(
    world: &World,
    fleet: &EdgeFleet,
    (name, site): (&str, &SiteView),
    models: &[Resolved<'_>],
    offers: &BTreeMap<plan::ModelName, plan::CloudOffer>,
    seen: &mut Seen,
) -> plan::Snapshot {
    let spec = site.object.as_ref().map(|site| &site.spec);
    let measured = OfSite::of_nodes(world, &site.nodes);
    let model = |(model, version): &Resolved<'_>| {
        let closed = match world.data_stays(model) {
            Some(plan::DataStays::Unknown(why)) => Some(why),
            _ => None,
        };
        let at = At { site: site.labels(), priority: world.priority_of(model), closed, measured: &measured, offers };
        let model = plan_model(model, version, &at);
        match seen.get(&model.name).filter(|seen| ***seen == model) {
            Some(same) => Arc::clone(same),
            None => {
                let new = Arc::new(model);
                seen.insert(new.name.clone(), Arc::clone(&new));
                new
            }
        }
    };
    let current = models.iter().filter_map(|(model, _)| Some((model_name(model), home(world, model, name)?)));
    plan::Snapshot {
        site: name.to_owned(),
        nodes: site.nodes.iter().map(|node| plan_node(world, node)).collect(),
        link: link(crate::status::site_link(world, fleet, site)),
        local: local(world, site),
        paused: spec.is_some_and(|spec| spec.paused),
        cloud_only: spec.is_some_and(|spec| spec.serve == SiteServe::CloudOnly),
        prices: prices(fleet.spec.prices.clone().unwrap_or_default()),
        max_share_millis: fleet.spec.limits.clone().unwrap_or_default().max_share.millis().unwrap_or(80_000),
        models: models.iter().map(model).collect(),
        current: current.collect(),
        stability: super::history::stability(world, fleet, name, site, models),
        ratios: Arc::clone(&world.ratios),
    }
}

/// Whether the cloud may serve the model at any site.
fn widest_tier(spec: &EdgeModelSpec) -> TierChoice {
    let tier = spec.placement.clone().unwrap_or_default().tier;
    let others = spec.overrides.iter().filter_map(|one| one.placement.as_ref()?.tier);
    match tier {
        TierChoice::Edge if others.into_iter().any(|other| other != TierChoice::Edge) => TierChoice::Auto,
        tier => tier,
    }
}

pub fn model_name(model: &EdgeModel) -> plan::ModelName {
    plan::ModelName { namespace: model.namespace().unwrap_or_default(), name: model.name_any() }
}

/// What a model meets at a site.
struct At<'a> {
    /// Labels of the EdgeSite.
    site: &'a BTreeMap<String, String>,
    /// Of the model's PriorityClass.
    priority: i32,
    /// Why it comes to the cloud from nowhere.
    closed: Option<String>,
    measured: &'a OfSite<'a>,
    offers: &'a BTreeMap<plan::ModelName, plan::CloudOffer>,
}

fn plan_model(model: &EdgeModel, version: &EdgeModelVersion, at: &At<'_>) -> plan::Model {
    let spec = &model.spec;
    let name = model_name(model);
    let Terms { latency_budget, budget_policy, load, placement, by } = spec.terms_at(at.site);
    let artifact = version.status.as_ref().and_then(|status| status.artifact.as_ref());
    let unoffered = || plan::CloudOffer::None {
        reason: sconce_api::Reason::NoNodes,
        message: "the fleet has no cloud node".into(),
    };
    plan::Model {
        version: version.name_any(),
        digest: version.spec.digest.clone(),
        budget_us: micros(&latency_budget),
        budget_policy,
        overridden_by: by,
        priority: at.priority,
        suspended: spec.suspend,
        accuracy_floor_millis: spec.accuracy_floor.as_ref().and_then(|floor| floor.millis()),
        requests_per_second: count(load.requests_per_second),
        peak_factor_millis: load.peak_factor.millis().unwrap_or(150_000),
        require: spec.hardware.clone().unwrap_or_default().require,
        tier: placement.tier,
        objective: placement.objective,
        max_batch_size: count(spec.serving.clone().unwrap_or_default().max_batch_size),
        request_bytes: artifact.map_or(0, |artifact| count(artifact.request_bytes)),
        response_bytes: artifact.map_or(0, |artifact| count(artifact.response_bytes)),
        variants: variants(version, at.measured),
        cloud: at.offers.get(&name).cloned().unwrap_or_else(unoffered),
        cloud_closed: at.closed.clone(),
        name,
    }
}

fn variants(version: &EdgeModelVersion, measured: &OfSite<'_>) -> Vec<plan::Variant> {
    let facts = version.status.iter().flat_map(|status| &status.variants);
    let variant = |facts: &sconce_api::VariantFacts| plan::Variant {
        name: facts.name.clone(),
        bytes: count(facts.bytes),
        memory_bytes: count(facts.memory),
        scratch_bytes: facts.scratch.map_or(0, count),
        flops: count(facts.flops),
        accuracy_millis: facts.accuracy.as_ref().and_then(|accuracy| accuracy.millis()),
        class_profiles: of_classes(version, &facts.name),
        node_profiles: measured.of_variant(version, &facts.name),
    };
    facts.map(variant).collect()
}

fn plan_node(world: &World, node: &Node) -> plan::Node {
    let spec = node.spec.clone().unwrap_or_default();
    let taints = spec.taints.unwrap_or_default();
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.clone()).unwrap_or_default();
    plan::Node {
        name: node.name_any(),
        labels: node.labels().clone(),
        ready: is_ready(node),
        leaving: spec.unschedulable == Some(true) || taints.iter().any(|taint| LEAVING.contains(&taint.key.as_str())),
        allocatable: amounts(&allocatable),
        // A node that does not say it is not short of it.
        store_bytes: amount(&allocatable, "ephemeral-storage").and_then(|store| store.units()).unwrap_or(u64::MAX),
        requested: requested(world, &node.name_any()),
        speed: speed_of(world, &node.name_any()),
        busy_millis: busy_millis(world, &node.name_any()),
    }
}

/// Cores that everything else than our models keeps busy; none where the agent has not told it yet.
fn busy_millis(world: &World, node: &str) -> u64 {
    let usage = status_of(world, node).and_then(|status| status.usage.as_ref());
    usage.and_then(|usage| usage.cpu_busy_p95.millis()).unwrap_or(0)
}

/// As the agent measured it on its node. Between nodes nobody measures: at a site of several it is an estimate, no less than
/// what the slowest of them takes alone.
fn local(world: &World, site: &SiteView) -> plan::Term {
    let measured = |node: &Arc<Node>| {
        let round_trip = status_of(world, &node.name_any())?.local_round_trip.as_ref()?;
        let (p50_us, p99_us) = (micros(&round_trip.p50), micros(round_trip.p99.as_ref()?));
        Some(plan::Term { p50_us, p99_us: p99_us.max(p50_us), basis: round_trip.basis })
    };
    let terms = site.nodes.iter().map(measured);
    match &terms.clone().collect::<Vec<_>>()[..] {
        [Some(alone)] => *alone,
        _ => terms.flatten().fold(LOCAL, |most, term| plan::Term {
            p50_us: most.p50_us.max(term.p50_us),
            p99_us: most.p99_us.max(term.p99_us),
            basis: LOCAL.basis,
        }),
    }
}

/// The speed that the node's agent measured.
pub fn speed_of(world: &World, node: &str) -> Option<plan::Speed> {
    let hardware = status_of(world, node)?.hardware.as_ref()?;
    Some(plan::Speed { class: hardware.class.clone(), gflops: count(hardware.gflops), cores: count(hardware.cores) })
}

fn requested(world: &World, node: &str) -> plan::Resources {
    let pods = world.other_pods.get(node).into_iter().flatten();
    pods.map(|pod| pod.request).fold(plan::Resources::default(), plan::Resources::plus)
}

pub(super) fn amounts(list: &BTreeMap<String, Quantity>) -> plan::Resources {
    plan::Resources {
        cpu_millis: amount(list, "cpu").and_then(|cpu| cpu.millis()).unwrap_or(0),
        memory_bytes: amount(list, "memory").and_then(|memory| memory.units()).unwrap_or(0),
    }
}

fn amount(list: &BTreeMap<String, Quantity>, name: &str) -> Option<Amount> {
    list.get(name).map(|quantity| Amount(quantity.0.clone()))
}

/// The placement's decision; where it has none yet, what its Deployment says.
fn home(world: &World, model: &EdgeModel, site: &str) -> Option<plan::Home> {
    let key = (model.namespace().unwrap_or_default(), names::placement(&model.name_any(), site));
    let decided = world.placements.get(&key).and_then(|placement| decided(placement));
    decided.or_else(|| world.deployments.get(&key).and_then(|deployment| deployment.home()))
}

fn decided(placement: &EdgePlacement) -> Option<plan::Home> {
    let decision = placement.status.as_ref()?.decision.as_ref()?;
    Some(plan::Home {
        tier: decision.tier,
        node: decision.nodes.first().cloned(),
        variant: decision.variant.clone(),
        version: placement.spec.version_ref.name.clone(),
        replicas: count(decision.replicas),
    })
}

/// Without a measured p99 the median says too little of the tail: twice the median is assumed.
fn link(link: sconce_api::SiteLink) -> plan::Link {
    let p50 = micros(&link.round_trip.p50);
    let uplink = link.uplink.units().unwrap_or(10_000_000);
    plan::Link {
        round_trip_p50_us: p50,
        round_trip_p99_us: link.round_trip.p99.as_ref().map_or(p50.saturating_mul(2), micros),
        round_trip_basis: if link.round_trip.p99.is_some() { link.round_trip.basis } else { Basis::Assumed },
        samples: count(link.round_trip.samples),
        uplink_bits_per_second: uplink,
        uplink_low_bits_per_second: uplink,
        keeps_window: false,
        uplink_basis: link.uplink_basis,
    }
}

fn prices(prices: FleetPrices) -> plan::Prices {
    plan::Prices {
        edge_cpu_hour: count(prices.edge_cpu_hour),
        edge_memory_gib_hour: count(prices.edge_memory_gib_hour),
        cloud_cpu_hour: count(prices.cloud_cpu_hour),
        cloud_memory_gib_hour: count(prices.cloud_memory_gib_hour),
        uplink_gib: count(prices.uplink_gib),
    }
}

pub(super) fn micros(duration: &DurationText) -> u64 {
    duration.parse().map_or(0, |duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

/// The API's integers are signed; none of ours is below zero.
pub(super) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
