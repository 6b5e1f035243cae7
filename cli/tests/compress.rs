//! `sconce compress` as people run it: a shell stands in for the trainer, and runs the script `compress` of its folder.

#![allow(clippy::unwrap_used, reason = "in tests")]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// With `sconce` in `bin`, and no trainer yet.
fn folder() -> TempDir {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::create_dir(folder.path().join("bin")).unwrap();
    std::fs::create_dir(folder.path().join("path")).unwrap();
    std::fs::hard_link(env!("CARGO_BIN_EXE_sconce"), folder.path().join("bin/sconce")).unwrap();
    std::fs::write(folder.path().join("compress"), "printf '%s\\n' \"$0\" \"$@\"\nexit 3\n").unwrap();
    folder
}

/// Exit code, what it says, and its errors.
fn run(folder: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let mut sconce = Command::new(folder.join("bin/sconce"));
    let output = sconce.current_dir(folder).env("PATH", folder.join("path")).arg("compress").args(words).output();
    let output = output.unwrap();
    let [said, errors] = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
    (output.status.code(), said, errors)
}

#[test]
fn the_trainer_beside_it_or_on_the_path_gets_the_words_and_says_how_it_ends() {
    for place in ["bin", "path"] {
        let folder = folder();
        symlink("/bin/sh", folder.path().join(place).join("sconce-trainer")).unwrap();
        let check = |words: &[&str]| {
            let expected: String = ["compress"].iter().chain(words).map(|word| format!("{word}\n")).collect();
            assert_eq!(run(folder.path(), words), (Some(3), expected, String::new()), "{place}: {words:?}");
        };
        check(&["--help"]);
        check(&["--data", "my files", "digits", "training.yaml", "--insecure-registry", "a:1"]);
    }
}

#[test]
fn the_trainer_beside_it_comes_before_the_paths() {
    let folder = folder();
    symlink("/bin/sh", folder.path().join("bin/sconce-trainer")).unwrap();
    symlink("/bin/false", folder.path().join("path/sconce-trainer")).unwrap();
    assert_eq!(run(folder.path(), &[]).0, Some(3));
}

#[test]
fn without_a_trainer_it_is_said_what_to_install() {
    let (code, said, errors) = run(folder().path(), &["--help"]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(
        errors.contains("sconce-trainer does this, and is neither beside this program nor on the PATH: install it"),
        "{errors}"
    );
}
