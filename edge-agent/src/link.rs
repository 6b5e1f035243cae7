//! The round trip to the cloud tier, and to the router beside us, probed by gRPC health checks over one kept connection.

use crate::metrics::Metrics;
use crate::window::{BURST, P99_FROM, Summary, Window};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// Longer than any link that serves inference; a probe that takes longer means that the link is lost.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// So long the first samples are taken again while they are uneven: a node that is starting measures itself, not its link.
const STARTING: Duration = Duration::from_secs(60);
/// Before they are taken again.
const PAUSE: Duration = Duration::from_secs(2);

/// Held by who measures: both at once would measure each other.
pub type Alone = Arc<Mutex<()>>;

/// What is known of the link now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// `None` until the first probe was answered; kept when the link is lost.
    pub round_trip: Option<Summary>,
    /// When the cloud tier last answered.
    pub contact: Option<Instant>,
}

impl Link {
    /// Enough probes tell the tail.
    pub fn is_probed(&self) -> bool {
        self.round_trip.is_some_and(|round_trip| round_trip.samples >= P99_FROM)
    }

    #[cfg(test)]
    pub fn probed_now() -> Self {
        let round_trip =
            Summary { p50: Duration::from_millis(1), p99: Some(Duration::from_millis(1)), samples: P99_FROM };
        Self { round_trip: Some(round_trip), contact: Some(Instant::now()) }
    }
}

/// The address to probe, from HOST:PORT.
///
/// # Errors
/// If that is no address.
pub fn endpoint(cloud: &str) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{cloud}"))?.connect_timeout(LOST_AFTER).timeout(LOST_AFTER);
    // The connection is kept between bursts, through NATs too, and a silent death is noticed.
    Ok(endpoint
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(LOST_AFTER)
        .keep_alive_while_idle(true))
}

/// Probes for ever: 500 probes first, again while they are uneven (for a while), then a burst of 20 each `interval`; all
/// anew when the link has become another; connects again when the link is lost.
pub async fn probe(who: &str, endpoint: Endpoint, prober: &mut Prober) {
    loop {
        let mut backoff = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(Duration::from_millis(250))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times()
            .build();
        let mut said = false;
        let channel = loop {
            match endpoint.connect().await {
                Ok(channel) => break channel,
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "{who} not reached; trying until it is"
                        );
                    }
                    prober.metrics.probe_lost();
                    sleep(backoff.next().unwrap_or(prober.interval)).await;
                }
            }
        };
        tracing::info!(address = %endpoint.uri(), "connected to the {who}");
        let mut client = HealthClient::new(channel);
        prober.begin();
        let lost = loop {
            match prober.burst(&mut client).await {
                Ok(pause) => sleep(pause).await,
                Err(lost) => break lost,
            }
        };
        prober.metrics.probe_lost();
        tracing::warn!(error = &lost as &dyn std::error::Error, "link to the {who} lost; the last numbers stay");
        sleep(Duration::from_millis(250)).await;
    }
}

/// Measures one way by bursts of probes.
pub struct Prober {
    alone: Alone,
    interval: Duration,
    window: Window,
    link: watch::Sender<Link>,
    metrics: Metrics,
    /// The first samples are still to come, or are taken again.
    first: bool,
    began: Instant,
    /// Probes go several ways, in turn: that they differ is no change.
    mixed: bool,
}

impl Prober {
    pub fn new(alone: Alone, interval: Duration, link: watch::Sender<Link>, metrics: Metrics) -> Self {
        Self {
            alone,
            interval,
            window: Window::default(),
            link,
            metrics,
            first: true,
            began: Instant::now(),
            mixed: false,
        }
    }

    /// Over a new connection the window is gone on with.
    fn begin(&mut self) {
        self.began = Instant::now();
        self.first = self.window.len() < P99_FROM;
    }

    /// From now on it is several ways, in turn: nothing of the one before counts.
    pub fn begin_mixed(&mut self) {
        self.mixed = true;
        self.window = Window::default();
        self.begin();
    }

    /// As many probes as are wanted now; how long to pause then.
    ///
    /// # Errors
    /// If one gets no answer.
    pub async fn burst(&mut self, client: &mut HealthClient<Channel>) -> Result<Duration, tonic::Status> {
        let quiet = self.alone.lock().await;
        // Not counted: it wakes an idle radio and, after a connection's end, opens the next.
        round_trip(client, String::new()).await?;
        for done in 1..=self.window.wanted() {
            sleep(apart(done)).await;
            self.window.push(round_trip(client, String::new()).await?);
            self.metrics.probe_answered();
            let round_trip = self.window.summary();
            if self.first && self.began.elapsed() < STARTING && round_trip.is_some_and(|summary| summary.is_uneven()) {
                self.window = Window::default();
                break;
            }
            if done % BURST == 0 {
                self.metrics.round_trip(round_trip);
                self.link.send_replace(Link { round_trip, contact: Some(Instant::now()) });
            }
        }
        drop(quiet);
        if !self.mixed && self.window.tells_of_another_link() {
            tracing::info!("the link to the cloud tier or router has become another; measuring it anew");
            self.window.begin_anew();
            return Ok(Duration::ZERO);
        }
        if self.window.len() < P99_FROM {
            return Ok(PAUSE);
        }
        self.first = false;
        Ok(self.interval)
    }
}

/// Between two probes, from 5 to 15 ms, in an order that meets no clock's beat: probes that follow an answer at once find
/// everybody awake, and of a moment in which nobody runs only one of them tells.
fn apart(done: usize) -> Duration {
    Duration::from_micros(5_000 + done as u64 * 6_180 % 10_000)
}

/// One health check. Any answer of the server is a round trip, even that it knows no such service, or no health checks.
pub async fn round_trip(client: &mut HealthClient<Channel>, service: String) -> Result<Duration, tonic::Status> {
    let start = Instant::now();
    match client.check(HealthCheckRequest { service }).await {
        Err(status) if !matches!(status.code(), Code::NotFound | Code::Unimplemented) => Err(status),
        _ => Ok(start.elapsed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;

    #[tokio::test]
    async fn five_hundred_probes_come_first_over_one_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_reporter, health) = tonic_health::server::health_reporter();
        let server = tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(health)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let (sender, mut link) = watch::channel(Link::default());
        let mut prober = Prober::new(Alone::default(), Duration::from_secs(600), sender, Metrics::default());
        let endpoint = endpoint(&address.to_string()).unwrap();
        let probing = tokio::spawn(async move { probe("cloud tier", endpoint, &mut prober).await });
        let measured = *link
            .wait_for(|link| link.round_trip.is_some_and(|round_trip| round_trip.samples == P99_FROM))
            .await
            .unwrap();
        let round_trip = measured.round_trip.unwrap();
        assert!(round_trip.p99.unwrap() >= round_trip.p50, "{round_trip:?}");
        probing.abort();
        server.abort();
    }

    #[test]
    fn an_address_needs_a_host() {
        assert!(endpoint("sconce-cloud.sconce-node.svc:8001").is_ok());
        assert!(endpoint("not an address").is_err());
    }
}
