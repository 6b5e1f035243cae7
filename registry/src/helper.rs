//! Programs that keep passwords, as docker asks them: `docker-credential-NAME get`.

use crate::keyring::Credential;
use serde::Deserialize;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A person may have to unlock it.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Said {
    username: String,
    secret: String,
}

/// Why it did not say what it has.
#[derive(Debug)]
pub enum Unsaid {
    NotStarted(std::io::Error),
    Failed(String),
}

/// What it has for a server; `None` if it has nothing.
///
/// # Errors
/// [`Unsaid`]
pub async fn ask(name: &str, server: &str) -> Result<Option<Credential>, Unsaid> {
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err(Unsaid::Failed("that is no name of a program".into()));
    }
    let mut command = Command::new(format!("docker-credential-{name}"));
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let child = command.spawn().map_err(Unsaid::NotStarted)?;
    answer(child, server).await.map_err(Unsaid::Failed)
}

async fn answer(mut child: Child, server: &str) -> Result<Option<Credential>, String> {
    let mut stdin = child.stdin.take();
    let asked = async {
        if let Some(stdin) = &mut stdin {
            // One that does not listen says so by its exit.
            stdin.write_all(server.as_bytes()).await.ok();
        }
        drop(stdin);
        child.wait_with_output().await
    };
    let ended = timeout(PATIENCE, asked).await.map_err(|_| format!("no answer within {PATIENCE:?}"))?;
    let ended = ended.map_err(|error| error.to_string())?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stdout);
        let is_none = said.contains("credentials not found");
        return if is_none { Ok(None) } else { Err(format!("it ended with {}", ended.status)) };
    }
    let said: Said =
        serde_json::from_slice(&ended.stdout).map_err(|_| "its answer is no JSON of docker's".to_owned())?;
    Ok(Some(match said.username.as_str() {
        "<token>" => Credential::Identity(said.secret),
        _ => Credential::Password { username: said.username, password: said.secret },
    }))
}
