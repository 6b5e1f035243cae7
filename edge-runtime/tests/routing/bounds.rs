//! What clients may take of a router: memory, time, and room in what it tells and counts.

use super::*;
use futures::stream::{iter, pending};
use futures::{StreamExt as _, TryFutureExt as _};
use http_body_util::StreamBody;
use hyper::body::Frame;
use std::convert::Infallible;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);

/// Asks with a body that begins with so many bytes, and does not end before this is aborted. Returns the answer's gRPC status.
async fn stalled(router: &Router, bytes: usize) -> JoinHandle<String> {
    let address = format!("http://{}", router.address);
    let begun = Frame::data(Bytes::from(vec![0; bytes]));
    let asked = http::Request::post(format!("{address}/inference.GRPCInferenceService/ModelInfer"))
        .header("content-type", "application/grpc")
        .body(Body::new(StreamBody::new(iter([Ok::<_, Infallible>(begun)]).chain(pending()))))
        .unwrap();
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    let status = |answer: http::Response<Body>| answer.headers()["grpc-status"].to_str().unwrap().to_owned();
    tokio::spawn(channel.oneshot(asked).map_ok(status).unwrap_or_else(|error| panic!("{error}")))
}

/// Each of 1,024 clients had as much memory as the largest request, for as long as it liked.
#[tokio::test]
async fn requests_share_a_room_and_who_finds_none_is_refused() {
    let room_bytes = 1 << 20;
    let server = Server::start(Executor::Inline, 4, 64).await;
    let router = Router::start_with(Limits { room_bytes, ..LIMITS }).await;
    router.routes(&[("Edge", server.address)]);
    let mut client = router.client().await;
    client.model_infer(request(4)).await.unwrap();
    // Left of the half that small ones have is less than the next request takes.
    let stalled = stalled(&router, room_bytes / 2 - 512).await;
    // It is on its way.
    let refused = async {
        loop {
            if let Err(status) = client.model_infer(request(4)).await {
                break status;
            }
        }
    };
    let refused = timeout(LONG, refused).await.unwrap();
    let expected = "requests under way take their half of 1048576 bytes; try again later";
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, expected));
    let counted = router.counted("sconce_router_requests_total{model=\"unknown\"").await;
    assert!(counted[0].contains("tier=\"none\",code=\"ResourceExhausted\""), "{counted:?}");
    stalled.abort();
    let served = async { while client.model_infer(request(4)).await.is_err() {} };
    timeout(LONG, served).await.unwrap();
}

/// One slow client that sent much would have been the only one.
#[tokio::test]
async fn a_large_body_that_stalls_keeps_no_small_ones_out() {
    let room_bytes = 8 << 20;
    let limits = Limits { room_bytes, max_message_bytes: room_bytes, ..LIMITS };
    let server = Server::start(Executor::Inline, 4, 64).await;
    let router = Router::start_with(limits).await;
    router.routes(&[("Edge", server.address)]);
    let mut client = router.client().await;
    client.model_infer(request(4)).await.unwrap();
    // A MiB of each in one half, three in the other: the second finds it too full.
    let [first, second] = [stalled(&router, room_bytes / 2).await, stalled(&router, room_bytes / 2).await];
    let refused = timeout(LONG, futures::future::select(first, second)).await.unwrap();
    assert_eq!(refused.factor_first().0.unwrap(), "8", "RESOURCE_EXHAUSTED");
    client.model_infer(request(4)).await.unwrap();
    let larger = stalled(&Router::start_with(limits).await, room_bytes / 2 + 1).await;
    assert_eq!(timeout(LONG, larger).await.unwrap().unwrap(), "8", "larger than a half");
}

#[tokio::test]
async fn a_body_that_stalls_or_is_too_large_is_given_up() {
    let router = Router::start_with(Limits { body_timeout: Duration::from_millis(100), ..LIMITS }).await;
    let answer = stalled(&router, 1024).await;
    assert_eq!(timeout(LONG, answer).await.unwrap().unwrap(), "4", "DEADLINE_EXCEEDED");
    let router = Router::start().await;
    let answer = stalled(&router, LIMITS.max_message_bytes + 1).await;
    assert_eq!(timeout(LONG, answer).await.unwrap().unwrap(), "8", "RESOURCE_EXHAUSTED");
}

/// What was asked came back in a header and as a label, however long it was: connections ended, and metrics grew.
#[tokio::test]
async fn names_that_nobody_routes_are_told_in_short_and_counted_as_one() {
    let (server, router) = (Server::start(Executor::Inline, 4, 64).await, Router::start().await);
    let mut client = router.client().await;
    let mut told = async |code: Code| {
        let asked = ModelInferRequest { model_name: "ä".repeat(50_000), ..request(1) };
        let status = client.model_infer(asked).await.unwrap_err();
        assert!(status.code() == code && status.message().len() < 1_100, "{:?}", status.code());
    };
    // Before there are routes.
    told(Code::Unavailable).await;
    router.routes(&[("Edge", server.address)]);
    router.client().await.model_infer(request(1)).await.unwrap();
    told(Code::NotFound).await;
    let mut counted = router.counted("sconce_router_requests_total{").await;
    counted.retain(|line| !line.contains(MODEL));
    counted.sort();
    let line =
        |code: &str| format!("sconce_router_requests_total{{model=\"unknown\",tier=\"none\",code=\"{code}\"}} 1");
    assert_eq!(counted, [line("NotFound"), line("Unavailable")]);
}
