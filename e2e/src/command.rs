//! Runs a program; an error says which, with what, and what it printed.

use anyhow::{Context as _, Result, bail};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

/// A program that says nothing for so long never will.
const LIMIT: Duration = Duration::from_secs(600);

pub struct Command {
    inner: tokio::process::Command,
    line: String,
    input: Option<String>,
}

/// A program that goes on. Its output is kept open: who writes to nobody is ended. Its input, too: who waits for its end ends with this.
pub struct Running {
    line: String,
    _child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// What it says next.
    pub async fn says(&mut self) -> Result<String> {
        let said = tokio::time::timeout(LIMIT, self.output.next_line()).await;
        let said = said.with_context(|| format!("`{}` says nothing for {LIMIT:?}", self.line))??;
        said.with_context(|| format!("`{}` ended and said nothing", self.line))
    }
}

impl Command {
    pub fn new(program: impl AsRef<Path>) -> Self {
        let program = program.as_ref();
        let name = program.file_name().unwrap_or(program.as_os_str());
        let mut inner = tokio::process::Command::new(program);
        inner.stdin(Stdio::null()).kill_on_drop(true);
        Self { inner, line: name.to_string_lossy().into_owned(), input: None }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.line.push(' ');
        self.line.push_str(&arg.as_ref().to_string_lossy());
        self.inner.arg(arg);
        self
    }

    pub fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(key, value);
        self
    }

    /// Text for the program's standard input.
    pub fn input(mut self, text: impl Into<String>) -> Self {
        self.input = Some(text.into());
        self
    }

    /// Runs the program with its output on ours.
    pub async fn show(mut self) -> Result<()> {
        let status = self.inner.status().await.with_context(|| format!("cannot run `{}`", self.line))?;
        if !status.success() {
            bail!("`{}` failed: {status}", self.line);
        }
        Ok(())
    }

    /// Runs the program and returns what it printed, even if it failed: (succeeded, stdout, stderr).
    pub async fn try_output(mut self) -> Result<(bool, String, String)> {
        self.inner.stdout(Stdio::piped()).stderr(Stdio::piped());
        if self.input.is_some() {
            self.inner.stdin(Stdio::piped());
        }
        let mut child = self.inner.spawn().with_context(|| format!("cannot run `{}`", self.line))?;
        if let (Some(text), Some(mut stdin)) = (self.input.take(), child.stdin.take()) {
            use tokio::io::AsyncWriteExt as _;
            stdin.write_all(text.as_bytes()).await?;
        }
        let ended = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
        let output = ended.with_context(|| format!("`{}` has not ended after {LIMIT:?}", self.line))??;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((output.status.success(), text(output.stdout), text(output.stderr)))
    }

    /// Runs a program that goes on until it is dropped.
    pub fn begin(mut self) -> Result<Running> {
        let cannot = format!("cannot run `{}`", self.line);
        let mut child = self.inner.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context(cannot)?;
        let output = BufReader::new(child.stdout.take().context("its output is ours")?).lines();
        Ok(Running { line: self.line, _child: child, output })
    }

    pub async fn output(self) -> Result<String> {
        let line = self.line.clone();
        let (succeeded, stdout, stderr) = self.try_output().await?;
        if !succeeded {
            bail!("`{line}` failed: {}", format!("{stdout}{stderr}").trim());
        }
        Ok(stdout)
    }
}
