//! What a test says that tries nothing because what others wrote cannot be had.

use std::fs::OpenOptions;
use std::io::{Error, Result, Write as _};

/// The file that is told; where none is named, all has to be tried.
const UNTRIED: &str = "SCONCE_STRANGERS_UNTRIED";

/// Says what was not tried, and why.
///
/// # Errors
/// With the same words if all has to be tried, or if the file cannot be written.
pub fn untried(told: &str) -> Result<()> {
    let file = std::env::var_os(UNTRIED).ok_or_else(|| Error::other(told))?;
    let told = format!("{told}\n");
    // Not by `eprintln`, which nobody sees of a test that passes.
    std::io::stderr().write_all(told.as_bytes())?;
    OpenOptions::new().create(true).append(true).open(file)?.write_all(told.as_bytes())
}
