//! What datasets say of themselves: a sum over what nodes have told. A loop of its own beside the hall: it needs no decision, and
//! what it says wakes those that need it.

use crate::observe::Stores;
use crate::status::{Claim, conditions};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use sconce_api::{EdgeDataset, EdgeDatasetStatus, EdgeNode, Reason, condition};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const MANAGER: &str = "sconce-operator/dataset";
/// Nodes tell one after the other: what they tell within so long is told together.
const GATHER: Duration = Duration::from_secs(2);
/// Numbers that grow are told so often; what is new at once.
const PACE: Duration = Duration::from_secs(60);

/// Keeps the status of every dataset until told to stop; `news` says that something was observed.
pub async fn keep(client: Client, stores: Stores, mut news: watch::Receiver<()>, stop: CancellationToken) {
    let mut written = BTreeMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = pass(&client, &stores, &mut written) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            // What was not due, or not taken, is looked at again though nothing more comes.
            () = tokio::time::sleep(PACE) => {}
            changed = news.changed() => if changed.is_err() { return },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(GATHER) => {}
        }
    }
}

/// Namespace and name, and when its status was last written.
type Written = BTreeMap<(String, String), Instant>;

async fn pass(client: &Client, stores: &Stores, written: &mut Written) {
    let (nodes, datasets) = (stores.edge_nodes.state(), stores.datasets.state());
    let key = |dataset: &EdgeDataset| (dataset.namespace().unwrap_or_default(), dataset.name_any());
    written.retain(|known, _| datasets.iter().any(|dataset| key(dataset) == *known));
    for dataset in datasets {
        let Some(status) = status(&dataset, nodes.iter().map(AsRef::as_ref), Timestamp::now()) else { continue };
        let (namespace, name) = key(&dataset);
        let since = written.get(&(namespace.clone(), name.clone())).map(Instant::elapsed);
        if !is_due(dataset.status.as_ref(), &status, since) {
            continue;
        }
        let api = Api::<EdgeDataset>::namespaced(client.clone(), &namespace);
        // Who imports labels counts them, and we say nothing of that field: so it stays theirs.
        let ours = EdgeDatasetStatus { imported: None, ..status };
        let body = json!({"apiVersion": EdgeDataset::api_version(&()), "kind": EdgeDataset::kind(&()), "status": ours});
        match api.patch_status(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&body)).await {
            Ok(_) => drop(written.insert((namespace, name), Instant::now())),
            // It was deleted meanwhile.
            Err(kube::Error::Api(refused)) if refused.code == 404 => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(namespace, name, error, "a dataset says nothing new");
            }
        }
    }
}

/// Whether a change is told now: another truth, another generation and the first samples at once, larger numbers after a while.
fn is_due(old: Option<&EdgeDatasetStatus>, new: &EdgeDatasetStatus, since: Option<Duration>) -> bool {
    let is_news = old.is_none_or(|old| {
        let ready =
            |status: &EdgeDatasetStatus| condition(&status.conditions, "Ready").map(|ready| ready.status.clone());
        (old.samples == 0 && new.samples > 0)
            || (old.labelled == 0 && new.labelled > 0)
            || old.observed_generation != new.observed_generation
            || ready(old) != ready(new)
    });
    is_news || since.is_none_or(|since| since >= PACE)
}

