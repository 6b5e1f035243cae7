//! The page over HTTP: three files that are compiled in, a stream of changes, and the details of one placement.

use super::details::details;
use super::feed::{Board, Source, Told, tell};
use super::host;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Browsers that look at a time.
const SEATS: usize = 32;

/// Nothing from elsewhere, nothing to elsewhere, in nobody's frame.
static SAFETY: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

#[derive(Clone)]
struct Page {
    board: Arc<Board>,
    seats: Arc<Semaphore>,
    stop: CancellationToken,
    hosts: Arc<[String]>,
}

/// Serves until told to stop. `news` says that `source` may have changed; `hosts` are names that it answers by beside its own.
pub async fn serve_page(
    listener: TcpListener,
    hosts: &[String],
    source: Arc<dyn Source>,
    news: watch::Receiver<()>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let board = Arc::new(Board::new(source));
    let seats = Arc::new(Semaphore::new(SEATS));
    let page = Page { board: Arc::clone(&board), seats, stop: stop.clone(), hosts: hosts.into() };
    let keeper = tokio::spawn(async move { board.keep(news).await });
    let served = axum::serve(listener, router(page)).with_graceful_shutdown(stop.cancelled_owned()).await;
    keeper.abort();
    served
}

fn router(page: Page) -> Router {
    const HTML: &str = "text/html; charset=utf-8";
    const CSS: &str = "text/css; charset=utf-8";
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    let file =
        |kind: &'static str, text: &'static str| get(move || async move { ([(header::CONTENT_TYPE, kind)], text) });
    Router::new()
        .route("/", file(HTML, include_str!("assets/index.html")))
        .route("/page.css", file(CSS, include_str!("assets/page.css")))
        .route("/page.js", file(SCRIPT, include_str!("assets/page.js")))
        .route("/site.js", file(SCRIPT, include_str!("assets/site.js")))
        .route("/text.js", file(SCRIPT, include_str!("assets/text.js")))
        .route("/events", get(events))
        .route("/placements/{namespace}/{name}", get(placement))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is nothing here; the page is at /\n") })
        .layer(from_fn_with_state(page.clone(), for_us))
        .layer(map_response(safe))
        .with_state(page)
}

async fn for_us(State(page): State<Page>, request: Request, next: Next) -> Response {
    let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host =
        host::without_port(request.uri().authority().map(|authority| authority.as_str()).or(named).unwrap_or_default());
    if host::is_ours(host, &page.hosts) {
        return next.run(request).await;
    }
    let told =
        format!("this page is not served as {host:?}: ask it by its address, or start the operator with --page-host\n");
    (StatusCode::MISDIRECTED_REQUEST, told).into_response()
}

async fn safe(mut response: Response) -> Response {
    for (name, value) in &SAFETY {
        response.headers_mut().insert(name.clone(), HeaderValue::from_static(value));
    }
    response
}

async fn events(State(page): State<Page>) -> Response {
    let Ok(seat) = Arc::clone(&page.seats).try_acquire_owned() else {
        let told = format!("{SEATS} browsers look already: close one, or ask again later\n");
        return (StatusCode::SERVICE_UNAVAILABLE, told).into_response();
    };
    let told = tell(page.board.look()).map(move |told| {
        let _taken = &seat;
        Ok::<_, Infallible>(event(told))
    });
    Sse::new(told.take_until(page.stop.cancelled_owned())).keep_alive(KeepAlive::default()).into_response()
}

fn event(told: Told) -> Event {
    match told {
        Told::Head(json) => Event::default().event("head").data(json),
        Told::Site(json) => Event::default().event("site").data(json),
        Told::Gone(name) => Event::default().event("gone").data(name),
        // A browser passes over an event without data.
        Told::Whole => Event::default().event("whole").data("told"),
    }
}

async fn placement(State(page): State<Page>, Path((namespace, name)): Path<(String, String)>) -> Response {
    let Some(found) = page.board.placement(&(namespace, name)) else {
        return (StatusCode::NOT_FOUND, "there is no such placement any more\n").into_response();
    };
    let json = serde_json::to_string(&details(&found)).expect("text and numbers are JSON");
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}
