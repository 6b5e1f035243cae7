use super::before::{Before, RIGHTS};
use super::installed::Installed;
use super::*;
use crate::tests::{cluster, condition, forbidden, items, objects_of};
use axum::response::IntoResponse as _;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn of<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn plain(findings: Vec<Finding>) -> String {
    anstream::adapter::strip_str(&Report::new(findings).to_string()).to_string()
}

fn node(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
}

/// A cluster that Sconce can be installed to.
fn ready_for_it() -> Before {
    Before {
        version: Ok(of(
            json!({"major": "1", "minor": "35", "gitVersion": "v1.35.2", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
        )),
        rights: RIGHTS.into_iter().map(|right| (right, Ok(true))).collect(),
        definitions: sconce_api::crds().iter().map(|crd| (crd.metadata.name.clone().unwrap(), Ok(()))).collect(),
        nodes: Ok(vec![
            of(node("gw-a", json!({"sconce.dev/tier": "edge", "topology.kubernetes.io/zone": "a"}))),
            of(node("dc-1", json!({"sconce.dev/tier": "cloud"}))),
        ]),
        artifact: Some(Ok("oci://r/digits:1 is sha256:12, with f32, int8".into())),
    }
}

#[test]
fn a_cluster_that_is_ready_for_it_passes() {
    assert_eq!(
        plain(before(&ready_for_it())),
        "\
kubernetes
  ✓ v1.35.2, at least v1.32 is needed
rights
  ✓ may create customresourcedefinitions
  ✓ may create clusterroles
  ✓ may create clusterrolebindings
  ✓ may create validatingadmissionpolicies
  ✓ may create namespaces
  ✓ may create deployments in sconce-system
  ✓ may create daemonsets in sconce-node
definitions
  ✓ the API server would take all 8 custom resource definitions
nodes
  ✓ 1 at the edge, 1 in the cloud
registry
  ✓ oci://r/digits:1 is sha256:12, with f32, int8
0 of 11 checks failed
"
    );
}

/// Of these findings one is not as it should be, and names its cause and what to do.
fn the_only_one(findings: &[Finding], cause: &str, next: &str) {
    let bad: Vec<_> = findings.iter().filter(|finding| finding.outcome != Outcome::Passed).collect();
    let [finding] = &bad[..] else { panic!("{cause}: {bad:#?}") };
    let told = finding.next.clone().unwrap_or_default();
    assert!(finding.message.contains(cause) && told.contains(next), "{finding:#?}");
}

#[test]
fn each_failure_before_names_its_cause_and_what_to_do() {
    let check = |spoil: fn(&mut Before), cause: &str, next: &str| {
        let mut facts = ready_for_it();
        spoil(&mut facts);
        the_only_one(&before(&facts), cause, next);
    };
    check(
        |facts| facts.version.as_mut().unwrap().minor = "31+".into(),
        "v1.35.2 is older than v1.32",
        "upgrade the cluster",
    );
    check(|facts| facts.version = Err("refused".into()), "does not tell its version: refused", "kubectl version");
    check(
        |facts| facts.rights[0].1 = Ok(false),
        "may not create customresourcedefinitions",
        "kubectl auth can-i create customresourcedefinitions.apiextensions.k8s.io",
    );
    check(
        |facts| facts.rights[5].1 = Err("no".into()),
        "deployments in sconce-system may be created: no",
        "-n sconce-system",
    );
    check(
        |facts| facts.definitions[2].1 = Err("bad rule".into()),
        "would not take edgenodes.sconce.dev: bad rule",
        "helm upgrade",
    );
    check(
        |facts| facts.nodes = Ok(vec![of(node("dc-1", json!({"sconce.dev/tier": "cloud"})))]),
        "none of 1 nodes is labelled sconce.dev/tier=edge",
        "kubectl label node NODE sconce.dev/tier=edge topology.kubernetes.io/zone=SITE",
    );
    check(
        |facts| facts.nodes.as_mut().unwrap().truncate(1),
        "no node is labelled sconce.dev/tier=cloud",
        "kubectl label node NODE sconce.dev/tier=cloud",
    );
    check(
        |facts| facts.nodes.as_mut().unwrap().push(of(node("gw-b", json!({"sconce.dev/tier": "edge"})))),
        "gw-b is at the edge and no label topology.kubernetes.io/zone",
        "kubectl label node gw-b topology.kubernetes.io/zone=SITE",
    );
    check(|facts| facts.artifact = Some(Err("it is down".into())), "it is down", "oras manifest fetch");
    check(|facts| facts.artifact = None, "no registry was asked", "--artifact oci://");
}

const NOW: &str = "2026-11-24T09:00:00Z";

fn lease(name: &str, renewed: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"holderIdentity": name, "leaseDurationSeconds": 15, "renewTime": renewed}})
}

