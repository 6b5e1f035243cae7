//! The way from a router to a model on this node, and back: probed at the models' servers here, in turn, since requests take that
//! way; at the router beside us until there is one.

use crate::link::{self, Prober};
use crate::watch::Here;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::health_client::HealthClient;

/// After a server that did not answer: it is starting, or is about to go.
const PAUSE: Duration = Duration::from_secs(2);

/// Probes for ever, `router` until a model is served here, at `port` of its server. When none is any more, what was measured of the
/// last stands: the router would tell of a shorter way.
pub async fn probe(router: Endpoint, port: u16, mut here: watch::Receiver<Option<Here>>, mut prober: Prober) {
    tokio::select! {
        () = link::probe("router", router, &mut prober) => {}
        told = until_served(&mut here) => if !told { return },
    }
    prober.begin_mixed();
    let (mut clients, mut last) = (BTreeMap::new(), None);
    loop {
        let servers = here.borrow().as_ref().map(|here| here.servers.clone()).unwrap_or_default();
        clients.retain(|server, _| servers.contains(server));
        let Some(server) = next(&servers, last) else {
            if !until_served(&mut here).await {
                return;
            }
            continue;
        };
        last = Some(server);
        let client = clients.entry(server).or_insert_with(|| client(SocketAddr::new(server, port)));
        let pause = prober.burst(client).await.unwrap_or_else(|error| {
            tracing::debug!(%server, error = &error as &dyn std::error::Error, "a model's server does not answer");
            PAUSE
        });
        sleep(pause).await;
    }
}

/// False if nobody tells any more.
async fn until_served(here: &mut watch::Receiver<Option<Here>>) -> bool {
    here.wait_for(|here| here.as_ref().is_some_and(|here| !here.servers.is_empty())).await.is_ok()
}

/// The one after the last, in the order of addresses.
fn next(servers: &BTreeSet<IpAddr>, last: Option<IpAddr>) -> Option<IpAddr> {
    let after = last.and_then(|last| servers.range((Bound::Excluded(last), Bound::Unbounded)).next());
    after.or_else(|| servers.first()).copied()
}

/// Connects when it is first asked.
fn client(server: SocketAddr) -> HealthClient<Channel> {
    let endpoint = link::endpoint(&server.to_string()).expect("an IP address and a port are an address");
    HealthClient::new(endpoint.connect_lazy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Alone, Link};
    use crate::metrics::Metrics;
    use crate::window::P99_FROM;
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::service::interceptor::InterceptedService;

    /// A server that counts how often it is asked for its health.
    async fn server(address: SocketAddr) -> (SocketAddr, watch::Receiver<usize>) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, counted) = watch::channel(0);
        let counting = move |request| {
            count.send_modify(|count| *count += 1);
            Ok(request)
        };
        let health = InterceptedService::new(tonic_health::server::health_reporter().1, counting);
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(health)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        (address, counted)
    }

    fn here(servers: &[SocketAddr]) -> Option<Here> {
        Some(Here { servers: servers.iter().map(SocketAddr::ip).collect(), ..Here::default() })
    }

    #[tokio::test]
    async fn models_here_are_probed_in_turn_and_the_router_until_there_is_one() {
        let (router, mut asked_router) = server("127.0.0.1:0".parse().unwrap()).await;
        let (one, mut asked_one) = server("127.0.0.2:0".parse().unwrap()).await;
        let (other, mut asked_other) = server(SocketAddr::new("127.0.0.3".parse().unwrap(), one.port())).await;
        let (sender, mut local) = watch::channel(Link::default());
        let (tell, told) = watch::channel(None);
        let prober = Prober::new(Alone::default(), Duration::from_millis(1), sender, Metrics::default());
        let probing = tokio::spawn(probe(link::endpoint(&router.to_string()).unwrap(), one.port(), told, prober));
        asked_router.wait_for(|asked| *asked > 2).await.unwrap();

        tell.send_replace(here(&[one, other]));
        for asked in [&mut asked_one, &mut asked_other] {
            asked.wait_for(|asked| *asked > 2).await.unwrap();
        }
        let at_router = *asked_router.borrow();
        // All that is told is of the models.
        let is_whole = |link: &Link| link.round_trip.is_some_and(|told| told.samples >= P99_FROM);
        let samples = local.wait_for(is_whole).await.unwrap().round_trip.unwrap().samples;
        assert!(samples <= *asked_one.borrow() + *asked_other.borrow());
        assert_eq!(*asked_router.borrow(), at_router);

        // Nobody is asked while none is served here.
        tell.send_replace(here(&[]));
        tell.send_replace(here(&[other]));
        let before = *asked_other.borrow_and_update();
        asked_other.wait_for(|asked| *asked > before + 2).await.unwrap();
        probing.abort();
    }

    #[test]
    fn each_has_its_turn() {
        let servers: BTreeSet<IpAddr> = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap()).into();
        let [one, other, third] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|ip| ip.parse().ok());
        assert_eq!([None, one, other, third].map(|last| next(&servers, last)), [one, other, one, one]);
        assert_eq!(next(&BTreeSet::new(), one), None);
    }
}
