//! Writes answers: as text for people, as JSON or YAML for programs.

use crate::args::Output;
use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::fmt::Display;
use std::path::Path;

pub const GOOD: Style = AnsiColor::Green.on_default();
pub const BAD: Style = AnsiColor::Red.on_default();
pub const DOUBTFUL: Style = AnsiColor::Yellow.on_default();
pub const STRONG: Style = Style::new().bold();

/// `text` in a style; it is left out where the output is no terminal, or `NO_COLOR` is set.
pub fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

pub fn print(output: Output, answer: &(impl Serialize + Display)) -> Result<()> {
    let text = match output {
        Output::Text => answer.to_string(),
        Output::Wide => format!("{answer:#}"),
        Output::Json => serde_json::to_string_pretty(answer).context("writing JSON")?,
        Output::Yaml => serde_saphyr::to_string(answer).context("writing YAML")?,
    };
    anstream::println!("{}", text.trim_end());
    Ok(())
}

pub fn write_file(file: &Path, text: &str) -> Result<()> {
    if file == Path::new("-") {
        anstream::println!("{text}");
        return Ok(());
    }
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

/// Rows with their columns below each other.
pub fn columns(rows: &[Vec<String>]) -> String {
    let width = |text: &str| anstream::adapter::strip_str(text).to_string().chars().count();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns)
        .map(|i| rows.iter().filter_map(|row| row.get(i)).map(|cell| width(cell)).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, wide)| format!("{cell}{}", " ".repeat(wide - width(cell))));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}
