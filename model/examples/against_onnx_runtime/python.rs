//! A Python with packages from PyPI: for benchmarks beside others, and for tests by public clients.

use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's own, where there is one, before another that is found first: packages may hold programs that embed just that.
const DEBIANS: &str = "/usr/bin/python3";

/// The interpreter of an environment that is made once for each list of requirements.
///
/// # Errors
/// If it cannot be made: what was tried, what was said, and what may help.
pub fn python(folder: &Path, requirements: &str) -> Result<PathBuf> {
    let (python, made) = (folder.join("bin/python"), folder.join("requirements.txt"));
    if std::fs::read_to_string(&made).is_ok_and(|installed| installed == requirements) {
        return Ok(python);
    }
    eprintln!("installing from PyPI, into {}: {}", folder.display(), requirements.trim().replace('\n', ", "));
    let base = if Path::new(DEBIANS).exists() { DEBIANS } else { "python3" };
    run(
        Command::new(base).args(["-m", "venv", "--clear"]).arg(folder),
        "install python3 with venv (Debian: apt-get install python3-venv)",
    )?;
    let asked = folder.join("asked.txt");
    std::fs::write(&asked, requirements)?;
    run(
        Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&asked),
        "PyPI, or a mirror of it that pip is configured for, must be reachable",
    )?;
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
