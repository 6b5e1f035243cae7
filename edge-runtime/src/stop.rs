//! SIGTERM and SIGINT, as Kubernetes and people send them.

use futures::future::{BoxFuture, Shared};
use tokio::signal::unix::{SignalKind, signal};

/// Completes when it is time to stop; all that serves holds one.
pub type Stop = Shared<BoxFuture<'static, ()>>;

/// Completes when the process is told to stop.
///
/// # Errors
/// If the signals cannot be listened to.
pub async fn requested() -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
