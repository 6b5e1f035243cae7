//! An artifact as the layers of a CNCF ModelPack: one raw layer per file.

use super::ArtifactError;
use crate::digest;
use std::path::{Path, PathBuf};

/// A layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// In the artifact, with `/` between folders; the annotation `org.cncf.model.filepath`.
    pub path: String,
    pub media_type: &'static str,
    pub digest: String,
    pub bytes: Vec<u8>,
}

/// What ModelPack calls a file of ours.
pub fn media_type(path: &str) -> &'static str {
    if path.starts_with("weights/") {
        "application/vnd.cncf.model.weight.v1.raw"
    } else if path == super::EVALUATION {
        "application/vnd.cncf.model.doc.v1.raw"
    } else {
        "application/vnd.cncf.model.weight.config.v1.raw"
    }
}

/// The files of an artifact's folder, in the order of their paths.
///
/// # Errors
/// [`ArtifactError`] if one cannot be read.
pub fn files(folder: &Path) -> Result<Vec<File>, ArtifactError> {
    let mut paths = Vec::new();
    walk(folder, folder, &mut paths)?;
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let bytes = super::read(folder, &path)?;
            Ok(File { media_type: media_type(&path), digest: digest::sha256(&bytes), path, bytes })
        })
        .collect()
}

fn walk(root: &Path, folder: &Path, paths: &mut Vec<String>) -> Result<(), ArtifactError> {
    let read = |path: PathBuf| move |source| ArtifactError::Read { path, source };
    for entry in std::fs::read_dir(folder).map_err(read(folder.into()))? {
        let path = entry.map_err(read(folder.into()))?.path();
        if path.is_dir() {
            walk(root, &path, paths)?;
        } else if let Ok(inside) = path.strip_prefix(root) {
            paths.push(inside.to_string_lossy().into_owned());
        }
    }
    Ok(())
}
