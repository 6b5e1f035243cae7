//! Asks a node's router for digits, with images of its own, and says what it waited and how often the answer was right.
//!
//! The image carries 500 images that training has not seen, and the preprocessing that the artifact declares.

mod ask;
mod samples;
mod shift;

use anyhow::{Context as _, Result};
use ask::{Ask, Comparison, Summary};
use clap::{Parser, Subcommand, ValueEnum};
use samples::Samples;
use sconce_edge_runtime::{args::seconds, stop};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Asks for digits, as a client at a site would.
#[derive(Parser)]
#[command(name = "digits-client", version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
    /// The node's router: the same address at every site.
    #[arg(long, global = true, default_value = "sconce-router.sconce-node.svc:8001")]
    router: String,
    /// NAME.NAMESPACE of the EdgeModel.
    #[arg(long, global = true, default_value = "digits.vision")]
    model: String,
    /// Folder with images.idx3, labels.idx1 and preprocess.json.
    #[arg(long, global = true, default_value = "/data")]
    data: PathBuf,
    /// Only these of the images, such as 0..300.
    #[arg(long, global = true, value_name = "FROM..TO", value_parser = range)]
    images: Option<Range<usize>>,
    /// As they look once the site's world has shifted: brighter and noisier, with thicker strokes.
    #[arg(long, global = true)]
    shifted: bool,
}

fn range(text: &str) -> Result<Range<usize>, String> {
    let bounds = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    bounds.filter(|range| !range.is_empty()).ok_or_else(|| "need FROM..TO, such as 0..300".into())
}

#[derive(Subcommand)]
enum Verb {
    /// A measured run; ends with 1 if a request failed.
    Run {
        /// How many requests to each model; default 500, or as many as fit into --duration.
        #[arg(long)]
        count: Option<usize>,
        /// Requests per second; default: one after the other.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        rate: Option<u32>,
        #[arg(long, value_parser = seconds)]
        duration: Option<Duration>,
        /// A second model, asked in turn with the first, request by request.
        #[arg(long, value_name = "MODEL")]
        compare: Option<String>,
        #[arg(short, long, value_enum, default_value = "text")]
        output: Format,
    },
    /// Ask for ever, with a line every ten seconds.
    Stream {
        #[arg(long, default_value = "2", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        rate: u32,
        #[arg(long, default_value = "10s", value_parser = seconds, hide = true)]
        every: Duration,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let asked = tokio::select! {
        asked = run(Args::parse()) => asked,
        _ = stop::requested() => Ok(true),
    };
    match asked {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("digits-client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every request was answered.
async fn run(args: Args) -> Result<bool> {
    let samples = Samples::read(&args.data, args.images, args.shifted)?;
    match args.verb {
        Verb::Run { count, rate, duration, compare, output } => {
            let models = std::iter::once(args.model).chain(compare).collect();
            let ask = Ask::new(&args.router, models, samples)?;
            let count = count.unwrap_or(if duration.is_some() { usize::MAX } else { 500 });
            let mut summaries = ask.run(count, rate, duration).await.into_iter();
            let summary: Summary = summaries.next().context("no model was asked")?;
            let failed = summary.failed;
            let Some(other) = summaries.next() else {
                print(output, summary.line(), &summary)?;
                return Ok(failed == 0);
            };
            let failed = failed + other.failed;
            let comparison = Comparison::of(summary, other);
            print(output, comparison.lines(), &comparison)?;
            Ok(failed == 0)
        }
        Verb::Stream { rate, every } => {
            let ask = Ask::new(&args.router, vec![args.model], samples)?;
            loop {
                for summary in ask.run(usize::MAX, Some(rate), Some(every)).await {
                    println!("{}", summary.line());
                }
            }
        }
    }
}

fn print(output: Format, text: String, json: &impl serde::Serialize) -> Result<()> {
    match output {
        Format::Text => println!("{text}"),
        Format::Json => println!("{}", serde_json::to_string(json)?),
    }
    Ok(())
}
