//! What it takes to load a model anew, again and again, while it is asked.

use super::percentiles;
use super::server::{Side, TURN};
use crate::wire::{ModelInferRequest, RepositoryModelLoadRequest};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::task::JoinSet;

/// After so many everything has been used once: what is taken from then on is not given back.
const SETTLED: usize = 10;

/// Asks with so many requests under way for as long as the swaps take.
///
/// # Errors
/// If the server does not let clients load, or does not tell what it takes.
pub(super) async fn run(side: &mut Side, request: &ModelInferRequest, in_flight: usize, swaps: usize) -> Result<Value> {
    side.turn(request, in_flight).await?;
    let over = Arc::new(AtomicBool::new(false));
    let mut asking = JoinSet::new();
    for mut client in side.clients().iter().cycle().take(in_flight).cloned() {
        let (request, over) = (request.clone(), over.clone());
        asking.spawn(async move {
            let (mut waited, mut failed) = (Vec::new(), Vec::new());
            while !over.load(Ordering::Relaxed) {
                let sent = Instant::now();
                match client.model_infer(request.clone()).await {
                    Ok(_) => waited.push(sent.elapsed().as_secs_f64() * 1e3),
                    Err(status) => failed.push(status.to_string()),
                }
            }
            (waited, failed)
        });
    }
    let mut client = side.clients().first().context("no connection")?.clone();
    let mut took = Vec::new();
    let mut settled = None;
    for swap in 1..=swaps {
        let began = Instant::now();
        let load = RepositoryModelLoadRequest { model_name: request.model_name.clone(), ..Default::default() };
        client.repository_model_load(load).await?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        if swap == SETTLED.min(swaps) {
            settled = Some(resident(side).await?);
        }
    }
    let last = resident(side).await?;
    over.store(true, Ordering::Relaxed);
    let (mut waited, mut failed) = (Vec::new(), Vec::new());
    for (more, errors) in asking.join_all().await {
        waited.extend(more);
        failed.extend(errors);
    }
    let mut report = json!({
        "swaps": swaps,
        "swap": percentiles(&mut took),
        "requests": waited.len(),
        "failed": failed.len(),
        "residentBytes": last,
        "residentBytesAfter10": settled,
        "residentRatio": settled.map(|settled| last / settled),
    });
    if !waited.is_empty() {
        report["answered"] = percentiles(&mut waited);
    }
    if let Some(why) = failed.first() {
        report["firstFailure"] = json!(why);
    }
    Ok(report)
}

/// Memory in RAM, once the model that was swapped out is gone: the median of some looks while requests go on.
async fn resident(side: &Side) -> Result<f64> {
    let mut told = Vec::new();
    let mut tick = tokio::time::interval(TURN / 10);
    while told.len() < 21 {
        tick.tick().await;
        told.push(side.resident_bytes().await?.context("swaps are measured with --target-metrics or --target-pid")?);
    }
    told.sort_by(f64::total_cmp);
    Ok(told[told.len() / 2])
}