/// The status to write, or `None` if it says so already. Pure.
fn status<'a>(
    dataset: &EdgeDataset,
    nodes: impl Iterator<Item = &'a EdgeNode>,
    now: Timestamp,
) -> Option<EdgeDatasetStatus> {
    let (namespace, name) = (dataset.namespace().unwrap_or_default(), dataset.name_any());
    let old = dataset.status.clone().unwrap_or_default();
    let mut new = EdgeDatasetStatus {
        observed_generation: dataset.metadata.generation,
        imported: old.imported,
        labelled: old.imported.unwrap_or_default(),
        ..Default::default()
    };
    let told = nodes.filter_map(|node| node.status.as_ref()).flat_map(|status| &status.collect);
    for row in told.filter(|row| row.namespace == namespace && row.name == name) {
        new.nodes += 1;
        new.samples = new.samples.saturating_add(row.sent);
        new.labelled = new.labelled.saturating_add(row.labelled);
        new.held = new.held.saturating_add(row.held);
        new.dropped = row.dropped.values().fold(new.dropped, |sum, count| sum.saturating_add(*count));
    }
    new.last_arrival = if new.samples > old.samples { Some(Time(now)) } else { old.last_arrival.clone() };
    let ready = if new.nodes > 0 {
        Claim::new(
            "Ready",
            true,
            Reason::Ready,
            format!("{} nodes collect; {} samples have arrived; {} are labelled", new.nodes, new.samples, new.labelled),
        )
    } else {
        let message =
            "no node has told that it collects; is node.collector.enabled, and does a site of the fleet match?";
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
        json!({"namespace": namespace, "name": "digits", "held": held, "heldBytes": 7, "sent": sent, "labelled": sent / 5, "dropped": {"Full": 2, "Busy": 1}})
    }

    #[test]
    fn a_dataset_says_what_its_nodes_have_told_and_nothing_twice() {
        let (then, now) = (Timestamp::from_second(100).unwrap(), Timestamp::from_second(200).unwrap());
        let nodes = [
            node(json!([row("vision", 10, 1)])),
            node(json!([row("vision", 5, 0), row("other", 9, 9)])),
            node(json!([])),
        ];
        let first = status(&dataset(None), nodes.iter(), then).unwrap();
        assert_eq!((first.samples, first.held, first.dropped, first.nodes), (15, 1, 6, 2));
        assert_eq!((first.labelled, first.imported), (3, None));
        assert_eq!((first.last_arrival.clone(), first.conditions[0].status.as_str()), (Some(Time(then)), "True"));
        assert_eq!(status(&dataset(Some(&first)), nodes.iter(), now), None);
        let fewer = status(&dataset(Some(&first)), nodes[1..].iter(), now).unwrap();
        assert_eq!(
            (fewer.samples, fewer.last_arrival),
            (5, Some(Time(then))),
            "a node that is gone takes its counts along"
        );
        let annotated = EdgeDatasetStatus { imported: Some(40), ..first.clone() };
        let more = status(&dataset(Some(&annotated)), nodes.iter(), now).unwrap();
        assert_eq!(
            (more.labelled, more.imported, more.samples),
            (43, Some(40), 15),
            "what people have labelled counts"
        );
        assert_eq!(status(&dataset(Some(&more)), nodes.iter(), now), None);
        let none = status(&dataset(None), [].into_iter(), now).unwrap();
        assert_eq!((none.conditions[0].status.as_str(), none.conditions[0].reason.as_str()), ("False", "NotCollected"));
    }

    #[test]
    fn what_is_new_is_told_at_once_and_numbers_that_grow_later() {
        let now = Timestamp::from_second(100).unwrap();
        let told = |sent, held| status(&dataset(None), [node(json!([row("vision", sent, held)]))].iter(), now).unwrap();
        let soon =
            |old: Option<&EdgeDatasetStatus>, new: &EdgeDatasetStatus| is_due(old, new, Some(Duration::from_secs(5)));
        let none = status(&dataset(None), [].into_iter(), now).unwrap();
        assert!(soon(None, &none));
        assert!(soon(Some(&none), &told(0, 1)), "it is collected");
        assert!(soon(Some(&told(0, 1)), &told(7, 0)), "the first arrive");
        assert!(!soon(Some(&told(7, 0)), &told(9, 0)));
        assert!(is_due(Some(&told(7, 0)), &told(9, 0), Some(PACE)));
        assert!(is_due(Some(&told(7, 0)), &told(9, 0), None), "a new leader knows not when");
    }
}
