//! What is kept of a pod that is alive, ours or of others.

use super::snapshot::amounts;
use super::trouble::trouble_of;
use super::{INSTANCE_LABEL, MODEL_POD, NAME_LABEL};
use crate::plan;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sconce_api::{Reason, labels};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "api::Pod")]
pub struct Pod {
    /// Without labels, annotations and owners.
    pub metadata: ObjectMeta,
    pub node: Option<String>,
    pub address: Option<String>,
    /// As the scheduler counts it.
    pub request: plan::Resources,
    /// As its Service sees it. While a node is without contact the control plane calls its pods not Ready, and for some seconds
    /// after it is back.
    pub is_ready: bool,
    /// As far as its own node last said.
    pub answers_on_its_node: bool,
    pub of: Of,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Of {
    Model {
        deployment: String,
        version: String,
        variant: String,
        /// Why it is not Ready: the table's word, a sentence, and whether it is a failure rather than work. None of one that is.
        trouble: Option<Box<(Reason, String, bool)>>,
    },
    Others {
        /// Value of `app.kubernetes.io/name`.
        app: Option<String>,
        ready_containers: Vec<String>,
    },
}

impl Pod {
    pub fn is_leaving(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

super::is_watched_as!(Pod, api::Pod);

impl From<api::Pod> for Pod {
    fn from(whole: api::Pod) -> Self {
        let stays = whole.metadata.deletion_timestamp.is_none();
        let is_ready = stays && is_true(&whole, "Ready");
        let mut of_labels = whole.metadata.labels.clone().unwrap_or_default();
        let of = match of_labels.remove(NAME_LABEL) {
            Some(app) if app == MODEL_POD => {
                let mut label = |name: &str| of_labels.remove(name).unwrap_or_default();
                Of::Model {
                    deployment: label(INSTANCE_LABEL),
                    version: label(labels::VERSION),
                    variant: label(labels::VARIANT),
                    trouble: (!is_ready).then(|| Box::new(trouble_of(&whole))),
                }
            }
            app => Of::Others { app, ready_containers: ready_containers(&whole) },
        };
        Self {
            is_ready,
            answers_on_its_node: stays && is_true(&whole, "ContainersReady"),
            of,
            request: whole.spec.as_ref().map(request).unwrap_or_default(),
            node: whole.spec.and_then(|spec| spec.node_name),
            address: whole.status.and_then(|status| status.pod_ip),
            metadata: ObjectMeta {
                name: whole.metadata.name,
                namespace: whole.metadata.namespace,
                resource_version: whole.metadata.resource_version,
                deletion_timestamp: whole.metadata.deletion_timestamp,
                ..ObjectMeta::default()
            },
        }
    }
}

fn is_true(pod: &api::Pod, kind: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
}

fn ready_containers(pod: &api::Pod) -> Vec<String> {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    containers.filter(|container| container.ready).map(|container| container.name.clone()).collect()
}

/// As the scheduler counts: containers and sidecars together, or the largest init container if that is more.
fn request(spec: &api::PodSpec) -> plan::Resources {
    let of = |resources: &Option<api::ResourceRequirements>| {
        amounts(resources.as_ref().and_then(|resources| resources.requests.as_ref()).unwrap_or(&BTreeMap::new()))
    };
    let mut sidecars = plan::Resources::default();
    let mut starting = plan::Resources::default();
    for init in spec.init_containers.iter().flatten() {
        let request = sidecars.plus(of(&init.resources));
        starting = most(starting, request);
        if init.restart_policy.as_deref() == Some("Always") {
            sidecars = request;
        }
    }
    let running =
        spec.containers.iter().map(|container| of(&container.resources)).fold(sidecars, plan::Resources::plus);
    most(starting, running).plus(spec.overhead.as_ref().map(amounts).unwrap_or_default())
}

fn most(a: plan::Resources, b: plan::Resources) -> plan::Resources {
    plan::Resources { cpu_millis: a.cpu_millis.max(b.cpu_millis), memory_bytes: a.memory_bytes.max(b.memory_bytes) }
}
