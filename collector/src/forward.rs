//! Forwards one dataset for ever: when there is something to send, the window is open, and the destination answers.

use crate::clock::Now;
use crate::config::Dataset;
use crate::destination::{Destination, Pace, destination};
use crate::forgotten::Forgotten;
use crate::intake::Intake;
use crate::upload::{UploadError, is_due, send, shard_bytes};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use jiff::Timestamp;
use std::path::Path;
use std::time::Duration;

/// How often it is looked whether there is something to send.
const LOOK: Duration = Duration::from_secs(1);
/// A window's wait is looked at anew: clocks jump.
const LOOK_AT_WINDOW: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_LIMIT: Duration = Duration::from_secs(300);

/// Statistics are taken over `statistics` each.
pub async fn forward(name: &str, node: &str, claims: &Path, statistics: Duration, dataset: &Dataset, intake: &Intake) {
    let upload = &dataset.upload;
    let window = match upload.window.as_ref().map(|hours| hours.window()).transpose() {
        Ok(window) => window,
        Err(why) => return tracing::error!(dataset = name, why, "nothing is sent"),
    };
    // Samples grow old meanwhile.
    let (mut place, mut forgotten) = (None, Forgotten::default());
    let backoff = || {
        ExponentialBuilder::new()
            .with_min_delay(AGAIN)
            .with_max_delay(AGAIN_LIMIT)
            .with_jitter()
            .without_max_times()
            .build()
    };
    let mut waits = backoff();
    let mut statistics = tokio::time::interval(statistics);
    loop {
        let wait = window.as_ref().map_or(Duration::ZERO, |window| window.wait(Timestamp::now()));
        let wait = if wait.is_zero() {
            let sent = async {
                let place = match &mut place {
                    Some(place) => place,
                    none => none.insert(destination(&dataset.uri, claims, Pace::new(upload.bytes_per_second)).await?),
                };
                once(node, dataset, place.as_ref(), &mut forgotten, intake).await
            };
            match sent.await {
                Ok(true) => {
                    waits = backoff();
                    Duration::ZERO
                }
                Ok(false) => LOOK,
                Err(error) => {
                    let wait = waits.next().unwrap_or(AGAIN_LIMIT);
                    tracing::warn!(
                        dataset = name,
                        error = &error as &dyn std::error::Error,
                        ?wait,
                        "not sent; it is held"
                    );
                    wait
                }
            }
        } else {
            wait.min(LOOK_AT_WINDOW)
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = statistics.tick() => intake.tell_statistics().await,
        }
        let expired = intake.keeper.with(|store| store.expire(&Now::read())).await;
        if let Ok(Err(error)) = expired {
            tracing::warn!(dataset = name, error = &error as &dyn std::error::Error, "old samples stay");
        }
    }
}

/// Sends a shard if one is due.
async fn once(
    node: &str,
    dataset: &Dataset,
    destination: &dyn Destination,
    forgotten: &mut Forgotten,
    intake: &Intake,
) -> Result<bool, UploadError> {
    let most = shard_bytes(dataset.upload.bytes_per_second);
    let (held, oldest) = intake.keeper.with(|store| (store.holds().1, store.oldest_age(&Now::read()))).await?;
    if !is_due(held, oldest, most, dataset.upload.delay()) {
        return Ok(false);
    }
    send(&intake.keeper.store, destination, forgotten, node, most).await
}
