//! A folder: files that come into it are samples, and go once they are kept. A folder in it is a label; so is a row of labels.csv.

use crate::clock::Now;
use crate::intake::{Chosen, Intake, Taken, Took};
use crate::sample::Label;
use crate::store::Outcome;
use crate::watch::Changes;
use notify::RecursiveMode;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file that is as long as it was so long ago is whole.
const SETTLED: Duration = Duration::from_millis(500);
/// Where files go that may not be kept; nobody looks into it.
const REFUSED: &str = ".refused";
const LABELS: &str = "labels.csv";

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
    list(folder)
        .flat_map(|path| if path.is_dir() && !is_hidden(&path) { list(&path).collect() } else { vec![path] })
        .filter(|path| !is_hidden(path) && !path.ends_with(LABELS))
        .filter_map(|path| {
            let metadata = path.symlink_metadata().ok()?;
            metadata.is_file().then_some((path, metadata.len()))
        })
        .collect()
}

async fn take(folder: &Path, path: &Path, share: f64, intake: &Intake) {
    let content = match tokio::fs::read(path).await {
        Ok(content) => content,
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
        chosen: Chosen::Share(share),
    };
    let taken_away = match intake.take(taken).await {
        // It stays, and is tried again.
        Took::Stored(_, Outcome::Dropped(_)) => return,
        Took::Stored(..) | Took::NotChosen | Took::Counted => std::fs::remove_file(path),
        Took::Refused(refusal) => {
            tracing::warn!(file = %path.display(), %refusal, "put aside");
            let refused = folder.join(REFUSED);
            std::fs::create_dir_all(&refused)
                .and_then(|()| std::fs::rename(path, refused.join(path.file_name().unwrap_or_default())))
        }
    };
    if let Err(error) = taken_away {
        tracing::error!(file = %path.display(), %error, "a file that was taken stays; it is taken once");
    }
}

/// By a row `FILE,LABEL,AUTHOR` of the folder's labels.csv, or by the name of the folder that it is in.
fn label(folder: &Path, name: &Path) -> Option<Label> {
    let time = Now::read().wall;
    let table = std::fs::read_to_string(folder.join(LABELS)).unwrap_or_default();
    let row = table.lines().find_map(|line| {
        let mut cells = line.split(',').map(str::trim);
        (cells.next()? == name.to_str()?).then(|| (cells.next(), cells.next()))
    });
    if let Some((Some(value), author)) = row {
        let author = author.unwrap_or("csv").to_owned();
        return Some(Label { value: value.into(), author, source: "csv".into(), time });
    }
    let value = name.parent()?.to_str().filter(|value| !value.is_empty())?;
    Some(Label { value: value.into(), author: "folder".into(), source: "folder".into(), time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_row_or_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(LABELS), "file,label,author\na.png,seven,ann\nb.png, eight\n").unwrap();
        let check = |name: &str, expected: Option<(&str, &str, &str)>| {
            let label = label(folder.path(), Path::new(name));
            let told = label.as_ref().map(|label| (label.value.as_str(), label.author.as_str(), label.source.as_str()));
            assert_eq!(told, expected, "{name}");
        };
        check("a.png", Some(("seven", "ann", "csv")));
        check("b.png", Some(("eight", "csv", "csv")));
        check("nine/c.png", Some(("nine", "folder", "folder")));
        check("d.png", None);
    }
}
