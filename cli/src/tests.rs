//! Asked of a snapshot: one fleet, a far site with a node of its own, and the cloud.

use crate::explain::explain;
use crate::objects::Objects;
use crate::simulate::simulate;
use crate::status::{Selection, status};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use kube::{Client, Config};
use serde_json::{Value, json};
use std::path::PathBuf;
use tokio::net::TcpListener;

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const URI: &str = "oci://registry.example.com/models/digits:1";

fn ours(kind: &str, metadata: Value, spec: Value, status: Value) -> Value {
    json!({"apiVersion": "sconce.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec, "status": status})
}

fn node(name: &str, labels: Value) -> [Value; 2] {
    let hardware = json!({"class": "amd64-avx2-2", "architecture": "amd64", "gflops": 30, "cpuModel": "x", "cores": 2,
        "memory": "4Gi"});
    let status =
        json!({"allocatable": {"cpu": "2", "memory": "4Gi"}, "conditions": [{"type": "Ready", "status": "True"}]});
    [
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "status": status}),
        ours("EdgeNode", json!({"name": name}), json!({}), json!({"hardware": hardware})),
    ]
}

fn model(budget: &str) -> Value {
    json!({"fleetRef": {"name": "shops"}, "model": {"uri": URI}, "latencyBudget": budget, "accuracyFloor": "97%"})
}

fn term(p99: &str, basis: &str) -> Value {
    json!({"p50": p99, "p99": p99, "basis": basis})
}

/// What a cluster holds whose far site is served at its edge.
pub fn items() -> Vec<Value> {
    let mut items = vec![ours(
        "EdgeFleet",
        json!({"name": "shops"}),
        json!({"sites": {"nodeSelector": {"matchLabels": {"tier": "edge"}}, "siteLabel": "zone"},
            "cloud": {"nodeSelector": {"matchLabels": {"tier": "cloud"}}}}),
        json!({}),
    )];
    items.extend(node("cloud-1", json!({"tier": "cloud"})));
    items.extend(node("edge-a", json!({"tier": "edge", "zone": "site-a"})));
    let link = json!({"roundTrip": {"p50": "40ms", "p99": "41ms", "samples": 1300, "basis": "Measured"}, "uplink": "10M",
        "uplinkBasis": "Assumed"});
    let connected = condition("Connected", "True", "Connected", "1 of 1 nodes is Ready");
    items.push(ours(
        "EdgeSite",
        json!({"name": "site-a"}),
        json!({"fleetRef": {"name": "shops"}}),
        json!({"link": link, "conditions": [connected]}),
    ));
    let desired = json!({"desired": {"version": "digits-1", "digest": DIGEST, "uri": URI}});
    items.push(ours("EdgeModel", json!({"name": "digits", "namespace": "vision"}), model("25ms"), desired));
    items.push(ours(
        "EdgeModelVersion",
        json!({"name": "digits-1", "namespace": "vision"}),
        json!({"modelRef": {"name": "digits"}, "uri": "oci://x", "digest": DIGEST}),
        json!({"artifact": {"architecture": "dense", "inputs": [], "outputs": [], "requestBytes": 3200, "responseBytes": 100},
            "variants": [{"name": "f32", "bytes": 2_770_000, "memory": 6_000_000, "flops": 2_000_000, "metric": "accuracy",
                "accuracy": "98.3%"}]}),
    ));
    items.push(ours(
        "EdgePlacement",
        json!({"name": "digits-d74a1ffe", "namespace": "vision"}),
        json!({"modelRef": {"name": "digits"}, "siteRef": {"name": "site-a"}, "versionRef": {"name": "digits-1"}}),
        json!({
            "decision": {"tier": "Edge", "nodes": ["edge-a"], "variant": "f32", "replicas": 1, "reason": "ChosenAtEdge",
                "since": "2026-11-24T09:00:00Z"},
            "budget": "25ms",
            "predicted": {"link": term("500us", "Estimated"), "transfer": term("0us", "Estimated"),
                "queue": term("0us", "Estimated"), "compute": term("400us", "Estimated"), "p99": "820us", "bound": "900us",
                "basis": "Estimated"},
            "cost": "24500m",
            "rejected": [{"candidate": "cloud/f32", "reason": "LinkTooSlow",
                "message": "round trip p99 41 ms alone exceeds the budget of 25 ms (Measured, 1,300 probes)"}],
            "conditions": [condition("Ready", "False", "Starting", "the pod starts"),
                condition("Placed", "True", "ChosenAtEdge", "chosen"), condition("Serving", "False", "Starting", "the pod starts")],
        }),
    ));
    items
}

