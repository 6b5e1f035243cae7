//! What collectors wrote: labelled samples, shard by shard, each decoded as it is where models serve; or features that were made
//! there, which a head alone can learn from.

use super::labels::{Said, said};
use super::mix::hashed;
use super::{DataError, DataSet, Inputs, Labels, SPLIT_BY, Samples, TestSplit, Wanted, split, tensors};
use sconce_lake::{Lake, Row, npy};
use sconce_model::digest;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;

/// Of the samples; the same whatever seed a run has, so that runs can be compared.
const TEST_SHARE: f64 = 0.2;
const SPLIT_SEED: u64 = 1;
const TEST: &str = "test";
/// Of an image, as where models serve.
const MAX_PIXELS: u64 = 16 << 20;
/// Below it, samples are split one by one: with a validation split, three parts are made.
const FEWEST_GROUPS: usize = 3;
const FEWEST: usize = 10;

/// A labelled sample, ready for the network.
struct Sample {
    id: String,
    said: Said,
    group: String,
    probability: f64,
    xs: Vec<f32>,
    /// Of sequences of any length.
    steps: Option<usize>,
    is_features: bool,
}

/// All that is labelled, and what was left out.
#[derive(Default)]
struct Gathered {
    samples: Vec<Sample>,
    /// Each once.
    all: usize,
    /// Labelled ones that are no input: how many, and the first with why.
    unread: usize,
    first: Option<(String, String)>,
    conflicts: Vec<String>,
}

pub fn read(uri: &str, wanted: Wanted<'_>) -> Result<DataSet, DataError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DataError::Runtime)?;
    let gathered = runtime.block_on(gather(uri, wanted))?;
    let Gathered { mut samples, all, unread, first, conflicts } = gathered;
    if let (0, Some((id, why))) = (samples.len(), first.clone()) {
        return Err(DataError::Unread { uri: uri.into(), got: unread, id, why });
    }
    if samples.len() < FEWEST {
        return Err(DataError::Unlabelled { uri: uri.into(), got: samples.len(), all });
    }
    // Whatever shard they came in.
    samples.sort_by(|one, other| one.id.cmp(&other.id));
    let mut notes = vec![format!("{} of {all} samples have labels that count", samples.len())];
    notes.extend(first.map(|(id, why)| format!("{unread} labelled samples cannot be read; the first, {id}: {why}")));
    if let Some(conflict) = conflicts.first() {
        notes.push(format!(
            "of {} samples people say different things, and the newest counts; {conflict}",
            conflicts.len()
        ));
    }
    let groups: Vec<u64> = samples.iter().map(|sample| hashed(sample.group.as_bytes())).collect();
    let count = groups.iter().collect::<BTreeSet<_>>().len();
    let is_enough = count >= FEWEST_GROUPS;
    // Two samples of 5,002 would decide whether a model is served.
    let is_fair = |test: usize| test as f64 * 4.0 >= groups.len() as f64 * TEST_SHARE;
    let by_group = is_enough && is_fair(split::by_group(&groups, TEST_SHARE, SPLIT_SEED, TEST).1.len());
    if !by_group {
        let why = if is_enough { "too unlike in size" } else { "too few" };
        notes.push(format!(
            "they are of {count} groups, {why} to split by: samples of one group are on both sides, and accuracy may be flattered"
        ));
    }
    let name = if by_group {
        format!("collected: {} labelled samples of {count} groups, {SPLIT_BY}group", samples.len())
    } else {
        format!("collected: {} labelled samples, {SPLIT_BY}sample", samples.len())
    };
    let digest = digest(&samples);
    let samples = joined(samples, by_group, wanted)?;
    let (train, test) = samples.split(TEST_SHARE, SPLIT_SEED, TEST);
    Ok(DataSet { name, digest, notes, train, test: TestSplit::new(test) })
}

async fn gather(uri: &str, wanted: Wanted<'_>) -> Result<Gathered, DataError> {
    let lake = Lake::open(uri)?;
    let labels = lake.labels().await?;
    let conflicts = labels.conflicts().map(|conflict| conflict.to_string()).collect();
    let (mut gathered, mut seen) = (Gathered { conflicts, ..Gathered::default() }, BTreeSet::new());
    for shard in lake.shards().await? {
        let mut rows = lake.rows(&shard).await?;
        // Two nodes may have seen the same.
        rows.retain(|row| seen.insert(row.id.clone()));
        gathered.all += rows.len();
        let mut said_of = Vec::new();
        let mut labelled = Vec::new();
        for row in rows {
            if let Some(label) = labels.of(&row).filter(|label| !label.value.is_empty()) {
                said_of.push(said(label, wanted)?);
                labelled.push(row);
            }
        }
        let contents = lake.contents(&shard, &labelled).await?;
        for ((row, said), content) in labelled.into_iter().zip(said_of).zip(contents) {
            let xs = match &row.backbone {
                None => input(&row, &content, wanted),
                Some(made_by) => features(made_by, &content, wanted).map(|xs| (xs, None)),
            };
            match xs {
                Ok((xs, steps)) => {
                    let Row { id, group, probability, backbone, .. } = row;
                    let is_features = backbone.is_some();
                    gathered.samples.push(Sample { id, said, group, probability, xs, steps, is_features });
                }
                Err(why) => {
                    gathered.unread += 1;
                    gathered.first.get_or_insert((row.id, why));
                }
            }
        }
    }
    Ok(gathered)
}

