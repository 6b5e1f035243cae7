//! What a process takes, with all that it has started: as the kernel tells of each in `/proc`.

use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::time::Duration;

/// The kernel's unit in `/proc/PID/stat`: `USER_HZ` is 100 on every architecture that we build for.
const TICK: Duration = Duration::from_millis(10);

/// CPU time since their start; of those that have ended, if their parent has asked how.
///
/// # Errors
/// If there is no such process.
pub(super) fn cpu(root: u32) -> Result<Duration> {
    Ok(tree(root)?.iter().map(|process| TICK * process.ticks).sum())
}

/// Memory in RAM. Where it is several processes, each counts its proportional share of what it shares: among them all that is
/// once, and with strangers less than once.
///
/// # Errors
/// If there is no such process, or it belongs to somebody else.
pub(super) fn memory_bytes(root: u32) -> Result<u64> {
    match &tree(root)?[..] {
        // One alone is not told smaller because this bench may run the same program.
        [alone] => memory_of(alone.pid, "Rss:"),
        several => several.iter().map(|process| memory_of(process.pid, "Pss:")).sum(),
    }
}

fn memory_of(pid: u32, what: &str) -> Result<u64> {
    let file = format!("/proc/{pid}/smaps_rollup");
    let text = read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let kib = text.lines().find_map(|line| line.strip_prefix(what)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{file} tells no {what}"))? * 1024)
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    pid: u32,
    parent: u32,
    /// User and system, its own and of children that it has waited for.
    ticks: u32,
}

/// The process, its children, and theirs: those that run now.
fn tree(root: u32) -> Result<Vec<Stat>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").context("cannot read /proc")? {
        // A process that has ended meanwhile is no process.
        all.extend(read_to_string(entry?.path().join("stat")).ok().as_deref().and_then(stat));
    }
    let tree = descendants(root, all);
    if tree.is_empty() {
        bail!("no process {root} here: has it ended?");
    }
    Ok(tree)
}

/// Of all processes that and those under it.
fn descendants(root: u32, mut all: Vec<Stat>) -> Vec<Stat> {
    let mut under = BTreeSet::from([root]);
    let mut before = 0;
    while under.len() > before {
        before = under.len();
        under.extend(
            all.iter().filter(|process| under.contains(&process.parent)).map(|process| process.pid).collect::<Vec<_>>(),
        );
    }
    all.retain(|process| under.contains(&process.pid));
    all
}

/// Of `PID (NAME) STATE PARENT …`, where a name may hold anything.
fn stat(text: &str) -> Option<Stat> {
    let (pid, _) = text.split_once(" (")?;
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u32>());
    Some(Stat {
        pid: pid.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        ticks: ticks.sum::<Result<u32, _>>().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_name_is() {
        let line = "42 (a (b) c) S 7 42 42 0 -1 4194560 1 2 3 4 10 20 300 4000 20 0 1 0 55 0 0";
        assert_eq!(stat(line), Some(Stat { pid: 42, parent: 7, ticks: 4330 }));
        assert_eq!(stat("42 (a) S 7 42"), None);
    }

    #[test]
    fn grandchildren_belong_to_it_and_siblings_do_not() {
        let process = |pid, parent| Stat { pid, parent, ticks: 1 };
        let all = vec![process(9, 5), process(1, 0), process(5, 3), process(3, 1), process(4, 1)];
        assert_eq!(descendants(3, all), [process(9, 5), process(5, 3), process(3, 1)]);
    }

    #[test]
    fn what_this_process_takes_is_told() {
        let own = std::process::id();
        assert!(cpu(own).is_ok() && memory_bytes(own).unwrap() > 1 << 20);
        assert_eq!(cpu(u32::MAX).unwrap_err().to_string(), "no process 4294967295 here: has it ended?");
    }
}
