//! Shards: samples as they are sent. Files go in a WebDataset tar, what is known of them in a Parquet manifest; measurements stand
//! in the manifest. Pure: equal samples give equal bytes, so that a shard that is sent again is the same.

use crate::manifest::{Row, manifest};
use crate::sample::{Id, Media, Sample};
use crate::store::Shard;
use bytes::Bytes;

/// Two files; the manifest makes the shard so.
#[derive(Debug, PartialEq, Eq)]
pub struct Packed {
    pub tar: Option<(String, Vec<u8>)>,
    pub manifest: (String, Vec<u8>),
}

#[derive(thiserror::Error, Debug)]
pub enum PackError {
    #[error("cannot write the tar")]
    Tar(#[from] std::io::Error),
    #[error("cannot write the manifest")]
    Manifest(#[from] parquet::errors::ParquetError),
    #[error("cannot write what is known of a sample")]
    Json(#[from] serde_json::Error),
}

/// # Errors
/// [`PackError`], by none of what a sample holds.
pub fn pack(node: &str, shard: &Shard, samples: &[(Sample, Bytes)]) -> Result<Packed, PackError> {
    let is_measured = |sample: &Sample| sample.media == Media::Json;
    let rows: Vec<Row<'_>> = samples
        .iter()
        .map(|(sample, content)| Row { sample, content: is_measured(sample).then_some(content) })
        .collect();
    let manifest = manifest(&rows)?;
    let files: Vec<_> = samples.iter().filter(|(sample, _)| !is_measured(sample)).collect();
    let tar = if files.is_empty() { None } else { Some(tar(&files)?) };
    // The tar is named by its content, and the manifest names the shard: one that is there twice is one.
    let name = format!("{node}-{}-{:08}", shard.store, shard.number);
    Ok(Packed {
        tar: tar.map(|tar| (format!("shards/{name}-{}.tar", &Id::of(&tar).to_string()[..16]), tar)),
        manifest: (format!("manifests/{name}.parquet"), manifest),
    })
}

/// As the webdataset library reads it: what has one name before the first dot is one sample.
fn tar(samples: &[&(Sample, Bytes)]) -> Result<Vec<u8>, PackError> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut file = |name: String, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content)
    };
    for (sample, content) in samples {
        file(format!("{}.{}", sample.id, sample.media.extension()), content)?;
        if let Some(label) = &sample.label {
            // Its decoder takes every `cls` for a number.
            let extension = if label.value.parse::<u64>().is_ok() { "cls" } else { "txt" };
            file(format!("{}.{extension}", sample.id), label.value.as_bytes())?;
        }
        file(format!("{}.json", sample.id), &serde_json::to_vec(sample)?)?;
    }
    Ok(tar.into_inner()?)
}
