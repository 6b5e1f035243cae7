//! Whether a registry takes what will be published, before hours are spent on that.

use super::{PublishError, opened};
use oci_client::errors::OciDistributionError;
use oci_client::{Reference, RegistryOperation};
use sconce_model::digest::sha256;
use sconce_registry::{Keyring, RegistryError};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
/// What OCI calls empty: nothing names it, and the registry clears it away.
const EMPTY: &[u8] = b"{}";

/// Pushes two bytes, as who will publish. A registry that does not answer, or not so, may answer when the work is done.
///
/// # Errors
/// [`PublishError::Login`] or [`PublishError::Closed`] if it does not take them from him.
pub async fn may_publish(reference: &Reference, insecure: &[String], keyring: Keyring) -> Result<(), PublishError> {
    let registry = opened(reference, insecure, keyring, RegistryOperation::Push);
    let closed = |to_do| PublishError::Closed {
        registry: reference.registry().into(),
        repository: reference.repository().into(),
        who: registry.who(),
        to_do,
    };
    let tried = async {
        let client = match registry.client().await {
            Ok(client) => client,
            Err(RegistryError::Unreachable { .. } | RegistryError::Client { .. }) => return Ok(()),
            Err(source) => {
                return Err(PublishError::Login { registry: reference.registry().into(), source: Box::new(source) });
            }
        };
        match client.push_blob(reference, EMPTY, &sha256(EMPTY)).await {
            Err(error) if !is_refused(&error) => Ok(()),
            Ok(_) => Ok(()),
            Err(_) if registry.is_named() => Err(closed("are name and password right, and may they push there?")),
            Err(_) => Err(closed("docker login; in a cluster, name a Secret in output.secretRef")),
        }
    };
    tokio::time::timeout(PATIENCE, tried).await.unwrap_or(Ok(()))
}

fn is_refused(error: &OciDistributionError) -> bool {
    matches!(
        error,
        OciDistributionError::ServerError { code: 401 | 403, .. }
            | OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_)
    )
}
