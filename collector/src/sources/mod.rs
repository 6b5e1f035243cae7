//! Sources that this collector asks or watches by itself. Who posts, comes by the door.

mod directory;
mod microphone;
mod mjpeg;
mod mqtt;
mod tls;
mod wav;

use crate::config::{From, Source};
use crate::intake::Intake;

/// Runs a source for ever.
pub async fn run(source: Source, intake: &Intake, client: &str) {
    let share = source.share;
    match source.from {
        From::Http {} => {}
        From::Directory { path } => directory::run(&path, share, intake).await,
        From::Mqtt { broker, topic } => mqtt::run(&broker, &topic, share, intake, client).await,
        From::Microphone { url, window_seconds, every_seconds } => {
            microphone::run(&url, window_seconds, every_seconds, share, intake).await;
        }
        From::Mjpeg { url, every_seconds } => mjpeg::run(&url, every_seconds, share, intake).await,
    }
}
