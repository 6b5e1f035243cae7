//! Known networks through our plans and through ONNX Runtime, in turn: first that both say the same, then how long they take.
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
use peer::{Peer, Precision};
use sconce_kernels::{Cpu, IsaToken, Threads};
use sconce_model::ops::values;
use std::path::Path;
use std::time::Duration;
use table::Round;

/// Each slice of a turn lasts at least this long.
const SLICE: Duration = Duration::from_millis(100);

/// Of the largest output, between f32 and f32.
const ALIKE: f32 = 1e-4;

const BATCHES: [usize; 2] = [1, draw::ROWS];

const REQUIREMENTS: &str = include_str!("requirements.txt");

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
    // Beside the program: in the folder of builds.
    let folder = std::env::current_exe()?.with_file_name("against_onnx_runtime_python");
    let python = python::python(&folder, REQUIREMENTS)?;
    let (isa, threads) = (IsaToken::detect()?, Threads::one());
    println!("{}; ours uses {}; one thread each", machine::cpu()?, isa.name());
    println!("{} rounds; Python with {}\n", rounds, REQUIREMENTS.trim().replace('\n', ", "));
    println!("{}", table::HEAD);
    let mut notes = Vec::new();
    for (name, typed) in NETWORKS.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name)) {
        let note = network(name, typed, Cpu { isa, threads: &threads }, &python, rounds);
        notes.push(note.with_context(|| format!("network \"{name}\""))?);
    }
    println!("\n{}", notes.join("\n"));
    Ok(())
}

/// Prints the rows of one network; returns what else is to be said of it.
fn network(name: &str, typed: &str, cpu: Cpu<'_>, python: &Path, rounds: usize) -> Result<String> {
    let (network, xs) = draw::network(typed)?;
    let plans = Plans::compile(&network, &xs)?;
    let mut peer = Peer::start(python, &network, &xs)?;
    let mut note = format!("{name}: {}", alike(&plans, &mut peer, cpu, &xs)?);
    for batch in BATCHES {
        let xs = xs.narrow(0, 0, batch)?;
        println!("{}", table::row(name, batch, &turns(&plans, &mut peer, cpu, &xs, rounds)?));
    }
    if let Some(why) = &peer.about.no_int8 {
        note += &format!("; no int8 of ONNX Runtime: {why}");
    }
    note += &format!("; an empty call of ONNX Runtime takes {:.1} us", peer.about.empty_call);
    peer.stop()?;
    Ok(note)
}

/// How far the answers lie from those of ONNX Runtime in f32, as shares of the largest.
///
/// # Errors
/// If ours in f32 lie too far.
fn alike(plans: &Plans, peer: &mut Peer, cpu: Cpu<'_>, xs: &Tensor) -> Result<String> {
    let rows = xs.dims()[0];
    let expected = peer.infer(Precision::F32, rows)?;
    let apart = |got: &[f32]| -> Result<f32> {
        ensure!(got.len() == expected.len(), "{} values, ONNX Runtime has {}", got.len(), expected.len());
        let largest = expected.iter().fold(0.0, |largest: f32, y| largest.max(y.abs()));
        let differences = got.iter().zip(&expected).map(|(got, expected)| (got - expected).abs());
        Ok(differences.fold(0.0, f32::max) / largest)
    };
    let f32 = apart(&values(&Ours::of(&plans.f32, rows).infer(cpu, xs)?)?)?;
    ensure!(f32 <= ALIKE, "answers in f32 lie {f32:.1e} of the largest from ONNX Runtime's, more than {ALIKE:.0e}");
    let mut said = format!("answers lie {f32:.1e} of the largest from ONNX Runtime's in f32");
    let f16 = apart(&values(&Ours::of(&plans.f16, rows).infer(cpu, xs)?)?)?;
    said += &format!("; from the same, our f16 {f16:.1e}");
    if let Some(plan) = &plans.int8 {
        said += &format!(", our int8 {:.1e}", apart(&values(&Ours::of(plan, rows).infer(cpu, xs)?)?)?);
    }
    if peer.about.no_int8.is_none() {
        said += &format!(", its int8 {:.1e}", apart(&peer.infer(Precision::Int8, rows)?)?);
    }
    // What is the same for all rows would hide a layer that no longer looks.
    let row = expected.len() / rows;
    let first: Vec<f32> = expected.iter().take(row).copied().cycle().take(expected.len()).collect();
    said += &format!(", another row {:.1e}", apart(&first)?);
    Ok(said)
}

/// All that run a batch, one slice each, in turn; every other round backwards.
fn turns(plans: &Plans, peer: &mut Peer, cpu: Cpu<'_>, xs: &Tensor, rounds: usize) -> Result<Vec<Round>> {
    let batch = xs.dims()[0];
    let has_int8 = peer.about.no_int8.is_none();
    let mut ours = [Some(&plans.f32), Some(&plans.f16), plans.int8.as_ref()].map(|plan| Some(Ours::of(plan?, batch)));
    let mut turns = vec![Turn::Ours(0), Turn::Theirs, Turn::Ours(1), Turn::Ours(2), Turn::TheirInt8, Turn::Again];
    let mut all = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let mut round = Round::default();
        for turn in &turns {
            match turn {
                Turn::Ours(at) => {
                    let time = ours[*at].as_mut().map(|ours| ours.slice(cpu, xs, SLICE)).transpose()?;
                    round.ours[*at] = time;
                }
                Turn::Theirs => round.theirs = Some(peer.slice(Precision::F32, batch, SLICE)?),
                Turn::Again => round.again = Some(peer.slice(Precision::F32, batch, SLICE)?),
                Turn::TheirInt8 if has_int8 => {
                    round.their_int8 = Some(peer.slice(Precision::Int8, batch, SLICE)?);
                }
                Turn::TheirInt8 => {}
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
    /// ONNX Runtime in f32 once more: how far apart two times of the same thing are.
    Again,
}
