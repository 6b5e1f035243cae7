//! Times of rounds → a row: medians, and the medians of each round's ratios.

use std::ops::RangeInclusive;

pub const HEAD: &str = "\
| network | batch | f32 µs | f16 µs | int8 µs | ORT f32 µs | ORT int8 µs | f32 ÷ ORT f32 | best ÷ ORT f32 | ORT int8 ÷ ORT f32 | null |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

/// Where the ratio of a thing to itself must lie for the row to say anything.
const QUIET: RangeInclusive<f64> = 0.97..=1.03;

/// Microseconds per call.
#[derive(Clone, Copy, Default)]
pub struct Round {
    /// As f32, f16, int8.
    pub ours: [Option<f64>; 3],
    /// ONNX Runtime in f32, and once more.
    pub theirs: Option<f64>,
    pub again: Option<f64>,
    pub their_int8: Option<f64>,
}

type Column = fn(&Round) -> Option<f64>;

/// One line of Markdown; `–` stands where one of both has no such form.
pub fn row(network: &str, batch: usize, rounds: &[Round]) -> String {
    let columns: [Column; 5] = [
        |round| round.ours[0],
        |round| round.ours[1],
        |round| round.ours[2],
        |round| round.theirs,
        |round| round.their_int8,
    ];
    let times = columns.map(|column| shown(median(rounds, column), time));
    let ratio = |column: Column| median(rounds, |round| Some(column(round)? / round.theirs?));
    let best = [("f16", columns[1]), ("int8", columns[2])].map(|(name, column)| (name, ratio(column)));
    let best = best.into_iter().filter_map(|(name, ratio)| Some((name, ratio?))).min_by(|a, b| a.1.total_cmp(&b.1));
    let best = best.map_or_else(|| "–".into(), |(name, ratio)| format!("{ratio:.2} {name}"));
    let [f32, their_int8] = [columns[0], columns[4]].map(|column| shown(ratio(column), |ratio| format!("{ratio:.2}")));
    let null = shown(ratio(|round| round.again), |ratio| {
        format!("{ratio:.2}{}", if QUIET.contains(&ratio) { "" } else { " (too noisy to judge)" })
    });
    format!("| {network} | {batch} | {} | {f32} | {best} | {their_int8} | {null} |", times.join(" | "))
}

fn median(rounds: &[Round], column: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
    let mut values = rounds.iter().map(column).collect::<Option<Vec<f64>>>()?;
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn shown(value: Option<f64>, write: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "–".into(), write)
}

/// With three digits or more.
fn time(micros: f64) -> String {
    if micros < 100.0 { format!("{micros:.1}") } else { format!("{micros:.0}") }
}