/// As the cluster of `items`, with all of Sconce there.
fn whole() -> Installed {
    let mut items = items();
    for item in &mut items {
        let good = json!([condition("Ready", "True", "Ready", "all is well")]);
        match item["kind"].as_str().unwrap() {
            "EdgeFleet" | "EdgeNode" => item["status"]["conditions"] = good,
            _ => {}
        }
    }
    for name in ["cloud-1", "edge-a"] {
        items.push(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("node-{name}"), "namespace": "sconce-node", "labels": {"app.kubernetes.io/name": "sconce-node"}},
            "spec": {"nodeName": name, "containers": []},
            "status": {"containerStatuses": [
                {"name": "router", "ready": true, "image": "", "imageID": "", "restartCount": 0}]}}));
    }
    let established = |mut crd: Value| {
        crd["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
        // What an API server adds.
        crd["spec"]["conversion"] = json!({"strategy": "None"});
        of(crd)
    };
    let now: Timestamp = NOW.parse().unwrap();
    Installed {
        definitions: Ok(sconce_api::crds().iter().map(|crd| established(json!(crd))).collect()),
        operators: Ok(vec![of(json!({
            "metadata": {"name": "sconce-operator", "namespace": "sconce-system",
                "labels": {"app.kubernetes.io/version": env!("CARGO_PKG_VERSION")}},
            "status": {"readyReplicas": 1}}))]),
        lease: Ok(Some(of(lease("operator-1", "2026-11-24T08:59:50.000000Z")))),
        policies: Ok(["node-binding.sconce.dev".to_owned()].into()),
        world: Ok(objects_of(items).world()),
        node_leases: Ok(["cloud-1", "edge-a"]
            .map(|name| (name.to_owned(), of(lease(name, "2026-11-24T08:59:52.000000Z"))))
            .into()),
        clocks: Ok((now, now)),
    }
}

#[test]
fn an_installation_that_is_whole_passes() {
    assert_eq!(
        plain(installed(&whole())),
        "\
definitions
  ✓ all 8 are there, and of this version
operator
  ✓ 1 Ready in sconce-system
  ✓ operator-1 leads
admission
  ✓ node-binding.sconce.dev is bound; there is no webhook to be reached
fleets
  ✓ 1 with 2 nodes
agents
  ✓ 2 have measured their nodes
routers
  ✓ 2 answer
clocks
  ✓ those of 2 nodes agree with the API server's
0 of 8 checks failed
"
    );
}

