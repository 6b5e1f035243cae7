//! The apply step: what we write. It decides nothing; each object that fails is tried again later and stops no other.

use crate::health::Pulse;
use crate::metrics::{Metrics, WriteLabels};
use crate::observe::Key;
use crate::render::{Kind, Manifest, RETIRE_AT};
use futures::StreamExt;
use http::HeaderValue;
use http::header::ACCEPT;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, DynamicResourceScope, PartialObjectMeta, Request, Status};
use kube::{Client, Resource, ResourceExt};
use sconce_api::Reason;
use serde::de::IgnoredAny;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const CALL: Duration = Duration::from_secs(20);
/// Requests at a time; the server's own fairness does the rest.
const AT_ONCE: usize = 16;
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// What was refused is refused again unless somebody does something about it.
const FIRST_WAIT_REFUSED: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

const MANAGER: &str = "sconce-operator/placement";
const NODE_MANAGER: &str = "sconce-operator/node";
const RETIRE_MANAGER: &str = "sconce-operator/retire";
const SUSPEND_MANAGER: &str = "sconce-operator/suspend";

#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Once; somebody else owns it afterwards.
    Create(Manifest),
    /// Our fields of an object of ours. `is_new` = none was seen: one of somebody else is not taken over.
    Apply { object: Manifest, is_new: bool },
    /// Labels of an object that is the agent's.
    Label(Manifest),
    /// With what people should hear of it, once it is written.
    Status { object: Manifest, news: Vec<News> },
    /// Says when a replaced Deployment goes; `None` takes it back.
    Retire { target: Target, at: Option<Timestamp> },
    /// Stops a Job, or lets it go on: of its other fields nothing can be changed.
    Suspend { target: Target, suspend: bool },
    /// Only if it is still the object that was seen.
    Delete(Target),
}

/// A change that is worth an event.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    pub about: ObjectReference,
    pub good: bool,
    pub reason: String,
    pub action: &'static str,
    pub note: String,
}

/// Why an object of ours cannot be made, by its kind and name.
pub type Refusals = BTreeMap<(Kind, Key), Refusal>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub message: String,
}

/// An object as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

impl Target {
    pub fn of(kind: Kind, live: &impl ResourceExt) -> Self {
        Self {
            kind,
            namespace: live.namespace().unwrap_or_default(),
            name: live.name_any(),
            uid: live.uid(),
            resource_version: live.resource_version(),
        }
    }
}

#[derive(thiserror::Error, Debug)]
pub enum ApplyError {
    #[error("no answer within {CALL:?}")]
    Timeout,
    #[error("an object of that name belongs to somebody else")]
    NameConflict,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

impl ApplyError {
    /// Whether waiting alone will not help.
    fn is_refusal(&self) -> bool {
        match self {
            Self::NameConflict => true,
            Self::Api(kube::Error::Api(status)) => status.is_forbidden() || status.is_invalid(),
            Self::Timeout | Self::Api(_) => false,
        }
    }

