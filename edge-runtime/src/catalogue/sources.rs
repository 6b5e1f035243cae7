//! Where models come from: folders that have been named one by one, and a repository in Triton's layout.

use super::models::listed;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The folder of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `None`: the artifact says, and its model has no other.
    pub version: Option<String>,
    pub folder: PathBuf,
    /// Of the manifest, where one is asked for.
    pub digest: Option<String>,
}

/// All that may be loaded.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    folders: BTreeMap<String, Source>,
    /// `NAME/VERSION/…`, each an artifact.
    repository: Option<PathBuf>,
}

#[derive(Debug, Error)]
pub enum SourceError {
    #[error("model \"{name}\" is given twice; give each another name")]
    Twice { name: String },
    #[error("no model \"{name}\" to load; there are {known}")]
    Unknown { name: String, known: String },
    #[error("cannot read {}: {why}", path.display())]
    Read { path: PathBuf, why: io::Error },
    #[error("{} has no version: a folder named by a number, such as 1, with an artifact in it", path.display())]
    NoVersion { path: PathBuf },
    #[error("{} has no model: a folder NAME with a folder for each version, such as NAME/1", path.display())]
    NoModel { path: PathBuf },
}

impl Sources {
    /// # Errors
    /// [`SourceError`] if two models have the same name.
    pub fn new(
        folders: impl IntoIterator<Item = (String, Source)>,
        repository: Option<PathBuf>,
    ) -> Result<Self, SourceError> {
        let mut sources = Self { folders: BTreeMap::new(), repository: None };
        for (name, source) in folders {
            if sources.folders.insert(name.clone(), source).is_some() {
                return Err(SourceError::Twice { name });
            }
        }
        sources.repository = repository;
        if let Some(name) = sources.in_repository()?.into_iter().find(|name| sources.folders.contains_key(name)) {
            return Err(SourceError::Twice { name });
        }
        Ok(sources)
    }

    /// Names of those that have a folder of their own.
    pub fn alone(&self) -> Vec<String> {
        self.folders.keys().cloned().collect()
    }

    /// All names.
    ///
    /// # Errors
    /// [`SourceError`] if there is a repository and it cannot be read, or has none.
    pub fn names(&self) -> Result<Vec<String>, SourceError> {
        let in_repository = self.in_repository()?;
        if let Some(path) = self.repository.clone().filter(|_| in_repository.is_empty()) {
            return Err(SourceError::NoModel { path });
        }
        Ok(self.folders.keys().cloned().chain(in_repository).collect())
    }

    fn in_repository(&self) -> Result<Vec<String>, SourceError> {
        self.repository.as_deref().map_or(Ok(Vec::new()), folders)
    }

    /// The versions of a model, the newest last; at least one.
    ///
    /// # Errors
    /// [`SourceError`] if there is no such model, or no version of it.
    pub fn find(&self, name: &str) -> Result<Vec<Source>, SourceError> {
        if let Some(source) = self.folders.get(name) {
            return Ok(vec![source.clone()]);
        }
        let in_repository = self.in_repository()?;
        // Only a name that is there becomes part of a path.
        let Some(repository) = self.repository.as_ref().filter(|_| in_repository.iter().any(|known| known == name))
        else {
            let known = listed(self.folders.keys().chain(&in_repository));
            return Err(SourceError::Unknown { name: name.into(), known });
        };
        let path = repository.join(name);
        let mut versions: Vec<u64> = folders(&path)?.iter().filter_map(|name| number(name)).collect();
        versions.sort_unstable();
        if versions.is_empty() {
            return Err(SourceError::NoVersion { path });
        }
        let source = |version: u64| {
            let version = version.to_string();
            Source { folder: path.join(&version), version: Some(version), digest: None }
        };
        Ok(versions.into_iter().map(source).collect())
    }
}

/// As Triton has it: a number without zeros before it.
fn number(name: &str) -> Option<u64> {
    name.parse().ok().filter(|number: &u64| number.to_string() == name)
}

/// Names of the folders in a folder, sorted; those that begin with a dot belong to others.
fn folders(path: &Path) -> Result<Vec<String>, SourceError> {
    let read = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in path.read_dir()? {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().filter(|name| !name.starts_with('.'));
            // Links are followed.
            if let Some(name) = name.filter(|_| entry.path().is_dir()) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    };
    read().map_err(|why| SourceError::Read { path: path.into(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(folder: &Path, version: Option<&str>) -> Source {
        Source { version: version.map(str::to_owned), folder: folder.into(), digest: None }
    }

    #[test]
    fn a_repository_has_models_and_their_versions_by_number() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["digits/1", "digits/10", "digits/9", "digits/09", "digits/old", "digits/.tmp", "empty", ".git/1"] {
            std::fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        std::fs::write(folder.path().join("digits/3"), "no folder").unwrap();
        std::fs::write(folder.path().join("README"), "no model").unwrap();
        let alone = source(Path::new("/models"), None);
        let sources = Sources::new([("alone".into(), alone.clone())], Some(folder.path().into())).unwrap();
        assert_eq!(sources.names().unwrap(), ["alone", "digits", "empty"]);
        assert_eq!(sources.find("alone").unwrap(), std::slice::from_ref(&alone));
        let of = |version: &str| source(&folder.path().join("digits").join(version), Some(version));
        assert_eq!(sources.find("digits").unwrap(), [of("1"), of("9"), of("10")]);
        let told = |name: &str| sources.find(name).unwrap_err().to_string();
        assert!(
            told("empty")
                .ends_with("empty has no version: a folder named by a number, such as 1, with an artifact in it")
        );
        for name in ["other", "../digits", "digits/1", ".git", "README", ""] {
            assert_eq!(told(name), format!("no model \"{name}\" to load; there are \"alone\", \"digits\", \"empty\""));
        }
        let twice = Sources::new([("digits".into(), alone)], Some(folder.path().into())).unwrap_err();
        assert_eq!(twice.to_string(), "model \"digits\" is given twice; give each another name");
    }

    #[test]
    fn a_repository_that_is_none_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources::new([], Some(folder.path().into())).unwrap();
        assert!(
            sources.names().unwrap_err().to_string().contains("has no model: a folder NAME with a folder for each")
        );
        let missing = Sources::new([], Some(folder.path().join("missing"))).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read ") && missing.contains("No such file"), "{missing}");
    }
}
