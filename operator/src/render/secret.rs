//! Secrets as pods have them: what opens registries, and what signs.

use sconce_api::{EdgeModel, NameRef};
use sconce_registry::SECRET_FILE;
use serde_json::{Value, json};

/// Where the file is that opens registries, as all of docker's kind look for it.
pub const DOCKER_CONFIG: &str = "DOCKER_CONFIG";

/// The one file of a Secret that signs.
pub const SIGNING_KEY: &str = "signing.key";

/// The Secret by which the version was resolved: what the spec names by now may open nothing.
pub fn pull_secret(model: &EdgeModel) -> Option<&NameRef> {
    model.status.as_ref()?.desired.as_ref()?.pull_secret_ref.as_ref()
}

/// A Secret as a folder that opens registries, its file by its own name: for that our programs start no other.
pub fn docker_config(volume: &str, secret: &NameRef) -> Value {
    one_file(volume, secret, SECRET_FILE)
}

/// A Secret as a folder with a private key, and nothing else of it.
pub fn signing_key(volume: &str, secret: &NameRef) -> Value {
    one_file(volume, secret, SIGNING_KEY)
}

/// What is not there is an empty folder: then the container says what is missing.
fn one_file(volume: &str, secret: &NameRef, file: &str) -> Value {
    let file = json!({"key": file, "path": file});
    json!({"name": volume, "secret": {"secretName": secret.name, "items": [file], "defaultMode": 0o440, "optional": true}})
}
