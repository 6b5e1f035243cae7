//! What is served: models by name and version, loaded beside what runs and swapped without losing a request.
//!
//! A request finds its model once and holds it until it is answered. Whoever was swapped out ends when nobody holds it any more.

mod features;
mod loader;
mod model;
mod models;
mod room;
mod sources;

pub use features::{Features, FeaturesError};
pub use model::{Kind, Model, Network, Settings};
pub use models::{Entry, Models, Unserved};
pub use sources::{Source, SourceError, Sources};

use crate::load::LoadError;
use crate::metrics::Metrics;
use loader::Loader;
use std::error::Error;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::{Mutex, watch};

/// Whether clients may load and unload, in Triton's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    None,
    Explicit,
}

#[derive(Debug, Error)]
pub enum CatalogueError {
    #[error("clients cannot {verb} models here; start the server with --model-control-mode explicit")]
    Denied { verb: &'static str },
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("no model \"{name}\" here to unload")]
    Unknown { name: String },
    #[error("{why} (loading \"{name}\")")]
    Failed { name: String, why: String },
    #[error("the system gives no thread to load models")]
    Thread(#[source] std::io::Error),
    #[error("it panicked, and is not to blame on what was asked; please report it")]
    Panicked,
}

/// Shared by all who serve.
pub struct Catalogue {
    models: watch::Sender<Models<Arc<Model>>>,
    sources: Sources,
    control: Control,
    settings: Settings,
    metrics: Arc<Metrics>,
    loader: Loader,
    /// One at a time: each takes memory, and time, beside what runs.
    loading: Mutex<()>,
}

impl Catalogue {
    /// Loads what is to be there from the start.
    ///
    /// # Errors
    /// [`CatalogueError`] if one of them cannot be loaded.
    pub async fn start(
        sources: Sources,
        first: &[String],
        control: Control,
        settings: Settings,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, CatalogueError> {
        let models = watch::Sender::new(Models::default());
        let loader = Loader::start().map_err(CatalogueError::Thread)?;
        let catalogue =
            Arc::new(Self { models, sources, control, settings, metrics, loader, loading: Mutex::default() });
        for name in first {
            catalogue.clone().bring(name.clone()).await?;
        }
        Ok(catalogue)
    }

    /// The version that is asked for; the newest, if none is named.
    ///
    /// # Errors
    /// [`Unserved`] says what there is instead.
    pub fn named(&self, name: &str, version: &str) -> Result<Arc<Model>, Unserved> {
        self.models.borrow().named(name, version).cloned()
    }

    /// The model that runs, if there is one alone.
    pub fn only(&self) -> Option<Arc<Model>> {
        let models = self.models.borrow();
        let mut running = models.running();
        let only = running.next().filter(|_| running.next().is_none());
        only.cloned()
    }

    /// What is there at this moment.
    pub fn models(&self) -> Models<Arc<Model>> {
        self.models.borrow().clone()
    }

    /// Tells when that changes.
    pub fn watch(&self) -> watch::Receiver<Models<Arc<Model>>> {
        self.models.subscribe()
    }

    /// A model that comes from no source.
    pub fn add(&self, model: Model) {
        let mut ended = Vec::new();
        self.models.send_modify(|models| ended = models.put(Arc::new(model), true));
    }

    /// Whether clients may change what this process does.
    pub fn control(&self) -> Control {
        self.control
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What is there, and what might be loaded.
    ///
    /// # Errors
    /// [`CatalogueError`] if the repository cannot be read.
    pub async fn index(self: &Arc<Self>) -> Result<Models<Arc<Model>>, CatalogueError> {
        let mut models = self.models();
        if self.control == Control::Explicit {
            let catalogue = self.clone();
            let names = self.loader.run(move || catalogue.sources.names()).await.ok_or(CatalogueError::Panicked)??;
            names.iter().for_each(|name| models.known(name));
        }
        Ok(models)
    }

    /// Loads a model, or loads it anew: each version beside the one that runs, which it replaces once it is warm. What has begun
    /// is finished, even if nobody waits for it any more.
    ///
    /// # Errors
    /// [`CatalogueError`] says why not; what ran then goes on.
    pub async fn load(self: &Arc<Self>, name: &str) -> Result<(), CatalogueError> {
        self.controlled("load")?;
        tokio::spawn(self.clone().bring(name.into())).await.map_err(|_| CatalogueError::Panicked)?
    }

    /// Ends a model, once what it has begun is answered.
    ///
    /// # Errors
    /// [`CatalogueError`] if it is not there.
    pub async fn unload(&self, name: &str) -> Result<(), CatalogueError> {
        self.controlled("unload")?;
        let _one = self.loading.lock().await;
        let mut ended = None;
        self.models.send_modify(|models| ended = models.unload(name));
        match ended {
            Some(_) => {
                tracing::info!(model = name, "unloaded");
                Ok(())
            }
            None => Err(CatalogueError::Unknown { name: name.into() }),
        }
    }

    fn controlled(&self, verb: &'static str) -> Result<(), CatalogueError> {
        if self.control == Control::None { Err(CatalogueError::Denied { verb }) } else { Ok(()) }
    }

    async fn bring(self: Arc<Self>, name: String) -> Result<(), CatalogueError> {
        let _one = self.loading.lock().await;
        let (catalogue, asked) = (self.clone(), name.clone());
        let sources =
            self.loader.run(move || catalogue.sources.find(&asked)).await.ok_or(CatalogueError::Panicked)??;
        let found: Vec<_> = sources.iter().filter_map(|source| source.version.clone()).collect();
        let mut failed = None;
        for source in sources {
            let version = source.version.clone();
            if let Err(why) = self.swap(&name, source).await {
                tracing::error!(model = name, version, why, "not loaded");
                self.models.send_modify(|models| models.failed(&name, version.as_deref(), &why));
                failed.get_or_insert(why);
            }
        }
        if !found.is_empty() {
            let mut ended = Vec::new();
            self.models.send_modify(|models| ended = models.keep(&name, &found));
            ended.iter().for_each(|entry| tracing::info!(model = name, version = entry.version, "gone"));
        }
        failed.map_or(Ok(()), |why| Err(CatalogueError::Failed { name, why }))
    }

    /// Loads one version, and puts it in the place of the one that it replaces.
    async fn swap(self: &Arc<Self>, name: &str, source: Source) -> Result<(), String> {
        let (catalogue, name) = (self.clone(), name.to_owned());
        let alone = source.version.is_none();
        let started = self.loader.run(move || {
            if catalogue.models.borrow().running().next().is_some() {
                room::check(&source.folder, &catalogue.settings.variant)?;
            }
            catalogue.settings.start(&name, &source, &catalogue.metrics)
        });
        let model = started.await.ok_or_else(|| CatalogueError::Panicked.to_string())?.map_err(|error| told(&error))?;
        // Dropped where nobody waits for a lock.
        let mut ended = Vec::new();
        self.models.send_modify(|models| ended = models.put(Arc::new(model), alone));
        Ok(())
    }
}

/// An error with all that it came from, as the reason that clients are told.
fn told(error: &LoadError) -> String {
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        why += &format!(": {error}");
        source = error.source();
    }
    why
}
