//! Loads a version from its folder: verified again (cards rot), compiled, warmed up.

use crate::decode::{Images, Signature, max_pixels, memory_at_once};
use crate::engine::Runner;
use crate::process;
use candle_core::{DType, Device, Tensor};
use sconce_kernels::{Cpu, IsaError, IsaToken, Threads};
use sconce_model::artifact::signature::{SIGNATURE, SignatureError, Trust};
use sconce_model::artifact::{self, Artifact, ArtifactError, Backbone, CONFIG, PREPROCESS, VARIANTS, VariantEntry};
use sconce_model::digest::{named, sha256};
use sconce_model::drift::Reference;
use sconce_model::plan::Plan;
use sconce_model::variant::Variant;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// The manifest as `fetch` left it.
pub const MANIFEST: &str = "manifest.json";
/// The layer annotation that names a file.
pub const FILE_PATH: &str = "org.cncf.model.filepath";

#[derive(Debug, Error)]
pub enum LoadError {
    #[error(transparent)]
    Artifact(Box<ArtifactError>),
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error("UnknownArchitecture: {why}; use a newer build, or train again with layers that this one knows")]
    Architecture { why: String },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("DigestMismatch: {file} is {got}, should be {need}: it was changed or has rotted; fetch it again")]
    Digest { file: String, got: String, need: String },
    #[error(
        "DigestMismatch: {file} is not in the manifest: whoever put it there, it is not of this version; fetch again"
    )]
    Unlisted { file: String },
    #[error("{}: no manifest of an artifact", path.display())]
    Manifest { path: PathBuf, source: serde_json::Error },
    #[error("the model has {inputs} inputs and {outputs} outputs; only one of each can be served yet")]
    Tensors { inputs: usize, outputs: usize },
    #[error(
        "it needs {needs} bytes beside the {resident} that this process has, of {limit}, a tenth of which stays free; unload a \
         model before, or give the process more"
    )]
    Memory { needs: u64, resident: u64, limit: u64 },
    #[error(transparent)]
    Isa(#[from] IsaError),
    #[error("the system gives no threads")]
    Threads(#[source] std::io::Error),
    #[error("the model fails at warm-up: {0}")]
    WarmUp(#[from] candle_core::Error),
}

impl From<ArtifactError> for LoadError {
    fn from(error: ArtifactError) -> Self {
        match error {
            ArtifactError::UnknownArchitecture { why } => LoadError::Architecture { why },
            other => LoadError::Artifact(Box::new(other)),
        }
    }
}

/// An OCI manifest, as far as it is read here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    #[serde(default)]
    pub layers: Vec<Layer>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    pub digest: String,
    pub size: u64,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

pub struct Loaded {
    pub runner: Runner,
    pub signature: Signature,
    /// Of the manifest; empty for a folder that has none.
    pub digest: String,
    /// What one row takes on one thread, once warm.
    pub one_row: Duration,
    /// What it said of held-out samples, where that is known.
    pub reference: Option<Reference>,
}

/// Compiles a variant and warms it up.
///
/// # Errors
/// [`LoadError`]: it is not there, or broken, or fails at warm-up.
pub fn load(opened: &Opened, variant: &str, max_batch_size: usize, threads: usize) -> Result<Loaded, LoadError> {
    let artifact = &opened.artifact;
    let (inputs, outputs) = (&artifact.config().inputs, &artifact.config().outputs);
    let ([input], [output]) = (&inputs[..], &outputs[..]) else {
        return Err(LoadError::Tensors { inputs: inputs.len(), outputs: outputs.len() });
    };
    let labels = artifact.config().labels.clone();
    let max_pixels = max_pixels(memory_at_once(process::memory_limit()));
    let images = Images::new(artifact.preprocess(), &artifact.graph().input, max_pixels).map(Arc::new);
    let of_variant = opened.variant(variant)?;
    let plan = of_variant.plan()?;
    // A variant may have windows that the others have not.
    let (input, output, lengths) = (input.clone(), output.clone(), plan.lengths());
    let words = of_variant.network.graph().words();
    drop(of_variant);
    let signature = Signature { input, lengths, words, output, images, labels, max_batch_size };
    for step in plan.steps() {
        tracing::debug!(%step, "planned");
    }
    let runner = Runner { plan, isa: IsaToken::detect()?, threads: Threads::new(threads).map_err(LoadError::Threads)? };
    let one_row = warm_up(&runner, max_batch_size)?;
    let digest = opened.verified.as_ref().map(|verified| verified.digest.clone()).unwrap_or_default();
    let reference = artifact.reference(variant).cloned();
    Ok(Loaded { runner, signature, digest, one_row, reference })
}

/// An artifact, before anything of it is built.
pub struct Opened {
    pub artifact: Artifact,
    /// `None` where the folder has no manifest.
    pub verified: Option<Verified>,
    folder: PathBuf,
}

/// Verifies a folder, and reads what it is.
///
/// # Errors
/// [`LoadError`]: it is not what its digest says, not signed by whom it must be, or no artifact.
pub fn open(folder: &Path, digest: Option<&str>, trust: &Trust) -> Result<Opened, LoadError> {
    let verified = verify(folder, digest)?;
    if trust.asks() {
        let whole = || artifact::files(folder).map(|files| files.into_iter().map(|file| (file.path, file.digest)));
        let listed = match &verified {
            Some(verified) => verified.listed.clone(),
            None => whole()?.collect(),
        };
        trust.verify(&listed, std::fs::read(folder.join(SIGNATURE)).ok().as_deref())?;
    }
    Ok(Opened { artifact: Artifact::open(folder)?, verified, folder: folder.into() })
}

impl Opened {
    /// Whether all files of a variant are there: a node fetches those of one.
    pub fn has(&self, variant: &VariantEntry) -> bool {
        variant.files.iter().all(|file| self.folder.join(file).exists())
    }

    /// A variant, compiled.
    ///
    /// # Errors
    /// [`LoadError`]: a file of it is not in the manifest, or broken.
    pub fn plan(&self, variant: &str) -> Result<Plan, LoadError> {
        Ok(self.variant(variant)?.plan()?)
    }

    /// What a variant makes features with, if there is something of the kind.
    ///
    /// # Errors
    /// As [`Opened::plan`].
    pub fn backbone(&self, variant: &str) -> Result<Option<Backbone>, LoadError> {
        Ok(self.artifact.backbone(&self.variant(variant)?)?)
    }

    fn variant(&self, variant: &str) -> Result<Variant, LoadError> {
        if let Some(verified) = &self.verified {
            let of_variant = self.artifact.variants().iter().filter(|known| known.name == variant);
            let files = of_variant.flat_map(|known| &known.files).map(String::as_str);
            let mut described = [CONFIG, PREPROCESS, VARIANTS].into_iter().chain(files);
            if let Some(file) = described.find(|file| !verified.files.contains(*file)) {
                return Err(LoadError::Unlisted { file: file.into() });
            }
        }
        Ok(self.artifact.variant(variant)?)
    }
}

/// Runs every size of batch that is a power of two, and the largest; then one row, some times: the shortest is what it takes.
fn warm_up(runner: &Runner, max_batch_size: usize) -> candle_core::Result<Duration> {
    let mut scratch = runner.plan.scratch(max_batch_size);
    let mut run = |threads: &Threads, rows: usize| -> candle_core::Result<Duration> {
        let shape: Vec<usize> = std::iter::once(rows).chain(runner.plan.input().iter().copied()).collect();
        let xs = Tensor::zeros(shape, DType::F32, &Device::Cpu)?;
        let began = Instant::now();
        runner.plan.infer(Cpu { isa: runner.isa, threads }, &[&xs], &mut scratch)?;
        Ok(began.elapsed())
    };
    let sizes = std::iter::successors(Some(1), |size| Some(size * 2)).take_while(|size| *size < max_batch_size);
    for rows in sizes.chain([max_batch_size]) {
        run(&runner.threads, rows)?;
    }
    let alone = Threads::one();
    (0..3).try_fold(Duration::MAX, |shortest, _| Ok(shortest.min(run(&alone, 1)?)))
}

/// What a manifest says, and is so.
pub struct Verified {
    /// Of the manifest.
    pub digest: String,
    /// Those that are there.
    pub files: BTreeSet<String>,
    /// All of the version, with their digests.
    listed: BTreeMap<String, String>,
}

/// Checks the manifest against its digest, and the files that are there against the manifest. `None` without a manifest, where
/// none is asked for.
fn verify(folder: &Path, digest: Option<&str>) -> Result<Option<Verified>, LoadError> {
    let path = folder.join(MANIFEST);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound && digest.is_none() => return Ok(None),
        Err(source) => return Err(LoadError::Read { path, source }),
    };
    let got = sha256(&bytes);
    matches(MANIFEST, &got, digest.unwrap_or(&got))?;
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|source| LoadError::Manifest { path, source })?;
    let (mut files, mut listed) = (BTreeSet::new(), BTreeMap::new());
    for layer in &manifest.layers {
        let Some(file) = layer.annotations.get(FILE_PATH) else { continue };
        listed.insert(file.clone(), layer.digest.clone());
        let path = folder.join(file);
        match digest_of(&path) {
            Ok(got) => {
                matches(file, &got, &layer.digest)?;
                files.insert(file.clone());
            }
            // A file of another variant.
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(LoadError::Read { path, source }),
        }
    }
    Ok(Some(Verified { digest: got, files, listed }))
}

