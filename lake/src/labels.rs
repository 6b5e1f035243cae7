//! What people say of samples: rows of CSV, the newest of an id counts. Pure.

use crate::rows::Row;
use crate::{LakeError, is_id};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// The first columns of every file of labels.
pub const HEADER: [&str; 4] = ["id", "label", "by", "at"];
/// Of a label, or of who said it, in bytes.
pub const LONGEST: usize = 256;

/// What a sample shows, who said so, when, and where that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub id: String,
    pub value: String,
    pub by: String,
    pub at: Timestamp,
    pub file: String,
}

/// A row as somebody filled it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Of the file, from 1.
    pub line: u64,
    pub id: String,
    /// Absent = nobody has said.
    pub label: Option<String>,
    pub by: Option<String>,
    pub at: Option<Timestamp>,
}

/// People who say different things of one sample; the newest of each, the newest first: it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub labels: Vec<Label>,
}

/// What was said of samples after they were sent, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// The newest of each person, the newest first.
    by_id: BTreeMap<String, Vec<Label>>,
}

impl Labels {
    pub fn new(all: impl IntoIterator<Item = Label>) -> Self {
        let mut by_id: BTreeMap<String, Vec<Label>> = BTreeMap::new();
        for label in all {
            by_id.entry(label.id.clone()).or_default().push(label);
        }
        for labels in by_id.values_mut() {
            // Of the same moment, an order that no listing decides.
            labels.sort_by(|one, other| (other.at, &other.by, &other.value).cmp(&(one.at, &one.by, &one.value)));
            let mut seen = Vec::new();
            labels.retain(|label| {
                let is_new = !seen.contains(&label.by);
                seen.push(label.by.clone());
                is_new
            });
        }
        Self { by_id }
    }

    /// What counts: the newest that was said later, else what the sample came with.
    pub fn of<'a>(&'a self, row: &'a Row) -> Option<&'a Label> {
        self.by_id.get(&row.id).and_then(|labels| labels.first()).or(row.label.as_ref())
    }

    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.by_id.keys().map(String::as_str)
    }

    pub fn conflicts(&self) -> impl Iterator<Item = Conflict> {
        let differ = |labels: &&Vec<Label>| labels.iter().any(|label| label.value != labels[0].value);
        self.by_id.values().filter(differ).map(|labels| Conflict { labels: labels.clone() })
    }
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said: Vec<String> = self.labels.iter().map(|label| format!("{} says {}", label.by, label.value)).collect();
        let id = self.labels.first().map_or("", |label| label.id.as_str());
        write!(f, "{id}: {}", said.join(", "))
    }
}

/// A file with the columns `id` and `label`, perhaps `by` and `at`, in any order, among any others.
///
/// # Errors
/// [`LakeError::Labels`] names the file, the line and what it needs.
pub fn read(name: &str, bytes: &[u8]) -> Result<Vec<Given>, LakeError> {
    let wrong = |why: String| LakeError::Labels { name: name.into(), why };
    // Spreadsheets write a mark of UTF-8 before the first column.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let header = reader.headers().map_err(|error| wrong(error.to_string()))?.clone();
    let place = |column: &str| header.iter().position(|name| name == column);
    let needed = |column: &str| {
        let told: Vec<&str> = header.iter().collect();
        place(column).ok_or_else(|| {
            wrong(format!("no column {column} in its first line, \"{}\"; need id,label with commas", told.join(",")))
        })
    };
    let (id, label, by, at) = (needed("id")?, needed("label")?, place("by"), place("at"));
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| wrong(error.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |place: usize| record.get(place).filter(|cell| !cell.is_empty()).map(str::to_owned);
        let on_line = |why: String| wrong(format!("line {line}: {why}"));
        let id = cell(id).unwrap_or_default();
        if !is_id(&id) {
            return Err(on_line(format!("\"{id}\" is no id of a sample: 64 hexadecimal digits")));
        }
        let (label, by) = (cell(label), by.and_then(cell));
        if let Some(long) = [&label, &by].into_iter().flatten().find(|text| text.len() > LONGEST) {
            return Err(on_line(format!("{} bytes of text; at most {LONGEST} are taken", long.len())));
        }
        let moment = |text: String| {
            text.parse().map_err(|_| on_line(format!("at is \"{text}\"; need a time such as 2026-11-28T12:00:00Z")))
        };
        rows.push(Given { line, id, label, by, at: at.and_then(cell).map(moment).transpose()? });
    }
    Ok(rows)
}

