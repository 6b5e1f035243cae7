//! Tells when files may have changed.

use anyhow::Context as _;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;

/// Some file systems tell nothing of their changes: so often files are read without being told.
const ANYWAY: Duration = Duration::from_secs(5);

/// Of the folders of some files: Kubernetes swaps a link beside them, which leads to all of them.
pub struct Changes {
    rung: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

impl Changes {
    /// To be called before the files are read, so that no change falls between.
    ///
    /// # Errors
    /// If a folder cannot be watched.
    pub fn near<'a>(files: impl IntoIterator<Item = &'a Path>) -> anyhow::Result<Self> {
        // The watcher's thread only rings: files are read in order, on the runtime.
        let (bell, rung) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if !event.is_ok_and(|event| event.kind.is_access()) {
                bell.try_send(()).ok();
            }
        })?;
        let folder = |file: &'a Path| {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            folder.unwrap_or(Path::new("."))
        };
        for folder in files.into_iter().map(folder).collect::<BTreeSet<_>>() {
            watcher
                .watch(folder, RecursiveMode::NonRecursive)
                .with_context(|| format!("cannot watch {}", folder.display()))?;
        }
        Ok(Self { rung, _watcher: watcher })
    }

    /// Completes when the files are worth reading again.
    pub async fn next(&mut self) {
        tokio::time::timeout(ANYWAY, self.rung.recv()).await.ok();
    }
}
