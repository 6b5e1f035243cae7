//! `sconce`, also `kubectl sconce`: asks where models run, why, and what would change.

mod args;
mod explain;
mod objects;
mod print;
mod simulate;
mod status;
#[cfg(test)]
mod tests;

use anyhow::{Context as _, Result, bail};
use args::{Cli, Command, Snapshot, Source};
use clap::Parser as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use objects::Objects;
use print::{print, write_file};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match ask(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn ask(cli: Cli) -> Result<()> {
    let Cli { source, output, command } = cli;
    // Files that are to be read are read first: a mistake in one needs no cluster to be told.
    let changes = match &command {
        Command::Simulate { filename } => Objects::of_manifests(filename)?,
        _ => Objects::default(),
    };
    let (objects, namespace) = read(&source).await?;
    match command {
        Command::Explain { model, site } => {
            let explanations = explain::explain(&objects.world(), &namespace, &model, site.as_deref())?;
            print(output, &explanations)
        }
        Command::Status => print(output, &status::status(&objects.world())),
        Command::Simulate { .. } => {
            let before = objects.world();
            let after = objects.with(changes, &namespace)?.world();
            print(output, &simulate::simulate(&before, &after)?)
        }
        Command::Snapshot { command: Snapshot::Save { file } } => write_file(&file, &objects.to_list()?),
    }
}

/// All objects, and the namespace that is meant where none is named.
async fn read(source: &Source) -> Result<(Objects, String)> {
    let namespace = |default: &str| source.namespace.clone().unwrap_or_else(|| default.to_owned());
    if let Some(file) = &source.snapshot {
        return Ok((Objects::of_snapshot(file)?, namespace("default")));
    }
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        bail!("a second provider of cryptography is installed");
    }
    let config = config(source).await.context("finding the cluster (give --kubeconfig, or --snapshot FILE)")?;
    let namespace = namespace(&config.default_namespace);
    Ok((Objects::of_cluster(&Client::try_from(config)?).await?, namespace))
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
