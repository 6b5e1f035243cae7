//! `edge-runtime`: flags, logs, signals, exit codes.

use anyhow::{Context as _, Error, Result, bail};
use clap::Parser as _;
use futures::FutureExt as _;
use prometheus_client::registry::Registry;
use sconce_edge_runtime::args::{
    Args, Asked, ControlMode, Execute, Fetch, Inspect, LogFormat, OutputFormat, Place, Route, Serve, Verb,
};
use sconce_edge_runtime::batch::Policy;
use sconce_edge_runtime::builtin::Builtin;
use sconce_edge_runtime::catalogue::{self, Catalogue, Control, Model, Settings, Sources};
use sconce_edge_runtime::engine::Executor;
use sconce_edge_runtime::fetch::{FetchError, Source, Store, fetch};
use sconce_edge_runtime::logs::Logs;
use sconce_edge_runtime::metrics::{self, Metrics};
use sconce_edge_runtime::server::{self, Limits, Listeners, Service};
use sconce_edge_runtime::spans::{self, Exporter};
use sconce_edge_runtime::stop::{self, Stop};
use sconce_edge_runtime::tls::Tls;
use sconce_edge_runtime::{bench, inspect, measure, process, route};
use sconce_registry::Keyring;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, reload};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = Args::parse();
    let last_words = match &args.verb {
        Verb::Fetch(args) => Some(args.termination_log.clone()),
        Verb::Serve(args) => Some(args.termination_log.clone()),
        Verb::Route(_) | Verb::Bench(_) | Verb::Measure(_) | Verb::Inspect(_) => None,
    };
    let Err(error) = run(args) else { return ExitCode::SUCCESS };
    // The first word is the reason, where there is a table of them; Kubernetes shows the file as the container's last words.
    eprintln!("{error:#}");
    if let Some(file) = last_words {
        // Kubernetes has made the file; elsewhere there is none to be made.
        let file = std::fs::OpenOptions::new().write(true).truncate(true).open(file);
        file.and_then(|mut file| file.write_all(format!("{error:#}").as_bytes())).ok();
    }
    ExitCode::FAILURE
}

/// Begins to log, at the level that RUST_LOG says, and to tell spans, where they are sent.
fn logs(format: LogFormat, exporter: Option<&Exporter>) -> Logs {
    let wanted = std::env::var("RUST_LOG").ok().map(|wanted| wanted.parse::<Targets>());
    let (targets, wrong) = match wanted {
        Some(Ok(targets)) => (targets, None),
        Some(Err(error)) => (Targets::new().with_default(LevelFilter::INFO), Some(error)),
        None => (Targets::new().with_default(LevelFilter::INFO), None),
    };
    let level = targets.default_level().unwrap_or(LevelFilter::OFF);
    let (filter, handle) = reload::Layer::new(targets.clone());
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans::layer(exporter)).init();
    if let Some(error) = wrong {
        tracing::warn!(%error, "RUST_LOG is not understood; such as info,h2=debug would be. Logging at info");
    }
    // What RUST_LOG says of single modules stays.
    let changed = move |level| targets.clone().with_default(level);
    Logs::new(level, move |level| handle.reload(changed(level)).map_err(|error| error.to_string()))
}

fn run(Args { verb, log_format }: Args) -> Result<()> {
    let runtime = runtime(&verb)?;
    let inside = runtime.enter();
    let exporter = match &verb {
        Verb::Serve(_) => Exporter::start()?,
        _ => None,
    };
    drop(inside);
    let logs = logs(log_format, exporter.as_ref());
    if let Verb::Serve(_) = &verb {
        spans::warn();
    }
    let ended = runtime.block_on(async {
        let ended = match verb {
            Verb::Fetch(args) => run_fetch(args).await,
            Verb::Serve(args) => run_serve(*args, logs).await,
            Verb::Route(args) => run_route(args).await,
            Verb::Bench(args) => bench::run(&args).await,
            Verb::Measure(args) => measure::run(&args, stopped()).await,
            Verb::Inspect(args) => run_inspect(&args),
        };
        if let Some(exporter) = exporter {
            exporter.end().await;
        }
        ended
    });
    // Without waiting for what blocks a thread: another's lock on the store, or the resolver.
    runtime.shutdown_background();
    ended
}

fn runtime(verb: &Verb) -> Result<Runtime> {
    let mut runtime = match verb {
        Verb::Serve(serve) => {
            start_with_little_memory()?;
            workers(serve.threads())
        }
        Verb::Bench(bench) if bench.runs_models() => {
            start_with_little_memory()?;
            workers(1)
        }
        // It waits for others.
        Verb::Measure(_) => workers(1),
        _ => Builder::new_multi_thread(),
    };
    Ok(runtime.enable_all().build()?)
}

/// A runtime of one thread has nothing to share and nobody to wake.
fn workers(threads: usize) -> Builder {
    if threads == 1 {
        return Builder::new_current_thread();
    }
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(threads);
    runtime
}

/// Starts anew, as itself, with what the allocator reads from the environment before `main` could set it; a process cannot
/// safely change its own. Values that are there already stay.
///
/// Without huge pages, and with free memory given back at once, the seed CNN is served in 13 MiB instead of 37, as quickly.
fn start_with_little_memory() -> Result<()> {
    let wanted = [("MIMALLOC_ALLOW_THP", "0"), ("MIMALLOC_PURGE_DELAY", "0")];
    let missing: Vec<_> = wanted.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let error = Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).envs(missing).exec();
    Err(error).context("cannot start anew with another environment")
}

