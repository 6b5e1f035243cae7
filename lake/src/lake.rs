//! A data set: its shards one after the other, its labels.

use crate::labels::{self, Given, Label, Labels};
use crate::place::{Bucket, Place};
use crate::rows::{self, Row};
use crate::{LakeError, id, tar};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

pub(crate) const MANIFESTS: &str = "manifests";
pub(crate) const SHARDS: &str = "shards";
pub(crate) const LABELS: &str = "labels";

pub struct Lake {
    place: Place,
}

/// What was sent at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    pub name: String,
    /// None where all samples stand in the manifest.
    pub(crate) tars: Vec<String>,
    /// Whether its manifest is there.
    pub(crate) is_whole: bool,
    /// Samples that nobody reads, though they may be in it yet.
    pub(crate) forgotten: Arc<BTreeSet<String>>,
}

impl Lake {
    /// `s3://BUCKET/PREFIX`, by credentials and endpoint of the environment, or `file:///FOLDER`.
    ///
    /// # Errors
    /// [`LakeError::Uri`] of another address, [`LakeError::Folder`] if there is no such folder, [`LakeError::Open`] if the
    /// environment makes no client.
    pub fn open(uri: &str) -> Result<Self, LakeError> {
        match uri.split_once("://") {
            Some(("s3", place)) if !place.is_empty() => {
                let bucket = Bucket::new(place).map_err(|why| LakeError::Open { uri: uri.into(), why })?;
                Ok(Self { place: Place::Bucket(bucket) })
            }
            Some(("file", folder)) if folder.starts_with('/') => {
                if !Path::new(folder).is_dir() {
                    return Err(LakeError::Folder { uri: uri.into() });
                }
                Ok(Self { place: Place::Folder(folder.into()) })
            }
            _ => Err(LakeError::Uri { uri: uri.into() }),
        }
    }

    /// Those that are whole, by name. A tar whose manifest is not there yet is none.
    ///
    /// # Errors
    /// [`LakeError::Read`].
    pub async fn shards(&self) -> Result<Vec<Shard>, LakeError> {
        Ok(self.listed(&Arc::new(self.forgotten().await?)).await?.0)
    }

    /// Those that are whole, and those of which there are tars alone.
    pub(crate) async fn listed(
        &self,
        forgotten: &Arc<BTreeSet<String>>,
    ) -> Result<(Vec<Shard>, Vec<Shard>), LakeError> {
        // In this order: whose manifest is there, has its tar there.
        let manifests = self.list(MANIFESTS, ".parquet").await?;
        let mut tars: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in self.list(SHARDS, ".tar").await? {
            let stem = file.trim_end_matches(".tar");
            let name = stem.rsplit_once('-').map_or(stem, |(name, _)| name).to_owned();
            tars.entry(name).or_default().push(file);
        }
        let shard = |name: String, tars: Vec<String>, is_whole| {
            let forgotten = forgotten.clone();
            Shard { name, tars, is_whole, forgotten }
        };
        let mut whole = Vec::with_capacity(manifests.len());
        for file in manifests {
            let name = file.trim_end_matches(".parquet").to_owned();
            let tars = tars.remove(&name).unwrap_or_default();
            whole.push(shard(name, tars, true));
        }
        Ok((whole, tars.into_iter().map(|(name, tars)| shard(name, tars, false)).collect()))
    }

    /// What is known of a shard's samples, but for those that are forgotten.
    ///
    /// # Errors
    /// [`LakeError`] if it cannot be read, or is no such manifest.
    pub async fn rows(&self, shard: &Shard) -> Result<Vec<Row>, LakeError> {
        let name = format!("{MANIFESTS}/{}.parquet", shard.name);
        let mut rows = rows::read(&name, self.get(&name).await?)?;
        rows.retain(|row| !shard.forgotten.contains(&row.id));
        Ok(rows)
    }

