//! What a client would wait at a place, term by term, and what the place would cost. Integers throughout: microseconds,
//! nanoseconds of service, millionths of utilisation, thousandths of a point.

pub mod cost;
mod load;
mod service;

pub use load::{BUSY_LIMIT_PPM, Load};
pub use service::Service;

use super::{Link, Model, Prediction, Resources, Room, Term, Variant};
use sconce_api::Basis;

/// Where a place is overloaded there is no queue's length to predict; it is shown as at 95 %.
const SHOWN_BUSY_PPM: u64 = 950_000;

/// Most pods that one model gets on a node.
pub const MOST_REPLICAS: u64 = 4;

/// Memory of the runtime before it has read a model: code, the two servers' buffers, the allocator's reserve.
const RUNTIME_BYTES: u64 = 24 << 20;

/// Rows of the batches that a variant's memory is told for.
const TOLD_ROWS: u64 = 16;

/// Bytes that a connection sends in its first round trip: 10 segments of 1,460 bytes (RFC 6928).
const FIRST_WINDOW_BYTES: u64 = 14_600;

/// What each of `replicas` pods requests: cores for the usual load, at `request_ns` for each request, and the model's memory.
pub fn request(load: &Load, variant: &Variant, request_ns: u64, replicas: u64) -> Resources {
    Resources {
        cpu_millis: load.cpu_millis(request_ns, replicas),
        memory_bytes: memory_bytes(variant, load.max_batch_size),
    }
}

/// Of a pod that answers up to `max_batch_size` requests at once: its buffers are made for as many.
pub fn memory_bytes(variant: &Variant, max_batch_size: u64) -> u64 {
    const MEBIBYTE: u64 = 1 << 20;
    let scratch = |rows: u64| variant.scratch_bytes.saturating_mul(rows);
    let model = variant.memory_bytes.saturating_sub(scratch(TOLD_ROWS)).saturating_add(scratch(max_batch_size));
    model.saturating_add(RUNTIME_BYTES).div_ceil(MEBIBYTE).saturating_mul(MEBIBYTE)
}

/// What pods take of a node that each request so much: each has its own copy of the model's bytes.
pub fn takes(request: Resources, variant: &Variant, pods: u64) -> Room {
    let Resources { cpu_millis, memory_bytes } = request.times(pods);
    Room { cpu_millis, memory_bytes, store_bytes: store_bytes(variant.bytes).saturating_mul(pods) }
}

/// What a pod's copy of the model may take of its node's disk: a tenth more than the variant's bytes, and 4 MiB for what goes with
/// them.
pub fn store_bytes(variant_bytes: u64) -> u64 {
    variant_bytes.saturating_add(variant_bytes / 10).saturating_add(4 << 20)
}

/// At the edge: `local` is the round trip between a router and a pod of the same site, over which bytes take no time.
pub fn at_edge(load: &Load, local: Term, service: &Service<'_>, busy_ppm: u64) -> Prediction {
    let nothing = Term { p50_us: 0, p99_us: 0, basis: local.basis };
    together(local, nothing, load.queue(service, busy_ppm), compute(service))
}

/// In the cloud pool. Its queue is that of the site's own load: the pool grows with the load of all sites, so that none of
/// its replicas is busier than 70 %.
pub fn in_cloud(model: &Model, link: &Link, service: &Service<'_>, busy_ppm: u64) -> Prediction {
    let round_trip =
        Term { p50_us: link.round_trip_p50_us, p99_us: link.round_trip_p99_us, basis: link.round_trip_basis };
    together(round_trip, transfer(model, link), Load::from(model).queue(service, busy_ppm), compute(service))
}

/// Bytes of a request and its answer over the uplink, and the round trips that a connection takes to open its window
/// after it was idle: ⌈log₂(bytes / first window + 1)⌉ − 1.
fn transfer(model: &Model, link: &Link) -> Term {
    let bytes = model.request_bytes.saturating_add(model.response_bytes);
    let sending = |bits_per_second: u64| ratio(bytes, 8_000_000, bits_per_second);
    let windows = u128::from(bytes.div_ceil(FIRST_WINDOW_BYTES)) + 1;
    let waits = if link.keeps_window { 0 } else { u64::from(windows.next_power_of_two().ilog2()).saturating_sub(1) };
    Term {
        p50_us: sending(link.uplink_bits_per_second).saturating_add(waits.saturating_mul(link.round_trip_p50_us)),
        p99_us: sending(link.uplink_low_bits_per_second).saturating_add(waits.saturating_mul(link.round_trip_p99_us)),
        basis: if waits > 0 { link.uplink_basis.max(link.round_trip_basis) } else { link.uplink_basis },
    }
}

fn compute(service: &Service<'_>) -> Term {
    let (p50_ns, p99_ns) = (service.p50_ns(1_000), service.one_p99_ns());
    Term { p50_us: p50_ns.div_ceil(1_000), p99_us: p99_ns.div_ceil(1_000), basis: service.basis }
}

/// Tails of independent terms do not add up: the root of their squares does. The plain sum stays as the bound.
pub fn together(link: Term, transfer: Term, queue: Term, compute: Term) -> Prediction {
    let terms = [link, transfer, queue, compute];
    let sum = |part: fn(&Term) -> u64| terms.iter().map(part).fold(0, u64::saturating_add);
    let tail = root_of_squares(terms.map(|term| term.p99_us.saturating_sub(term.p50_us)));
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

fn root_of_squares(parts: [u64; 4]) -> u64 {
    let squares = parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(part.checked_mul(*part)?));
    let large = || parts.iter().map(|part| u128::from(*part).pow(2)).fold(0, u128::saturating_add);
    squares.map_or_else(|| saturate(large().isqrt()), u64::isqrt)
}

/// The smallest budget that the prediction is accepted for: a tenth of margin where all was measured, half of the bound
/// where anything was not.
pub fn least_budget_us(prediction: &Prediction) -> u64 {
    match prediction.basis {
        Basis::Measured => ratio(prediction.p99_us, 11, 10),
        Basis::Estimated | Basis::Assumed => ratio(prediction.bound_us, 3, 2),
    }
}

pub(super) fn saturate(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// ⌈a·b / c⌉. Where the product has 64 bits, so has the division, which is many times faster.
pub(in crate::plan) fn ratio(a: u64, b: u64, c: u64) -> u64 {
    let c = c.max(1);
    match a.checked_mul(b) {
        Some(product) => product.div_ceil(c),
        None => saturate((u128::from(a) * u128::from(b)).div_ceil(u128::from(c))),
    }
}
