//! Pods that serve a model: at the edge one Deployment, in the cloud a Deployment, a Service and a disruption budget.

use super::secret::{DOCKER_CONFIG, docker_config, pull_secret};
use super::{Kind, Object, Pods, Settings, metadata, namespace, tier_label};
use crate::names;
use crate::observe::{INSTANCE_LABEL, MODEL_POD, NAME_LABEL};
use kube::ResourceExt;
use sconce_api::{EdgeModel, Selector, Tier, labels};
use serde_json::{Value, json};

pub const GRPC: u16 = 8001;
const METRICS: u16 = 8002;
/// Variable that has the node's address.
const HOST_IP: &str = "HOST_IP";
/// Least memory limit: the runtime's own pages, whatever the model.
const LEAST_LIMIT: u64 = 96 << 20;

/// The pods of an edge placement, on the node that was chosen.
pub fn edge_deployment(pods: &Pods<'_>, site: &str, node: &str, settings: &Settings) -> Object {
    let name = names::placement(&pods.model.name_any(), site);
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]},
    ]}}});
    // Behind a cut link the pod serves on; who comes back finds it there.
    let tolerations = json!([toleration("not-ready", None), toleration("unreachable", None)]);
    let place = json!({"affinity": affinity, "tolerations": tolerations});
    deployment(pods, &name, Tier::Edge, Some(site), place, settings)
}

/// The pool that all sites share: Deployment, Service, disruption budget.
pub fn pool_objects(pods: &Pods<'_>, cloud: &Selector, settings: &Settings) -> [Object; 3] {
    let model = pods.model;
    let name = names::pool(&model.name_any(), &pods.version.spec.digest, pods.variant);
    let mut place = json!({
        "tolerations": [toleration("not-ready", Some(30)), toleration("unreachable", Some(30))],
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(&name)}, "matchLabelKeys": ["pod-template-hash"],
        }],
    });
    if let Some(affinity) = cloud_affinity(pods, cloud) {
        place["affinity"] = affinity;
    }
    let ours = metadata(model, &labels_of(pods, &name, Tier::Cloud, None));
    let service = json!({"spec": {
        "type": "ClusterIP",
        "selector": selector(&name),
        "ports": [{"name": "grpc", "port": GRPC, "targetPort": "grpc", "protocol": "TCP"}],
    }});
    let budget = json!({"spec": {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": selector(&name)},
    }});
    [
        deployment(pods, &name, Tier::Cloud, None, place, settings),
        Object::new(Kind::Service, &namespace(model), &name, ours.clone(), service),
        Object::new(Kind::PodDisruptionBudget, &namespace(model), &name, ours, budget),
    ]
}

fn deployment(
    pods: &Pods<'_>,
    name: &str,
    tier: Tier,
    site: Option<&str>,
    place: Value,
    settings: &Settings,
) -> Object {
    let model = pods.model;
    let labels = labels_of(pods, name, tier, site);
    let metadata = metadata(model, &labels);
    let mut pod = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 30,
        "securityContext": pod_security(),
        "initContainers": [fetch(pods, settings)],
        "containers": [serve(pods, settings)],
        "priorityClassName": model.spec.priority_class_name.as_deref().unwrap_or_default(),
        "volumes": [{"name": "models", "emptyDir": {"sizeLimit": binary(disk_bytes(pods))}}],
    });
    if let Some(secret) = pull_secret(model) {
        push(&mut pod["volumes"], docker_config("docker", secret));
    }
    for (field, value) in place.as_object().into_iter().flatten() {
        pod[field] = value.clone();
    }
    // Where there is no room for both, the routers bridge the gap: they wait a little, and ask the cloud.
    let (surge, unavailable) = if pods.surge { (1, 0) } else { (0, 1) };
    let spec = json!({
        "replicas": pods.replicas,
        "revisionHistoryLimit": 1,
        "progressDeadlineSeconds": 600,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
        "selector": {"matchLabels": selector(name)},
        "template": {
            "metadata": {"labels": metadata["labels"], "annotations": {"sconce.dev/render": "1"}},
            "spec": pod,
        },
    });
    Object::new(Kind::Deployment, &namespace(model), name, metadata, json!({ "spec": spec }))
}