/// Of a file, without holding it in memory.
pub fn digest_of(path: &Path) -> std::io::Result<String> {
    let (mut file, mut hasher, mut chunk) = (File::open(path)?, Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(named(hasher)),
            count => hasher.update(&chunk[..count]),
        }
    }
}

fn matches(file: &str, got: &str, need: &str) -> Result<(), LoadError> {
    if got == need { Ok(()) } else { Err(LoadError::Digest { file: file.into(), got: got.into(), need: need.into() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(folder: &Path, digest: &str) -> Result<Loaded, LoadError> {
        load(&open(folder, Some(digest), &Trust::default())?, "f32", 4, 1)
    }

    #[test]
    fn a_changed_file_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        sconce_model::artifact::testing::write_tiny(folder.path(), 7).unwrap();
        let layers: Vec<_> = sconce_model::artifact::files(folder.path())
            .unwrap()
            .into_iter()
            .map(|file| serde_json::json!({"digest": file.digest, "size": file.bytes.len(), "annotations": {FILE_PATH: file.path}}))
            .collect();
        let manifest = serde_json::json!({ "layers": layers }).to_string();
        std::fs::write(folder.path().join(MANIFEST), &manifest).unwrap();
        let digest = sha256(manifest.as_bytes());
        assert_eq!(loaded(folder.path(), &digest).unwrap().digest, digest);

        let other = loaded(folder.path(), &sha256(b"other")).err().unwrap().to_string();
        assert!(other.starts_with("DigestMismatch: manifest.json is sha256:"), "{other}");
        let short = serde_json::json!({ "layers": layers[1..] }).to_string();
        std::fs::write(folder.path().join(MANIFEST), &short).unwrap();
        let unlisted = loaded(folder.path(), &sha256(short.as_bytes())).err().unwrap().to_string();
        assert!(unlisted.starts_with("DigestMismatch: config.json is not in the manifest"), "{unlisted}");
        std::fs::write(folder.path().join(MANIFEST), &manifest).unwrap();
        let weights = folder.path().join("weights/f32/head.safetensors");
        let mut bytes = std::fs::read(&weights).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&weights, bytes).unwrap();
        let rotten = loaded(folder.path(), &digest).err().unwrap().to_string();
        assert!(rotten.starts_with("DigestMismatch: weights/f32/head.safetensors is sha256:"), "{rotten}");
    }
}
