//! Once Sconce is installed: whether all of it is there, and does its work.

use super::definitions::definitions;
use super::{Asked, Finding};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use sconce_api::condition;
use sconce_operator::observe::{Of, Pod, World, is_ready, survey};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// kubelets renew the lease of their node every 10 s; what a clock may be ahead by, and behind.
const AHEAD_SECONDS: i64 = 5;
const BEHIND_SECONDS: i64 = 60;

pub struct Installed {
    pub definitions: Asked<Vec<CustomResourceDefinition>>,
    /// Deployments of the operator, wherever they are.
    pub operators: Asked<Vec<Deployment>>,
    /// Of the operator, from the same namespace.
    pub lease: Asked<Option<Lease>>,
    /// Names of admission policies that are there, and bound.
    pub policies: Asked<BTreeSet<String>>,
    pub world: Asked<World>,
    /// By node, as the kubelets renew them.
    pub node_leases: Asked<BTreeMap<String, Lease>>,
    /// The API server's clock, and ours.
    pub clocks: Asked<(Timestamp, Timestamp)>,
}

pub fn installed(facts: &Installed) -> Vec<Finding> {
    let now = facts.clocks.as_ref().map(|(server, _)| *server).ok();
    let mut findings = definitions(&facts.definitions);
    findings.extend(operator(&facts.operators, &facts.lease, now));
    findings.push(policies(&facts.policies));
    match &facts.world {
        Ok(world) => {
            let nodes = nodes_of_fleets(world);
            findings.extend(fleets(world, &nodes));
            findings.extend(agents(world, &nodes));
            findings.extend(routers(world, &nodes));
            findings.extend(clocks(&facts.clocks, &facts.node_leases, &nodes));
        }
        Err(why) => {
            findings.push(Finding::failed("fleets", why, "helm install sconce, or ask for the right to list all of it"))
        }
    }
    findings
}

fn operator(operators: &Asked<Vec<Deployment>>, lease: &Asked<Option<Lease>>, now: Option<Timestamp>) -> Vec<Finding> {
    let about = "operator";
    let deployment = match operators.as_deref() {
        Ok([deployment]) => deployment,
        Ok([]) => {
            return vec![Finding::failed(
                about,
                "it is not there",
                "helm install sconce charts/sconce -n sconce-system",
            )];
        }
        Ok(several) => {
            let namespaces: Vec<_> = several.iter().filter_map(|one| one.namespace()).collect();
            let told = format!(
                "there are {}, in {}: each would undo what the other does",
                several.len(),
                namespaces.join(", ")
            );
            return vec![Finding::failed(about, told, "helm uninstall one of them")];
        }
        Err(why) => {
            return vec![Finding::failed(about, format!("it cannot be looked for: {why}"), "kubectl get deploy -A")];
        }
    };
    let namespace = deployment.namespace().unwrap_or_default();
    let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let logs = format!("kubectl logs -n {namespace} deploy/{}", deployment.name_any());
    let mut findings = vec![match ready {
        0 => Finding::failed(
            about,
            "none of its replicas is Ready",
            format!("kubectl describe pods -n {namespace}; {logs}"),
        ),
        ready => Finding::passed(about, format!("{ready} Ready in {namespace}")),
    }];
    if let Some(version) = deployment.labels().get("app.kubernetes.io/version").filter(|version| *version != VERSION) {
        let told = format!("it is of version {version}, and this program of {VERSION}");
        findings.push(Finding::doubtful(about, told, "use the program of the operator's version"));
    }
    findings.push(leads(lease, now, &logs));
    findings
}

fn leads(lease: &Asked<Option<Lease>>, now: Option<Timestamp>, logs: &str) -> Finding {
    let about = "operator";
    let spec = match lease {
        Ok(lease) => lease.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default(),
        Err(why) => {
            return Finding::doubtful(about, format!("its lease cannot be read: {why}"), "kubectl get lease -A");
        }
    };
    let Some(holder) = spec.holder_identity.filter(|holder| !holder.is_empty()) else {
        return Finding::failed(about, "no replica leads, so nothing is decided", logs);
    };
    let age = now.zip(spec.renew_time).map(|(now, renewed)| now.as_second() - renewed.0.as_second());
    let lasts = i64::from(spec.lease_duration_seconds.unwrap_or(15));
    match age {
        Some(age) if age > lasts => Finding::failed(
            about,
            format!("{holder} leads and has not renewed its lease for {age} s, of {lasts}"),
            logs,
        ),
        _ => Finding::passed(about, format!("{holder} leads")),
    }
}

/// Sconce has no webhook that could be out of reach: its rules are policies of the API server's own.
fn policies(there: &Asked<BTreeSet<String>>) -> Finding {
    let (about, name) = ("admission", "node-binding.sconce.dev");
    match there {
        Ok(there) if there.contains(name) => {
            Finding::passed(about, format!("{name} is bound; there is no webhook to be reached"))
        }
        Ok(_) => {
            let told = format!(
                "the policy {name} is not there, or not bound: an agent could write what another node's measured"
            );
            Finding::failed(about, told, "helm upgrade sconce charts/sconce")
        }
        Err(why) => Finding::doubtful(
            about,
            format!("policies cannot be read: {why}"),
            "kubectl get validatingadmissionpolicies",
        ),
    }
}

/// Nodes of all fleets, by name.
fn nodes_of_fleets(world: &World) -> BTreeMap<String, Arc<Node>> {
    let views = survey(world);
    let edge = views.iter().flat_map(|view| view.sites.values()).flat_map(|site| &site.nodes);
    let nodes = edge.chain(views.iter().flat_map(|view| &view.cloud));
    nodes.map(|node| (node.name_any(), Arc::clone(node))).collect()
}

