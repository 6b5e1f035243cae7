//! Names and passwords of registries, in the file that `docker login` writes and a Secret of Kubernetes holds.

use crate::helper::{self, Unsaid};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The one file of a Secret of type `kubernetes.io/dockerconfigjson`.
pub const SECRET_FILE: &str = ".dockerconfigjson";

/// Nothing of a password is in what these say.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeyringError {
    #[error("cannot read {origin}: {why}")]
    Read { origin: String, why: String },
    #[error("{origin} is no JSON as docker writes it (line {line}, column {column}); write it anew with docker login")]
    Json { origin: String, line: usize, column: usize },
    #[error("what {origin} has for {registry} is no auth, nor username and password; write it anew with docker login")]
    Entry { origin: String, registry: String },
    #[error("{origin} has no name and password for {registry}; add them")]
    NoEntry { origin: String, registry: String },
    #[error("{origin} has its passwords with docker-credential-{helper}, and that says none for {registry}: {why}")]
    Helper { origin: String, helper: String, registry: String, why: String },
}

/// What lets somebody in.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    Password {
        username: String,
        password: String,
    },
    /// To be exchanged for a token, as a password is.
    Identity(String),
    /// The token itself.
    Token(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}

/// What opens which registries.
#[derive(Clone)]
pub struct Keyring {
    /// Where it is from, as messages name it.
    origin: String,
    config: Config,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Auth {
    /// `USERNAME:PASSWORD` in base64.
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Keyring {
    /// It opens nothing.
    pub fn none() -> Self {
        Self { origin: "nobody".into(), config: Config::default() }
    }

    /// That of whoever runs this program: `$DOCKER_CONFIG/config.json`, or `~/.docker/config.json`. Where there is none it is empty.
    ///
    /// # Errors
    /// [`KeyringError`] if the file cannot be read, or is none of docker's.
    pub fn of_user() -> Result<Self, KeyringError> {
        let folder = std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let home = || Some(std::env::home_dir()?.join(".docker"));
        folder.or_else(home).map_or_else(|| Ok(Self::none()), |folder| Self::in_folder(&folder))
    }

    /// `config.json` of a folder, or what a Secret that is mounted there has; empty if there is neither.
    ///
    /// # Errors
    /// As [`Keyring::of_user`].
    pub fn in_folder(folder: &Path) -> Result<Self, KeyringError> {
        let (own, secret) = (folder.join("config.json"), folder.join(SECRET_FILE));
        let origin = own.display().to_string();
        if let Some(bytes) = read(&own)? {
            return Ok(Self { config: parse(&origin, &bytes)?, origin });
        }
        match read(&secret)? {
            Some(bytes) => Self::of_secret(secret.display().to_string(), &bytes),
            None => Ok(Self { origin, config: Config::default() }),
        }
    }

    /// Of what somebody else has written: no program is started for it.
    ///
    /// # Errors
    /// [`KeyringError::Json`]
    pub fn of_secret(origin: String, bytes: &[u8]) -> Result<Self, KeyringError> {
        let auths = parse(&origin, bytes)?.auths;
        Ok(Self { config: Config { auths, ..Config::default() }, origin })
    }

    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What opens a repository, if anything here does; of entries with paths the longest that leads to it.
    ///
    /// # Errors
    /// [`KeyringError`] if an entry is none, or its program does not say.
    pub async fn credential(&self, registry: &str, repository: &str) -> Result<Option<Credential>, KeyringError> {
        if let Some(helper) = self.helper(registry) {
            match helper::ask(helper, server(registry)).await {
                Ok(Some(credential)) => return Ok(Some(credential)),
                Ok(None) => {}
                // Left behind by what was removed: it opens nothing, and closes nothing that is open to all.
                Err(Unsaid::NotStarted(error)) => {
                    let (origin, program) = (&self.origin, format!("docker-credential-{helper}"));
                    tracing::warn!(origin, program, %error, "cannot be started: going on without the passwords that it has");
                }
                Err(Unsaid::Failed(why)) => {
                    let (origin, helper, registry) = (self.origin.clone(), helper.into(), registry.into());
                    return Err(KeyringError::Helper { origin, helper, registry, why });
                }
            }
        }
        let opening =
            self.config.auths.iter().filter_map(|(key, auth)| Some((opens(key, registry, repository)?, auth)));
        let Some((_, auth)) = opening.max_by_key(|(rank, _)| *rank) else { return Ok(None) };
        auth.credential().map_err(|()| KeyringError::Entry { origin: self.origin.clone(), registry: registry.into() })
    }

    /// As [`Keyring::credential`], where there has to be one.
    ///
    /// # Errors
    /// As that, and [`KeyringError::NoEntry`].
    pub async fn must_open(&self, registry: &str, repository: &str) -> Result<(), KeyringError> {
        let found = self.credential(registry, repository).await?;
        found.map(drop).ok_or_else(|| KeyringError::NoEntry { origin: self.origin.clone(), registry: registry.into() })
    }

    fn helper(&self, registry: &str) -> Option<&str> {
        let own = self.config.cred_helpers.iter().find(|(key, _)| opens(key, registry, "").is_some());
        own.map(|(_, helper)| helper.as_str())
            .or(self.config.creds_store.as_deref())
            .filter(|helper| !helper.is_empty())
    }
}

/// `None` if it is not there.
fn read(file: &Path) -> Result<Option<Vec<u8>>, KeyringError> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(KeyringError::Read { origin: file.display().to_string(), why: error.to_string() }),
    }
}