async fn run_fetch(args: Fetch) -> Result<()> {
    let source = Source::of(&args.from, &args.registries.insecure_registry).map_err(FetchError::from)?;
    let keyring = Keyring::of_user().map_err(|error| FetchError::Login(error.into()))?;
    let source = source.with_keyring(Arc::new(keyring));
    let trust = args.trusted.trust();
    let fetched = fetch(&source, &args.digest, &args.variant, &args.to, &trust, args.registries.patience);
    tokio::select! {
        // What is fetched may hash files for long before it waits: first the signals are listened to.
        biased;
        stop = stop::requested() => {
            stop?;
            bail!("FetchFailed: told to stop before all was there; the next attempt goes on from here")
        }
        fetched = fetched => Ok(fetched?),
    }
}

fn run_inspect(args: &Inspect) -> Result<()> {
    let report = inspect::inspect(&args.model, args.digest.as_deref())?;
    match args.output {
        OutputFormat::Text => print!("{report}"),
        OutputFormat::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(())
}

fn stopped() -> Stop {
    async { drop(stop::requested().await) }.boxed().shared()
}

async fn listen(address: std::net::SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

async fn run_serve(args: Serve, logs: Logs) -> Result<()> {
    let began = Instant::now();
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    // From the start: the first process of a container is not stopped by a signal that it does not listen to.
    let stop = stopped();
    let catalogue = tokio::select! {
        biased;
        () = stop.clone() => {
            tracing::info!("told to stop before it was ready");
            return Ok(());
        }
        catalogue = catalogue(&args, metrics) => catalogue?,
    };
    let tls = args.tls().map(Tls::watch).transpose()?;
    let (grpc, rest, metrics_listener) =
        (listen(args.grpc).await?, listen(args.rest).await?, listen(args.metrics).await?);
    let models = catalogue.models();
    tracing::info!(models = models.running().count(), tls = tls.is_some(), grpc = %grpc.local_addr()?, rest = %rest.local_addr()?, metrics = %metrics_listener.local_addr()?, took = ?began.elapsed(), "ready");
    // What is loaded later may take larger ones.
    let largest = match args.model_control_mode {
        ControlMode::None => models.running().map(|model| model.largest_request()).max(),
        ControlMode::Explicit => None,
    };
    let limits = Limits {
        max_message_bytes: args.max_message_bytes.min(largest.unwrap_or(usize::MAX)),
        head_timeout: args.head_timeout,
        body_timeout: args.body_timeout,
        drain: args.drain,
    };
    tokio::spawn(metrics::serve(metrics_listener, registry, stop.clone()));
    let service = Service::new(catalogue).with_logs(logs).with_name(args.id);
    server::serve(Listeners { grpc, rest, tls }, service, limits, stop).await
}

/// Of the models that have a place of their own; those of registries are fetched.
async fn folders(args: &Serve) -> Result<Vec<(String, catalogue::Source)>> {
    let (trust, mut folders) = (args.trusted.trust(), Vec::new());
    for Asked { name, place, digest } in args.models().map_err(Error::msg)? {
        let (folder, digest) = match place {
            Place::Folder(folder) => (folder, digest),
            Place::Registry(source) => {
                let store = Store::new(args.model_store().map_err(Error::msg)?);
                let kept =
                    store.bring(&source, digest.as_deref(), &args.variant, &trust, args.registries.patience).await?;
                (kept.folder, Some(kept.digest))
            }
        };
        folders.push((name, catalogue::Source { version: None, folder, digest }));
    }
    Ok(folders)
}

/// With all that is to be served from the start.
async fn catalogue(args: &Serve, metrics: Arc<Metrics>) -> Result<Arc<Catalogue>> {
    let sources = Sources::new(folders(args).await?, args.model_repository.clone())?;
    let (control, first) = match args.model_control_mode {
        ControlMode::None if !args.load_model.is_empty() => {
            bail!("--load-model chooses what is loaded first; it needs --model-control-mode explicit")
        }
        ControlMode::None => (Control::None, sources.names()?),
        ControlMode::Explicit if args.load_model.iter().any(|name| name == "*") => {
            (Control::Explicit, sources.names()?)
        }
        ControlMode::Explicit => (Control::Explicit, [sources.alone(), args.load_model.clone()].concat()),
    };
    let settings = Settings {
        variant: args.variant.clone(),
        trust: args.trusted.trust(),
        policy: Policy { max_batch_size: args.max_batch_size.into(), max_queue_delay: args.max_queue_delay },
        queue_size: args.queue_size as usize,
        threads: args.threads(),
        executor: match args.executor {
            Execute::Auto => None,
            Execute::Inline => Some(Executor::Inline),
            Execute::Thread => Some(Executor::Thread),
        },
    };
    let catalogue = Catalogue::start(sources, &first, control, settings, metrics).await?;
    let builtins = Builtin::ALL.into_iter().filter(|_| args.test_models);
    builtins.for_each(|builtin| catalogue.add(Model::builtin(builtin, catalogue.metrics())));
    Ok(catalogue)
}

async fn run_route(args: Route) -> Result<()> {
    let (grpc, metrics) = (listen(args.grpc).await?, listen(args.metrics).await?);
    tracing::info!(grpc = %grpc.local_addr()?, metrics = %metrics.local_addr()?, routes = %args.routes.display(), "routing");
    let stop = stopped();
    let limits = route::Limits {
        max_message_bytes: args.max_message_bytes,
        room_bytes: args.room_bytes.unwrap_or_else(|| route::room_bytes(process::memory_limit())),
        body_timeout: args.body_timeout,
        attempt_timeout: args.attempt_timeout,
    };
    let files = route::Files { routes: &args.routes, taps: args.taps.as_deref(), collector: &args.collector };
    route::run(grpc, metrics, files, limits, stop).await
}