pub fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-11-24T09:00:00Z"})
}

pub fn objects() -> Objects {
    objects_of(items())
}

pub fn objects_of(items: Vec<Value>) -> Objects {
    let folder = tempfile::tempdir().unwrap();
    Objects::of_snapshot(&written(&folder, &json!({"items": items}).to_string())).unwrap()
}

fn written(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let file = folder.path().join("file");
    std::fs::write(&file, text).unwrap();
    file
}

fn changes(manifest: &str) -> anyhow::Result<Objects> {
    let folder = tempfile::tempdir().unwrap();
    Objects::of_manifests(&[written(&folder, manifest)])
}

/// A cluster that answers requests so.
pub async fn cluster<F: Future<Output = Response> + Send>(
    answer: impl Fn(Uri) -> F + Clone + Send + Sync + 'static,
) -> Client {
    rustls::crypto::ring::default_provider().install_default().ok();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let router = axum::Router::new().fallback(async move |uri: Uri| answer(uri).await);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Client::try_from(Config::new(uri)).unwrap()
}

/// That nobody may do that.
pub fn forbidden() -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
        "message": "you may not"});
    (StatusCode::FORBIDDEN, status.to_string()).into_response()
}

/// Without colours, as it goes to a file.
pub fn plain(answer: impl std::fmt::Display) -> String {
    anstream::adapter::strip_str(&answer.to_string()).to_string()
}

const EM: &str =
    "apiVersion: sconce.dev/v1alpha1\nkind: EdgeModel\nmetadata: {name: digits, namespace: vision}\nspec:\n";

fn manifest(fields: &str) -> String {
    format!("{EM}  fleetRef: {{name: shops}}\n  model: {{uri: \"{URI}\"}}\n{fields}")
}

#[test]
fn the_recorded_decision_is_explained_with_its_numbers() {
    let explanations = explain(&objects().world(), "vision", "digits", None).unwrap();
    assert_eq!(
        plain(explanations),
        "\
vision/digits at site-a
  ✓ edge/f32 on edge-a   ChosenAtEdge   accuracy 98.3% ≥ 97%   25 points/h   since 2026-11-24T09:00:00Z
    p99 0.82 ms of 25 ms, bound 0.9 ms: link 0.5 ms estimated · transfer 0 ms estimated · queue 0 ms estimated · compute 0.4 ms estimated
  ✗ cloud/f32   LinkTooSlow   round trip p99 41 ms alone exceeds the budget of 25 ms (Measured, 1,300 probes)
  link: round trip p50 40 ms, p99 41 ms (Measured, 1,300 probes) within the last hour; uplink 10 Mbit/s (Assumed)
  node edge-a: amd64-avx2-2, 30 GFLOP/s a core, timed when its agent started
  speed of f32: estimated from its operations and the node's speed
  Serving=False Starting: the pod starts
"
    );
}

/// Each with its basis and how old it may be.
#[test]
fn what_a_decision_was_made_from_is_told() {
    let mut items = items();
    items[0]["status"] =
        json!({"predictionRatios": [{"tier": "Edge", "class": "amd64-avx2-2", "variant": "f32", "percent": 140}]});
    let node =
        items.iter_mut().find(|item| item["kind"] == "EdgeNode" && item["metadata"]["name"] == "edge-a").unwrap();
    node["status"]["usage"] = json!({"cpuBusyP95": "1100m", "memoryUsed": "1200Mi"});
    node["status"]["profiles"] = json!([{"digest": DIGEST, "variant": "f32", "threads": 1,
        "batches": [{"size": 1, "p50": "400us", "p99": "600us"}]}]);
    let placement = items.iter_mut().find(|item| item["kind"] == "EdgePlacement").unwrap();
    placement["status"]["observed"] = json!({"p50": "900us", "p99": "1200us", "count": 1500, "errors": 2, "rps": "5"});
    let said = plain(explain(&objects_of(items).world(), "vision", "digits", None).unwrap());
    let told = "\
  node edge-a: amd64-avx2-2, 30 GFLOP/s a core, timed when its agent started; others keep 1.1 cores busy (p95 of the last hour)
  speed of f32: measured on the node
  clients of such places wait 140% of what is predicted
  clients waited: p50 0.9 ms, p99 1.2 ms; 1,500 answers, 2 failed within the last 5 minutes
";
    assert!(said.contains(told), "{said}");
}

