//! Data sets: read or drawn, always with a test split that training never sees.

mod folder;
mod order;
pub mod synthetic;

pub use order::Order;

use crate::manifest::{DataSource, Format};
use sconce_model::idx::{IdxError, Images};
use sconce_model::network::{generator, unit};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Labelled grey images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Samples {
    pub images: Images,
    pub labels: Vec<u8>,
}

/// The test split: no choice is made on it, and every reading is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestSplit {
    samples: Samples,
    reads: u32,
}

/// A data set, split.
#[derive(Clone, Debug)]
pub struct DataSet {
    /// Without the folder: where the files lie says nothing of what they are, and this is published.
    pub name: String,
    /// Of all its bytes: the same digest, the same samples in the same order.
    pub digest: String,
    pub train: Samples,
    pub test: TestSplit,
}

#[derive(Debug, Error)]
pub enum DataError {
    #[error("data set \"{uri}\": need synthetic:digits or file://DIR, or give --data DIR")]
    Uri { uri: String },
    #[error("no {file} (nor {file}.gz) in {}", folder.display())]
    Missing { file: &'static str, folder: PathBuf },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {fault}", path.display())]
    Idx { path: PathBuf, fault: IdxError },
    #[error("{}: cut off, or no gzip: download or copy it again", path.display())]
    Gzip { path: PathBuf, source: std::io::Error },
    #[error("{}: {images} images but {labels} labels: the two files do not belong together", folder.display())]
    Counts { folder: PathBuf, images: usize, labels: usize },
    #[error("{}: label {got} at {index}; the network tells {classes} classes", folder.display())]
    Label { folder: PathBuf, index: usize, got: u8, classes: usize },
    #[error("{}: {got} samples; need at least 10 to hold some out", folder.display())]
    TooFew { folder: PathBuf, got: usize },
}

impl DataSet {
    /// What an evaluation says of it: equal for equal bytes and an equal test split.
    pub fn described(&self) -> sconce_model::artifact::DataSet {
        let n = self.test.len() as u64;
        sconce_model::artifact::DataSet { name: self.name.clone(), digest: self.digest.clone(), n }
    }
}

/// Reads the data set of a manifest, or the IDX files in `folder` instead.
///
/// # Errors
/// [`DataError`] names the file, what is wrong with it, and what it should be.
pub fn read(source: &DataSource, folder: Option<&Path>, seed: u64, classes: usize) -> Result<DataSet, DataError> {
    let Format::Idx = source.format;
    match (folder, source.uri.as_str()) {
        (Some(folder), _) => folder::read(folder, seed, classes),
        (None, "synthetic:digits") => Ok(synthetic::digits(synthetic::COUNT, synthetic::SEED)),
        (None, uri) => match uri.strip_prefix("file://") {
            Some(folder) => folder::read(Path::new(folder), seed, classes),
            None => Err(DataError::Uri { uri: uri.into() }),
        },
    }
}

impl TestSplit {
    pub fn new(samples: Samples) -> Self {
        Self { samples, reads: 0 }
    }

    pub fn len(&self) -> usize {
        self.samples.len()
    }

    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// For the evaluation.
    pub fn read(&mut self) -> &Samples {
        self.reads += 1;
        &self.samples
    }

    /// For an earlier evaluation of what is evaluated again.
    pub fn read_before(&mut self, times: u32) {
        self.reads += times;
    }

    pub fn reads(&self) -> u32 {
        self.reads
    }

    /// The first samples, for clients to carry: nobody here looks at them.
    pub fn carry(&self, count: usize) -> Samples {
        self.samples.select(&(0..count.min(self.len())).collect::<Vec<_>>())
    }
}

impl Samples {
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    pub fn select(&self, indices: &[usize]) -> Samples {
        let Images { height, width, .. } = self.images;
        let pixels = indices.iter().flat_map(|&index| self.images.image(index)).copied().collect();
        let labels = indices.iter().map(|&index| self.labels[index]).collect();
        Samples { images: Images { count: indices.len(), height, width, pixels }, labels }
    }

    /// Two parts, the second of about `share`, drawn by the seed and the split's name.
    pub fn split(&self, share: f64, seed: u64, name: &str) -> (Samples, Samples) {
        let order = shuffled(self.len(), seed, name);
        let held_out = (self.len() as f64 * share).round() as usize;
        let (second, first) = order.split_at(held_out.min(self.len()));
        (self.select(first), self.select(second))
    }
}

/// A permutation of `0..count`, drawn by the seed and a name.
pub fn shuffled(count: usize, seed: u64, name: &str) -> Vec<usize> {
    let mut generator = generator(seed, name);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        // `unit` has 24 bits: enough for the data sets that fit into memory here.
        let other = (f64::from(unit(&mut generator)) * (last + 1) as f64) as usize;
        order.swap(last, other.min(last));
    }
    order
}
