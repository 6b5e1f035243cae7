//! Several data sets as one: learned from and tested on together.

use super::{DataError, DataSet, Inputs, Labels, Part, Samples, TOGETHER, TestSplit, Wanted};
use sconce_model::digest;
use sha2::{Digest as _, Sha256};

/// # Errors
/// [`DataError::Preprocess`] if the images of one do not become an input.
pub fn together(sets: Vec<DataSet>, wanted: Wanted<'_>) -> Result<DataSet, DataError> {
    let mut hasher = Sha256::new();
    // They are all features, or none is.
    let are_features = sets.iter().any(|set| set.train.are_features());
    let (mut train, mut test) = (empty(are_features, wanted), empty(are_features, wanted));
    let (mut parts, mut notes) = (Vec::new(), Vec::new());
    for mut set in sets {
        hasher.update(&set.digest);
        parts.push(Part { name: set.name, count: set.test.len() });
        add(&mut train, set.train, &format!("{} train", set.digest), wanted)?;
        add(
            &mut test,
            std::mem::replace(&mut set.test.samples, empty(false, wanted)),
            &format!("{} test", set.digest),
            wanted,
        )?;
        notes.extend(set.notes);
    }
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    let (name, digest) = (names.join(TOGETHER), digest::named(hasher));
    Ok(DataSet { name, digest, notes, train, test: TestSplit { parts, ..TestSplit::new(test) } })
}

fn empty(are_features: bool, wanted: Wanted<'_>) -> Samples {
    let inputs = if are_features { Inputs::Features(vec![]) } else { Inputs::Ready(vec![]) };
    Samples { inputs, labels: Labels::none(wanted), groups: vec![], weights: vec![], lengths: vec![] }
}

fn add(all: &mut Samples, more: Samples, name: &str, wanted: Wanted<'_>) -> Result<(), DataError> {
    let count = more.len();
    let xs = match more.inputs {
        Inputs::Images(images) => wanted.preprocess.apply_all(&images)?,
        Inputs::Ready(xs) | Inputs::Features(xs) => xs,
    };
    if let Inputs::Ready(ready) | Inputs::Features(ready) = &mut all.inputs {
        ready.extend(xs);
    }
    all.labels.extend(more.labels);
    if wanted.shortest.is_some() && !all.are_features() {
        // What does not say is as long as the longest.
        all.lengths.extend((0..count).map(|row| more.lengths.get(row).copied().unwrap_or(wanted.input[0])));
    }
    // A row that has no group is its own.
    let own = |row: usize| hashed(format!("{name} {row}").as_bytes());
    all.groups.extend((0..count).map(|row| more.groups.get(row).copied().unwrap_or_else(|| own(row))));
    all.weights.extend((0..count).map(|row| more.weights.get(row).copied().unwrap_or(1.0)));
    Ok(())
}

/// The first eight bytes of SHA-256.
pub fn hashed(text: &[u8]) -> u64 {
    let hash = Sha256::digest(text);
    u64::from_be_bytes(std::array::from_fn(|index| hash[index]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic;
    use sconce_model::preprocess::{Material, Preprocess, Step};

    #[test]
    fn both_are_learned_and_both_are_tested() {
        let preprocess = Preprocess { version: 1, input: Material::Image, steps: vec![Step::Scale { by: 0.5 }] };
        let wanted = Wanted::new(&preprocess, &[1, 28, 28], 10);
        let [one, mut other] = [1, 2].map(|seed| synthetic::digits(50, seed));
        other.train.groups = (0..40).map(|row| row / 8).collect();
        other.train.weights = vec![2.0; 40];
        let pixel = other.train.images().unwrap().pixels[30];
        let (labels, digest) = (other.test.samples.labels.clone(), one.digest.clone());
        let names = [&one, &other].map(|set| set.name.clone());
        let mixed = together(vec![one, other], wanted).unwrap();
        assert_eq!(mixed.test.parts, names.map(|name| Part { name, count: 10 }));
        assert_eq!((mixed.train.len(), mixed.test.len()), (80, 20));
        assert_ne!(mixed.digest, digest);
        let Inputs::Ready(xs) = &mixed.train.inputs else { panic!("they are ready") };
        assert_eq!((xs.len(), xs[40 * 784 + 30]), (80 * 784, f32::from(pixel) * 0.5));
        assert_eq!(
            (&mixed.train.weights[39..41], &mixed.train.groups[40..49]),
            (&[1.0, 2.0][..], &[0, 0, 0, 0, 0, 0, 0, 0, 1][..])
        );
        assert_eq!(mixed.test.samples.labels.classes()[10..], *labels.classes());
        let (first, second) = mixed.train.split(0.2, 7, "validation");
        assert!(second.groups.iter().all(|group| !first.groups.contains(group)));
    }

    #[test]
    fn shorter_sequences_stay_as_long_as_they_are_beside_others() {
        let preprocess = Preprocess { version: 1, input: Material::Image, steps: vec![] };
        let wanted = Wanted { shortest: Some(1), ..Wanted::new(&preprocess, &[28, 28], 10) };
        let [pictures, mut shorter] = [1, 2].map(|seed| synthetic::digits(50, seed));
        let of = |samples: &mut Samples| {
            samples.lengths = (0..samples.len()).map(|row| 3 + row % 5).collect();
            let values = samples.lengths.iter().enumerate().flat_map(|(row, steps)| vec![row as f32; 28 * steps]);
            samples.inputs = Inputs::Ready(values.collect());
        };
        of(&mut shorter.train);
        of(&mut shorter.test.samples);
        let mixed = together(vec![pictures, shorter], wanted).unwrap().train;
        assert_eq!(mixed.lengths[39..45], [28, 3, 4, 5, 6, 7]);
        let few = mixed.select(&[42, 0, 41]);
        assert_eq!(few.lengths, [5, 28, 4]);
        let Inputs::Ready(xs) = few.inputs else { panic!("they are ready") };
        assert_eq!((xs.len(), xs[0], xs[28 * 33]), (28 * 37, 2.0, 1.0));
    }
}
