use crate::fleet::{How, placement, put, small};
use crate::served::Served;
use sconce_operator::observe::World;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;

/// Markup, an attribute's end, a line's end, and a name of a property of all objects.
pub const HOSTILE: &str = "</script><img src=x onerror=\"document.title='taken'\">'\n\ndata: __proto__";

pub fn hostile() -> World {
    let mut world = small();
    put(
        &mut world.placements,
        json!({"metadata": {"name": "evil", "namespace": "vision"},
            "spec": {"modelRef": {"name": HOSTILE}, "siteRef": {"name": "site-a"}, "versionRef": {"name": HOSTILE}},
            "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "NoCapacity", "message": HOSTILE,
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "rejected": [{"candidate": HOSTILE, "reason": HOSTILE, "message": HOSTILE}]}}),
    );
    world
}

/// In HTTP/1.0 an answer has no chunks, and ends with its connection.
async fn open_as(host: &str, address: SocketAddr, method: &str, path: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{method} {path} HTTP/1.0\r\n{host}\r\n").as_bytes()).await.unwrap();
    BufReader::new(stream)
}

async fn open(address: SocketAddr, method: &str, path: &str) -> BufReader<TcpStream> {
    open_as("host: page\r\n", address, method, path).await
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> (String, String) {
    answer(open(address, method, path).await).await
}

async fn answer(mut stream: BufReader<TcpStream>) -> (String, String) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

struct Events(Lines<BufReader<TcpStream>>);

impl Events {
    async fn of(address: SocketAddr) -> Self {
        Self(open(address, "GET", "/events").await.lines())
    }

    /// Name and data of each event up to `whole`.
    async fn step(&mut self) -> Vec<(String, String)> {
        let (mut told, mut name) = (Vec::new(), String::new());
        while let Some(line) = self.0.next_line().await.unwrap() {
            if let Some(event) = line.strip_prefix("event: ") {
                name = event.to_owned();
            }
            let Some(data) = line.strip_prefix("data: ") else { continue };
            if name == "whole" {
                return told;
            }
            told.push((name.clone(), data.to_owned()));
        }
        panic!("the stream ended after {told:?}");
    }
}

fn names(told: &[(String, String)]) -> Vec<(&str, String)> {
    let name =
        |data: &str| serde_json::from_str::<Value>(data).ok().and_then(|site| Some(site["name"].as_str()?.to_owned()));
    told.iter().map(|(event, data)| (event.as_str(), name(data).unwrap_or_else(|| "".into()))).collect()
}

#[tokio::test]
async fn the_files_come_with_headers_that_let_nothing_else_in() {
    let page = Served::new(small()).await;
    for (path, kind, word) in [
        ("/", "text/html; charset=utf-8", "<title>Sconce</title>"),
        ("/page.css", "text/css; charset=utf-8", ":root"),
        ("/page.js", "text/javascript; charset=utf-8", "EventSource"),
        ("/site.js", "text/javascript; charset=utf-8", "SiteRow"),
        ("/text.js", "text/javascript; charset=utf-8", "STATES"),
    ] {
        let (head, body) = ask(page.address, "GET", path).await;
        assert!(head.starts_with("http/1.0 200"), "{path}: {head}");
        assert!(head.contains(&format!("content-type: {kind}")), "{path}: {head}");
        assert!(head.contains("content-security-policy: default-src 'none'; script-src 'self'"), "{path}: {head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{path}: {head}");
        assert!(body.contains(word), "{path}");
        for elsewhere in ["http://", "https://"] {
            let without_namespace = body.replace("http://www.w3.org/2000/svg", "");
            assert!(!without_namespace.contains(elsewhere), "{path} names another server");
        }
        let (_, nothing) = ask(page.address, "HEAD", path).await;
        assert_eq!(nothing, "");
    }
    page.end().await;
}

/// A web page of somebody else's whose name leads here looked with its visitor's eyes.
#[tokio::test]
async fn by_a_name_that_is_not_ours_nothing_is_shown() {
    let page = Served::new(small()).await;
    for (host, status) in [
        ("host: evil.example.com\r\n", 421),
        ("host: 127.0.0.1.evil.example.com:8082\r\n", 421),
        ("", 421),
        ("host: page.example.com\r\n", 200),
        ("host: localhost:8082\r\n", 200),
        ("host: [::1]:8082\r\n", 200),
        ("host: sconce-page.sconce-system.svc\r\n", 200),
    ] {
        for path in ["/", "/placements/vision/digits-site-a"] {
            let (head, body) = answer(open_as(host, page.address, "GET", path).await).await;
            assert!(head.starts_with(&format!("http/1.0 {status}")), "{host}: {head}");
            assert_eq!(body.contains("or start the operator with --page-host"), status == 421, "{body}");
        }
    }
    let (head, _) = answer(open_as("host: evil.example.com\r\n", page.address, "GET", "/events").await).await;
    assert!(head.starts_with("http/1.0 421"), "{head}");
    page.end().await;
}

#[tokio::test]
async fn there_is_nothing_to_press() {
    let page = Served::new(small()).await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        for path in ["/", "/events", "/placements/vision/digits-site-a"] {
            let (head, _) = ask(page.address, method, path).await;
            assert!(head.starts_with("http/1.0 405"), "{method} {path}: {head}");
            assert!(head.contains("content-security-policy"), "{head}");
        }
    }
    let (head, body) = ask(page.address, "GET", "/../etc/passwd").await;
    assert!(head.starts_with("http/1.0 404"), "{head}");
    assert_eq!(body, "there is nothing here; the page is at /\n");
    page.end().await;
}

