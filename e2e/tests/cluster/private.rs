//! A registry that asks for a password (distribution's, from Debian): a model of it is served by the Secret that it names.

use crate::suite::{altered, bed};
use anyhow::{Context as _, Result, ensure};
use kube::api::Api;
use sconce_api::{EdgeModel, EdgeNode};
use sconce_e2e::{Bed, ClientRun, NAMESPACE, condition, program, stands, tool, untried};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

const LIMIT: Duration = Duration::from_secs(180);
const PROGRAM: &str = "docker-registry";
/// Lets the operator read the namespace's Secrets.
const BINDING: &str = "sconce-pull-secrets";
const PASSWORD: &str = "hunter2";
/// Of `me` and the password, by `htpasswd -B`.
const HTPASSWD: &str = "me:$2y$04$LXn6gJgRR/ep25.P29vYru5jzz4ctB4prfNYy3N.AwJxEy2.4X6cq";
/// Serves until its standard input ends.
const SERVE: &str = "docker-registry serve \"$0\" >/dev/null 2>&1 & cat >/dev/null; kill $!";

/// On the control plane's node. It ends with this: its standard input is cut.
struct Registry {
    cluster: &'static str,
    folder: tempfile::TempDir,
    _server: Option<Child>,
}

impl Registry {
    /// `None` where it cannot be had, and that may be so.
    async fn open(bed: &Bed) -> Result<Option<Self>> {
        let there = Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).status().await;
        if there.is_err() {
            untried(&format!("models of a private registry were NOT tried: apt-get install {PROGRAM}"))?;
            return Ok(None);
        }
        let registry = Self { cluster: bed.spec.name, folder: tempfile::tempdir()?, _server: None };
        let path = |name: &str| registry.folder.path().join(name);
        let config = json!({"version": 0.1, "http": {"addr": Bed::PRIVATE_REGISTRY},
            "storage": {"filesystem": {"rootdirectory": path("blobs")}},
            "auth": {"htpasswd": {"realm": "here", "path": path("htpasswd")}}});
        std::fs::write(path("htpasswd"), HTPASSWD)?;
        std::fs::write(path("config.yml"), config.to_string())?;
        let entry = json!({"username": "me", "password": PASSWORD});
        std::fs::write(path("config.json"), json!({"auths": {Bed::PRIVATE_REGISTRY: entry}}).to_string())?;
        let mut server = registry.on_its_node()?;
        server.args(["bash", "-c", SERVE]).arg(path("config.yml")).stdin(Stdio::piped());
        let server = server.spawn()?;
        Ok(Some(Self { _server: Some(server), ..registry }))
    }

    fn on_its_node(&self) -> Result<Command> {
        let mut command = Command::new(tool("kubebox")?);
        command.args(["exec", "--name", self.cluster, "cp", "--"]).stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    /// Publishes as who may, once it answers.
    async fn publish(&self, artifact: &std::path::Path, repository: &str) -> Result<String> {
        let uri = format!("oci://{}/{repository}", Bed::PRIVATE_REGISTRY);
        let publishing = async {
            loop {
                let mut publish = self.on_its_node()?;
                publish.env("DOCKER_CONFIG", self.folder.path()).arg(program("sconce-trainer")?).arg("publish");
                publish.arg(artifact).args([&uri, "--insecure-registry", Bed::PRIVATE_REGISTRY]);
                let ended = publish.output().await?;
                let told = String::from_utf8_lossy(&ended.stdout).into_owned();
                if let Some((_, digest)) = told.trim().rsplit_once('@').filter(|_| ended.status.success()) {
                    return anyhow::Ok(digest.to_owned());
                }
                let error = String::from_utf8_lossy(&ended.stderr).into_owned();
                ensure!(error.contains("refused") || error.contains("cannot be asked"), "{error}");
            }
        };
        tokio::time::timeout(LIMIT, publishing).await.context("the registry does not answer")?
    }
}

#[tokio::test]
async fn a_private_model_is_served_by_the_secret_that_it_names() -> Result<()> {
    let bed = bed().await?;
    let Some(registry) = Registry::open(&bed).await? else { return Ok(()) };
    let served = served(&bed, &registry).await;
    point_to(&bed, json!({"pullSecretRef": null})).await?;
    served
}

async fn point_to(bed: &Bed, model: Value) -> Result<()> {
    bed.patch("em", NAMESPACE, "digits", json!({"spec": {"model": model}})).await.map(drop)
}

async fn secret(bed: &Bed, name: &str, password: &str) -> Result<()> {
    let server = format!("--docker-server={}", Bed::PRIVATE_REGISTRY);
    let make = bed.kubectl().args(["create", "secret", "docker-registry", name, "-n", NAMESPACE, &server]);
    let password = format!("--docker-password={password}");
    let made = make.args(["--docker-username=me", &password, "--dry-run=client", "-o", "yaml"]).output().await?;
    bed.apply_text(&made).await.map(drop)
}

