//! The objects that decisions are made of: read from a cluster, from a snapshot or from manifests, all in one form.

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{ApiResource, DynamicObject, ListParams, TypeMeta};
use kube::{Api, Client, Resource, ResourceExt};
use sconce_api::{EdgeDataset, EdgeFleet, EdgeModel, EdgeModelVersion, EdgeNode, EdgePlacement, EdgeSite, labels};
use sconce_operator::observe::{ByKey, World, key, prune_node, prune_pod, written_ratios};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Kubernetes objects as they are written: `apiVersion`, `kind` and all.
#[derive(Clone, Debug, Default)]
pub struct Objects(Vec<Value>);

impl Objects {
    pub async fn of_cluster(client: &Client) -> Result<Self> {
        let mut objects = Self::default();
        let all = ListParams::default();
        objects.list::<EdgeFleet>(client, &all).await?;
        objects.list::<EdgeSite>(client, &all).await?;
        objects.list::<EdgeNode>(client, &all).await?;
        objects.list::<EdgeModel>(client, &all).await?;
        objects.list::<EdgeModelVersion>(client, &all).await?;
        objects.list::<EdgePlacement>(client, &all).await?;
        objects.list::<EdgeDataset>(client, &all).await?;
        objects.list::<Node>(client, &all).await?;
        let alive = all.clone().fields("status.phase!=Succeeded,status.phase!=Failed");
        objects.list::<Pod>(client, &alive).await?;
        let ours = all.labels(&format!("{}={}", labels::MANAGED_BY, labels::MANAGER));
        objects.list::<Deployment>(client, &ours).await?;
        // Few may list them, and few need them.
        if objects
            .0
            .iter()
            .any(|object| !object["spec"]["priorityClassName"].is_null() && object["kind"] == "EdgeModel")
        {
            objects.list::<PriorityClass>(client, &ListParams::default()).await?;
        }
        objects.prune()?;
        Ok(objects)
    }

    async fn list<K: Resource<DynamicType = ()>>(&mut self, client: &Client, params: &ListParams) -> Result<()> {
        let resource = ApiResource::erase::<K>(&());
        let listed = Api::<DynamicObject>::all_with(client.clone(), &resource).list(params).await;
        for mut object in listed.map_err(|error| not_listed(&resource, error))? {
            object.types = Some(TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() });
            object.managed_fields_mut().clear();
            object.annotations_mut().clear();
            self.0.push(serde_json::to_value(object).context("writing an object")?);
        }
        Ok(())
    }

    /// Leaves out what the planner does not read, the environment of pods first of all.
    fn prune(&mut self) -> Result<()> {
        for object in &mut self.0 {
            match object["kind"].as_str().unwrap_or_default() {
                "Pod" => pruned(object, prune_pod)?,
                "Node" => pruned(object, prune_node)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A `List`, of `sconce snapshot save` or of `kubectl get … -o yaml`.
    pub fn of_snapshot(file: &Path) -> Result<Self> {
        let text = read(file)?;
        let list = serde_json::from_str(&text).or_else(|_| serde_saphyr::from_str::<Value>(&text));
        let mut list = list.with_context(|| format!("{} is neither JSON nor YAML", file.display()))?;
        match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(Self(items)),
            _ => bail!("{} is no snapshot: it has no list `items` (sconce snapshot save makes one)", file.display()),
        }
    }

    /// Manifests as `kubectl apply -f` takes them; kinds that are not ours are left to it.
    pub fn of_manifests(files: &[PathBuf]) -> Result<Self> {
        let mut objects = Self::default();
        for file in files {
            let documents: Vec<Value> =
                serde_saphyr::from_multiple(&read(file)?).with_context(|| format!("{} is not YAML", file.display()))?;
            for document in documents {
                if manifest(&document).with_context(|| file.display().to_string())? {
                    objects.0.push(document);
                }
            }
        }
        if objects.0.is_empty() {
            bail!("no EdgeFleet, EdgeSite, EdgeModel or EdgeDataset is in {}", names(files));
        }
        Ok(objects)
    }

    /// The objects as they would be if `changes` were applied: labels and spec anew, the rest as it is.
    pub fn with(&self, changes: Self, namespace: &str) -> Result<Self> {
        let mut objects = self.clone();
        for mut change in changes.0 {
            let namespaced = change["kind"] == "EdgeModel" || change["kind"] == "EdgeDataset";
            if namespaced && change["metadata"]["namespace"].is_null() {
                change["metadata"]["namespace"] = namespace.into();
            }
            match objects.0.iter_mut().find(|object| identity(object) == identity(&change)) {
                Some(object) => {
                    object["spec"] = change["spec"].take();
                    object["metadata"]["labels"] = change["metadata"]["labels"].take();
                }
                None => objects.0.push(change),
            }
        }
        objects.resolve()?;
        Ok(objects)
    }

    /// Gives each model the version of its artifact, where a model of the namespace has it already. Registries are not asked.
    fn resolve(&mut self) -> Result<()> {
        let known = self.world();
        for value in self.0.iter_mut().filter(|object| object["kind"] == "EdgeModel") {
            let model: EdgeModel = typed(value)?;
            // What a training publishes, only the cluster knows.
            let Some(uri) = &model.spec.model.uri else { continue };
            if model.status.as_ref().and_then(|status| status.desired.as_ref()).is_some_and(|old| old.uri == *uri) {
                continue;
            }
            let neighbours = known.models.values().filter(|other| other.namespace() == model.namespace());
            let mut desired = neighbours.filter_map(|other| other.status.as_ref()?.desired.clone());
            value["status"] =
                desired.find(|desired| desired.uri == *uri).map_or(Value::Null, |desired| json!({"desired": desired}));
        }
        Ok(())
    }

    /// What the planner reads. Other kinds are passed over, and with a warning what cannot be read: one such object must not
    /// stop the others.
    pub fn world(&self) -> World {
        let mut world = World { now: Timestamp::now(), ..World::default() };
        for object in &self.0 {
            if let Err(error) = add(&mut world, object) {
                anstream::eprintln!("warning: {error:#}");
            }
        }
        world.ratios = Arc::new(written_ratios(&world.fleets));
        world
    }

    /// As a Kubernetes List, in JSON.
    pub fn to_list(&self) -> Result<String> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": self.0});
        serde_json::to_string_pretty(&list).context("writing JSON")
    }
}