#[test]
fn each_failure_after_names_its_cause_and_what_to_do() {
    let check = |spoil: &dyn Fn(&mut Installed), cause: &str, next: &str| {
        let mut facts = whole();
        spoil(&mut facts);
        the_only_one(&installed(&facts), cause, next);
    };
    let world = |facts: &mut Installed| facts.world.clone().unwrap();
    check(
        &|facts| drop(facts.definitions.as_mut().unwrap().remove(1)),
        "edgesites.sconce.dev is not there",
        "helm install",
    );
    check(
        &|facts| {
            let theirs = &mut facts.definitions.as_mut().unwrap()[0];
            theirs.spec.versions[0].schema = None;
        },
        "edgefleets.sconce.dev is another version's: versions[0].schema",
        "helm upgrade",
    );
    check(
        &|facts| facts.definitions.as_mut().unwrap()[3].status = None,
        "does not serve edgemodels.sconce.dev yet",
        "kubectl describe crd edgemodels.sconce.dev",
    );
    check(&|facts| facts.operators = Ok(vec![]), "it is not there", "helm install");
    check(
        &|facts| facts.operators.as_mut().unwrap()[0].status = None,
        "none of its replicas is Ready",
        "kubectl logs -n sconce-system deploy/sconce-operator",
    );
    check(
        &|facts| {
            let twin = facts.operators.as_ref().unwrap()[0].clone();
            facts.operators.as_mut().unwrap().push(twin);
        },
        "there are 2, in sconce-system, sconce-system",
        "helm uninstall",
    );
    check(&|facts| facts.lease = Ok(None), "no replica leads", "kubectl logs");
    check(
        &|facts| facts.lease = Ok(Some(of(lease("operator-1", "2026-11-24T08:59:00.000000Z")))),
        "has not renewed its lease for 60 s, of 15",
        "kubectl logs",
    );
    check(
        &|facts| facts.policies = Ok([].into()),
        "node-binding.sconce.dev is not there, or not bound",
        "helm upgrade",
    );
    check(&|facts| facts.world = Err("listing edgefleets: no".into()), "listing edgefleets: no", "helm install");
    let key = |name: &str| (String::new(), name.to_owned());
    check(
        &|facts| {
            let mut world = world(facts);
            world.edge_nodes.remove(&key("edge-a"));
            facts.world = Ok(world);
        },
        "edge-a has no EdgeNode",
        "kubectl get pods -n sconce-node --field-selector spec.nodeName=edge-a",
    );
    check(
        &|facts| {
            let mut world = world(facts);
            world.other_pods.remove("edge-a");
            facts.world = Ok(world);
        },
        "none answers on edge-a",
        "kubectl logs -n sconce-node -c router",
    );
    check(
        &|facts| {
            facts
                .node_leases
                .as_mut()
                .unwrap()
                .extend([("edge-a".into(), of(lease("edge-a", "2026-11-24T09:00:42.000000Z")))])
        },
        "edge-a is 42 s ahead of the API server",
        "timedatectl",
    );
    check(
        &|facts| {
            facts
                .node_leases
                .as_mut()
                .unwrap()
                .extend([("edge-a".into(), of(lease("edge-a", "2026-11-24T08:55:00.000000Z")))])
        },
        "edge-a is 300 s behind the API server",
        "timedatectl",
    );
    check(
        &|facts| facts.clocks = Ok((NOW.parse().unwrap(), "2026-11-24T10:00:00Z".parse().unwrap())),
        "this machine is 3600 s off",
        "NTP",
    );
    check(&|facts| facts.clocks = Err("no date".into()), "they cannot be compared: no date", "kubectl get lease");
}

#[test]
fn programs_read_what_failed() {
    let mut facts = ready_for_it();
    facts.rights[0].1 = Ok(false);
    let report = Report::new(before(&facts));
    assert!(!report.is_good());
    let told = json!(report);
    assert_eq!((&told["failed"], &told["findings"][1]["outcome"]), (&json!(1), &json!("Failed")));
    assert_eq!(told["findings"][0]["next"], Value::Null);
}

#[tokio::test]
async fn a_cluster_that_forbids_everything_fails_with_what_it_says() {
    let client = cluster(async |_| forbidden()).await;
    let facts = ask_before(&client, None, &[]).await;
    assert!(facts.rights.iter().all(|(_, allowed)| *allowed == Err("you may not".into())));
    let told = plain(before(&facts));
    assert!(told.contains("✗ nodes cannot be listed: you may not\n    next: kubectl get nodes"), "{told}");
    let facts = ask_installed(&client).await;
    // Whatever an API server answers, it dates it.
    let (server, here) = facts.clocks.clone().unwrap();
    assert!((server.as_second() - here.as_second()).abs() < 60, "{server} {here}");
    let told = plain(installed(&facts));
    assert!(told.contains("✗ they cannot be read: you may not") && told.contains("✗ listing edgefleets"), "{told}");
}

#[tokio::test]
async fn what_is_asked_is_what_an_api_server_has() {
    // Named as Kubernetes' own documents name it; everything else is forbidden.
    let client = cluster(async |uri| {
        let body = match uri.path() {
            "/version" => {
                json!({"major": "1", "minor": "35", "gitVersion": "v1.35.0", "gitCommit": "", "gitTreeState": "",
                "buildDate": "", "goVersion": "", "compiler": "", "platform": ""})
            }
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => json!({"apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview", "metadata": {}, "spec": {}, "status": {"allowed": true}}),
            "/api/v1/nodes" => json!({"apiVersion": "v1", "kind": "NodeList", "metadata": {},
                "items": [node("dc-1", json!({"sconce.dev/tier": "cloud"}))]}),
            path if path.starts_with("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/")
                && uri.query().is_some_and(|query| query.contains("dryRun=All")) =>
            {
                json!(sconce_api::crds()[0])
            }
            _ => return forbidden(),
        };
        body.to_string().into_response()
    })
    .await;
    let told = plain(before(&ask_before(&client, None, &[]).await));
    assert!(
        told.contains("would take all 8") && told.contains("✓ v1.35.0") && told.ends_with("1 of 11 checks failed\n"),
        "{told}"
    );
}