#[test]
fn what_is_not_there_is_said_with_where_it_may_be() {
    let world = objects().world();
    let said = |namespace: &str, model: &str, site: Option<&str>| {
        explain(&world, namespace, model, site).err().expect("no such thing").to_string()
    };
    assert_eq!(
        said("default", "digits", None),
        "there is no EdgeModel digits in default, but in vision: give -n vision"
    );
    assert_eq!(said("vision", "words", None), "there is no EdgeModel words (kubectl get em -A lists them)");
    assert_eq!(said("vision", "digits", Some("site-x")), "there is no EdgeSite site-x (kubectl get es lists them)");
}

#[test]
fn the_tree_shows_sites_and_what_runs_there() {
    assert_eq!(
        plain(status(&objects().world(), &Selection::default())),
        "\
shops   1 site
└─ site-a   connected   round trip p50 40 ms, p99 41 ms (Measured, 1,300 probes)
   └─ vision/digits   edge/f32 on edge-a   p99 0.82 ms of 25 ms   Starting the pod starts
"
    );
}

#[test]
fn one_fleet_or_model_can_be_asked_for() {
    let world = objects().world();
    let of = |fleet: Option<&str>, model: Option<&str>| {
        let model = model.map(|model| ("vision".to_owned(), model.to_owned()));
        Selection { fleet: fleet.map(Into::into), model }.of(&world)
    };
    let whole = plain(status(&world, &Selection::default()));
    assert_eq!(plain(status(&world, &of(Some("shops"), Some("digits")).unwrap())), whole);
    assert_eq!(
        of(Some("mines"), None).unwrap_err().to_string(),
        "there is no EdgeFleet mines (kubectl get ef lists them)"
    );
    assert_eq!(
        of(None, Some("words")).unwrap_err().to_string(),
        "there is no EdgeModel words (kubectl get em -A lists them)"
    );
}

#[test]
fn a_wider_budget_would_move_the_model_to_the_cloud() {
    let objects = objects();
    let same = objects.with(changes(&manifest("  latencyBudget: 25ms\n  accuracyFloor: 97%\n")).unwrap(), "x").unwrap();
    let said = plain(simulate(&objects.world(), &same.world()).unwrap());
    assert!(said.starts_with("0 of 1 placements would change, 0 would have no place; "), "{said}");

    let wider =
        objects.with(changes(&manifest("  latencyBudget: 900ms\n  accuracyFloor: 97%\n")).unwrap(), "x").unwrap();
    let said = plain(simulate(&objects.world(), &wider.world()).unwrap());
    assert!(said.starts_with("vision/digits   site-a   edge/f32 on edge-a -> cloud/f32   p99 "), "{said}");
    assert!(said.contains("ChosenInCloud\n1 of 1 placements would change, 0 would have no place; "), "{said}");
}

/// What the operator learned stands in the fleet's status, and a manifest of the fleet does not take it away.
#[test]
fn it_is_planned_with_what_the_operator_learned() {
    let p99_of = |percent: i64| {
        let mut items = items();
        items[0]["status"] = json!({"predictionRatios": [
            {"tier": "Edge", "class": "amd64-avx2-2", "variant": "f32", "percent": percent}]});
        let plans = sconce_operator::pass::plans(&objects_of(items).world()).unwrap();
        plans[&("shops".to_owned(), "site-a".to_owned())].placements[0].message.clone()
    };
    let (as_predicted, halved) = (p99_of(100), p99_of(50));
    assert!(!as_predicted.contains("as measured"), "{as_predicted}");
    assert!(halved.contains(" ×0.5 as measured"), "{halved}");
}

