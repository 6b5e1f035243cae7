//! SIGTERM and SIGINT, as Kubernetes and people send them.

use tokio::signal::unix::{SignalKind, signal};

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
