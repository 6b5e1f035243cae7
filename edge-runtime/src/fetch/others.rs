//! Files that other versions of the store have already: of an update that changes a model's head, only the head is fetched.

use super::{appear, partial_of};
use crate::load::{FILE_PATH, MANIFEST, Manifest, digest_of};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where files of other versions should lie, by their digests.
#[derive(Default)]
pub(super) struct Others(BTreeMap<String, Vec<PathBuf>>);

impl Others {
    /// Those in the folders beside this one.
    pub fn beside(folder: &Path) -> Self {
        let mut known = BTreeMap::<String, Vec<PathBuf>>::new();
        let entries = folder.parent().and_then(|store| std::fs::read_dir(store).ok()).into_iter().flatten().flatten();
        for other in entries.map(|entry| entry.path()).filter(|other| other != folder) {
            let bytes = std::fs::read(other.join(MANIFEST)).unwrap_or_default();
            let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { continue };
            for layer in manifest.layers {
                if let Some(path) = layer.annotations.get(FILE_PATH) {
                    known.entry(layer.digest).or_default().push(other.join(path));
                }
            }
        }
        Self(known)
    }

    /// Copies a file with this digest from a version that has it. A copy, not a link: what rots there does not rot here.
    pub fn give(&self, digest: &str, target: &Path) -> bool {
        let partial = partial_of(target);
        let copied = |file: &&PathBuf| {
            // Whoever deletes a version meanwhile takes nothing that the registry has not.
            let right = digest_of(file).is_ok_and(|got| got == digest)
                && std::fs::copy(file, &partial).is_ok()
                && digest_of(&partial).is_ok_and(|got| got == digest)
                && std::fs::File::open(&partial).is_ok_and(|file| file.sync_all().is_ok());
            right && appear(&partial, target).is_ok()
        };
        let given = self.0.get(digest).and_then(|files| files.iter().find(copied));
        if let Some(file) = given {
            tracing::info!(digest, from = %file.display(), "another version has it");
        }
        given.is_some()
    }
}
