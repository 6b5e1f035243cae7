//! `sconce-trainer`: flags, what is printed, exit codes.

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use sconce_model::architecture::Task;
use sconce_model::artifact::{self, Artifact, Measured};
use sconce_model::idx;
use sconce_model::network::Network;
use sconce_model::preprocess::{Material, Preprocess, PreprocessError};
use sconce_model::variant::F32;
use sconce_trainer::against::{Against, AgainstError, Compared};
use sconce_trainer::alone::alone;
use sconce_trainer::args::{Args, Source, Train, Verb};
use sconce_trainer::base::{self, Base, BaseError};
use sconce_trainer::data::{self, ANOMALY, DataError, DataSet, Wanted};
use sconce_trainer::finish::{Before, Finished, Opened, finish};
use sconce_trainer::fit::{Checkpoints, FitError, Lesson, as_torch, fit};
use sconce_trainer::gate::{below, no_better};
use sconce_trainer::manifest::{Accept, Freeze, Init, ManifestError, share};
use sconce_trainer::pending::Pending;
use sconce_trainer::prepared::Prepared;
use sconce_trainer::progress::{Progress, table};
use sconce_trainer::publish::{Pack, Publishing};
use sconce_trainer::report::{Reader, Run, isa, of_each, page, report, result};
use sconce_trainer::{manifest, output, publish, pull, stop};
use serde_json::json;
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
/// Beside the artifact's folder.
const CHECKPOINTS: &str = "checkpoints";
/// Exit code of a run that was asked to stop, as a shell has it of SIGTERM.
const STOPPED: u8 = 143;

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if !matches!(args.verb, Verb::Publish { .. }) {
        alone()?;
    }
    // An error would say that one is installed already.
    rustls::crypto::ring::default_provider().install_default().ok();
    match args.verb {
        Verb::Train(flags) => train(&flags, &args.insecure_registry).or_else(|error| in_vain(&flags, error)),
        Verb::Compress { artifact, source } => compress(&artifact, &source, &args.insecure_registry),
        Verb::Publish { artifact, uri, signing } => {
            let (target, key) = (publish::reference(&uri)?, signing.key()?);
            let publishing = Publishing { target: &target, insecure: &args.insecure_registry, key: key.as_ref() };
            publishing.sign(&artifact)?;
            let address = publishing.publish(&artifact)?;
            println!("published {address}");
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// `output` is where the artifact will lie.
fn open(source: &Source, output: &Path, insecure: &[String]) -> Result<Opened> {
    let manifest = manifest::read(&source.manifest)?;
    let (name, spec) = (manifest.metadata.name, manifest.spec);
    let aside = output::beside(output, "base");
    let registries = pull::Registries { insecure, config: source.base_docker_config.as_deref() };
    let base = spec.base.as_ref().map(|typed| base::open(typed, &aside, registries)).transpose()?;
    let architecture = match (&base, &spec.architecture) {
        (Some(base), _) => spec.check_base(&base.architecture, &source.manifest).map(|()| base.architecture.clone())?,
        (None, Some(architecture)) => architecture.clone(),
        (None, None) => bail!("{}: spec: need architecture, or base", source.manifest.display()),
    };
    let graph = architecture.graph()?;
    let preprocess = match &base {
        Some(base) if spec.preprocess.is_empty() => base.preprocess.clone(),
        _ => Preprocess { version: 1, input: Material::Image, steps: spec.preprocess.clone() },
    };
    preprocess.check().with_context(|| format!("{}: spec.preprocess", source.manifest.display()))?;
    let backbone = base.as_ref().and_then(|base| base.backbone(&preprocess));
    let names = graph.labels();
    let wanted = Wanted { backbone, ..Wanted::of(&graph, &names, &preprocess) };
    let data = data::read(&spec.dataset, source.data.as_deref(), spec.fit.seed, wanted)?;
    let share = share(&spec.fit.validation).unwrap_or_default();
    let (train, validation) = data.train.split(share, spec.fit.seed, "validation");
    if graph.task() == Task::Anomaly && !data.test.has_class(ANOMALY) {
        let why = format!(
            "none of {} test samples is an anomaly: nobody can tell whether one would be found; label some",
            data.test.len()
        );
        bail!(ManifestError::Field { path: source.manifest.clone(), field: "spec.dataset".into(), why });
    }
    let all = train.len() + validation.len();
    // What is normal is learned from that alone; anomalies are judged with the test split.
    let (train, validation) = match graph.task() {
        Task::Anomaly => (train.normal(), validation.normal()),
        _ => (train, validation),
    };
    spec.check_split((train.len(), validation.len()), data.train.group_count(), graph.task(), &source.manifest)?;
    if let Some(Base { digest, head, freeze, .. }) = &base {
        let rest = if *freeze == Freeze::Backbone { "stays as it is" } else { "learns, too" };
        println!("Base: {digest}; the head begins with {head}, what is before it {rest}");
    }
    println!("Data: {} ({})", data.name, data.digest);
    data.notes.iter().for_each(|note| println!("  {note}"));
    println!("{} samples to train on, {} to validate, {} to test", train.len(), validation.len(), data.test.len());
    let anomalies = all - train.len() - validation.len();
    if anomalies > 0 {
        println!("  {anomalies} anomalies are not learned from");
    }
    let reads = match (&base, data.train.are_features()) {
        (Some(base), true) => graph.before(&base.head).and_then(<[_]>::last).map(|node| &node.shape),
        _ => None,
    };
    if reads.is_some() && !spec.fit.augment.is_empty() {
        let why = "the samples are features of a backbone, which nobody can shift or turn; leave it out".into();
        bail!(ManifestError::Field { path: source.manifest.clone(), field: "spec.fit.augment".into(), why });
    }
    let prepared = |samples| Prepared::new(samples, &preprocess, reads.unwrap_or(&graph.input));
    let (train, validation) = (prepared(&train)?, prepared(&validation)?);
    Ok(Opened { name, spec, architecture, base, preprocess, data, train, validation, against: None })
}

/// The model that a run must be better than, if that is asked for: the one that is named, else the base, where that tells the same.
fn rival(opened: &Opened, flags: &Train, insecure: &[String]) -> Result<Option<Against>> {
    let Opened { spec, architecture, base, preprocess, data, .. } = opened;
    let Some(improve_by) = spec.accept.as_ref().and_then(|accept| accept.improve_by.as_ref()) else { return Ok(None) };
    let backbone = base.as_ref().and_then(|base| base.backbone(preprocess));
    let features_of = backbone.filter(|_| data.train.are_features()).map(|backbone| &*backbone.digest);
    let graph = architecture.graph()?;
    let dataset = &data.described();
    let alike = |against: &Against| against.check(&Compared { graph: &graph, preprocess, features_of, dataset });
    let aside = &output::beside(&flags.output, "against");
    if let Some(uri) = &flags.against {
        let against = Against::open(uri, aside, pull::Registries { insecure, config: None })?;
        alike(&against)?;
        return Ok(Some(against));
    }
    let of_base = pull::Registries { insecure, config: flags.source.base_docker_config.as_deref() };
    let base = spec.base.as_ref().map(|base| Against::open(&base.uri, aside, of_base)).transpose()?;
    let fault = match base.as_ref().map(alike) {
        Some(Ok(())) => return Ok(base),
        Some(Err(AgainstError::Unlike { differs, .. })) => format!("the base {differs} than this run"),
        Some(Err(error)) => return Err(error.into()),
        None => "there is no artifact of an earlier run".into(),
    };
    println!("accept.improveBy {improve_by} is not asked for: {fault}");
    Ok(None)
}

/// Why a trained network is not to be published.
fn refused(accept: &Accept, measured: &Measured, finished: &Finished) -> Option<String> {
    let Accept { min_accuracy, improve_by } = accept;
    let floor = share(min_accuracy).and_then(|floor| below(measured, &finished.parts, floor));
    let by = || Some((improve_by.as_deref()?, finished.before.as_ref()?));
    let no_better = || {
        let (typed, before) = by()?;
        Some(format!("{} spec.accept.improveBy {typed}", no_better(measured, before.value, share(typed)?)?))
    };
    floor.map(|below| format!("{below} spec.accept.minAccuracy {min_accuracy}")).or_else(no_better)
}

fn train(flags: &Train, insecure: &[String]) -> Result<ExitCode> {
    output::check(&flags.output)?;
    if let Some(runs) = &flags.runs
        && let Err(error) = output::prune(runs, &flags.output)
    {
        eprintln!("Earlier runs stay in {}: {error}", runs.display());
    }
    if let Some(page) = flags.report.as_ref().filter(|path| path.with_extension("html") == **path) {
        bail!("--report names the JSON; the page comes beside it, as {}", page.display());
    }
    let target = flags.publish.as_deref().map(publish::reference).transpose()?;
    let key = flags.signing.key()?;
    let publishing = target.as_ref().map(|target| Publishing { target, insecure, key: key.as_ref() });
    publishing.as_ref().map_or(Ok(()), Publishing::may)?;
    let mut opened = open(&flags.source, &flags.output, insecure)?;
    opened.against = rival(&opened, flags, insecure)?;
    if flags.held_out.is_some()
        && (opened.data.train.images().is_none() || opened.data.train.labels.classes().is_empty())
    {
        bail!(
            "--held-out writes grey images of one size with a class each, and these samples are not such: leave it out"
        );
    }
    let made_of = opened.made_of();
    // A report tells of epochs, which are not told again.
    let is_plain = flags.report.is_none() && flags.held_out.is_none();
    if let Some(publishing) = publishing.as_ref().filter(|_| is_plain)
        && let Some(pending) = Pending::read(&flags.output, &made_of)
    {
        println!("{} is made already, and is published now", flags.output.display());
        return publish_pending(flags, publishing, pending);
    }
    let Opened { spec, architecture, base, train, validation, .. } = &opened;
    let graph = Arc::new(architecture.graph()?);
    print!("{}", table(&graph));

    let network = Network::initialise(graph.clone(), spec.fit.seed)?;
    if spec.fit.init == Init::Torch {
        as_torch(&network, spec.fit.seed)?;
    }
    base.as_ref().map_or(Ok(()), |base| base.lend(&network))?;
    let mut progress = Progress::new(spec.fit.epochs);
    let checkpoints = Checkpoints::new(output::beside(&flags.output, CHECKPOINTS), opened.recipe());
    let stop = stop::on_signal()?;
    let lesson = Lesson {
        network: &network,
        train,
        validation,
        recipe: &spec.fit,
        checkpoints: Some(&checkpoints),
        stop: &stop.asked,
        learned_from: base.as_ref().and_then(Base::learned_from),
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

    let finished = finish(network, &mut opened, &flags.output, &say)?;
    println!("wrote {}", flags.output.display());
    if let Some(folder) = &flags.held_out {
        hold_out(folder, &opened.data, &flags.output)?;
    }
    let measured = &finished.evaluation.variants[F32];
    let Opened { name, spec, data, train, validation, .. } = &opened;
    let refusal = spec.accept.as_ref().and_then(|accept| refused(accept, measured, &finished));
    let publishing = publishing.filter(|_| refusal.is_none());
    let run = Run {
        name,
        graph: &graph,
        train: train.len(),
        validation: validation.len(),
        epochs: &progress.seen,
        finished: &finished,
        refusal: refusal.as_deref(),
        published: None,
    };
    describe(&flags.output, &run)?;
    publishing.as_ref().map_or(Ok(()), |publishing| publishing.sign(&flags.output))?;
    let digest = Pack::new(&flags.output)?.digest();
    if publishing.is_some() {
        let pending = Pending { made_of, digest: digest.clone(), result: result(&digest, &run) };
        pending.write(&flags.output).context("cannot note that the artifact is finished")?;
    }
    let published = publishing.map(|publishing| publishing.publish(&flags.output)).transpose();
    let address = published.as_ref().ok().and_then(|published| published.as_deref());
    let run = Run { published: address, ..run };
    if let (Some(path), Ok(_)) = (&flags.report, &published) {
        write(path, &format!("{:#}\n", report(&run)))?;
        write(&path.with_extension("html"), &page(&run, Reader::OfRun))?;
    }
    if let Some(address) = address {
        println!("published {address}");
    }
    println!("On {} test samples, {}:", finished.evaluation.dataset.n, data.name);
    finished.verdicts().for_each(|verdict| println!("{}", verdict.line()));
    for part in &finished.parts {
        println!("  {:.4} on the {} samples of {}", part.accuracy, part.count, part.name);
    }
    if let Some(Before { uri, value }) = &finished.before {
        println!("  {value:.4} before, by {uri}");
    }
    of_each(&graph, measured).iter().for_each(|(name, what, value)| println!("  {name}: {what} {value:.4}"));
    let told = result(&digest, &run).to_string();
    if !std::io::stdout().is_terminal() {
        println!("{told}");
    }
    println!("Test {}: {:.4}", measured.metric, measured.value);
    published.with_context(|| format!("the artifact is in {}, but not published", flags.output.display()))?;
    done(flags, &told)?;
    if let Some(why) = refusal {
        eprintln!("Not accepted: {why}");
        return Ok(if flags.result.is_some() { ExitCode::SUCCESS } else { ExitCode::from(NOT_ACCEPTED) });
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts the page for people into the artifact.
fn describe(folder: &Path, run: &Run<'_>) -> Result<()> {
    let path = folder.join(artifact::REPORT);
    let parent = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    parent.with_context(|| format!("cannot write {}", path.display()))?;
    write(&path, &page(run, Reader::OfArtifact))
}

/// The last words are said; then what is kept for another try goes.
fn done(flags: &Train, told: &str) -> Result<()> {
    flags.result.as_ref().map_or(Ok(()), |file| last_words(file, told))?;
    Pending::remove(&flags.output)?;
    Ok(Checkpoints::new(output::beside(&flags.output, CHECKPOINTS), String::new()).remove()?)
}

/// Of an earlier try of this very run everything is there but the registry's answer.
fn publish_pending(flags: &Train, publishing: &Publishing<'_>, pending: Pending) -> Result<ExitCode> {
    let mut result = pending.result;
    // By the same key it is the same signature.
    publishing.sign(&flags.output)?;
    result["result"]["digest"] = json!(Pack::new(&flags.output)?.digest());
    let address = publishing.publish(&flags.output);
    let address =
        address.with_context(|| format!("the artifact is in {}, but not published", flags.output.display()))?;
    println!("published {address}");
    result["result"]["published"] = json!(address);
    let told = result.to_string();
    if !std::io::stdout().is_terminal() {
        println!("{told}");
    }
    if let (Some(metric), Some(value)) = (result["result"]["metric"].as_str(), result["result"]["accuracy"].as_f64()) {
        println!("Test {metric}: {value:.4}");
    }
    done(flags, &told)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the variants of a manifest anew, from the weights of an artifact.
fn compress(folder: &Path, source: &Source, insecure: &[String]) -> Result<ExitCode> {
    let artifact = Artifact::open(folder)?;
    output::check(folder)?;
    let mut opened = open(source, folder, insecure)?;
    let Opened { architecture, preprocess, data, .. } = &mut opened;
    if **artifact.graph() != architecture.graph()? || artifact.preprocess() != preprocess {
        bail!(
            "{} is not what {} describes: name the manifest that it was trained by",
            folder.display(),
            source.manifest.display()
        );
    }
    let here = data.described();
    if let Some(evaluation) = artifact.evaluation().filter(|evaluation| evaluation.dataset != here) {
        // Its test samples may be among those that the network has learned from.
        bail!(
            "{} was evaluated on {} ({}), this is {} ({}): give the data, and fit.seed, that it was trained with",
            folder.display(),
            evaluation.dataset.name,
            evaluation.dataset.digest,
            here.name,
            here.digest
        );
    }
    data.test.read_before(artifact.evaluation().map_or(0, |evaluation| evaluation.test_reads));
    let finished = finish(artifact.variant(F32)?.network, &mut opened, folder, &say)?;
    let Opened { name, spec, train, validation, .. } = &opened;
    let (graph, train, validation) = (artifact.graph(), train.len(), validation.len());
    let measured = &finished.evaluation.variants[F32];
    let refusal = spec.accept.as_ref().and_then(|accept| refused(accept, measured, &finished));
    let refusal = refusal.as_deref();
    let run = Run { name, graph, train, validation, epochs: &[], finished: &finished, refusal, published: None };
    describe(folder, &run)?;
    println!("On {} test samples, one thread, {}:", finished.evaluation.dataset.n, isa());
    print!("{}", finished.table());
    Ok(ExitCode::SUCCESS)
}

fn say(what: &str) {
    println!("{what}");
}

/// A wrong manifest is as wrong at the next try, and so is a wrong label.
fn in_vain(flags: &Train, error: anyhow::Error) -> Result<ExitCode> {
    let is_wrong = |cause: &(dyn std::error::Error + 'static)| {
        let base = cause.downcast_ref::<BaseError>().is_some_and(BaseError::is_wrong);
        let data = cause.downcast_ref::<DataError>().is_some_and(DataError::is_final);
        let against = cause.downcast_ref::<AgainstError>().is_some_and(AgainstError::is_wrong);
        cause.is::<ManifestError>() || cause.is::<PreprocessError>() || base || data || against
    };
    let is_final = error.chain().any(is_wrong);
    let Some(file) = flags.result.as_ref().filter(|_| is_final) else { return Err(error) };
    eprintln!("Error: {error:#}");
    last_words(file, &json!({"result": {"error": format!("{error:#}")}}).to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn last_words(file: &Path, words: &str) -> Result<()> {
    std::fs::write(file, words).with_context(|| format!("cannot write {}", file.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Samples of the test split for clients, with the preprocessing that they have to do.
fn hold_out(folder: &Path, data: &DataSet, artifact: &Path) -> Result<()> {
    let samples = data.test.carry(HELD_OUT)?;
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        if let Some(images) = samples.images() {
            std::fs::write(folder.join("images.idx3"), idx::write_images(images))?;
        }
        std::fs::write(folder.join("labels.idx1"), idx::write_labels(samples.labels.classes()))?;
        std::fs::copy(artifact.join(artifact::PREPROCESS), folder.join(artifact::PREPROCESS)).map(drop)
    };
    write().with_context(|| format!("cannot write {}", folder.display()))
}
