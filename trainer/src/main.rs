//! `sconce-trainer`: flags, what is printed, exit codes.

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use oci_client::Reference;
use sconce_model::artifact::{self, Artifact};
use sconce_model::digest::sha256;
use sconce_model::idx;
use sconce_model::network::Network;
use sconce_model::preprocess::{Material, Preprocess};
use sconce_model::variant::F32;
use sconce_trainer::args::{Args, Source, Train, Verb};
use sconce_trainer::data::{self, DataSet};
use sconce_trainer::finish::{Finished, finish};
use sconce_trainer::fit::{Checkpoints, FitError, Lesson, as_torch, fit};
use sconce_trainer::manifest::{Init, Spec, share};
use sconce_trainer::prepared::Prepared;
use sconce_trainer::progress::{Progress, table};
use sconce_trainer::publish::Pack;
use sconce_trainer::report::{Run, isa, page, report, result};
use sconce_trainer::{manifest, output, publish, stop};
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Training makes and drops large tensors all the time: the system's allocator gives them back to the kernel each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Samples that a client carries.
const HELD_OUT: usize = 500;
/// Exit code of a model that is not good enough.
const NOT_ACCEPTED: u8 = 3;
/// Exit code of a run that was asked to stop, as a shell has it of SIGTERM.
const STOPPED: u8 = 143;

