//! Tells when a folder may have changed.

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Some file systems tell nothing of their changes: so often a folder is looked into without being told.
const ANYWAY: Duration = Duration::from_secs(5);

pub struct Changes {
    folder: PathBuf,
    depth: RecursiveMode,
    /// Held, so that nobody takes a folder that is not watched for one that has changed.
    bell: mpsc::Sender<()>,
    rung: mpsc::Receiver<()>,
    /// `None`: it cannot be watched, yet.
    watcher: Option<RecommendedWatcher>,
    anyway: Duration,
}

impl Changes {
    /// To be called before the folder is read, so that no change falls between.
    pub fn of(folder: &Path, depth: RecursiveMode) -> Self {
        let (bell, rung) = mpsc::channel(1);
        let watcher = watch(folder, depth, &bell).inspect_err(|error| {
            tracing::warn!(folder = %folder.display(), %error, "not watched: looked into every 5 s");
        });
        Self { folder: folder.into(), depth, bell, rung, watcher: watcher.ok(), anyway: ANYWAY }
    }

    /// Completes when the folder is worth looking into again.
    pub async fn next(&mut self) {
        timeout(self.anyway, self.rung.recv()).await.ok();
        // It may be there by now.
        self.watcher = self.watcher.take().or_else(|| watch(&self.folder, self.depth, &self.bell).ok());
    }
}

fn watch(folder: &Path, depth: RecursiveMode, bell: &mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let bell = bell.clone();
    let mut watcher = notify::recommended_watcher(move |event| {
        if is_change(&event) {
            bell.try_send(()).ok();
        }
    })?;
    watcher.watch(folder, depth)?;
    Ok(watcher)
}

/// Who reads changes nothing: we do, too, whenever we are told.
fn is_change(event: &notify::Result<notify::Event>) -> bool {
    !event.as_ref().is_ok_and(|event| event.kind.is_access())
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{AccessKind, AccessMode, CreateKind, EventKind};

    /// It was said to have changed, again and again, without a pause.
    #[tokio::test]
    async fn a_folder_that_is_not_there_yet_is_waited_for_and_watched_then() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("inbox");
        let mut changes = Changes::of(&folder, RecursiveMode::Recursive);
        assert!(timeout(ANYWAY / 100, changes.next()).await.is_err(), "nothing has changed");
        std::fs::create_dir(&folder).unwrap();
        changes.anyway = Duration::ZERO;
        changes.next().await;
        changes.anyway = Duration::MAX;
        std::fs::write(folder.join("a.png"), "").unwrap();
        timeout(Duration::from_secs(60), changes.next()).await.expect("it is watched");
    }

    #[test]
    fn a_reader_changes_nothing() {
        let told = |kind| is_change(&Ok(notify::Event::new(kind)));
        assert!(!told(EventKind::Access(AccessKind::Open(AccessMode::Any))));
        assert!(told(EventKind::Create(CreateKind::File)));
        assert!(is_change(&Err(notify::Error::generic("events were lost"))));
    }
}
