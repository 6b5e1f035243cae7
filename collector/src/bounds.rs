//! What the doors are bounded by: how many may be there at once, how long each may take, and how much memory what they bring takes
//! until it is answered for.

use crate::door::{LARGEST, busy, too_large};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use http_body_util::{BodyExt as _, LengthLimitError};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

const CONNECTIONS: usize = 256;
/// Who says nothing for so long has nothing to say, and is closed.
pub const HEAD: Duration = Duration::from_secs(30);
/// Of a body that is refused, so much is heard out.
const DROPPED: usize = 16 * LARGEST;
/// What a request takes beside its body.
const BESIDE: usize = 16 << 10;
/// After this the accepting of connections is tried again, as when too many files are open.
const AGAIN: Duration = Duration::from_secs(1);

/// Of the bodies of one door.
#[derive(Clone)]
pub struct Bounds {
    /// In bytes.
    room: Arc<Semaphore>,
    /// So long a request waits for room.
    patience: Duration,
    /// So long its body may take.
    body: Duration,
}

impl Bounds {
    pub fn of(bytes: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(bytes)), patience: Duration::from_secs(5), body: Duration::from_secs(30) }
    }
}

/// Lets a request in when there is room for what it says that it brings, and reads that whole.
pub async fn bounded(State(bounds): State<Bounds>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let said = head.headers.get(CONTENT_LENGTH).and_then(|said| said.to_str().ok()?.parse().ok());
    let bytes: usize = said.unwrap_or(LARGEST);
    if bytes > LARGEST {
        drop_whole(body, bounds.body).await;
        return too_large();
    }
    let room = timeout(bounds.patience, bounds.room.acquire_many((bytes + BESIDE) as u32)).await;
    // Nobody closes it. What is let in has its room until it is answered.
    let Ok(Ok(_room)) = room else {
        drop_whole(body, bounds.body).await;
        return busy();
    };
    let content = match timeout(bounds.body, to_bytes(body, LARGEST)).await {
        Ok(Ok(content)) => content,
        Ok(Err(error)) if error.source().is_some_and(|source| source.is::<LengthLimitError>()) => return too_large(),
        Ok(Err(error)) => return (StatusCode::BAD_REQUEST, format!("the body broke off: {error}\n")).into_response(),
        Err(_) => {
            let told = format!("the body took longer than {:?}; send it again, faster or smaller\n", bounds.body);
            return (StatusCode::REQUEST_TIMEOUT, told).into_response();
        }
    };
    next.run(Request::from_parts(head, Body::from(content))).await
}

/// What is refused is read and dropped, for so long and up to a point: who is cut off while he still sends hears no answer.
async fn drop_whole(mut body: Body, within: Duration) {
    let dropping = async {
        let mut left = DROPPED;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len()));
            if left == 0 {
                break;
            }
        }
    };
    timeout(within, dropping).await.ok();
}

/// Serves connections for ever; one that does not say what it wants within `head` is closed.
pub async fn serve(listener: TcpListener, router: Router, head: Duration) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Nobody closes it.
        let place = connections.clone().acquire_owned().await.ok();
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection is not accepted");
                sleep(AGAIN).await;
                continue;
            }
        };
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(head);
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
    use axum::routing::post;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(600);

    async fn served(bounds: Bounds, head: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bounded = axum::middleware::from_fn_with_state(bounds, bounded);
        let router = Router::new().route("/", post(async |content: String| content)).route_layer(bounded);
        tokio::spawn(serve(listener, router, head));
        address
    }

    async fn say(address: SocketAddr, what: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(what.as_bytes()).await.unwrap();
        stream
    }

    async fn heard(mut stream: TcpStream) -> String {
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.ok();
        heard
    }

    const ASKED: &str = "POST / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n";

    #[tokio::test]
    async fn who_says_nothing_more_is_not_waited_for() {
        let address = served(Bounds { body: SHORT, ..Bounds::of(1 << 20) }, SHORT).await;
        heard(say(address, ASKED).await).await;
        let heard = heard(say(address, &format!("{ASKED}content-length: 7\r\n\r\nabc")).await).await;
        assert!(heard.starts_with("HTTP/1.1 408 "), "{heard}");
    }

    #[tokio::test]
    async fn who_brings_more_than_there_is_room_for_is_told_to_come_again() {
        let bounds = Bounds { patience: SHORT, body: LONG, ..Bounds::of(2 * BESIDE) };
        let address = served(bounds, LONG).await;
        let slow = say(address, &format!("{ASKED}content-length: {BESIDE}\r\n\r\nabc")).await;
        let asked = format!("{ASKED}content-length: 2\r\n\r\nhi");
        let other = || async { heard(say(address, &asked).await).await };
        // The slow one may not be in yet.
        while !other().await.starts_with("HTTP/1.1 429 ") {}
        drop(slow);
        while !other().await.ends_with("hi") {}
        let (length, body) = (LARGEST + 1, "x".repeat(LARGEST + 1));
        let large = heard(say(address, &format!("{ASKED}content-length: {length}\r\n\r\n{body}")).await).await;
        assert!(large.starts_with("HTTP/1.1 413 "), "{large}");
    }
}