    /// The bytes of some samples of a shard, in the order of the rows. A tar is in memory while it is read.
    ///
    /// # Errors
    /// [`LakeError`] if a sample is not there, or its bytes are others.
    pub async fn contents(&self, shard: &Shard, rows: &[Row]) -> Result<Vec<Bytes>, LakeError> {
        let mut contents: BTreeMap<&str, Bytes> = BTreeMap::new();
        for row in rows {
            if let Some(content) = &row.content {
                contents.insert(&row.id, Bytes::from(content.clone()));
            }
        }
        for file in &shard.tars {
            if contents.len() == rows.len() {
                break;
            }
            let name = format!("{SHARDS}/{file}");
            let files = tar::read(&name, &self.get(&name).await?)?;
            for row in rows {
                if let Some(content) = files.get(&format!("{}.{}", row.id, row.media)) {
                    contents.insert(&row.id, content.clone());
                }
            }
        }
        let missing: Vec<&Row> = rows.iter().filter(|row| !contents.contains_key(&*row.id)).collect();
        if let Some(first) = missing.first() {
            let (name, id) = (shard.name.clone(), first.id.clone());
            return Err(LakeError::Missing { name, count: missing.len(), id });
        }
        let content = |row: &Row| {
            let content = contents.get(&*row.id).cloned().unwrap_or_default();
            let (name, known) = (shard.name.clone(), row.id.clone());
            if id(&content) == known { Ok(content) } else { Err(LakeError::Spoilt { name, id: known }) }
        };
        rows.iter().map(content).collect()
    }

    /// What people said of samples after they were sent.
    ///
    /// # Errors
    /// [`LakeError`] names the file and the line.
    pub async fn labels(&self) -> Result<Labels, LakeError> {
        let (forgotten, mut all) = (self.forgotten().await?, Vec::<Label>::new());
        for file in self.list(LABELS, ".csv").await? {
            let name = format!("{LABELS}/{file}");
            for Given { line, id, label, by, at } in labels::read(&name, &self.get(&name).await?)? {
                let why = |what: &str| LakeError::Labels { name: name.clone(), why: format!("line {line}: {what}") };
                let (Some(by), Some(at)) = (by, at) else { return Err(why("need who said it, by, and when, at")) };
                let file = name.clone();
                all.push(Label { id, value: label.ok_or_else(|| why("there is no label"))?, by, at, file });
            }
        }
        Ok(Labels::new(all.into_iter().filter(|label| !forgotten.contains(&label.id))))
    }

    /// Keeps labels, under a name that says when and what; the same at the same time is the same object. Returns the name.
    ///
    /// # Errors
    /// [`LakeError::Write`].
    pub async fn keep(&self, said: &[Label], now: jiff::Timestamp) -> Result<String, LakeError> {
        let bytes = labels::write(said);
        let name = format!("{LABELS}/{}-{}.csv", now.strftime("%Y%m%dT%H%M%SZ"), &id(&bytes)[..16]);
        self.put(&name, bytes).await?;
        Ok(name)
    }

    /// Files of a folder, sorted. What begins with a dot is being written.
    pub(crate) async fn list(&self, folder: &str, ending: &str) -> Result<Vec<String>, LakeError> {
        let mut names = self.all(folder).await?;
        names.retain(|name| name.ends_with(ending) && !name.starts_with('.'));
        names.sort();
        Ok(names)
    }

    /// `.NAME.PROCESS`: what is being written into a folder, or was by one that was killed.
    pub(crate) async fn unfinished(&self, folder: &str) -> Result<Vec<String>, LakeError> {
        let mut names = self.all(folder).await?;
        let is_number = |end: &str| !end.is_empty() && end.bytes().all(|digit| digit.is_ascii_digit());
        names.retain(|name| name.starts_with('.') && name.rsplit_once('.').is_some_and(|(_, end)| is_number(end)));
        Ok(names)
    }

    async fn all(&self, folder: &str) -> Result<Vec<String>, LakeError> {
        self.place.list(folder).await.map_err(|why| LakeError::Read { name: folder.into(), why })
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Bytes, LakeError> {
        self.place.get(name).await.map_err(|why| LakeError::Read { name: name.into(), why })
    }

    /// None if it is not there any more.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<Bytes>, LakeError> {
        self.place.find(name).await.map_err(|why| LakeError::Read { name: name.into(), why })
    }

    /// A name that says what is in it.
    pub(crate) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), LakeError> {
        self.place.put(name, bytes).await.map_err(|why| LakeError::Write { name: name.into(), why })
    }

    /// Other bytes under a name; without any it is deleted.
    pub(crate) async fn replace(&self, name: &str, bytes: Option<Vec<u8>>) -> Result<(), LakeError> {
        match bytes {
            Some(bytes) => self.place.replace(name, bytes).await,
            None => self.place.delete(name).await,
        }
        .map_err(|why| LakeError::Write { name: name.into(), why })
    }
}
