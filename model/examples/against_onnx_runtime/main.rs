//! Known networks through our plans, ONNX Runtime and OpenVINO, in turn: first that all say the same, then how long they take.
//!
//! `make bench`, which keeps both on one core, or `cargo run --release -p sconce-model --example against_onnx_runtime [ROUNDS]
//! [NETWORK]`. What the columns mean is in `docs/performance.md`.

mod describe;
mod draw;
mod machine;
mod ours;
mod peer;
mod python;
mod table;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use ours::{Ours, Plans};
use peer::{ONNX_RUNTIME, OPENVINO, Peer, Precision, Program};
use sconce_kernels::{Cpu, IsaToken, Threads};
use sconce_model::ops::values;
use std::path::{Path, PathBuf};
use std::time::Duration;
use table::Round;

/// Each slice of a turn lasts at least this long.
const SLICE: Duration = Duration::from_millis(100);

/// Of the largest output, between f32 and f32.
const ALIKE: f32 = 1e-4;

const BATCHES: [usize; 2] = [1, draw::ROWS];

/// As typed.
const NETWORKS: [(&str, &str); 4] = [
    ("seed_cnn", include_str!("../../zoo/seed_cnn.json")),
    ("gru", include_str!("../../zoo/gru.json")),
    ("mobilenet_v2", include_str!("../../zoo/mobilenet_v2.json")),
    ("resnet_18", include_str!("../../zoo/resnet_18.json")),
];

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(15), |word| word.parse::<usize>())?.max(1);
    let only = std::env::args().nth(2);
    let known: Vec<&str> = NETWORKS.iter().map(|(name, _)| *name).collect();
    if let Some(only) = &only {
        ensure!(known.contains(&only.as_str()), "network \"{only}\" is not known; known are {}", known.join(", "));
    }
    let pythons = Pythons { onnx_runtime: python(&ONNX_RUNTIME)?, openvino: python(&OPENVINO) };
    let (isa, threads) = (IsaToken::detect()?, Threads::one());
    println!("{}; ours uses {}; one thread each", machine::cpu()?, isa.name());
    println!("{rounds} rounds; Python with {}", listed(&ONNX_RUNTIME));
    match &pythons.openvino {
        Ok(_) => println!("OpenVINO (OV) in one with {}\n", listed(&OPENVINO)),
        Err(why) => println!("without OpenVINO (OV), which cannot be installed here: {why:#}\n"),
    }
    println!("{}", table::HEAD);
    let mut notes = Vec::new();
    for (name, typed) in NETWORKS.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name)) {
        let note = network(name, typed, Cpu { isa, threads: &threads }, &pythons, rounds);
        notes.push(note.with_context(|| format!("network \"{name}\""))?);
    }
    println!("\n{}", notes.join("\n"));
    Ok(())
}

/// The interpreters of each.
struct Pythons {
    onnx_runtime: PathBuf,
    /// Or why there is none.
    openvino: Result<PathBuf>,
}

/// Beside the program: in the folder of builds.
fn python(program: &Program) -> Result<PathBuf> {
    let folder = Path::new(program.path).file_stem().context("a program has a name")?;
    let folder = std::env::current_exe()?.with_file_name("against_onnx_runtime_python").join(folder);
    python::python(&folder, program.requirements)
}

fn listed(program: &Program) -> String {
    program.requirements.trim().replace('\n', ", ")
}

/// Whom ours is timed beside.
struct Peers {
    onnx_runtime: Peer,
    openvino: Option<Peer>,
}

impl Peers {
    fn all(&mut self) -> impl Iterator<Item = &mut Peer> {
        std::iter::once(&mut self.onnx_runtime).chain(&mut self.openvino)
    }
}

/// Prints the rows of one network; returns what else is to be said of it.
fn network(name: &str, typed: &str, cpu: Cpu<'_>, pythons: &Pythons, rounds: usize) -> Result<String> {
    let (network, xs) = draw::network(typed)?;
    let plans = Plans::compile(&network, &xs)?;
    let folder = peer::folder(&network, &xs)?;
    let start = |program, python: &PathBuf| Peer::start(program, python, folder.path());
    let onnx_runtime = start(&ONNX_RUNTIME, &pythons.onnx_runtime)?;
    let openvino = pythons.openvino.as_ref().ok().map(|python| start(&OPENVINO, python)).transpose()?;
    let mut peers = Peers { onnx_runtime, openvino };
    let mut note = format!("{name}: {}", alike(&plans, &mut peers, cpu, &xs)?);
    for batch in BATCHES {
        let xs = xs.narrow(0, 0, batch)?;
        println!("{}", table::row(name, batch, &turns(&plans, &mut peers, cpu, &xs, rounds)?));
    }
    for Peer { name, about, .. } in peers.all() {
        if let Some(why) = &about.no_int8 {
            note += &format!("; no int8 of {name}: {why}");
        }
        note += &format!("; an empty call of {name} takes {:.1} us", about.empty_call);
    }
    peers.onnx_runtime.stop()?;
    peers.openvino.map_or(Ok(()), Peer::stop)?;
    Ok(note)
}

