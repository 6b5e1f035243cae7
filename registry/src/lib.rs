//! Who asks a registry, and what lets him in: names and passwords as docker, helm and kubectl keep them, exchanged for tokens.
//!
//! A password goes to its registry, and to whom that names for giving tokens; to nobody over plain HTTP who is not named for that,
//! and after no redirection. What is said of failures has nothing of it.

mod challenge;
mod helper;
mod keyring;
mod login;
mod plain;
mod registry;

pub use challenge::Challenge;
pub use keyring::{Credential, Keyring, KeyringError, SECRET_FILE};
pub use plain::is_plain;
pub use registry::{Registry, RegistryError};
