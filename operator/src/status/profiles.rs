//! How fast a version's variants are on nodes of a class: medians over the nodes that measured them.

use super::placement::duration_text;
use crate::observe::Measurements;
use crate::plan::text::two_digits;
use sconce_api::{Basis, BatchTime, ClassProfile, DurationText, NodeProfile};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Of three nodes, one that errs moves the median to another's number at most.
const LEAST_NODES: usize = 3;
/// As many as the API takes.
const MOST_PROFILES: usize = 96;
const MOST_SIZES: usize = 6;
/// An hour: whoever tells more errs, and the API takes no longer numbers.
const LONGEST_US: u64 = 3_600_000_000;

/// The profiles of one version. Those that were told stand until they are a quarter off, and when their nodes are gone: what
/// was measured was so.
pub fn class_profiles(measured: &Measurements<'_>, digest: &str, told: &[ClassProfile]) -> Vec<ClassProfile> {
    let mut groups: BTreeMap<(&str, &str), Vec<&NodeProfile>> = BTreeMap::new();
    for (class, profile) in measured.of(digest) {
        groups.entry((&profile.variant, class)).or_default().push(profile);
    }
    let mut profiles: BTreeMap<_, _> = told.iter().map(|told| (key(told), told.clone())).collect();
    for ((variant, class), nodes) in groups {
        let Some(new) = median_profile(variant, class, &nodes) else { continue };
        let key = (variant.to_owned(), class.to_owned());
        if profiles.get(&key).is_none_or(|old| has_moved(old, &new)) {
            profiles.insert(key, new);
        }
    }
    let mut profiles: Vec<_> = profiles.into_values().collect();
    if profiles.len() > MOST_PROFILES {
        // The classes that most nodes are of.
        profiles.sort_by_key(|profile| Reverse(profile.nodes));
        profiles.truncate(MOST_PROFILES);
        profiles.sort_by_key(key);
    }
    profiles
}

fn key(profile: &ClassProfile) -> (String, String) {
    (profile.variant.clone(), profile.class.clone())
}

fn median_profile(variant: &str, class: &str, nodes: &[&NodeProfile]) -> Option<ClassProfile> {
    // A model near the bound between inline and threads is run the one way here and the other there: as most do, counts.
    let threads = mode(nodes.iter().map(|node| node.threads))?;
    let nodes: Vec<_> = nodes.iter().copied().filter(|node| node.threads == threads).collect();
    if nodes.len() < LEAST_NODES {
        return None;
    }
    let sizes: BTreeSet<i64> = nodes.iter().flat_map(|node| &node.batches).map(|batch| batch.size).collect();
    let batch = |size: i64| {
        let at_size: Vec<_> =
            nodes.iter().filter_map(|node| node.batches.iter().find(|batch| batch.size == size)).collect();
        let median = |of: fn(&BatchTime) -> &DurationText| {
            let mut times: Vec<u64> = at_size.iter().map(|batch| micros(of(batch))).collect();
            times.sort_unstable();
            // Of an even number the slower: the safe side.
            times.get(times.len() / 2).map(|us| duration_text((*us).clamp(1, LONGEST_US)))
        };
        (at_size.len() >= LEAST_NODES).then_some(())?;
        Some(BatchTime { size, p50: median(|batch| &batch.p50)?, p99: median(|batch| &batch.p99)?, samples: None })
    };
    let batches: Vec<_> = sizes.into_iter().filter_map(batch).take(MOST_SIZES).collect();
    let nodes = i64::try_from(two_digits(nodes.len() as u64)).unwrap_or(i64::MAX);
    let (variant, class) = (variant.to_owned(), class.to_owned());
    (!batches.is_empty()).then_some(ClassProfile { variant, class, threads, basis: Basis::Measured, nodes, batches })
}

/// The most frequent number; among equals the smallest.
fn mode(numbers: impl Iterator<Item = i64>) -> Option<i64> {
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    numbers.for_each(|number| *counts.entry(number).or_default() += 1);
    counts.into_iter().max_by_key(|(number, count)| (*count, Reverse(*number))).map(|(number, _)| number)
}

