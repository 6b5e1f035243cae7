//! The store of a node: files of models, by digest, for the pods of the node, and brought from their registries when somebody asks.
//!
//! It speaks the reading half of OCI's distribution API, as a mirror of all registries: pods ask it before the registry itself, and
//! go there if it is not here or says no. Nothing is given but by its digest, whole files are held against that before their last
//! bytes are shown, and pods do both again.
//!
//! **Who may read what.** The store has no credentials, and forwards none: it asks a registry as nobody, and keeps only what that gives
//! to anybody. So whoever has a file from here could have had it from the registry, and knowing a digest opens nothing that is closed.
//! What needs a name and a password is refused (`DENIED`); pods ask its registry themselves. Two things follow: a repository
//! that is closed later stays open here until its files go, to who knows their digests (256 bits that nobody guesses); and where a
//! NetworkPolicy keeps pods from a registry, it has to keep them from here, too.

mod asked;
mod body;
mod folder;
mod index;
mod metrics;
mod refusal;
mod run;
mod server;
mod transfer;
mod upstream;

pub use refusal::Refusal;
pub use run::{Error, run};

use asked::{Asked, Kind};
use axum::body::Body;
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use body::{Reading, Relay};
use folder::{Folder, Held};
use metrics::{Metrics, Outcome};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use transfer::{Begun, HOLD_BACK, Progress, Transfer};
use upstream::{MANIFEST_TYPE, Upstream};

/// Downloads at once: more than a node's pods begin, and so many that a few registries that never end take none from others.
const MOST_DOWNLOADS: usize = 32;
/// Who reads at once; each has up to half a MiB here.
const MOST_READERS: usize = 128;

pub struct Store {
    path: PathBuf,
    most_bytes: u64,
    /// `None` while it cannot be used.
    folder: Mutex<Option<Arc<Folder>>>,
    upstream: Upstream,
    transfers: Mutex<HashMap<Asked, Joinable>>,
    readers: Arc<Semaphore>,
    metrics: Metrics,
}

struct Joinable {
    progress: Arc<watch::Sender<Progress>>,
    is_kept: bool,
}

/// What can be answered of something that was asked for.
struct Ready {
    begun: Option<Begun>,
    ended: Option<Result<(), Refusal>>,
    progress: watch::Receiver<Progress>,
    outcome: Outcome,
}

/// Part of a file that is asked for: from this byte to that one, which is left out, or to the end.
type Part = (u64, Option<u64>);

impl Store {
    /// A folder that cannot be used now may be later; meanwhile all is passed on.
    ///
    /// # Errors
    /// If there is no TLS here.
    pub fn new(
        path: PathBuf,
        most_bytes: u64,
        insecure: Vec<String>,
        metrics: Metrics,
    ) -> Result<Arc<Self>, reqwest::Error> {
        let store = Self {
            path,
            most_bytes,
            folder: Mutex::default(),
            upstream: Upstream::new(insecure, metrics.clone())?,
            transfers: Mutex::default(),
            readers: Arc::new(Semaphore::new(MOST_READERS)),
            metrics,
        };
        store.folder();
        Ok(Arc::new(store))
    }

    /// The answer to who asks for something, or for a part of it.
    ///
    /// # Errors
    /// [`Refusal`]
    pub async fn give(self: &Arc<Self>, asked: Asked, part: Option<Part>) -> Result<Response, Refusal> {
        let permit = self.readers.clone().try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let Some(folder) = self.folder() else { return self.relay(asked, permit).await };
        let mut ready = self.ready(&asked, &folder).await?;
        if let Some(Err(Refusal::Rotten | Refusal::Abandoned)) = ready.ended {
            // Nothing was shown of it: it comes from the registry.
            ready = self.ready(&asked, &folder).await?;
        }
        match (ready.begun, ready.ended) {
            (Some(begun), None | Some(Ok(()))) => {
                self.metrics.asked(ready.outcome);
                let size = begun.size;
                let Some((at, end)) = bounds(part, size) else { return Ok(unsatisfiable(size)) };
                let (progress, metrics) = (ready.progress, self.metrics.clone());
                let reading = Reading { begun, progress, at, end, metrics, _permit: permit };
                Ok(answer(&asked, part.map(|_| (at, end)), size, reading.body()))
            }
            // It comes, and cannot be kept.
            (_, Some(Err(Refusal::NoRoom | Refusal::Disk { .. }))) => self.relay(asked, permit).await,
            (_, Some(Err(refusal))) => Err(refusal),
            (None, _) => Err(Refusal::Abandoned),
        }
    }

