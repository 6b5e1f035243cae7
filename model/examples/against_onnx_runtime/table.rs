//! Times of rounds → a row: medians, and the medians of each round's ratios.

use std::ops::RangeInclusive;

pub const HEAD: &str = "\
| network | batch | f32 µs | f16 µs | int8 µs | ORT f32 µs | ORT int8 µs | OV f32 µs | OV int8 µs | f32 ÷ ORT f32 | best ÷ ORT f32 | best int8 of others ÷ ORT f32 | null |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

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
    /// OpenVINO in f32, and in int8.
    pub openvino: [Option<f64>; 2],
}

type Column = fn(&Round) -> Option<f64>;

/// One line of Markdown; `–` stands where one of both has no such form.
pub fn row(network: &str, batch: usize, rounds: &[Round]) -> String {
    let columns: [Column; 7] = [
        |round| round.ours[0],
        |round| round.ours[1],
        |round| round.ours[2],
        |round| round.theirs,
        |round| round.their_int8,
        |round| round.openvino[0],
        |round| round.openvino[1],
    ];
    let times = columns.map(|column| shown(median(rounds, column), time));
    let ratio = |column: Column| median(rounds, |round| Some(column(round)? / round.theirs?));
    let best = |of: [(&str, Column); 2]| {
        let known = of.into_iter().filter_map(|(name, column)| Some((name, ratio(column)?)));
        let least = known.min_by(|a, b| a.1.total_cmp(&b.1));
        least.map_or_else(|| "–".into(), |(name, ratio)| format!("{ratio:.2} {name}"))
    };
    let f32 = shown(ratio(columns[0]), |ratio| format!("{ratio:.2}"));
    let ours = best([("f16", columns[1]), ("int8", columns[2])]);
    let others = best([("ORT", columns[4]), ("OV", columns[6])]);
    let null = shown(ratio(|round| round.again), |ratio| {
        format!("{ratio:.2}{}", if QUIET.contains(&ratio) { "" } else { " (too noisy to judge)" })
    });
    format!("| {network} | {batch} | {} | {f32} | {ours} | {others} | {null} |", times.join(" | "))
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
