//! What nodes have measured: for a class's medians, and for what a node itself is planned with.

use super::World;
use crate::plan::{BatchTime, Profile};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use sconce_api::{DurationText, EdgeModelVersion, EdgeNodeStatus, NodeProfile};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Profiles of all nodes, by the version's digest: each with its node's class.
#[derive(Default)]
pub struct Measurements<'a>(BTreeMap<&'a str, Vec<(&'a str, &'a NodeProfile)>>);

impl<'a> Measurements<'a> {
    pub fn of_all(world: &'a World) -> Self {
        let nodes = world.edge_nodes.values().filter_map(|node| node.status.as_ref());
        let of_node = |status: &'a EdgeNodeStatus| {
            let class = status.hardware.as_ref().map(|hardware| hardware.class.as_str());
            class.into_iter().flat_map(|class| status.profiles.iter().map(move |profile| (class, profile)))
        };
        nodes.flat_map(of_node).collect()
    }

    pub fn of(&self, digest: &str) -> impl Iterator<Item = (&'a str, &'a NodeProfile)> {
        self.0.get(digest).into_iter().flatten().copied()
    }
}

impl<'a> FromIterator<(&'a str, &'a NodeProfile)> for Measurements<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a NodeProfile)>>(profiles: I) -> Self {
        let mut all = Self::default();
        for (class, profile) in profiles {
            all.0.entry(&profile.digest).or_default().push((class, profile));
        }
        all
    }
}

/// Profiles that the nodes of one site have measured, by digest and variant: each with its node's name.
#[derive(Default)]
pub(super) struct OfSite<'a>(BTreeMap<(&'a str, &'a str), Vec<(String, &'a NodeProfile)>>);

impl<'a> OfSite<'a> {
    pub fn of_nodes(world: &'a World, nodes: &[Arc<Node>]) -> Self {
        let mut all = Self::default();
        for node in nodes {
            let name = node.name_any();
            for profile in status_of(world, &name).into_iter().flat_map(|status| &status.profiles) {
                let measured = all.0.entry((&profile.digest, &profile.variant)).or_default();
                measured.push((name.clone(), profile));
            }
        }
        all
    }

    pub fn of_variant(&self, version: &EdgeModelVersion, variant: &str) -> BTreeMap<String, Profile> {
        let measured = self.0.get(&(version.spec.digest.as_str(), variant)).into_iter().flatten();
        measured.map(|(node, profile)| (node.clone(), planned(profile.threads, &profile.batches))).collect()
    }
}

/// What is told of classes in the version's status.
pub(super) fn of_classes(version: &EdgeModelVersion, variant: &str) -> BTreeMap<String, Profile> {
    let profiles = version.status.iter().flat_map(|status| &status.profiles);
    let mine = profiles.filter(|profile| profile.variant == variant);
    mine.map(|profile| (profile.class.clone(), planned(profile.threads, &profile.batches))).collect()
}

/// What the agent of a node has written.
pub(super) fn status_of<'a>(world: &'a World, node: &str) -> Option<&'a EdgeNodeStatus> {
    world.edge_nodes.get(&(String::new(), node.to_owned()))?.status.as_ref()
}

fn planned(threads: i64, batches: &[sconce_api::BatchTime]) -> Profile {
    let nanos =
        |time: &DurationText| time.parse().map_or(0, |duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    let batch = |batch: &sconce_api::BatchTime| BatchTime {
        size: u64::try_from(batch.size).unwrap_or(0),
        p50_ns: nanos(&batch.p50),
        p99_ns: nanos(&batch.p99),
    };
    Profile { threads: u64::try_from(threads).unwrap_or(1), batches: batches.iter().map(batch).collect() }
}
