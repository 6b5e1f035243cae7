//! The operator may die between any two writes, and what it makes is the same.

use crate::suite::{bed, exact, pace};
use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ListParams, ObjectMeta};
use kube::{Resource, ResourceExt as _};
use sconce_api::{EdgeModel, EdgeModelVersion, EdgePlacement, Tier};
use sconce_e2e::{Bed, NAMESPACE, program, tool};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdin, Command};

const LIMIT: Duration = Duration::from_secs(120);

/// The operator, outside of the cluster, with the arguments that the chart gave it.
struct Mortal<'a> {
    bed: &'a Bed,
    arguments: Vec<String>,
}

impl Mortal<'_> {
    /// Starts a life of `writes` writes, or one without end.
    fn begin(&self, writes: Option<usize>) -> Result<Life> {
        let mut command = Command::new(tool("kubebox")?);
        command.args(["exec", "--name", self.bed.spec.name, "cp", "--"]).arg(program("mortal")?);
        command.arg("--kubeconfig").arg(self.bed.kubeconfig()).args(["--server", "https://127.0.0.1:6443"]);
        if let Some(writes) = writes {
            command.args(["--writes", &writes.to_string()]);
        }
        command.arg("--").arg(program("sconce-operator")?).args(&self.arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        Ok(Life { thread: child.stdin.take(), child })
    }
}

struct Life {
    child: Child,
    /// It ends when this is cut.
    thread: Option<ChildStdin>,
}

impl Life {
    /// Waits for its end, in the end by our hand; returns how many writes it made.
    async fn ended(&mut self) -> Result<usize> {
        let mut said = String::new();
        self.child.stdout.as_mut().context("its output is ours")?.read_to_string(&mut said).await?;
        let status = self.child.wait().await?;
        said.trim().parse().with_context(|| format!("the operator ended otherwise than by our hand: {status}"))
    }

    async fn end(mut self) -> Result<usize> {
        drop(self.thread.take());
        self.ended().await
    }
}

/// The arguments of the Deployment's operator, with ports of its own and one name in the lease for all its lives.
async fn arguments(bed: &Bed) -> Result<Vec<String>> {
    let deployments: Api<Deployment> = Api::namespaced(bed.client.clone(), "sconce-system");
    let spec = deployments.get("sconce-operator").await?.spec.and_then(|spec| spec.template.spec);
    let given = spec.and_then(|spec| spec.containers.into_iter().next()?.args).context("the operator has arguments")?;
    let own = ["--health=127.0.0.1:0", "--metrics=127.0.0.1:0", "--namespace=sconce-system", "--identity=mortal"];
    let kept = given.into_iter().filter(|arg| !arg.starts_with("--health") && !arg.starts_with("--metrics"));
    Ok(kept.chain(own.map(String::from)).collect())
}

/// What the operator made for the models of the namespace, without what no two runs share: identities, times, addresses,
/// and the numbers of measured links.
async fn made(bed: &Bed) -> Result<BTreeMap<String, Value>> {
    let mut all = BTreeMap::new();
    let any = ListParams::default();
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=sconce");
    gather::<EdgeModel>(bed, &any, standing, &mut all).await?;
    gather::<EdgeModelVersion>(bed, &any, standing, &mut all).await?;
    gather::<EdgePlacement>(bed, &any, standing, &mut all).await?;
    gather::<Deployment>(bed, &ours, written_by_others, &mut all).await?;
    gather::<Service>(bed, &ours, written_by_others, &mut all).await?;
    gather::<PodDisruptionBudget>(bed, &ours, written_by_others, &mut all).await?;
    Ok(all)
}

async fn gather<K>(
    bed: &Bed,
    list: &ListParams,
    told: fn(&Value) -> Value,
    all: &mut BTreeMap<String, Value>,
) -> Result<()>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    for object in Api::<K>::namespaced(bed.client.clone(), NAMESPACE).list(list).await? {
        let owners: Vec<_> = object.owner_references().iter().map(|owner| (&owner.kind, &owner.name)).collect();
        let mut value = serde_json::to_value(&object)?;
        let status = value["status"].take();
        let spec = without_addresses(value["spec"].take());
        let facts = json!({"labels": object.labels(), "owners": owners, "spec": spec, "status": told(&status)});
        all.insert(format!("{}/{}", K::kind(&()), object.name_any()), facts);
    }
    Ok(())
}

fn without_addresses(mut spec: Value) -> Value {
    for field in ["clusterIP", "clusterIPs"] {
        spec.as_object_mut().and_then(|spec| spec.remove(field));
    }
    spec
}

/// The status of Kubernetes' own kinds is no work of the operator, and its conditions come and go with its controllers'
/// conflicts.
const fn written_by_others(_: &Value) -> Value {
    Value::Null
}