/// The labels that we set, and no others: a model's own labels are not copied.
fn labels_of<'a>(pods: &'a Pods<'_>, name: &'a str, tier: Tier, site: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
    let mut ours = vec![
        (NAME_LABEL, MODEL_POD),
        (INSTANCE_LABEL, name),
        (labels::MODEL, pods.model.metadata.name.as_deref().unwrap_or_default()),
        (labels::VERSION, pods.version.metadata.name.as_deref().unwrap_or_default()),
        (labels::VARIANT, pods.variant),
        (labels::TIER, tier_label(tier)),
    ];
    ours.extend(site.map(|site| (labels::SITE, site)));
    ours
}

fn selector(name: &str) -> Value {
    json!({NAME_LABEL: MODEL_POD, INSTANCE_LABEL: name})
}

fn toleration(what: &str, seconds: Option<u64>) -> Value {
    let mut toleration =
        json!({"key": format!("node.kubernetes.io/{what}"), "operator": "Exists", "effect": "NoExecute"});
    if let Some(seconds) = seconds {
        toleration["tolerationSeconds"] = json!(seconds);
    }
    toleration
}

fn cloud_affinity(pods: &Pods<'_>, cloud: &Selector) -> Option<Value> {
    let require = pods.model.spec.hardware.iter().flat_map(|hardware| &hardware.require);
    let expressions = expressions(cloud).chain(require.map(|requirement| json!(requirement))).collect();
    node_affinity(vec![expressions])
}

/// What a selector asks of a node's labels.
pub(super) fn expressions(selector: &Selector) -> impl Iterator<Item = Value> {
    let equal =
        selector.match_labels.iter().map(|(key, value)| json!({"key": key, "operator": "In", "values": [value]}));
    equal.chain(selector.match_expressions.iter().map(|requirement| json!(requirement)))
}

/// Nodes that meet all expressions of one of the terms. One that asks for nothing holds everywhere: as a term it would match no
/// node.
pub(super) fn node_affinity(terms: Vec<Vec<Value>>) -> Option<Value> {
    let terms: Option<Vec<Value>> =
        terms.into_iter().map(|all| (!all.is_empty()).then(|| json!({"matchExpressions": all}))).collect();
    terms.map(|terms| {
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}})
    })
}

