//! Keeps the table of backends as the routes file says. A file that cannot be read changes nothing.

use super::backend::Backend;
use super::routes::{Address, Routes, parse};
use crate::watch::Changes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The backends of every model that is routed.
#[derive(Clone, Default)]
pub struct Table {
    pub models: BTreeMap<String, Vec<Arc<Backend>>>,
    /// Names that have been routed since the router started: an absence may be short.
    pub known: BTreeSet<String>,
    /// A routes file has been read.
    pub loaded: bool,
}

impl Table {
    /// The next table. Connections to backends that stay are kept; those of backends that go end with their last request.
    fn next(&self, routes: &Routes) -> Self {
        let mut backends: BTreeMap<Address, Arc<Backend>> = self
            .models
            .values()
            .flatten()
            .map(|backend| (Address { tier: backend.tier.clone(), address: backend.address }, backend.clone()))
            .collect();
        let mut models = BTreeMap::new();
        for (name, route) in &routes.models {
            let mut of_model = Vec::with_capacity(route.backends.len());
            for address in &route.backends {
                if !backends.contains_key(address) {
                    match Backend::new(address) {
                        Ok(backend) => drop(backends.insert(address.clone(), Arc::new(backend))),
                        Err(error) => tracing::warn!(model = name, ?address, %error, "not an address"),
                    }
                }
                of_model.extend(backends.get(address).cloned());
            }
            models.insert(name.clone(), of_model);
        }
        let known = self.known.iter().chain(models.keys()).cloned().collect();
        Self { models, known, loaded: true }
    }
}

/// Reads the file now and whenever it changes, until what comes with the table is dropped.
///
/// # Errors
/// If the file's folder cannot be watched.
pub fn watch(file: &Path) -> anyhow::Result<(watch::Receiver<Arc<Table>>, impl Sized)> {
    let (table, receiver) = watch::channel(Arc::new(Table::default()));
    let mut changes = Changes::near([file])?;
    let mut reader = Reader { file: file.to_owned(), table, last: None };
    reader.read();
    let mut reading = JoinSet::new();
    reading.spawn(async move {
        loop {
            changes.next().await;
            reader.read();
        }
    });
    Ok((receiver, reading))
}

struct Reader {
    file: PathBuf,
    table: watch::Sender<Arc<Table>>,
    /// What the file held when it was last read.
    last: Option<Vec<u8>>,
}

impl Reader {
    fn read(&mut self) {
        let bytes = match std::fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => {
                return tracing::warn!(file = %self.file.display(), %error, "cannot read routes: keeping what is known");
            }
        };
        if self.last.as_ref() == Some(&bytes) {
            return;
        }
        match parse(&bytes) {
            Ok(routes) => {
                let next = self.table.borrow().next(&routes);
                tracing::info!(models = next.models.len(), "routes");
                self.table.send_replace(Arc::new(next));
            }
            Err(error) => tracing::warn!(file = %self.file.display(), %error, "bad routes: keeping what is known"),
        }
        self.last = Some(bytes);
    }
}
