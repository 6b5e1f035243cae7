//! Data sets: read or drawn, always with a test split that training never sees.

mod collected;
mod folder;
mod labels;
mod mix;
mod order;
mod split;
pub mod synthetic;
mod tensors;

pub use labels::Labels;
pub use order::Order;

use crate::manifest::{DataSource, Format};
use crate::prepared::{Prepared, PreparedError};
use sconce_lake::LakeError;
use sconce_model::architecture::Task;
use sconce_model::artifact::{self, Backbone};
use sconce_model::graph::Graph;
use sconce_model::idx::{IdxError, Images};
use sconce_model::network::{generator, unit};
use sconce_model::preprocess::{Preprocess, PreprocessError};
use std::collections::BTreeSet;
use std::iter::zip;
use std::ops::Range;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Numbers that a label of a file of IDX can be.
const BYTES: usize = 256;
/// Between the names of data sets that are mixed.
const TOGETHER: &str = " + ";
/// In the names of data sets, before that by which their test split is chosen: of samples that were collected, and of files of IDX.
const SPLIT_BY: &str = "split by ";
const HELD_OUT_BY: &str = "10 % held out by ";
/// The classes of what learns what is normal.
pub const NORMAL: u8 = 0;
pub const ANOMALY: u8 = 1;

/// Labelled samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    pub inputs: Inputs,
    pub labels: Labels,
    /// Rows of one group, such as a camera's hour, stay together where samples are split; none = each row is its own.
    pub groups: Vec<u64>,
    /// How much each counts in training; none = all alike.
    pub weights: Vec<f32>,
    /// Steps of each, of sequences of any length; none = all have as many.
    pub lengths: Vec<usize>,
}

/// What is learned from.
#[derive(Clone, Debug, PartialEq)]
pub enum Inputs {
    /// Grey, before preprocessing.
    Images(Images),
    /// As the network takes them, one after the other.
    Ready(Vec<f32>),
    /// What a frozen backbone made of them, one after the other: as the head takes them.
    Features(Vec<f32>),
}

/// What samples are to become.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub preprocess: &'a Preprocess,
    /// Shape of the network's input, without the batch; of the longest sequence, where `shortest` says that others are shorter.
    pub input: &'a [usize],
    /// Steps that a sequence must have, of those of any length.
    pub shortest: Option<usize>,
    /// Or, where the task is not about these, values that the network says of each.
    pub classes: usize,
    /// Of the classes, or the labels, beside their numbers; none where they have none.
    pub names: &'a [String],
    pub task: Task,
    /// What makes features that can be learned from; none where the whole network learns.
    pub backbone: Option<&'a Backbone>,
}

impl<'a> Wanted<'a> {
    /// For a network with one length of input, all of which learns, whose classes have their numbers alone.
    pub fn new(preprocess: &'a Preprocess, input: &'a [usize], classes: usize) -> Self {
        Self { preprocess, input, shortest: None, classes, names: &[], task: Task::Classification, backbone: None }
    }

    /// `names` are [`Graph::labels`].
    pub fn of(graph: &'a Graph, names: &'a [String], preprocess: &'a Preprocess) -> Self {
        let shortest = graph.lengths().map(|lengths| *lengths.start());
        Self { shortest, names, task: graph.task(), ..Self::new(preprocess, &graph.input, graph.units()) }
    }

    /// Whether samples have one class each.
    pub fn tells_classes(&self) -> bool {
        matches!(self.task, Task::Classification | Task::Anomaly)
    }
}

/// The test split: no choice is made on it. It is read once in a run, by the evaluation, and every reading is counted.
#[derive(Debug, PartialEq)]
pub struct TestSplit {
    samples: Samples,
    /// Of a mix: each data set's samples, one after the other. None = they are all of one.
    parts: Vec<Part>,
    reads: u32,
    /// In this run.
    is_read: bool,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum TestError {
    #[error("the test split was read already: who reads it twice chooses by it")]
    ReadTwice,
    #[error("the test split was not read yet: what is carried before could be learned from")]
    Unread,
}

/// The test samples of a data set that is mixed with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub count: usize,
}

/// A data set, split.
#[derive(Debug)]
pub struct DataSet {
    /// Without the folder: where the files lie says nothing of what they are, and this is published.
    pub name: String,
    /// Of all its bytes: the same digest, the same samples in the same order.
    pub digest: String,
    /// What was left out, and why, for people.
    pub notes: Vec<String>,
    pub train: Samples,
    pub test: TestSplit,
}