    /// Waits until it comes; what is short until it is whole, so that it is right before any of it is shown, and a refusal has its
    /// code.
    async fn ready(self: &Arc<Self>, asked: &Asked, folder: &Arc<Folder>) -> Result<Ready, Refusal> {
        let (mut progress, outcome) = self.join(asked, folder)?;
        let is_ready = |progress: &Progress| {
            progress.ended.is_some() || progress.begun.as_ref().is_some_and(|begun| begun.size > HOLD_BACK)
        };
        let (begun, ended) = {
            let ready = progress.wait_for(is_ready).await.map_err(|_| Refusal::Abandoned)?;
            (ready.begun.clone(), ready.ended.clone())
        };
        Ok(Ready { begun, ended, progress, outcome })
    }

    /// What is under way, or begins now.
    fn join(
        self: &Arc<Self>,
        asked: &Asked,
        folder: &Arc<Folder>,
    ) -> Result<(watch::Receiver<Progress>, Outcome), Refusal> {
        let mut transfers = self.transfers();
        if let Some(joinable) = transfers.get(asked) {
            let outcome = if joinable.is_kept { Outcome::Kept } else { Outcome::Shared };
            return Ok((joinable.progress.subscribe(), outcome));
        }
        // Within the lock: who has just come to its end is kept, and not begun anew.
        let kept: Option<Held> = folder.kept(&asked.digest);
        let is_kept = kept.is_some();
        if !is_kept && transfers.values().filter(|joinable| !joinable.is_kept).count() >= MOST_DOWNLOADS {
            return Err(Refusal::Busy);
        }
        let (sender, receiver) = watch::channel(Progress::default());
        let progress = Arc::new(sender);
        transfers.insert(asked.clone(), Joinable { progress: progress.clone(), is_kept });
        let transfer = Transfer { store: self.clone(), asked: asked.clone(), progress };
        tokio::spawn(transfer.run(folder.clone(), kept));
        Ok((receiver, if is_kept { Outcome::Kept } else { Outcome::Fetched }))
    }

    /// Passes on what the registry gives, whole, and keeps nothing.
    async fn relay(&self, asked: Asked, permit: OwnedSemaphorePermit) -> Result<Response, Refusal> {
        let opened = self.upstream.open(&asked, 0).await?;
        let size = opened.size;
        let mut relay = Relay::new(opened, asked.digest.clone(), self.metrics.clone(), permit);
        relay.fill().await?;
        self.metrics.asked(Outcome::Relayed);
        Ok(answer(&asked, None, size, relay.body()))
    }

    /// The folder, if it can be used.
    fn folder(&self) -> Option<Arc<Folder>> {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if folder.is_none() {
            match Folder::open(&self.path, self.most_bytes, self.metrics.clone()) {
                Ok(opened) => *folder = Some(Arc::new(opened)),
                Err(error) => {
                    let folder = self.path.display();
                    tracing::warn!(%folder, %error, "the folder cannot be used; what is asked for is passed on, and not kept");
                }
            }
        }
        folder.clone()
    }

    fn forget(&self, asked: &Asked, progress: &Arc<watch::Sender<Progress>>) {
        let mut transfers = self.transfers();
        if transfers.get(asked).is_some_and(|joinable| Arc::ptr_eq(&joinable.progress, progress)) {
            transfers.remove(asked);
        }
    }

    fn transfers(&self) -> MutexGuard<'_, HashMap<Asked, Joinable>> {
        self.transfers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None` if it has no such part.
fn bounds(part: Option<Part>, size: u64) -> Option<(u64, u64)> {
    match part {
        None => Some((0, size)),
        Some((first, end)) => {
            let end = end.map_or(size, |end| end.min(size));
            (first < end).then_some((first, end))
        }
    }
}

fn unsatisfiable(size: u64) -> Response {
    (StatusCode::RANGE_NOT_SATISFIABLE, [(CONTENT_RANGE, format!("bytes */{size}"))]).into_response()
}

fn answer(asked: &Asked, part: Option<(u64, u64)>, size: u64, body: Body) -> Response {
    let (status, bytes) = match part {
        Some((at, end)) => (StatusCode::PARTIAL_CONTENT, end - at),
        None => (StatusCode::OK, size),
    };
    let media_type = match asked.kind {
        Kind::Manifest => MANIFEST_TYPE,
        Kind::Blob => "application/octet-stream",
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CONTENT_LENGTH, bytes.into());
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let mut told = |name: &'static str, value: String| {
        // Digits and hexadecimal digits are what headers may hold.
        HeaderValue::try_from(value).ok().and_then(|value| headers.insert(name, value));
    };
    told("docker-content-digest", asked.digest.to_string());
    if let Some((at, end)) = part {
        told("content-range", format!("bytes {at}-{}/{size}", end - 1));
    }
    response
}
