//! `spec.base`: the model that a network begins from, in place of an architecture.

use super::Fault;
use sconce_model::architecture::Layer;
use serde::Deserialize;
use serde::de::IgnoredAny;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Base {
    /// `oci://HOST/REPOSITORY@sha256:HEX`, or an artifact's folder.
    pub uri: String,
    /// What a cluster opens it with.
    #[serde(default)]
    pub secret_ref: IgnoredAny,
    #[serde(default)]
    pub freeze: Freeze,
    /// In the place of the model's own; absent = its own, initialised anew.
    #[serde(default)]
    pub head: Vec<Layer>,
}

/// What stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Freeze {
    /// All layers before the head.
    #[default]
    Backbone,
    None,
}

const MOST_LAYERS: usize = 8;

impl Base {
    /// # Errors
    /// The first field whose value means nothing, and what it needs.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let fault = |field: &str, why: String| Err(Fault::new(format!("spec.base.{field}"), why));
        let pinned = |address: &str| {
            let hex = address.split_once("@sha256:").map(|(_, hex)| hex).unwrap_or_default();
            hex.len() == 64 && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_known = match self.uri.split_once("://") {
            Some(("oci", address)) => pinned(address),
            other => other.is_none() && !self.uri.is_empty(),
        };
        if !is_known {
            return fault("uri", format!("\"{}\"; need oci://HOST/REPOSITORY@sha256:HEX, or a folder", self.uri));
        }
        if self.head.len() > MOST_LAYERS {
            return fault("head", format!("{} layers; need at most {MOST_LAYERS}", self.head.len()));
        }
        Ok(())
    }
}