#[test]
fn what_would_have_no_place_is_said_with_why() {
    let objects = objects();
    let harder = changes(&manifest("  latencyBudget: 25ms\n  accuracyFloor: 99%\n")).unwrap();
    let said = plain(simulate(&objects.world(), &objects.with(harder, "x").unwrap().world()).unwrap());
    assert!(said.contains("edge/f32 on edge-a -> nowhere"), "{said}");
    assert!(said.contains("NoCandidate: ") && said.contains("f32 has 98.3%, floor 99%"), "{said}");
    assert!(said.contains("1 of 1 placements would change, 1 would have no place; "), "{said}");
}

#[test]
fn an_artifact_that_no_model_has_is_not_planned() {
    let objects = objects();
    let other = manifest("  latencyBudget: 25ms\n").replace("digits:1", "digits:2");
    let said =
        plain(simulate(&objects.world(), &objects.with(changes(&other).unwrap(), "x").unwrap().world()).unwrap());
    assert!(said.contains("? vision/digits: its artifact is not known here"), "{said}");
    // A second model of the same artifact has its facts, in the namespace that is meant where none is named.
    let twin = manifest("  latencyBudget: 900ms\n").replace("name: digits, namespace: vision", "name: twin");
    let said =
        plain(simulate(&objects.world(), &objects.with(changes(&twin).unwrap(), "vision").unwrap().world()).unwrap());
    assert!(said.starts_with("vision/twin   site-a   nowhere -> cloud/f32"), "{said}");
}

#[test]
fn manifests_that_cannot_be_meant_are_refused() {
    let said = |text: &str| format!("{:#}", changes(text).expect_err(text));
    let typo = said(&manifest("  latencyBudget: 25ms\n  accuracyfloor: 97%\n"));
    assert!(typo.ends_with("EdgeModel digits: there is no field spec.accuracyfloor"), "{typo}");
    let lacking = said(&manifest(""));
    assert!(lacking.contains("EdgeModel digits cannot be read: missing field `latencyBudget`"), "{lacking}");
    assert!(said("a: [").contains("is not YAML"));
    assert!(
        said("apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n")
            .starts_with("no EdgeFleet, EdgeSite, EdgeModel or EdgeDataset")
    );
    let unnamed = said(&manifest("  latencyBudget: 25ms\n").replace("{name: digits, namespace: vision}", "{}"));
    assert!(unnamed.ends_with("EdgeModel has no metadata.name"), "{unnamed}");
}

#[test]
fn a_snapshot_is_read_as_it_was_written_and_other_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let list = objects().to_list().unwrap();
    let again = Objects::of_snapshot(&written(&folder, &list)).unwrap();
    assert_eq!(again.to_list().unwrap(), list);
    let said = |text: &str| format!("{:#}", Objects::of_snapshot(&written(&folder, text)).expect_err(text));
    assert!(said("kind: Pod\n").contains("is no snapshot: it has no list `items`"));
    assert!(said("[1, 2]").contains("is no snapshot"));
    assert!(said("a: [").contains("is neither JSON nor YAML"));
}

#[test]
fn one_object_that_cannot_be_read_stops_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut items = items();
    items.push(ours("EdgeModel", json!({"name": "old", "namespace": "vision"}), json!({"fleet": "shops"}), json!({})));
    let objects = Objects::of_snapshot(&written(&folder, &json!({"items": items}).to_string())).unwrap();
    assert_eq!(objects.world().models.len(), 1);
}

#[test]
fn what_is_held_back_is_explained_with_its_numbers() {
    let mut items = items();
    let placement = items.iter_mut().find(|item| item["kind"] == "EdgePlacement").unwrap();
    placement["status"]["decision"]["reason"] = json!("KeptByStability");
    let message = "edge/f32 on edge-a at site-a: …; held: cloud/f32 is better by 75% of the cost; it moves there if that lasts for 5 min";
    placement["status"]["conditions"][1] = condition("Placed", "True", "KeptByStability", message);
    let said = plain(explain(&objects_of(items).world(), "vision", "digits", None).unwrap());
    assert!(said.contains(&format!("  Placed=True KeptByStability: {message}\n")), "{said}");
}
