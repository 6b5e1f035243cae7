//! Paces what is sent: a link that clients use is never filled.

use crate::window::Bucket;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Sent at once; then it is waited.
const SLICE: usize = 16 << 10;

/// What a data set sends, in all of its uploads together.
#[derive(Clone, Debug, Default)]
pub struct Pace(Option<Arc<Mutex<Bucket>>>);

impl Pace {
    /// `None` is no bound.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self(bytes_per_second.map(|rate| Arc::new(Mutex::new(Bucket::new(rate)))))
    }

    /// Waits until so many bytes may be sent.
    pub async fn take(&self, bytes: usize) {
        if let Some(bucket) = &self.0 {
            let wait = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(bytes as u64, Instant::now());
            tokio::time::sleep(wait).await;
        }
    }

    /// Content in slices, each when it may be sent.
    pub fn stream(&self, content: Bytes) -> impl Stream<Item = Bytes> + Send + use<> {
        let slices = (0..content.len()).step_by(SLICE).map(move |at| content.slice(at..content.len().min(at + SLICE)));
        let pace = self.clone();
        stream::iter(slices).then(move |slice| {
            let pace = pace.clone();
            async move {
                pace.take(slice.len()).await;
                slice
            }
        })
    }
}
