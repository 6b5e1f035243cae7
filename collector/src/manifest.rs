//! The manifest of a shard: a Parquet file with a row for each sample. Pure.

use crate::sample::{Answer, Label, Sample};
use bytes::Bytes;
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};
use std::sync::Arc;

/// A row.
pub struct Row<'a> {
    pub sample: &'a Sample,
    /// What was measured, where there is no file of it in a shard.
    pub content: Option<&'a Bytes>,
}

type Text = fn(&Row<'_>) -> Option<String>;
type Number = fn(&Row<'_>) -> Option<f64>;
type Whole = fn(&Row<'_>) -> Option<i64>;

enum Column {
    Text(Text),
    Number(Number),
    Whole(Whole),
    /// Milliseconds since 1970, UTC.
    Time(Whole),
}

fn answer(row: &Row<'_>) -> Option<Answer> {
    row.sample.answer.clone()
}

fn label(row: &Row<'_>) -> Option<Label> {
    row.sample.label.clone()
}

/// All may be null, so that a reader of many manifests meets one schema.
const COLUMNS: &[(&str, Column)] = &[
    ("id", Column::Text(|row| Some(row.sample.id.to_string()))),
    ("media", Column::Text(|row| Some(row.sample.media.extension().into()))),
    ("source", Column::Text(|row| Some(row.sample.source.clone()))),
    ("group", Column::Text(|row| Some(row.sample.group.clone()))),
    ("time", Column::Time(|row| Some(row.sample.taken.wall.as_millisecond()))),
    ("boot", Column::Text(|row| Some(row.sample.taken.boot.clone()))),
    ("since_boot_ms", Column::Whole(|row| i64::try_from(row.sample.taken.since_boot).ok())),
    ("why", Column::Text(|row| Some(format!("{:?}", row.sample.why)))),
    ("probability", Column::Number(|row| Some(row.sample.probability))),
    ("model", Column::Text(|row| Some(answer(row)?.model))),
    ("version", Column::Text(|row| Some(answer(row)?.version))),
    ("tier", Column::Text(|row| Some(answer(row)?.tier))),
    ("prediction", Column::Whole(|row| i64::try_from(answer(row)?.prediction?).ok())),
    ("score", Column::Number(|row| answer(row)?.score)),
    ("margin", Column::Number(|row| answer(row)?.margin)),
    ("backbone", Column::Text(|row| answer(row)?.backbone)),
    ("label", Column::Text(|row| Some(label(row)?.value))),
    ("label_author", Column::Text(|row| Some(label(row)?.author))),
    ("label_source", Column::Text(|row| Some(label(row)?.source))),
    ("label_time", Column::Time(|row| Some(label(row)?.time.as_millisecond()))),
    ("consent", Column::Text(|row| row.sample.consent.clone())),
    ("policy", Column::Text(|row| Some(row.sample.policy.clone()))),
    ("redactions", Column::Text(|row| Some(row.sample.redactions.join("; ")))),
    ("content", Column::Text(|row| row.content.map(|content| String::from_utf8_lossy(content).into_owned()))),
];

fn schema() -> Result<TypePtr> {
    let field = |(name, column): &(&str, Column)| {
        let (physical, logical) = match column {
            Column::Text(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Column::Number(_) => (Physical::DOUBLE, None),
            Column::Whole(_) => (Physical::INT64, None),
            Column::Time(_) => {
                let unit = parquet::basic::TimeUnit::MILLIS;
                (Physical::INT64, Some(LogicalType::timestamp(true, unit)))
            }
        };
        let field = Type::primitive_type_builder(name, physical);
        Ok(Arc::new(field.with_repetition(Repetition::OPTIONAL).with_logical_type(logical).build()?))
    };
    let fields = COLUMNS.iter().map(field).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(Type::group_type_builder("sample").with_fields(fields).build()?))
}

/// The file; equal rows give equal bytes.
///
/// # Errors
/// If Parquet's own rules are broken: never by what a sample says.
pub fn manifest(rows: &[Row<'_>]) -> Result<Vec<u8>> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_created_by("sconce-collector".into())
        .build();
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, schema()?, Arc::new(properties))?;
    let mut group = file.next_row_group()?;
    for (_, column) in COLUMNS {
        match column {
            Column::Text(text) => {
                write::<ByteArrayType>(&mut group, rows, |row| Some(ByteArray::from(text(row)?.into_bytes())))?
            }
            Column::Number(number) => write::<DoubleType>(&mut group, rows, number)?,
            Column::Whole(whole) | Column::Time(whole) => write::<Int64Type>(&mut group, rows, whole)?,
        }
    }
    group.close()?;
    file.close()?;
    Ok(bytes)
}

fn write<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>,
    rows: &[Row<'_>],
    value: impl Fn(&Row<'_>) -> Option<T::T>,
) -> Result<()> {
    let values: Vec<Option<T::T>> = rows.iter().map(value).collect();
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let present: Vec<T::T> = values.into_iter().flatten().collect();
    if let Some(mut column) = group.next_column()? {
        column.typed::<T>().write_batch(&present, Some(&levels), None)?;
        column.close()?;
    }
    Ok(())
}
