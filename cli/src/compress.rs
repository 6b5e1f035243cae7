//! `sconce compress` is the trainer's: that program takes this one's place, as kubectl's plugins do.

use anyhow::{Error, anyhow};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

const TRAINER: &str = "sconce-trainer";

/// What it is told and says, and how it ends, is the trainer's matter. Returns only where there is none that can be started.
pub fn hand_over(words: &[OsString]) -> Error {
    let program = trainer();
    let error = Command::new(&program).arg("compress").args(words).exec();
    if error.kind() == ErrorKind::NotFound {
        return anyhow!(
            "{TRAINER} does this, and is neither beside this program nor on the PATH: install it there (`make build` builds it)"
        );
    }
    Error::new(error).context(format!("cannot start {}", program.display()))
}

/// The one beside this program, else the PATH's.
fn trainer() -> PathBuf {
    let beside =
        std::env::current_exe().map(|own| own.with_file_name(TRAINER)).ok().filter(|program| program.is_file());
    beside.unwrap_or_else(|| TRAINER.into())
}
