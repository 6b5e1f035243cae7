//! Tells on the EdgeNode what the collector beside us has counted.

use crate::metrics::Metrics;
use crate::router;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource as _};
use sconce_api::{Collected, EdgeNode};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Of its own: the collector's counts wait for no other measurement, and none for them.
const MANAGER: &str = "sconce-agent-collect";
const CALL: Duration = Duration::from_secs(20);
/// Writes are so far apart, and further where little has changed.
const APART: Duration = Duration::from_secs(60);
const FAR_APART: Duration = Duration::from_secs(300);
const MOST: usize = 16;

#[derive(Deserialize)]
struct Statuses {
    datasets: BTreeMap<String, Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    held: i64,
    held_bytes: i64,
    sent: i64,
    #[serde(default)]
    labelled: i64,
    #[serde(default)]
    dropped: BTreeMap<String, i64>,
}

/// Reads the collector each `pace`, and writes what has moved; and all of it again on an EdgeNode that was made anew.
pub async fn report(client: Client, node: String, address: axum::http::Uri, pace: Duration, metrics: Metrics) {
    let (http, nodes) = (router::client(), Api::<EdgeNode>::all(client));
    let mut written: Option<(Vec<Collected>, Instant)> = None;
    let mut looked = Instant::now();
    loop {
        sleep(pace).await;
        // It starts as we do, and may be ended at any time.
        let Ok(status) = router::text_within(&http, &address).await else { continue };
        let Some(rows) = rows(&status) else { continue };
        let since = written.as_ref().map(|(_, when)| when.elapsed());
        let old = written.as_ref().map(|(rows, _)| rows.as_slice());
        match next(old, &rows, since, looked.elapsed()) {
            Next::Write => {}
            Next::Wait => continue,
            Next::Look => {
                looked = Instant::now();
                if !is_lost(look(&nodes, &node).await.as_ref()) {
                    continue;
                }
            }
        }
        let body =
            json!({"apiVersion": EdgeNode::api_version(&()), "kind": EdgeNode::kind(&()), "status": {"collect": rows}});
        let (parameters, body) = (PatchParams::apply(MANAGER).force(), Patch::Apply(&body));
        match timeout(CALL, nodes.patch_status(&node, &parameters, &body)).await {
            Ok(Ok(_)) => written = Some((rows, Instant::now())),
            Ok(Err(error)) => {
                metrics.api_error("write what was collected");
                tracing::debug!(error = &error as &dyn std::error::Error, "what was collected is not told");
            }
            Err(_) => metrics.api_error("write what was collected"),
        }
    }
}

fn rows(status: &str) -> Option<Vec<Collected>> {
    let statuses: Statuses = serde_json::from_str(status).ok()?;
    let row = |(name, status): (String, Status)| {
        let (namespace, name) = name.split_once('/')?;
        let (namespace, name) = (namespace.into(), name.into());
        let Status { held, held_bytes, sent, labelled, dropped } = status;
        Some(Collected { namespace, name, held, held_bytes, sent, labelled, dropped })
    };
    Some(statuses.datasets.into_iter().filter_map(row).take(MOST).collect())
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Write,
    /// Whether what was written is still there.
    Look,
    Wait,
}

/// What is written is looked at now and then; `since` it was written, and `looked` at.
fn next(old: Option<&[Collected]>, new: &[Collected], since: Option<Duration>, looked: Duration) -> Next {
    match old {
        _ if is_due(old, new, since) => Next::Write,
        Some(rows) if !rows.is_empty() && looked >= FAR_APART => Next::Look,
        _ => Next::Wait,
    }
}

