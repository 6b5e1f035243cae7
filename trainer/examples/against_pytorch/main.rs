//! Training steps of ours and of PyTorch, in turn: first that both lose the same, then what a step takes.
//!
//! `make bench-steps`, which keeps both on one core, or `cargo run --release -p sconce-trainer --example against_pytorch [ROUNDS]
//! [NETWORK]`. What the columns mean is in `docs/performance.md`.

#[path = "../../../model/examples/against_onnx_runtime/machine.rs"]
mod machine;
mod peer;
#[path = "../../../model/examples/against_onnx_runtime/python.rs"]
mod python;

use anyhow::{Context as _, Result, ensure};
use candle_core::{Device, Tensor};
use peer::Peer;
use sconce_kernels::IsaToken;
use sconce_model::architecture::Architecture;
use sconce_model::network::{Mode, Network, Training, generator, unit};
use sconce_model::ops::{Adam, Loss, Targets};
use sconce_trainer::alone::alone;
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// As the trainer has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REQUIREMENTS: &str = include_str!("requirements.txt");
const BATCH: usize = 32;
const SEED: u64 = 7;
/// So small that a network stays about where it is: no loss becomes so small that numbers do.
const RATE: f32 = 1e-5;
/// What losses may differ by, as a share.
const ALIKE: f64 = 1e-4;
/// Each slice of a turn lasts about so long.
const SLICE: Duration = Duration::from_millis(500);
/// Where the ratio of a thing to itself must lie for the row to say anything.
const QUIET: RangeInclusive<f64> = 0.97..=1.03;

/// As typed.
const NETWORKS: [(&str, &str); 3] = [
    ("seed_cnn", include_str!("../../../model/zoo/seed_cnn.json")),
    ("gru", include_str!("../../../model/zoo/gru.json")),
    ("resnet_18_32", include_str!("resnet_18_32.json")),
];

/// What so many steps took, in microseconds of the CPU each, and their losses.
#[derive(Deserialize)]
struct Steps {
    micros: Vec<f64>,
    losses: Vec<f64>,
}

/// Medians of a slice's steps, in microseconds.
struct Round {
    ours: f64,
    theirs: f64,
    fused: f64,
    /// PyTorch once more: how far apart two times of the same thing are.
    again: f64,
}

fn main() -> Result<()> {
    alone()?;
    let rounds = std::env::args().nth(1).map_or(Ok(9), |word| word.parse::<usize>())?.max(1);
    let only = std::env::args().nth(2);
    let known: Vec<&str> = NETWORKS.iter().map(|(name, _)| *name).collect();
    if let Some(only) = &only {
        ensure!(known.contains(&only.as_str()), "network \"{only}\" is not known; known are {}", known.join(", "));
    }
    let folder = std::env::current_exe()?.with_file_name("against_pytorch_python");
    let python = python::python(&folder, REQUIREMENTS)?;
    println!("{}; ours uses {}; one thread each", machine::cpu()?, IsaToken::detect()?.name());
    println!("{rounds} rounds, batches of {BATCH}; Python with {}\n", REQUIREMENTS.trim().replace('\n', ", "));
    println!("| network | ours ms | PyTorch ms | fused Adam ms | ours ÷ PyTorch | ours ÷ fused | null |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let mut notes = Vec::new();
    for (name, typed) in NETWORKS.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name)) {
        notes.push(network(name, typed, &python, rounds).with_context(|| format!("network \"{name}\""))?);
    }
    println!("\n{}", notes.join("\n"));
    Ok(())
}

/// Prints the row of one network; returns what else is to be said of it.
fn network(name: &str, typed: &str, python: &Path, rounds: usize) -> Result<String> {
    let mut ours = Ours::new(typed)?;
    let folder = tempfile::tempdir()?;
    ours.save(folder.path())?;
    let mut peer = Peer::start(python, folder.path(), name, RATE)?;
    let note = format!("{name}: {}; {}", alike(&mut ours, &mut peer)?, peer.about);
    let mut counts = [0; 2];
    for (count, steps) in counts.iter_mut().zip([ours.steps(3)?, peer.steps("plain", 3)?]) {
        *count = (SLICE.as_secs_f64() * 1e6 / median(steps.micros)).ceil() as usize;
    }
    let mut all = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let time = |steps: Steps| median(steps.micros);
        all.push(Round {
            ours: time(ours.steps(counts[0])?),
            theirs: time(peer.steps("plain", counts[1])?),
            fused: time(peer.steps("fused", counts[1])?),
            again: time(peer.steps("plain", counts[1])?),
        });
    }
    println!("{}", row(name, &all));
    peer.stop()?;
    Ok(note)
}

