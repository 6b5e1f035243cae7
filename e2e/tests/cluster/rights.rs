//! RBAC is sufficient: no refusal of ours in the audit log.
//!
//! Runs last (`z_`): the log then holds what the whole suite has done.

use crate::suite::bed;
use anyhow::{Context as _, Result};
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

#[tokio::test]
async fn z_rights_are_sufficient() -> Result<()> {
    bed().await?;
    let (done, refused) = audited()?;
    assert!(refused.is_empty(), "refused: {refused:#?}");
    for account in ACCOUNTS {
        assert!(done.iter().any(|(user, ..)| user == account), "{account} did nothing: is it the right name?");
    }
    Ok(())
}