/// Any change after a while; a large one soon; at once that something is collected, and that the first sample has arrived.
fn is_due(old: Option<&[Collected]>, new: &[Collected], since: Option<Duration>) -> bool {
    let (Some(old), Some(since)) = (old, since) else { return !new.is_empty() };
    let numbers = |row: &Collected| [row.held, row.sent, row.labelled, row.dropped.values().sum()];
    let is_large = |old: &Collected, new: &Collected| {
        numbers(old).into_iter().zip(numbers(new)).any(|(old, new)| (new - old).abs() * 4 > old.max(8))
    };
    let moved = || old.len() != new.len() || old.iter().zip(new).any(|(old, new)| is_large(old, new));
    let arrived = |rows: &[Collected]| rows.iter().filter(|row| row.sent > 0).count();
    let is_first = old.len() < new.len() || arrived(old) < arrived(new);
    old != new && (is_first || since >= FAR_APART || (since >= APART && moved()))
}

/// None if it is not there, or cannot be read: it is looked at the next time.
async fn look(nodes: &Api<EdgeNode>, node: &str) -> Option<EdgeNode> {
    timeout(CALL, nodes.get_opt(node)).await.ok()?.ok()?
}

/// Whether the EdgeNode says nothing of what was written.
fn is_lost(found: Option<&EdgeNode>) -> bool {
    found.is_some_and(|node| node.status.as_ref().is_none_or(|status| status.collect.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sconce_api::{EdgeNodeSpec, EdgeNodeStatus};

    const STATUS: &str = r#"{"schema":1,"datasets":{"vision/digits":{"held":3,"heldBytes":900,"kept":10,"duplicates":1,"sent":5,
        "labelled":4,"sentBytes":4000,"dropped":{"Full":2}}}}"#;

    #[test]
    fn what_the_collector_says_is_told() {
        let dropped = BTreeMap::from([("Full".into(), 2)]);
        let (namespace, name) = ("vision".into(), "digits".into());
        let row = Collected { namespace, name, held: 3, held_bytes: 900, sent: 5, labelled: 4, dropped };
        assert_eq!(rows(STATUS), Some(vec![row.clone()]));
        let older = STATUS.replace(r#""labelled":4,"#, "");
        assert_eq!(rows(&older), Some(vec![Collected { labelled: 0, ..row }]));
        assert_eq!(rows("nonsense"), None);
    }

    #[test]
    fn what_was_told_is_looked_at_now_and_then() {
        let (rows, hour) = (rows(STATUS).unwrap(), Duration::from_secs(3600));
        let after = |old: Option<&[Collected]>, looked| next(old, &rows, Some(hour), Duration::from_secs(looked));
        assert_eq!([after(Some(&rows), 299), after(Some(&rows), 300)], [Next::Wait, Next::Look]);
        assert_eq!(after(None, 300), Next::Write);
        assert_eq!(next(Some(&[]), &[], Some(hour), hour), Next::Wait, "nothing was told");
    }

    #[test]
    fn an_edge_node_that_was_made_anew_has_lost_what_was_told() {
        let mut node = EdgeNode::new("n", EdgeNodeSpec {});
        assert!(is_lost(Some(&node)));
        node.status = Some(EdgeNodeStatus::default());
        assert!(is_lost(Some(&node)), "its agent has written, and we have not");
        node.status = Some(EdgeNodeStatus { collect: rows(STATUS).unwrap(), ..Default::default() });
        assert!(!is_lost(Some(&node)) && !is_lost(None));
    }

    #[test]
    fn the_first_counts_are_told_at_once_and_small_changes_late() {
        let old = rows(STATUS).unwrap();
        let mut new = old.clone();
        assert!(is_due(None, &old, None));
        assert!(!is_due(None, &[], None));
        let after = |new: &[Collected], seconds| is_due(Some(&old), new, Some(Duration::from_secs(seconds)));
        assert!(!after(&new, 3600));
        new[0].sent += 1;
        assert_eq!([after(&new, 60), after(&new, 300)], [false, true]);
        new[0].sent += 20;
        assert_eq!([after(&new, 59), after(&new, 60)], [false, true]);
        let mut none = old.clone();
        none[0].sent = 0;
        assert!(is_due(Some(&none), &old, Some(Duration::ZERO)), "the first has arrived");
        let both = [old.clone(), old.clone()].concat();
        assert!(is_due(Some(&old), &both, Some(Duration::ZERO)), "another dataset is collected");
    }
}
