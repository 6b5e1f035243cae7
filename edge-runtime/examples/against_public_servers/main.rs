//! The seed's network behind our server and behind those of others, in turn: first that all say the same, then what requests
//! wait and cost. Last, what ours does when it is asked for more than it can.
//!
//! `make bench-serving`, or, when `edge-runtime` is built: `cargo run --release -p sconce-edge-runtime --example
//! against_public_servers -- --help`. What the columns mean is in `docs/performance.md`.

mod bench;
#[path = "../../../model/examples/against_onnx_runtime/python.rs"]
mod python;
mod running;
mod servers;
mod table;

use anyhow::{Context as _, Result, bail, ensure};
use bench::{Load, Round};
use clap::Parser;
use running::Running;
use sconce_model::artifact::testing::write_drawn;
use servers::{Peer, Server};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Largest difference of a probability, between f32 and f32.
const ALIKE: f32 = 1e-4;
const SEED_CNN: &str = include_str!("../../../model/zoo/seed_cnn.json");
/// Of which one answer takes long, and its request is large.
const RESNET_18: &str = include_str!("../../../model/zoo/resnet_18.json");
/// Of which one answer takes long, and its request is small.
const RESNET_18_32: &str = include_str!("../../../trainer/examples/against_pytorch/resnet_18_32.json");
const SEED: u64 = 7;

/// Our server beside those of others.
#[derive(Parser)]
struct Args {
    /// Of pairs of servers; 0: only what ours does when it is asked for more than it can.
    #[arg(long, default_value = "5")]
    rounds: u16,
    /// Of each measurement; there are two for each server in a round.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u16).range(1..))]
    seconds: u16,
    /// The core that all servers share.
    #[arg(long, default_value = "1")]
    server_cpu: usize,
    /// Requests under way where it is measured what a server can.
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: u16,
    /// Our server, and what asks all of them; as it is shipped, it is built by `make sizes`.
    #[arg(long, value_name = "EDGE_RUNTIME")]
    program: Option<PathBuf>,
    /// The core of the load generator.
    #[arg(long, default_value = "0")]
    load_cpu: usize,
    /// How many times what it answers ours is offered in the end.
    #[arg(long, default_value = "10")]
    overload: u16,
    /// Of each request for the seed's network then: enough that the load generator can offer so much.
    #[arg(long, default_value = "16")]
    overload_rows: u16,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(
        args.server_cpu != args.load_cpu,
        "servers and load generator need a core each; both are given {}",
        args.load_cpu
    );
    let folder = tempfile::tempdir()?;
    let (artifact, onnx) = (folder.path().join("artifact"), folder.path().join("network.onnx"));
    write_drawn(&artifact, serde_json::from_str(SEED_CNN)?, SEED)?;
    let program = args.program.clone().map_or_else(beside, Ok)?;
    let load = Load { program: program.clone(), cpu: args.load_cpu, seconds: args.seconds, in_flight: args.in_flight };
    about(&args);
    if args.rounds > 0 {
        export(&artifact, &onnx)?;
        println!("{}", side_by_side(&args, &load, &artifact, &onnx).await?);
    }
    let (large, small) = (folder.path().join("resnet_18"), folder.path().join("resnet_18_32"));
    write_drawn(&large, serde_json::from_str(RESNET_18)?, SEED)?;
    write_drawn(&small, serde_json::from_str(RESNET_18_32)?, SEED)?;
    let asked =
        [("seed CNN", &artifact, args.overload_rows), ("ResNet-18", &large, 1), ("ResNet-18 at 32×32", &small, 1)];
    let mut overloads = Vec::new();
    for (network, artifact, rows) in asked {
        let server = Running::start(&Server::ours(network, &program, artifact, "f32"), args.server_cpu).await?;
        overloads.push((network, rows, load.overload(&server, args.overload, rows)?));
        server.stop().await?;
    }
    println!("\n{}", table::overload(&overloads, args.overload)?);
    Ok(())
}

