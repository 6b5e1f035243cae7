//! Checkpoints: what a run needs to go on, to the bit, after whatever ended it.
//!
//! A checkpoint is a folder, written aside, flushed to disk, then renamed: it is whole or absent. Two are kept.

use super::{Best, Epoch};
use candle_core::{Device, Tensor, safetensors};
use sconce_model::network::Network;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use thiserror::Error;

const KEPT: usize = 2;
const STATE: &str = "state.json";
const WEIGHTS: &str = "weights.safetensors";
const MOMENTS: &str = "moments.safetensors";
const BEST: &str = "best.safetensors";
const PARTIAL: &str = "partial";

#[derive(Debug, Error)]
#[error("cannot keep a checkpoint in {}: is the disk full, and may this folder be written?", folder.display())]
pub struct CheckpointError {
    folder: PathBuf,
    source: io::Error,
}

/// Where a run's checkpoints lie.
pub struct Checkpoints {
    folder: PathBuf,
    /// What is trained on what: a checkpoint of anything else is not gone on from.
    recipe: String,
}

/// Where a run is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub recipe: String,
    pub steps: u64,
    /// The epoch that is being trained, from 1.
    pub epoch: usize,
    /// Its batches that are done.
    pub batch: usize,
    /// Of these, bits of a sum.
    pub losses: u64,
    pub right: usize,
    pub best: Option<Best>,
    pub epochs: Vec<Epoch>,
}

pub type Tensors = BTreeMap<String, Tensor>;

/// All that a run is.
pub struct Snapshot {
    pub state: State,
    pub weights: Tensors,
    pub moments: Tensors,
    /// Of the best epoch, where that is kept.
    pub best: Option<Tensors>,
}

impl Checkpoints {
    pub fn new(folder: PathBuf, recipe: String) -> Self {
        Self { folder, recipe }
    }

    /// # Errors
    /// [`CheckpointError`] if the disk does not take it; what was there before still is.
    pub fn write(&self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.replace(snapshot).map_err(|source| CheckpointError { folder: self.folder.clone(), source })
    }

    fn replace(&self, snapshot: &Snapshot) -> io::Result<()> {
        let partial = self.folder.join(PARTIAL);
        absent(fs::remove_dir_all(&partial))?;
        fs::create_dir_all(&partial)?;
        let state = State { recipe: self.recipe.clone(), ..snapshot.state.clone() };
        durable(&partial.join(STATE), &serde_json::to_vec_pretty(&state)?)?;
        let files =
            [(WEIGHTS, Some(&snapshot.weights)), (MOMENTS, Some(&snapshot.moments)), (BEST, snapshot.best.as_ref())];
        for (file, tensors) in files {
            if let Some(tensors) = tensors {
                durable(&partial.join(file), &encoded(tensors)?)?;
            }
        }
        flush(&partial)?;
        // Names sort as steps do.
        let whole = self.folder.join(format!("step-{:012}", state.steps));
        absent(fs::remove_dir_all(&whole))?;
        fs::rename(&partial, &whole)?;
        flush(&self.folder)?;
        let (ours, others): (Vec<_>, Vec<_>) = self.all()?.into_iter().partition(|folder| self.is_ours(folder));
        // Nobody goes on from those of another recipe: this one has begun.
        let old = &ours[..ours.len().saturating_sub(KEPT)];
        old.iter().chain(&others).try_for_each(fs::remove_dir_all)
    }

    /// The newest of this recipe that is whole.
    pub fn newest(&self) -> Option<Snapshot> {
        let all = self.all().ok()?;
        let mut read = all.iter().rev().filter_map(|folder| read(folder).ok());
        read.find(|snapshot| snapshot.state.recipe == self.recipe)
    }

    fn is_ours(&self, folder: &Path) -> bool {
        let state = fs::read(folder.join(STATE)).ok().and_then(|text| serde_json::from_slice::<State>(&text).ok());
        state.is_some_and(|state| state.recipe == self.recipe)
    }

    /// Once the run has left what it was for.
    ///
    /// # Errors
    /// [`CheckpointError`] if they cannot be removed.
    pub fn remove(&self) -> Result<(), CheckpointError> {
        absent(fs::remove_dir_all(&self.folder))
            .map_err(|source| CheckpointError { folder: self.folder.clone(), source })
    }

    /// The oldest first.
    fn all(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        all.retain(|path| path.file_name().is_some_and(|name| name != PARTIAL));
        all.sort();
        Ok(all)
    }
}

/// The values of a network, apart from it.
///
/// # Errors
/// None but candle's own.
pub fn weights(network: &Network) -> candle_core::Result<Tensors> {
    network
        .variables()
        .iter()
        .map(|(name, variable)| Ok((name.clone(), variable.as_tensor().copy()?.detach())))
        .collect()
}

/// Puts values into a network.
///
/// # Errors
/// If they are another network's.
pub fn restore(network: &Network, weights: &Tensors) -> candle_core::Result<()> {
    for (name, variable) in network.variables() {
        let Some(values) = weights.get(name) else { candle_core::bail!("the checkpoint has no {name}") };
        variable.set(values)?;
    }
    Ok(())
}

fn read(folder: &Path) -> io::Result<Snapshot> {
    let state = serde_json::from_slice(&fs::read(folder.join(STATE))?)?;
    let tensors = |file: &str| decoded(&fs::read(folder.join(file))?);
    let best = match tensors(BEST) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        best => Some(best?),
    };
    Ok(Snapshot { state, weights: tensors(WEIGHTS)?, moments: tensors(MOMENTS)?, best })
}

fn encoded(tensors: &Tensors) -> io::Result<Vec<u8>> {
    ::safetensors::serialize(tensors, None).map_err(io::Error::other)
}

fn decoded(bytes: &[u8]) -> io::Result<Tensors> {
    let tensors: HashMap<String, Tensor> = safetensors::load_buffer(bytes, &Device::Cpu).map_err(io::Error::other)?;
    Ok(tensors.into_iter().collect())
}

fn durable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn flush(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(steps: u64) -> Snapshot {
        let tensor = |value: f32| BTreeMap::from([("w".to_owned(), Tensor::new(&[value], &Device::Cpu).unwrap())]);
        let state = State { steps, epoch: 2, batch: 3, losses: 0.1_f64.to_bits(), ..State::default() };
        Snapshot { state, weights: tensor(steps as f32), moments: tensor(0.5), best: None }
    }

    #[test]
    fn the_newest_whole_one_of_the_recipe_is_gone_on_from_and_two_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("run");
        let checkpoints = Checkpoints::new(at.clone(), "a".into());
        assert!(checkpoints.newest().is_none());
        [10, 20, 30].into_iter().for_each(|steps| checkpoints.write(&snapshot(steps)).unwrap());
        assert_eq!(checkpoints.all().unwrap().len(), 2);
        let newest = checkpoints.newest().unwrap();
        assert_eq!((newest.state.steps, newest.state.batch, newest.state.losses), (30, 3, 0.1_f64.to_bits()));
        assert_eq!(newest.weights["w"].to_vec1::<f32>().unwrap(), [30.0]);
        assert!(Checkpoints::new(at.clone(), "b".into()).newest().is_none(), "another recipe's");
        let file = at.join("step-000000000030").join(WEIGHTS);
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(checkpoints.newest().unwrap().state.steps, 20, "the newest is cut off");
        checkpoints.remove().unwrap();
        assert!(!at.exists());
    }
}
