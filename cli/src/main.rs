//! `sconce`, also `kubectl sconce`: asks where models run, why, and what would change.

mod args;
mod check;
mod compress;
mod data;
mod explain;
mod inputs;
mod objects;
mod print;
mod simulate;
mod status;
#[cfg(test)]
mod tests;
mod top;
mod wait;

use anyhow::{Context as _, Result, bail};
use args::{Check, Cli, Command, Output, Snapshot, Source, Status};
use check::Report;
use clap::Parser as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use objects::Objects;
use print::{print, write_file};
use status::Selection;
use std::process::ExitCode;

/// Of a wait that ended before all was as decided.
const TIMED_OUT: u8 = 3;

#[tokio::main]
async fn main() -> ExitCode {
    match ask(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn ask(cli: Cli) -> Result<ExitCode> {
    let Cli { source, output, command } = cli;
    // Files that are to be read are read first: a mistake in one needs no cluster to be told.
    let changes = match &command {
        Command::Simulate { filename } => Objects::of_manifests(filename)?,
        _ => Objects::default(),
    };
    match command {
        Command::Explain { model, site } => {
            let (objects, namespace) = read(&source).await?;
            let explanations = explain::explain(&objects.world(), &namespace, &model, site.as_deref())?;
            print(output, &explanations)?;
        }
        Command::Status(status) => return ask_status(&source, output, status).await,
        Command::Top { site } => {
            let (objects, _) = read(&source).await?;
            print(output, &top::top(&objects.world(), site.as_deref())?)?;
        }
        Command::Check(check) => return ask_check(&source, output, &check).await,
        Command::Simulate { .. } => {
            let (objects, namespace) = read(&source).await?;
            let before = objects.world();
            let after = objects.with(changes, &namespace)?.world();
            print(output, &simulate::simulate(&before, &after)?)?;
        }
        Command::Data { command } => data::ask(&source, output, command).await?,
        Command::Snapshot { command: Snapshot::Save { file } } => {
            write_file(&file, &read(&source).await?.0.to_list()?)?;
        }
        Command::Compress { words } => return Err(compress::hand_over(&words)),
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask_status(source: &Source, output: Output, args: Status) -> Result<ExitCode> {
    let Status { fleet, model, wait: waits, timeout } = args;
    let selection = |namespace: String| Selection { fleet, model: model.map(|model| (namespace, model)) };
    if !waits {
        let (objects, namespace) = read(source).await?;
        let world = objects.world();
        let selection = selection(namespace).of(&world)?;
        print(output, &status::status(&world, &selection))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (client, namespace) = cluster(source, "--wait").await?;
    let selection = selection(namespace);
    let (world, pending) = wait::wait(&client, selection.clone(), timeout).await?;
    print(output, &status::status(&world, &selection))?;
    for wait::Pending { what, reason, message } in &pending {
        anstream::eprintln!("after {timeout:?} still not as decided: {what}: {reason}: {message}");
    }
    Ok(if pending.is_empty() { ExitCode::SUCCESS } else { TIMED_OUT.into() })
}

async fn ask_check(source: &Source, output: Output, args: &Check) -> Result<ExitCode> {
    let (client, _) = cluster(source, "check").await?;
    let findings = if args.pre {
        check::before(&check::ask_before(&client, args.artifact.as_deref(), &args.insecure_registry).await)
    } else {
        check::installed(&check::ask_installed(&client).await)
    };
    let report = Report::new(findings);
    print(output, &report)?;
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All objects, and the namespace that is meant where none is named.
async fn read(source: &Source) -> Result<(Objects, String)> {
    if let Some(file) = &source.snapshot {
        return Ok((Objects::of_snapshot(file)?, source.namespace.clone().unwrap_or_else(|| "default".into())));
    }
    let (client, namespace) = connect(source).await?;
    Ok((Objects::of_cluster(&client).await?, namespace))
}

/// A live one: a snapshot tells nothing new.
async fn cluster(source: &Source, asked: &str) -> Result<(Client, String)> {
    if source.snapshot.is_some() {
        bail!("{asked} asks a cluster, and --snapshot is none: leave that out");
    }
    connect(source).await
}

async fn connect(source: &Source) -> Result<(Client, String)> {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        bail!("a second provider of cryptography is installed");
    }
    let config = config(source).await.context("finding the cluster (give --kubeconfig, or --snapshot FILE)")?;
    let namespace = source.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    Ok((Client::try_from(config)?, namespace))
}

async fn config(source: &Source) -> Result<Config> {
    let options = KubeConfigOptions { context: source.context.clone(), ..KubeConfigOptions::default() };
    Ok(match &source.kubeconfig {
        // As kubectl reads it, $KUBECONFIG may name several files.
        Some(files) if std::env::split_paths(files).count() == 1 => {
            Config::from_custom_kubeconfig(Kubeconfig::read_from(files)?, &options).await?
        }
        _ if source.context.is_some() => Config::from_kubeconfig(&options).await?,
        _ => Config::infer().await?,
    })
}
