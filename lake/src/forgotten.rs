//! Tombstones: rows of CSV that say which samples are to be there no more, who asked for that, and when. Pure.

use crate::labels::table;
use crate::{LakeError, is_id};
use jiff::Timestamp;

/// The columns of every file of tombstones.
pub const HEADER: [&str; 3] = ["id", "by", "at"];
/// In one file: collectors read it too, and take no large answers.
pub const MOST: usize = 1000;

/// The ids of a file; of its columns only `id` is needed.
///
/// # Errors
/// [`LakeError::Forgotten`] names the file, the line and what it needs. What cannot be read may be of any sample.
pub fn read(name: &str, bytes: &[u8]) -> Result<Vec<String>, LakeError> {
    let wrong = |why: String| LakeError::Forgotten { name: name.into(), why };
    // Spreadsheets write a mark.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let header = reader.headers().map_err(|error| wrong(error.to_string()))?;
    let place = header.iter().position(|column| column == HEADER[0]);
    let place = place.ok_or_else(|| wrong("no column id in its first line; need id,by,at".into()))?;
    let id = |record: csv::Result<csv::StringRecord>| {
        let record = record.map_err(|error| wrong(error.to_string()))?;
        let (line, id) = (record.position().map_or(0, csv::Position::line), record.get(place).unwrap_or_default());
        let lower = id.to_ascii_lowercase();
        if is_id(&lower) {
            Ok(lower)
        } else {
            Err(wrong(format!("line {line}: \"{id}\" is no id of a sample: 64 hexadecimal digits")))
        }
    };
    reader.records().map(id).collect()
}

/// As it is kept beside the samples.
pub fn write<'a>(ids: impl IntoIterator<Item = &'a String>, by: &str, at: Timestamp) -> Vec<u8> {
    table(&HEADER, ids.into_iter().map(|id| [id.clone(), by.to_owned(), at.to_string()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_wrong_is_told_with_its_line() {
        let ids = ['a', 'b'].map(|digit| digit.to_string().repeat(64));
        let written = write(&ids, "ann, of the shop", Timestamp::UNIX_EPOCH);
        assert_eq!(read("f", &written).unwrap(), ids);
        let by_hand = format!("\u{feff}at,id\n,{}\n", ids[1].to_uppercase());
        assert_eq!(read("f", by_hand.as_bytes()).unwrap(), ids[1..]);
        let check = |text: String, expected: &str| {
            let error = read("forgotten/f.csv", text.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, format!("forgotten/f.csv: {expected}"));
        };
        check(format!("{}\n", ids[0]), "no column id in its first line; need id,by,at");
        let no_id = "line 3: \"seven\" is no id of a sample: 64 hexadecimal digits";
        check(format!("id,by,at\n{},ann,\nseven,ann,\n", ids[0]), no_id);
    }
}
