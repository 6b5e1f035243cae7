//! What datasets say of themselves: a sum over what nodes have told. A loop of its own beside the hall: no decision needs it, and it
//! needs none.

use crate::status::{Claim, conditions};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use kube_runtime::reflector::Store;
use sconce_api::{EdgeDataset, EdgeDatasetStatus, EdgeNode, Reason};
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const MANAGER: &str = "sconce-operator/dataset";
/// Nodes tell no more often.
const PACE: Duration = Duration::from_secs(60);

/// Keeps the status of every dataset until told to stop.
pub async fn keep(client: Client, nodes: Store<EdgeNode>, stop: CancellationToken) {
    loop {
        let passed = tokio::select! {
            () = stop.cancelled() => return,
            passed = pass(&client, &nodes) => passed,
        };
        if let Err(error) = passed {
            tracing::warn!(error = &error as &dyn std::error::Error, "datasets say nothing new");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PACE) => {}
        }
    }
}

async fn pass(client: &Client, nodes: &Store<EdgeNode>) -> kube::Result<()> {
    let nodes = nodes.state();
    for dataset in Api::<EdgeDataset>::all(client.clone()).list(&ListParams::default()).await? {
        let nodes = nodes.iter().map(AsRef::as_ref);
        let Some(status) = status(&dataset, nodes, Timestamp::now()) else { continue };
        let api = Api::<EdgeDataset>::namespaced(client.clone(), &dataset.namespace().unwrap_or_default());
        let body = json!({"apiVersion": EdgeDataset::api_version(&()), "kind": EdgeDataset::kind(&()), "status": status});
        api.patch_status(&dataset.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(&body)).await?;
    }
    Ok(())
}

/// The status to write, or `None` if it says so already. Pure.
fn status<'a>(
    dataset: &EdgeDataset,
    nodes: impl Iterator<Item = &'a EdgeNode>,
    now: Timestamp,
) -> Option<EdgeDatasetStatus> {
    let (namespace, name) = (dataset.namespace().unwrap_or_default(), dataset.name_any());
    let old = dataset.status.clone().unwrap_or_default();
    let mut new = EdgeDatasetStatus { observed_generation: dataset.metadata.generation, ..Default::default() };
    let told = nodes.filter_map(|node| node.status.as_ref()).flat_map(|status| &status.collect);
    for row in told.filter(|row| row.namespace == namespace && row.name == name) {
        new.nodes += 1;
        new.samples = new.samples.saturating_add(row.sent);
        new.held = new.held.saturating_add(row.held);
        new.dropped = row.dropped.values().fold(new.dropped, |sum, count| sum.saturating_add(*count));
    }
    new.last_arrival = if new.samples > old.samples { Some(Time(now)) } else { old.last_arrival.clone() };
    let ready = if new.nodes > 0 {
        Claim::new("Ready", true, Reason::Ready, format!("{} nodes collect; {} samples have arrived", new.nodes, new.samples))
    } else {
        let message = "no node has told that it collects; is node.collector.enabled, and does a site of the fleet match?";
        Claim::new("Ready", false, Reason::NotCollected, message)
    };
    new.conditions = conditions(vec![ready], &old.conditions, dataset.metadata.generation, now);
    (new != old).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn dataset(status: Option<&EdgeDatasetStatus>) -> EdgeDataset {
        serde_json::from_value(json!({
            "apiVersion": "sconce.dev/v1alpha1", "kind": "EdgeDataset",
            "metadata": {"name": "digits", "namespace": "vision", "generation": 2},
            "spec": {"fleetRef": {"name": "shops"}, "uri": "s3://lake/digits", "kind": "Image", "privacy": {"policy": "Raw"}},
            "status": status,
        }))
        .unwrap()
    }

    fn node(collect: Value) -> EdgeNode {
        serde_json::from_value(json!({
            "apiVersion": "sconce.dev/v1alpha1", "kind": "EdgeNode", "metadata": {"name": "n"}, "spec": {},
            "status": {"collect": collect},
        }))
        .unwrap()
    }

    fn row(namespace: &str, sent: i64, held: i64) -> Value {
        json!({"namespace": namespace, "name": "digits", "held": held, "heldBytes": 7, "sent": sent, "dropped": {"Full": 2, "Busy": 1}})
    }

    #[test]
    fn a_dataset_says_what_its_nodes_have_told_and_nothing_twice() {
        let (then, now) = (Timestamp::from_second(100).unwrap(), Timestamp::from_second(200).unwrap());
        let nodes = [node(json!([row("vision", 10, 1)])), node(json!([row("vision", 5, 0), row("other", 9, 9)])), node(json!([]))];
        let first = status(&dataset(None), nodes.iter(), then).unwrap();
        assert_eq!((first.samples, first.held, first.dropped, first.nodes), (15, 1, 6, 2));
        assert_eq!((first.last_arrival.clone(), first.conditions[0].status.as_str()), (Some(Time(then)), "True"));
        assert_eq!(status(&dataset(Some(&first)), nodes.iter(), now), None);
        let fewer = status(&dataset(Some(&first)), nodes[1..].iter(), now).unwrap();
        assert_eq!((fewer.samples, fewer.last_arrival), (5, Some(Time(then))), "a node that is gone takes its counts along");
        let none = status(&dataset(None), [].into_iter(), now).unwrap();
        assert_eq!((none.conditions[0].status.as_str(), none.conditions[0].reason.as_str()), ("False", "NotCollected"));
    }
}