/// How far the first losses lie from PyTorch's.
///
/// # Errors
/// If they lie too far.
fn alike(ours: &mut Ours, peer: &mut Peer) -> Result<String> {
    const STEPS: usize = 3;
    let (got, expected) = (ours.steps(STEPS)?.losses, peer.steps("plain", STEPS)?.losses);
    peer.steps("fused", STEPS)?;
    let apart =
        got.iter().zip(&expected).map(|(got, expected)| ((got - expected) / expected).abs()).fold(0.0, f64::max);
    ensure!(apart <= ALIKE, "losses are {got:?}, PyTorch's {expected:?}: more than {ALIKE:.0e} apart");
    Ok(format!("losses of the first {STEPS} steps lie {apart:.1e} from PyTorch's"))
}

fn row(name: &str, rounds: &[Round]) -> String {
    let of = |column: fn(&Round) -> f64| median(rounds.iter().map(column).collect());
    let ms = |column| format!("{:.2}", of(column) / 1e3);
    let times = [ms(|round| round.ours), ms(|round| round.theirs), ms(|round| round.fused)];
    let (plain, fused) = (of(|round| round.ours / round.theirs), of(|round| round.ours / round.fused));
    let null = of(|round| round.again / round.theirs);
    let noise = if QUIET.contains(&null) { "" } else { " (too noisy to judge)" };
    format!("| {name} | {} | {plain:.2} | {fused:.2} | {null:.2}{noise} |", times.join(" | "))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What this thread has had of the CPU: the first number of its `schedstat`, in nanoseconds. Others may use the core meanwhile.
fn cpu_micros() -> Result<f64> {
    const FILE: &str = "/proc/thread-self/schedstat";
    let told = std::fs::read_to_string(FILE).with_context(|| format!("cannot read {FILE}"))?;
    let nanos = told.split_whitespace().next().with_context(|| format!("{FILE} is empty"))?;
    Ok(nanos.parse::<f64>()? / 1e3)
}

/// A network, one batch and an optimiser.
struct Ours {
    network: Network,
    optimisers: Vec<Adam>,
    xs: Tensor,
    labels: Vec<u32>,
}

impl Ours {
    fn new(typed: &str) -> Result<Self> {
        let graph = serde_json::from_str::<Architecture>(typed)?.graph()?;
        let classes = graph.units() as u32;
        let network = Network::initialise(Arc::new(graph), SEED)?;
        let shape: Vec<usize> = std::iter::once(BATCH).chain(network.graph().input.iter().copied()).collect();
        let mut generator = generator(SEED, "batch");
        let xs: Vec<f32> = (0..shape.iter().product()).map(|_| unit(&mut generator) * 2.0 - 1.0).collect();
        let optimisers = network.weights().map(|(_, variable)| Adam::new(variable, RATE)).collect();
        let labels = (0..BATCH as u32).map(|row| row % classes).collect();
        Ok(Self { network, optimisers, xs: Tensor::from_vec(xs, shape, &Device::Cpu)?, labels })
    }

    fn save(&self, folder: &Path) -> Result<()> {
        let save = |tensors: HashMap<String, Tensor>, name: &str| {
            let path: PathBuf = folder.join(name);
            candle_core::safetensors::save(&tensors, path)
        };
        let weights = self.network.variables().iter();
        save(
            weights.map(|(name, variable)| (name.clone(), variable.as_detached_tensor())).collect(),
            "weights.safetensors",
        )?;
        let labels = Tensor::new(&*self.labels, &Device::Cpu)?;
        save([("xs".to_owned(), self.xs.clone()), ("labels".to_owned(), labels)].into(), "batch.safetensors")?;
        Ok(())
    }

    /// As the trainer takes them.
    fn steps(&mut self, count: usize) -> Result<Steps> {
        let (mut micros, mut losses) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for step in 1..=count {
            let began = cpu_micros()?;
            let training = Training { seed: SEED, epoch: 1, step, frozen: &BTreeSet::new() };
            let logits = self.network.forward_t(&self.xs, None, Mode::Train(training))?;
            let loss = Loss::cross_entropy().mean(&logits, Targets::Labels(&self.labels))?;
            let gradients = loss.backward()?;
            for ((name, variable), adam) in self.network.weights().zip(&mut self.optimisers) {
                let gradient =
                    gradients.get(variable.as_tensor()).with_context(|| format!("{name} has no gradient"))?;
                adam.step(variable, gradient)?;
            }
            losses.push(f64::from(loss.to_scalar::<f32>()?));
            micros.push(cpu_micros()? - began);
        }
        Ok(Steps { micros, losses })
    }
}
