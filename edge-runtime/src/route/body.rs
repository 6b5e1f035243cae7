//! Bodies of requests: read whole, within a size, a time, and a room that all that are under way share.

use super::Limits;
use crate::server::let_go;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;

/// How long a body waits for room: most requests take less to be answered, and leave theirs.
const PATIENCE: Duration = Duration::from_millis(500);
/// Without a limit of memory.
const MOST: usize = 1 << 30;
/// Of each body so much lies in a half of the room that the rest of large ones cannot take: they keep no small ones out.
const BEGINNING: usize = 1 << 20;

/// Bytes of the requests that are under way, in a process that may have so much memory: half of it, the other half is for answers,
/// for what waits for the collector, and for connections.
pub fn room_bytes(memory_limit: Option<u64>) -> usize {
    memory_limit.map_or(MOST, |limit| usize::try_from(limit / 2).unwrap_or(usize::MAX).min(MOST))
}

#[derive(Clone)]
pub(super) struct Bodies {
    /// No request is larger than a half of the room.
    limits: Limits,
    room: Halves<Half>,
}

/// For beginnings, and for what follows them.
#[derive(Clone)]
pub(super) struct Halves<T> {
    beginning: T,
    rest: T,
}

#[derive(Clone)]
struct Half {
    /// Whose it is, as those are told who find it full.
    of: &'static str,
    bytes: Arc<Semaphore>,
}

/// A body, and its room until that is dropped.
pub(super) type Read = (Bytes, Halves<OwnedSemaphorePermit>);

impl Bodies {
    pub fn new(limits: Limits) -> Self {
        let most = (limits.room_bytes / 2).min(Semaphore::MAX_PERMITS);
        let limits = Limits { max_message_bytes: limits.max_message_bytes.min(most), ..limits };
        let half = |of| Half { of, bytes: Arc::new(Semaphore::new(most)) };
        Self { limits, room: Halves { beginning: half("requests"), rest: half("large requests") } }
    }

    /// # Errors
    /// [`Status`]: it is too large, too slow, or finds no room.
    pub async fn read(&self, mut body: Body) -> Result<Read, Status> {
        let Limits { max_message_bytes, body_timeout, .. } = self.limits;
        let status = match timeout(body_timeout, self.whole(&mut body)).await {
            Ok(Ok(read)) => return Ok(read),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded(format!("the request was not there within {body_timeout:?}")),
        };
        tokio::spawn(timeout(body_timeout, let_go(body, max_message_bytes)));
        Err(status)
    }

    async fn whole(&self, body: &mut Body) -> Result<Read, Status> {
        let (limit, Halves { beginning, rest }) = (self.limits.max_message_bytes, &self.room);
        let (mut frames, mut size) = (Vec::new(), 0);
        let mut held = Halves { beginning: self.taken(beginning, 0).await?, rest: self.taken(rest, 0).await? };
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            let begins = data.len().min(BEGINNING.saturating_sub(size));
            size += data.len();
            if size > limit {
                return Err(Status::resource_exhausted(format!("the request is larger than {limit} bytes")));
            }
            held.beginning.merge(self.taken(beginning, begins).await?);
            held.rest.merge(self.taken(rest, data.len() - begins).await?);
            frames.push(data);
        }
        if let [alone] = &frames[..] {
            return Ok((alone.clone(), held));
        }
        let mut whole = BytesMut::with_capacity(size);
        // Each goes once it is copied: nowhere lie both.
        frames.into_iter().for_each(|frame| whole.extend_from_slice(&frame));
        Ok((whole.freeze(), held))
    }

    async fn taken(&self, half: &Half, bytes: usize) -> Result<OwnedSemaphorePermit, Status> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        match timeout(PATIENCE, half.bytes.clone().acquire_many_owned(bytes)).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => {
                let (of, room) = (half.of, self.limits.room_bytes);
                let full = format!("{of} under way take their half of {room} bytes; try again later");
                Err(Status::resource_exhausted(full))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_half_of_the_memory_that_is_known() {
        let check = |memory: Option<u64>, expected: usize| assert_eq!(room_bytes(memory), expected, "{memory:?}");
        check(Some(128 << 20), 64 << 20);
        check(Some(64 << 30), 1 << 30);
        check(Some(0), 0);
        check(None, 1 << 30);
    }
}
