//! The Job of one run. The recipe travels in the pod's own annotation, which the pod reads as a file: so a run and its recipe are
//! one object, and nobody needs a right to ConfigMaps.

use super::pods::{container_security, expressions, node_affinity, pod_security};
use super::secret::{DOCKER_CONFIG, SIGNING_KEY, docker_config, signing_key};
use super::{Kind, Object, Settings, metadata, namespace};
use crate::names::short_hash;
use crate::observe::{INSTANCE_LABEL, NAME_LABEL, TRAINING_POD};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use sconce_api::{Amount, DurationText, EdgeFleet, EdgeTraining, NameRef, Tier, TrainingRunSpec, labels, on_claim};
use serde_json::{Value, json};

/// Annotation of a Job: hash of its recipe.
pub const RECIPE: &str = "sconce.dev/recipe";
/// Annotation of a Job: labelled samples that its EdgeDataset had when it began.
pub const LABELLED: &str = "sconce.dev/labelled";
/// Annotation of a Job: hash of all that was asked of it. A run that has not started is made anew if that changes.
pub const FORM: &str = "sconce.dev/form";
/// Annotation of its pod: the manifest that the trainer reads.
pub const MANIFEST: &str = "sconce.dev/manifest";

/// What a run keeps: checkpoints and artifact.
const WORK: &str = "/work";
const DATA: &str = "/data";
const FOLDER: &str = "/recipe";
const FILE: &str = "training.yaml";
/// Where the kubelet finds a container's last words.
const RESULT: &str = "/dev/termination-log";

/// The trainer's flag that says where it publishes.
const PUBLISH: &str = "--publish";

/// Volumes with the Secrets of where it publishes, of its base, and of what signs.
const OUTPUT: &str = "docker";
const BASE: &str = "base-docker";
const SIGNING: &str = "signing";

const DEADLINE_SECONDS: u64 = 6 * 3600;
const RETRIES: i64 = 2;

/// One run that begins.
pub struct Run<'a> {
    pub training: &'a EdgeTraining,
    pub name: &'a str,
    pub recipe_hash: &'a str,
    pub manifest: &'a Value,
    /// Labelled samples that the EdgeDataset has, if it learns from one.
    pub labelled: Option<i64>,
    /// The request that it meets.
    pub request: Option<&'a str>,
    /// The artifact that it must be better than, by digest. It lies in the repository where the run publishes, and is opened as that is.
    pub against: Option<&'a str>,
    /// Whose nodes it may run on.
    pub fleets: &'a [&'a EdgeFleet],
}

pub fn job(run: &Run<'_>, settings: &Settings) -> Object {
    let training = run.training;
    let of_run = training.spec.run.clone().unwrap_or_default();
    let training_name = training.name_any();
    let ours = [(NAME_LABEL, TRAINING_POD), (INSTANCE_LABEL, run.name), (labels::TRAINING, &training_name)];
    let mut metadata = metadata(training, &ours);
    let pod_labels = metadata["labels"].clone();
    metadata["annotations"] = json!({RECIPE: run.recipe_hash});
    if let Some(labelled) = run.labelled {
        metadata["annotations"][LABELLED] = json!(labelled.to_string());
    }
    if let Some(request) = run.request {
        metadata["annotations"][labels::RUN_REQUESTED] = json!(request);
    }
    if let Some(queue) = &of_run.queue_name {
        metadata["labels"]["kueue.x-k8s.io/queue-name"] = json!(queue);
    }
    let spec = json!({
        "backoffLimit": of_run.retries.unwrap_or(RETRIES),
        "activeDeadlineSeconds": seconds(of_run.deadline.as_ref()),
        // The pod of a lost node may still write to the claim: its successor waits until it is gone.
        "podReplacementPolicy": "Failed",
        // A queue admits what is suspended.
        "suspend": of_run.queue_name.is_some(),
        "template": {
            "metadata": {"labels": pod_labels, "annotations": {MANIFEST: run.manifest.to_string()}},
            "spec": pod(run, &of_run, settings),
        },
    });
    metadata["annotations"][FORM] = json!(short_hash(&spec.to_string(), 16));
    Object::new(Kind::Job, &namespace(training), run.name, metadata, json!({ "spec": spec }))
}

/// The address by which a Job publishes, as it says itself.
pub fn target(job: &Job) -> Option<String> {
    let containers = &job.spec.as_ref()?.template.spec.as_ref()?.containers;
    let mut args = containers.first()?.args.as_ref()?.iter();
    args.find(|arg| *arg == PUBLISH)?;
    args.next().cloned()
}

/// Name of the Secret that opens where a Job publishes, as it says itself.
pub fn opens(job: &Job) -> Option<String> {
    let volumes = job.spec.as_ref()?.template.spec.as_ref()?.volumes.iter().flatten();
    volumes.filter(|volume| volume.name == OUTPUT).find_map(|volume| volume.secret.as_ref()?.secret_name.clone())
}

fn pod(run: &Run<'_>, of_run: &TrainingRunSpec, settings: &Settings) -> Value {
    let mut pod = json!({
        // A trainer that crashed is started again in its pod, where its checkpoints are.
        "restartPolicy": "OnFailure",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 30,
        "securityContext": pod_security(),
        "containers": [container(run, of_run, settings)],
        "volumes": volumes(run, of_run),
    });
    if let Some(affinity) = node_affinity(terms(run.fleets, of_run.tier.unwrap_or(Tier::Cloud))) {
        pod["affinity"] = affinity;
    }
    pod
}

