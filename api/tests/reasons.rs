//! `docs/reasons.md` is the table of reasons. `SCONCE_UPDATE=1 cargo test --release -p sconce-api` writes it anew.

#![allow(clippy::unwrap_used)]

use sconce_api::Reason;
use std::collections::BTreeSet;
use std::path::Path;

fn table() -> String {
    let mut text = "# Reasons\n\n*Answers: what does the reason of a condition, a decision or a rejection mean?*\n\nGenerated from \
        `api/src/reasons.rs`: no other reason is ever given. Of the filters of a placement the first that fails is the\n\
        reason, in the order of this table.\n\n| reason | says |\n|---|---|\n"
        .to_owned();
    for (reason, says) in Reason::ALL {
        text += &format!("| `{reason}` | {} |\n", says.trim());
    }
    text
}

#[test]
fn the_documented_table_is_that_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reasons.md");
    if std::env::var_os("SCONCE_UPDATE").is_some() {
        std::fs::write(&file, table()).unwrap();
    }
    let shipped = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(shipped == table(), "docs/reasons.md is stale: run SCONCE_UPDATE=1 cargo test --release -p sconce-api");
}

#[test]
fn every_reason_has_one_name_and_a_sentence() {
    let names: BTreeSet<_> = Reason::ALL.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
    for (reason, says) in Reason::ALL {
        assert!(says.trim().ends_with('.') && says.trim().len() > 10, "{reason}: {says}");
        assert!(reason.as_str().chars().all(|c| c.is_ascii_alphabetic()), "{reason}");
    }
}
