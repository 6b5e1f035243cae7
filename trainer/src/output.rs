//! The artifact's folder: replaced as a whole, and only if what it holds is an artifact.

use sconce_model::artifact::signature::SIGNATURE;
use sconce_model::artifact::{self, ArtifactError, Description};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use thiserror::Error;

const PARTS: [&str; 6] =
    [artifact::CONFIG, artifact::PREPROCESS, artifact::VARIANTS, artifact::EVALUATION, SIGNATURE, "weights"];

#[derive(Debug, Error)]
pub enum OutputError {
    #[error("{} holds \"{entry}\", which is no part of an artifact: name another folder", folder.display())]
    NotOurs { folder: PathBuf, entry: String },
    #[error("cannot replace {}", folder.display())]
    Replace { folder: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

/// Checks, before hours of training, that the folder may be replaced: absent, empty, or an artifact.
///
/// # Errors
/// [`OutputError`] names what lies there.
pub fn check(folder: &Path) -> Result<(), OutputError> {
    let unreadable = |source| OutputError::Replace { folder: folder.into(), source };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(unreadable)?,
    };
    for entry in entries {
        let entry = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        if !PARTS.contains(&entry.as_str()) {
            return Err(OutputError::NotOurs { folder: folder.into(), entry });
        }
    }
    Ok(())
}

/// Writes the artifact beside the folder, then puts it in its place: whoever stops us finds the old one or the new one, in the moment
/// between two renames the old one as `FOLDER.old`.
///
/// # Errors
/// [`OutputError`] if the folder may not be replaced, or cannot be written.
pub fn write(folder: &Path, description: &Description<'_>) -> Result<(), OutputError> {
    check(folder)?;
    let partial = beside(folder, "partial");
    let replace = |source| OutputError::Replace { folder: folder.into(), source };
    remove(&partial).map_err(replace)?;
    artifact::write(&partial, description)?;
    let old = beside(folder, "old");
    remove(&old).map_err(replace)?;
    match std::fs::rename(folder, &old) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        renamed => renamed.map_err(replace)?,
    }
    std::fs::rename(&partial, folder).map_err(replace)?;
    remove(&old).map_err(replace)
}

/// `digits.partial` beside `digits`, and beside `digits/` as well.
pub fn beside(folder: &Path, what: &str) -> PathBuf {
    let mut name = folder.components().as_path().as_os_str().to_owned();
    name.push(".");
    name.push(what);
    name.into()
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_artifacts_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        check(&folder.path().join("absent")).unwrap();
        check(folder.path()).unwrap();
        artifact::testing::write_tiny(folder.path(), 7).unwrap();
        std::fs::write(folder.path().join(SIGNATURE), "{}").unwrap();
        check(folder.path()).unwrap();
        std::fs::write(folder.path().join("thesis.tex"), "years of work").unwrap();
        let error = check(folder.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("holds \"thesis.tex\", which is no part of an artifact: name another folder"),
            "{error}"
        );
    }
}
