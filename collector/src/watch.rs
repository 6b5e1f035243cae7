//! Tells when a folder may have changed.

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Some file systems tell nothing of their changes: so often a folder is looked into without being told.
const ANYWAY: Duration = Duration::from_secs(5);

pub struct Changes {
    rung: mpsc::Receiver<()>,
    /// `None`: it cannot be watched.
    _watcher: Option<RecommendedWatcher>,
}

impl Changes {
    /// To be called before the folder is read, so that no change falls between.
    pub fn of(folder: &Path, depth: RecursiveMode) -> Self {
        let (bell, rung) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event| {
            if is_change(&event) {
                bell.try_send(()).ok();
            }
        });
        let watched = watcher.and_then(|mut watcher| watcher.watch(folder, depth).map(|()| watcher));
        let watcher = watched.inspect_err(|error| {
            tracing::warn!(folder = %folder.display(), %error, "not watched: looked into every 5 s");
        });
        Self { rung, _watcher: watcher.ok() }
    }

    /// Completes when the folder is worth looking into again.
    pub async fn next(&mut self) {
        timeout(ANYWAY, self.rung.recv()).await.ok();
    }
}

/// Who reads changes nothing: we do, too, whenever we are told.
fn is_change(event: &notify::Result<notify::Event>) -> bool {
    !event.as_ref().is_ok_and(|event| event.kind.is_access())
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{AccessKind, AccessMode, CreateKind, EventKind};

    #[test]
    fn a_reader_changes_nothing() {
        let told = |kind| is_change(&Ok(notify::Event::new(kind)));
        assert!(!told(EventKind::Access(AccessKind::Open(AccessMode::Any))));
        assert!(told(EventKind::Create(CreateKind::File)));
        assert!(is_change(&Err(notify::Error::generic("events were lost"))));
    }
}
