//! Measures on this node how long variants take, as its agent asks: one by one, each fetched, run by `bench` in a process of its
//! own that does little else and not for long, and forgotten. Nothing that fails ends this process.

mod order;
mod report;

use crate::args::Measure;
use crate::fetch::{FetchError, Source, Store};
use crate::stop::Stop;
use crate::watch::Changes;
use anyhow::{Context as _, Result, bail};
use futures::future::{BoxFuture, FutureExt as _};
use order::{Ask, MEASURED, Outcomes, State, WANTED};
use sconce_model::artifact::signature::Trust;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::time::timeout;

/// Of one variant, in all its batch sizes.
const SECONDS: &str = "2";
/// Loading included. A model that takes longer is left to its estimate.
const LONGEST: Duration = Duration::from_secs(60);
const MODELS: &str = "models";

/// Until told to stop.
///
/// # Errors
/// If the folder cannot be written or watched.
pub fn run(args: &Measure, stop: Stop) -> BoxFuture<'_, Result<()>> {
    async move {
        tokio::select! {
            biased;
            () = stop => Ok(()),
            ended = measure_all(args) => ended,
        }
    }
    .boxed()
}

async fn measure_all(args: &Measure) -> Result<()> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    forget(folder);
    let (wanted, measured) = (folder.join(WANTED), folder.join(MEASURED));
    let mut changes = Changes::near([wanted.as_path(), measured.as_path()])?;
    let mut outcomes = Outcomes::read(folder, Instant::now());
    outcomes.write(folder)?;
    tracing::info!(folder = %folder.display(), "measuring what the agent asks for");
    loop {
        let asked = order::wanted(folder).and_then(|wanted| outcomes.next(&wanted, Instant::now()));
        let Some(ask) = asked else {
            changes.next().await;
            continue;
        };
        // If this ends the process, the next knows.
        outcomes.note(&ask, State::Begun, Instant::now());
        outcomes.write(folder)?;
        let state = measured_one(args, &ask).await;
        tracing::info!(digest = ask.digest, variant = ask.variant, ?state, "measured");
        outcomes.note(&ask, state, Instant::now());
        outcomes.write(folder)?;
        forget(folder);
    }
}

async fn measured_one(args: &Measure, ask: &Ask) -> State {
    let measured = match fetched(args, ask).await {
        Ok(folder) => bench(&folder, &ask.variant).await,
        // It reads nobody's Secrets: what these open only its own pods may have.
        Err(error @ FetchError::Unauthorized { .. }) => {
            Err(anyhow::Error::from(error).context("a private model is not measured; its estimate stands"))
        }
        Err(error) => Err(error.into()),
    };
    measured.unwrap_or_else(|error| State::Failed { why: format!("{error:#}"), failures: 0 })
}

async fn fetched(args: &Measure, ask: &Ask) -> Result<std::path::PathBuf, FetchError> {
    let registries = &args.registries;
    let source = Source::new(&ask.from, &registries.insecure_registry)?.with_mirrors(&args.from)?;
    let source = source.with_most_bytes(args.most_bytes);
    let store = Store::new(args.folder.join(MODELS));
    // Whoever signed it: it serves nobody here.
    let trust = Trust::default();
    Ok(store.bring(&source, Some(&ask.digest), &ask.variant, &trust, registries.patience).await?.folder)
}

/// By this very program, so that what takes too long or too much memory ends alone.
async fn bench(folder: &Path, variant: &str) -> Result<State> {
    let program = std::env::current_exe().context("which program is this?")?;
    let bench = Command::new(program)
        .args(["bench", "--seconds", SECONDS, "--variant", variant, "--model"])
        .arg(folder)
        .env("RUST_LOG", "error")
        .kill_on_drop(true)
        .output();
    let Ok(ended) = timeout(LONGEST, bench).await else {
        bail!("it takes more than {LONGEST:?} to load and run batches of 16");
    };
    let ended = ended.context("cannot start the bench")?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        let last = said.trim().lines().last().unwrap_or("it says nothing");
        bail!("the bench ended with {}: {last}", ended.status);
    }
    report::state(&ended.stdout)
}

/// Nobody else reads what was fetched.
fn forget(folder: &Path) {
    let models = folder.join(MODELS);
    if let Err(error) = std::fs::remove_dir_all(&models)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %models.display(), %error, "cannot be removed");
    }
}
