//! What it is for: fewer bytes over the site's link, and pods that start without it.

use crate::process::{Process, pod};
use crate::registry::{Door, Mood, Registry};
use crate::{LARGE, bytes};
use sconce_edge_runtime::load::{load, open};
use sconce_model::artifact::signature::Trust;
use sconce_model::artifact::testing::{write_drawn, write_tiny, write_update};
use std::path::Path;
use std::time::Duration;
use tempfile::tempdir;
use tokio::net::TcpListener;
use tokio::sync::watch;

const ROOM: u64 = 1 << 30;

fn serves(folder: &Path, digest: &str, variant: &str) {
    load(&open(folder, Some(digest), &Trust::default()).unwrap(), variant, 4, 1).unwrap();
}

/// Each pod begins with an empty folder, as in Kubernetes.
#[tokio::test]
async fn of_an_update_of_the_head_a_node_pulls_the_head_and_what_describes_it() {
    let [kept, base, update] = [tempdir().unwrap(), tempdir().unwrap(), tempdir().unwrap()];
    let typed = serde_json::json!({"input": {"shape": [1, 28, 28]}, "layers": [{"flatten": {}},
        {"dense": {"units": 256, "activation": "relu"}}, {"dense": {"units": 10, "activation": "softmax"}}]});
    write_drawn(base.path(), typed, 7).unwrap();
    write_update(update.path(), base.path(), 8).unwrap();
    let (registry, store) = (Registry::start().await, Process::start(kept.path(), ROOM));
    let [before, after] = [registry.publish(base.path()), registry.publish(update.path())];
    for variant in ["f32", "f16", "int8"] {
        let [one, other] = [tempdir().unwrap(), tempdir().unwrap()];
        store.pod(&registry, &before, variant, one.path()).await.unwrap();
        let pulled = registry.pulled();
        store.pod(&registry, &after, variant, other.path()).await.unwrap();
        let of_update = registry.pulled() - pulled;
        serves(other.path(), &after, variant);
        let size = |part: &str| {
            let file = update.path().join(format!("weights/{variant}/{part}.safetensors"));
            std::fs::metadata(file).unwrap().len()
        };
        println!("{variant}: {of_update} bytes pulled for the update; its head has {}", size("head"));
        assert!(of_update <= size("head") + (64 << 10), "{of_update} of {}", size("head"));
        // That of int8 is the same file.
        assert!(variant == "int8" || of_update >= size("head"), "{of_update} of {}", size("head"));
        assert!(size("backbone") > 3 * (64 << 10), "the backbone is no small part: {}", size("backbone"));
    }
    assert_eq!(registry.direct(), [""; 0], "no pod asked the registry itself");
    assert_eq!(store.counted("upstream_bytes_total").await, registry.pulled());
}

#[tokio::test]
async fn a_pod_starts_without_the_registry_when_the_node_has_its_model() {
    let [kept, model, first] = [tempdir().unwrap(), tempdir().unwrap(), tempdir().unwrap()];
    write_tiny(model.path(), 7).unwrap();
    let (registry, store) = (Registry::start().await, Process::start(kept.path(), ROOM));
    let digest = registry.publish(model.path());
    store.pod(&registry, &digest, "f32", first.path()).await.unwrap();
    registry.stop().await;
    let second = tempdir().unwrap();
    store.pod(&registry, &digest, "f32", second.path()).await.unwrap();
    serves(second.path(), &digest, "f32");
    // Also by another process, after the node was off.
    store.kill();
    let (store, third) = (Process::start(kept.path(), ROOM), tempdir().unwrap());
    store.pod(&registry, &digest, "f32", third.path()).await.unwrap();
    serves(third.path(), &digest, "f32");
    // What it has not, it cannot give.
    let other = tempdir().unwrap();
    let error = store.pod(&registry, &digest, "f16", other.path()).await.unwrap_err().to_string();
    assert!(error.starts_with("RegistryUnreachable: "), "{error}");
}

#[tokio::test]
async fn two_who_ask_at_once_are_one_download() {
    let (kept, registry) = (tempdir().unwrap(), Registry::start().await);
    let (store, content) = (Process::start(kept.path(), ROOM), bytes(1, 2 * LARGE));
    let digest = registry.add(content.clone());
    let (release, released) = watch::channel(false);
    registry.mood(&digest, &[Mood::Held(LARGE, released)]);
    // Answers that have begun.
    let (mut one, other) = (store.ask(&registry, &digest).await, store.ask(&registry, &digest).await);
    // It does not wait for the end to show the beginning.
    let mut first = one.chunk().await.unwrap().unwrap().to_vec();
    release.send_replace(true);
    while let Some(chunk) = one.chunk().await.unwrap() {
        first.extend_from_slice(&chunk);
    }
    let second = other.bytes().await.unwrap();
    assert!(first == content && second == content);
    assert_eq!(registry.asked(&digest), [0]);
    assert_eq!(store.counted("requests_total{outcome=\"shared\"}").await, 1);
    // And one after the other it is the disk.
    assert!(store.blob(&registry, &digest).await == content);
    assert_eq!((registry.asked(&digest).len(), registry.pulled()), (1, content.len() as u64));
    assert_eq!(store.counted("requests_total{outcome=\"kept\"}").await, 1);
    assert_eq!(store.counted("served_bytes_total").await, 3 * content.len() as u64);
}