/// Of the backbone that the head is to read, and of no other.
fn features(made_by: &str, content: &[u8], wanted: Wanted<'_>) -> Result<Vec<f32>, String> {
    let Some(backbone) = wanted.backbone else {
        return Err(
            "it is features of a model, from which a head alone can be learned: name that model in spec.base, \
            freeze its backbone, preprocess as it does, and let the head read the last of it alone"
                .into(),
        );
    };
    if made_by != backbone.digest {
        return Err(format!(
            "it is features of the backbone {made_by}; those of the base's f32 are {}",
            backbone.digest
        ));
    }
    let reads = &backbone.network.graph().nodes.last().map(|node| node.shape.clone()).unwrap_or_default();
    Ok(fitting(npy::read(content)?, (reads, None))?.0)
}

/// Of this shape, or a batch of one; from `shortest` steps on, if that is said. With how many it has, then.
fn fitting(
    npy::Tensor { shape: got, values }: npy::Tensor,
    (reads, shortest): (&[usize], Option<usize>),
) -> Result<(Vec<f32>, Option<usize>), String> {
    // One of them would make each loss of the run no number.
    if !values.iter().all(|value| value.is_finite()) {
        return Err("it holds numbers that are not finite".into());
    }
    let shape = got.strip_prefix(&[1]).filter(|row| row.len() == reads.len()).unwrap_or(&got);
    match (shortest, shape) {
        (None, shape) if shape == reads => Ok((values, None)),
        (Some(shortest), [steps, rest @ ..]) if rest == &reads[1..] && (shortest..=reads[0]).contains(steps) => {
            Ok((values, Some(*steps)))
        }
        (None, _) => Err(format!("a tensor of {got:?}, the network takes {reads:?}")),
        (Some(shortest), _) => {
            Err(format!("a tensor of {got:?}, the network takes {reads:?} or sequences from {shortest} steps on"))
        }
    }
}

/// An image as a server would take it; tensors that models were asked with, measurements and sound as they are. With how many steps it has,
/// where that may be any.
fn input(row: &Row, content: &[u8], wanted: Wanted<'_>) -> Result<(Vec<f32>, Option<usize>), String> {
    let Wanted { preprocess, input, shortest, .. } = wanted;
    match row.media.as_str() {
        "jpg" | "png" => {
            let xs = preprocess.encoded(content, input, MAX_PIXELS).map_err(|error| error.to_string())?;
            Ok((xs, shortest.map(|_| input[0])))
        }
        "npy" => fitting(npy::read(content)?, (input, shortest)),
        "json" => fitting(tensors::of_json(content)?, (input, shortest)),
        "wav" => {
            let mut sound = tensors::of_wav(content)?;
            // One channel is a row of numbers to a network that reads such.
            if let ([_], [time, 1]) = (input, &sound.shape[..]) {
                sound.shape = vec![*time];
            }
            fitting(sound, (input, shortest))
        }
        other => Err(format!("it is a file of {other}, which nothing is learned from")),
    }
}

fn digest(samples: &[Sample]) -> String {
    let mut hasher = Sha256::new();
    for Sample { id, said, group, probability, .. } in samples {
        hasher.update(format!("{id} {} {probability} {group}\n", said.digested()));
    }
    digest::named(hasher)
}

/// Where some are features, what was kept whole is asked the same backbone.
fn joined(samples: Vec<Sample>, by_group: bool, wanted: Wanted<'_>) -> Result<Samples, DataError> {
    let (made, whole): (Vec<usize>, Vec<usize>) = (0..samples.len()).partition(|at| samples[*at].is_features);
    let are_features = !made.is_empty();
    let group = |sample: &Sample| hashed(if by_group { &sample.group } else { &sample.id }.as_bytes());
    let groups = samples.iter().map(&group).collect();
    let mut labels = Labels::none(wanted);
    samples.iter().for_each(|sample| labels.push(&sample.said));
    let weights = weights(samples.iter().map(|sample| sample.probability));
    let steps: Vec<Option<usize>> = samples.iter().map(|sample| sample.steps).collect();
    let mut all: Vec<Vec<f32>> = samples.into_iter().map(|sample| sample.xs).collect();
    if let Some(backbone) = wanted.backbone.filter(|_| are_features && !whole.is_empty()) {
        let inputs = Inputs::Ready(whole.iter().flat_map(|at| all[*at].iter().copied()).collect());
        let (labels, lengths) =
            (Labels::Classes(vec![0; whole.len()]), whole.iter().filter_map(|at| steps[*at]).collect());
        let through = Samples { inputs, labels, groups: vec![], weights: vec![], lengths }.through(backbone, wanted)?;
        let Inputs::Features(xs) = through.inputs else { unreachable!("what went through a backbone is features") };
        let size = xs.len() / whole.len();
        whole.iter().zip(xs.chunks_exact(size)).for_each(|(at, xs)| all[*at] = xs.to_vec());
    }
    let xs = all.into_iter().flatten().collect();
    let inputs = if are_features { Inputs::Features(xs) } else { Inputs::Ready(xs) };
    let lengths = if are_features { vec![] } else { steps.into_iter().flatten().collect() };
    Ok(Samples { labels, groups, weights, inputs, lengths })
}

