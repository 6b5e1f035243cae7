//! The flags.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use sconce_model::artifact::signature::PrivateKey;
use std::path::PathBuf;

/// Trains models by `EdgeTraining` manifests, evaluates and publishes them.
#[derive(Parser, Debug)]
#[command(
    name = "sconce-trainer",
    version,
    after_help = "Exit codes: 0 done; 1 failed; 2 wrong flags; 3 trained, but below spec.accept of the manifest; 143 asked to\nstop, with a checkpoint that the same command goes on from."
)]
pub struct Args {
    #[command(subcommand)]
    pub verb: Verb,
    /// Registries without TLS, beside those on this machine's loopback addresses.
    #[arg(long, global = true, value_name = "HOST:PORT", value_delimiter = ',')]
    pub insecure_registry: Vec<String>,
}

#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Train the network of a manifest, and evaluate it on samples that it has not seen.
    Train(Train),
    /// Make the variants of a manifest anew from a trained artifact; prints size, time and accuracy before and after.
    Compress {
        /// The artifact's folder, which is replaced.
        artifact: PathBuf,
        #[command(flatten)]
        source: Source,
    },
    /// Publish an artifact's folder to a registry; prints its address by digest.
    Publish {
        /// The artifact's folder.
        artifact: PathBuf,
        /// Where to; without a tag, `latest`.
        #[arg(value_name = "oci://HOST/REPOSITORY:TAG")]
        uri: String,
        #[command(flatten)]
        signing: Signing,
    },
}

#[derive(clap::Args, Debug)]
pub struct Signing {
    /// Sign what is published: a private key (P-256, PEM), such as `openssl ecparam -genkey -name prime256v1 -noout` makes.
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
}

impl Signing {
    /// # Errors
    /// If the file cannot be read, or holds no such key.
    pub fn key(&self) -> anyhow::Result<Option<PrivateKey>> {
        let Some(path) = &self.signing_key else { return Ok(None) };
        let lacks = || format!("cannot read {}; in a cluster, output.signingKeyRef names its Secret", path.display());
        let pem = std::fs::read_to_string(path).with_context(lacks)?;
        Ok(Some(PrivateKey::from_pem(&pem).with_context(|| path.display().to_string())?))
    }
}

#[derive(clap::Args, Debug)]
pub struct Source {
    /// An EdgeTraining manifest (YAML).
    pub manifest: PathBuf,
    /// Folder to read instead of where the manifest says that its data set lies: IDX files, or what was collected.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Folder with the `config.json`, as docker writes it, or a Secret's `.dockerconfigjson`, that opens the registry of the manifest's
    /// base. Default: as for what is published, $DOCKER_CONFIG or ~/.docker.
    #[arg(long, value_name = "DIR")]
    pub base_docker_config: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub struct Train {
    #[command(flatten)]
    pub source: Source,
    /// Where to write the artifact: a folder that is absent, empty, or holds an artifact, which is replaced.
    #[arg(long, value_name = "DIR", default_value = "artifact")]
    pub output: PathBuf,
    /// Write 500 samples of the test split there, for clients to ask with.
    #[arg(long, value_name = "DIR")]
    pub held_out: Option<PathBuf>,
    /// Write there, as JSON, what the run did: data, epochs, variants, address; and beside it, as .html, a page for people.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Write there, as one line of JSON, what came of the run, for who tries again what fails: the exit code is then 0 for all
    /// that another try would not change, such as a model that is not accepted or a manifest that is wrong.
    #[arg(long, value_name = "FILE")]
    pub result: Option<PathBuf>,
    /// A folder with one folder for each run, such as that of --output: of all others the newest stays, and older ones are removed.
    #[arg(long, value_name = "DIR")]
    pub runs: Option<PathBuf>,
    /// The artifact that `accept.improveBy` compares with, such as what an earlier run has published. Default: the manifest's base. It is
    /// opened as what is published is.
    #[arg(long, value_name = "DIR|oci://HOST/REPOSITORY@sha256:HEX")]
    pub against: Option<String>,
    /// Publish the artifact if it is accepted, as `publish` would.
    #[arg(long, value_name = "oci://HOST/REPOSITORY:TAG")]
    pub publish: Option<String>,
    #[command(flatten)]
    pub signing: Signing,
}
