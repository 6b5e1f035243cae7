//! Samples out to people, labels in; and samples that are to be there no more.

mod count;
mod export;
mod forget;
mod import;
mod page;
mod picture;
#[cfg(test)]
mod tests;

use crate::args::{Data, Export, Forget, Import, Output, Source};
use crate::cluster;
use crate::print::print;
use anyhow::{Context as _, Result, bail};
use count::Counter;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use sconce_api::on_claim;
use sconce_lake::{Labels, Lake, Row, Shard};
use std::collections::BTreeSet;
use std::path::PathBuf;

pub async fn ask(source: &Source, output: Output, command: Data) -> Result<()> {
    match command {
        Data::Export(Export { dataset, at, to, by, limit, unlabelled }) => {
            export::check(&to)?;
            let wish = export::Wish { by, limit, unlabelled };
            let contents = Contents::of(open(source, &dataset, at).await?.0).await?;
            print(output, &export::export(&contents, &wish, &to).await?)
        }
        Data::Import(Import { dataset, at, file, by }) => {
            // A mistake in the file needs no bucket to be told.
            let bytes = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            let given = sconce_lake::labels::read(&file.display().to_string(), &bytes)?;
            let (lake, counter) = open(source, &dataset, at).await?;
            let contents = Contents::of(lake).await?;
            let now = Timestamp::now();
            let checked = import::check(&contents, given, &by, now)?;
            let told = import::keep(&contents.lake, checked, now).await?;
            if let (Some(counter), 1..) = (counter, told.fresh) {
                counter.add(told.fresh).await.with_context(|| {
                    format!("{} labels are kept, but not counted in the status of EdgeDataset {dataset}", told.kept)
                })?;
            }
            print(output, &told)
        }
        Data::Forget(Forget { dataset, at, id, by }) => {
            let (lake, _) = open(source, &dataset, at).await?;
            print(output, &forget::forget(&lake, id.into_iter().collect(), &by, Timestamp::now()).await?)
        }
    }
}

/// A data set by its address, or by the name of its EdgeDataset, whose labels are counted then.
async fn open(source: &Source, dataset: &str, at: Option<PathBuf>) -> Result<(Lake, Option<Counter>)> {
    if dataset.contains("://") {
        // An error would say that one is installed already.
        rustls::crypto::ring::default_provider().install_default().ok();
        return Ok((Lake::open(dataset)?, None));
    }
    let (client, namespace) = cluster(source, "data").await?;
    let counter = Counter::new(client, &namespace, dataset);
    let place = place(counter.uri().await?, at)?;
    Ok((Lake::open(&place)?, Some(counter)))
}

/// Where a data set lies as it is seen from here: `at`, if it is on a claim.
fn place(uri: String, at: Option<PathBuf>) -> Result<String> {
    match (on_claim(&uri).is_some(), at) {
        (true, Some(folder)) => Ok(format!("file://{}", std::path::absolute(folder)?.display())),
        (true, None) => {
            bail!("it lies on a claim, {uri}: name that folder, where the claim is mounted here, with --at")
        }
        (false, Some(_)) => bail!("it lies at {uri}, which is no claim: leave --at out"),
        (false, None) => Ok(uri),
    }
}

/// All that is known of a data set's samples; not their bytes.
struct Contents {
    lake: Lake,
    /// Each sample once.
    rows: Vec<(Shard, Vec<Row>)>,
    labels: Labels,
}

impl Contents {
    async fn of(lake: Lake) -> Result<Self> {
        let labels = lake.labels().await?;
        let shards = lake.shards().await?;
        if shards.is_empty() {
            bail!("no sample has arrived there yet: there is no manifest");
        }
        let progress = progress("reading manifests", shards.len());
        let (mut rows, mut seen) = (Vec::new(), BTreeSet::new());
        for shard in shards {
            let mut of_shard = lake.rows(&shard).await?;
            of_shard.retain(|row| seen.insert(row.id.clone()));
            rows.push((shard, of_shard));
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(Self { lake, rows, labels })
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().flat_map(|(_, rows)| rows)
    }
}

/// On a terminal; elsewhere it is silent.
fn progress(what: &'static str, count: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}");
    let bar = ProgressBar::new(count as u64).with_message(what);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}
