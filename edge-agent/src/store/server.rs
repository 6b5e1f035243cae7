//! The doors: the API for pods, and `/healthz` and `/metrics`.

use super::asked::asked;
use super::metrics::{Metrics, Outcome};
use super::{Part, Refusal, Store};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// At once; who comes then waits.
const CONNECTIONS: usize = 256;
/// Who says nothing for so long has nothing to say, and is closed.
const HEAD: Duration = Duration::from_secs(30);
/// After this the accepting of connections is tried again, as when too many files are open.
const AGAIN: Duration = Duration::from_secs(1);

pub fn api(store: Arc<Store>) -> Router {
    Router::new()
        // Whether this is a registry, ask clients first: one without a login.
        .route("/v2/", get(async || ([("docker-distribution-api-version", "registry/2.0")], "{}")))
        .route("/v2/{*path}", get(give))
        .with_state(store)
}

pub fn health(metrics: Metrics) -> Router {
    let text = move || {
        let text = metrics.text();
        async { ([("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")], text) }
    };
    Router::new().route("/healthz", get(async || "ok\n")).route("/metrics", get(text))
}

async fn give(State(store): State<Arc<Store>>, uri: Uri, headers: HeaderMap) -> Response {
    let given = match asked(uri.path(), uri.query()) {
        Ok(asked) => store.give(asked, part(&headers)).await,
        Err(refusal) => Err(refusal),
    };
    given.unwrap_or_else(|refusal: Refusal| {
        store.metrics.asked(Outcome::Refused);
        tracing::info!(path = uri.path(), %refusal, "refused");
        refusal.into_response()
    })
}

/// Of `bytes=5-` or `bytes=5-9`. What is anything else is as if it were not there, as HTTP has it.
fn part(headers: &HeaderMap) -> Option<Part> {
    let (first, last) = headers.get("range")?.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    match last {
        "" => Some((first, None)),
        last => {
            let last: u64 = last.parse().ok()?;
            (last >= first).then_some((first, last.checked_add(1)))
        }
    }
}

/// Whether somebody asks from a network of the site, the cluster or this machine. A node's address may be one of the internet, and
/// what is served there is meant for the node's pods.
pub fn is_near(peer: IpAddr) -> bool {
    match peer.to_canonical() {
        // The last are carriers', and of overlays between sites.
        IpAddr::V4(v4) => {
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

/// Serves connections for ever; those of others than `may` are closed.
pub async fn serve(listener: TcpListener, router: Router, may: fn(IpAddr) -> bool) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Nobody closes it.
        let place = connections.clone().acquire_owned().await.ok();
        let stream = match listener.accept().await {
            Ok((stream, peer)) if may(peer.ip()) => stream,
            Ok((_, peer)) => {
                tracing::info!(%peer, "closed: it is of no near network");
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "a connection is not accepted");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD);
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            let _place = place;
            // Who goes away says so to nobody.
            connection.await.ok();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn who_is_of_the_internet_is_not_near() {
        let near = |peer: &str| is_near(peer.parse().unwrap());
        let nearby =
            ["10.42.0.7", "172.16.0.1", "192.168.1.2", "127.0.0.1", "100.64.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"];
        assert!(nearby.into_iter().all(near));
        assert!(!["8.8.8.8", "100.128.0.1", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8"].into_iter().any(near));
    }

    #[test]
    fn a_part_has_a_beginning_and_may_have_an_end() {
        let check = |range: &'static str, expected: Option<Part>| {
            let headers = HeaderMap::from_iter([("range".parse().unwrap(), HeaderValue::from_static(range))]);
            assert_eq!(part(&headers), expected, "{range}");
        };
        check("bytes=0-", Some((0, None)));
        check("bytes=5-9", Some((5, Some(10))));
        check("bytes=5-5", Some((5, Some(6))));
        for other in ["bytes=-5", "bytes=9-5", "bytes=0-1,3-4", "bytes=a-", "items=0-", "bytes=99999999999999999999-"] {
            check(other, None);
        }
        assert_eq!(part(&HeaderMap::new()), None);
    }
}
