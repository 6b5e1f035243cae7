//! RBAC is sufficient and necessary: no refusal in the audit log, and no right that nobody used.
//!
//! Runs last (`z_`): the log then holds what the whole suite has done.

use crate::suite::bed;
use anyhow::{Context as _, Result};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::api::{Api, ListParams};
use sconce_e2e::Spec;
use serde_json::Value;
use std::collections::BTreeSet;

const ACCOUNTS: [&str; 2] =
    ["system:serviceaccount:sconce-system:sconce-operator", "system:serviceaccount:sconce-node:sconce-agent"];

/// `ACCOUNT VERB GROUP/RESOURCE`
type Act = (String, String, String);

fn audited() -> Result<(BTreeSet<Act>, Vec<String>)> {
    let file = Spec::TEST.folder().join("cp/audit.log");
    let log = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let (mut done, mut refused) = (BTreeSet::new(), Vec::new());
    for line in log.lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let user = event["user"]["username"].as_str().unwrap_or_default();
        if !ACCOUNTS.contains(&user) {
            continue;
        }
        let target = &event["objectRef"];
        let mut resource = format!(
            "{}/{}",
            target["apiGroup"].as_str().unwrap_or_default(),
            target["resource"].as_str().unwrap_or_default()
        );
        if let Some(part) = target["subresource"].as_str() {
            resource = format!("{resource}/{part}");
        }
        let act = (user.to_owned(), event["verb"].as_str().unwrap_or_default().to_owned(), resource);
        if event["responseStatus"]["code"] == 403 {
            refused.push(format!("{act:?}: {}", event["responseStatus"]["message"]));
        }
        done.insert(act);
    }
    Ok((done, refused))
}

fn granted(account: &str, rules: Option<Vec<PolicyRule>>) -> BTreeSet<Act> {
    let mut acts = BTreeSet::new();
    for rule in rules.unwrap_or_default() {
        for group in rule.api_groups.unwrap_or_default() {
            for resource in rule.resources.clone().unwrap_or_default() {
                for verb in &rule.verbs {
                    acts.insert((account.to_owned(), verb.clone(), format!("{group}/{resource}")));
                }
            }
        }
    }
    acts
}

#[tokio::test]
async fn z_rights_are_sufficient_and_necessary() -> Result<()> {
    let bed = bed().await?;
    let (done, refused) = audited()?;
    assert!(refused.is_empty(), "refused: {refused:#?}");
    let roles: Api<ClusterRole> = Api::all(bed.client.clone());
    let mut rights = BTreeSet::new();
    for (account, role) in [(ACCOUNTS[0], "sconce-operator"), (ACCOUNTS[1], "sconce-agent")] {
        rights.extend(granted(account, roles.get(role).await?.rules));
    }
    let local: Api<Role> = Api::namespaced(bed.client.clone(), "sconce-system");
    for role in local.list(&ListParams::default()).await? {
        rights.extend(granted(ACCOUNTS[0], role.rules));
    }
    assert!(!rights.is_empty(), "the chart's roles were not found");
    let unused: Vec<&Act> = rights.difference(&done).collect();
    assert!(unused.is_empty(), "granted and never used: {unused:#?}");
    Ok(())
}
