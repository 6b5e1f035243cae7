//! What a client would wait at a place, term by term, and what the place would cost. Integers throughout: microseconds,
//! nanoseconds of service, millionths of utilisation, thousandths of a point.

use super::{Link, Model, Prediction, Prices, Resources, Speed, Term, Variant};
use sconce_api::Basis;

/// Round trip between a router and a pod of the same site, p50 and p99. A constant until agents measure it.
const SITE_LINK: Term = Term { p50_us: 300, p99_us: 500, basis: Basis::Estimated };

/// A network reaches half of the speed of a product of large matrices.
const EFFICIENCY: (u64, u64) = (1, 2);

/// The p99 of an estimated service time over its median. As of a log-normal, whose squared coefficient of variation is
/// then 1/4.
const TAIL: u64 = 3;

/// A replica is not planned to be busier than 70 % at peak: beyond, queues grow faster than load.
pub(super) const BUSY_LIMIT_PPM: u64 = 700_000;

/// Where a place is overloaded there is no queue's length to predict; it is shown as at 95 %.
const BUSY_SHOWN_PPM: u64 = 950_000;

/// Below 1 % busy a request meets no other.
const IDLE_PPM: u64 = 10_000;

/// Most pods that one model gets on a node.
pub(super) const MOST_REPLICAS: u64 = 4;

/// Least CPU that a pod requests: its share when the node is full.
const LEAST_CPU_MILLIS: u64 = 50;

/// Memory of the runtime before it has read a model: code, the two servers' buffers, the allocator's reserve.
const RUNTIME_BYTES: u64 = 24 << 20;

/// Least share of a pool's replica that a site is charged for, in thousandths: an idle site still keeps a connection.
const LEAST_SHARE_MILLIS: u64 = 10;

/// Bytes that a connection sends in its first round trip: 10 segments of 1,460 bytes (RFC 6928).
const FIRST_WINDOW_BYTES: u64 = 14_600;

/// Nanoseconds that one core computes one request, median; `None` where the speed is not known.
pub(super) fn service_ns(variant: &Variant, speed: &Speed) -> Option<u64> {
    let (numerator, denominator) = EFFICIENCY;
    let flops = saturate(u128::from(variant.flops) * u128::from(denominator));
    (speed.gflops > 0).then(|| flops.div_ceil(speed.gflops * numerator).max(1))
}

/// How busy the model's peak load keeps `replicas`, each with one core. Batches do not help here: an estimated service
/// time grows with the batch.
pub(super) fn busy_ppm(model: &Model, service_ns: u64, replicas: u64) -> u64 {
    peak_ppm(model.requests_per_second, model.peak_factor_millis, service_ns).div_ceil(replicas.max(1))
}

/// Utilisation of one core by a load's peak, in millionths.
pub(super) fn peak_ppm(requests_per_second: u64, peak_factor_millis: u64, service_ns: u64) -> u64 {
    let peak = u128::from(requests_per_second) * u128::from(peak_factor_millis);
    saturate(peak.saturating_mul(u128::from(service_ns)).div_ceil(100_000_000))
}

/// Smallest number of pods that the peak keeps no busier than 70 %, at most `most`.
pub(super) fn replicas(model: &Model, service_ns: u64, most: u64) -> u64 {
    busy_ppm(model, service_ns, 1).div_ceil(BUSY_LIMIT_PPM).clamp(1, most)
}

/// What each of `replicas` pods requests: the cores that the usual load keeps 70 % busy, and the model's memory.
pub(super) fn request(model: &Model, variant: &Variant, service_ns: u64, replicas: u64) -> Resources {
    Resources {
        cpu_millis: cpu_millis(model.requests_per_second, service_ns, replicas),
        memory_bytes: memory_bytes(variant),
    }
}

pub(super) fn cpu_millis(requests_per_second: u64, service_ns: u64, replicas: u64) -> u64 {
    let millis = u128::from(requests_per_second) * u128::from(service_ns);
    saturate(millis.div_ceil(700_000 * u128::from(replicas.max(1)))).max(LEAST_CPU_MILLIS)
}

pub(super) fn memory_bytes(variant: &Variant) -> u64 {
    const MEBIBYTE: u64 = 1 << 20;
    variant.memory_bytes.saturating_add(RUNTIME_BYTES).div_ceil(MEBIBYTE).saturating_mul(MEBIBYTE)
}

pub(super) fn at_edge(service_ns: u64, busy_ppm: u64) -> Prediction {
    let nothing = Term { p50_us: 0, p99_us: 0, basis: Basis::Estimated };
    together(SITE_LINK, nothing, queue(service_ns, busy_ppm), compute(service_ns))
}

/// Prediction for the cloud pool. Its queue is that of the site's own load: the pool grows with the load of all sites,
/// so that none of its replicas is busier than 70 %.
pub(super) fn in_cloud(model: &Model, link: &Link, service_ns: u64, busy_ppm: u64) -> Prediction {
    let round_trip =
        Term { p50_us: link.round_trip_p50_us, p99_us: link.round_trip_p99_us, basis: link.round_trip_basis };
    together(round_trip, transfer(model, link), queue(service_ns, busy_ppm), compute(service_ns))
}

