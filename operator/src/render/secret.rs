//! Secrets that open registries, as pods have them.

use sconce_api::{EdgeModel, NameRef};
use sconce_registry::SECRET_FILE;
use serde_json::{Value, json};

/// Where the file is that opens registries, as all of docker's kind look for it.
pub const DOCKER_CONFIG: &str = "DOCKER_CONFIG";

/// The Secret by which the version was resolved: what the spec names by now may open nothing.
pub fn pull_secret(model: &EdgeModel) -> Option<&NameRef> {
    model.status.as_ref()?.desired.as_ref()?.pull_secret_ref.as_ref()
}

/// A Secret as a folder that opens registries, its file by its own name: for that our programs start no other. One that is not there
/// is an empty folder: then the container says what is missing.
pub fn docker_config(volume: &str, secret: &NameRef) -> Value {
    let file = json!({"key": SECRET_FILE, "path": SECRET_FILE});
    json!({"name": volume, "secret": {"secretName": secret.name, "items": [file], "defaultMode": 0o440, "optional": true}})
}
