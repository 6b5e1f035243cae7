//! The artifact's folder: replaced as a whole, and only if what it holds is an artifact.

use sconce_model::artifact::signature::SIGNATURE;
use sconce_model::artifact::{self, ArtifactError, Description};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use thiserror::Error;

const PARTS: [&str; 7] =
    [artifact::CONFIG, artifact::PREPROCESS, artifact::VARIANTS, artifact::EVALUATION, SIGNATURE, "weights", "report"];

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

/// Removes the folders of earlier runs, save that of `output` and the newest other one. What is empty, or holds anything but an artifact
/// and what lies beside it, is nobody's run, and stays.
///
/// # Errors
/// If one cannot be removed.
pub fn prune(runs: &Path, output: &Path) -> std::io::Result<()> {
    // However the two were typed.
    let (runs, output) = (std::path::absolute(runs)?, std::path::absolute(output)?);
    let entries = match std::fs::read_dir(&runs) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let name = output.components().next_back().map(|name| name.as_os_str().to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let mut others = Vec::new();
    for entry in entries {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() && !output.starts_with(&path) && is_run(&path, &name)? {
            others.push((entry.metadata()?.modified()?, path));
        }
    }
    others.sort();
    others.pop();
    others.iter().try_for_each(|(_, path)| remove(path))
}

/// Whether a folder holds nothing but what a run leaves whose artifact has this name.
fn is_run(folder: &Path, name: &str) -> std::io::Result<bool> {
    let mut is_any = false;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?.file_name().to_string_lossy().into_owned();
        let rest = entry.strip_prefix(name);
        if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
            return Ok(false);
        }
        is_any = true;
    }
    Ok(is_any && check(&folder.join(name)).is_ok())
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

    /// A claim filled up with the folders of all runs that there ever were.
    #[test]
    fn of_earlier_runs_the_newest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("digits");
        let made = |name: &str, age: u64| {
            std::fs::create_dir_all(runs.join(name).join("artifact/weights")).unwrap();
            std::fs::create_dir_all(runs.join(name).join("artifact.checkpoints")).unwrap();
            let time = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
            std::fs::File::open(runs.join(name)).unwrap().set_modified(time).unwrap();
        };
        [("one", 300), ("two", 100), ("three", 200), ("now", 400), ("notes", 500)]
            .into_iter()
            .for_each(|(name, age)| made(name, age));
        std::fs::write(runs.join("notes/thesis.tex"), "years of work").unwrap();
        std::fs::write(runs.join("file"), "").unwrap();
        prune(&runs, &runs.join("now/artifact")).unwrap();
        let mut left: Vec<_> =
            std::fs::read_dir(&runs).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["file", "notes", "now", "two"]);
        prune(&folder.path().join("absent"), &folder.path().join("absent/now/artifact")).unwrap();
    }
}
