//! Rounds → tables: medians, and the medians of each round's ratios.

use crate::bench::{Both, Overload, Round, Side, Waited};
use crate::servers::Server;
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::ops::RangeInclusive;

const HEAD: &str = "\
| server | requests/s | CPU µs per request | p50 ms, one at a time | p99 ms, one at a time | memory MiB | start ms | load's CPU |
|---|--:|--:|--:|--:|--:|--:|--:|";

/// Where the ratio of ours to itself must lie for requests and CPU to say anything.
const QUIET: RangeInclusive<f64> = 0.97..=1.03;

/// What is told of ours (0) and the other (1).
type Column = fn(&Round, usize) -> f64;

const COLUMNS: [Column; 6] = [
    |round, which| side(&round.many, which).requests_per_second,
    |round, which| side(&round.many, which).cpu_us_per_request,
    |round, which| side(&round.one, which).p50_ms,
    |round, which| side(&round.one, which).p99_ms,
    |round, which| side(&round.one, which).memory_bytes / f64::from(1 << 20),
    |round, which| round.ready[which].as_secs_f64() * 1e3,
];

fn side(both: &Both, which: usize) -> &Side {
    if which == 0 { &both.target } else { &both.peer }
}

/// A row for ours, of all rounds, and one for each other, each figure with its ratio to ours. The first of the others is ours again.
pub fn servers(ours: &str, others: &[Server], rounds: &[Vec<Round>]) -> Result<String> {
    let all: Vec<&Round> = rounds.iter().flatten().collect();
    let first = all.first().context("no round")?;
    let mut text = format!("{} ({})\n\n{HEAD}\n", first.many.cpu, first.many.isa.join(" "));
    let own = COLUMNS.map(|column| shown(median(all.iter().map(|round| column(round, 0)))));
    writeln!(text, "| {ours} | {} | |", own.join(" | "))?;
    for (server, rounds) in others.iter().zip(rounds) {
        let cells = COLUMNS.map(|column| {
            let value = median(rounds.iter().map(|round| column(round, 1)));
            format!("{} ({})", shown(value), shown(ratio(rounds, column)))
        });
        let busy = median(rounds.iter().map(|round| round.many.bench_cpus));
        writeln!(text, "| {} | {} | {busy:.2} |", server.name, cells.join(" | "))?;
    }
    let null = rounds.first().context("no server")?;
    let quiet = COLUMNS[..2].iter().all(|column| QUIET.contains(&ratio(null, *column)));
    text += if quiet {
        "\nIn brackets: ÷ ours in the same round."
    } else {
        "\nToo noisy to judge: ours ÷ itself is not near 1."
    };
    Ok(text)
}

/// Requests that wait, and rows of a batch, at most: as our flags have them.
const QUEUE: f64 = 256.0;
const BATCH: f64 = 16.0;

/// After which an accepted request should be answered, in milliseconds: a full queue, and two batches.
fn bound(rows: u16, capacity: f64) -> f64 {
    (QUEUE + 2.0 * BATCH / f64::from(rows)) / capacity * 1e3
}

/// A row for each network, with the rows of its requests.
pub fn overload(told: &[(&str, u16, Overload)], factor: u16) -> Result<String> {
    let waited = |waited: &Waited| format!("{} / {}", shown(waited.p50_ms), shown(waited.p99_ms));
    let mut text = format!(
        "Asked for {factor} times what it can:\n\n\
         | network, rows of a request | can, requests/s | offered, requests/s | answered ÷ can | answered after ms, p50 / p99 | bound ms | refused after ms, p50 / p99 | load's CPU |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|"
    );
    for (network, rows, told) in told {
        let refused = told.refused.iter().map(|(code, refused)| format!("{}, {code}", waited(refused)));
        let refused = refused.reduce(|all, one| format!("{all}; {one}")).unwrap_or_else(|| "none".into());
        write!(
            text,
            "\n| {network}, {rows} | {} | {} | {:.2} | {} | {} | {refused} | {:.2} |",
            shown(told.capacity_per_second),
            shown(told.offered_per_second),
            told.goodput_ratio,
            waited(&told.answered),
            shown(bound(*rows, told.capacity_per_second)),
            told.bench_cpus,
        )?;
    }
    Ok(text)
}

/// Of the other to ours.
fn ratio(rounds: &[Round], column: Column) -> f64 {
    median(rounds.iter().map(|round| column(round, 1) / column(round, 0)))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// With three digits or more.
fn shown(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Requirements as a sentence has them.
pub fn list(requirements: &str) -> String {
    requirements.trim().replace('\n', ", ")
}
