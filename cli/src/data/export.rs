//! Samples as files, a table of labels to fill in, and a page.

use super::page::page;
use super::{Contents, picture, progress};
use crate::args::Order;
use anyhow::{Context as _, Result, bail};
use sconce_lake::labels::table;
use sconce_lake::{Labels, Row};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

const HEADER: [&str; 7] = ["id", "label", "by", "at", "prediction", "score", "file"];
const TABLE: &str = "labels.csv";
const PAGE: &str = "index.html";
const FILES: &str = "files";

/// Which samples are meant.
pub struct Wish {
    pub by: Option<Order>,
    pub limit: Option<usize>,
    pub unlabelled: bool,
}

/// A sample that was written.
pub struct Line {
    pub row: Row,
    pub label: Option<sconce_lake::Label>,
    /// Below the folder.
    pub file: String,
    /// What a browser can show of it.
    pub picture: Option<String>,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Exported {
    pub samples: usize,
    pub of: usize,
    pub labelled: usize,
    pub folder: PathBuf,
}

/// # Errors
/// If something is there: labels that somebody filled in are not written over.
pub fn check(folder: &Path) -> Result<()> {
    if std::fs::read_dir(folder).is_ok_and(|entries| entries.count() > 0) {
        bail!("{} is not empty: name another folder", folder.display());
    }
    Ok(())
}

pub async fn export(contents: &Contents, wish: &Wish, folder: &Path) -> Result<Exported> {
    let all: Vec<&Row> = contents.rows().collect();
    let of = all.len();
    let chosen = choose(all, &contents.labels, wish);
    if chosen.is_empty() {
        bail!("none of {of} samples is meant{}", if wish.unlabelled { ": all of them are labelled" } else { "" });
    }
    let places: BTreeMap<&str, usize> = chosen.iter().enumerate().map(|(place, row)| (&*row.id, place)).collect();
    let failed = |path: &Path| format!("writing {}", path.display());
    std::fs::create_dir_all(folder.join(FILES)).with_context(|| failed(folder))?;
    let progress = progress("writing samples", chosen.len());
    let mut lines: BTreeMap<usize, Line> = BTreeMap::new();
    for (shard, rows) in &contents.rows {
        let rows: Vec<Row> = rows.iter().filter(|row| places.contains_key(&*row.id)).cloned().collect();
        if rows.is_empty() {
            continue;
        }
        for (row, content) in rows.iter().zip(contents.lake.contents(shard, &rows).await?) {
            let file = format!("{FILES}/{}.{}", row.id, row.media);
            std::fs::write(folder.join(&file), &content).with_context(|| failed(&folder.join(&file)))?;
            let picture = match picture::of(&row.media, &content) {
                picture::Shown::Itself => Some(file.clone()),
                picture::Shown::Drawn(png) => {
                    let drawn = format!("{FILES}/{}.png", row.id);
                    std::fs::write(folder.join(&drawn), png).with_context(|| failed(&folder.join(&drawn)))?;
                    Some(drawn)
                }
                picture::Shown::Nothing => None,
            };
            let label = contents.labels.of(row).cloned();
            lines.insert(places[&*row.id], Line { row: row.clone(), label, file, picture });
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    let lines: Vec<Line> = lines.into_values().collect();
    let write = |name: &str, bytes: Vec<u8>| {
        std::fs::write(folder.join(name), bytes).with_context(|| failed(&folder.join(name)))
    };
    write(TABLE, table(&HEADER, lines.iter().map(cells)))?;
    write(PAGE, page(&lines).into_bytes())?;
    let labelled = lines.iter().filter(|line| line.label.is_some()).count();
    Ok(Exported { samples: lines.len(), of, labelled, folder: folder.into() })
}

/// The samples that are meant, in their order.
pub fn choose<'a>(all: Vec<&'a Row>, labels: &Labels, wish: &Wish) -> Vec<&'a Row> {
    let mut rows: Vec<&Row> = all.into_iter().filter(|row| !wish.unlabelled || labels.of(row).is_none()).collect();
    match wish.by {
        // What no model was asked has no margin, and comes last.
        Some(Order::Margin) => rows.sort_by(|one, other| {
            let margin = |row: &Row| row.margin.unwrap_or(f64::INFINITY);
            margin(one).total_cmp(&margin(other)).then_with(|| one.id.cmp(&other.id))
        }),
        None => rows.sort_by(|one, other| (other.time, &other.id).cmp(&(one.time, &one.id))),
    }
    rows.truncate(wish.limit.unwrap_or(usize::MAX));
    rows
}

fn cells(Line { row, label, file, .. }: &Line) -> [String; 7] {
    let label = label.as_ref();
    let told = |text: Option<String>| text.unwrap_or_default();
    [
        row.id.clone(),
        told(label.map(|label| label.value.clone())),
        told(label.map(|label| label.by.clone())),
        told(label.map(|label| label.at.to_string())),
        told(row.prediction.map(|class| class.to_string())),
        told(row.score.map(|score| format!("{score:.4}"))),
        file.clone(),
    ]
}

impl Display for Exported {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { samples, of, labelled, folder } = self;
        let folder = folder.display();
        writeln!(f, "{samples} of {of} samples are in {folder}, {labelled} of them labelled")?;
        writeln!(
            f,
            "look at them in {folder}/{PAGE}, fill in the column label of {folder}/{TABLE}, and give it back:"
        )?;
        write!(f, "  sconce data import DATASET {folder}/{TABLE} --by WHO")
    }
}

/// Classes that were ever said, for the page to offer.
pub fn classes(lines: &[Line]) -> BTreeSet<String> {
    let said = |line: &Line| line.label.as_ref().map(|label| label.value.clone());
    lines.iter().flat_map(|line| [said(line), line.row.prediction.map(|class| class.to_string())]).flatten().collect()
}