fn add(world: &mut World, object: &Value) -> Result<()> {
    match object["kind"].as_str().unwrap_or_default() {
        "EdgeFleet" => put(&mut world.fleets, object),
        "EdgeSite" => put(&mut world.sites, object),
        "EdgeNode" => put(&mut world.edge_nodes, object),
        "EdgeModel" => put(&mut world.models, object),
        "EdgeModelVersion" => put(&mut world.versions, object),
        "EdgePlacement" => put(&mut world.placements, object),
        "EdgeDataset" => put(&mut world.datasets, object),
        "Node" => put(&mut world.nodes, object),
        "PriorityClass" => put(&mut world.priority_classes, object),
        "Deployment" => put(&mut world.deployments, object),
        "Pod" => {
            world.add_pod(Arc::new(typed(object)?));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn pruned<K: DeserializeOwned + Serialize>(object: &mut Value, prune: fn(&mut K)) -> Result<()> {
    let mut whole: K = typed(object)?;
    prune(&mut whole);
    *object = serde_json::to_value(whole).context("writing an object")?;
    Ok(())
}

/// A manifest of a kind that plans depend on: its kind is known, it has a name, and nothing in it is unknown.
fn manifest(document: &Value) -> Result<bool> {
    let api = document["apiVersion"].as_str().unwrap_or_default();
    if !api.starts_with("sconce.dev/") {
        return Ok(false);
    }
    let read = match document["kind"].as_str().unwrap_or_default() {
        "EdgeFleet" => again::<EdgeFleet>(document)?,
        "EdgeSite" => again::<EdgeSite>(document)?,
        "EdgeDataset" => again::<EdgeDataset>(document)?,
        "EdgeModel" => again::<EdgeModel>(document)?,
        _ => return Ok(false),
    };
    if !document["metadata"]["name"].is_string() {
        bail!("{} has no metadata.name", document["kind"].as_str().unwrap_or_default());
    }
    match unknown(&document["spec"], &read["spec"], "spec") {
        Some(path) => bail!("{}: there is no field {path}", called(document)),
        None => Ok(true),
    }
}

/// The object as its type would write it.
fn again<K: DeserializeOwned + Serialize>(document: &Value) -> Result<Value> {
    serde_json::to_value(typed::<K>(document)?).context("writing an object")
}

/// The first field that was given and not read. What is empty may be left out when written.
fn unknown(given: &Value, read: &Value, path: &str) -> Option<String> {
    match (given, read) {
        (Value::Object(given), Value::Object(read)) => given.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match read.get(name) {
                Some(read) => unknown(value, read, &path),
                None if is_empty(value) => None,
                None => Some(path),
            }
        }),
        (Value::Array(given), Value::Array(read)) => given
            .iter()
            .zip(read)
            .enumerate()
            .find_map(|(i, (given, read))| unknown(given, read, &format!("{path}[{i}]"))),
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        _ => false,
    }
}

fn identity(object: &Value) -> (&Value, &Value, &Value) {
    (&object["kind"], &object["metadata"]["namespace"], &object["metadata"]["name"])
}

fn put<K: DeserializeOwned + ResourceExt>(all: &mut ByKey<K>, object: &Value) -> Result<()> {
    let object: K = typed(object)?;
    all.insert(key(&object), Arc::new(object));
    Ok(())
}

fn typed<K: DeserializeOwned>(object: &Value) -> Result<K> {
    K::deserialize(object).with_context(|| format!("{} cannot be read", called(object)))
}

/// `EdgeModel digits`.
fn called(object: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!("{} {}", word(&object["kind"]), word(&object["metadata"]["name"]))
}

pub fn not_listed(resource: &ApiResource, error: kube::Error) -> anyhow::Error {
    let advice = match &error {
        kube::Error::Api(status) if status.code == 404 => " (is Sconce installed there? helm install sconce)",
        kube::Error::Api(status) if status.code == 403 => " (it takes the right to list them, or a snapshot)",
        _ => "",
    };
    anyhow::Error::new(error).context(format!("listing {}{advice}", resource.plural))
}

fn read(file: &Path) -> Result<String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.with_context(|| format!("reading {}", file.display()))?;
    Ok(text)
}

fn names(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}