/// Words of the parser may have parts of the file, and are not said.
fn parse(origin: &str, bytes: &[u8]) -> Result<Config, KeyringError> {
    serde_json::from_slice(bytes).map_err(|error| KeyringError::Json {
        origin: origin.into(),
        line: error.line(),
        column: error.column(),
    })
}

impl Auth {
    fn credential(&self) -> Result<Option<Credential>, ()> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.registrytoken) {
            // As a header it has to be printable.
            return if is_printable(&token) { Ok(Some(Credential::Token(token))) } else { Err(()) };
        }
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credential::Identity(token)));
        }
        if let Some(auth) = given(&self.auth) {
            let text = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(())?;
            let (username, password) = text.split_once(':').ok_or(())?;
            let password = password.trim_end_matches('\0');
            return Ok(Some(Credential::Password { username: username.into(), password: password.into() }));
        }
        match (given(&self.username), given(&self.password)) {
            (Some(username), Some(password)) => Ok(Some(Credential::Password { username, password })),
            // As docker leaves it where a program has the password.
            (None, None) => Ok(None),
            _ => Err(()),
        }
    }
}

/// What a header may have.
pub(crate) fn is_printable(token: &str) -> bool {
    token.bytes().all(|byte| byte.is_ascii_graphic())
}

const HUB: &str = "docker.io";

/// As docker calls it.
fn server(registry: &str) -> &str {
    if host(registry) == HUB { "https://index.docker.io/v1/" } else { registry }
}

fn host(registry: &str) -> &str {
    match registry {
        "index.docker.io" | "registry-1.docker.io" => HUB,
        other => other,
    }
}

/// Whether an entry's key is of this repository, and how well: by its path, and by its host rather than a pattern. As the kubelet
/// has it: `HOST[:PORT][/PATH]`, with or without scheme, and `*` for a label of the host.
fn opens(key: &str, registry: &str, repository: &str) -> Option<(usize, bool)> {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    let (pattern, path) = key.split_once('/').unwrap_or((key, ""));
    let path = match path.trim_matches('/') {
        "v1" | "v2" => "",
        path => path,
    };
    let (pattern, registry) = (host(pattern), host(registry));
    let is_exact = pattern == registry;
    let is_like = || {
        let (labels, patterns) = (registry.split('.'), pattern.split('.'));
        labels.clone().count() == patterns.clone().count()
            && labels.zip(patterns).all(|(label, pattern)| pattern == "*" || pattern == label)
    };
    let leads =
        path.is_empty() || repository.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    ((is_exact || is_like()) && leads).then_some((path.len(), is_exact))
}

#[cfg(test)]
mod tests;
