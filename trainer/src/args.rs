//! The flags.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Trains models by `EdgeTraining` manifests, evaluates and publishes them.
#[derive(Parser, Debug)]
#[command(name = "sconce-trainer", version)]
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
    Train {
        /// An EdgeTraining manifest (YAML).
        manifest: PathBuf,
        /// Folder with IDX files, instead of the manifest's data set.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Where to write the artifact.
        #[arg(long, value_name = "DIR", default_value = "artifact")]
        output: PathBuf,
        /// Write 500 samples of the test split there, for clients to ask with.
        #[arg(long, value_name = "DIR")]
        held_out: Option<PathBuf>,
        /// Publish the artifact when it is done, as `publish` would.
        #[arg(long, value_name = "oci://HOST/REPOSITORY:TAG")]
        publish: Option<String>,
    },
    /// Publish an artifact's folder to a registry; prints its address by digest.
    Publish {
        artifact: PathBuf,
        #[arg(value_name = "oci://HOST/REPOSITORY:TAG")]
        uri: String,
    },
}