    /// As a condition says it.
    fn refusal(&self, kind: &str, name: &str) -> Refusal {
        match self {
            Self::NameConflict => Refusal {
                reason: Reason::NameConflict,
                message: format!("a {kind} {name} that is not ours is in the way: rename or delete it"),
            },
            Self::Api(kube::Error::Api(status)) => Refusal {
                reason: Reason::Starting,
                message: format!("the API server refuses the {kind} {name}: {}", status.message),
            },
            Self::Timeout | Self::Api(_) => Refusal { reason: Reason::Starting, message: self.to_string() },
        }
    }
}

impl Write {
    /// What fails and is tried again as one.
    fn id(&self) -> Id {
        let (verb, kind, namespace, name) = match self {
            Self::Create(object) => ("create", object.kind, &object.namespace, &object.name),
            Self::Apply { object, .. } => ("apply", object.kind, &object.namespace, &object.name),
            Self::Label(object) => ("label", object.kind, &object.namespace, &object.name),
            Self::Status { object, .. } => ("status", object.kind, &object.namespace, &object.name),
            Self::Retire { target, .. } => ("retire", target.kind, &target.namespace, &target.name),
            Self::Suspend { target, .. } => ("suspend", target.kind, &target.namespace, &target.name),
            Self::Delete(target) => ("delete", target.kind, &target.namespace, &target.name),
        };
        (verb, kind, namespace.clone(), name.clone())
    }
}

/// Writes, and remembers what failed.
pub struct Applier {
    client: Client,
    metrics: Metrics,
    /// Many calls that all time out are slow, and alive.
    pulse: Pulse,
    failures: BTreeMap<Id, Failure>,
    asked: BTreeSet<Id>,
    pub refusals: Refusals,
}

struct Failure {
    attempts: u32,
    retry_at: Instant,
    /// What failed: another object is tried at once.
    write: Write,
}

/// Verb, kind, namespace, name.
type Id = (&'static str, Kind, String, String);

impl Applier {
    pub fn new(client: Client, metrics: Metrics, pulse: Pulse) -> Self {
        Self { client, metrics, pulse, failures: BTreeMap::new(), asked: BTreeSet::new(), refusals: Refusals::new() }
    }

    /// When the first failed write may be tried again.
    pub fn retry_at(&self) -> Option<Instant> {
        self.failures.values().map(|failure| failure.retry_at).min()
    }

    /// Does the writes that may be done now; returns what people should hear of those that were done. A write is let go of as soon
    /// as it is done: while a fleet is made they are tens of megabytes.
    pub async fn all(&mut self, writes: Vec<Write>) -> Vec<News> {
        let now = Instant::now();
        self.asked.extend(writes.iter().map(Write::id));
        // A status changes with the clock; an object only if somebody did something about it.
        let is_due = |failure: &Failure, write: &Write| {
            failure.retry_at <= now || matches!(write, Write::Apply { .. }) && failure.write != *write
        };
        let failures = &self.failures;
        let is_due = |write: &Write| failures.get(&write.id()).is_none_or(|failure| is_due(failure, write));
        let due: Vec<_> = writes.into_iter().filter(is_due).collect();
        let (client, pulse) = (self.client.clone(), self.pulse.clone());
        let calls = due.into_iter().map(|write| async {
            let result = tokio::time::timeout(CALL, perform(&client, &write)).await.unwrap_or(Err(ApplyError::Timeout));
            pulse.beat();
            (write, result)
        });
        let mut results = futures::stream::iter(calls).buffer_unordered(AT_ONCE);
        let mut all = Vec::new();
        while let Some((write, result)) = results.next().await {
            all.extend(self.noted(write, result));
        }
        all
    }

    /// Ends a pass: a failed write that it did not ask for again is no longer wanted.
    pub fn end(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        self.failures.retain(|id, _| asked.contains(id));
        self.refusals
            .retain(|(kind, (namespace, name)), _| asked.contains(&("apply", *kind, namespace.clone(), name.clone())));
    }

    fn noted(&mut self, write: Write, result: Result<(), ApplyError>) -> Vec<News> {
        let id = write.id();
        let (verb, kind) = (id.0, format!("{:?}", id.1));
        let count = |result| self.metrics.writes.get_or_create(&WriteLabels { verb, kind: kind.clone(), result }).inc();
        match result {
            Ok(()) => {
                count("ok");
                tracing::debug!(verb, kind, namespace = id.2, name = id.3, "written");
                self.failures.remove(&id);
                if verb == "apply" {
                    self.refusals.remove(&(id.1, (id.2, id.3)));
                }
                match write {
                    Write::Status { news, .. } => news,
                    _ => Vec::new(),
                }
            }
            Err(error) => {
                count("error");
                let attempts = self.failures.get(&id).map_or(0, |failure| failure.attempts) + 1;
                let first = if error.is_refusal() { FIRST_WAIT_REFUSED } else { FIRST_WAIT };
                let wait = first.saturating_mul(1 << attempts.min(9).saturating_sub(1)).min(LONGEST_WAIT);
                if verb == "apply" && error.is_refusal() {
                    self.refusals.insert((id.1, (id.2.clone(), id.3.clone())), error.refusal(&kind, &id.3));
                }
                tracing::warn!(verb, kind, namespace = id.2, name = id.3, attempts, %error, "write failed");
                self.failures.insert(id, Failure { attempts, retry_at: Instant::now() + wait, write });
                Vec::new()
            }
        }
    }
}

/// Of the objects that come back nothing else is read.
type Answer = PartialObjectMeta<DynamicObject>;

async fn perform(client: &Client, write: &Write) -> Result<(), ApplyError> {
    match write {
        Write::Create(object) => {
            let body: DynamicObject = serde_json::from_value(object.body()).map_err(kube::Error::SerdeError)?;
            let api: Api<DynamicObject> = api(client, object.kind, &object.namespace);
            done(api.create(&PostParams::default(), &body).await, Status::is_already_exists)
        }
        Write::Apply { object, is_new } => {
            let api: Api<Answer> = api(client, object.kind, &object.namespace);
            if *is_new
                && let Some(there) = api.get_metadata_opt(&object.name).await?
                && !is_ours(&there, object)
            {
                return Err(ApplyError::NameConflict);
            }
            done(applied(client, object, MANAGER, None).await, |_| false)
        }
        Write::Label(object) => done(applied(client, object, NODE_MANAGER, None).await, |_| false),
        Write::Status { object, .. } => {
            done(applied(client, object, MANAGER, Some("status")).await, Status::is_not_found)
        }
        Write::Retire { target, at } => {
            let at = at.map(|at| at.to_string());
            let patch = json!({"metadata": {"uid": target.uid, "annotations": {RETIRE_AT: at}}});
            let parameters = PatchParams { field_manager: Some(RETIRE_MANAGER.into()), ..PatchParams::default() };
            let api: Api<Answer> = api(client, target.kind, &target.namespace);
            done(api.patch_metadata(&target.name, &parameters, &Patch::Merge(&patch)).await, Status::is_not_found)
        }
        Write::Suspend { target, suspend } => {
            let patch = json!({"metadata": {"uid": target.uid}, "spec": {"suspend": suspend}});
            let parameters = PatchParams { field_manager: Some(SUSPEND_MANAGER.into()), ..PatchParams::default() };
            let api: Api<Answer> = api(client, target.kind, &target.namespace);
            done(api.patch_metadata(&target.name, &parameters, &Patch::Merge(&patch)).await, Status::is_not_found)
        }
        Write::Delete(target) => {
            let preconditions =
                Preconditions { uid: target.uid.clone(), resource_version: target.resource_version.clone() };
            let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
            let api: Api<Answer> = api(client, target.kind, &target.namespace);
            let deleted = api.delete(&target.name, &parameters).await;
            // A conflict means that it changed: soon the next look decides again.
            done(deleted, Status::is_not_found)
        }
    }
}

/// Of the object that comes back the server is asked for no more than its metadata, and nothing is read.
const METADATA: HeaderValue = HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// Server-side apply of the object's text as it is, to all of it or to a part.
async fn applied(client: &Client, object: &Manifest, manager: &str, part: Option<&str>) -> kube::Result<IgnoredAny> {
    let namespace = Some(object.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let paths = Request::new(DynamicObject::url_path(&object.kind.resource(), namespace));
    // The text takes the place of this.
    let (parameters, body) = (PatchParams::apply(manager).force(), Patch::Apply(()));
    let request = match part {
        None => paths.patch(&object.name, &parameters, &body),
        Some(part) => paths.patch_subresource(part, &object.name, &parameters, &body),
    };
    let mut request = request.map_err(kube::Error::BuildRequest)?;
    request.headers_mut().insert(ACCEPT, METADATA);
    *request.body_mut() = object.text().as_bytes().to_vec();
    client.request(request).await
}

fn done<T>(result: kube::Result<T>, is_fine: impl Fn(&Status) -> bool) -> Result<(), ApplyError> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if is_fine(&status) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The same owner, by uid: a model that was made anew has other children.
fn is_ours(there: &impl ResourceExt, ours: &Manifest) -> bool {
    let body = ours.body();
    let uid = body.pointer("/metadata/ownerReferences/0/uid").and_then(|uid| uid.as_str());
    there.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == uid)
}

/// `K`: what is read of the answer.
fn api<K>(client: &Client, kind: Kind, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
{
    let resource = kind.resource();
    if namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), namespace, &resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Object;
    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use tower_test::mock::{self, Handle};

    type Server = Handle<Request<Body>, Response<Body>>;

    fn applier() -> (Applier, Server) {
        let (service, server) = mock::pair::<Request<Body>, Response<Body>>();
        (Applier::new(Client::new(service, "vision"), Metrics::new(), Pulse::default()), server)
    }

    /// Answers the next request; returns its method and path.
    async fn answer(server: &mut Server, code: StatusCode, body: serde_json::Value) -> String {
        let (request, send) = server.next_request().await.expect("a request");
        send.send_response(Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap());
        format!("{} {}", request.method(), request.uri().path())
    }

    fn refused(code: StatusCode, reason: &str) -> serde_json::Value {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code.as_u16()})
    }

