//! A manifest, a tar or a table of labels without some samples: in all else as it was, to the byte what a collector would have packed
//! without them. Pure.

use crate::{ID, LakeError, rows};
use bytes::Bytes;
use parquet::basic::Compression;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::{ParquetError, Result as Parquet};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use std::collections::BTreeSet;
use std::io::{Error, ErrorKind, Read as _};
use std::sync::Arc;

/// What is left of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Without {
    /// None where nothing is left.
    pub bytes: Option<Vec<u8>>,
    pub taken: BTreeSet<String>,
    /// How many samples, or rows of labels.
    pub left: usize,
}

impl Without {
    /// None where nothing was taken.
    fn new(bytes: Vec<u8>, taken: BTreeSet<String>, left: usize) -> Option<Self> {
        let bytes = (left > 0).then_some(bytes);
        (!taken.is_empty()).then_some(Self { bytes, taken, left })
    }
}

/// Whether something of one of them may be in a file that is cut off: in a tar, a manifest and a table of ours its id stands before all else
/// that is of it.
pub fn names(bytes: &[u8], forgotten: &BTreeSet<String>) -> bool {
    let words = bytes.split(|byte| !byte.is_ascii_hexdigit());
    let mut ids = words.flat_map(|word| word.windows(ID)).filter_map(|id| str::from_utf8(id).ok());
    ids.any(|id| forgotten.contains(id))
}

/// None if it names none of them.
///
/// # Errors
/// [`LakeError::Manifest`].
pub fn manifest(name: &str, bytes: Bytes, forgotten: &BTreeSet<String>) -> Result<Option<Without>, LakeError> {
    let ids: Vec<String> = rows::read(name, bytes.clone())?.into_iter().map(|row| row.id).collect();
    let keep: Vec<bool> = ids.iter().map(|id| !forgotten.contains(id)).collect();
    let taken: BTreeSet<String> = ids.into_iter().filter(|id| forgotten.contains(id)).collect();
    if taken.is_empty() {
        return Ok(None);
    }
    let left = keep.iter().filter(|is_kept| **is_kept).count();
    let bytes = copied(bytes, &keep);
    let bytes = bytes.map_err(|error| LakeError::Manifest { name: name.into(), why: error.to_string() })?;
    Ok(Without::new(bytes, taken, left))
}

/// The rows that are kept, in the file's own schema.
fn copied(bytes: Bytes, keep: &[bool]) -> Parquet<Vec<u8>> {
    let from = SerializedFileReader::new(bytes)?;
    let known = from.metadata().file_metadata();
    let mut properties = WriterProperties::builder().set_compression(Compression::UNCOMPRESSED);
    if let Some(by) = known.created_by() {
        properties = properties.set_created_by(by.into());
    }
    let (schema, mut to) = (known.schema_descr().root_schema_ptr(), Vec::new());
    let mut file = SerializedFileWriter::new(&mut to, schema, Arc::new(properties.build()))?;
    let mut rest = keep;
    for number in 0..from.num_row_groups() {
        let group = from.get_row_group(number)?;
        let here;
        (here, rest) = rest.split_at(usize::try_from(group.metadata().num_rows())?.min(rest.len()));
        if !here.contains(&true) {
            continue;
        }
        let mut copy = file.next_row_group()?;
        for column in 0..group.num_columns() {
            let Some(mut into) = copy.next_column()? else { break };
            match group.get_column_reader(column)? {
                ColumnReader::ByteArrayColumnReader(from) => cells(from, &mut into, here)?,
                ColumnReader::DoubleColumnReader(from) => cells(from, &mut into, here)?,
                ColumnReader::Int64ColumnReader(from) => cells(from, &mut into, here)?,
                _ => return Err(unknown()),
            }
            into.close()?;
        }
        copy.close()?;
    }
    file.close()?;
    Ok(to)
}

fn cells<T: DataType>(
    mut from: ColumnReaderImpl<T>,
    into: &mut SerializedColumnWriter<'_>,
    keep: &[bool],
) -> Parquet<()> {
    let (mut present, mut levels) = (Vec::new(), Vec::new());
    from.read_records(keep.len(), Some(&mut levels), None, &mut present)?;
    // One level a row: each cell is there or not.
    if levels.len() != keep.len() || levels.iter().filter(|level| **level == 1).count() != present.len() {
        return Err(unknown());
    }
    let (mut present, mut values, mut kept) = (present.into_iter(), Vec::new(), Vec::new());
    for (level, is_kept) in levels.into_iter().zip(keep) {
        let value = if level == 1 { present.next() } else { None };
        if *is_kept {
            values.extend(value);
            kept.push(level);
        }
    }
    into.typed::<T>().write_batch(&values, Some(&kept), None)?;
    Ok(())
}

