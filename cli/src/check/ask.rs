//! Asks a cluster for the facts. It makes nothing there: reviews of rights are answers, and what is applied is applied dry.

use super::Asked;
use super::before::{Before, RIGHTS, Right};
use super::installed::Installed;
use crate::objects::Objects;
use http::Request;
use http::header::DATE;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Client, Resource, ResourceExt as _};
use sconce_operator::lease;
use sconce_operator::registry::Registries;
use sconce_registry::Keyring;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

/// Before an installation; of the registry only where an artifact is named.
pub async fn ask_before(client: &Client, artifact: Option<&str>, insecure: &[String]) -> Before {
    let mut rights = Vec::new();
    for right in RIGHTS {
        let allowed = may(client, &right).await;
        rights.push((right, allowed));
    }
    let mut definitions = Vec::new();
    for definition in sconce_api::crds() {
        let name = definition.name_any();
        let taken = would_take(client, &name, &definition).await;
        definitions.push((name, taken));
    }
    let artifact = match artifact {
        Some(uri) => Some(pulled(uri, insecure).await),
        None => None,
    };
    Before {
        version: told(client.apiserver_version().await),
        rights,
        definitions,
        nodes: all::<Node>(client, "").await,
        artifact,
    }
}

async fn may(client: &Client, Right { group, resource, namespace }: &Right) -> Asked<bool> {
    let attributes = ResourceAttributes {
        verb: Some("create".into()),
        group: Some((*group).into()),
        resource: Some((*resource).into()),
        namespace: Some((*namespace).into()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let answer =
        told(Api::<SelfSubjectAccessReview>::all(client.clone()).create(&PostParams::default(), &review).await)?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

async fn would_take(client: &Client, name: &str, definition: &CustomResourceDefinition) -> Asked<()> {
    // As Helm would own it: another owner's fields are no obstacle to that.
    let dry = PatchParams { dry_run: true, force: true, ..PatchParams::apply("helm") };
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    told(definitions.patch(name, &dry, &Patch::Apply(definition)).await.map(drop))
}

async fn pulled(uri: &str, insecure: &[String]) -> Asked<String> {
    let keyring = Keyring::of_user().map_err(|error| error.to_string())?;
    let artifact = Registries::new(insecure).resolve(uri, keyring).await.map_err(|failure| failure.message)?;
    let variants: Vec<_> = artifact.variants.iter().map(|variant| variant.name.as_str()).collect();
    Ok(format!("{uri} is {}, with {}", artifact.digest, variants.join(", ")))
}

/// Of an installation.
pub async fn ask_installed(client: &Client) -> Installed {
    let operators = all::<Deployment>(client, "app.kubernetes.io/name=sconce-operator").await;
    let namespace = operators.as_deref().ok().and_then(|operators| operators.first()?.namespace());
    let leases = Api::<Lease>::namespaced(client.clone(), namespace.as_deref().unwrap_or("sconce-system"));
    let node_leases = Api::<Lease>::namespaced(client.clone(), "kube-node-lease").list(&ListParams::default()).await;
    let by_node = |leases: Vec<Lease>| leases.into_iter().map(|lease| (lease.name_any(), lease)).collect();
    Installed {
        definitions: all(client, "").await,
        operators,
        lease: told(leases.get_opt(lease::NAME).await),
        policies: policies(client).await,
        world: Objects::of_cluster(client).await.map(|objects| objects.world()).map_err(|error| format!("{error:#}")),
        node_leases: told(node_leases).map(|list| -> BTreeMap<_, _> { by_node(list.items) }),
        clocks: clocks(client).await,
    }
}

/// Those that are there and bound.
async fn policies(client: &Client) -> Asked<BTreeSet<String>> {
    let there: Vec<ValidatingAdmissionPolicy> = all(client, "app.kubernetes.io/part-of=sconce").await?;
    let bindings: Vec<ValidatingAdmissionPolicyBinding> = all(client, "").await?;
    let bound: BTreeSet<_> = bindings.into_iter().filter_map(|binding| binding.spec?.policy_name).collect();
    Ok(there.iter().map(|policy| policy.name_any()).filter(|name| bound.contains(name)).collect())
}

/// The API server dates its answers.
async fn clocks(client: &Client) -> Asked<(Timestamp, Timestamp)> {
    let request = Request::get("/version").body(Body::empty()).map_err(|error| error.to_string())?;
    let answer = told(client.send(request).await)?;
    let date =
        answer.headers().get(DATE).and_then(|date| date.to_str().ok()).ok_or("the API server's answer has no date")?;
    let server = rfc2822::parse(date).map_err(|error| format!("the API server's date \"{date}\" is none: {error}"))?;
    Ok((server.timestamp(), Timestamp::now()))
}

async fn all<K>(client: &Client, labels: &str) -> Asked<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let listed = Api::<K>::all(client.clone()).list(&ListParams::default().labels(labels)).await;
    Ok(told(listed)?.items)
}

fn told<T>(answer: kube::Result<T>) -> Asked<T> {
    answer.map_err(|error| match error {
        kube::Error::Api(status) => status.message.clone(),
        error => format!("{:#}", anyhow::Error::new(error)),
    })
}
