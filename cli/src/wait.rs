//! Until what was decided is so: woken by changes of the objects.

use crate::objects::not_listed;
use crate::status::Selection;
use anyhow::{Context as _, Result};
use futures::stream::{BoxStream, select_all};
use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ApiResource;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use sconce_api::{EdgeFleet, EdgeModel, EdgeSite, condition};
use sconce_operator::observe::{Placement, World, all};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What is not yet as it was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `vision/digits`, or `vision/digits at site-a`.
    pub what: String,
    pub reason: String,
    pub message: String,
}

/// Placements that do not serve as they were decided, and models that wait for decisions. A site without contact is not waited
/// for: nothing can be said of it.
pub fn pending(world: &World, selection: &Selection) -> Vec<Pending> {
    let models = world.models.values().filter(|model| model.metadata.deletion_timestamp.is_none());
    let asked = models.filter(|model| {
        selection.has_fleet(&model.spec.fleet_ref.name)
            && selection.has_model(&model.namespace().unwrap_or_default(), &model.name_any())
    });
    asked.flat_map(|model| of_model(world, model)).collect()
}

fn of_model(world: &World, model: &EdgeModel) -> Vec<Pending> {
    let status = model.status.clone().unwrap_or_default();
    let what = format!("{}/{}", model.namespace().unwrap_or_default(), model.name_any());
    if status.observed_generation < model.metadata.generation {
        let message = "the operator has not seen the last change yet".to_owned();
        return vec![Pending { what, reason: "Unobserved".into(), message }];
    }
    let mine = |placement: &&Arc<Placement>| {
        placement.namespace() == model.namespace() && placement.spec.model_ref.name == model.name_any()
    };
    let placements: Vec<_> = world.placements.values().filter(mine).collect();
    let at = |placement: &Placement| format!("{what} at {}", placement.spec.site_ref.name);
    let of = |placement: &&Arc<Placement>| {
        let conditions = placement.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        lacks(conditions).map(|why| told(at(placement), why))
    };
    // The model speaks of sites whose placements are not made yet, or are still as they were.
    let model = lacks(&status.conditions).filter(|why| why.is_some() || placements.is_empty());
    let pending: Vec<_> = placements.iter().filter_map(of).collect();
    if pending.is_empty() { model.map(|why| told(what.clone(), why)).into_iter().collect() } else { pending }
}

/// What keeps an object from being as it was decided: `Some(None)` if nobody has said anything yet.
fn lacks(conditions: &[Condition]) -> Option<Option<&Condition>> {
    let moving = condition(conditions, "Reconciling").filter(|moving| moving.status == "True");
    match condition(conditions, "Ready") {
        None => Some(moving),
        Some(ready) if ready.status == "False" => Some(Some(ready)),
        Some(_) => moving.map(Some),
    }
}

fn told(what: String, why: Option<&Condition>) -> Pending {
    match why {
        Some(Condition { reason, message, .. }) => Pending { what, reason: reason.clone(), message: message.clone() },
        None => Pending { what, reason: "Undecided".into(), message: "nothing is decided yet".into() },
    }
}

/// Waits until nothing is pending, or for `limit`; returns what was seen last, and what was still pending then. Tells on stderr
/// what it waits for.
pub async fn wait(client: &Client, selection: Selection, limit: Duration) -> Result<(World, Vec<Pending>)> {
    let deadline = Instant::now() + limit;
    let (stores, mut changes) = Stores::follow(client);
    let mut last = None;
    loop {
        if stores.are_ready() {
            let world = stores.world();
            let pending = pending(&world, &selection.clone().of(&world)?);
            if pending.is_empty() || Instant::now() >= deadline {
                return Ok((world, pending));
            }
            if last.as_ref() != Some(&pending) {
                tell(&pending);
                last = Some(pending);
            }
        }
        match timeout_at(deadline, changes.next()).await {
            Ok(Some(Err(error))) if !stores.are_ready() => return Err(error),
            // Later a watch that breaks off is begun again.
            Ok(Some(_)) => {}
            Ok(None) => anyhow::bail!("the watches ended"),
            Err(_) if stores.are_ready() => {}
            Err(_) => anyhow::bail!("the cluster told nothing within {limit:?}; is its API server reachable?"),
        }
    }
}

fn tell(pending: &[Pending]) {
    let Some(Pending { what, reason, message }) = pending.first() else { return };
    let others = match pending.len() - 1 {
        0 => String::new(),
        others => format!(" (and {others} more)"),
    };
    anstream::eprintln!("waiting for {what}: {reason}: {message}{others}");
}

/// What is watched.
struct Stores {
    fleets: Store<EdgeFleet>,
    sites: Store<EdgeSite>,
    models: Store<EdgeModel>,
    placements: Store<Placement>,
}

type Changes = BoxStream<'static, Result<()>>;

impl Stores {
    fn follow(client: &Client) -> (Self, Changes) {
        let ((fleets, a), (sites, b)) = (follow(client), follow(client));
        let ((models, c), (placements, d)) = (follow(client), follow(client));
        (Self { fleets, sites, models, placements }, select_all([a, b, c, d]).boxed())
    }

    fn are_ready(&self) -> bool {
        let Self { fleets, sites, models, placements } = self;
        is_ready(fleets) && is_ready(sites) && is_ready(models) && is_ready(placements)
    }

    fn world(&self) -> World {
        let Self { fleets, sites, models, placements } = self;
        World {
            fleets: all(fleets),
            sites: all(sites),
            models: all(models),
            placements: all(placements),
            ..World::default()
        }
    }
}

