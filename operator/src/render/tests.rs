//! The whole value of what we write for a place at the edge, and what differs in the cloud.

use super::*;
use k8s_openapi::api::apps::v1::Deployment;
use sconce_api::{NameRef, Selector};

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn model() -> EdgeModel {
    serde_json::from_value(
        json!({"metadata": {"name": "digits", "namespace": "vision", "uid": "em", "labels": {"argocd": "x"}},
        "spec": {"fleetRef": {"name": "shops"}, "model": {"uri": "oci://r:5000/m/digits:1"}, "latencyBudget": "25ms",
            "hardware": {"require": [{"key": "gpu", "operator": "Exists"}]}}}),
    )
    .unwrap()
}

fn version() -> EdgeModelVersion {
    serde_json::from_value(json!({"metadata": {"name": "digits-aaaaaaaaaa-r1", "namespace": "vision"},
        "spec": {"modelRef": {"name": "digits"}, "uri": format!("oci://r:5000/m/digits@{DIGEST}"), "digest": DIGEST},
        "status": {"variants": [{"name": "f32", "bytes": 10 << 20, "memory": 1, "flops": 1}]}}))
    .unwrap()
}

fn settings() -> Settings {
    Settings {
        image: "runtime:1".into(),
        trainer_image: "trainer:1".into(),
        pull_policy: "IfNotPresent".into(),
        insecure_registries: vec!["r:5000".into()],
        store_port: None,
        trusted_keys: None,
    }
}

fn rendered<T>(render: impl FnOnce(&Pods<'_>) -> T) -> T {
    let (model, version) = (model(), version());
    let request = plan::Resources { cpu_millis: 50, memory_bytes: 27 << 20 };
    render(&Pods { model: &model, version: &version, variant: "f32", replicas: 1, request, surge: true })
}

#[test]
fn a_full_node_loses_the_old_pod_before_the_new_one_comes() {
    let strategy = |surge| {
        let of = |pods: &Pods<'_>| edge_deployment(&Pods { surge, ..*pods }, "site-a", "gw-a", &settings());
        rendered(of).body["spec"]["strategy"]["rollingUpdate"].clone()
    };
    assert_eq!(strategy(true), json!({"maxSurge": 1, "maxUnavailable": 0}));
    assert_eq!(strategy(false), json!({"maxSurge": 0, "maxUnavailable": 1}));
}

#[test]
fn an_edge_placement_is_one_deployment() {
    let name = names::placement("digits", "site-a");
    let labels = json!({
        "app.kubernetes.io/name": "sconce-model", "app.kubernetes.io/instance": name, "app.kubernetes.io/managed-by": "sconce",
        "sconce.dev/model": "digits", "sconce.dev/version": "digits-aaaaaaaaaa-r1", "sconce.dev/variant": "f32",
        "sconce.dev/tier": "edge", "sconce.dev/site": "site-a",
    });
    let selector = json!({"app.kubernetes.io/name": "sconce-model", "app.kubernetes.io/instance": name});
    let resources = json!({"requests": {"cpu": "50m", "memory": "27Mi"}, "limits": {"memory": "96Mi"}});
    let security =
        json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}});
    let expected = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "vision", "labels": labels, "ownerReferences": [
            {"apiVersion": "sconce.dev/v1alpha1", "kind": "EdgeModel", "name": "digits", "uid": "em", "controller": true}]},
        "spec": {
            "replicas": 1, "revisionHistoryLimit": 1, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": labels, "annotations": {"sconce.dev/render": "1"}},
                "spec": {
                    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gw-a"]}]}]}}},
                    "tolerations": [
                        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
                        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}],
                    "automountServiceAccountToken": false, "enableServiceLinks": false, "terminationGracePeriodSeconds": 30,
                    "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"}},
                    "initContainers": [{
                        "name": "fetch", "image": "runtime:1", "imagePullPolicy": "IfNotPresent",
                        "args": ["fetch", "--from", "oci://r:5000/m/digits", "--digest", DIGEST, "--variant", "f32",
                            "--to", "/models", "--insecure-registry", "r:5000"],
                        "resources": resources, "securityContext": security, "env": [],
                        "volumeMounts": [{"name": "models", "mountPath": "/models"}]}],
                    "containers": [{
                        "name": "serve", "image": "runtime:1", "imagePullPolicy": "IfNotPresent",
                        "args": ["serve", "--model", "/models", "--name", "digits.vision", "--digest", DIGEST, "--variant", "f32",
                            "--max-batch-size", "16", "--grpc", "0.0.0.0:8001", "--metrics", "0.0.0.0:8002"],
                        "ports": [{"name": "grpc", "containerPort": 8001, "protocol": "TCP"},
                            {"name": "metrics", "containerPort": 8002, "protocol": "TCP"}],
                        "startupProbe": {"grpc": {"port": 8001}, "periodSeconds": 1, "failureThreshold": 120},
                        "readinessProbe": {"grpc": {"port": 8001}, "periodSeconds": 2, "failureThreshold": 3},
                        "livenessProbe": {"grpc": {"port": 8001}, "periodSeconds": 10, "failureThreshold": 6},
                        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
                        "resources": resources, "securityContext": security, "env": [],
                        "volumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": true}]}],
                    "priorityClassName": "",
                    "volumes": [{"name": "models", "emptyDir": {"sizeLimit": "15Mi"}}],
                },
            },
        },
    });
    let ours = rendered(|pods| edge_deployment(pods, "site-a", "gw-a", &settings()));
    assert_eq!(ours.body, expected);
    // The types of the API know every field.
    let typed: Deployment = serde_json::from_value(ours.body.clone()).unwrap();
    assert!(ours.is_in(&Fields::of(&serde_json::to_value(typed).unwrap())));
}