/// How far the answers lie from those of ONNX Runtime in f32, as shares of the largest.
///
/// # Errors
/// If any in f32 lie too far.
fn alike(plans: &Plans, peers: &mut Peers, cpu: Cpu<'_>, xs: &Tensor) -> Result<String> {
    let rows = xs.dims()[0];
    let expected = peers.onnx_runtime.infer(Precision::F32, rows)?;
    let apart = |got: &[f32]| -> Result<f32> {
        ensure!(got.len() == expected.len(), "{} values, ONNX Runtime has {}", got.len(), expected.len());
        let largest = expected.iter().fold(0.0, |largest: f32, y| largest.max(y.abs()));
        let differences = got.iter().zip(&expected).map(|(got, expected)| (got - expected).abs());
        Ok(differences.fold(0.0, f32::max) / largest)
    };
    let close = |whose: &str, got: &[f32]| -> Result<f32> {
        let far = apart(got)?;
        ensure!(far <= ALIKE, "{whose} in f32 lie {far:.1e} of the largest from ONNX Runtime's, more than {ALIKE:.0e}");
        Ok(far)
    };
    let f32 = close("answers", &values(&Ours::of(&plans.f32, rows).infer(cpu, xs)?)?)?;
    let mut said = format!("answers lie {f32:.1e} of the largest from ONNX Runtime's in f32");
    let f16 = apart(&values(&Ours::of(&plans.f16, rows).infer(cpu, xs)?)?)?;
    said += &format!("; from the same, our f16 {f16:.1e}");
    if let Some(plan) = &plans.int8 {
        said += &format!(", our int8 {:.1e}", apart(&values(&Ours::of(plan, rows).infer(cpu, xs)?)?)?);
    }
    if let Some(openvino) = &mut peers.openvino {
        said +=
            &format!(", OpenVINO's f32 {:.1e}", close("OpenVINO's answers", &openvino.infer(Precision::F32, rows)?)?);
    }
    for peer in peers.all().filter(|peer| peer.has(Precision::Int8)) {
        let far = apart(&peer.infer(Precision::Int8, rows)?)?;
        said += &format!(", int8 of {} {far:.1e}", peer.name);
    }
    // What is the same for all rows would hide a layer that no longer looks.
    let row = expected.len() / rows;
    let first: Vec<f32> = expected.iter().take(row).copied().cycle().take(expected.len()).collect();
    said += &format!(", another row {:.1e}", apart(&first)?);
    Ok(said)
}

/// All that run a batch, one slice each, in turn; every other round backwards.
fn turns(plans: &Plans, peers: &mut Peers, cpu: Cpu<'_>, xs: &Tensor, rounds: usize) -> Result<Vec<Round>> {
    let batch = xs.dims()[0];
    let mut ours = [Some(&plans.f32), Some(&plans.f16), plans.int8.as_ref()].map(|plan| Some(Ours::of(plan?, batch)));
    let mut turns = vec![
        Turn::Ours(0),
        Turn::Theirs,
        Turn::Ours(1),
        Turn::OpenVino(Precision::F32),
        Turn::Ours(2),
        Turn::TheirInt8,
        Turn::OpenVino(Precision::Int8),
        Turn::Again,
    ];
    let mut all = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let mut round = Round::default();
        for turn in &turns {
            match turn {
                Turn::Ours(at) => {
                    let time = ours[*at].as_mut().map(|ours| ours.slice(cpu, xs, SLICE)).transpose()?;
                    round.ours[*at] = time;
                }
                Turn::Theirs => round.theirs = peers.onnx_runtime.slice(Precision::F32, batch, SLICE)?,
                Turn::Again => round.again = peers.onnx_runtime.slice(Precision::F32, batch, SLICE)?,
                Turn::TheirInt8 => round.their_int8 = peers.onnx_runtime.slice(Precision::Int8, batch, SLICE)?,
                Turn::OpenVino(precision) => {
                    let time = peers.openvino.as_mut().map(|peer| peer.slice(*precision, batch, SLICE)).transpose()?;
                    round.openvino[*precision as usize] = time.flatten();
                }
            }
        }
        all.push(round);
        turns.reverse();
    }
    Ok(all)
}

/// Who runs a slice.
enum Turn {
    /// The plan at this place: f32, f16, int8.
    Ours(usize),
    Theirs,
    TheirInt8,
    OpenVino(Precision),
    /// ONNX Runtime in f32 once more: how far apart two times of the same thing are.
    Again,
}
