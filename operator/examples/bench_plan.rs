//! How long plans take: a whole fleet, one site's news, one model's change; and what memory that needs.
//!
//! The peer is first fit: each model goes to the first node with room for its smallest variant, without prediction, price,
//! repair or reasons. It is the least that a scheduler does.

use sconce_api::{Basis, BudgetPolicy, Objective, TierChoice};
use sconce_operator::plan::*;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const SITES: usize = 1_000;
const NODES: usize = 10;
const MODELS: usize = 1_000;
const GIB: u64 = 1 << 30;
const CLASSES: [(&str, u64); 3] = [("arm64-asimddp-4", 12), ("amd64-avx2-4", 40), ("amd64-avx512vnni-8", 90)];

fn main() {
    println!(
        "{SITES} sites of {NODES} nodes, {MODELS} models of 3 variants; {} threads; {}",
        threads(),
        instruction_sets()
    );
    let models: Vec<_> = (0..MODELS).map(|index| Arc::new(model(index))).collect();
    for (per_site, rounds) in [(100, 5), (1_000, 1)] {
        println!("\n{per_site} models at each site: {} placements", per_site * SITES);
        let sites: Vec<_> = (0..SITES).map(|index| site(index, &models, per_site)).collect();
        let mut fleet = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..rounds {
            fleet[0].push(timed(|| whole(&sites, |site| decide_site(site).placed())));
            fleet[1].push(timed(|| whole(&sites, |site| placed(&plan_site(site)))));
            fleet[2].push(timed(|| whole(&sites, first_fit)));
        }
        let [decided, plan, fit] = fleet.map(median);
        say("whole fleet decided", decided);
        say("... and put into words", plan);
        say("first fit", fit);
        let times = |time: Cost| time.cpu.as_secs_f64() / fit.cpu.as_secs_f64();
        println!("  over first fit: {:.0} times its processor time, in words {:.0} times", times(decided), times(plan));
        let news = (0..200).map(|index| timed(|| (placed(&plan_site(&sites[index * 5])), Duration::ZERO)));
        say("one site's news", median(news.collect()));
        let is_changed = |site: &&Snapshot| site.models.iter().any(|model| model.name == models[0].name);
        let changed: Vec<_> = sites.iter().filter(is_changed).collect();
        let change = timed(|| (changed.iter().map(|site| placed(&plan_site(site))).sum(), Duration::ZERO));
        say(&format!("one model's change, {} sites", changed.len()), change);
        println!("  peak memory: {} MiB so far; a site's plan is dropped once it is counted", peak_mib());
    }
}

/// What some work took.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    /// Of all threads together: what a busy machine does not lengthen.
    cpu: Duration,
    wall: Duration,
}

fn say(what: &str, Cost { cpu, wall }: Cost) {
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    println!("  {what:<34} {:>10.3} ms, processor {:>10.3} ms", ms(wall), ms(cpu));
}

fn class(index: usize) -> Speed {
    let (class, gflops) = CLASSES[index % CLASSES.len()];
    Speed { class: class.into(), gflops, cores: 8 }
}

fn site(index: usize, models: &[Arc<Model>], per_site: usize) -> Snapshot {
    let node = |node: usize| Node {
        name: format!("site-{index}-{node}"),
        labels: BTreeMap::from([("kubernetes.io/arch".into(), "amd64".into())]),
        ready: true,
        leaving: false,
        allocatable: Resources { cpu_millis: 8_000, memory_bytes: 16 * GIB },
        store_bytes: u64::MAX,
        requested: Resources { cpu_millis: 500, memory_bytes: GIB },
        speed: Some(class(index + node % 2)),
        busy_millis: 300,
    };
    let round_trip_p50_us = 4_000 + (index as u64 * 37) % 60_000;
    Snapshot {
        site: format!("site-{index}"),
        nodes: (0..NODES).map(node).collect(),
        link: Link {
            round_trip_p50_us,
            round_trip_p99_us: round_trip_p50_us * 3 / 2,
            round_trip_basis: Basis::Measured,
            samples: 5_760,
            uplink_bits_per_second: 20_000_000,
            uplink_low_bits_per_second: 12_000_000,
            keeps_window: false,
            uplink_basis: Basis::Measured,
        },
        local: Term { p50_us: 300, p99_us: 600, basis: Basis::Measured },
        prices: Prices {
            edge_cpu_hour: 400,
            edge_memory_gib_hour: 100,
            cloud_cpu_hour: 100,
            cloud_memory_gib_hour: 25,
            uplink_gib: 50,
        },
        paused: false,
        cloud_only: false,
        max_share_millis: 80_000,
        models: (0..per_site).map(|model| models[(index + model * (MODELS / per_site)) % MODELS].clone()).collect(),
        current: BTreeMap::new(),
        stability: Stability::default(),
        ratios: Arc::default(),
    }
}

