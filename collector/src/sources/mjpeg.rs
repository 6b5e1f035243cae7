//! A camera that answers one request with JPEG after JPEG (`multipart/x-mixed-replace`).

use crate::intake::{Chosen, Intake, Taken};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::{Bytes, BytesMut};
use std::time::{Duration, Instant};

/// The largest picture; what is longer is no picture.
const LARGEST: usize = 4 << 20;
/// A camera that says nothing for so long is asked anew.
const SILENT: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_LIMIT: Duration = Duration::from_secs(60);

pub async fn run(url: &str, every_seconds: u64, share: f64, intake: &Intake) {
    let every = Duration::from_secs(every_seconds);
    let backoff =
        || ExponentialBuilder::new().with_min_delay(AGAIN).with_max_delay(AGAIN_LIMIT).without_max_times().build();
    let mut waits = backoff();
    loop {
        let mut seen = false;
        if let Err(error) = follow(url, every, share, intake, &mut seen).await {
            // The address may hold a password: it is not told.
            tracing::warn!(error = &error.without_url() as &dyn std::error::Error, "a camera broke off");
        }
        if seen {
            waits = backoff();
        }
        tokio::time::sleep(waits.next().unwrap_or(AGAIN_LIMIT)).await;
    }
}

async fn follow(url: &str, every: Duration, share: f64, intake: &Intake, seen: &mut bool) -> reqwest::Result<()> {
    let client = reqwest::Client::builder().read_timeout(SILENT).build()?;
    let mut answer = client.get(url).send().await?.error_for_status()?;
    let camera = answer.url().host_str().unwrap_or("camera").to_owned();
    let (mut buffer, mut last) = (BytesMut::new(), None::<Instant>);
    while let Some(chunk) = answer.chunk().await? {
        buffer.extend_from_slice(&chunk);
        while let Some(picture) = picture(&mut buffer) {
            if last.is_some_and(|last| last.elapsed() < every) {
                continue;
            }
            (*seen, last) = (true, Some(Instant::now()));
            let taken = Taken {
                content: picture,
                source: format!("mjpeg:{camera}"),
                camera: camera.clone(),
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

/// The first whole JPEG; what stands before it goes.
fn picture(buffer: &mut BytesMut) -> Option<Bytes> {
    let Some(start) = buffer.windows(2).position(|pair| pair == [0xff, 0xd8]) else {
        let keep = buffer.len().saturating_sub(1);
        let _ = buffer.split_to(keep);
        return None;
    };
    match length(&buffer[start..]) {
        Some(length) => {
            let _ = buffer.split_to(start);
            Some(buffer.split_to(length).freeze())
        }
        None => {
            if buffer.len() > LARGEST {
                buffer.clear();
            }
            None
        }
    }
}

/// Of the JPEG that begins here, once it is whole. A segment says its length and is passed over, for it may hold another picture,
/// as EXIF does; in data after it `ff` is followed by zero or a restart.
fn length(jpeg: &[u8]) -> Option<usize> {
    let is_segment_or_end = |pair: &[u8]| pair[0] == 0xff && matches!(pair[1], 0xc0..=0xcf | 0xd9..=0xfe);
    let mut at = 2;
    loop {
        at += jpeg.get(at..)?.windows(2).position(is_segment_or_end)? + 2;
        if jpeg[at - 1] == 0xd9 {
            return Some(at);
        }
        at += usize::from(u16::from_be_bytes(*jpeg.get(at..)?.first_chunk()?));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_found_however_they_come() {
        // The second has a small one in its EXIF: it was cut off there.
        let pictures = [&b"\xff\xd8one\xff\x00\xff\xd9"[..], b"\xff\xd8\xff\xe1\0\x08\xff\xd8..\xff\xd9two\xff\xd9"];
        let parts = pictures.map(|picture| [b"--b\r\nContent-Type: image/jpeg\r\n\r\n", picture, b"\r\n"].concat());
        let stream = [&parts.concat()[..], b"--b"].concat();
        for size in 1..stream.len() {
            let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
            for chunk in stream.chunks(size) {
                buffer.extend_from_slice(chunk);
                found.extend(std::iter::from_fn(|| picture(&mut buffer)));
            }
            assert_eq!(found, pictures, "in pieces of {size}");
        }
    }
}
