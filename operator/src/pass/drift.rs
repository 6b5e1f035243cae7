//! Whether models that a recipe may mend drift, by what nodes tell. Pure.

use crate::observe::{World, is_ready};
use crate::trigger::Drift;
use kube::ResourceExt;
use sconce_api::{EdgeModel, EdgeModelVersion, EdgeTraining};
use std::collections::BTreeSet;

/// Nodes that are named.
const NAMED: usize = 3;

pub fn drift(world: &World, training: &EdgeTraining) -> Drift {
    let models: Vec<&EdgeModel> =
        world.models.values().map(AsRef::as_ref).filter(|model| is_of(model, training)).collect();
    let names: BTreeSet<String> = models.iter().map(|model| model.name_any()).collect();
    let listed = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.is_empty() {
        let message = "no EdgeModel has it as model.trainingRef, nor its dataset as collect.datasetRef: none can drift";
        return Drift { drifts: false, message: message.into() };
    }
    let told = |version: &EdgeModelVersion| {
        let variants = version.status.iter().flat_map(|status| &status.variants);
        variants.into_iter().any(|variant| variant.reference.is_some())
    };
    let is_told = models.iter().filter_map(|model| world.version_of(model)).any(told);
    let at = nodes(world, training, &names);
    match at.as_slice() {
        [] if !is_told => {
            let why = "no version that serves says what it said of held-out samples: whether it drifts cannot be told before it is trained anew";
            Drift { drifts: false, message: format!("{listed}: {why}") }
        }
        [] => Drift { drifts: false, message: format!("no node tells that {listed} drifts") },
        nodes => {
            let named = nodes.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = nodes.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            Drift { drifts: true, message: format!("{listed} drifts, as told by {named}{more}") }
        }
    }
}

/// What it trains, or what is collected for what it learns from.
fn is_of(model: &EdgeModel, training: &EdgeTraining) -> bool {
    let trained = model.spec.model.training_ref.as_ref().is_some_and(|of| of.name == training.name_any());
    let collected = model.spec.collect.as_ref().map(|collect| &collect.dataset_ref);
    let learned = training.spec.dataset.reference.as_ref();
    model.namespace() == training.namespace() && (trained || (collected.is_some() && collected == learned))
}

/// Nodes whose clients get answers of models that drift; of one that is away nobody knows.
fn nodes(world: &World, training: &EdgeTraining, models: &BTreeSet<String>) -> Vec<String> {
    let namespace = training.namespace().unwrap_or_default();
    let tells = world.edge_nodes.iter().filter(|(key, node)| {
        let is_here = world.nodes.get(*key).is_some_and(|node| is_ready(node));
        let mut rows = node.status.iter().flat_map(|status| &status.models);
        is_here && rows.any(|row| row.drifted > 0 && row.namespace == namespace && models.contains(&row.name))
    });
    tells.map(|((_, name), _)| name.clone()).collect()
}