/// Conditions by type, the decision, where answers come from. What clients waited is measured, and no two runs share it.
fn standing(status: &Value) -> Value {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let conditions: Map<String, Value> = conditions
        .filter(|one| one["type"] != "WithinBudget")
        .map(|one| (one["type"].as_str().unwrap_or_default().to_owned(), json!([one["status"], one["reason"]])))
        .collect();
    let endpoints: Vec<_> = status["endpoints"].as_array().into_iter().flatten().map(|one| &one["tier"]).collect();
    let mut decision = status["decision"].clone();
    decision.as_object_mut().and_then(|decision| decision.remove("since"));
    json!({"conditions": conditions, "endpoints": endpoints, "decision": decision})
}

/// Deletes the model and waits until all that it owned is gone.
async fn delete_model(bed: &Bed) -> Result<()> {
    bed.kubectl().args(["delete", "em", "digits", "-n", NAMESPACE, "--wait=true"]).output().await?;
    let deadline = Instant::now() + LIMIT;
    while !made(bed).await?.is_empty() {
        if Instant::now() > deadline {
            bail!("still there: {:?}", made(bed).await?.keys());
        }
        // Six kinds are awaited at once, and their objects only become fewer.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn until_served(bed: &Bed) -> Result<()> {
    bed.until_served("digits", "site-a", Tier::Edge).await?;
    bed.until_served("digits", "site-b", Tier::Cloud).await?;
    Ok(())
}

/// Waits until the model says of itself that nothing is left to do.
async fn until_ready(bed: &Bed) -> Result<()> {
    let limit = format!("--timeout={}s", LIMIT.as_secs());
    let ready = ["wait", "em/digits", "-n", NAMESPACE, "--for=condition=Ready", &limit];
    bed.kubectl().args(ready).output().await?;
    Ok(())
}

async fn until_same(bed: &Bed, expected: &BTreeMap<String, Value>, when: &str) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let found = made(bed).await?;
        if found == *expected {
            return Ok(());
        }
        if Instant::now() > deadline {
            let differs = |key: &&String| found.get(*key) != expected.get(*key);
            for key in expected.keys().chain(found.keys()).filter(differs) {
                println!("{key}: expected {:?}\n   found {:?}", expected.get(key), found.get(key));
            }
            bail!("the operator that was killed {when} made something else");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn create_under_kills(bed: &Bed) -> Result<()> {
    let mortal = Mortal { bed, arguments: arguments(bed).await? };
    let spec = Api::<EdgeModel>::namespaced(bed.client.clone(), NAMESPACE).get("digits").await?.spec;
    let metadata =
        ObjectMeta { name: Some("digits".into()), namespace: Some(NAMESPACE.into()), ..ObjectMeta::default() };
    let wish = serde_json::to_string(&EdgeModel { metadata, spec, status: None })?;

    delete_model(bed).await?;
    let undisturbed = mortal.begin(None)?;
    bed.apply_text(&wish).await?;
    until_served(bed).await?;
    until_ready(bed).await?;
    let expected = made(bed).await?;
    println!("a create takes {} writes, undisturbed", undisturbed.end().await?);

    delete_model(bed).await?;
    bed.apply_text(&wish).await?;
    let mut lives = 0;
    tokio::time::timeout(LIMIT, async {
        let served = until_served(bed);
        tokio::pin!(served);
        loop {
            let mut life = mortal.begin(Some(1))?;
            lives += 1;
            tokio::select! {
                ended = life.ended() => ensure!(ended? == 1, "a life of one write made another number of them"),
                served = &mut served => {
                    life.end().await?;
                    return served;
                }
            }
        }
    })
    .await
    .context("one write a life leads nowhere")??;
    println!("served after {lives} lives of one write each");
    let last = mortal.begin(None)?;
    let same = until_same(bed, &expected, "after each write").await;
    last.end().await?;
    same
}

#[tokio::test]
async fn operator_killed_after_each_write_makes_the_same() -> Result<()> {
    let bed = bed().await?;
    // No two runs share what is measured meanwhile: by it the tier is decided, and of several variants the cheapest; and clients
    // whose requests fail while nothing is served would be a reason, had that not to last.
    pace(&bed, json!({"settle": "1h"}), json!(null)).await?;
    let digest = bed.publish(exact()?.path(), "models/exact:1.0.0").await?;
    bed.kubectl().args(["label", "es", "site-a", "far=true", "--overwrite"]).output().await?;
    let spec = json!({
        "model": {"uri": format!("{}@{digest}", Bed::model_uri("models/exact"))},
        "latencyBudget": "30s",
        "placement": {"tier": "Cloud"},
        "overrides": [{"name": "far", "sites": {"matchLabels": {"far": "true"}}, "placement": {"tier": "Edge"}}],
    });
    bed.patch("em", NAMESPACE, "digits", json!({ "spec": spec })).await?;
    let scale = |replicas: &'static str| {
        bed.kubectl().args(["scale", "deploy/sconce-operator", "-n", "sconce-system", replicas]).output()
    };
    scale("--replicas=0").await?;
    let pods = ["wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=sconce-operator", "--timeout=60s"];
    bed.kubectl().args(pods).args(["-n", "sconce-system"]).output().await?;
    let outcome = create_under_kills(&bed).await;
    scale("--replicas=1").await?;
    outcome
}
