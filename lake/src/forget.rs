//! Forgetting: first a tombstone, from which on no reader sees the sample; then it is taken out of what holds it.
//!
//! A shard keeps its name. Its new tars are written first, then the old ones deleted, and its manifest is the last to change: while
//! that names the sample, work is left, so that the same again ends whatever was interrupted. A collector that sends the shard once
//! more finds its manifest there.

use crate::lake::{LABELS, Lake, MANIFESTS, SHARDS, Shard};
use crate::without::{self, Without};
use crate::{LakeError, forgotten, id, rows};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;

const FORGOTTEN: &str = "forgotten";

/// What held something that is forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// Of a shard, or of a file of labels.
    pub name: String,
    pub taken: BTreeSet<String>,
    /// It is deleted where this is 0.
    pub left: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    pub shards: Vec<Rewritten>,
    pub labels: Vec<Rewritten>,
}

impl Lake {
    /// The ids of samples that are to be there no more.
    ///
    /// # Errors
    /// [`LakeError`] if one of the files cannot be read: it may name any sample.
    pub async fn forgotten(&self) -> Result<BTreeSet<String>, LakeError> {
        let mut ids = BTreeSet::new();
        for file in self.list(FORGOTTEN, ".csv").await? {
            let name = format!("{FORGOTTEN}/{file}");
            ids.extend(forgotten::read(&name, &self.get(&name).await?)?);
        }
        Ok(ids)
    }

    /// Writes tombstones of those that have none: from now on no reader sees these samples, and no collector sends them. Returns the
    /// names of the files.
    ///
    /// # Errors
    /// [`LakeError`] if they cannot be written, or those that are there not read.
    pub async fn forget(&self, ids: &BTreeSet<String>, by: &str, now: Timestamp) -> Result<Vec<String>, LakeError> {
        let known = self.forgotten().await?;
        let fresh: Vec<&String> = ids.difference(&known).collect();
        let mut names = Vec::new();
        for some in fresh.chunks(forgotten::MOST) {
            let bytes = forgotten::write(some.iter().copied(), by, now);
            let name = format!("{FORGOTTEN}/{}-{}.csv", now.strftime("%Y%m%dT%H%M%SZ"), &id(&bytes)[..16]);
            self.put(&name, bytes).await?;
            names.push(name);
        }
        Ok(names)
    }

    /// Takes all that was ever forgotten out of shards and labels. `tell` hears how many shards were looked into, and of how many.
    ///
    /// # Errors
    /// [`LakeError`], once all else is taken out: the first, and of how many; to be called again, which goes on.
    pub async fn erase(&self, tell: impl Fn(usize, usize)) -> Result<Erased, LakeError> {
        let (mut erased, mut known) = (Erased::default(), Arc::new(self.forgotten().await?));
        if known.is_empty() {
            return Ok(erased);
        }
        loop {
            let mut faults = Vec::new();
            // Before shards are listed: what gets its name meanwhile is among them.
            for folder in [SHARDS, MANIFESTS, LABELS] {
                for file in self.unfinished(folder).await? {
                    faults.extend(self.sweep(&format!("{folder}/{file}"), &known).await.err());
                }
            }
            let (mut shards, alone) = self.listed(&known).await?;
            // A tar whose manifest comes yet is rewritten alike: it holds all that the manifest will name, but for what is forgotten.
            shards.extend(alone);
            for (number, shard) in shards.iter().enumerate() {
                tell(number, shards.len());
                match self.rewrite(shard).await {
                    Ok(rewritten) => erased.shards.extend(rewritten),
                    Err(fault) => faults.push(fault),
                }
            }
            for file in self.list(LABELS, ".csv").await? {
                match self.relabel(format!("{LABELS}/{file}"), &known).await {
                    Ok(rewritten) => erased.labels.extend(rewritten),
                    Err(fault) => faults.push(fault),
                }
            }
            // Who forgot another sample meanwhile may have rewritten a shard before we did, and we have brought that sample back.
            let now = self.forgotten().await?;
            if now == *known {
                return first_of(faults).map_or(Ok(erased), Err);
            }
            known = Arc::new(now);
        }
    }

    /// Deletes what is being written of a sample that is forgotten. A writer that was killed would leave it there; one that is at work is told
    /// that it failed, and has read the tombstone when it tries again.
    async fn sweep(&self, name: &str, forgotten: &BTreeSet<String>) -> Result<(), LakeError> {
        match self.find(name).await? {
            Some(bytes) if without::names(&bytes, forgotten) => self.replace(name, None).await,
            _ => Ok(()),
        }
    }

    /// None if it says nothing of what is forgotten.
    async fn relabel(&self, name: String, forgotten: &BTreeSet<String>) -> Result<Option<Rewritten>, LakeError> {
        let without = without::labels(&name, &self.get(&name).await?, forgotten)?;
        let Some(Without { bytes, taken, left }) = without else { return Ok(None) };
        self.replace(&name, bytes).await?;
        Ok(Some(Rewritten { name, taken, left }))
    }

    /// None if it holds nothing that is forgotten.
    async fn rewrite(&self, shard: &Shard) -> Result<Option<Rewritten>, LakeError> {
        let name = format!("{MANIFESTS}/{}.parquet", shard.name);
        let mut manifest = None;
        if shard.is_whole {
            let bytes = self.get(&name).await?;
            // What is measured stands in the manifest.
            let has_files = rows::read(&name, bytes.clone())?.iter().any(|row| row.content.is_none());
            manifest = without::manifest(&name, bytes, &shard.forgotten)?;
            // A tar more is what an interruption left, or a collector that was sending meanwhile.
            if manifest.is_none() && shard.tars.len() <= usize::from(has_files) {
                return Ok(None);
            }
        }
        let (mut taken, mut left) = (BTreeSet::new(), 0);
        for file in &shard.tars {
            let old = format!("{SHARDS}/{file}");
            let Some(tar) = without::tar(&old, &self.get(&old).await?, &shard.forgotten)? else { continue };
            if let Some(bytes) = tar.bytes {
                self.put(&format!("{SHARDS}/{}-{}.tar", shard.name, &id(&bytes)[..16]), bytes).await?;
            }
            self.replace(&old, None).await?;
            taken.extend(tar.taken);
            left = tar.left;
        }
        if let Some(manifest) = manifest {
            self.replace(&name, manifest.bytes).await?;
            taken.extend(manifest.taken);
            left = manifest.left;
        }
        Ok((!taken.is_empty()).then(|| Rewritten { name: shard.name.clone(), taken, left }))
    }
}

fn first_of(faults: Vec<LakeError>) -> Option<LakeError> {
    let count = faults.len();
    let first = faults.into_iter().next()?;
    Some(if count == 1 { first } else { LakeError::Several { count, source: Box::new(first) } })
}
