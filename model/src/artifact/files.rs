//! An artifact as the layers of a CNCF ModelPack: one raw layer per file.

use super::signature::SIGNATURE;
use super::{Artifact, ArtifactError, CONFIG, EVALUATION, PREPROCESS, REPORT, VARIANTS};
use crate::digest;
use std::collections::BTreeSet;
use std::path::Path;

/// A layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// In the artifact, with `/` between folders; the annotation `org.cncf.model.filepath`.
    pub path: String,
    pub media_type: &'static str,
    pub digest: String,
    pub bytes: Vec<u8>,
}

/// What ModelPack calls a file of ours.
pub fn media_type(path: &str) -> &'static str {
    if path.starts_with("weights/") {
        "application/vnd.cncf.model.weight.v1.raw"
    } else if [EVALUATION, REPORT, SIGNATURE].contains(&path) {
        "application/vnd.cncf.model.doc.v1.raw"
    } else {
        "application/vnd.cncf.model.weight.config.v1.raw"
    }
}

/// The files of an artifact, in the order of their paths: those it names, whatever else lies in the folder.
///
/// # Errors
/// [`ArtifactError`] if it is no artifact, or one of them cannot be read.
pub fn files(folder: &Path) -> Result<Vec<File>, ArtifactError> {
    let artifact = Artifact::open(folder)?;
    let added = [SIGNATURE, REPORT].into_iter().filter(|file| folder.join(file).exists());
    let named =
        [CONFIG, PREPROCESS, VARIANTS].into_iter().chain(artifact.evaluation().map(|_| EVALUATION)).chain(added);
    let weights = artifact.variants().iter().flat_map(|variant| variant.files.iter().map(String::as_str));
    let paths: BTreeSet<&str> = named.chain(weights).collect();
    let file = |path: &str| {
        let bytes = super::read(folder, path)?;
        Ok(File { path: path.into(), media_type: media_type(path), digest: digest::sha256(&bytes), bytes })
    };
    paths.into_iter().map(file).collect()
}