#[derive(Debug, Error)]
pub enum DataError {
    #[error(
        "data set \"{uri}\": need synthetic:digits or file://DIR, or give --data DIR; s3://BUCKET/PREFIX with format: collected"
    )]
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
    #[error(
        "{uri}: a number of each sample, and {task} tells {units} values: need collected samples, whose labels can say them"
    )]
    OneNumber { uri: String, task: &'static str, units: usize },
    #[error("{}: {got} samples; need at least 10 to hold some out", folder.display())]
    TooFew { folder: PathBuf, got: usize },
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error("{file}: {by} says that {id} is \"{label}\"; the network tells {known}")]
    Strange { file: String, by: String, id: String, label: String, known: Box<str> },
    #[error(
        "{uri}: {got} labelled samples of {all}; need at least 10 to hold some out: export some, label and import them"
    )]
    Unlabelled { uri: String, got: usize, all: usize },
    #[error("{uri}: none of {got} labelled samples can be read; the first, {id}: {why}")]
    Unread { uri: String, got: usize, id: String, why: String },
    #[error("cannot preprocess the images")]
    Preprocess(#[from] PreprocessError),
    #[error("spec.base.uri: the backbone cannot make features")]
    Backbone(#[source] candle_core::Error),
    #[error(transparent)]
    Prepared(#[from] PreparedError),
    #[error("cannot wait for an object store")]
    Runtime(#[source] std::io::Error),
}

impl DataSet {
    /// What an evaluation says of it: equal for equal bytes and an equal test split.
    pub fn described(&self) -> artifact::DataSet {
        let n = self.test.len() as u64;
        artifact::DataSet { name: self.name.clone(), digest: self.digest.clone(), n }
    }
}

/// Whether who was evaluated on one may have learned what another holds out: its test split was chosen otherwise. What is collected grows
/// from run to run, and another digest says nothing of that.
pub fn is_split_otherwise(one: &artifact::DataSet, another: &artifact::DataSet) -> bool {
    let chosen_by = |set: &artifact::DataSet, word: &str| -> Vec<String> {
        set.name.split(TOGETHER).filter_map(|part| Some(part.rsplit_once(word)?.1.to_owned())).collect()
    };
    let differs = |word| zip(chosen_by(one, word), chosen_by(another, word)).any(|(one, another)| one != another);
    [SPLIT_BY, HELD_OUT_BY].into_iter().any(differs)
}

impl DataError {
    /// Whether another try meets the same: until somebody labels anew, or writes another manifest.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Uri { .. }
                | Self::OneNumber { .. }
                | Self::Strange { .. }
                | Self::Unlabelled { .. }
                | Self::Unread { .. }
        ) || matches!(
            self,
            Self::Label { .. }
                | Self::Lake(LakeError::Uri { .. } | LakeError::Labels { .. } | LakeError::Forgotten { .. })
        )
    }
}

/// Reads the data set of a manifest, or what `folder` has of its format instead, with all that is mixed into it.
///
/// # Errors
/// [`DataError`] names the file, what is wrong with it, and what it should be.
pub fn read(source: &DataSource, folder: Option<&Path>, seed: u64, wanted: Wanted<'_>) -> Result<DataSet, DataError> {
    let here = folder.map(|folder| {
        let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        DataSource { uri: format!("file://{}", absolute.display()), format: source.format, mix: vec![] }
    });
    let sets =
        std::iter::once(here.as_ref().unwrap_or(source)).chain(&source.mix).map(|source| one(source, seed, wanted));
    let mut sets = sets.collect::<Result<Vec<_>, _>>()?;
    // Where some are features, all become that.
    if let Some(backbone) = wanted.backbone.filter(|_| sets.iter().any(|set| set.train.are_features())) {
        for set in sets.iter_mut().filter(|set| !set.train.are_features()) {
            set.train = set.train.through(backbone, wanted)?;
            set.test.samples = set.test.samples.through(backbone, wanted)?;
        }
    }
    if sets.len() == 1 { Ok(sets.remove(0)) } else { mix::together(sets, wanted) }
}

fn one(source: &DataSource, seed: u64, wanted: Wanted<'_>) -> Result<DataSet, DataError> {
    let is_amount = matches!(wanted.task, Task::Regression | Task::Count) && wanted.classes == 1;
    if source.format == Format::Idx && !is_amount && !wanted.tells_classes() {
        let (uri, task) = (source.uri.clone(), wanted.task.word());
        return Err(DataError::OneNumber { uri, task, units: wanted.classes });
    }
    let classes = if is_amount { BYTES } else { wanted.classes };
    let set = match (source.format, source.uri.as_str()) {
        (Format::Collected, uri) => return collected::read(uri, wanted),
        (Format::Idx, uri @ "synthetic:digits") if classes < synthetic::CLASSES => {
            Err(DataError::Label { folder: uri.into(), index: classes, got: classes as u8, classes })
        }
        (Format::Idx, "synthetic:digits") => Ok(synthetic::digits(synthetic::COUNT, synthetic::SEED)),
        (Format::Idx, uri) => match uri.strip_prefix("file://") {
            Some(folder) => folder::read(Path::new(folder), seed, classes),
            None => Err(DataError::Uri { uri: uri.into() }),
        },
    };
    let mut set = set?;
    if is_amount {
        for samples in [&mut set.train, &mut set.test.samples] {
            samples.labels = Labels::as_amounts(samples.labels.classes());
        }
    }
    Ok(set)
}

impl TestSplit {
    pub fn new(samples: Samples) -> Self {
        Self { samples, parts: vec![], reads: 0, is_read: false }
    }

    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Of its rows: who knows them alone has read nothing.
    pub fn groups(&self) -> &[u64] {
        &self.samples.groups
    }

    pub fn len(&self) -> usize {
        self.samples.len()
    }

    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    pub fn has_class(&self, class: u8) -> bool {
        self.samples.labels.classes().contains(&class)
    }

    /// For the evaluation.
    ///
    /// # Errors
    /// [`TestError::ReadTwice`].
    pub fn read(&mut self) -> Result<&Samples, TestError> {
        if std::mem::replace(&mut self.is_read, true) {
            return Err(TestError::ReadTwice);
        }
        self.reads += 1;
        Ok(&self.samples)
    }

    /// For an earlier evaluation of what is evaluated again.
    pub fn read_before(&mut self, times: u32) {
        self.reads += times;
    }

    pub fn reads(&self) -> u32 {
        self.reads
    }

    /// The first samples, for clients to carry, once all is learned and chosen.
    ///
    /// # Errors
    /// [`TestError::Unread`].
    pub fn carry(&self, count: usize) -> Result<Samples, TestError> {
        if !self.is_read {
            return Err(TestError::Unread);
        }
        Ok(self.samples.select(&(0..count.min(self.len())).collect::<Vec<_>>()))
    }
}

impl Samples {
    /// Images, each of its own group.
    pub fn grey(images: Images, labels: Vec<u8>) -> Self {
        Self {
            inputs: Inputs::Images(images),
            labels: Labels::Classes(labels),
            groups: vec![],
            weights: vec![],
            lengths: vec![],
        }
    }

    /// Those of the class [`NORMAL`].
    #[must_use]
    pub fn normal(&self) -> Samples {
        let classes = self.labels.classes();
        let normal: Vec<usize> = (0..classes.len()).filter(|index| classes[*index] == NORMAL).collect();
        self.select(&normal)
    }

    /// Before preprocessing, if they are all grey and of one size.
    pub fn images(&self) -> Option<&Images> {
        match &self.inputs {
            Inputs::Images(images) => Some(images),
            Inputs::Ready(_) | Inputs::Features(_) => None,
        }
    }

    /// Whether a head reads them, and no network.
    pub fn are_features(&self) -> bool {
        matches!(self.inputs, Inputs::Features(_))
    }

    /// What a backbone makes of them.
    fn through(&self, backbone: &Backbone, Wanted { preprocess, input, .. }: Wanted<'_>) -> Result<Self, DataError> {
        let prepared = Prepared::new(self, preprocess, input)?;
        let made = backbone.plan().and_then(|plan| prepared.through(&plan)).map_err(DataError::Backbone)?;
        Ok(Self { inputs: Inputs::Features(made.into_values()), lengths: vec![], ..self.clone() })
    }

    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// A row that has no group is its own.
    pub fn group_count(&self) -> usize {
        if self.groups.is_empty() { self.len() } else { self.groups.iter().collect::<BTreeSet<_>>().len() }
    }

    pub fn select(&self, indices: &[usize]) -> Samples {
        let taken = |xs: &[f32]| {
            let rows = rows(xs.len(), self.len(), &self.lengths);
            indices.iter().flat_map(|&index| &xs[rows[index].clone()]).copied().collect()
        };
        let inputs = match &self.inputs {
            Inputs::Images(images) => {
                let &Images { height, width, .. } = images;
                let pixels = indices.iter().flat_map(|&index| images.image(index)).copied().collect();
                Inputs::Images(Images { count: indices.len(), height, width, pixels })
            }
            Inputs::Ready(xs) => Inputs::Ready(taken(xs)),
            Inputs::Features(xs) => Inputs::Features(taken(xs)),
        };
        let labels = self.labels.select(indices);
        // What is known of no row is known of none of these.
        let groups = indices.iter().filter_map(|&index| self.groups.get(index).copied()).collect();
        let weights = indices.iter().filter_map(|&index| self.weights.get(index).copied()).collect();
        let lengths = indices.iter().filter_map(|&index| self.lengths.get(index).copied()).collect();
        Samples { inputs, labels, groups, weights, lengths }
    }

    /// Two parts, the second of about `share`, drawn by the seed and the split's name; no group is in both.
    pub fn split(&self, share: f64, seed: u64, name: &str) -> (Samples, Samples) {
        if !self.groups.is_empty() {
            let (first, second) = split::by_group(&self.groups, share, seed, name);
            return (self.select(&first), self.select(&second));
        }
        let order = shuffled(self.len(), seed, name);
        let held_out = (self.len() as f64 * share).round() as usize;
        let (second, first) = order.split_at(held_out.min(self.len()));
        (self.select(first), self.select(second))
    }
}

/// Where each of `count` samples lies among so many values: all have as many, or as many for each step.
pub(crate) fn rows(values: usize, count: usize, lengths: &[usize]) -> Vec<Range<usize>> {
    let all = if lengths.is_empty() { count } else { lengths.iter().sum() };
    let each = values / all.max(1);
    let mut end = 0;
    let row = |index: usize| {
        let begin = end;
        end += each * lengths.get(index).copied().unwrap_or(1);
        begin..end
    };
    (0..count).map(row).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use sconce_model::preprocess::Material;

    #[test]
    fn a_folder_is_read_as_the_manifest_says_that_its_data_are() {
        let preprocess = Preprocess { version: 1, input: Material::Image, steps: vec![] };
        let wanted = Wanted::new(&preprocess, &[1, 28, 28], 10);
        let folder = tempfile::tempdir().unwrap();
        let error = |format| {
            let source = DataSource { uri: "pvc://lake/digits".into(), format, mix: vec![] };
            read(&source, Some(folder.path()), 7, wanted).unwrap_err()
        };
        assert!(matches!(error(Format::Idx), DataError::Missing { .. }));
        assert!(matches!(error(Format::Collected), DataError::Unlabelled { got: 0, all: 0, .. }));
    }

    #[test]
    fn who_was_split_otherwise_may_have_learned_what_is_held_out() {
        let check = |one: &str, another: &str, expected: bool| {
            let [one, another] =
                [one, another].map(|name| artifact::DataSet { name: name.into(), digest: name.into(), n: 10 });
            let told = [is_split_otherwise(&one, &another), is_split_otherwise(&another, &one)];
            assert_eq!(told, [expected; 2], "{one:?} {another:?}");
        };
        let by_sample = "collected: 40 labelled samples, split by sample";
        let by_group = "collected: 62 labelled samples of 8 groups, split by group";
        let grown = "collected: 90 labelled samples of 9 groups, split by group";
        let [seven, eight] = [7, 8].map(|seed| format!("IDX files, 10 % held out by seed {seed}"));
        check(by_group, grown, false);
        check(by_sample, by_group, true);
        check(&seven, &eight, true);
        check(&seven, "IDX files, its own test files", false);
        // A base has learned from something else.
        check(&seven, by_group, false);
        check("synthetic:digits v1, 5000 by seed 1", by_group, false);
        let mixed = |own: &str, with: &str| format!("{own} + {with}");
        check(&mixed(by_group, &seven), &mixed(grown, &seven), false);
        check(&mixed(by_group, &seven), &mixed(grown, &eight), true);
        check(&mixed(by_sample, &seven), &mixed(grown, &seven), true);
    }

    #[test]
    fn the_test_split_is_read_once_and_nobody_carries_it_before() {
        let mut test = synthetic::digits(50, 3).test;
        test.read_before(1);
        assert_eq!(test.carry(4).unwrap_err(), TestError::Unread);
        assert_eq!(test.read().unwrap().len(), 10);
        assert_eq!(test.read().unwrap_err(), TestError::ReadTwice);
        assert_eq!((test.reads(), test.carry(4).unwrap().len()), (2, 4), "one of them in an earlier run");
    }

    /// With balanced classes it was a panic, and without them an error at the first step.
    #[test]
    fn digits_are_no_data_for_a_network_that_tells_fewer() {
        let preprocess = Preprocess { version: 1, input: Material::Image, steps: vec![] };
        let wanted = Wanted::new(&preprocess, &[1, 28, 28], 7);
        let source = DataSource { uri: "synthetic:digits".into(), format: Format::Idx, mix: vec![] };
        let error = read(&source, None, 7, wanted).unwrap_err();
        assert_eq!(error.to_string(), "synthetic:digits: label 7 at 7; the network tells 7 classes");
        assert!(error.is_final());
    }
}
