//! Samples that are to be there no more: first hidden from all readers, then taken out of all that holds them.

use super::progress;
use anyhow::{Context as _, Result};
use jiff::Timestamp;
use sconce_lake::{Erased, Lake, Rewritten};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};

#[derive(Serialize, Debug, PartialEq)]
pub struct Forgotten {
    /// Tombstones of those that had none.
    pub objects: Vec<String>,
    pub ids: BTreeSet<String>,
    /// In this order.
    pub shards: Vec<Changed>,
    pub labels: Vec<Changed>,
    /// Ids that were in no shard.
    pub absent: Vec<String>,
}

/// What was written anew, or is deleted where nothing is left of it.
#[derive(Serialize, Debug, PartialEq)]
pub struct Changed {
    pub name: String,
    pub taken: usize,
    pub left: usize,
}

impl From<&Rewritten> for Changed {
    fn from(Rewritten { name, taken, left }: &Rewritten) -> Self {
        Self { name: name.clone(), taken: taken.len(), left: *left }
    }
}

/// # Errors
/// If something cannot be read or written: whether the samples are hidden already, and that the same command goes on.
pub async fn forget(lake: &Lake, ids: BTreeSet<String>, by: &str, now: Timestamp) -> Result<Forgotten> {
    let objects = lake.forget(&ids, by, now).await?;
    let bar = progress("looking into shards", 0);
    let erased = lake.erase(|done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    });
    let erased = erased.await;
    bar.finish_and_clear();
    let erased =
        erased.context("no reader sees the samples any more, but not all is erased: give the same command again")?;
    Ok(told(objects, ids, &erased))
}

fn told(objects: Vec<String>, ids: BTreeSet<String>, Erased { shards, labels }: &Erased) -> Forgotten {
    let taken: BTreeSet<&String> = shards.iter().flat_map(|shard| &shard.taken).collect();
    let absent = ids.iter().filter(|id| !taken.contains(id)).cloned().collect();
    let changed = |all: &[Rewritten]| all.iter().map(Changed::from).collect();
    Forgotten { objects, shards: changed(shards), labels: changed(labels), absent, ids }
}

impl Display for Forgotten {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { objects, ids, shards, labels, absent } = self;
        for (all, what) in [(shards, "sample"), (labels, "label")] {
            for Changed { name, taken, left } in all {
                let is_deleted = if *left == 0 { "; nothing is left: deleted" } else { "" };
                writeln!(f, "{name}: {} taken out, {left} left{is_deleted}", counted(*taken, what))?;
            }
        }
        for id in absent {
            writeln!(f, "{id} is in no shard")?;
        }
        let (found, changed) = (counted(ids.len() - absent.len(), "sample"), counted(shards.len(), "shard"));
        let (all, tables) = (ids.len(), counted(labels.len(), "table of labels"));
        writeln!(f, "{found} of {all} found; {changed} and {tables} changed")?;
        match &objects[..] {
            [] => writeln!(f, "nobody has read them since they were forgotten before")?,
            objects => writeln!(f, "nobody reads them from now on, by {}", objects.join(", "))?,
        }
        writeln!(
            f,
            "a node that holds one yet drops it unsent; one that was being sent right now takes this command once more"
        )?;
        write!(f, "models that have learned from them, and exports of them, stay as they are")
    }
}

fn counted(count: usize, what: &str) -> String {
    match (count, what.split_once(' ')) {
        (1, _) => format!("1 {what}"),
        (_, Some((head, rest))) => format!("{count} {head}s {rest}"),
        (_, None) => format!("{count} {what}s"),
    }
}
