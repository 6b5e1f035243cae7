//! RBAC is sufficient and necessary: the audit log holds no refusal of ours, and a use of each right that the chart grants.
//!
//! Scenes run by name, so this one last: the log then holds what the whole suite has done.

use crate::suite::bed;
use anyhow::{Context as _, Result};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::Api;
use sconce_e2e::Spec;
use serde_json::Value;
use std::collections::BTreeSet;

/// Each account with the ClusterRole that the chart gives it.
const ACCOUNTS: [(&str, &str); 2] = [
    ("system:serviceaccount:sconce-system:sconce-operator", "sconce-operator"),
    ("system:serviceaccount:sconce-node:sconce-agent", "sconce-agent"),
];

/// What a right that is off by default is for: the scene of private models asks without it first, and is told so.
const ASKED_FOR: &str = "get /secrets";

/// Not in the audit log.
const UNLOGGED: &str = "events.k8s.io/events";

/// `VERB GROUP/RESOURCE`
type Right = (String, String);

#[derive(Default)]
struct Audit {
    used: BTreeSet<Right>,
    refused: Vec<String>,
}

/// What the log says of one account.
fn audit(log: &str, account: &str) -> Audit {
    let mut audit = Audit::default();
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    for event in events.filter(|event| event["user"]["username"] == account) {
        let target = &event["objectRef"];
        let text = |field: &str| target[field].as_str().unwrap_or_default();
        let part = target["subresource"].as_str().map(|part| format!("/{part}")).unwrap_or_default();
        let resource = format!("{}/{}{part}", text("apiGroup"), text("resource"));
        let verb = event["verb"].as_str().unwrap_or_default();
        match event["responseStatus"]["code"].as_u64() {
            Some(403) if format!("{verb} {resource}") == ASKED_FOR => {}
            Some(403) => audit.refused.push(format!("{verb} {resource}: {}", event["responseStatus"]["message"])),
            // An apply that makes an object is logged as a patch, and needs both.
            Some(201) if verb == "patch" => audit.used.extend([("create".to_owned(), resource.clone())]),
            _ => {}
        }
        audit.used.insert((verb.to_owned(), resource));
    }
    audit
}

fn granted(role: &ClusterRole) -> BTreeSet<Right> {
    let mut granted = BTreeSet::new();
    for rule in role.rules.iter().flatten() {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                granted.extend(rule.verbs.iter().map(|verb| (verb.clone(), format!("{group}/{resource}"))));
            }
        }
    }
    granted
}

#[tokio::test]
async fn rights_are_sufficient_and_necessary() -> Result<()> {
    let bed = bed().await?;
    let file = Spec::TEST.folder().join("cp/audit.log");
    let log = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let roles: Api<ClusterRole> = Api::all(bed.client.clone());
    for (account, role) in ACCOUNTS {
        let Audit { used, refused } = audit(&log, account);
        assert!(refused.is_empty(), "refused to {account}: {refused:#?}");
        assert!(!used.is_empty(), "{account} did nothing: is it the right name?");
        let granted = granted(&roles.get(role).await?);
        let idle: Vec<_> = granted.difference(&used).filter(|(_, resource)| resource != UNLOGGED).collect();
        assert!(idle.is_empty(), "{role} grants what nobody used: {idle:#?}");
    }
    Ok(())
}