fn unknown() -> ParquetError {
    ParquetError::NYI("a column of a kind that no collector writes".into())
}

/// None if it holds none of them.
///
/// # Errors
/// [`LakeError::Tar`]: one that is cut off is left as it is.
pub fn tar(name: &str, bytes: &[u8], forgotten: &BTreeSet<String>) -> Result<Option<Without>, LakeError> {
    let cut = || -> std::io::Result<Option<Without>> {
        let (mut taken, mut left) = (BTreeSet::new(), BTreeSet::new());
        let mut to = tar::Builder::new(Vec::with_capacity(bytes.len()));
        for entry in tar::Archive::new(bytes).entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let file = path.to_string_lossy();
            // What has one name before the first dot is one sample.
            let id = file.split('.').next().unwrap_or_default().to_owned();
            if forgotten.contains(&id) {
                taken.insert(id);
                continue;
            }
            left.insert(id);
            let mut header = entry.header().clone();
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            if content.len() as u64 != header.size()? {
                return Err(Error::new(ErrorKind::UnexpectedEof, format!("{file} ends too soon")));
            }
            to.append_data(&mut header, &path, &content[..])?;
        }
        Ok(Without::new(to.into_inner()?, taken, left.len()))
    };
    cut().map_err(|error| LakeError::Tar { name: name.into(), why: error.to_string() })
}

/// None if it says nothing of them. Columns that people have added stay.
///
/// # Errors
/// [`LakeError::Labels`].
pub fn labels(name: &str, bytes: &[u8], forgotten: &BTreeSet<String>) -> Result<Option<Without>, LakeError> {
    let wrong = |why: String| LakeError::Labels { name: name.into(), why };
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::Reader::from_reader(bytes);
    let header = reader.headers().map_err(|error| wrong(error.to_string()))?.clone();
    let place = header.iter().position(|column| column.trim() == "id");
    let place = place.ok_or_else(|| wrong("no column id in its first line; need id,label with commas".into()))?;
    let (mut taken, mut left) = (BTreeSet::new(), 0);
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&header).map_err(|error| wrong(error.to_string()))?;
    for record in reader.records() {
        let record = record.map_err(|error| wrong(error.to_string()))?;
        let id = record.get(place).unwrap_or_default().trim();
        if forgotten.contains(id) {
            taken.insert(id.to_owned());
        } else {
            writer.write_record(&record).map_err(|error| wrong(error.to_string()))?;
            left += 1;
        }
    }
    Ok(Without::new(writer.into_inner().map_err(|error| wrong(error.to_string()))?, taken, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    #[test]
    fn a_table_of_labels_loses_a_row_and_nothing_else() {
        let (a, b) = (id('a'), id('b'));
        let text = format!("\u{feff}label,note,id\r\n\"a \"\"cat\"\"\",, {a} \r\n7,\"by, hand\",{b}\r\n");
        let of = |ids: &[&String]| labels("f", text.as_bytes(), &ids.iter().copied().cloned().collect()).unwrap();
        let bytes = Some(format!("label,note,id\n7,\"by, hand\",{b}\n").into_bytes());
        assert_eq!(of(&[&a]), Some(Without { bytes, taken: [a.clone()].into(), left: 1 }));
        assert_eq!(of(&[&a, &b]), Some(Without { bytes: None, taken: [a, b].into(), left: 0 }));
        assert_eq!(of(&[&id('c')]), None);
    }

    #[test]
    fn a_tar_that_is_cut_off_is_not_taken_for_a_shorter_one() {
        let mut builder = tar::Builder::new(Vec::new());
        for digit in ['a', 'b'] {
            let mut header = tar::Header::new_ustar();
            header.set_size(700);
            builder.append_data(&mut header, format!("{}.png", id(digit)), &[7; 700][..]).unwrap();
        }
        let whole = builder.into_inner().unwrap();
        let taken = tar("f", &whole, &[id('a')].into()).unwrap().unwrap();
        assert_eq!((taken.taken, taken.left), ([id('a')].into(), 1));
        assert_eq!(tar("f", &whole, &[id('c')].into()).unwrap(), None);
        for end in [900, 1536, 1536 + 900] {
            let error = tar("shards/a.tar", &whole[..end], &[id('a')].into());
            // Between two files it is a tar of fewer: the end is not asked for.
            assert_eq!(error.is_err(), end != 1536, "{end}: {error:?}");
        }
    }
}
