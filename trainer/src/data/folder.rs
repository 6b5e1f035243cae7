//! MNIST's files in a folder, plain or gzipped. Without test files, a tenth of the training files is held out.

use super::{DataError, DataSet, HELD_OUT_BY, Samples, TestSplit};
use sconce_model::digest;
use sconce_model::idx;
use sha2::{Digest as _, Sha256};
use std::io::Read as _;
use std::path::{Path, PathBuf};

pub(super) fn read(folder: &Path, seed: u64, classes: usize) -> Result<DataSet, DataError> {
    let mut hasher = Sha256::new();
    let train = pair(folder, "train-images-idx3-ubyte", "train-labels-idx1-ubyte", classes, &mut hasher)?;
    let test = match pair(folder, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", classes, &mut hasher) {
        Err(DataError::Missing { .. }) => None,
        other => Some(other?),
    };
    if train.len() < 10 {
        return Err(DataError::TooFew { folder: folder.into(), got: train.len() });
    }
    let (how, (train, test)) = match test {
        Some(test) => ("its own test files".into(), (train, test)),
        None => (format!("{HELD_OUT_BY}seed {seed}"), train.split(0.1, seed, "test")),
    };
    Ok(DataSet {
        name: format!("IDX files, {how}"),
        digest: digest::named(hasher),
        notes: vec![],
        train,
        test: TestSplit::new(test),
    })
}

fn pair(
    folder: &Path,
    images: &'static str,
    labels: &'static str,
    classes: usize,
    hasher: &mut Sha256,
) -> Result<Samples, DataError> {
    let (images_path, images_bytes) = bytes(folder, images)?;
    let (labels_path, labels_bytes) = bytes(folder, labels)?;
    hasher.update(&images_bytes);
    hasher.update(&labels_bytes);
    let images = idx::read_images(&images_bytes).map_err(|fault| DataError::Idx { path: images_path, fault })?;
    let labels = idx::read_labels(&labels_bytes).map_err(|fault| DataError::Idx { path: labels_path, fault })?;
    if images.count != labels.len() {
        return Err(DataError::Counts { folder: folder.into(), images: images.count, labels: labels.len() });
    }
    match labels.iter().position(|&label| usize::from(label) >= classes) {
        Some(index) => Err(DataError::Label { folder: folder.into(), index, got: labels[index], classes }),
        None => Ok(Samples::grey(images, labels)),
    }
}

fn bytes(folder: &Path, file: &'static str) -> Result<(PathBuf, Vec<u8>), DataError> {
    let read = |path: &Path| std::fs::read(path).map_err(|source| DataError::Read { path: path.into(), source });
    let plain = folder.join(file);
    if plain.exists() {
        return Ok((plain.clone(), read(&plain)?));
    }
    let packed = folder.join(format!("{file}.gz"));
    if !packed.exists() {
        return Err(DataError::Missing { file, folder: folder.into() });
    }
    let mut bytes = Vec::new();
    let unpacked = flate2::read::GzDecoder::new(read(&packed)?.as_slice()).read_to_end(&mut bytes);
    unpacked.map_err(|source| DataError::Gzip { path: packed.clone(), source })?;
    Ok((packed, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sconce_model::idx::{Images, write_images, write_labels};

    fn folder(images: &[u8], labels: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("train-images-idx3-ubyte"), images).unwrap();
        std::fs::write(folder.path().join("train-labels-idx1-ubyte"), labels).unwrap();
        folder
    }

    fn images(count: usize) -> Vec<u8> {
        write_images(&Images { count, height: 2, width: 2, pixels: vec![0; 4 * count] })
    }

    #[test]
    fn a_tenth_is_held_out_where_there_are_no_test_files() {
        let set = read(folder(&images(20), &write_labels(&[3; 20])).path(), 7, 10).unwrap();
        assert_eq!((set.train.len(), set.test.len()), (18, 2));
        let elsewhere = read(folder(&images(20), &write_labels(&[3; 20])).path(), 7, 10).unwrap();
        assert_eq!((set.name, set.digest), (elsewhere.name, elsewhere.digest), "the folder is no part of the data");
    }

    #[test]
    fn bad_files_are_named() {
        let check = |images: &[u8], labels: &[u8], expected: &str| {
            let error = read(folder(images, labels).path(), 7, 10).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(b"PNG", &write_labels(&[3; 20]), "train-images-idx3-ubyte: not an IDX file of images");
        check(&images(20)[..50], &write_labels(&[3; 20]), "cut off: its header promises 96 bytes, it has 50");
        check(&images(20), &write_labels(&[3; 19]), "20 images but 19 labels");
        check(&images(20), &write_labels(&[11; 20]), "label 11 at 0; the network tells 10 classes");
        let cut = tempfile::tempdir().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &images(20)).unwrap();
        let gzip = gzip.finish().unwrap();
        std::fs::write(cut.path().join("train-images-idx3-ubyte.gz"), &gzip[..gzip.len() - 9]).unwrap();
        let error = read(cut.path(), 7, 10).unwrap_err().to_string();
        assert!(error.contains("train-images-idx3-ubyte.gz: cut off, or no gzip"), "{error}");
        let empty = tempfile::tempdir().unwrap();
        assert!(
            read(empty.path(), 7, 10)
                .unwrap_err()
                .to_string()
                .contains("no train-images-idx3-ubyte (nor train-images-idx3-ubyte.gz) in")
        );
    }
}