/// As it is kept beside the samples.
pub fn write(labels: &[Label]) -> Vec<u8> {
    let rows =
        labels.iter().map(|Label { id, value, by, at, .. }| [id.clone(), value.clone(), by.clone(), at.to_string()]);
    table(&HEADER, rows)
}

/// A CSV file: a first line with the names of columns, then rows of as many cells.
pub fn table<const N: usize>(header: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(header).expect("memory takes what is written, and rows are as long as the header");
    for row in rows {
        writer.write_record(row).expect("memory takes what is written, and rows are as long as the header");
    }
    writer.into_inner().expect("memory takes what is written")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(id: char, value: &str, by: &str, second: i64) -> Label {
        let at = Timestamp::from_second(second).unwrap();
        Label { id: id.to_string().repeat(64), value: value.into(), by: by.into(), at, file: "f".into() }
    }

    #[test]
    fn the_newest_counts_and_people_who_differ_are_told() {
        let said = [
            label('a', "1", "ann", 10),
            label('a', "7", "ann", 20),
            label('a', "1", "bob", 15),
            label('b', "3", "ann", 10),
            label('b', "4", "ann", 12),
            label('c', "5", "ann", 1),
            label('c', "5", "bob", 1),
        ];
        let [labels, again] = [Labels::new(said.clone()), Labels::new(said.iter().rev().cloned())];
        assert_eq!(labels, again, "in whatever order they are read");
        let row = |id: char, label| Row { id: id.to_string().repeat(64), label, ..Row::default() };
        let own = label('a', "9", "http", 99);
        assert_eq!(labels.of(&row('a', Some(own))).unwrap().value, "7", "what a sample came with is the oldest");
        assert_eq!(labels.of(&row('b', None)).unwrap().value, "4");
        assert_eq!(labels.of(&row('d', Some(label('d', "2", "http", 0)))).unwrap().value, "2");
        assert_eq!(labels.of(&row('e', None)), None);
        let conflicts: Vec<String> = labels.conflicts().map(|conflict| conflict.to_string()).collect();
        assert_eq!(conflicts, [format!("{}: ann says 7, bob says 1", "a".repeat(64))]);
    }

    #[test]
    fn what_is_written_is_read_and_so_is_what_spreadsheets_write() {
        let said = [label('a', "a \"cat\", or two", "ann", 10), label('b', "7", "bob", 11)];
        let given = |label: &Label, line| Given {
            line,
            id: label.id.clone(),
            label: Some(label.value.clone()),
            by: Some(label.by.clone()),
            at: Some(label.at),
        };
        assert_eq!(read("f", &write(&said)).unwrap(), [given(&said[0], 2), given(&said[1], 3)]);
        let a = "a".repeat(64);
        let table = format!("\u{feff}label,score,id\r\n 7 ,0.5,{a}\r\n,0.5,{a}\r\n");
        let rows = read("f", table.as_bytes()).unwrap();
        assert_eq!((rows[0].label.as_deref(), rows[0].id.as_str(), &rows[0].by), (Some("7"), a.as_str(), &None));
        assert_eq!(rows[1].label, None);
    }

    #[test]
    fn a_wrong_file_is_told_with_its_line() {
        let a = "a".repeat(64);
        let check = |text: String, expected: &str| {
            let error = read("labels/f.csv", text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("labels/f.csv: ") && error.contains(expected), "{error}");
        };
        check(format!("id;label\n{a};7\n"), "no column id in its first line, \"id;label\"; need id,label with commas");
        check(format!("id,label\n{a},7\n../../etc/passwd,7\n"), "line 3: \"../../etc/passwd\" is no id of a sample");
        check(format!("id,label,at\n{a},7,yesterday\n"), "line 2: at is \"yesterday\"; need a time such as");
        check(format!("id,label\n{a},{}\n", "7".repeat(257)), "line 2: 257 bytes of text; at most 256");
        check(format!("id,label\n{a},7,8\n"), "3 fields");
    }
}
