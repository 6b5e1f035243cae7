//! A microphone that answers one request with sound without end, as one WAV file: parts of it are samples, each a whole WAV file.

use super::wav::{BadWav, Parts};
use crate::intake::{Chosen, Intake, Taken};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use std::time::{Duration, Instant};

/// A microphone that says nothing for so long is asked anew.
const SILENT: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_LIMIT: Duration = Duration::from_secs(60);

#[derive(thiserror::Error, Debug)]
enum Broken {
    #[error("it cannot be heard")]
    Http(#[source] reqwest::Error),
    #[error(transparent)]
    Wav(#[from] BadWav),
}

/// Takes `window_seconds` of sound, once in `every_seconds` of it.
pub async fn run(url: &str, window_seconds: u64, every_seconds: u64, share: f64, intake: &Intake) {
    let backoff =
        || ExponentialBuilder::new().with_min_delay(AGAIN).with_max_delay(AGAIN_LIMIT).without_max_times().build();
    let (mut waits, mut last) = (backoff(), None);
    loop {
        // One that breaks off, or sends a file that ends, is heard no more often for that.
        let due = last.map(|last| last + Duration::from_secs(every_seconds));
        let (before, parts) = (last, Parts::new(window_seconds, every_seconds));
        if let Err(error) = follow(url, parts, share, intake, (due, &mut last)).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a microphone broke off");
        }
        if last != before {
            waits = backoff();
        }
        tokio::time::sleep(waits.next().unwrap_or(AGAIN_LIMIT)).await;
    }
}

/// Until it breaks off, or its sound is over. Nothing is taken before it is due; `last` is when the last part was taken.
async fn follow(
    url: &str,
    mut parts: Parts,
    share: f64,
    intake: &Intake,
    (due, last): (Option<Instant>, &mut Option<Instant>),
) -> Result<(), Broken> {
    // The address may hold a password: it is not told.
    let unheard = |error: reqwest::Error| Broken::Http(error.without_url());
    let client = reqwest::Client::builder().read_timeout(SILENT).build().map_err(unheard)?;
    let answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    let mut answer = answer.map_err(unheard)?;
    let microphone = answer.url().host_str().unwrap_or("microphone").to_owned();
    while let Some(chunk) = answer.chunk().await.map_err(unheard)? {
        for content in parts.push(&chunk)? {
            let now = Instant::now();
            if due.is_some_and(|due| now < due) {
                continue;
            }
            *last = Some(now);
            let taken = Taken {
                content: content.into(),
                source: format!("microphone:{microphone}"),
                camera: microphone.clone(),
                group: None,
                label: None,
                consent: None,
                chosen: Chosen::Share(share),
            };
            intake.take(taken).await;
        }
        if parts.are_over() {
            break;
        }
    }
    Ok(())
}
