//! Keeps the table of backends as the routes file says. A file that cannot be read changes nothing.

use super::backend::Backend;
use super::routes::{Address, Routes, parse};
use notify::{RecursiveMode, Watcher as _};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

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

/// Reads the file now and whenever its folder changes. The watcher stops when it is dropped.
///
/// # Errors
/// If the file's folder cannot be watched.
pub fn watch(file: &Path) -> anyhow::Result<(watch::Receiver<Arc<Table>>, impl Sized)> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let (table, receiver) = watch::channel(Arc::new(Table::default()));
    let table = Arc::new(table);
    let (read_file, read_table) = (file.to_owned(), table.clone());
    let read = move || {
        let routes = match std::fs::read(&read_file) {
            Ok(bytes) => parse(&bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => return tracing::warn!(file = %read_file.display(), %error, "cannot read routes: keeping what is known"),
        };
        match routes {
            Ok(routes) => {
                let next = read_table.borrow().next(&routes);
                tracing::info!(models = next.models.len(), "routes");
                read_table.send_replace(Arc::new(next));
            }
            Err(error) => tracing::warn!(file = %read_file.display(), %error, "bad routes: keeping what is known"),
        }
    };
    // Watched before it is read, so that no change falls between.
    let on_change = {
        let (read, mut last) = (read.clone(), None);
        let file = file.to_owned();
        move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            let bytes = std::fs::read(&file).ok();
            if bytes != last {
                last = bytes;
                read();
            }
        }
    };
    let mut watcher = notify::recommended_watcher(on_change)?;
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    read();
    Ok((receiver, (watcher, table)))
}
