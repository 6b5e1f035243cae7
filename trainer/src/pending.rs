//! A finished artifact that waits to be published: who meets a registry that is down, or is ended meanwhile, publishes it the next time
//! and makes nothing anew.

use crate::output::beside;
use crate::publish::Pack;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Kept beside the artifact's folder until it is published.
#[derive(Serialize, Deserialize)]
pub struct Pending {
    /// What it was made of, and how: that of another run is made anew.
    pub made_of: String,
    /// Of the artifact.
    pub digest: String,
    /// What is told of the run, once it is published.
    pub result: Value,
}

impl Pending {
    /// Written aside, then renamed: whole or absent.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn write(&self, output: &Path) -> io::Result<()> {
        let (path, new) = (path(output), beside(output, "pending.new"));
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(new, path)
    }

    /// What waits in this folder, if it was made so and is whole.
    pub fn read(output: &Path, made_of: &str) -> Option<Self> {
        let pending: Self = serde_json::from_slice(&std::fs::read(path(output)).ok()?).ok()?;
        let is_whole = || Pack::new(output).is_ok_and(|pack| pack.digest() == pending.digest);
        (pending.made_of == made_of && is_whole()).then_some(pending)
    }

    /// Once it is published.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(output: &Path) -> io::Result<()> {
        match std::fs::remove_file(path(output)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

fn path(output: &Path) -> PathBuf {
    beside(output, "pending")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_so_and_is_whole_is_published_later() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("artifact");
        sconce_model::artifact::testing::write_tiny(&output, 7).unwrap();
        let digest = Pack::new(&output).unwrap().digest();
        let read = |made_of: &str| Pending::read(&output, made_of).map(|pending| pending.result);
        assert_eq!(read("a"), None);
        Pending { made_of: "a".into(), digest, result: Value::from(7) }.write(&output).unwrap();
        assert_eq!((read("a"), read("b")), (Some(Value::from(7)), None));
        sconce_model::artifact::testing::write_tiny(&output, 8).unwrap();
        assert_eq!(read("a"), None, "another artifact lies there");
        Pending::remove(&output).unwrap();
        Pending::remove(&output).unwrap();
    }
}
