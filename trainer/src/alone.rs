//! One thread for candle's own operations, and memory that stays.

use std::io::Result;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// candle reads this when it first shares an operation.
const VARIABLE: &str = "CANDLE_NUM_THREADS";
/// mimalloc reads this as it starts; -1 is never.
const PURGE: &str = "MIMALLOC_PURGE_DELAY";

/// Begins this program anew, in the same process, with candle's threads switched off; returns where that is so already, or where
/// somebody has said how many there shall be. They wait for each other by spinning: for what training leaves to candle, which is the
/// sum of gradients, that costs more than is gained, and where they outnumber the CPUs that the process may use, much more. Memory
/// that is free stays with the process, unless somebody has said for how long: the next step needs as much, and the system would
/// clear it first.
///
/// # Errors
/// If the program cannot be begun.
pub fn alone() -> Result<()> {
    if std::env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    let mut words = std::env::args_os();
    let mut again = Command::new(std::env::current_exe()?);
    if let Some(name) = words.next() {
        again.arg0(name);
    }
    if std::env::var_os(PURGE).is_none() {
        again.env(PURGE, "-1");
    }
    Err(again.args(words).env(VARIABLE, "1").exec())
}