/// Bytes of a request and its answer over the uplink, and the round trips that a connection takes to open its window
/// after it was idle: ⌈log₂(bytes / first window + 1)⌉ − 1.
fn transfer(model: &Model, link: &Link) -> Term {
    let bytes = model.request_bytes.saturating_add(model.response_bytes);
    let bits = u128::from(bytes) * 8 * 1_000_000;
    let sending = saturate(bits.div_ceil(u128::from(link.uplink_bits_per_second.max(1))));
    let windows = u128::from(bytes.div_ceil(FIRST_WINDOW_BYTES)) + 1;
    let waits = u64::from(windows.next_power_of_two().ilog2()).saturating_sub(1);
    Term {
        p50_us: sending.saturating_add(waits.saturating_mul(link.round_trip_p50_us)),
        p99_us: sending.saturating_add(waits.saturating_mul(link.round_trip_p99_us)),
        basis: if waits > 0 { link.uplink_basis.max(link.round_trip_basis) } else { link.uplink_basis },
    }
}

fn compute(service_ns: u64) -> Term {
    let p50_us = service_ns.div_ceil(1_000);
    let p99_us = service_ns.saturating_mul(TAIL).div_ceil(1_000);
    Term { p50_us, p99_us, basis: Basis::Estimated }
}

/// Waiting in M/G/1: mean wait of those who wait W = s·(1 + cv²) / (2·(1 − ρ)), tail P(wait > t) = ρ·e^(−t/W). So the
/// p99 is W·ln(ρ / 0.01), and the median 0 up to ρ = 50 %.
fn queue(service_ns: u64, busy_ppm: u64) -> Term {
    let busy = busy_ppm.min(BUSY_SHOWN_PPM);
    if busy <= IDLE_PPM {
        return Term { p50_us: 0, p99_us: 0, basis: Basis::Estimated };
    }
    // cv² = 1/4, so (1 + cv²) / 2 = 5/8.
    let mean_ns = u128::from(service_ns) * 5 * 1_000_000 / (8 * u128::from(1_000_000 - busy));
    let wait = |log_millis: u64| saturate((mean_ns * u128::from(log_millis)).div_ceil(1_000_000));
    Term { p50_us: wait(log_of_half(busy)), p99_us: wait(log_of_hundredth(busy)), basis: Basis::Estimated }
}

/// ln(ρ / 0.01) in thousandths, at the upper end of ρ's step: the safe side.
fn log_of_hundredth(busy_ppm: u64) -> u64 {
    match busy_ppm {
        0..=20_000 => 693,
        20_001..=50_000 => 1_609,
        50_001..=100_000 => 2_303,
        100_001..=200_000 => 2_996,
        200_001..=350_000 => 3_555,
        350_001..=500_000 => 3_912,
        500_001..=700_000 => 4_248,
        _ => 4_554,
    }
}

/// ln(ρ / 0.5) in thousandths, likewise.
fn log_of_half(busy_ppm: u64) -> u64 {
    match busy_ppm {
        0..=500_000 => 0,
        500_001..=700_000 => 336,
        _ => 642,
    }
}

/// Tails of independent terms do not add up: the root of their squares does. The plain sum stays as the bound.
fn together(link: Term, transfer: Term, queue: Term, compute: Term) -> Prediction {
    let terms = [link, transfer, queue, compute];
    let sum = |part: fn(&Term) -> u64| terms.iter().map(part).fold(0, u64::saturating_add);
    let squares = terms.iter().map(|term| u128::from(term.p99_us.saturating_sub(term.p50_us)).pow(2));
    let tail = saturate(squares.fold(0, u128::saturating_add).isqrt());
    Prediction {
        p99_us: sum(|term| term.p50_us).saturating_add(tail),
        bound_us: sum(|term| term.p99_us),
        basis: terms.iter().map(|term| term.basis).max().unwrap_or(Basis::Assumed),
        link,
        transfer,
        queue,
        compute,
    }
}

/// The smallest budget that the prediction is accepted for: a tenth of margin where all was measured, half of the bound
/// where anything was not.
pub(super) fn least_budget_us(prediction: &Prediction) -> u64 {
    match prediction.basis {
        Basis::Measured => saturate((u128::from(prediction.p99_us) * 11).div_ceil(10)),
        Basis::Estimated | Basis::Assumed => saturate((u128::from(prediction.bound_us) * 3).div_ceil(2)),
    }
}

/// Thousandths of a point per hour for what the pods request of an edge node.
pub(super) fn edge_cost(request: Resources, replicas: u64, prices: &Prices) -> u64 {
    let cpu = u128::from(request.cpu_millis) * u128::from(prices.edge_cpu_hour);
    let memory = per_gib(u128::from(request.memory_bytes) * 1_000, prices.edge_memory_gib_hour);
    saturate((cpu + memory) * u128::from(replicas))
}

/// Thousandths of a point per hour for the site's share of the pool and for its bytes.
pub(super) fn cloud_cost(model: &Model, variant: &Variant, service_ns: u64, prices: &Prices) -> u64 {
    // Cores that the load keeps 70 % busy, in millionths; as a share of a replica, which has one, in thousandths.
    let cores_ppm = (u128::from(model.requests_per_second) * u128::from(service_ns)).div_ceil(700);
    let cpu = (cores_ppm * u128::from(prices.cloud_cpu_hour)).div_ceil(1_000);
    let share_millis = cores_ppm.div_ceil(1_000).max(u128::from(LEAST_SHARE_MILLIS));
    let memory = per_gib(u128::from(memory_bytes(variant)) * share_millis, prices.cloud_memory_gib_hour);
    let bytes = u128::from(model.request_bytes.saturating_add(model.response_bytes));
    let sent = per_gib((u128::from(model.requests_per_second) * 3_600_000).saturating_mul(bytes), prices.uplink_gib);
    saturate(cpu + memory + sent)
}

fn per_gib(amount: u128, price: u64) -> u128 {
    (amount.saturating_mul(u128::from(price))).div_ceil(1 << 30)
}

fn saturate(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
