//! What a place costs, in thousandths of a point per hour.

use super::saturate;
use crate::plan::{Model, Prices, Resources};

/// Least share of a pool's replica that a site is charged for, in thousandths: an idle site still keeps a connection.
const LEAST_SHARE_MILLIS: u64 = 10;

/// For what the pods request of an edge node.
pub fn edge(request: Resources, replicas: u64, prices: &Prices) -> u64 {
    let cpu = u128::from(request.cpu_millis) * u128::from(prices.edge_cpu_hour);
    let memory = per_gib(u128::from(request.memory_bytes) * 1_000, prices.edge_memory_gib_hour);
    saturate((cpu + memory).saturating_mul(u128::from(replicas)))
}

/// For the site's share of the pool, which takes `request_ns` for each request, and for its bytes.
pub fn cloud(model: &Model, request_ns: u64, memory_bytes: u64, prices: &Prices) -> u64 {
    // Cores that the load keeps 70 % busy, in millionths; as a share of a replica, which has one, in thousandths.
    let cores_ppm = (u128::from(model.requests_per_second) * u128::from(request_ns)).div_ceil(700);
    let cpu = cores_ppm.saturating_mul(u128::from(prices.cloud_cpu_hour)).div_ceil(1_000);
    let share_millis = cores_ppm.div_ceil(1_000).max(u128::from(LEAST_SHARE_MILLIS));
    let memory = per_gib(u128::from(memory_bytes).saturating_mul(share_millis), prices.cloud_memory_gib_hour);
    let bytes = u128::from(model.request_bytes.saturating_add(model.response_bytes));
    let sent = per_gib((u128::from(model.requests_per_second) * 3_600_000).saturating_mul(bytes), prices.uplink_gib);
    saturate(cpu.saturating_add(memory).saturating_add(sent))
}

fn per_gib(amount: u128, price: u64) -> u128 {
    (amount.saturating_mul(u128::from(price))).div_ceil(1 << 30)
}
