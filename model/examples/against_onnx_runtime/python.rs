//! A Python with packages from PyPI: for benchmarks beside others, and for tests by public clients.

use anyhow::{Context as _, Error, Result, ensure};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's own, where there is one, before another that is found first: packages may hold programs that embed just that.
const DEBIANS: &str = "/usr/bin/python3";

/// Nothing can be had at all: there is no Python with venv, or no PyPI.
#[derive(Debug)]
pub struct Nothing;

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no Python with venv, or no PyPI")
    }
}

impl std::error::Error for Nothing {}

/// The interpreter of an environment that is made once for each list of requirements.
///
/// # Errors
/// If it cannot be made: what was tried, what was said, and what may help. [`Nothing`] is among its causes where nothing can be
/// had.
pub fn python(folder: &Path, requirements: &str) -> Result<PathBuf> {
    let (python, made) = (folder.join("bin/python"), folder.join("requirements.txt"));
    if std::fs::read_to_string(&made).is_ok_and(|installed| installed == requirements) {
        return Ok(python);
    }
    eprintln!("installing from PyPI, into {}: {}", folder.display(), requirements.trim().replace('\n', ", "));
    let base = if Path::new(DEBIANS).exists() { DEBIANS } else { "python3" };
    let venv = run(
        Command::new(base).args(["-m", "venv", "--clear"]).arg(folder),
        "install python3 with venv (Debian: apt-get install python3-venv)",
    );
    venv.map_err(|error| Error::new(Nothing).context(format!("{error:#}")))?;
    let asked = folder.join("asked.txt");
    std::fs::write(&asked, requirements)?;
    let installed = run(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--no-compile", "--retries", "2", "--requirement"])
            .arg(&asked),
        "PyPI, or a mirror of it that pip is configured for, must be reachable",
    );
    installed.map_err(|error| match error.to_string() {
        told if finds_nothing(&told, requirements) => Error::new(Nothing).context(told),
        _ => error,
    })?;
    std::fs::rename(asked, made)?;
    Ok(python)
}

/// # Errors
/// If it fails, with what it said.
pub fn run(command: &mut Command, remedy: &str) -> Result<()> {
    let ended = command.output().with_context(|| format!("{command:?}; {remedy}"))?;
    ensure!(ended.status.success(), "{command:?}: {}; {remedy}", String::from_utf8_lossy(&ended.stderr).trim());
    Ok(())
}

/// Whether pip says that the first package has no versions at all; of one that has not the version asked for it tells others.
fn finds_nothing(told: &str, requirements: &str) -> bool {
    let first = requirements.lines().next().unwrap_or_default();
    told.lines().any(|line| line.contains(first) && line.contains("(from versions: none)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: &str = "numpy==2.4.6\nonnx==1.23.2\n";

    #[test]
    fn nothing_is_what_has_no_versions() {
        let check = |told: &str, expected| assert_eq!(finds_nothing(told, ASKED), expected, "{told}");
        let missing = |of: &str, versions: &str| {
            format!(
                "ERROR: Could not find a version that satisfies the requirement {of} (from versions: {versions})\nERROR: more"
            )
        };
        check(&missing("numpy==2.4.6", "none"), true);
        check(&missing("numpy==2.4.6", "2.4.4, 2.4.5"), false);
        check(&missing("onnx==1.23.2", "none"), false);
        check("ERROR: ResolutionImpossible", false);
    }
}