fn follow<K>(client: &Client) -> (Store<K>, Changes)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let events = watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff().reflect(writer);
    let changes = events.map(|event| match event {
        Ok(_) => Ok(()),
        Err(watcher::Error::InitialListFailed(error)) => Err(not_listed(&ApiResource::erase::<K>(&()), error)),
        Err(error) => Err(error).with_context(|| format!("watching {}", K::plural(&()))),
    });
    (store, changes.boxed())
}

fn is_ready<K: Resource<DynamicType = ()> + Clone + 'static>(store: &Store<K>) -> bool {
    store.wait_until_ready().now_or_never().is_some_and(|ready| ready.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{cluster, condition, forbidden, items, objects, objects_of};
    use axum::body::Body;
    use axum::response::IntoResponse as _;
    use serde_json::{Value, json};

    #[test]
    fn a_wait_ends_when_all_serves_as_it_was_decided() {
        let check = |change: fn(&mut Value, &mut Value), expected: &[(&str, &str)]| {
            let mut items = items();
            let at = |items: &[Value], kind: &str| items.iter().position(|item| item["kind"] == kind).unwrap();
            let (model, placement) = (at(&items, "EdgeModel"), at(&items, "EdgePlacement"));
            let (before, after) = items.split_at_mut(placement);
            change(&mut before[model], &mut after[0]);
            if after[0].is_null() {
                items.remove(placement);
            }
            let world = objects_of(items).world();
            let pending = pending(&world, &Selection::default());
            let told: Vec<_> = pending.iter().map(|pending| (pending.what.as_str(), pending.reason.as_str())).collect();
            assert_eq!(told, expected);
        };
        check(|_, _| {}, &[("vision/digits at site-a", "Starting")]);
        // The model was written before its placements, which are still as they were.
        check(
            |model, placement| {
                model["status"]["conditions"] =
                    json!([condition("Ready", "False", "NotEnoughSites", "1/2 sites serve")]);
                placement["status"]["conditions"] = json!([condition("Ready", "True", "Ready", "so")]);
            },
            &[("vision/digits", "NotEnoughSites")],
        );
        check(
            |_, placement| placement["status"]["conditions"] = json!([condition("Ready", "True", "Ready", "so")]),
            &[],
        );
        // Nothing can be said of a site without contact.
        check(
            |_, placement| {
                placement["status"]["conditions"] = json!([condition("Ready", "Unknown", "NoContact", "so")])
            },
            &[],
        );
        check(
            |_, placement| placement["status"]["conditions"] = json!([]),
            &[("vision/digits at site-a", "Undecided")],
        );
        check(
            |_, placement| {
                let moving = condition("Reconciling", "True", "Progressing", "so");
                placement["status"]["conditions"] = json!([condition("Ready", "True", "Ready", "so"), moving]);
            },
            &[("vision/digits at site-a", "Progressing")],
        );
        check(|model, _| model["metadata"]["generation"] = json!(2), &[("vision/digits", "Unobserved")]);
        check(|_, placement| *placement = Value::Null, &[("vision/digits", "Undecided")]);
        check(
            |model, placement| {
                *placement = Value::Null;
                model["status"]["conditions"] = json!([condition("Ready", "False", "NoNodes", "so")]);
            },
            &[("vision/digits", "NoNodes")],
        );
        let mine = Selection { model: Some(("vision".into(), "words".into())), ..Selection::default() };
        assert_eq!(pending(&objects().world(), &mine), []);
    }

    /// A cluster as that of `items`, whose placement is Ready once it is watched, if it is to be.
    async fn asked(becomes_ready: bool) -> Client {
        cluster(move |uri| async move {
            let plural = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
            let mine: Vec<_> = items().into_iter().filter(|item| plural == format!("{}s", item["kind"].as_str().unwrap().to_lowercase())).collect();
            let watched = uri.query().is_some_and(|query| query.contains("watch=true"));
            if !watched {
                let list = json!({"apiVersion": "sconce.dev/v1alpha1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": mine});
                return list.to_string().into_response();
            }
            let news = mine.into_iter().filter(|item| becomes_ready && item["kind"] == "EdgePlacement").map(|mut item| {
                item["metadata"]["resourceVersion"] = json!("2");
                item["status"]["conditions"] = json!([condition("Ready", "True", "Ready", "it serves")]);
                Ok::<_, std::convert::Infallible>(format!("{}\n", json!({"type": "MODIFIED", "object": item})))
            });
            let news: Vec<_> = news.collect();
            Body::from_stream(futures::stream::iter(news).chain(futures::stream::pending())).into_response()
        })
        .await
    }

    #[tokio::test]
    async fn a_change_of_the_objects_ends_the_wait() {
        let (world, left) = wait(&asked(true).await, Selection::default(), Duration::from_secs(60)).await.unwrap();
        assert_eq!((left, world.placements.len()), (vec![], 1));
    }

    #[tokio::test]
    async fn a_wait_that_ends_too_early_tells_what_is_pending() {
        let (_, left) = wait(&asked(false).await, Selection::default(), Duration::from_secs(5)).await.unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(left[0].reason, "Starting");
    }

    #[tokio::test]
    async fn who_may_not_look_does_not_wait() {
        let client = cluster(async |_| forbidden()).await;
        let error = wait(&client, Selection::default(), Duration::from_secs(60)).await.err().unwrap();
        assert!(format!("{error:#}").contains("it takes the right to list them"), "{error:#}");
        let nothing = Selection { fleet: Some("mines".into()), ..Selection::default() };
        let error = wait(&asked(true).await, nothing, Duration::from_secs(60)).await.err().unwrap();
        assert!(error.to_string().contains("there is no EdgeFleet mines"), "{error:#}");
    }
}
