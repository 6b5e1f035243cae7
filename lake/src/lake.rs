//! A data set: its shards one after the other, its labels.

use crate::labels::{self, Given, Label, Labels};
use crate::place::{Bucket, Place};
use crate::rows::{self, Row};
use crate::{LakeError, id, tar};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;

const MANIFESTS: &str = "manifests";
const SHARDS: &str = "shards";
const LABELS: &str = "labels";

pub struct Lake {
    place: Place,
}

/// What was sent at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    pub name: String,
    /// None where all samples stand in the manifest.
    tars: Vec<String>,
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
        let mut tars: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in self.list(SHARDS, ".tar").await? {
            let stem = file.trim_end_matches(".tar");
            let name = stem.rsplit_once('-').map_or(stem, |(name, _)| name).to_owned();
            tars.entry(name).or_default().push(file);
        }
        let manifests = self.list(MANIFESTS, ".parquet").await?;
        let shard = |file: String| {
            let name = file.trim_end_matches(".parquet").to_owned();
            Shard { tars: tars.remove(&name).unwrap_or_default(), name }
        };
        Ok(manifests.into_iter().map(shard).collect())
    }

    /// What is known of a shard's samples.
    ///
    /// # Errors
    /// [`LakeError`] if it cannot be read, or is no such manifest.
    pub async fn rows(&self, shard: &Shard) -> Result<Vec<Row>, LakeError> {
        let name = format!("{MANIFESTS}/{}.parquet", shard.name);
        rows::read(&name, self.get(&name).await?)
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
        let mut all: Vec<Label> = Vec::new();
        for file in self.list(LABELS, ".csv").await? {
            let name = format!("{LABELS}/{file}");
            for Given { line, id, label, by, at } in labels::read(&name, &self.get(&name).await?)? {
                let why = |what: &str| LakeError::Labels { name: name.clone(), why: format!("line {line}: {what}") };
                let (Some(by), Some(at)) = (by, at) else { return Err(why("need who said it, by, and when, at")) };
                let file = name.clone();
                all.push(Label { id, value: label.ok_or_else(|| why("there is no label"))?, by, at, file });
            }
        }
        Ok(Labels::new(all))
    }

    /// Keeps labels, under a name that says when and what; the same at the same time is the same object. Returns the name.
    ///
    /// # Errors
    /// [`LakeError::Write`].
    pub async fn keep(&self, said: &[Label], now: jiff::Timestamp) -> Result<String, LakeError> {
        let bytes = labels::write(said);
        let name = format!("{LABELS}/{}-{}.csv", now.strftime("%Y%m%dT%H%M%SZ"), &id(&bytes)[..16]);
        self.place.put(&name, bytes).await.map_err(|why| LakeError::Write { name: name.clone(), why })?;
        Ok(name)
    }

    /// Files of a folder, sorted. What begins with a dot is being written.
    async fn list(&self, folder: &str, ending: &str) -> Result<Vec<String>, LakeError> {
        let mut names = self.place.list(folder).await.map_err(|why| LakeError::Read { name: folder.into(), why })?;
        names.retain(|name| name.ends_with(ending) && !name.starts_with('.'));
        names.sort();
        Ok(names)
    }

    async fn get(&self, name: &str) -> Result<Bytes, LakeError> {
        self.place.get(name).await.map_err(|why| LakeError::Read { name: name.into(), why })
    }
}