    fn service() -> Manifest {
        let metadata =
            json!({"ownerReferences": [{"apiVersion": "v1", "kind": "EdgeModel", "name": "digits", "uid": "em"}]});
        Object::new(Kind::Service, "vision", "pool", metadata, json!({"spec": {}})).into()
    }

    #[tokio::test]
    async fn what_is_refused_waits_and_stops_no_other() {
        let (mut applier, mut server) = applier();
        let writes = vec![Write::Apply { object: service(), is_new: false }];
        let server = tokio::spawn(async move {
            let path = answer(&mut server, StatusCode::FORBIDDEN, refused(StatusCode::FORBIDDEN, "Forbidden")).await;
            (path, server)
        });
        assert_eq!(applier.all(writes.clone()).await, []);
        let (path, _server) = server.await.unwrap();
        assert_eq!(path, "PATCH /api/v1/namespaces/vision/services/pool");
        assert!(applier.retry_at().is_some());
        // Not due yet: the server is not asked.
        assert_eq!(applier.all(writes).await, []);
        applier.end();
        assert!(applier.retry_at().is_some());
        applier.end();
        assert!(applier.retry_at().is_none(), "nobody asks for it any more");
    }

    #[tokio::test]
    async fn an_object_of_somebody_else_is_not_taken_over() {
        let (mut applier, mut server) = applier();
        let server = tokio::spawn(async move {
            let theirs =
                json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "pool", "namespace": "vision"}});
            answer(&mut server, StatusCode::OK, theirs).await
        });
        assert_eq!(applier.all(vec![Write::Apply { object: service(), is_new: true }]).await, []);
        assert_eq!(server.await.unwrap(), "GET /api/v1/namespaces/vision/services/pool");
        let at = (Kind::Service, ("vision".to_owned(), "pool".to_owned()));
        let refusal = Refusal {
            reason: Reason::NameConflict,
            message: "a Service pool that is not ours is in the way: rename or delete it".into(),
        };
        assert_eq!(applier.refusals, Refusals::from([(at, refusal)]));
    }

    /// Seen on a real cluster: a placement and its Deployment have one name, and the condition came and went.
    #[tokio::test]
    async fn a_status_of_the_same_name_does_not_end_a_refusal() {
        let (mut applier, mut server) = applier();
        let server = tokio::spawn(async move {
            let mut quota = refused(StatusCode::FORBIDDEN, "Forbidden");
            quota["message"] = json!("exceeded quota");
            answer(&mut server, StatusCode::FORBIDDEN, quota).await;
            let done =
                json!({"apiVersion": "sconce.dev/v1alpha1", "kind": "EdgePlacement", "metadata": {"name": "pool"}});
            answer(&mut server, StatusCode::OK, done).await
        });
        let status = Object::new(Kind::EdgePlacement, "vision", "pool", json!({}), json!({"status": {}})).into();
        let apply = Write::Apply { object: service(), is_new: false };
        applier.all(vec![apply.clone()]).await;
        applier.all(vec![Write::Status { object: status, news: Vec::new() }]).await;
        assert_eq!(
            server.await.unwrap(),
            "PATCH /apis/sconce.dev/v1alpha1/namespaces/vision/edgeplacements/pool/status"
        );
        applier.end();
        let told: Vec<_> = applier.refusals.values().map(|refusal| refusal.message.as_str()).collect();
        assert_eq!(told, ["the API server refuses the Service pool: exceeded quota"]);
    }

    #[tokio::test]
    async fn what_is_applied_is_sent_as_it_is_and_no_more_than_metadata_come_back() {
        let (mut applier, mut server) = applier();
        let server = tokio::spawn(async move {
            let (request, send) = server.next_request().await.expect("a request");
            send.send_response(Response::new(Body::from(b"{}".to_vec())));
            let (head, body) = request.into_parts();
            (head, body.collect_bytes().await.unwrap())
        });
        let status = Object::new(Kind::EdgeSite, "", "a", json!({}), json!({"status": {"link": null}}));
        let news = News {
            about: ObjectReference::default(),
            good: false,
            reason: "NoContact".into(),
            action: "Connected",
            note: String::new(),
        };
        let write = Write::Status { object: status.clone().into(), news: vec![news.clone()] };
        assert_eq!(applier.all(vec![write]).await, [news]);
        let (head, body) = server.await.unwrap();
        assert_eq!(
            head.uri.to_string(),
            "/apis/sconce.dev/v1alpha1/edgesites/a/status?&force=true&fieldManager=sconce-operator%2Fplacement"
        );
        assert_eq!(head.headers[http::header::CONTENT_TYPE], "application/apply-patch+yaml");
        assert_eq!(head.headers[ACCEPT], METADATA);
        assert_eq!(body, status.body.to_string());
    }

    #[tokio::test]
    async fn after_a_conflict_on_deleting_there_is_a_next_look() {
        let (mut applier, mut server) = applier();
        let target = Target {
            kind: Kind::Service,
            namespace: "vision".into(),
            name: "pool".into(),
            uid: Some("u".into()),
            resource_version: Some("7".into()),
        };
        let server = tokio::spawn(async move {
            answer(&mut server, StatusCode::CONFLICT, refused(StatusCode::CONFLICT, "Conflict")).await
        });
        assert_eq!(applier.all(vec![Write::Delete(target)]).await, []);
        assert_eq!(server.await.unwrap(), "DELETE /api/v1/namespaces/vision/services/pool");
        assert!(applier.retry_at().is_some());
    }
}
