//! A Python with the peer's packages.

use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::Command;

pub const REQUIREMENTS: &str = include_str!("requirements.txt");

/// Made once for each list of requirements, beside the program: in the folder of builds.
pub fn python() -> Result<PathBuf> {
    let folder = std::env::current_exe()?.with_file_name("against_onnx_runtime_python");
    let (python, made) = (folder.join("bin/python"), folder.join("requirements.txt"));
    if std::fs::read_to_string(&made).is_ok_and(|installed| installed == REQUIREMENTS) {
        return Ok(python);
    }
    eprintln!("installing from PyPI, into {}: {}", folder.display(), REQUIREMENTS.trim().replace('\n', ", "));
    run(
        Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder),
        "install python3 with venv (Debian: apt-get install python3-venv)",
    )?;
    let asked = folder.join("asked.txt");
    std::fs::write(&asked, REQUIREMENTS)?;
    run(
        Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&asked),
        "PyPI, or a mirror of it that pip is configured for, must be reachable",
    )?;
    std::fs::rename(asked, made)?;
    Ok(python)
}

fn run(command: &mut Command, remedy: &str) -> Result<()> {
    let ended = command.output().with_context(|| format!("{command:?}; {remedy}"))?;
    ensure!(ended.status.success(), "{command:?}: {}; {remedy}", String::from_utf8_lossy(&ended.stderr));
    Ok(())
}