/// The nodes of any fleet, of this tier.
fn terms(fleets: &[&EdgeFleet], tier: Tier) -> Vec<Vec<Value>> {
    let edge = |fleet: &EdgeFleet| {
        let sites = &fleet.spec.sites;
        let site = json!({"key": sites.site_label, "operator": "Exists"});
        Some(expressions(&sites.node_selector).chain([site]).collect())
    };
    let cloud = |fleet: &EdgeFleet| fleet.spec.cloud.as_ref().map(|cloud| expressions(&cloud.node_selector).collect());
    fleets.iter().filter_map(|fleet| if tier == Tier::Edge { edge(fleet) } else { cloud(fleet) }).collect()
}

fn container(run: &Run<'_>, of_run: &TrainingRunSpec, settings: &Settings) -> Value {
    // A claim may be shared: of its folders a training takes away only those of its own runs.
    let runs = format!("{WORK}/{}", run.training.name_any());
    let output = format!("{runs}/{}/artifact", run.name);
    let target = format!("{}:{}", run.training.spec.output.uri, run.name);
    let recipe = format!("{FOLDER}/{FILE}");
    let mut args = vec!["train", &recipe, "--output", &output, "--runs", &runs, PUBLISH, &target, "--result", RESULT];
    let mut mounts = vec![
        json!({"name": "recipe", "mountPath": FOLDER, "readOnly": true}),
        json!({"name": "work", "mountPath": WORK}),
    ];
    let folder = claim(run.manifest).map(|(_, folder)| format!("{DATA}{folder}"));
    if let Some(folder) = &folder {
        args.extend(["--data", folder]);
        mounts.push(json!({"name": "data", "mountPath": DATA, "readOnly": true}));
    }
    for registry in &settings.insecure_registries {
        args.extend(["--insecure-registry", registry]);
    }
    if let Some(against) = run.against {
        args.extend(["--against", against]);
    }
    let folder = |volume: &str| format!("/{volume}");
    let (output_opens, base_opens) = (output_secret(run.training), base_secret(run.training));
    let base_folder = folder(BASE);
    if base_opens.is_some() {
        args.extend(["--base-docker-config", &base_folder]);
    }
    let signs = signing_secret(run.training);
    let key = format!("{}/{SIGNING_KEY}", folder(SIGNING));
    if signs.is_some() {
        args.extend(["--signing-key", &key]);
    }
    let secrets = [(OUTPUT, output_opens), (BASE, base_opens), (SIGNING, signs)];
    for (volume, _) in secrets.into_iter().filter(|(_, secret)| secret.is_some()) {
        mounts.push(json!({"name": volume, "mountPath": folder(volume), "readOnly": true}));
    }
    let mut container = json!({
        "name": "trainer",
        "image": settings.trainer_image,
        "imagePullPolicy": settings.pull_policy,
        "args": args,
        // As much as it asked for and no more: who serves beside it is not disturbed.
        "resources": {"requests": resources(of_run), "limits": resources(of_run)},
        "securityContext": container_security(),
        "terminationMessagePath": RESULT,
        // Of a crash the last lines of the log say why.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    });
    if let Some(secret) = &run.training.spec.dataset.secret_ref {
        container["envFrom"] = json!([{"secretRef": {"name": secret.name}}]);
    }
    if output_opens.is_some() {
        container["env"] = json!([{"name": DOCKER_CONFIG, "value": folder(OUTPUT)}]);
    }
    container
}

fn output_secret(training: &EdgeTraining) -> Option<&NameRef> {
    training.spec.output.secret_ref.as_ref()
}

fn base_secret(training: &EdgeTraining) -> Option<&NameRef> {
    training.spec.base.as_ref()?.secret_ref.as_ref()
}

fn signing_secret(training: &EdgeTraining) -> Option<&NameRef> {
    training.spec.output.signing_key_ref.as_ref()
}

fn volumes(run: &Run<'_>, of_run: &TrainingRunSpec) -> Value {
    let manifest = json!({"path": FILE, "fieldRef": {"fieldPath": format!("metadata.annotations['{MANIFEST}']")}});
    let work = match &of_run.claim_name {
        Some(claim) => json!({"name": "work", "persistentVolumeClaim": {"claimName": claim}}),
        None => json!({"name": "work", "emptyDir": {}}),
    };
    let mut volumes = vec![json!({"name": "recipe", "downwardAPI": {"items": [manifest]}}), work];
    if let Some((claim, _)) = claim(run.manifest) {
        volumes.push(json!({"name": "data", "persistentVolumeClaim": {"claimName": claim, "readOnly": true}}));
    }
    volumes.extend(output_secret(run.training).map(|secret| docker_config(OUTPUT, secret)));
    volumes.extend(base_secret(run.training).map(|secret| docker_config(BASE, secret)));
    volumes.extend(signing_secret(run.training).map(|secret| signing_key(SIGNING, secret)));
    json!(volumes)
}

/// The claim that the data lie on, and their folder there.
fn claim(manifest: &Value) -> Option<(&str, &str)> {
    on_claim(manifest["spec"]["dataset"]["uri"].as_str()?)
}

fn resources(of_run: &TrainingRunSpec) -> Value {
    let asked = of_run.resources.clone().unwrap_or_default();
    let text = |amount: Option<Amount>, default: &str| amount.map_or_else(|| default.to_owned(), |amount| amount.0);
    json!({"cpu": text(asked.cpu, "1"), "memory": text(asked.memory, "2Gi")})
}

/// Whole seconds, at least one.
fn seconds(deadline: Option<&DurationText>) -> u64 {
    deadline.and_then(DurationText::parse).map_or(DEADLINE_SECONDS, |deadline| deadline.as_secs().max(1))
}
