//! What has changed by enough to be written: measurements scatter.

use crate::round::{count_moved, moved, time_moved};
use sconce_api::{Amount, DurationText, Hardware, NodeLink, NodeUsage, ObservedModel, RoundTrip, Waited};

/// The speed of a core jitters from start to start; all else is as it is.
pub fn hardware_changed(old: Option<&Hardware>, new: &Hardware) -> bool {
    old.is_none_or(|old| {
        let same_speed = Hardware { gflops: old.gflops, ..new.clone() };
        *old != same_speed || moved(old.gflops.max(0) as u64, new.gflops.max(0) as u64)
    })
}

/// A quarter is a change; so is a number that was not there.
pub fn link_moved(old: Option<&NodeLink>, new: Option<&NodeLink>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return old != new };
    let bits = |link: &NodeLink| link.uplink.as_ref().and_then(Amount::units).unwrap_or(0);
    moved(bits(old), bits(new)) || round_trip_moved(Some(&old.round_trip), Some(&new.round_trip))
}

pub fn round_trip_moved(old: Option<&RoundTrip>, new: Option<&RoundTrip>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return old != new };
    let micros = |text: &DurationText| text.parse().map_or(0, |duration| duration.as_micros() as u64);
    let p99 = match (&old.p99, &new.p99) {
        (Some(old), Some(new)) => moved(micros(old), micros(new)),
        (old, new) => old != new,
    };
    p99 || moved(micros(&old.p50), micros(&new.p50)) || moved(old.samples as u64, new.samples as u64)
}

/// A quarter is a change, where it is a tenth of a core or more.
pub fn usage_moved(old: Option<&NodeUsage>, new: Option<&NodeUsage>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return old != new };
    let cpu = |usage: &NodeUsage| usage.cpu_busy_p95.millis().unwrap_or(0);
    let memory = |usage: &NodeUsage| usage.memory_used.units().unwrap_or(0);
    let busy = moved(cpu(old), cpu(new)) && cpu(old).abs_diff(cpu(new)) >= 100;
    busy || moved(memory(old), memory(new))
}

/// Whether they are others, by more than they scatter; the order does not matter.
pub fn waits_moved(old: &[ObservedModel], new: &[ObservedModel]) -> bool {
    let is_same = |one: &ObservedModel, other: &ObservedModel| {
        (&one.namespace, &one.name, one.tier) == (&other.namespace, &other.name, other.tier)
    };
    let micros = |text: &Option<DurationText>| {
        text.as_ref().and_then(DurationText::parse).map_or(0, |duration| duration.as_micros() as u64)
    };
    let differs = |old: &Waited, new: &Waited| {
        let times = [(&old.p50, &new.p50), (&old.p99, &new.p99)];
        let counts = [(old.count, new.count), (old.errors, new.errors)];
        times.into_iter().any(|(old, new)| time_moved(micros(old), micros(new)))
            || counts.into_iter().any(|(old, new)| count_moved(old.unsigned_abs(), new.unsigned_abs()))
    };
    let is_new = |row: &ObservedModel| {
        let turned = |old: &ObservedModel| (old.drifted > 0) != (row.drifted > 0);
        old.iter().find(|old| is_same(old, row)).is_none_or(|old| turned(old) || differs(&old.waited, &row.waited))
    };
    old.len() != new.len() || new.iter().any(is_new)
}
