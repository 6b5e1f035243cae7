//! Each room uses only the effects that it may use. A word of this table in the wrong room fails, with the room's name.

use std::path::{Path, PathBuf};

/// Room, what it never says, and why.
const ROOMS: &[(&str, &[&str], &str)] = &[
    ("observe", &["Patch", "PatchParams"], "it reads; `apply` writes"),
    ("page", &["Patch", "PatchParams", "Api", "Client"], "it shows what others decided; there is nothing to press"),
    ("render", PURE, "it says what is to be written; `apply` writes it"),
    ("status", PURE, "it says what is so; the time comes with the world"),
    ("pass", PURE, "it is a function of what is observed; `controller` does what it says"),
    (
        "plan",
        &[
            ".await",
            "async ",
            "kube::",
            "k8s_openapi",
            "tokio",
            "Instant",
            "SystemTime",
            "Timestamp",
            "now()",
            "tracing",
            "HashMap",
            "HashSet",
            "f32",
            "f64",
            "rand",
            "println!",
            "std::fs",
            "std::env",
        ],
        "it is pure: values in, values out, integers only, ordered maps only",
    ),
];

const PURE: &[&str] = &[".await", "Client", "now()", "SystemTime", "tokio", "tracing"];

#[test]
fn rooms_keep_to_their_words() {
    let mut found = Vec::new();
    for (room, words, why) in ROOMS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room);
        let files = sources(&folder);
        assert!(!files.is_empty(), "there is no room {}", folder.display());
        for file in files.iter().filter(|file| !is_test(file.strip_prefix(&folder).unwrap())) {
            let text = std::fs::read_to_string(file).unwrap();
            for (number, line) in text.lines().enumerate() {
                // Unit tests end a file, and comments may say what they like.
                if line == "mod tests {" {
                    break;
                }
                let code = line.split("//").next().unwrap_or_default();
                for word in words.iter().filter(|word| says(code, word)) {
                    let file = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display();
                    found.push(format!("{file}:{}: room `{room}` never says `{word}`: {why}", number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Whole words only, outside of string literals such as the name of a variant.
fn says(code: &str, word: &str) -> bool {
    let outside: String = code.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let letter = |c: char| c.is_alphanumeric() || c == '_';
    outside.match_indices(word).any(|(at, _)| {
        let starts = !word.starts_with(letter) || !outside[..at].ends_with(letter);
        let ends = !word.ends_with(letter) || !outside[at + word.len()..].starts_with(letter);
        starts && ends
    })
}

fn is_test(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name == "tests.rs") || file.components().any(|part| part.as_os_str() == "tests")
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("a folder that can be read").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn words_are_found_whole_and_outside_of_strings() {
    assert!(says("let x: f32 = 1.0;", "f32"));
    assert!(says("use kube::Client;", "kube::"));
    assert!(!says(r#"let name = "f32";"#, "f32"));
    assert!(!says("let operand = random_walk;", "rand"));
    assert!(says("thing.await?", ".await"));
}
