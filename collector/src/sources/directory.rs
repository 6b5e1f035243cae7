//! A folder: files that come into it are samples, and go once they are kept. A folder in it is a label; so is a row of labels.csv.

use crate::clock::Now;
use crate::counts::Drop;
use crate::door::{LARGEST, LONGEST};
use crate::intake::{Chosen, Intake, Taken, Took};
use crate::sample::Label;
use crate::store::Outcome;
use crate::watch::Changes;
use notify::RecursiveMode;
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file that is as long as it was so long ago is whole.
const SETTLED: Duration = Duration::from_millis(500);
/// Where files go that may not be kept; nobody looks into it.
const REFUSED: &str = ".refused";
/// So many of one name are kept there.
const ALIKE: usize = 10;
const LABELS: &str = "labels.csv";
/// Says of consent what holds for all files beside it, and in the folders there.
const CONSENT: &str = ".consent";

pub async fn run(folder: &Path, share: f64, intake: &Intake) {
    let mut changes = Changes::of(folder, RecursiveMode::Recursive);
    let mut lengths: BTreeMap<PathBuf, u64> = BTreeMap::new();
    loop {
        let files = files(folder);
        let settled = files.iter().filter(|(path, length)| lengths.get(*path) == Some(length));
        for (path, _) in settled {
            take(folder, path, share, intake).await;
        }
        let is_quiet = files == lengths;
        lengths = files;
        if is_quiet {
            changes.next().await;
        } else {
            tokio::time::sleep(SETTLED).await;
        }
    }
}

/// Those that may be samples, with their lengths: of the folder, and of the folders in it.
fn files(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let list = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_hidden = |path: &Path| path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    // A link is neither: it would lead out of the folder.
    let is_folder = |path: &Path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    list(folder)
        .flat_map(|path| if is_folder(&path) && !is_hidden(&path) { list(&path).collect() } else { vec![path] })
        .filter(|path| !is_hidden(path) && !path.ends_with(LABELS))
        .filter_map(|path| {
            let metadata = path.symlink_metadata().ok()?;
            metadata.is_file().then_some((path, metadata.len()))
        })
        .collect()
}

async fn take(folder: &Path, path: &Path, share: f64, intake: &Intake) {
    let file = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read(&file, LARGEST)).await.map_err(io::Error::other);
    let (content, seen) = match read.flatten() {
        Ok(Read::Whole(content, seen)) => (content, seen),
        Ok(Read::TooLarge(seen)) => {
            tracing::warn!(file = %path.display(), "put aside: larger than {LARGEST} bytes, which a sample may have");
            intake.keeper.refuse(Drop::TooLarge).await;
            return away(path, &seen, || aside(folder, path));
        }
        Err(error) => return tracing::warn!(file = %path.display(), %error, "cannot read a file"),
    };
    let camera = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = path.strip_prefix(folder).unwrap_or(path);
    let taken = Taken {
        content: content.into(),
        source: format!("directory:{camera}"),
        camera,
        group: None,
        label: label(folder, name),
        consent: consent(folder, path),
        chosen: Chosen::Share(share),
    };
    let took = intake.take(taken).await;
    match took {
        // It stays, and is tried again.
        took if took.is_worth_another_try() => {}
        Took::Stored(_, Outcome::Dropped(why)) => {
            tracing::warn!(file = %path.display(), why = why.name(), "put aside");
            away(path, &seen, || aside(folder, path));
        }
        Took::Stored(..) | Took::NotChosen | Took::Counted => away(path, &seen, || std::fs::remove_file(path)),
        Took::Refused(refusal) => {
            tracing::warn!(file = %path.display(), %refusal, "put aside");
            away(path, &seen, || aside(folder, path));
        }
    }
}

/// Which file it was, and as it was then.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    inode: (u64, u64),
    length: u64,
    changed: (i64, i64),
}

