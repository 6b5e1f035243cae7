//! The README's commands work. One that this does not know fails here, so that none is documented untried.

use crate::suite::{bed, training};
use anyhow::{Context as _, Result, bail, ensure};
use sconce_e2e::{Bed, Command, program, root};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// The indented commands, without prompts, comments and line ends.
fn commands(readme: &str) -> Vec<String> {
    let mut fenced = false;
    let mut commands: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in readme.lines() {
        fenced ^= line.starts_with("```");
        let Some(line) = line.strip_prefix("    ").filter(|_| !fenced) else { continue };
        let line = line.trim_start_matches("$ ").split(" #").next().unwrap_or_default().trim();
        let text = line.trim_end_matches('\\').trim();
        match commands.last_mut().filter(|_| goes_on) {
            Some(last) => *last = format!("{last} {text}"),
            None => commands.push(text.to_owned()),
        }
        goes_on = line.ends_with('\\');
    }
    commands
}

async fn try_out(bed: &Bed, command: &str) -> Result<()> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let example = |word: &&str| match *word {
        "NODE" => "cloud-1".to_owned(),
        file if file.ends_with(".yaml") => root().join("examples/digits").join(file).display().to_string(),
        word => word.to_owned(),
    };
    match words.as_slice() {
        // What they do is tested elsewhere, or is this very run.
        ["make", rest @ ..] => Command::new("make").arg("-C").arg(root()).arg("-n").args(rest).output().await?,
        ["kubectl", "apply", rest @ ..] => {
            bed.kubectl().args(["apply", "--dry-run=server"]).args(rest.iter().map(example)).output().await?
        }
        ["kubectl", "port-forward", rest @ ..] => {
            let forward = bed.kubectl().arg("port-forward").args(rest.iter().map(example));
            let port = words.last().copied().unwrap_or_default();
            page(forward, port).await?
        }
        ["kubectl", rest @ ..] => bed.kubectl().args(rest.iter().map(example)).output().await?,
        ["helm", "install", name, chart, rest @ ..] => {
            bed.helm().args(["template", name]).arg(root().join(chart)).args(rest).output().await?
        }
        ["helm", "upgrade", name, chart, rest @ ..] => {
            let upgrade = bed.helm().args(["upgrade", name]).arg(root().join(chart)).args(rest);
            upgrade.arg("--dry-run=server").output().await?
        }
        ["helm", rest @ ..] => bed.helm().args(rest).output().await?,
        // A bucket and what came into it: collector/tests/loop.rs goes all round.
        ["sconce", "data", verb, ..] => bed.sconce()?.args(["data", verb, "--help"]).output().await?,
        ["sconce", rest @ ..] => bed.sconce()?.args(rest.iter().map(example)).output().await?,
        ["sconce-trainer", "train", _, rest @ ..] => {
            // The suite's own recipe: as the example's, with fewer samples.
            let folder = tempfile::tempdir()?;
            let recipe = root().join("e2e/training.yaml");
            let rest = rest.iter().map(|word| match *word {
                "digits" => folder.path().join("digits").into_os_string(),
                word => word.into(),
            });
            Command::new(program("sconce-trainer")?).arg("train").arg(recipe).args(rest).output().await?
        }
        ["sconce-trainer", "publish", "digits", uri] => {
            let uri = uri.replace("registry.example.com", &bed.registry_outside());
            Command::new(program("sconce-trainer")?).arg("publish").arg(&training().artifact).arg(uri).output().await?
        }
        // K3s is not here.
        ["k3s", "agent", ..] => return Ok(()),
        _ => bail!("the README says `{command}`, and no test knows how to try it"),
    };
    println!("tried: {command}");
    Ok(())
}

/// What the operator's page begins with, asked while its port is forwarded.
async fn page(forward: Command, port: &str) -> Result<String> {
    let mut forwarding = forward.begin()?;
    forwarding.says().await?;
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    let mut answer = BufReader::new(stream).lines();
    let mut said = Vec::new();
    while let Some(line) = answer.next_line().await.with_context(|| format!("the page broke off: {said:#?}"))? {
        said.push(line);
        if said.iter().any(|line| line == "<!doctype html>") {
            ensure!(said[0].ends_with("200 OK"), "no page: {said:#?}");
            return Ok(said.join("\n"));
        }
    }
    bail!("no page: {said:#?}")
}

#[tokio::test]
async fn readme_says_what_works() -> Result<()> {
    let bed = bed().await?;
    let readme = std::fs::read_to_string(root().join("README.md"))?;
    let commands = commands(&readme);
    for wanted in ["make demo", "make test"] {
        assert!(commands.iter().any(|command| command == wanted), "the README's two commands: {commands:#?}");
    }
    for command in &commands {
        try_out(&bed, command).await.with_context(|| format!("README: {command}"))?;
    }
    let example = readme.split("```yaml").nth(1).and_then(|rest| rest.split("```").next());
    let example = example.context("the README shows an EdgeModel")?;
    bed.kubectl().args(["apply", "--dry-run=server", "-f", "-"]).input(example).output().await?;
    Ok(())
}
