//! The manifest of a shard: a Parquet file with a row for each sample. Columns go by name: more of them are no fault. Pure.

use crate::labels::Label;
use crate::{LakeError, is_id};
use bytes::Bytes;
use jiff::Timestamp;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::{Field, Row as Record};

/// What a sample may be: the last part of its file's name.
const MEDIA: [&str; 5] = ["jpg", "png", "wav", "npy", "json"];

/// What is known of a sample, as far as it is read again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// SHA-256 of its bytes, 64 hexadecimal digits.
    pub id: String,
    /// `jpg`, `png`, `wav`, `npy` or `json`.
    pub media: String,
    pub source: String,
    /// Samples of one group never stand on both sides of a split.
    pub group: String,
    /// When it was taken.
    pub time: Timestamp,
    /// That a sample like this one is kept, from 0 to 1.
    pub probability: f64,
    /// The best class, as the model that was asked had it.
    pub prediction: Option<i64>,
    pub score: Option<f64>,
    /// How far the best class was before the second.
    pub margin: Option<f64>,
    /// Where it is features: digest of the backbone that made them. It is no input of a model, then.
    pub backbone: Option<String>,
    /// That it came with: older than what people said later.
    pub label: Option<Label>,
    /// What was measured, where there is no file of it.
    pub content: Option<String>,
}

pub fn read(name: &str, bytes: Bytes) -> Result<Vec<Row>, LakeError> {
    let wrong = |why: String| LakeError::Manifest { name: name.into(), why };
    let unread = |error: ParquetError| wrong(error.to_string());
    let file = SerializedFileReader::new(bytes).map_err(unread)?;
    let records = file.get_row_iter(None).map_err(unread)?;
    records.map(|record| row(name, &record.map_err(unread)?).map_err(wrong)).collect()
}

fn row(name: &str, record: &Record) -> Result<Row, String> {
    let mut row = Row { probability: 1.0, ..Row::default() };
    let (mut value, mut by, mut at) = (None, None, Timestamp::UNIX_EPOCH);
    for (column, field) in record.get_column_iter() {
        match (column.as_str(), field) {
            ("id", Field::Str(text)) => row.id = text.clone(),
            ("media", Field::Str(text)) => row.media = text.clone(),
            ("source", Field::Str(text)) => row.source = text.clone(),
            ("group", Field::Str(text)) => row.group = text.clone(),
            ("time", field) => row.time = moment(field).unwrap_or_default(),
            ("probability", Field::Double(number)) => row.probability = *number,
            ("prediction", Field::Long(number)) => row.prediction = Some(*number),
            ("score", Field::Double(number)) => row.score = Some(*number),
            ("margin", Field::Double(number)) => row.margin = Some(*number),
            ("backbone", Field::Str(text)) => row.backbone = Some(text.clone()),
            ("label", Field::Str(text)) => value = Some(text.clone()),
            ("label_author", Field::Str(text)) => by = Some(text.clone()),
            ("label_time", field) => at = moment(field).unwrap_or_default(),
            ("content", Field::Str(text)) => row.content = Some(text.clone()),
            _ => {}
        }
    }
    if !is_id(&row.id) {
        return Err(format!("\"{}\" is no id of a sample", row.id));
    }
    if !MEDIA.contains(&&*row.media) {
        return Err(format!("the sample {} is of media \"{}\"; known are {}", row.id, row.media, MEDIA.join(", ")));
    }
    let (id, by, file) = (row.id.clone(), by.unwrap_or_default(), name.to_owned());
    row.label = value.map(|value| Label { id, value, by, at, file });
    Ok(row)
}

fn moment(field: &Field) -> Option<Timestamp> {
    match field {
        Field::TimestampMillis(millis) | Field::Long(millis) => Timestamp::from_millisecond(*millis).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_manifest_is_named() {
        let error = read("manifests/a.parquet", Bytes::from_static(b"PAR?")).unwrap_err().to_string();
        assert!(error.starts_with("manifests/a.parquet: no manifest of samples: "), "{error}");
    }
}