/// A quarter is a change; less is jitter.
fn has_moved(old: &ClassProfile, new: &ClassProfile) -> bool {
    let moved = |old: u64, new: u64| old.abs_diff(new).saturating_mul(4) >= old && old != new;
    let times = |profile: &ClassProfile| -> Vec<(i64, u64, u64)> {
        profile.batches.iter().map(|batch| (batch.size, micros(&batch.p50), micros(&batch.p99))).collect()
    };
    let (told, seen) = (times(old), times(new));
    old.threads != new.threads
        || moved(old.nodes.unsigned_abs(), new.nodes.unsigned_abs())
        || told.len() != seen.len()
        || told.iter().zip(&seen).any(|(old, new)| old.0 != new.0 || moved(old.1, new.1) || moved(old.2, new.2))
}

fn micros(duration: &DurationText) -> u64 {
    duration.parse().map_or(0, |duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(p50: &str, p99: &str, threads: i64) -> NodeProfile {
        let batch =
            |size, p50: &str, p99: &str| BatchTime { size, p50: p50.into(), p99: p99.into(), samples: Some(90) };
        let batches = vec![batch(1, p50, p99), batch(16, "9ms", "12ms")];
        NodeProfile { digest: "sha256:aa".into(), variant: "int8".into(), threads, batches }
    }

    fn profiles(nodes: &[NodeProfile], told: &[ClassProfile]) -> Vec<ClassProfile> {
        let measured = nodes.iter().map(|profile| ("arm64-asimddp-4", profile)).collect();
        class_profiles(&measured, "sha256:aa", told)
    }

    fn at_one(profile: &ClassProfile) -> (&str, &str, i64) {
        (&profile.batches[0].p50.0, &profile.batches[0].p99.0, profile.nodes)
    }

    #[test]
    fn a_class_is_known_from_three_nodes_on_and_one_that_lies_moves_it_nowhere() {
        let (slow, usual, quick) = (node("2400us", "4ms", 1), node("2ms", "3ms", 1), node("1900us", "2800us", 1));
        let lying = node("20us", "28us", 1);
        assert_eq!(profiles(&[slow.clone(), usual.clone()], &[]), []);
        let told = profiles(&[slow.clone(), usual.clone(), quick], &[]);
        assert_eq!((told.len(), at_one(&told[0])), (1, ("2ms", "3ms", 3)));
        assert_eq!((told[0].class.as_str(), told[0].threads), ("arm64-asimddp-4", 1));
        assert_eq!(told[0].batches[1].p99, "12ms".into());
        assert_eq!(at_one(&profiles(&[slow, usual, lying], &[])[0]), ("2ms", "3ms", 3));
    }

    #[test]
    fn of_another_version_nothing_is_known() {
        let other = NodeProfile { digest: "sha256:bb".into(), ..node("2ms", "3ms", 1) };
        assert_eq!(profiles(&vec![other; 5], &[]), []);
    }

    #[test]
    fn jitter_is_no_change_and_what_was_measured_outlives_its_nodes() {
        let nodes = |p50: &str| vec![node(p50, "3ms", 1); 3];
        let told = profiles(&nodes("2ms"), &[]);
        assert_eq!(profiles(&nodes("2400us"), &told), told);
        assert_eq!(at_one(&profiles(&nodes("2500us"), &told)[0]), ("2500us", "3ms", 3));
        assert_eq!(profiles(&[], &told), told);
        let more = vec![node("2ms", "3ms", 1); 117];
        assert_eq!(at_one(&profiles(&more, &told)[0]), ("2ms", "3ms", 120));
    }

    #[test]
    fn as_most_nodes_run_it_counts() {
        let mut nodes = vec![node("2ms", "3ms", 1); 3];
        nodes.extend(vec![node("1ms", "2ms", 2); 2]);
        let told = profiles(&nodes, &[]);
        assert_eq!((told[0].threads, at_one(&told[0])), (1, ("2ms", "3ms", 3)));
    }
}