#[tokio::test]
async fn who_looks_is_told_all_and_then_what_changed() {
    let page = Served::new(small()).await;
    let mut events = Events::of(page.address).await;
    let told = events.step().await;
    let site = |name: &str| ("site", name.to_owned());
    assert_eq!(names(&told), [("head", String::new()), site("site-a"), site("site-b")]);
    page.change(|world| placement(world, "site-b", "anomaly", How::Fine, 8_000));
    let told = events.step().await;
    assert_eq!(names(&told), [site("site-b")]);
    page.change(|world| {
        world.sites.remove(&(String::new(), "site-a".into()));
    });
    assert_eq!(events.step().await, [("gone".to_owned(), "site-a".to_owned())]);
    page.end().await;
    // The stream ends with the server.
    while let Some(line) = events.0.next_line().await.unwrap() {
        assert_eq!(line, "");
    }
}

#[tokio::test]
async fn who_comes_later_sees_what_is_so_then() {
    let page = Served::new(small()).await;
    let mut first = Events::of(page.address).await;
    first.step().await;
    drop(first);
    page.change(|world| {
        world.sites.remove(&(String::new(), "site-a".into()));
    });
    let told = Events::of(page.address).await.step().await;
    assert_eq!(names(&told)[1..], [("site", "site-b".to_owned())]);
    page.end().await;
}

#[tokio::test]
async fn a_full_house_says_so_and_a_seat_that_is_left_is_free_again() {
    let page = Served::new(small()).await;
    let mut seated = Vec::new();
    for _ in 0..32 {
        let mut events = Events::of(page.address).await;
        events.step().await;
        seated.push(events);
    }
    let (head, body) = ask(page.address, "GET", "/events").await;
    assert!(head.starts_with("http/1.0 503"), "{head}");
    assert_eq!(body, "32 browsers look already: close one, or ask again later\n");
    drop(seated);
    // The server sees that somebody left when it has something to tell.
    loop {
        page.change(|world| placement(world, "site-b", "digits", How::Over, world.placements.len()));
        let mut events = open(page.address, "GET", "/events").await;
        let mut first = String::new();
        events.read_line(&mut first).await.unwrap();
        if first.starts_with("HTTP/1.0 200") {
            break;
        }
        tokio::task::yield_now().await;
    }
    page.end().await;
}

#[tokio::test]
async fn hostile_names_are_data() {
    let page = Served::new(hostile()).await;
    let mut events = Events::of(page.address).await;
    let told = events.step().await;
    let site: Value = serde_json::from_str(&told[1].1).unwrap();
    assert_eq!(site["placements"][0]["model"], format!("vision/{HOSTILE}"));
    assert_eq!(site["placements"][0]["message"], HOSTILE);
    let (head, body) = ask(page.address, "GET", "/placements/vision/evil").await;
    assert!(head.contains("content-type: application/json"), "{head}");
    let details: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(details["rejected"][0]["candidate"], HOSTILE);
    page.end().await;
}

#[tokio::test]
async fn details_have_every_term_and_what_was_not_chosen() {
    let page = Served::new(small()).await;
    let (_, body) = ask(page.address, "GET", "/placements/vision/digits-site-a").await;
    let details: Value = serde_json::from_str(&body).unwrap();
    let terms = details["predicted"]["terms"].as_array().unwrap();
    let named: Vec<_> =
        terms.iter().map(|term| (term["name"].as_str().unwrap(), term["p99Us"].as_u64().unwrap())).collect();
    assert_eq!(named, [("link", 500), ("transfer", 120), ("queue", 620), ("compute", 1_550)]);
    assert_eq!(details["rejected"][1]["reason"], "LinkTooSlow");
    assert_eq!(details["observed"]["count"], 6600);
    assert_eq!(details["conditions"][1]["type"], "Placed");
    assert!(!body.contains("address"), "endpoints are nobody's business: {body}");
    let (head, body) = ask(page.address, "GET", "/placements/vision/none").await;
    assert!(head.starts_with("http/1.0 404"), "{head}");
    assert_eq!(body, "there is no such placement any more\n");
    page.end().await;
}
