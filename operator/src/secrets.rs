//! Reads the one Secret that somebody names, when it is needed, and keeps it nowhere. Nothing of it is said.

use crate::artifact::Failure;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use sconce_api::Reason;
use sconce_registry::{Keyring, SECRET_FILE};
use std::time::Duration;

/// As `kubectl create secret docker-registry` makes it.
const TYPE: &str = "kubernetes.io/dockerconfigjson";
const PATIENCE: Duration = Duration::from_secs(10);

/// What the Secret opens.
///
/// # Errors
/// [`Failure`] if it is not there, may not be read, or is another kind of Secret.
pub async fn keyring(client: &Client, namespace: &str, name: &str) -> Result<Keyring, Failure> {
    let origin = format!("Secret {name} in {namespace}");
    let unauthorized = |message: String| Failure { reason: Reason::Unauthorized, message };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = match tokio::time::timeout(PATIENCE, secrets.get(name)).await {
        Ok(Ok(secret)) => secret,
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
            return Err(unauthorized(format!(
                "there is no {origin}; make it: kubectl create secret docker-registry {name} -n {namespace} --docker-server=HOST \
                 --docker-username=NAME --docker-password=PASSWORD"
            )));
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
            return Err(unauthorized(format!(
                "the operator may not read {origin}; the chart's value rbac.secrets=true lets it, or a RoleBinding in {namespace} to \
                 the ClusterRole sconce-pull-secrets"
            )));
        }
        Ok(Err(error)) => return Err(unauthorized(format!("{origin} cannot be read: {error}"))),
        Err(_) => return Err(unauthorized(format!("{origin} cannot be read: the API server is silent"))),
    };
    let bytes =
        secret.data.as_ref().and_then(|data| data.get(SECRET_FILE)).filter(|_| secret.type_.as_deref() == Some(TYPE));
    let Some(bytes) = bytes else {
        let kind = secret.type_.as_deref().unwrap_or("Opaque");
        return Err(unauthorized(format!(
            "{origin} is of type {kind}, and {TYPE} is needed, as kubectl create secret docker-registry makes it"
        )));
    };
    Keyring::of_secret(origin, &bytes.0).map_err(|error| unauthorized(error.to_string()))
}
