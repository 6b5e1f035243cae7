//! What users type and machines report: the custom resources of `sconce.dev/v1alpha1`, and nothing else.
//!
//! A field is here once the work that serves it is; until then it is absent, not ignored.

// Each `printcolumn` of a kind repeats `type_`, which the lint takes for a duplicate.
#![allow(clippy::duplicated_attributes)]

mod amounts;
mod common;
mod dataset;
mod fleet;
mod model;
mod node;
mod placement;
mod reasons;
mod recipe;
mod selector;
mod site;
mod training;
mod trigger;
mod version;

pub use amounts::*;
pub use common::*;
pub use dataset::*;
pub use fleet::*;
pub use model::*;
pub use node::*;
pub use placement::*;
pub use reasons::*;
pub use recipe::*;
pub use selector::*;
pub use site::*;
pub use training::*;
pub use trigger::*;
pub use version::*;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

/// The definitions of all kinds, as `crds/` ships them.
pub fn crds() -> Vec<CustomResourceDefinition> {
    use kube::CustomResourceExt as _;
    [
        EdgeFleet::crd(),
        EdgeSite::crd(),
        EdgeNode::crd(),
        EdgeModel::crd(),
        EdgeModelVersion::crd(),
        EdgePlacement::crd(),
        EdgeDataset::crd(),
        EdgeTraining::crd(),
    ]
    .into_iter()
    .map(common::publishable)
    .collect()
}