/// Fetches and checks the model's bytes, from the node's store before the registry; verified bytes that are there already are not
/// fetched again.
fn fetch(pods: &Pods<'_>, settings: &Settings) -> Value {
    let spec = &pods.version.spec;
    let repository = spec.uri.split('@').next().unwrap_or_default();
    // The kubelet writes the address: whichever node it is, and where no name can be resolved.
    let store = settings.store_port.map(|port| format!("http://$({HOST_IP}):{port}"));
    let mut args = vec!["fetch"];
    args.extend(store.iter().flat_map(|store| ["--from", store.as_str()]));
    args.extend(["--from", repository, "--digest", &spec.digest, "--variant", pods.variant, "--to", "/models"]);
    for registry in &settings.insecure_registries {
        args.extend(["--insecure-registry", registry]);
    }
    let mut fetch = container("fetch", args, "/models", false, pods, settings);
    if store.is_some()
        && let Some(env) = fetch["env"].as_array_mut()
    {
        let host = json!({"name": HOST_IP, "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}});
        env.insert(0, host);
    }
    // Who serves has no use for it.
    if pull_secret(pods.model).is_some() {
        let folder = "/docker";
        push(&mut fetch["env"], json!({"name": DOCKER_CONFIG, "value": folder}));
        push(&mut fetch["volumeMounts"], json!({"name": "docker", "mountPath": folder, "readOnly": true}));
    }
    fetch
}

fn serve(pods: &Pods<'_>, settings: &Settings) -> Value {
    let name = address(pods.model);
    let batch = pods.model.spec.serving.clone().unwrap_or_default().max_batch_size.to_string();
    let (grpc, metrics) = (format!("0.0.0.0:{GRPC}"), format!("0.0.0.0:{METRICS}"));
    let mut args = vec!["serve", "--model", "/models", "--name", &name, "--digest", &pods.version.spec.digest];
    args.extend(["--variant", pods.variant, "--max-batch-size", &batch, "--grpc", &grpc, "--metrics", &metrics]);
    let mut serve = container("serve", args, "/models", true, pods, settings);
    let probe = |period: u32, failures: u32| json!({"grpc": {"port": GRPC}, "periodSeconds": period, "failureThreshold": failures});
    serve["ports"] = json!([
        {"name": "grpc", "containerPort": GRPC, "protocol": "TCP"},
        {"name": "metrics", "containerPort": METRICS, "protocol": "TCP"},
    ]);
    serve["startupProbe"] = probe(1, 120);
    serve["readinessProbe"] = probe(2, 3);
    serve["livenessProbe"] = probe(10, 6);
    // Routers hear of the end before the server does.
    serve["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 5}}});
    serve
}

/// Name that clients send as `model_name`: NAME.NAMESPACE.
pub(crate) fn address(model: &EdgeModel) -> String {
    format!("{}.{}", model.name_any(), namespace(model))
}

fn container(
    name: &str,
    args: Vec<&str>,
    models: &str,
    read_only: bool,
    pods: &Pods<'_>,
    settings: &Settings,
) -> Value {
    let memory = pods.request.memory_bytes;
    let mut mount = json!({"name": "models", "mountPath": models});
    if read_only {
        mount["readOnly"] = json!(true);
    }
    let mut container = json!({
        "name": name,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "args": args,
        "resources": {
            "requests": {"cpu": cores(pods.request.cpu_millis), "memory": binary(memory)},
            "limits": {"memory": binary(memory.saturating_mul(2).max(LEAST_LIMIT))},
        },
        "securityContext": container_security(),
        "volumeMounts": [mount],
    });
    let keys = settings.trusted_keys.iter().map(|keys| json!({"name": "SCONCE_TRUSTED_KEYS", "value": keys}));
    container["env"] = keys.collect();
    container
}

fn push(list: &mut Value, one: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(one);
    }
}

/// A pod under Pod Security `restricted`.
pub(super) fn pod_security() -> Value {
    json!({
        "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// A container under Pod Security `restricted`.
pub(super) fn container_security() -> Value {
    json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
}

/// The variant's files and a tenth, and room for what describes them.
fn disk_bytes(pods: &Pods<'_>) -> u64 {
    let variants = pods.version.status.iter().flat_map(|status| &status.variants);
    let bytes = variants.filter(|facts| facts.name == pods.variant).map(|facts| facts.bytes).max().unwrap_or(0);
    crate::plan::store_bytes(u64::try_from(bytes).unwrap_or(0))
}

/// `250m`, `2`: as the API writes it, so that comparing texts is comparing amounts.
fn cores(millis: u64) -> String {
    if millis.is_multiple_of(1000) { (millis / 1000).to_string() } else { format!("{millis}m") }
}

/// `27Mi`, `1Gi`: rounded up to a Mi, in the largest unit that keeps it whole, as the API writes it.
fn binary(bytes: u64) -> String {
    let mebibytes = bytes.div_ceil(1 << 20);
    if mebibytes > 0 && mebibytes.is_multiple_of(1024) {
        format!("{}Gi", mebibytes / 1024)
    } else {
        format!("{mebibytes}Mi")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_the_api_writes_them() {
        assert_eq!([cores(0), cores(250), cores(1000), cores(1500)], ["0", "250m", "1", "1500m"]);
        assert_eq!(
            [binary(1), binary(27 << 20), binary(1 << 30), binary((1 << 30) + 1)],
            ["1Mi", "27Mi", "1Gi", "1025Mi"]
        );
    }
}
