//! What the EdgeNode's status says, and when that is worth a write. Pure.

mod conditions;
mod news;
#[cfg(test)]
mod tests;

use crate::link::Link;
use crate::profiles::{self, Profiles};
use crate::round::{duration_text, rate_text, two_digits};
use crate::router::Waits;
use crate::window::Summary;
use conditions::{profiled, ready};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use news::{hardware_changed, link_moved, round_trip_moved, usage_moved, waits_moved};
use sconce_api::{
    Basis, EdgeNodeStatus, Hardware, NodeLink, NodeProfile, NodeUsage, ObservedModel, RoundTrip, condition,
};
use std::time::Duration;
use tokio::time::Instant;

/// Without an answer for this long, the cloud tier counts as not reached.
const CONTACT: Duration = Duration::from_secs(30);
/// Between two writes, except the first and those that change Ready.
const APART: Duration = Duration::from_secs(60);

/// How the cloud tier stands to this agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// The first 500 probes are under way.
    Probing,
    Answers,
    /// No answer for 30 s.
    Silent,
}

impl Cloud {
    pub fn of(link: &Link, started: Instant, now: Instant) -> Self {
        if now.duration_since(link.contact.unwrap_or(started)) >= CONTACT {
            Self::Silent
        } else if probed(link).is_none() {
            Self::Probing
        } else {
            Self::Answers
        }
    }
}

/// What a status is made of.
#[derive(Clone)]
pub struct Measured<'a> {
    pub hardware: &'a Hardware,
    pub link: &'a Link,
    /// To the router beside us.
    pub local: &'a Link,
    /// Bits per second.
    pub uplink: Option<u64>,
    pub usage: Option<NodeUsage>,
    /// `None` until it is known what may run here.
    pub profiles: Option<&'a Profiles>,
    pub waits: Waits,
}

/// The round trip, once enough probes tell its tail.
fn probed(link: &Link) -> Option<Summary> {
    link.round_trip.filter(|_| link.is_probed())
}

/// The status to write over `old`, or `None` if nothing has changed by enough, or the last write was just now. The
/// hardware does not wait for the link: a site with a far cloud can be planned while its probes run.
pub fn next(
    old: Option<&EdgeNodeStatus>,
    Measured { hardware, link, local, uplink, usage, profiles, waits }: Measured<'_>,
    cloud: Cloud,
    last_write: Option<Duration>,
    clock: Time,
) -> Option<EdgeNodeStatus> {
    let old_ready = old.and_then(|old| condition(&old.conditions, "Ready"));
    let old_profiled = old.and_then(|old| condition(&old.conditions, "Profiled"));
    let told = old.and_then(|old| old.link.as_ref());
    let measured = probed(link).map(|summary| NodeLink {
        round_trip: round_trip(summary),
        uplink: uplink.map(rate_text).or_else(|| told?.uplink.clone()),
    });
    let new = EdgeNodeStatus {
        observed_generation: None,
        hardware: Some(hardware.clone()),
        // Not probed since this start: what was measured before stays.
        link: measured.or_else(|| told.cloned()),
        local_round_trip: probed(local).map(round_trip).or_else(|| old?.local_round_trip.clone()),
        usage: usage.or_else(|| old?.usage.clone()),
        profiles: match profiles {
            Some(profiles) => profiles::told(profiles_of(old, hardware), profiles),
            None => profiles_of(old, hardware).to_vec(),
        },
        models: waited(waits, old.map(|old| old.models.as_slice()).unwrap_or_default()),
        // Another field manager's, so that neither waits for the other.
        collect: Vec::new(),
        conditions: [Some(ready(cloud, old_ready, clock.clone())), profiled(profiles, old_profiled, clock)]
            .into_iter()
            .flatten()
            .collect(),
    };
    let ready_changed = old_ready.is_none_or(|ready| ready.status != new.conditions[0].status);
    let reason = |profiled: Option<&Condition>| profiled.map(|profiled| profiled.reason.clone());
    let profiled_changed = reason(old_profiled) != reason(condition(&new.conditions, "Profiled"));
    let due = last_write.is_none_or(|ago| ago >= APART);
    let changed = old.is_none_or(|old| {
        hardware_changed(old.hardware.as_ref(), hardware)
            || link_moved(old.link.as_ref(), new.link.as_ref())
            || round_trip_moved(old.local_round_trip.as_ref(), new.local_round_trip.as_ref())
            || usage_moved(old.usage.as_ref(), new.usage.as_ref())
            || old.profiles != new.profiles
            || waits_moved(&old.models, &new.models)
    });
    (ready_changed || profiled_changed || (changed && due)).then_some(new)
}

fn round_trip(summary: Summary) -> RoundTrip {
    RoundTrip {
        p50: duration_text(summary.p50),
        p99: summary.p99.map(duration_text),
        samples: two_digits(summary.samples as u64) as i64,
        basis: Basis::Measured,
    }
}

/// What the EdgeNode says of this node as it is: what was measured on another class is void.
pub fn profiles_of<'a>(old: Option<&'a EdgeNodeStatus>, hardware: &Hardware) -> &'a [NodeProfile] {
    let same_class = |old: &&EdgeNodeStatus| old.hardware.as_ref().is_some_and(|old| old.class == hardware.class);
    old.filter(same_class).map(|old| old.profiles.as_slice()).unwrap_or_default()
}

/// After a start of the agent, or of its router, what was told stands until as much is known anew, or five minutes are.
fn waited(waits: Waits, old: &[ObservedModel]) -> Vec<ObservedModel> {
    let answers = |rows: &[ObservedModel]| rows.iter().map(|row| row.waited.count).fold(0, i64::saturating_add);
    match waits {
        Some(waited) if waited.is_whole || answers(&waited.rows) >= answers(old) => waited.rows,
        _ => old.to_vec(),
    }
}