fn model(index: usize) -> Model {
    let flops = 1_000_000 * (1 + index as u64 % 40);
    let variant = |(name, speedup, accuracy): (&str, u64, u64)| Variant {
        name: name.into(),
        bytes: flops,
        memory_bytes: flops,
        scratch_bytes: flops / 64,
        flops,
        accuracy_millis: Some(accuracy),
        class_profiles: CLASSES
            .iter()
            .map(|(class, gflops)| ((*class).into(), profile(flops / gflops / speedup)))
            .collect(),
        node_profiles: BTreeMap::new(),
    };
    Model {
        name: ModelName { namespace: "vision".into(), name: format!("model-{index:04}") },
        version: format!("model-{index:04}-0123456789-r1"),
        digest: "sha256:0123".into(),
        budget_us: [20_000, 50_000, 120_000, 250_000][index % 4],
        budget_policy: BudgetPolicy::Prefer,
        priority: (index % 3) as i32,
        overridden_by: None,
        suspended: false,
        accuracy_floor_millis: Some(97_000),
        requests_per_second: 1 + index as u64 % 20,
        peak_factor_millis: 150_000,
        require: Vec::new(),
        tier: TierChoice::Auto,
        objective: if index.is_multiple_of(5) { Objective::Latency } else { Objective::Cost },
        max_batch_size: 16,
        request_bytes: 3_000 + 1_500 * (index as u64 % 30),
        response_bytes: 140,
        variants: [("f32", 1, 98_000), ("f16", 1, 97_900), ("int8", 3, 97_500)].into_iter().map(variant).collect(),
        cloud: CloudOffer::Pool(class(2)),
        cloud_closed: None,
    }
}

/// A batch costs less than its requests one by one.
fn profile(one_ns: u64) -> Profile {
    let time =
        |size: u64| BatchTime { size, p50_ns: one_ns * (size + 1) / 2 + 1, p99_ns: one_ns * (size + 1) * 2 / 3 + 2 };
    Profile { threads: 1, batches: [1, 4, 16].map(time).to_vec() }
}

/// All sites, on as many threads as there are cores: the sum of what `each` says, and the threads' time.
fn whole(sites: &[Snapshot], each: impl Fn(&Snapshot) -> usize + Sync) -> (usize, Duration) {
    let share = sites.len().div_ceil(threads());
    thread::scope(|scope| {
        let each = &each;
        let work = move |share: &[Snapshot]| (share.iter().map(each).sum::<usize>(), on_cpu());
        let shares: Vec<_> = sites.chunks(share).map(|share| scope.spawn(move || work(share))).collect();
        let shares = shares.into_iter().map(|share| share.join().expect("a plan never panics"));
        shares.fold((0, Duration::ZERO), |sum, share| (sum.0 + share.0, sum.1 + share.1))
    })
}

/// How long this thread has run.
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

fn placed(plan: &Plan) -> usize {
    plan.placements.len()
}

fn first_fit(site: &Snapshot) -> usize {
    let room = |node: &Node| {
        (
            node.allocatable.cpu_millis * 8 / 10 - node.requested.cpu_millis,
            node.allocatable.memory_bytes * 8 / 10 - node.requested.memory_bytes,
        )
    };
    let mut left: Vec<_> = site.nodes.iter().map(room).collect();
    let mut chosen = Vec::with_capacity(site.models.len());
    for model in &site.models {
        let memory = model.variants.iter().map(|variant| variant.memory_bytes).min().unwrap_or(0) + (24 << 20);
        let node = left.iter().position(|(cpu, free)| *cpu >= 50 && *free >= memory);
        if let Some(node) = node {
            left[node] = (left[node].0 - 50, left[node].1 - memory);
            chosen.push((model.name.clone(), node));
        }
    }
    black_box(chosen).len()
}

/// `work` tells the time of threads of its own.
fn timed(work: impl FnOnce() -> (usize, Duration)) -> Cost {
    let (start, began) = (Instant::now(), on_cpu());
    let (_, others) = black_box(work());
    Cost { wall: start.elapsed(), cpu: on_cpu() - began + others }
}

fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort();
    costs[costs.len() / 2]
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1_024
}

fn instruction_sets() -> String {
    let architecture = std::env::consts::ARCH;
    #[cfg(target_arch = "x86_64")]
    let best = ["avx512f", "avx2", "sse4.2"].into_iter().zip([
        std::is_x86_feature_detected!("avx512f"),
        std::is_x86_feature_detected!("avx2"),
        std::is_x86_feature_detected!("sse4.2"),
    ]);
    #[cfg(target_arch = "x86_64")]
    let best = best.into_iter().find(|(_, here)| *here).map_or("", |(name, _)| name);
    #[cfg(not(target_arch = "x86_64"))]
    let best = "";
    format!("{architecture} {best}; integer code, built for the baseline")
}