impl Seen {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

enum Read {
    Whole(Vec<u8>, Seen),
    TooLarge(Seen),
}

/// A file, and no link to one; of one that is larger than `most` nothing.
fn read(path: &Path, most: usize) -> io::Result<Read> {
    // A pipe that has come in its place is not waited for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let (seen, mut content) = (Seen::of(&metadata), Vec::new());
    // It may grow while it is read.
    let is_large = seen.length > most as u64 || file.take(most as u64 + 1).read_to_end(&mut content)? > most;
    Ok(if is_large { Read::TooLarge(seen) } else { Read::Whole(content, seen) })
}

fn aside(folder: &Path, path: &Path) -> io::Result<()> {
    let refused = folder.join(REFUSED);
    std::fs::create_dir_all(&refused)?;
    let name = refused.join(path.file_name().unwrap_or_default());
    // What was put aside before keeps its name; of more than a few under one name the newest takes the place of the first.
    let mut names = std::iter::once(name.clone()).chain((1..ALIKE).map(|at| name.with_added_extension(at.to_string())));
    let free = names.find(|name| name.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
    std::fs::rename(path, free.unwrap_or(name))
}

/// Takes a file away that was looked at; not another that has come under its name meanwhile.
fn away(path: &Path, seen: &Seen, how: impl FnOnce() -> io::Result<()>) {
    let is_the_same = path.symlink_metadata().is_ok_and(|metadata| Seen::of(&metadata) == *seen);
    if is_the_same && let Err(error) = how() {
        tracing::error!(file = %path.display(), %error, "a file that was taken stays; it is taken once");
    }
}

/// What the mark beside a file says.
fn consent(folder: &Path, path: &Path) -> Option<String> {
    match read(&path.parent().unwrap_or(folder).join(CONSENT), LONGEST) {
        Ok(Read::Whole(said, _)) => String::from_utf8(said).ok().map(|said| said.trim().to_owned()),
        Ok(Read::TooLarge(_)) | Err(_) => None,
    }
}

/// By a row `FILE,LABEL,AUTHOR` of the folder's labels.csv, or by the name of the folder that it is in.
fn label(folder: &Path, name: &Path) -> Option<Label> {
    let time = Now::read().wall;
    let table = match read(&folder.join(LABELS), LARGEST) {
        Ok(Read::Whole(table, _)) => String::from_utf8(table).unwrap_or_default(),
        Ok(Read::TooLarge(_)) | Err(_) => String::new(),
    };
    let table = table.trim_start_matches('\u{feff}').as_bytes();
    let mut rows = csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(table);
    let row = rows.records().flatten().find(|row| row.get(0).is_some_and(|file| name.to_str() == Some(file)));
    if row.as_ref().is_some_and(|row| row.iter().any(|cell| cell.len() > LONGEST)) {
        tracing::warn!(file = %name.display(), "no label: its row of {LABELS} has more than {LONGEST} bytes; is a quote left open?");
    }
    let cell = |number: usize| row.as_ref()?.get(number).filter(|text| (1..=LONGEST).contains(&text.len()));
    if let Some(value) = cell(1) {
        let author = cell(2).unwrap_or("csv").to_owned();
        return Some(Label { value: value.into(), author, source: "csv".into(), time });
    }
    let value = name.parent()?.to_str().filter(|value| !value.is_empty())?;
    Some(Label { value: value.into(), author: "folder".into(), source: "folder".into(), time })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const TABLE: &str = "\u{feff}file,label,author\na.png,seven,ann\nb.png, eight\n\"e.png\",\"cat, black\",\"ann\"\nf.png,\nnine/g.png,,\n";

    #[test]
    fn a_label_is_a_row_or_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(LABELS), TABLE).unwrap();
        let check = |name: &str, expected: Option<(&str, &str, &str)>| {
            let label = label(folder.path(), Path::new(name));
            let told = label.as_ref().map(|label| (label.value.as_str(), label.author.as_str(), label.source.as_str()));
            assert_eq!(told, expected, "{name}");
        };
        check("a.png", Some(("seven", "ann", "csv")));
        check("b.png", Some(("eight", "csv", "csv")));
        check("nine/c.png", Some(("nine", "folder", "folder")));
        check("d.png", None);
        check("e.png", Some(("cat, black", "ann", "csv")));
        check("f.png", None);
        check("nine/g.png", Some(("nine", "folder", "folder")));
    }

    #[test]
    fn a_link_leads_nowhere_and_what_is_too_large_is_not_read() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = other.path().join("secret.json");
        std::fs::write(&secret, "{}").unwrap();
        let (file, link) = (folder.path().join("a.json"), folder.path().join("b.json"));
        std::fs::write(&file, "[1]").unwrap();
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        std::os::unix::fs::symlink(other.path(), folder.path().join("seven")).unwrap();
        assert_eq!(files(folder.path()), BTreeMap::from([(file.clone(), 3)]));
        assert!(read(&link, 10).is_err());
        assert!(matches!(read(&file, 2), Ok(Read::TooLarge(_))));
        assert!(matches!(read(&file, 3), Ok(Read::Whole(content, _)) if content == b"[1]"));
    }

    #[test]
    fn what_is_put_aside_loses_nothing_that_lay_there() {
        let folder = tempfile::tempdir().unwrap();
        let (above, below) = (folder.path().join("a.exe"), folder.path().join("seven/a.exe"));
        std::fs::create_dir(folder.path().join("seven")).unwrap();
        for (path, content) in [(&above, "1"), (&below, "2"), (&above, "3")] {
            std::fs::write(path, content).unwrap();
            aside(folder.path(), path).unwrap();
        }
        let refused = folder.path().join(REFUSED);
        assert_eq!(std::fs::read_to_string(refused.join("a.exe")).unwrap(), "1");
        let lying = std::fs::read_dir(refused).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()));
        assert_eq!(lying.map(Result::unwrap).collect::<BTreeSet<_>>(), ["1", "2", "3"].map(String::from).into());
        for content in 4..20 {
            std::fs::write(&above, content.to_string()).unwrap();
            aside(folder.path(), &above).unwrap();
        }
        let refused = folder.path().join(REFUSED);
        assert_eq!(std::fs::read_dir(&refused).unwrap().count(), ALIKE);
        assert_eq!(std::fs::read_to_string(refused.join("a.exe")).unwrap(), "19", "the newest is there");
    }

    /// It was removed, and nobody had read it.
    #[test]
    fn a_file_that_came_in_the_place_of_another_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (file, next) = (folder.path().join("a.json"), folder.path().join(".a.json"));
        std::fs::write(&file, "[1]").unwrap();
        let Ok(Read::Whole(_, seen)) = read(&file, 10) else { panic!("it is read") };
        std::fs::write(&next, "[2]").unwrap();
        std::fs::rename(&next, &file).unwrap();
        away(&file, &seen, || std::fs::remove_file(&file));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "[2]");
        let Ok(Read::Whole(_, seen)) = read(&file, 10) else { panic!("it is read") };
        away(&file, &seen, || std::fs::remove_file(&file));
        assert!(!file.exists());
    }
}