async fn until_unauthorized(bed: &Bed, part: &'static str) -> Result<()> {
    let models: Api<EdgeModel> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let holds = move |found: Option<&EdgeModel>| {
        let status = found.and_then(|model| model.status.as_ref());
        let told = status.and_then(|status| condition(&status.conditions, "Resolved"));
        told.is_some_and(|told| told.reason == "Unauthorized" && told.message.contains(part))
    };
    bed.until(&models, "digits", &format!("Unauthorized, since {part}"), LIMIT, holds).await.map(drop)
}

async fn served(bed: &Bed, registry: &Registry) -> Result<()> {
    // Of an earlier run.
    bed.kubectl().args(["delete", "rolebinding", BINDING, "-n", NAMESPACE, "--ignore-not-found"]).output().await?;
    let private = altered("config.json", |config| config["labels"][0] = json!("private"))?;
    let digest = registry.publish(private.path(), "models/private:1.0.0").await?;
    point_to(bed, json!({"uri": format!("oci://{}/models/private:1.0.0", Bed::PRIVATE_REGISTRY)})).await?;
    until_unauthorized(bed, "to somebody who has no name and password").await?;
    point_to(bed, json!({"pullSecretRef": {"name": "absent"}})).await?;
    until_unauthorized(bed, "the operator may not read Secret absent in vision").await?;
    let binding = ["create", "rolebinding", BINDING, "-n", NAMESPACE, "--clusterrole=sconce-pull-secrets"];
    let account = "--serviceaccount=sconce-system:sconce-operator";
    bed.kubectl().args(binding).arg(account).output().await?;
    until_unauthorized(bed, "there is no Secret absent in vision").await?;
    // Of another kind: the bucket's, say.
    let opaque = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "opaque", "namespace": NAMESPACE}});
    bed.apply_text(&opaque.to_string()).await?;
    point_to(bed, json!({"pullSecretRef": {"name": "opaque"}})).await?;
    until_unauthorized(bed, "Secret opaque in vision is of type Opaque").await?;
    secret(bed, "wrong", "hunter3").await?;
    point_to(bed, json!({"pullSecretRef": {"name": "wrong"}})).await?;
    until_unauthorized(bed, "to somebody whom Secret wrong in vision names").await?;
    let answers = bed.ask("site-a-1", &ClientRun::of("digits.vision").count(50)).await?;
    ensure!(answers.failed == 0, "what serves keeps serving: {:?}", answers.errors);

    secret(bed, "right", PASSWORD).await?;
    point_to(bed, json!({"pullSecretRef": {"name": "right"}})).await?;
    let version = digest.trim_start_matches("sha256:")[..10].to_owned();
    bed.until_placement("digits", "site-a", "the private version serves", |ep| {
        stands(ep, "Ready").starts_with("True") && ep.spec.version_ref.name.contains(&version)
    })
    .await?;
    let answers = bed.ask("site-a-1", &ClientRun::of("digits.vision").count(50)).await?;
    ensure!(answers.failed == 0, "{:?}", answers.errors);
    unmeasured(bed).await?;
    untold(bed).await
}

/// Who measures has nobody's Secrets, and says that this is why.
async fn unmeasured(bed: &Bed) -> Result<()> {
    let nodes: Api<EdgeNode> = Api::all(bed.client.clone());
    let holds = |found: Option<&EdgeNode>| {
        let status = found.and_then(|node| node.status.as_ref());
        let told = status.and_then(|status| condition(&status.conditions, "Profiled"));
        told.is_some_and(|told| {
            told.reason == "ProfileFailed" && told.message.contains("a private model is not measured")
        })
    };
    bed.until(&nodes, "site-a-1", "Profiled says why not", LIMIT, holds).await.map(drop)
}

/// The password is in the Secrets alone.
async fn untold(bed: &Bed) -> Result<()> {
    let kinds = "em,emv,epl,es,en,ef,deploy,pods,events";
    let objects = bed.kubectl().args(["get", kinds, "-A", "-o", "yaml"]).output().await?;
    let log = ["logs", "-n", "sconce-system", "deploy/sconce-operator", "--tail=-1"];
    let log = bed.kubectl().args(log).output().await?;
    ensure!(log.contains("Secret wrong in vision"), "the log tells of it");
    let pods = ["get", "pods", "-n", NAMESPACE, "-o", "name", "-l", "sconce.dev/model=digits"];
    let mut told = objects + &log;
    for pod in bed.kubectl().args(pods).output().await?.lines() {
        told += &bed.kubectl().args(["logs", "-n", NAMESPACE, pod, "--all-containers"]).output().await?;
    }
    for part in [PASSWORD, "hunter3", "bWU6aHVudGVy"] {
        ensure!(!told.contains(part), "{part} is told");
    }
    Ok(())
}
