//! What one user asked of the API server, by its audit log.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// The log, read up to here. When a file of it is full, the API server gives it another name, and begins the next.
pub struct Audit {
    folder: PathBuf,
    user: &'static str,
    /// Of each file, by its number on the disk, what of it is read.
    read: BTreeMap<u64, u64>,
}

/// Requests by verb and resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests(BTreeMap<(String, String), u64>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: Option<Object>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct Object {
    resource: String,
    subresource: Option<String>,
}

impl Audit {
    /// The folder holds `audit.log`, and `audit-….log` that are full.
    pub fn new(folder: PathBuf, user: &'static str) -> Self {
        Self { folder, user, read: BTreeMap::new() }
    }

    /// What was asked since the last call. A line that is not whole yet waits for the next one.
    pub fn since(&mut self) -> Result<Requests> {
        let mut requests = Requests::default();
        for entry in self.folder.read_dir().with_context(|| format!("reading {}", self.folder.display()))? {
            let file = entry?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if !name.starts_with("audit") || !name.ends_with(".log") {
                continue;
            }
            // One that gets another name just now is read next time.
            let Ok(mut file) = std::fs::File::open(&file) else { continue };
            let read = self.read.entry(file.metadata()?.ino()).or_default();
            file.seek(SeekFrom::Start(*read))?;
            let (mut lines, mut line) = (BufReader::new(file), String::new());
            while lines.read_line(&mut line)? > 0 && line.ends_with('\n') {
                *read += u64::try_from(line.len())?;
                requests.add(&line, self.user)?;
                line.clear();
            }
        }
        Ok(requests)
    }
}

impl Requests {
    fn add(&mut self, line: &str, user: &str) -> Result<()> {
        let entry: Entry = serde_json::from_str(line).context("the audit log has a line that is no event")?;
        let Some(object) = entry.object_ref.filter(|_| entry.user.username == user) else { return Ok(()) };
        let resource = [Some(object.resource), object.subresource].into_iter().flatten().collect::<Vec<_>>().join("/");
        *self.0.entry((entry.verb, resource)).or_default() += 1;
        Ok(())
    }

    pub fn and(mut self, more: Self) -> Self {
        for (key, count) in more.0 {
            *self.0.entry(key).or_default() += count;
        }
        self
    }

    fn sum(&self, of: impl Fn(&str) -> bool) -> u64 {
        self.0.iter().filter(|((verb, _), _)| of(verb)).map(|(_, count)| count).sum()
    }

    pub fn writes(&self) -> u64 {
        self.sum(|verb| !matches!(verb, "get" | "list" | "watch"))
    }

    /// Of the kind that was listed most.
    pub fn lists(&self) -> u64 {
        self.0.iter().filter(|((verb, _), _)| verb == "list").map(|(_, count)| *count).max().unwrap_or(0)
    }
}

/// `patch 12 (deployments 8, edgeplacements/status 4) · watch 3 (pods 3)`.
impl Display for Requests {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut verbs: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for ((verb, resource), count) in &self.0 {
            verbs.entry(verb).or_default().push(format!("{resource} {count}"));
        }
        let verb =
            |(verb, of): (&&str, &Vec<String>)| format!("{verb} {} ({})", self.sum(|v| v == *verb), of.join(", "));
        f.write_str(&verbs.iter().map(verb).collect::<Vec<_>>().join(" · "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(verb: &str, user: &str, resource: &str) -> String {
        serde_json::json!({"verb": verb, "user": {"username": user}, "objectRef": {"resource": resource}}).to_string()
    }

    #[test]
    fn requests_of_one_user_are_counted_by_verb_and_resource() {
        let mut requests = Requests::default();
        for (verb, user, resource) in
            [("patch", "me", "pods"), ("patch", "me", "pods"), ("list", "me", "nodes"), ("patch", "you", "pods")]
        {
            requests.add(&line(verb, user, resource), "me").unwrap();
        }
        assert_eq!(requests.to_string(), "list 1 (nodes 1) · patch 2 (pods 2)");
        assert_eq!((requests.writes(), requests.lists()), (2, 1));
        assert!(requests.add("half a li", "me").is_err());
    }

    #[test]
    fn a_line_that_is_being_written_waits_and_a_file_that_is_full_is_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.log");
        let whole = line("patch", "me", "pods");
        std::fs::write(&file, format!("{whole}\n{}", &whole[..9])).unwrap();
        let mut audit = Audit::new(folder.path().into(), "me");
        assert_eq!(audit.since().unwrap().writes(), 1);
        std::fs::write(&file, format!("{whole}\n{whole}\n")).unwrap();
        assert_eq!(audit.since().unwrap().writes(), 1);
        assert_eq!(audit.since().unwrap(), Requests::default());
        let full = folder.path().join("audit-2026-11-29T03-00-00.000.log");
        std::fs::rename(&file, &full).unwrap();
        std::fs::write(&full, format!("{whole}\n{whole}\n{whole}\n")).unwrap();
        std::fs::write(&file, format!("{whole}\n")).unwrap();
        assert_eq!(audit.since().unwrap().writes(), 2);
    }
}
