//! A microphone that answers one request with sound without end, as one WAV file: parts of it are samples, each a whole WAV file.

use super::wav::{BadWav, Parts};
use crate::intake::{Chosen, Intake, Taken};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use std::time::Duration;

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
    let mut waits = backoff();
    loop {
        let (mut heard, parts) = (false, Parts::new(window_seconds, every_seconds));
        if let Err(error) = follow(url, parts, share, intake, &mut heard).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a microphone broke off");
        }
        if heard {
            waits = backoff();
        }
        tokio::time::sleep(waits.next().unwrap_or(AGAIN_LIMIT)).await;
    }
}

async fn follow(url: &str, mut parts: Parts, share: f64, intake: &Intake, heard: &mut bool) -> Result<(), Broken> {
    // The address may hold a password: it is not told.
    let unheard = |error: reqwest::Error| Broken::Http(error.without_url());
    let client = reqwest::Client::builder().read_timeout(SILENT).build().map_err(unheard)?;
    let answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    let mut answer = answer.map_err(unheard)?;
    let microphone = answer.url().host_str().unwrap_or("microphone").to_owned();
    while let Some(chunk) = answer.chunk().await.map_err(unheard)? {
        for content in parts.push(&chunk)? {
            *heard = true;
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
    }
    Ok(())
}
