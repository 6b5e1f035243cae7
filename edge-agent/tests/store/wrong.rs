//! Bytes that are not what they should be, and askers who are not whom they should be.

use crate::process::{Process, files};
use crate::registry::{Mood, Registry};
use crate::{LARGE, bytes};
use axum::http::StatusCode;
use sconce_model::artifact::testing::write_tiny;
use sconce_model::digest::sha256;
use tempfile::tempdir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const ROOM: u64 = 1 << 30;

#[tokio::test]
async fn wrong_bytes_are_neither_kept_nor_shown_to_the_end() {
    let (kept, registry) = (tempdir().unwrap(), Registry::start().await);
    for (folder, what) in [(kept.path().join("kept"), "kept"), (kept.path().join("file"), "passed on")] {
        if what == "passed on" {
            std::fs::write(&folder, "").unwrap();
        }
        let store = Process::start(&folder, ROOM);
        let [small, large] = [registry.add(bytes(1, 1000)), registry.add(bytes(2, LARGE))];
        for digest in [&small, &large] {
            registry.mood(digest, &[Mood::Wrong]);
            let mut answer = store.ask(&registry, digest).await;
            let is_small = digest == &small;
            assert_eq!(answer.status().as_u16(), if is_small { 502 } else { 200 }, "{what}");
            let mut seen = 0;
            if answer.status() == 200 {
                let end = loop {
                    match answer.chunk().await {
                        Ok(Some(chunk)) => seen += chunk.len(),
                        end => break end,
                    }
                };
                assert!(end.is_err(), "it breaks off");
            }
            assert!(seen + (256 << 10) <= LARGE && (!is_small || seen == 0), "{seen} of wrong bytes were shown");
            // The registry has been mended.
            assert_eq!(&sha256(&store.blob(&registry, digest).await), digest);
        }
    }
    assert_eq!(files(&kept.path().join("kept"), false).len(), 2);
    assert_eq!(files(&kept.path().join("kept"), true), [""; 0]);
}

/// Whoever names a registry of his own cannot read by it what another server says to the node.
#[tokio::test]
async fn a_registry_that_leads_elsewhere_shows_nothing_of_that() {
    let (kept, registry) = (tempdir().unwrap(), Registry::start().await);
    let store = Process::start(kept.path(), ROOM);
    let digest = registry.add(bytes(1, 1000));
    registry.mood(&digest, &[Mood::Leads("/secret")]);
    let answer = store.ask(&registry, &digest).await;
    assert_eq!(answer.status(), 502);
    let told = answer.text().await.unwrap();
    assert!(told.contains("the registry does not give it") && !told.contains("secret of"), "{told}");
    let other = registry.add(bytes(2, 1000));
    registry.mood(&other, &[Mood::Leads("file:///etc/passwd")]);
    assert_eq!(store.ask(&registry, &other).await.status(), 502);
}

#[tokio::test]
async fn what_a_registry_says_is_passed_on() {
    let (kept, registry) = (tempdir().unwrap(), Registry::start().await);
    let store = Process::start(kept.path(), ROOM);
    let digest = registry.add(bytes(1, 1000));
    for (said, expected) in [(500, 502), (503, 502), (404, 404), (403, 403), (401, 403), (204, 502)] {
        registry.mood(&digest, &[Mood::Status(StatusCode::from_u16(said).unwrap())]);
        assert_eq!(store.ask(&registry, &digest).await.status(), expected, "{said}");
    }
    assert_eq!(store.counted("requests_total{outcome=\"refused\"}").await, 6);
    assert_eq!(store.ask(&registry, &sha256(b"another")).await.status(), 404);
    registry.stop().await;
    assert_eq!(store.ask(&registry, &digest).await.status(), 502);
}

#[tokio::test]
async fn what_rots_on_the_disk_is_found_and_fetched_anew() {
    let [kept, model] = [tempdir().unwrap(), tempdir().unwrap()];
    let (registry, store) = (Registry::start().await, Process::start(kept.path(), ROOM));
    let [small, large] = [registry.add(bytes(1, 1000)), registry.add(bytes(2, LARGE))];
    let rot = |digest: &str| {
        let path = kept.path().join(digest.replace(':', "-"));
        let mut content = std::fs::read(&path).unwrap();
        content[0] ^= 1;
        std::fs::write(&path, content).unwrap();
    };
    for digest in [&small, &large] {
        store.blob(&registry, digest).await;
        rot(digest);
    }
    // Nothing was shown of it.
    assert_eq!(sha256(&store.blob(&registry, &small).await), small);
    // The end is not shown; where all was read before any of it could be shown, it is as with the small one, and rots again.
    let mut rotten = 2;
    while let Ok(shown) = store.ask(&registry, &large).await.bytes().await {
        assert_eq!(sha256(&shown), large);
        assert!(rotten < 50, "it never breaks off");
        rot(&large);
        rotten += 1;
    }
    assert_eq!(sha256(&store.blob(&registry, &large).await), large);
    assert_eq!(store.counted("rotten_total").await, rotten);
    // A pod that meets that has its model all the same.
    write_tiny(model.path(), 7).unwrap();
    let (digest, one) = (registry.publish(model.path()), tempdir().unwrap());
    store.pod(&registry, &digest, "f32", one.path()).await.unwrap();
    for file in files(kept.path(), false) {
        rot(&file);
    }
    let other = tempdir().unwrap();
    store.pod(&registry, &digest, "f32", other.path()).await.unwrap();
}

#[tokio::test]
async fn nothing_but_digests_of_repositories_is_answered() {
    let (kept, registry) = (tempdir().unwrap(), Registry::start().await);
    let store = Process::start(&kept.path().join("store"), ROOM);
    std::fs::write(kept.path().join("secret"), "a secret").unwrap();
    let digest = registry.add(bytes(1, 1000));
    let ns = format!("?ns={}", registry.address);
    let said = async |line: String| {
        let mut stream = TcpStream::connect(&store.address).await.unwrap();
        stream.write_all(format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.contains("a secret"), "{line}: {answer}");
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    assert_eq!(said(format!("GET /v2/vision/tiny/blobs/{digest}{ns}")).await, 200);
    assert_eq!(said(format!("HEAD /v2/vision/tiny/blobs/{digest}{ns}")).await, 200);
    for path in ["/v2/../secret", "/v2/a/blobs/../../secret", "/v2/a/blobs/..%2f..%2fsecret", "/secret", "//v2/a"] {
        let status = said(format!("GET {path}{ns}")).await;
        assert!((400..500).contains(&status), "{path}: {status}");
    }
    let refused = [
        (format!("GET /v2/vision/tiny/blobs/{digest}"), 400),
        (format!("GET /v2/../tiny/blobs/{digest}{ns}"), 400),
        (format!("GET /v2/vision/tiny/manifests/latest{ns}"), 400),
        (format!("GET /v2/vision/tiny/blobs/{digest}?ns=169.254.169.254/latest"), 400),
        (format!("PUT /v2/vision/tiny/blobs/{digest}{ns}"), 405),
        (format!("DELETE /v2/vision/tiny/manifests/{digest}{ns}"), 405),
        (format!("POST /v2/vision/tiny/blobs/uploads/{ns}"), 405),
    ];
    for (line, expected) in refused {
        assert_eq!(said(line.clone()).await, expected, "{line}");
    }
    assert_eq!(registry.asked(&digest), [0]);
}