fn main() -> Result<ExitCode> {
    // An error would say that one is installed already.
    rustls::crypto::ring::default_provider().install_default().ok();
    let args = Args::parse();
    match args.verb {
        Verb::Train(flags) => train(&flags, &args.insecure_registry),
        Verb::Compress { artifact, source } => compress(&artifact, &source),
        Verb::Publish { artifact, uri } => {
            let address = publish_to(&artifact, &publish::reference(&uri)?, &args.insecure_registry)?;
            println!("published {address}");
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What a manifest asks for, with its data.
struct Opened {
    name: String,
    spec: Spec,
    preprocess: Preprocess,
    data: DataSet,
    train: Prepared,
    validation: Prepared,
}

fn open(source: &Source) -> Result<Opened> {
    let manifest = manifest::read(&source.manifest)?;
    let (name, spec) = (manifest.metadata.name, manifest.spec);
    let graph = spec.architecture.graph()?;
    if !graph.classifies() {
        bail!(
            "{}: spec.architecture: the last layer has no softmax; only classification can be trained yet",
            source.manifest.display()
        );
    }
    let preprocess = Preprocess { version: 1, input: Material::Image, steps: spec.preprocess.clone() };
    preprocess.check().with_context(|| format!("{}: spec.preprocess", source.manifest.display()))?;
    let data = data::read(&spec.dataset, source.data.as_deref(), spec.fit.seed, graph.units())?;
    let share = share(&spec.fit.validation).unwrap_or_default();
    let (train, validation) = data.train.split(share, spec.fit.seed, "validation");
    println!("Data: {} ({})", data.name, data.digest);
    println!("{} samples to train on, {} to validate, {} to test", train.len(), validation.len(), data.test.len());
    let prepared = |samples| Prepared::new(samples, &preprocess, &graph.input);
    let (train, validation) = (prepared(&train)?, prepared(&validation)?);
    Ok(Opened { name, spec, preprocess, data, train, validation })
}

fn train(flags: &Train, insecure: &[String]) -> Result<ExitCode> {
    output::check(&flags.output)?;
    let target = flags.publish.as_deref().map(publish::reference).transpose()?;
    let Opened { name, spec, preprocess, mut data, train, validation } = open(&flags.source)?;
    let graph = Arc::new(spec.architecture.graph()?);
    print!("{}", table(&graph));

    let network = Network::initialise(graph.clone(), spec.fit.seed)?;
    if spec.fit.init == Init::Torch {
        as_torch(&network, spec.fit.seed)?;
    }
    let mut progress = Progress::new(spec.fit.epochs);
    let checkpoints = Checkpoints::new(output::beside(&flags.output, "checkpoints"), recipe(&spec, &preprocess, &data));
    let stop = stop::on_signal()?;
    let lesson = Lesson {
        network: &network,
        train: &train,
        validation: &validation,
        recipe: &spec.fit,
        checkpoints: Some(&checkpoints),
        stop: &stop.asked,
        teacher: None,
        rounding: None,
    };
    match stop.during(|| fit(&lesson, &mut progress)) {
        Ok(epoch) if spec.fit.early_stopping.is_some() => {
            println!("kept: epoch {epoch}, the best on the validation split");
        }
        Err(error @ FitError::Stopped { .. }) => {
            eprintln!("{error}");
            return Ok(ExitCode::from(STOPPED));
        }
        fitted => drop(fitted?),
    }

    let finished = finish(network, &spec, &preprocess, (&train, &validation), &mut data, &flags.output)?;
    checkpoints.remove()?;
    println!("wrote {}", flags.output.display());
    if let Some(folder) = &flags.held_out {
        hold_out(folder, &data, &flags.output)?;
    }
    let accuracy = finished.evaluation.variants[F32].value;
    let floor = spec.accept.as_ref().map(|accept| accept.min_accuracy.as_str());
    let accepted = floor.and_then(share).is_none_or(|floor| accuracy >= floor);
    let target = target.filter(|_| accepted);
    let published = target.map(|target| publish_to(&flags.output, &target, insecure)).transpose();
    let address = published.as_ref().ok().and_then(|published| published.as_deref());
    let (train, validation) = (train.len(), validation.len());
    let run = Run {
        name: &name,
        graph: &graph,
        train,
        validation,
        epochs: &progress.seen,
        finished: &finished,
        accepted,
        published: address,
    };
    if let (Some(path), Ok(_)) = (&flags.report, &published) {
        write(path, &format!("{:#}\n", report(&run)))?;
        write(&path.with_extension("html"), &page(&run))?;
    }
    if let Some(address) = address {
        println!("published {address}");
    }
    println!("On {} test samples, {}:", finished.evaluation.dataset.n, data.name);
    finished.rows.iter().for_each(|row| println!("{}", row.verdict.line()));
    finished.refused.iter().for_each(|why| println!("left out: {why}"));
    if !std::io::stdout().is_terminal() {
        println!("{}", result(&Pack::new(&flags.output)?.digest(), &run));
    }
    println!("Test accuracy: {accuracy:.4}");
    published.with_context(|| format!("the artifact is in {}, but not published", flags.output.display()))?;
    if let Some(floor) = floor.filter(|_| !accepted) {
        eprintln!("Not accepted: test accuracy {accuracy:.4} is below spec.accept.minAccuracy {floor}");
        return Ok(ExitCode::from(NOT_ACCEPTED));
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the variants of a manifest anew, from the weights of an artifact.
fn compress(folder: &Path, source: &Source) -> Result<ExitCode> {
    let opened = Artifact::open(folder)?;
    let Opened { spec, preprocess, mut data, train, validation, .. } = open(source)?;
    if **opened.graph() != spec.architecture.graph()? || *opened.preprocess() != preprocess {
        bail!(
            "{} is not what {} describes: name the manifest that it was trained by",
            folder.display(),
            source.manifest.display()
        );
    }
    let network = opened.variant(F32)?.network;
    let finished: Finished = finish(network, &spec, &preprocess, (&train, &validation), &mut data, folder)?;
    println!("On {} test samples, one thread, {}:", finished.evaluation.dataset.n, isa());
    print!("{}", finished.table());
    finished.refused.iter().for_each(|why| println!("left out: {why}"));
    Ok(ExitCode::SUCCESS)
}

/// What is trained on what: whether a checkpoint is of this run.
fn recipe(spec: &Spec, preprocess: &Preprocess, data: &DataSet) -> String {
    let recipe = serde_json::json!([spec.architecture, preprocess, spec.fit, data.digest]);
    sha256(recipe.to_string().as_bytes())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn publish_to(folder: &Path, target: &Reference, insecure: &[String]) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(publish::publish(folder, target, insecure))?)
}

/// Samples of the test split for clients, with the preprocessing that they have to do.
fn hold_out(folder: &Path, data: &DataSet, artifact: &Path) -> Result<()> {
    let samples = data.test.carry(HELD_OUT);
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("images.idx3"), idx::write_images(&samples.images))?;
        std::fs::write(folder.join("labels.idx1"), idx::write_labels(&samples.labels))?;
        std::fs::copy(artifact.join(artifact::PREPROCESS), folder.join(artifact::PREPROCESS)).map(drop)
    };
    write().with_context(|| format!("cannot write {}", folder.display()))
}
