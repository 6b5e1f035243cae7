//! What a load makes of a service: batches, utilisation, replicas, and how long a client waits for its turn.

use super::service::Service;
use super::{SHOWN_BUSY_PPM, ratio};
use crate::plan::{FleetModel, Model, Term};
use sconce_batch as batch;

/// A replica is not planned to be busier than 70 % at peak: beyond, queues grow faster than load.
pub const BUSY_LIMIT_PPM: u64 = 700_000;

/// Below 1 % busy a request meets no other.
const IDLE_PPM: u64 = 10_000;

/// Least CPU that a pod requests: its share when the node is full.
const LEAST_CPU_MILLIS: u64 = 50;

/// Rounds of the fixed point; a batch that still grows after them is near its limit.
const ROUNDS: usize = 20;

/// The requests that one site, or all that a pool serves, send.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub requests_per_second: u64,
    /// Highest load over the usual one, in thousandths of a percent.
    pub peak_factor_millis: u64,
    pub max_batch_size: u64,
}

impl From<&Model> for Load {
    fn from(model: &Model) -> Self {
        let Model { requests_per_second, peak_factor_millis, max_batch_size, .. } = *model;
        Self { requests_per_second, peak_factor_millis, max_batch_size }
    }
}

impl Load {
    /// Of a pool that serves so much, and a reserve for those that fall back to it.
    pub fn of_pool(model: &FleetModel, load: u64, reserve_millis: u64) -> Self {
        let FleetModel { peak_factor_millis, max_batch_size, .. } = *model;
        let requests_per_second = ratio(load, reserve_millis.saturating_add(100_000), 100_000);
        Self { requests_per_second, peak_factor_millis, max_batch_size }
    }

    /// Requests in a thousand seconds at peak.
    fn peak_millis(&self) -> u64 {
        ratio(self.requests_per_second, self.peak_factor_millis, 100)
    }

    /// The largest batch that is reckoned with: one of the table of responses.
    fn full_batch(&self) -> u64 {
        batch::Load::size(self.max_batch_size)
    }

    /// How busy the peak keeps each of `replicas` when all batches are full: ρ = λ·S(B)/B, in millionths.
    fn busy_ppm(&self, service: &Service<'_>, replicas: u64) -> u64 {
        let full = self.full_batch();
        ratio(self.peak_millis(), service.p50_ns(full * 1_000), replicas.max(1).saturating_mul(full * 1_000_000))
    }

    /// Smallest number of pods that the peak keeps no busier than 70 %, at most `most`; and how busy it keeps them.
    pub fn replicas(&self, service: &Service<'_>, most: u64) -> (u64, u64) {
        let alone = self.busy_ppm(service, 1);
        match alone.div_ceil(BUSY_LIMIT_PPM).clamp(1, most) {
            1 => (1, alone),
            replicas => (replicas, self.busy_ppm(service, replicas)),
        }
    }

    /// Nanoseconds of a core for one request, in batches as the peak makes them: S(b)/b with b = clamp(λ·S(b), 1, B).
    pub fn request_ns(&self, service: &Service<'_>, replicas: u64) -> u64 {
        let most = self.full_batch() * 1_000;
        let mut rows = 1_000;
        for _ in 0..ROUNDS {
            let came = ratio(self.peak_millis(), service.p50_ns(rows), replicas.max(1).saturating_mul(1_000_000_000));
            let next = came.clamp(1_000, most);
            if next <= rows {
                break;
            }
            rows = next;
        }
        ratio(service.p50_ns(rows), 1_000, rows)
    }

    /// What each of `replicas` pods requests: the cores that the usual load keeps 70 % busy, `request_ns` for each request.
    pub fn cpu_millis(&self, request_ns: u64, replicas: u64) -> u64 {
        let each = replicas.max(1).saturating_mul(700_000);
        ratio(self.requests_per_second, request_ns, each).max(LEAST_CPU_MILLIS)
    }

    /// What a client waits until its batch begins. The response under this load is looked up; the queue is what, added to the
    /// service as independent terms add ([`super::together`]), makes that response.
    pub fn queue(&self, service: &Service<'_>, busy_ppm: u64) -> Term {
        let basis = service.basis;
        let busy = busy_ppm.min(SHOWN_BUSY_PPM);
        if busy <= IDLE_PPM {
            return Term { p50_us: 0, p99_us: 0, basis };
        }
        let (one_p50, one_p99) = (service.p50_ns(1_000), service.one_p99_ns());
        let load = batch::Load {
            max_batch_size: self.full_batch(),
            gain: self.gain_ppm(service),
            busy,
            tail: share(one_p99, one_p50),
        };
        let batch::Response { p50, p99 } = batch::response(load);
        // Of an overloaded place there is no response to look up: what waits grows as 1/(1 − ρ).
        let grown = |response: u64| match busy.saturating_sub(BUSY_LIMIT_PPM) {
            0 => response,
            _ => ratio(response, batch::UNIT - BUSY_LIMIT_PPM, batch::UNIT - busy),
        };
        let ns = |response: u64| ratio(grown(response), one_p50, batch::UNIT);
        let tail = ns(p99).saturating_sub(ns(p50));
        let own_tail = one_p99 - one_p50;
        let p50_ns = ns(p50).saturating_sub(one_p50);
        // a² − b² = (a + b)·(a − b).
        let tail_ns = match tail.saturating_add(own_tail).checked_mul(tail.saturating_sub(own_tail)) {
            Some(square) => square.isqrt(),
            None => tail,
        };
        Term { p50_us: p50_ns.div_ceil(1_000), p99_us: p50_ns.saturating_add(tail_ns).div_ceil(1_000), basis }
    }

    /// The share of a single request's time that a larger batch does not take again.
    fn gain_ppm(&self, service: &Service<'_>) -> u64 {
        let full = self.full_batch();
        if full == 1 {
            return 0;
        }
        let (one, all) = (service.p50_ns(1_000), service.p50_ns(full * 1_000));
        let each = all.saturating_sub(one) / (full - 1);
        batch::UNIT.saturating_sub(share(each, one))
    }
}

/// `part / whole`, in millionths.
fn share(part: u64, whole: u64) -> u64 {
    ratio(part, batch::UNIT, whole)
}