/// The inverse of the probability that a sample like this one is kept, one in the mean; none where all are kept alike.
fn weights(probabilities: impl Iterator<Item = f64>) -> Vec<f32> {
    let inverse: Vec<f64> = probabilities.map(|kept| if kept > 0.0 { 1.0 / kept.min(1.0) } else { 1.0 }).collect();
    let mean = inverse.iter().sum::<f64>() / inverse.len().max(1) as f64;
    if inverse.iter().all(|weight| *weight == inverse[0]) {
        return vec![];
    }
    inverse.into_iter().map(|weight| (weight / mean) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sconce_model::preprocess::{Material, Preprocess, Step};

    #[test]
    fn rare_samples_count_more() {
        assert_eq!(weights([0.5, 1.0, 1.0].into_iter()), [1.5, 0.75, 0.75]);
        assert!(weights([0.1, 0.1].into_iter()).is_empty());
        assert!(weights([f64::NAN, 0.0, 1.0].into_iter()).is_empty(), "what is no probability counts as one");
    }

    #[test]
    fn a_tensor_whose_numbers_are_not_finite_is_not_read() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
        let read = |values: [f32; 2]| {
            let values = values.map(f32::to_le_bytes).concat();
            let head = (header.len() as u16).to_le_bytes();
            let content = [b"\x93NUMPY\x01\x00", &head[..], header.as_bytes(), &values].concat();
            fitting(npy::read(&content)?, (&[2], None))
        };
        assert_eq!(read([3.0, -1.0]), Ok((vec![3.0, -1.0], None)));
        for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(read([3.0, strange]), Err("it holds numbers that are not finite".into()));
        }
    }

    #[test]
    fn files_become_what_a_server_makes_of_them_and_tensors_stay() {
        let preprocess = Preprocess { version: 1, input: Material::Image, steps: vec![Step::Scale { by: 0.5 }] };
        let wanted = Wanted::new(&preprocess, &[1, 1, 2], 10);
        let row = |media: &str| Row { media: media.into(), ..Row::default() };
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1, 2,), }";
        let tensor = |values: [f32; 2]| {
            let values = values.map(f32::to_le_bytes).concat();
            [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &values].concat()
        };
        assert_eq!(input(&row("npy"), &tensor([3.0, -1.0]), wanted).unwrap(), (vec![3.0, -1.0], None));
        let narrow = Wanted { input: &[1, 1, 3], ..wanted };
        let error = input(&row("npy"), &tensor([3.0, -1.0]), narrow).unwrap_err();
        assert_eq!(error, "a tensor of [1, 1, 1, 2], the network takes [1, 1, 3]");
        assert!(input(&row("png"), b"\x89PNG...", wanted).unwrap_err().starts_with("it is no PNG or JPEG"));
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 2,), }";
        let two = [3.0_f32, -1.0].map(f32::to_le_bytes).concat();
        let one_step =
            [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &two].concat();
        let any = Wanted { input: &[3, 2], shortest: Some(1), ..wanted };
        assert_eq!(input(&row("npy"), &one_step, any).unwrap(), (vec![3.0, -1.0], Some(1)));
        let error = input(&row("npy"), &one_step, Wanted { shortest: Some(2), ..any }).unwrap_err();
        assert_eq!(error, "a tensor of [1, 1, 2], the network takes [3, 2] or sequences from 2 steps on");
        let any_rows = Wanted { input: &[3, 2], shortest: Some(1), ..wanted };
        assert_eq!(input(&row("json"), b"[[3, -1]]", any_rows).unwrap(), (vec![3.0, -1.0], Some(1)));
        let error = input(&row("json"), b"[3, -1]", wanted).unwrap_err();
        assert_eq!(error, "a tensor of [2], the network takes [1, 1, 2]");
        assert!(input(&row("wav"), b"RIFF", wanted).unwrap_err().starts_with("it is no WAV"));
        assert!(input(&row("mp4"), b"", wanted).unwrap_err().starts_with("it is a file of mp4"));
    }
}
