//! The API server accepts and refuses what the in-process rules accept and refuse: one table, two judges.

use crate::suite::bed;
use anyhow::{Context as _, Result};
use sconce_e2e::{NAMESPACE, root};

#[tokio::test]
async fn api_server_judges_the_admission_table_as_we_do() -> Result<()> {
    let bed = bed().await?;
    let folder = root().join("api/tests/admission");
    let mut judged = 0;
    for verdict in ["accepted", "refused"] {
        for entry in std::fs::read_dir(folder.join(verdict))? {
            let file = entry?.path();
            let text = std::fs::read_to_string(&file)?;
            let case = file.file_name().context("a file has a name")?.to_string_lossy().into_owned();
            let documents: Vec<&str> = text.split("\n---\n").collect();
            let (last, before) = documents.split_last().context("a split has a part")?;
            for old in before {
                let (accepted, _, stderr) = create(&bed, old, false).await?;
                assert!(accepted, "{case}: its first document: {stderr}");
            }
            // An update is judged against what is stored; a creation needs no trace.
            let (accepted, _, stderr) = create(&bed, last, before.is_empty()).await?;
            for old in before {
                bed.kubectl()
                    .args(["delete", "-n", NAMESPACE, "--ignore-not-found", "-f", "-"])
                    .input(*old)
                    .output()
                    .await?;
            }
            let wanted = text.lines().next().and_then(|line| line.strip_prefix("# refused: "));
            match wanted {
                None => assert!(accepted, "{case} should be accepted: {stderr}"),
                Some(part) => assert!(
                    !accepted && stderr.contains(part.trim()),
                    "{case} should be refused with `{part}`: {stderr}"
                ),
            }
            judged += 1;
        }
    }
    assert!(judged >= 10, "only {judged} cases");
    Ok(())
}

async fn create(bed: &sconce_e2e::Bed, document: &str, dry_run: bool) -> Result<(bool, String, String)> {
    let mut apply = bed.kubectl().args([
        "apply",
        "--server-side",
        "--force-conflicts",
        "--validate=strict",
        "-n",
        NAMESPACE,
        "-f",
        "-",
    ]);
    if dry_run {
        apply = apply.arg("--dry-run=server");
    }
    apply.input(document).try_output().await
}