fn fleets(world: &World, nodes: &BTreeMap<String, Arc<Node>>) -> Vec<Finding> {
    let about = "fleets";
    if world.fleets.is_empty() {
        return vec![Finding::doubtful(
            about,
            "there is no EdgeFleet yet",
            "kubectl apply -f fleet.yaml, as in examples/digits",
        )];
    }
    let mut findings = vec![Finding::passed(about, format!("{} with {} nodes", world.fleets.len(), nodes.len()))];
    for fleet in world.fleets.values() {
        let conditions = fleet.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let name = fleet.name_any();
        match condition(conditions, "Ready") {
            Some(ready) if ready.status == "True" => {}
            Some(ready) => {
                let told = format!("{name} is not Ready: {}: {}", ready.reason, ready.message);
                findings.push(Finding::failed(about, told, format!("kubectl describe ef {name}")));
            }
            None => {
                let told = format!("{name} has no status: no operator has seen it");
                findings.push(Finding::failed(about, told, "see what is said of the operator"));
            }
        }
    }
    findings
}

fn agents(world: &World, nodes: &BTreeMap<String, Arc<Node>>) -> Vec<Finding> {
    let about = "agents";
    let of = |node: &String| {
        let pods = format!("kubectl get pods -n sconce-node --field-selector spec.nodeName={node}");
        let Some(seen) = world.edge_nodes.get(&(String::new(), node.clone())) else {
            return Some(Finding::failed(
                about,
                format!("{node} has no EdgeNode: its agent does not run, or reaches nothing"),
                pods,
            ));
        };
        let conditions = seen.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        match condition(conditions, "Ready") {
            Some(ready) if ready.status == "True" => None,
            // It takes its time after a start.
            Some(ready) if ready.reason == "Probing" => {
                Some(Finding::doubtful(about, format!("{node}: {}", ready.message), "ask again in a minute"))
            }
            Some(ready) => Some(Finding::failed(about, format!("{node}: {}: {}", ready.reason, ready.message), pods)),
            None => Some(Finding::failed(about, format!("{node}'s agent has said nothing yet"), pods)),
        }
    };
    all_or(about, nodes.keys().filter_map(of).collect(), format!("{} have measured their nodes", nodes.len()))
}

fn routers(world: &World, nodes: &BTreeMap<String, Arc<Node>>) -> Vec<Finding> {
    let about = "routers";
    let of = |(name, node): (&String, &Arc<Node>)| {
        if !is_ready(node) {
            let told = format!("{name} is not Ready, so nobody knows of its router");
            return Some(Finding::doubtful(about, told, format!("kubectl describe node {name}")));
        }
        let mut pods = world.other_pods.get(name).into_iter().flatten();
        if pods.any(is_answering_router) {
            return None;
        }
        let next = format!(
            "kubectl logs -n sconce-node -c router --tail 20 $(kubectl get pods -n sconce-node -o name --field-selector spec.nodeName={name})"
        );
        Some(Finding::failed(
            about,
            format!("none answers on {name}: clients there are told that nothing serves"),
            next,
        ))
    };
    all_or(about, nodes.iter().filter_map(of).collect(), format!("{} answer", nodes.len()))
}

/// Whether it is a router that answers, as its kubelet's probe says.
fn is_answering_router(pod: &Arc<Pod>) -> bool {
    matches!(&pod.of, Of::Others { app: Some(app), ready_containers }
        if app == "sconce-node" && ready_containers.iter().any(|name| name == "router"))
}

fn clocks(
    clocks: &Asked<(Timestamp, Timestamp)>,
    leases: &Asked<BTreeMap<String, Lease>>,
    nodes: &BTreeMap<String, Arc<Node>>,
) -> Vec<Finding> {
    let about = "clocks";
    let (now, leases) = match (clocks, leases) {
        (Ok((server, _)), Ok(leases)) => (*server, leases),
        (Err(why), _) | (_, Err(why)) => {
            return vec![Finding::doubtful(
                about,
                format!("they cannot be compared: {why}"),
                "kubectl get lease -n kube-node-lease",
            )];
        }
    };
    let of = |(name, node): (&String, &Arc<Node>)| {
        let renewed = leases.get(name)?.spec.as_ref()?.renew_time.as_ref()?.0;
        let off = renewed.as_second() - now.as_second();
        let next = format!("set the clock of {name} by NTP: timedatectl set-ntp true");
        if off > AHEAD_SECONDS {
            return Some(Finding::failed(about, format!("{name} is {off} s ahead of the API server"), next));
        }
        let late = off < -BEHIND_SECONDS && is_ready(node);
        late.then(|| Finding::failed(about, format!("{name} is {} s behind the API server, or as late", -off), next))
    };
    let mut findings: Vec<_> = nodes.iter().filter_map(of).collect();
    if let Ok((server, here)) = clocks {
        let off = here.as_second() - server.as_second();
        if off.abs() > BEHIND_SECONDS {
            let told =
                format!("this machine is {off} s off the API server: ages and certificates look wrong from here");
            findings.push(Finding::doubtful(about, told, "set this machine's clock by NTP"));
        }
    }
    all_or(about, findings, format!("those of {} nodes agree with the API server's", nodes.len()))
}

/// That all is well, unless something failed or is doubtful.
fn all_or(about: &'static str, findings: Vec<Finding>, good: String) -> Vec<Finding> {
    if findings.is_empty() { vec![Finding::passed(about, good)] } else { findings }
}
