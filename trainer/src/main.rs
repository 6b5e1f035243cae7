//! `sconce-trainer`: flags, progress, exit codes.

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use indicatif::{ProgressBar, ProgressStyle};
use sconce_model::artifact::{self, Description, F32};
use sconce_model::graph::Graph;
use sconce_model::idx;
use sconce_model::network::Network;
use sconce_model::preprocess::{Material, Preprocess};
use sconce_trainer::args::{Args, Verb};
use sconce_trainer::data::{self, DataSet};
use sconce_trainer::evaluate::evaluate;
use sconce_trainer::fit::{Epoch, Observer, Prepared, fit};
use sconce_trainer::{manifest, publish};
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Training makes and drops large tensors all the time: the system's allocator gives them back to the kernel each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Samples that a client carries.
const HELD_OUT: usize = 500;

fn main() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = Args::parse();
    match args.verb {
        Verb::Train { manifest, data, output, held_out, publish } => {
            train(&manifest, data.as_deref(), &output, held_out.as_deref())?;
            publish.map_or(Ok(()), |uri| publish_to(&output, &uri, &args.insecure_registry))
        }
        Verb::Publish { artifact, uri } => publish_to(&artifact, &uri, &args.insecure_registry),
    }
}

fn publish_to(folder: &Path, uri: &str, insecure: &[String]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("published {}", runtime.block_on(publish::publish(folder, uri, insecure))?);
    Ok(())
}

fn train(path: &Path, folder: Option<&Path>, output: &Path, held_out: Option<&Path>) -> Result<()> {
    let spec = manifest::read(path)?.spec;
    let graph = Arc::new(spec.architecture.graph()?);
    if !graph.classifies() {
        bail!(
            "{}: spec.architecture: the last layer has no softmax; only classification can be trained yet",
            path.display()
        );
    }
    let data = data::read(&spec.dataset, folder, spec.fit.seed, graph.units())?;
    let preprocess = Preprocess { version: 1, input: Material::Image, steps: spec.preprocess };
    println!("Data: {} ({})", data.name, data.digest);
    describe(&graph);
    let (train, validation) =
        data.train.split(manifest::share(&spec.fit.validation).unwrap_or_default(), spec.fit.seed, "validation");
    println!("{} samples to train on, {} to validate, {} to test", train.len(), validation.len(), data.test.len());

    let network = Network::initialise(graph.clone(), spec.fit.seed)?;
    let prepared = |samples| Prepared::new(samples, &preprocess, &graph.input);
    let mut progress = Progress::new(spec.fit.epochs);
    fit(&network, &prepared(&train)?, &prepared(&validation)?, &spec.fit, &mut progress)?;

    let evaluation = evaluate(&network, &data, &preprocess)?;
    let labels = (0..graph.units()).map(|class| class.to_string()).collect();
    let description = Description {
        task: "classification",
        labels,
        architecture: &spec.architecture,
        preprocess: &preprocess,
        network: &network,
        evaluation: &evaluation,
    };
    if output.exists() {
        std::fs::remove_dir_all(output).with_context(|| format!("cannot replace {}", output.display()))?;
    }
    artifact::write(output, &description)?;
    if let Some(folder) = held_out {
        hold_out(folder, &data, output)?;
    }
    let measured = &evaluation.variants[F32];
    let (low, high) = measured.wilson95;
    println!(
        "{} in {}; {} test samples of {}; 95 % interval {low:.4} to {high:.4}",
        F32,
        output.display(),
        data.test.len(),
        data.name
    );
    println!("Test accuracy: {:.4}", measured.value);
    if let Some(accept) = &spec.accept
        && manifest::share(&accept.min_accuracy).is_some_and(|floor| measured.value < floor)
    {
        bail!(
            "test accuracy {:.4} is below spec.accept.minAccuracy {}: not accepted",
            measured.value,
            accept.min_accuracy
        );
    }
    Ok(())
}

fn describe(graph: &Graph) {
    println!("{:<16} {:<16} {:>12} {:>12}", "layer", "output", "parameters", "MFLOP");
    for node in &graph.nodes {
        let parameters: usize = node.parameters.iter().map(|parameter| parameter.shape.iter().product::<usize>()).sum();
        println!(
            "{:<16} {:<16} {parameters:>12} {:>12.3}",
            node.name,
            format!("{:?}", node.shape),
            node.flops as f64 / 1e6
        );
    }
    println!("{:<16} {:<16} {:>12} {:>12.3}", "", "", graph.parameter_count(), graph.flops() as f64 / 1e6);
}

/// Samples of the test split for clients, with the preprocessing that they have to do.
fn hold_out(folder: &Path, data: &DataSet, artifact: &Path) -> Result<()> {
    let count = data.test.len().min(HELD_OUT);
    let samples = data.test.select(&(0..count).collect::<Vec<_>>());
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("images.idx3"), idx::write_images(&samples.images))?;
    std::fs::write(folder.join("labels.idx1"), idx::write_labels(&samples.labels))?;
    std::fs::copy(artifact.join(artifact::PREPROCESS), folder.join(artifact::PREPROCESS))?;
    Ok(())
}

/// A bar on a terminal; one line an epoch everywhere.
struct Progress {
    bar: ProgressBar,
    epochs: usize,
    began: Instant,
}

impl Progress {
    fn new(epochs: usize) -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len}  loss {msg}  {eta}") {
            bar.set_style(style);
        }
        Self { bar, epochs, began: Instant::now() }
    }
}

impl Observer for Progress {
    fn batch(&mut self, epoch: usize, batch: usize, batches: usize, loss: f32) {
        if batch % 20 == 0 || batch == batches {
            self.bar.set_prefix(format!("epoch {epoch}/{}", self.epochs));
            self.bar.set_length(batches as u64);
            self.bar.set_message(format!("{loss:.4}"));
            self.bar.set_position(batch as u64);
        }
    }

    fn epoch(&mut self, epoch: &Epoch) {
        let validation = epoch.validation.map(|accuracy| format!("  validation {accuracy:.4}")).unwrap_or_default();
        let left = self.began.elapsed().as_secs_f64() / epoch.number as f64 * (self.epochs - epoch.number) as f64;
        let (number, loss, accuracy, took) = (epoch.number, epoch.loss, epoch.accuracy, epoch.took.as_secs_f64());
        self.bar.suspend(|| {
            println!(
                "epoch {number}/{}  loss {loss:.4}  accuracy {accuracy:.4}{validation}  {took:.1} s  eta {left:.0} s",
                self.epochs
            );
        });
        if number == self.epochs {
            self.bar.finish_and_clear();
        }
    }
}
