//! What must not leave any more: samples of which the place that they go to has tombstones, `forgotten/NAME.csv` with a column `id`.

use crate::destination::{Destination, DestinationError, Listed};
use crate::sample::Id;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};

const FOLDER: &str = "forgotten";

#[derive(thiserror::Error, Debug)]
pub enum ForgottenError {
    #[error(
        "cannot read what is forgotten; whoever sends samples has to list and read {FOLDER}/ where they go, and no file there may have more than 1 MiB"
    )]
    Destination(#[from] DestinationError),
    #[error("{name}: {why}")]
    Table { name: String, why: String },
}

/// The tombstones of a place. Each file is read once, and again when somebody has changed it.
#[derive(Default)]
pub struct Forgotten {
    files: BTreeMap<Listed, Vec<Id>>,
}

impl Forgotten {
    /// The ids of all that is forgotten there by now.
    ///
    /// # Errors
    /// [`ForgottenError`]: what cannot be read may be of any sample, so none may leave.
    pub async fn read(&mut self, place: &dyn Destination) -> Result<HashSet<Id>, ForgottenError> {
        let mut files = place.list(FOLDER).await?;
        files.retain(|Listed { name, .. }| name.ends_with(".csv") && !name.starts_with('.'));
        self.files.retain(|file, _| files.contains(file));
        for file in files {
            if let Entry::Vacant(unread) = self.files.entry(file) {
                let name = format!("{FOLDER}/{}", unread.key().name);
                let table = place.get(&name).await?;
                unread.insert(ids(&table).map_err(|why| ForgottenError::Table { name, why })?);
            }
        }
        Ok(self.files.values().flatten().copied().collect())
    }
}

/// The column `id` of a table.
fn ids(table: &[u8]) -> Result<Vec<Id>, String> {
    // Spreadsheets write a mark.
    let table = table.strip_prefix(b"\xef\xbb\xbf").unwrap_or(table);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(table);
    let header = reader.headers().map_err(|error| error.to_string())?;
    let place = header.iter().position(|column| column == "id").ok_or("no column id in its first line")?;
    let id = |record: csv::Result<csv::StringRecord>| {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        record.get(place).unwrap_or_default().parse().map_err(|error| format!("line {line}: {error}"))
    };
    reader.records().map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::{Folder, Pace};

    #[tokio::test]
    async fn what_lies_there_holds_and_what_cannot_be_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (place, mut forgotten) = (Folder::new(folder.path().into(), Pace::default()), Forgotten::default());
        assert_eq!(forgotten.read(&place).await.unwrap(), HashSet::new(), "nothing was ever forgotten");
        let [seven, eight] = [Id::of(b"seven"), Id::of(b"eight")];
        place.put("forgotten/a.csv", format!("id,by,at\n{seven},ann,\n").into()).await.unwrap();
        let by_hand = format!("\u{feff}at,id\n,{}\n", eight.to_string().to_uppercase());
        place.put("forgotten/b.csv", by_hand.into()).await.unwrap();
        assert_eq!(forgotten.read(&place).await.unwrap(), [seven, eight].into());
        // By hand, under the same name; what lies in folders below is passed over.
        let nine = Id::of(b"nine");
        std::fs::write(folder.path().join("forgotten/b.csv"), format!("id\n{nine}\n{eight}\n")).unwrap();
        place.put("forgotten/old.csv/c.csv", "seven".into()).await.unwrap();
        assert_eq!(forgotten.read(&place).await.unwrap(), [seven, eight, nine].into());
        std::fs::remove_file(folder.path().join("forgotten/b.csv")).unwrap();
        assert_eq!(forgotten.read(&place).await.unwrap(), [seven].into());
        place.put("forgotten/c.csv", "id,by,at\nseven,ann,\n".into()).await.unwrap();
        let error = forgotten.read(&place).await.unwrap_err().to_string();
        let expected = "forgotten/c.csv: line 2: an id is 64 hexadecimal digits, the SHA-256 of the sample's bytes";
        assert_eq!(error, expected);
    }
}
