//! A Python with packages from PyPI: for benchmarks beside others, and for tests by public clients.

use anyhow::{Context as _, Error, Result, ensure};
use std::fmt;
use std::io::ErrorKind;
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

/// The interpreter of an environment that is made once for each list of requirements, and each Python.
///
/// # Errors
/// If it cannot be made: what was tried, what was said, and what may help. [`Nothing`] is among its causes where nothing can be
/// had.
pub fn python(folder: &Path, requirements: &str) -> Result<PathBuf> {
    let (python, made) = (folder.join("bin/python"), folder.join("requirements.txt"));
    let base = if Path::new(DEBIANS).exists() { DEBIANS } else { "python3" };
    let remedy = "install python3 with venv (Debian: apt-get install python3-venv)";
    let nothing = |error: Error| Error::new(Nothing).context(format!("{error:#}"));
    let version = run(Command::new(base).arg("-V"), remedy).map_err(|error| match error.downcast_ref() {
        Some(missing) if std::io::Error::kind(missing) == ErrorKind::NotFound => nothing(error),
        _ => error,
    })?;
    let wanted = format!("# {}\n{requirements}", version.trim());
    if std::fs::read_to_string(&made).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    eprintln!("installing from PyPI, into {}: {}", folder.display(), requirements.trim().replace('\n', ", "));
    run(Command::new(base).args(["-m", "venv", "--clear"]).arg(folder), remedy)
        .map_err(|error| if lacks_venv(&error.to_string()) { nothing(error) } else { error })?;
    let asked = folder.join("asked.txt");
    std::fs::write(&asked, wanted)?;
    let installed = run(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--no-compile", "--retries", "2", "--requirement"])
            .arg(&asked),
        "PyPI, or a mirror of it that pip is configured for, must be reachable",
    );
    installed.map_err(|error| if finds_nothing(&error.to_string(), requirements) { nothing(error) } else { error })?;
    std::fs::rename(asked, made)?;
    Ok(python)
}

/// What it prints.
///
/// # Errors
/// If it fails, with what it said.
pub fn run(command: &mut Command, remedy: &str) -> Result<String> {
    let ended = command.output().with_context(|| format!("{command:?}; {remedy}"))?;
    let [told, errors] = [ended.stdout, ended.stderr].map(|told| String::from_utf8_lossy(&told).into_owned());
    ensure!(ended.status.success(), "{command:?}: {}; {remedy}", [&*told, &*errors].concat().trim());
    Ok(told)
}

/// Whether Python, or Debian's, says that venv is not installed, or what it needs.
fn lacks_venv(told: &str) -> bool {
    ["No module named venv", "No module named ensurepip", "ensurepip is not"].iter().any(|words| told.contains(words))
}

/// Whether pip says that it cannot connect, and that the first package has no versions at all; of one that has not the version
/// asked for it tells others.
fn finds_nothing(told: &str, requirements: &str) -> bool {
    const UNCONNECTED: [&str; 5] = [
        "Retrying",
        "Failed to establish",
        "NewConnectionError",
        "Name or service not known",
        "Temporary failure in name resolution",
    ];
    let first = requirements.lines().next().unwrap_or_default();
    UNCONNECTED.iter().any(|words| told.contains(words))
        && told.lines().any(|line| line.contains(first) && line.contains("(from versions: none)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: &str = "numpy==2.4.6\nonnx==1.23.2\n";

    #[test]
    fn nothing_is_what_has_no_versions_where_nobody_answers() {
        let check = |told: &str, expected| assert_eq!(finds_nothing(told, ASKED), expected, "{told}");
        let unheard = |of: &str, versions: &str| {
            format!(
                "WARNING: Retrying (Retry(total=1)) after connection broken by 'NewConnectionError'\n\
                 ERROR: Could not find a version that satisfies the requirement {of} (from versions: {versions})\nERROR: more"
            )
        };
        check(&unheard("numpy==2.4.6", "none"), true);
        check(&unheard("numpy==2.4.6", "2.4.4, 2.4.5"), false);
        check(&unheard("onnx==1.23.2", "none"), false);
        // An index that answers, and has none for this Python.
        check(unheard("numpy==2.4.6", "none").split_once('\n').unwrap().1, false);
        check("ERROR: ResolutionImpossible", false);
    }

    #[test]
    fn a_python_without_venv_is_told_from_one_that_fails() {
        let check = |told: &str, expected| assert_eq!(lacks_venv(told), expected, "{told}");
        let debians = "The virtual environment was not created successfully because ensurepip is not\navailable.";
        check(debians, true);
        check("\"python3\" \"-m\" \"venv\": /usr/bin/python3: No module named venv; install", true);
        check("\"python3\" \"-m\" \"venv\": Error: [Errno 28] No space left on device; install", false);
        check("Error: Command '-m ensurepip --upgrade' returned non-zero exit status 1.", false);
    }
}
