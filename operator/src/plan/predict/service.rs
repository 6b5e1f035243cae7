//! How long a batch takes at a place: measured where somebody measured, else estimated, and slowed by who else computes there.

use super::ratio;
use crate::plan::{BatchTime, Node, Profile, Speed, Variant};
use sconce_api::Basis;

/// A network reaches half of the speed of a product of large matrices.
const EFFICIENCY: (u64, u64) = (1, 2);

/// The p99 of an estimated service time over its median.
const TAIL: u64 = 3;

/// One, in millionths.
const UNIT: u64 = 1_000_000;

/// A single request, in thousandths.
const ONE: u64 = 1_000;

/// Service times by batch size, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    times: Times<'a>,
    /// By how much who else computes there slows it, in millionths; at least one.
    slowdown_ppm: u64,
    /// Of a single request, since that is asked for most.
    one: (u64, u64),
    pub basis: Basis,
}

#[derive(Clone, Copy, Debug)]
enum Times<'a> {
    Profile(&'a [BatchTime]),
    Estimate(BatchTime),
}

impl<'a> Service<'a> {
    /// On an edge node: as the node measured it, else as its class did, else as its speed says; `None` where nothing is known.
    pub fn on_node(variant: &'a Variant, node: &Node) -> Option<Self> {
        let speed = node.speed.as_ref()?;
        let (service, threads) = Self::alone(variant, Some(&node.name), speed)?;
        Some(service.slowed(node.busy_millis, threads, speed.cores))
    }

    /// In the cloud, on the slowest class that offers itself.
    pub fn in_cloud(variant: &'a Variant, speed: &Speed) -> Option<Self> {
        Some(Self::alone(variant, None, speed)?.0)
    }

    /// On a node that does nothing else; and its threads.
    fn alone(variant: &'a Variant, node: Option<&str>, speed: &Speed) -> Option<(Self, u64)> {
        let own = node.and_then(|node| variant.node_profiles.get(node));
        // A fleet has few classes, mostly with names of different lengths: so no names are compared, as on the way down a tree.
        let class =
            || variant.class_profiles.iter().find(|(class, _)| **class == speed.class).map(|(_, profile)| profile);
        let is_credible = |profile: &&Profile| is_credible(profile, variant, speed);
        if let Some(Profile { threads, batches }) = own.filter(is_credible).or_else(|| class().filter(is_credible)) {
            return Some((Self::new(Times::Profile(batches), UNIT, Basis::Measured), *threads));
        }
        let (numerator, denominator) = EFFICIENCY;
        let speed = speed.gflops.saturating_mul(numerator);
        let p50_ns = (speed > 0).then(|| ratio(variant.flops, denominator, speed).max(1))?;
        let estimate = BatchTime { size: 1, p50_ns, p99_ns: p50_ns.saturating_mul(TAIL) };
        Some((Self::new(Times::Estimate(estimate), UNIT, Basis::Estimated), 1))
    }

    /// The least that could be: for a node of which nothing is known.
    pub fn least() -> Service<'static> {
        let times = Times::Estimate(BatchTime { size: 1, p50_ns: 1, p99_ns: 1 });
        Service::new(times, UNIT, Basis::Estimated)
    }

    /// Profiles are taken on an idle node. `busy_millis` of others and the model's own threads share the cores.
    fn slowed(self, busy_millis: u64, threads: u64, cores: u64) -> Self {
        let wanted = busy_millis.saturating_add(threads.saturating_mul(1_000));
        match ratio(wanted, UNIT / 1_000, cores) {
            slower if slower > UNIT => Self::new(self.times, slower, self.basis),
            _ => self,
        }
    }

    fn new(times: Times<'a>, slowdown_ppm: u64, basis: Basis) -> Self {
        let service = Self { times, slowdown_ppm, one: (0, 0), basis };
        let p50_ns = service.at(ONE, |time| time.p50_ns).max(1);
        Self { one: (p50_ns, service.at(ONE, |time| time.p99_ns).max(p50_ns)), ..service }
    }

    /// Median of a batch of so many thousandths of a request.
    pub fn p50_ns(&self, rows_millis: u64) -> u64 {
        if rows_millis == ONE { self.one.0 } else { self.at(rows_millis, |time| time.p50_ns).max(1) }
    }

    /// p99 of a single request.
    pub fn one_p99_ns(&self) -> u64 {
        self.one.1
    }

    fn at(&self, rows_millis: u64, part: fn(&BatchTime) -> u64) -> u64 {
        let points = match &self.times {
            Times::Profile(points) => points,
            Times::Estimate(point) => std::slice::from_ref(point),
        };
        match (interpolated(points, rows_millis, part), self.slowdown_ppm) {
            (alone, UNIT) => alone,
            (alone, slowdown_ppm) => ratio(alone, slowdown_ppm, UNIT),
        }
    }
}

/// How many times the speed of its product of f32 matrices a thread may reach: exact int8 by dot products of four is four
/// times as fast, and twice that is still believed.
const FASTEST: u64 = 8;

/// Whether a node of that speed can have measured this. An agent that errs, or lies, is answered by an estimate.
fn is_credible(profile: &Profile, variant: &Variant, speed: &Speed) -> bool {
    let best = speed.gflops.saturating_mul(FASTEST).saturating_mul(profile.threads.max(1));
    let grows = profile.batches.windows(2).all(|pair| pair[0].size < pair[1].size && pair[0].p50_ns <= pair[1].p50_ns);
    let holds = |time: &BatchTime| {
        let work = variant.flops.saturating_mul(time.size);
        time.size > 0 && time.p50_ns > 0 && time.p50_ns <= time.p99_ns && time.p50_ns.saturating_mul(best) >= work
    };
    !profile.batches.is_empty() && grows && profile.batches.iter().all(holds)
}

/// Between two sizes a straight line; beyond the last as the last line goes on, of a single size through nothing. What is
/// smaller than the smallest takes as long.
fn interpolated(points: &[BatchTime], rows_millis: u64, part: fn(&BatchTime) -> u64) -> u64 {
    let size = |index: usize| points[index].size.saturating_mul(1_000);
    let (first, last) = (&points[0], points.len() - 1);
    if rows_millis <= size(0) {
        return part(first);
    }
    if last == 0 {
        return ratio(part(first), rows_millis, size(0));
    }
    let above = (1..last).find(|index| size(*index) >= rows_millis).unwrap_or(last);
    let (below, step) = (part(&points[above - 1]), size(above).saturating_sub(size(above - 1)));
    let more = part(&points[above]).saturating_sub(below);
    below.saturating_add(ratio(more, rows_millis.saturating_sub(size(above - 1)), step))
}
