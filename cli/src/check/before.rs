//! Before Sconce is installed: whether it can be.

use super::{Asked, Finding};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::ResourceExt as _;
use sconce_api::labels;

/// As the chart's `kubeVersion` has it.
const MINOR: u32 = 32;
const ZONE: &str = "topology.kubernetes.io/zone";

/// A right to make objects of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    pub group: &'static str,
    pub resource: &'static str,
    pub namespace: &'static str,
}

/// What an installation makes first, and what needs the most rights.
pub const RIGHTS: [Right; 7] = [
    Right { group: "apiextensions.k8s.io", resource: "customresourcedefinitions", namespace: "" },
    Right { group: "rbac.authorization.k8s.io", resource: "clusterroles", namespace: "" },
    Right { group: "rbac.authorization.k8s.io", resource: "clusterrolebindings", namespace: "" },
    Right { group: "admissionregistration.k8s.io", resource: "validatingadmissionpolicies", namespace: "" },
    Right { group: "", resource: "namespaces", namespace: "" },
    Right { group: "apps", resource: "deployments", namespace: "sconce-system" },
    Right { group: "apps", resource: "daemonsets", namespace: "sconce-node" },
];

pub struct Before {
    pub version: Asked<Info>,
    pub rights: Vec<(Right, Asked<bool>)>,
    /// Whether the API server would take each definition, by its name.
    pub definitions: Vec<(String, Asked<()>)>,
    pub nodes: Asked<Vec<Node>>,
    /// What the registry says of an artifact, if one was named.
    pub artifact: Option<Asked<String>>,
}

pub fn before(facts: &Before) -> Vec<Finding> {
    let mut findings = vec![kubernetes(&facts.version)];
    findings.extend(facts.rights.iter().map(|(right, allowed)| may(right, allowed)));
    findings.extend(definitions(&facts.definitions));
    findings.extend(nodes(&facts.nodes));
    findings.push(registry(facts.artifact.as_ref()));
    findings
}

fn kubernetes(version: &Asked<Info>) -> Finding {
    let about = "kubernetes";
    let version = match version {
        Ok(version) => version,
        Err(why) => {
            return Finding::failed(
                about,
                format!("the API server does not tell its version: {why}"),
                "kubectl version",
            );
        }
    };
    // Some write `32+`.
    let number = |text: &str| text.trim_end_matches('+').parse::<u32>().unwrap_or(0);
    let told = &version.git_version;
    if (number(&version.major), number(&version.minor)) >= (1, MINOR) {
        Finding::passed(about, format!("{told}, at least v1.{MINOR} is needed"))
    } else {
        let next = "upgrade the cluster, one minor version after the other";
        Finding::failed(about, format!("{told} is older than v1.{MINOR}, which Sconce's admission policies need"), next)
    }
}

fn may(right: &Right, allowed: &Asked<bool>) -> Finding {
    let Right { resource, namespace, group } = right;
    let place = if namespace.is_empty() { String::new() } else { format!(" in {namespace}") };
    let kind = if group.is_empty() { (*resource).to_owned() } else { format!("{resource}.{group}") };
    let within = if namespace.is_empty() { String::new() } else { format!(" -n {namespace}") };
    let next =
        format!("install as a cluster administrator; kubectl auth can-i create {kind}{within} tells whether one is");
    match allowed {
        Ok(true) => Finding::passed("rights", format!("may create {resource}{place}")),
        Ok(false) => Finding::failed("rights", format!("may not create {resource}{place}"), next),
        Err(why) => Finding::failed("rights", format!("unknown whether {resource}{place} may be created: {why}"), next),
    }
}

fn definitions(definitions: &[(String, Asked<()>)]) -> Vec<Finding> {
    let refused = definitions.iter().filter_map(|(name, answer)| Some((name, answer.as_ref().err()?)));
    let next =
        "if another version of Sconce is there, upgrade that: helm upgrade sconce; else install as an administrator";
    let findings: Vec<_> = refused
        .map(|(name, why)| Finding::failed("definitions", format!("the API server would not take {name}: {why}"), next))
        .collect();
    if findings.is_empty() {
        let told = format!("the API server would take all {} custom resource definitions", definitions.len());
        return vec![Finding::passed("definitions", told)];
    }
    findings
}

/// By the labels of the README; a fleet may select others.
fn nodes(nodes: &Asked<Vec<Node>>) -> Vec<Finding> {
    let about = "nodes";
    let nodes = match nodes {
        Ok(nodes) => nodes,
        Err(why) => return vec![Finding::failed(about, format!("nodes cannot be listed: {why}"), "kubectl get nodes")],
    };
    let of_tier = |tier: &str| {
        nodes.iter().filter(move |node| node.labels().get(labels::TIER).is_some_and(|is| is == tier)).collect()
    };
    let (edge, cloud): (Vec<&Node>, Vec<&Node>) = (of_tier("edge"), of_tier("cloud"));
    let mut findings = Vec::new();
    if edge.is_empty() {
        let told =
            format!("none of {} nodes is labelled {}=edge, so a fleet would have no sites", nodes.len(), labels::TIER);
        let next = format!("kubectl label node NODE {}=edge {ZONE}=SITE", labels::TIER);
        findings.push(Finding::failed(about, told, next));
    } else {
        findings.push(Finding::passed(about, format!("{} at the edge, {} in the cloud", edge.len(), cloud.len())));
    }
    if cloud.is_empty() {
        let told = format!(
            "no node is labelled {}=cloud: nothing can be served from the cloud, and no link measured",
            labels::TIER
        );
        findings.push(Finding::doubtful(about, told, format!("kubectl label node NODE {}=cloud", labels::TIER)));
    }
    for node in edge.iter().filter(|node| node.labels().get(ZONE).is_none_or(String::is_empty)) {
        let name = node.name_any();
        let next = format!("kubectl label node {name} {ZONE}=SITE");
        findings.push(Finding::failed(
            about,
            format!("{name} is at the edge and no label {ZONE} says at which site"),
            next,
        ));
    }
    findings
}

fn registry(artifact: Option<&Asked<String>>) -> Finding {
    match artifact {
        Some(Ok(told)) => Finding::passed("registry", told),
        Some(Err(why)) => {
            Finding::failed("registry", why, "oras manifest fetch HOST/REPOSITORY:TAG shows what the registry says")
        }
        None => Finding::doubtful(
            "registry",
            "no registry was asked",
            "sconce check --pre --artifact oci://HOST/REPOSITORY:TAG",
        ),
    }
}
