//! What a decision was made from: each number with its basis and how old it may be.

use crate::explain::{round_trip_text, time};
use kube::ResourceExt as _;
use sconce_api::{Basis, Decision, EdgeModelVersion, EdgeNode, EdgePlacement, Percent, SiteLink, Tier, Waited};
use sconce_operator::observe::World;
use sconce_operator::plan::text;
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// Of one placement. What is not told is not known.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inputs {
    link: Option<SiteLink>,
    node: Option<OfNode>,
    profile: Option<OfVariant>,
    /// What predictions of the class, variant and tier are multiplied with.
    correction: Option<Percent>,
    /// What clients waited.
    observed: Option<Waited>,
}

/// The node that was chosen.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfNode {
    name: String,
    class: String,
    gflops: i64,
    busy_cores: Option<String>,
}

/// How long the variant's batches take.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfVariant {
    variant: String,
    basis: Basis,
    /// That measured it; 0 = the node itself.
    nodes: i64,
}

pub fn inputs(world: &World, placement: &EdgePlacement, version: Option<&EdgeModelVersion>) -> Inputs {
    let status = placement.status.clone().unwrap_or_default();
    let site = world.sites.get(&(String::new(), placement.spec.site_ref.name.clone()));
    let decision = status.decision.as_ref();
    let node = decision.and_then(|decision| world.edge_nodes.get(&(String::new(), decision.nodes.first()?.clone())));
    let node = node.map(AsRef::as_ref);
    Inputs {
        link: site.and_then(|site| site.status.as_ref()?.link.clone()),
        node: node.and_then(of_node),
        profile: decision.zip(version).and_then(|(decision, version)| profile(decision, node, version)),
        correction: decision.zip(node).and_then(|(decision, node)| correction(world, decision, node)),
        observed: status.observed,
    }
}

fn of_node(node: &EdgeNode) -> Option<OfNode> {
    let status = node.status.as_ref()?;
    let hardware = status.hardware.as_ref()?;
    let busy = status.usage.as_ref().and_then(|usage| usage.cpu_busy_p95.millis());
    Some(OfNode {
        name: node.name_any(),
        class: hardware.class.clone(),
        gflops: hardware.gflops,
        busy_cores: busy.map(|millis| text::decimal(millis, 1_000).to_string()),
    })
}

/// The node's own counts more than its class's; where neither is there it is estimated.
fn profile(decision: &Decision, node: Option<&EdgeNode>, version: &EdgeModelVersion) -> Option<OfVariant> {
    let variant = decision.variant.clone();
    let node = node?.status.as_ref()?;
    if node.profiles.iter().any(|own| own.digest == version.spec.digest && own.variant == variant) {
        return Some(OfVariant { variant, basis: Basis::Measured, nodes: 0 });
    }
    let class = &node.hardware.as_ref()?.class;
    let mut classes = version.status.iter().flat_map(|status| &status.profiles);
    let of_class = classes.find(|profile| profile.variant == variant && profile.class == *class);
    Some(match of_class {
        Some(profile) => OfVariant { variant, basis: profile.basis, nodes: profile.nodes },
        None => OfVariant { variant, basis: Basis::Estimated, nodes: 0 },
    })
}

fn correction(world: &World, decision: &Decision, node: &EdgeNode) -> Option<Percent> {
    let class = &node.status.as_ref()?.hardware.as_ref()?.class;
    let percent = world.ratios.percent(Tier::Edge, class, &decision.variant);
    (percent != sconce_operator::plan::AS_PREDICTED).then(|| format!("{percent}%").as_str().into())
}

impl Display for Inputs {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(SiteLink { round_trip, uplink, uplink_basis }) = &self.link {
            let uplink = text::rate(uplink.units().unwrap_or(0));
            let age = if round_trip.basis == Basis::Measured { " within the last hour" } else { "" };
            writeln!(f, "  link: {}{age}; uplink {uplink} ({uplink_basis})", round_trip_text(round_trip))?;
        }
        if let Some(OfNode { name, class, gflops, busy_cores }) = &self.node {
            let busy = busy_cores
                .as_ref()
                .map_or_else(String::new, |busy| format!("; others keep {busy} cores busy (p95 of the last hour)"));
            writeln!(f, "  node {name}: {class}, {gflops} GFLOP/s a core, timed when its agent started{busy}")?;
        }
        if let Some(OfVariant { variant, basis, nodes }) = &self.profile {
            let by = match (basis, nodes) {
                (Basis::Measured, 0) => "measured on the node".to_owned(),
                (Basis::Measured, nodes) => format!("measured on {nodes} nodes of its class"),
                _ => "estimated from its operations and the node's speed".to_owned(),
            };
            writeln!(f, "  speed of {variant}: {by}")?;
        }
        if let Some(correction) = &self.correction {
            writeln!(f, "  clients of such places wait {correction} of what is predicted")?;
        }
        if let Some(Waited { p50, p99, count, errors, .. }) = &self.observed {
            let told = |quantile: &Option<_>| quantile.as_ref().map_or_else(|| "unknown".into(), time);
            let count = text::count(u64::try_from(*count).unwrap_or(0));
            let (p50, p99) = (told(p50), told(p99));
            writeln!(
                f,
                "  clients waited: p50 {p50}, p99 {p99}; {count} answers, {errors} failed within the last 5 minutes"
            )?;
        }
        Ok(())
    }
}