/// Ours and each of the others, in turn.
async fn side_by_side(args: &Args, load: &Load, artifact: &Path, onnx: &Path) -> Result<String> {
    let ours = |name: &str, variant| Server::ours(name, &load.program, artifact, variant);
    let ours_f32 = ours("Sconce f32", "f32");
    let mut contenders = vec![ours("Sconce f32 again (null)", "f32"), ours("Sconce int8", "int8")];
    contenders.extend(public(&ours_f32, onnx, args.server_cpu).await?);
    let mut rounds: Vec<Vec<Round>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 0..args.rounds {
        eprintln!("round {} of {}", round + 1, args.rounds);
        for (contender, rounds) in contenders.iter().zip(&mut rounds) {
            let told = pair(&ours_f32, contender, load, args.server_cpu).await;
            rounds.push(told.with_context(|| contender.name.clone())?);
        }
    }
    table::servers(&ours_f32.name, &contenders, &rounds)
}

/// Those of others that can be had and started here, and say what ours says; of the rest it is told why not.
async fn public(ours: &Server, onnx: &Path, cpu: usize) -> Result<Vec<Server>> {
    let ours = Running::start(ours, cpu).await?;
    let mut servers = Vec::new();
    for peer in servers::PEERS {
        match tried(&peer, onnx, cpu).await {
            Ok((server, running)) => {
                alike(&ours, &running).await.context(peer.name)?;
                running.stop().await?;
                servers.push(server);
            }
            Err(error) => println!("not measured: {}: {error:#}", peer.name),
        }
    }
    ours.stop().await?;
    Ok(servers)
}

async fn tried(peer: &Peer, onnx: &Path, cpu: usize) -> Result<(Server, Running)> {
    let python = environment(peer.key, peer.requirements).context("it cannot be installed here")?;
    let server = Server::public(peer, &python, onnx);
    let running = Running::start(&server, cpu).await?;
    Ok((server, running))
}

/// Both are started, asked in turn, and stopped.
async fn pair(ours: &Server, other: &Server, load: &Load, cpu: usize) -> Result<Round> {
    let (ours, theirs) = (Running::start(ours, cpu).await?, Running::start(other, cpu).await?);
    let (many, one) = (load.both(&ours, &theirs, load.in_flight)?, load.both(&ours, &theirs, 1)?);
    let round = Round { ready: [ours.ready, theirs.ready], many, one };
    ours.stop().await?;
    theirs.stop().await?;
    Ok(round)
}

/// # Errors
/// If the answers lie too far apart, or are the same whatever was asked.
async fn alike(ours: &Running, theirs: &Running) -> Result<()> {
    let (ours, theirs) = (ours.answers().await?, theirs.answers().await?);
    ensure!(ours.len() == theirs.len(), "{} values, ours has {}", theirs.len(), ours.len());
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let difference = apart(&ours, &theirs);
    ensure!(difference <= ALIKE, "answers lie {difference:.1e} from ours, more than {ALIKE:.0e}");
    let row = ours.len() / running::ROWS;
    ensure!(apart(&ours, &ours[row..]) > 10.0 * ALIKE, "all rows have nearly the same answer: alike would say nothing");
    Ok(())
}

/// The f32 weights as ONNX.
fn export(artifact: &Path, onnx: &Path) -> Result<()> {
    let python = environment("export", include_str!("peers/export.txt"))?;
    let script = Peer::file("export.py");
    let remedy = "its packages stand in peers/export.txt";
    python::run(Command::new(python).arg(script).arg(artifact).arg(onnx), remedy).map(drop)
}

/// An environment of Python beside this program: in the folder of builds.
fn environment(key: &str, requirements: &str) -> Result<PathBuf> {
    let folder = std::env::current_exe()?.with_file_name("against_public_servers_python").join(key);
    eprintln!("with {key}: {}", table::list(requirements));
    std::fs::create_dir_all(&folder)?;
    python::python(&folder, requirements)
}

/// `edge-runtime`, as it lies beside the folder of examples.
fn beside() -> Result<PathBuf> {
    let examples = std::env::current_exe()?;
    let program = examples.ancestors().nth(2).context("a folder of builds")?.join("edge-runtime");
    if !program.is_file() {
        bail!("no {}: cargo build --release -p sconce-edge-runtime --bin edge-runtime", program.display());
    }
    Ok(program)
}

fn about(args: &Args) {
    let busy = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "servers on CPU {}, load generator on CPU {}; load average before: {}",
        args.server_cpu,
        args.load_cpu,
        busy.trim()
    );
    for peer in servers::PEERS {
        println!("{}: {}", peer.name, table::list(peer.requirements));
    }
    let Args { rounds, seconds, in_flight, .. } = args;
    println!(
        "{rounds} rounds of {seconds} s for each measurement, with {in_flight} requests under way, then with one\n"
    );
}
