//! Forwards what a store holds: plans a shard, sends it, and only then lets it go.
//!
//! A shard is written down before the first byte leaves, and has the same name and bytes when it is sent again. Its manifest is
//! put where none is: whatever crash falls between, a sample is in one manifest. What was forgotten meanwhile goes with no shard: a
//! planned one keeps its name without it, which is the name that it has where it has arrived and was forgotten there.

use crate::clock::Now;
use crate::destination::{Destination, DestinationError};
use crate::forgotten::{Forgotten, ForgottenError};
use crate::sample::Sample;
use crate::shard::{PackError, Packed, pack};
use crate::store::{Shard, Store, StoreError};
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The largest tar. It is in memory while it is sent: far below the 64 MiB that readers like best.
pub const LARGEST: u64 = 16 << 20;
const SMALLEST: u64 = 256 << 10;
/// A shard that is cut off is sent anew: it takes no longer than this.
const TAKES: u64 = 60;

#[derive(thiserror::Error, Debug)]
pub enum UploadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Destination(#[from] DestinationError),
    #[error(transparent)]
    Forgotten(#[from] ForgottenError),
    #[error("a task of the store broke off")]
    Task(#[from] tokio::task::JoinError),
}

/// How many bytes a shard has, at such a rate.
pub fn shard_bytes(bytes_per_second: Option<u64>) -> u64 {
    bytes_per_second.map_or(LARGEST, |rate| rate.saturating_mul(TAKES).clamp(SMALLEST, LARGEST))
}

/// Whether it is worth while to send what is held.
pub fn is_due(held_bytes: u64, oldest: Option<Duration>, shard_bytes: u64, delay: Duration) -> bool {
    oldest.is_some_and(|age| held_bytes >= shard_bytes || age >= delay)
}

pub fn locked(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends one shard; false if there was none to send.
///
/// # Errors
/// [`UploadError`]; to be called again, after a while.
pub async fn send(
    store: &Arc<Mutex<Store>>,
    destination: &dyn Destination,
    forgotten: &mut Forgotten,
    node: &str,
    most_bytes: u64,
) -> Result<bool, UploadError> {
    let looking = store.clone();
    if tokio::task::spawn_blocking(move || locked(&looking).holds().0).await? == 0 {
        return Ok(false);
    }
    let forgotten = forgotten.read(destination).await?;
    let (planning, node) = (store.clone(), node.to_owned());
    let planned = tokio::task::spawn_blocking(move || {
        let now = Now::read();
        let planned = {
            // Under one guard: what is kept between the two would be planned, forgotten or not.
            let mut store = locked(&planning);
            store.forget(&forgotten, &now)?;
            store.plan(most_bytes, &now)?
        };
        let Some(shard) = planned else { return Ok(None) };
        let samples = samples(&planning, &shard, &now)?;
        let packed = pack(&node, &shard, &samples)?;
        Ok::<_, UploadError>(Some((shard, packed)))
    });
    let Some((shard, Packed { tar, manifest })) = planned.await?? else { return Ok(false) };
    let bytes = tar.as_ref().map_or(0, |(_, tar)| tar.len()) + manifest.1.len();
    if let Some((name, tar)) = tar {
        destination.put(&name, tar.into()).await?;
    }
    destination.put(&manifest.0, manifest.1.into()).await?;
    let (store, number) = (store.clone(), shard.number);
    tokio::task::spawn_blocking(move || locked(&store).sent(number, bytes as u64, &Now::read())).await??;
    Ok(true)
}

/// What a shard holds. A sample that the disk has lost is dropped, and the shard is no shard any more.
fn samples(store: &Mutex<Store>, shard: &Shard, now: &Now) -> Result<Vec<(Sample, Bytes)>, StoreError> {
    let mut samples = Vec::with_capacity(shard.ids.len());
    for id in &shard.ids {
        let mut store = locked(store);
        match store.read(id) {
            Ok(read) => samples.extend(read),
            Err(error) => {
                store.lost(*id, now)?;
                return Err(error);
            }
        }
    }
    Ok(samples)
}
