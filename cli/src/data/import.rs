//! Labels in: what is new of a filled-in table is kept beside the samples.

use super::Contents;
use anyhow::{Result, bail};
use jiff::Timestamp;
use sconce_lake::labels::Given;
use sconce_lake::{Label, Lake, Row};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// Of a list, what people are shown.
const SHOWN: usize = 10;

/// What is to be kept of a table, and what is to be said of the rest.
#[derive(Debug, Default, PartialEq)]
pub struct Checked {
    pub labels: Vec<Label>,
    /// Of samples that had none.
    pub fresh: usize,
    /// Rows without a label.
    pub empty: usize,
    /// Rows that say what is known.
    pub unchanged: usize,
    /// Ids that are not in the data set.
    pub unknown: Vec<String>,
    /// Where somebody else had said another thing.
    pub conflicts: Vec<Conflict>,
}

#[derive(Serialize, Clone, Debug, PartialEq)]
pub struct Conflict {
    pub id: String,
    pub label: String,
    pub by: String,
    pub now: String,
}

#[derive(Serialize, Debug)]
pub struct Imported {
    pub kept: usize,
    pub fresh: usize,
    /// Absent = nothing was to be kept.
    pub object: Option<String>,
    pub empty: usize,
    pub unchanged: usize,
    pub unknown: Vec<String>,
    pub conflicts: Vec<Conflict>,
}

/// # Errors
/// If one sample is said to show two things.
pub fn check(contents: &Contents, given: Vec<Given>, by: &str, now: Timestamp) -> Result<Checked> {
    let rows: BTreeMap<&str, &Row> = contents.rows().map(|row| (&*row.id, row)).collect();
    let (mut checked, mut said) = (Checked::default(), BTreeMap::new());
    for Given { line, id, label, .. } in given {
        let Some(value) = label else {
            checked.empty += 1;
            continue;
        };
        if let Some((before, first)) = said.insert(id.clone(), (value.clone(), line)) {
            if before != value {
                bail!("lines {first} and {line} say that {id} is \"{before}\" and \"{value}\": leave one");
            }
            continue;
        }
        let Some(row) = rows.get(&*id) else {
            checked.unknown.push(id);
            continue;
        };
        match contents.labels.of(row) {
            Some(known) if known.value == value => {
                checked.unchanged += 1;
                continue;
            }
            Some(known) if known.by != by => {
                let (label, by) = (known.value.clone(), known.by.clone());
                checked.conflicts.push(Conflict { id: id.clone(), label, by, now: value.clone() });
            }
            Some(_) => {}
            None => checked.fresh += 1,
        }
        checked.labels.push(Label { id, value, by: by.into(), at: now, file: String::new() });
    }
    Ok(checked)
}

/// One object of all that is new; none of nothing.
pub async fn keep(lake: &Lake, checked: Checked, now: Timestamp) -> Result<Imported> {
    let Checked { labels, fresh, empty, unchanged, unknown, conflicts } = checked;
    let object = if labels.is_empty() { None } else { Some(lake.keep(&labels, now).await?) };
    Ok(Imported { kept: labels.len(), fresh, object, empty, unchanged, unknown, conflicts })
}

impl Display for Imported {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { kept, fresh, object, empty, unchanged, unknown, conflicts } = self;
        match object {
            Some(object) => {
                writeln!(f, "{kept} labels are kept in {object}, {fresh} of them of samples that had none")?
            }
            None => writeln!(f, "nothing is kept: no row says anything new")?,
        }
        writeln!(
            f,
            "left out: {empty} rows without a label, {unchanged} that say what is known, {} of ids that are not there",
            unknown.len()
        )?;
        for id in unknown.iter().take(SHOWN) {
            writeln!(f, "  {id} is not in the data set")?;
        }
        if !conflicts.is_empty() {
            writeln!(f, "{} labels differ from what others said; the newest counts:", conflicts.len())?;
        }
        for Conflict { id, label, by, now } in conflicts.iter().take(SHOWN) {
            writeln!(f, "  {id}: {by} said {label}, now it is {now}")?;
        }
        let more = unknown.len().max(conflicts.len()) > SHOWN;
        if more { writeln!(f, "(all of them: -o json)") } else { Ok(()) }
    }
}
