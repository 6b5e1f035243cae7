//! The rate at which this node sends to the cloud tier, from a few probes: health checks about services that nobody has, whose
//! long names are what is sent.

use crate::link::{Alone, Link, round_trip};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::transport::Endpoint;
use tonic_health::pb::health_client::HealthClient;

/// Bytes of the smaller probe: a round trip, and what a link's first window takes.
const SMALL: usize = 4 << 10;
/// The larger one, at first and at most: it grows while round trips could be all of its time, since a window opens by one each.
/// All probes of one measurement together send 4 MB, on a slow link a tenth of one.
const LARGE: usize = 16 << 10;
const LARGEST: usize = 512 << 10;
/// A larger probe that takes so much longer than so many round trips tells the rate.
const CLEAR: Duration = Duration::from_millis(50);
const ROUND_TRIPS: u32 = 3;
/// Pairs of probes, of which the median counts.
const PAIRS: usize = 3;
/// What is told of a link that is as fast, or faster: more is no use to anybody.
const MOST: u64 = 1_000_000_000;
/// Longer than any of them takes at 32 kbit/s.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two measurements, and after one that failed; a fifth more or less. Before the first, up to this: nodes that share a
/// link, and were started together, would each see a part of it.
const EVERY: Duration = Duration::from_secs(6 * 3600);
const AGAIN: Duration = Duration::from_secs(600);
const FIRST: Duration = Duration::from_secs(20);

/// Measures for ever, once the round trip is known, and `alone`; bits per second.
pub async fn probe(
    endpoint: Endpoint,
    alone: Alone,
    mut link: watch::Receiver<Link>,
    uplink: watch::Sender<Option<u64>>,
) {
    let endpoint = endpoint.timeout(PATIENCE).keep_alive_timeout(PATIENCE);
    let known = link.wait_for(Link::is_probed).await.map(drop);
    if known.is_err() {
        return std::future::pending().await;
    }
    sleep(FIRST.mul_f64(fastrand::f64())).await;
    loop {
        let measured = {
            let _alone = alone.lock().await;
            measure(&endpoint).await
        };
        let pause = match measured {
            Ok(rate) => {
                tracing::info!(bits_per_second = rate, "uplink measured");
                uplink.send_replace(Some(rate));
                EVERY
            }
            Err(error) => {
                let error = error.as_ref() as &dyn std::error::Error;
                tracing::warn!(error, "uplink not measured; the last number stays");
                AGAIN
            }
        };
        sleep(pause.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
    }
}

async fn measure(endpoint: &Endpoint) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    // A connection of its own, so that nobody's probe waits behind these bytes.
    let mut client = HealthClient::new(endpoint.connect().await?);
    let mut sent = async |bytes: usize| round_trip(&mut client, "-".repeat(bytes)).await;
    let mut large = LARGE;
    loop {
        // The first of each size opens the window.
        sent(large).await?;
        let (more, less) = (sent(large).await?, sent(SMALL).await?);
        if more >= ROUND_TRIPS * less + CLEAR || large >= LARGEST {
            break;
        }
        large *= 2;
    }
    let mut rates = Vec::new();
    for _ in 0..PAIRS {
        rates.push(rate(large - SMALL, sent(large).await?, sent(SMALL).await?));
    }
    rates.sort_unstable();
    Ok(rates[PAIRS / 2])
}

/// Of the bytes that one probe has more, in the time that it took longer.
fn rate(bytes: usize, large: Duration, small: Duration) -> u64 {
    let longer = large.saturating_sub(small).as_micros().max(1);
    u64::try_from(bytes as u128 * 8_000_000 / longer).unwrap_or(MOST).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_stream::wrappers::TcpListenerStream;

    #[test]
    fn the_rate_is_that_of_what_came_later() {
        let ms = Duration::from_millis;
        assert_eq!(rate(125_000, ms(140), ms(40)), 10_000_000);
        assert_eq!(rate(125_000, ms(40), ms(40)), MOST);
        assert_eq!(rate(125_000, ms(39), ms(40)), MOST);
    }

    /// Passes on what a client sends, so many bytes a millisecond.
    async fn slowed(server: std::net::SocketAddr, bytes_per_ms: usize) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                server.set_nodelay(true).unwrap();
                let ((mut from, mut to), (mut back, mut answers)) = (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut back, &mut to).await });
                tokio::spawn(async move {
                    let mut buffer = vec![0; bytes_per_ms];
                    while let Ok(read @ 1..) = from.read(&mut buffer).await {
                        answers.write_all(&buffer[..read]).await.unwrap();
                        sleep(Duration::from_millis(1) * read as u32 / bytes_per_ms as u32).await;
                    }
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn a_slow_link_is_seen_to_be_slow() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let (_reporter, health) = tonic_health::server::health_reporter();
        let served = tonic::transport::Server::builder()
            .add_service(health)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(served);
        // 8 Mbit/s at the most: a timer may be late, never early.
        let link = slowed(server, 1_000).await;
        let rate = measure(&crate::link::endpoint(&link.to_string()).unwrap()).await.unwrap();
        assert!(rate <= 9_000_000, "{rate}");
        let (sender, mut uplink) = watch::channel(None);
        let known = watch::Sender::new(Link::probed_now());
        let endpoint = crate::link::endpoint(&server.to_string()).unwrap();
        tokio::spawn(probe(endpoint, Alone::default(), known.subscribe(), sender));
        assert!(uplink.wait_for(Option::is_some).await.unwrap().is_some_and(|fast| fast > rate));
    }
}