#[test]
fn whose_models_may_run_is_told_to_who_fetches_and_who_serves() {
    let settings = Settings { trusted_keys: Some("PEM".into()), ..settings() };
    let pod = rendered(|pods| edge_deployment(pods, "site-a", "gw-a", &settings));
    for container in ["/spec/template/spec/initContainers/0/env", "/spec/template/spec/containers/0/env"] {
        let expected = json!([{"name": "SCONCE_TRUSTED_KEYS", "value": "PEM"}]);
        assert_eq!(pod.body.pointer(container), Some(&expected));
    }
    let anyone = rendered(|pods| edge_deployment(pods, "site-a", "gw-a", &self::settings()));
    assert!(!anyone.is_in(&Fields::of(&pod.body)), "what is trusted no longer has to go");
    assert!(anyone.is_in(&Fields::of(&anyone.body)));
}

#[test]
fn the_nodes_store_is_asked_before_the_registry() {
    let settings = Settings { store_port: Some(8003), trusted_keys: Some("PEM".into()), ..settings() };
    let pod = rendered(|pods| edge_deployment(pods, "site-a", "gw-a", &settings));
    let container = |kind: &str| pod.body.pointer(&format!("/spec/template/spec/{kind}/0")).unwrap().clone();
    let fetch = container("initContainers");
    let froms = json!(["fetch", "--from", "http://$(HOST_IP):8003", "--from", "oci://r:5000/m/digits"]);
    assert_eq!(fetch["args"].as_array().unwrap()[..5], froms.as_array().unwrap()[..]);
    let host = json!({"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}});
    assert_eq!(fetch["env"], json!([host, {"name": "SCONCE_TRUSTED_KEYS", "value": "PEM"}]));
    assert_eq!(container("containers")["env"], json!([{"name": "SCONCE_TRUSTED_KEYS", "value": "PEM"}]));
    let typed: Deployment = serde_json::from_value(pod.body.clone()).unwrap();
    assert!(pod.is_in(&Fields::of(&serde_json::to_value(typed).unwrap())));
}

#[test]
fn a_pool_lands_where_fleet_and_model_say() {
    let cloud =
        Selector { match_labels: [("tier".to_owned(), "cloud".to_owned())].into(), match_expressions: Vec::new() };
    let [deployment, service, budget] = rendered(|pods| pool_objects(pods, &cloud, &settings()));
    let terms = deployment.body.pointer(
        "/spec/template/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms",
    );
    let expected = json!([{"matchExpressions": [{"key": "tier", "operator": "In", "values": ["cloud"]}, {"key": "gpu", "operator": "Exists"}]}]);
    assert_eq!(terms, Some(&expected));
    assert_eq!(deployment.name, names::pool("digits", DIGEST, "f32"));
    assert_eq!((service.name, budget.name), (deployment.name.clone(), deployment.name));
    assert_eq!(service.body.pointer("/spec/ports/0/port"), Some(&json!(8001)));
    assert_eq!(budget.body.pointer("/spec/unhealthyPodEvictionPolicy"), Some(&json!("AlwaysAllow")));
}

#[test]
fn how_it_would_roll_out_and_what_a_list_leaves_out_is_no_difference() {
    let ours = |replicas, surge| {
        let strategy = json!({"rollingUpdate": {"maxSurge": surge}});
        Object::new(
            Kind::Deployment,
            "n",
            "d",
            json!({}),
            json!({"spec": {"replicas": replicas, "strategy": strategy}}),
        )
    };
    let mut live = ours(1, 0).body;
    live.as_object_mut().unwrap().retain(|name, _| name != "kind" && name != "apiVersion");
    let live = Fields::of(&live);
    assert!(ours(1, 0).is_in(&live) && ours(1, 1).is_in(&live));
    assert!(!ours(2, 0).is_in(&live));
}

#[test]
fn a_private_models_secret_is_for_who_fetches_alone() {
    let mut model = model();
    // What it names by now has resolved nothing yet.
    model.spec.model.pull_secret_ref = Some(NameRef::new("another"));
    let desired = json!({"version": "digits-aaaaaaaaaa-r1", "digest": DIGEST, "uri": "oci://r:5000/m/digits:1", "pullSecretRef": {"name": "pull"}});
    model.status = Some(serde_json::from_value(json!({"desired": desired})).unwrap());
    let version = version();
    let request = plan::Resources { cpu_millis: 50, memory_bytes: 27 << 20 };
    let pods = Pods { model: &model, version: &version, variant: "f32", replicas: 1, request, surge: true };
    let pod = edge_deployment(&pods, "site-a", "gw-a", &settings());
    let spec = pod.body.pointer("/spec/template/spec").unwrap();
    let files = json!([{"key": ".dockerconfigjson", "path": ".dockerconfigjson"}]);
    let secret = json!({"secretName": "pull", "items": files, "defaultMode": 288, "optional": true});
    assert_eq!(spec["volumes"][1], json!({"name": "docker", "secret": secret}));
    let fetch = &spec["initContainers"][0];
    assert_eq!(fetch["env"], json!([{"name": "DOCKER_CONFIG", "value": "/docker"}]));
    assert_eq!(fetch["volumeMounts"][1], json!({"name": "docker", "mountPath": "/docker", "readOnly": true}));
    let serve = spec["containers"][0].to_string();
    assert!(!serve.contains("docker"), "{serve}");
    let typed: Deployment = serde_json::from_value(pod.body.clone()).unwrap();
    assert!(pod.is_in(&Fields::of(&serde_json::to_value(typed).unwrap())));
}

/// The Job of a run that begins with this base, and publishes so.
fn run_of(base: Value, output: Value) -> Job {
    run_against(base, output, None)
}

/// And that must be better than this artifact.
fn run_against(base: Value, output: Value, against: Option<&str>) -> Job {
    let mut spec = json!({"dataset": {"uri": "synthetic:digits", "format": "idx"},
        "base": {"uri": format!("oci://r:5000/m/base@{DIGEST}")}, "output": output});
    spec["base"]["secretRef"] = base;
    spec["output"]["uri"] = json!("oci://r:5000/m/digits");
    let training: EdgeTraining = serde_json::from_value(
        json!({"metadata": {"name": "digits", "namespace": "vision", "uid": "et"}, "spec": spec}),
    )
    .unwrap();
    let manifest = json!({});
    let run = Run {
        training: &training,
        name: "digits-1",
        recipe_hash: "h",
        manifest: &manifest,
        labelled: None,
        request: None,
        against,
        fleets: &[],
    };
    serde_json::from_value(job(&run, &settings()).body).unwrap()
}

#[test]
fn a_run_pushes_by_one_secret_and_has_its_base_by_another() {
    let rendered = |base: Value, output: Value| run_of(base, json!({"secretRef": output}));
    let pod = |job: &Job| job.spec.clone().unwrap().template.spec.unwrap();
    let both = rendered(json!({"name": "pull"}), json!({"name": "push"}));
    assert_eq!(opens(&both).as_deref(), Some("push"));
    let both = pod(&both);
    let volumes = serde_json::to_value(&both.volumes).unwrap();
    assert_eq!(
        (&volumes[2]["secret"]["secretName"], &volumes[3]["secret"]["secretName"]),
        (&json!("push"), &json!("pull"))
    );
    let trainer = serde_json::to_value(&both.containers[0]).unwrap();
    assert_eq!(trainer["env"], json!([{"name": "DOCKER_CONFIG", "value": "/docker"}]));
    let args = trainer["args"].as_array().unwrap();
    assert_eq!(args[args.len() - 2..], [json!("--base-docker-config"), json!("/base-docker")]);
    let paths: Vec<_> =
        both.containers[0].volume_mounts.iter().flatten().map(|mount| mount.mount_path.as_str()).collect();
    assert_eq!(paths, ["/recipe", "/work", "/docker", "/base-docker"]);
    let neither = rendered(Value::Null, Value::Null);
    assert_eq!(opens(&neither), None);
    let neither = pod(&neither);
    assert_eq!((neither.volumes.map(|volumes| volumes.len()), neither.containers[0].env.clone()), (Some(2), None));
}

/// What it is held against lies where it publishes: its base's Secret would not open that.
#[test]
fn a_run_is_told_what_to_be_better_than_and_has_it_by_the_secret_that_it_pushes_by() {
    let earlier = format!("oci://r:5000/m/digits@{DIGEST}");
    let rendered = |against| run_against(json!({"name": "pull"}), json!({"secretRef": {"name": "push"}}), against);
    let (told, untold) = (rendered(Some(&earlier)), rendered(None));
    assert_eq!((target(&told), opens(&told)), (target(&untold), opens(&untold)));
    assert_eq!(told.annotations()[RECIPE], untold.annotations()[RECIPE]);
    let trainer = |job: Job| job.spec.unwrap().template.spec.unwrap().containers.remove(0);
    let (mut told, untold) = (trainer(told), trainer(untold));
    let args = told.args.as_mut().unwrap();
    let at = args.iter().position(|arg| arg == "--against").unwrap();
    assert_eq!(args.drain(at..at + 2).collect::<Vec<_>>(), ["--against", &*earlier]);
    assert_eq!(told, untold, "nothing else is another");
    assert_eq!(serde_json::to_value(&told.env).unwrap(), json!([{"name": "DOCKER_CONFIG", "value": "/docker"}]));
}

/// The Secret may hold more than the pod should have; one that is not there, the trainer tells of.
#[test]
fn a_run_signs_by_one_key_of_a_secret() {
    let (signed, unsigned) = (json!({"signingKeyRef": {"name": "release"}}), json!({}));
    let [signed, unsigned] = [signed, unsigned].map(|output| run_of(Value::Null, output));
    let form = |job: &Job| job.annotations()[FORM].clone();
    assert_ne!(form(&signed), form(&unsigned));
    assert_eq!((target(&signed), opens(&signed)), (target(&unsigned), None), "it opens nothing");
    let [signed, unsigned] =
        [signed, unsigned].map(|job| serde_json::to_value(job.spec.unwrap().template.spec).unwrap());
    assert!(!unsigned.to_string().contains("signing"), "{unsigned}");
    let file = json!([{"key": "signing.key", "path": "signing.key"}]);
    let secret = json!({"secretName": "release", "items": file, "defaultMode": 288, "optional": true});
    assert_eq!(signed["volumes"][2], json!({"name": "signing", "secret": secret}));
    let trainer = &signed["containers"][0];
    assert_eq!(trainer["volumeMounts"][2], json!({"name": "signing", "mountPath": "/signing", "readOnly": true}));
    let args = trainer["args"].as_array().unwrap();
    assert_eq!(args[args.len() - 2..], [json!("--signing-key"), json!("/signing/signing.key")]);
}