#[tokio::test]
async fn a_link_that_breaks_off_again_and_again_is_gone_on_with() {
    let (kept, registry) = (tempdir().unwrap(), Registry::start().await);
    let (store, content) = (Process::start(kept.path(), ROOM), bytes(2, LARGE));
    let digest = registry.add(content.clone());
    registry.mood(&digest, &[Mood::Cut(LARGE / 2), Mood::Cut(LARGE / 4)]);
    assert!(store.blob(&registry, &digest).await == content);
    let asked = registry.asked(&digest);
    assert!(asked.len() == 3 && asked[0] == 0 && asked.is_sorted(), "{asked:?}");
    assert_eq!(store.counted("upstream_bytes_total").await, content.len() as u64, "nothing twice");
}

#[tokio::test]
async fn a_part_can_be_asked_for() {
    let (kept, registry) = (tempdir().unwrap(), Registry::start().await);
    let (store, content) = (Process::start(kept.path(), ROOM), bytes(3, LARGE));
    let digest = registry.add(content.clone());
    let part = async |range: &str| {
        let url = format!("{}/v2/vision/tiny/blobs/{digest}?ns={}", store.url(), registry.address);
        let answer = reqwest::Client::new().get(url).header("range", range).send().await.unwrap();
        let told = answer.headers().get("content-range").map(|range| range.to_str().unwrap().to_owned());
        (answer.status().as_u16(), told, answer.bytes().await.unwrap().to_vec())
    };
    for _ in ["from the registry", "from the disk"] {
        let told = format!("bytes 1000000-{}/{LARGE}", LARGE - 1);
        assert!(part("bytes=1000000-").await == (206, Some(told), content[1_000_000..].to_vec()));
        assert!(part("bytes=5-9").await == (206, Some(format!("bytes 5-9/{LARGE}")), content[5..10].to_vec()));
        assert_eq!(part(&format!("bytes={LARGE}-")).await.0, 416);
    }
    assert_eq!(registry.asked(&digest), [0]);
}

#[tokio::test]
async fn what_everybody_may_have_for_a_token_is_kept_and_what_is_closed_is_not() {
    let model = tempdir().unwrap();
    write_tiny(model.path(), 7).unwrap();
    let [kept, to] = [tempdir().unwrap(), tempdir().unwrap()];
    let (registry, store) = (Registry::with(Door::Token).await, Process::start(kept.path(), ROOM));
    let digest = registry.publish(model.path());
    store.pod(&registry, &digest, "f32", to.path()).await.unwrap();
    assert_eq!(registry.direct(), [""; 0]);
    // Who has a name and a password brings them to the registry itself; here nobody has.
    let closed = Registry::with(Door::Closed).await;
    let secret = closed.add("a manifest of somebody");
    assert_eq!(store.ask(&closed, &secret).await.status(), 403);
    let error = store.pod(&closed, &secret, "f32", tempdir().unwrap().path()).await.unwrap_err().to_string();
    assert!(error.starts_with("Unauthorized: the registry does not give "), "{error}");
}

#[tokio::test]
async fn a_store_that_is_not_there_or_says_nothing_holds_up_no_pod_for_long() {
    let model = tempdir().unwrap();
    write_tiny(model.path(), 7).unwrap();
    let registry = Registry::start().await;
    let digest = registry.publish(model.path());
    rustls::crypto::ring::default_provider().install_default().ok();
    let to = tempdir().unwrap();
    pod("http://127.0.0.1:1", &registry, &digest, "f32", to.path()).await.unwrap();
    serves(to.path(), &digest, "f32");
    // It takes connections and is silent: that is waited for once, and not for each file.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, to) = (format!("http://{}", silent.local_addr().unwrap()), tempdir().unwrap());
    let fetched = pod(&url, &registry, &digest, "f32", to.path());
    tokio::time::timeout(Duration::from_secs(60), fetched).await.unwrap().unwrap();
    serves(to.path(), &digest, "f32");
    let listened = async {
        let mut connections = 0;
        while let Ok(Ok(_)) = tokio::time::timeout(Duration::ZERO, silent.accept()).await {
            connections += 1;
        }
        connections
    };
    assert_eq!(listened.await, 1);
}
