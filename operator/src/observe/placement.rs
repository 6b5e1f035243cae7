//! What is kept of an EdgePlacement: what is decided, and of all that says whose it is, hashes.

use super::Owned;
use super::deployment::in_charge;
use super::heard::{Kept, read_kept};
use crate::render::Fields;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sconce_api::EdgePlacement;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::ops::{Deref, DerefMut};

#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// Without labels and annotations; of its owners the one that is in charge.
    live: EdgePlacement,
    is_managed: bool,
    /// To tell whether it is as it is to be, but for its status.
    pub fields: Fields,
}

impl Deref for Placement {
    type Target = EdgePlacement;

    fn deref(&self) -> &EdgePlacement {
        &self.live
    }
}

impl DerefMut for Placement {
    fn deref_mut(&mut self) -> &mut EdgePlacement {
        &mut self.live
    }
}

super::is_watched_as!(Placement, EdgePlacement);

impl Owned for Placement {
    fn is_managed(&self) -> bool {
        self.is_managed
    }
}

impl<'de> Deserialize<'de> for Placement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_kept(deserializer)
    }
}

impl Kept for Placement {
    fn read(whole: Value) -> serde_json::Result<Self> {
        let mut live = EdgePlacement::deserialize(&whole)?;
        let is_managed = live.is_managed();
        let ObjectMeta { labels: _, annotations: _, managed_fields: _, owner_references, .. } = &mut live.metadata;
        let owner_references = owner_references.take().map(in_charge);
        live.metadata =
            ObjectMeta { labels: None, annotations: None, managed_fields: None, owner_references, ..live.metadata };
        if let Some(status) = &mut live.status {
            // Lists that were read element by element have room for more than they will ever have.
            status.conditions.shrink_to_fit();
            status.rejected.shrink_to_fit();
            status.endpoints.shrink_to_fit();
            status.decision.iter_mut().for_each(|decision| decision.nodes.shrink_to_fit());
        }
        Ok(Self { live, is_managed, fields: Fields::of_live(whole) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::owner_model;
    use kube::ResourceExt as _;
    use sconce_api::labels;
    use serde_json::json;

    #[test]
    fn whose_it_is_is_known_and_what_is_asked_of_it() {
        let live = json!({
            "metadata": {"name": "digits-1", "namespace": "vision", "uid": "u", "resourceVersion": "7", "generation": 2,
                "labels": {(labels::MANAGED_BY): labels::MANAGER, (labels::SITE): "a"},
                "ownerReferences": [{"apiVersion": "a", "kind": "EdgeModel", "name": "digits", "uid": "em", "controller": true}]},
            "spec": {"modelRef": {"name": "digits"}, "siteRef": {"name": "a"}, "versionRef": {"name": "v"}},
            "status": {"budget": "50ms"},
        });
        let kept: Placement = serde_json::from_value(live.clone()).unwrap();
        assert_eq!(owner_model(&kept).as_deref(), Some("digits"));
        assert_eq!((kept.resource_version().as_deref(), kept.metadata.generation), (Some("7"), Some(2)));
        assert_eq!((kept.spec.site_ref.name.as_str(), kept.labels().len()), ("a", 0));
        assert!(kept.fields.have(&["metadata", "labels"], &live["metadata"]["labels"]));
        assert!(kept.fields.have(&["spec"], &live["spec"]));
        assert!(!kept.fields.have(&["metadata", "labels", labels::SITE], &json!("b")));
        assert!(kept.fields.have(&["status", "budget"], &json!(null)), "of its status nothing is asked");
    }
}
