//! A power cut at any moment leaves nothing that could be taken for whole.

use crate::process::{Process, files};
use crate::registry::{Mood, Registry};
use crate::{LARGE, bytes};
use sconce_model::digest::sha256;
use tempfile::tempdir;
use tokio::sync::watch;

const ROOM: u64 = 1 << 30;

#[tokio::test]
async fn killed_half_way_it_goes_on_from_there() {
    let (kept, registry) = (tempdir().unwrap(), Registry::start().await);
    let content = bytes(1, 2 * LARGE);
    let digest = registry.add(content.clone());
    let mut store = Process::start(kept.path(), ROOM);
    let (_never, held) = watch::channel(false);
    let mut given = 0;
    for more in [300_000, 500_000, 700_000] {
        registry.mood(&digest, &[Mood::Held(more, held.clone())]);
        given += more;
        let mut answer = store.ask(&registry, &digest).await;
        // The last that is there is shown only when all is.
        let mut seen = 0;
        while seen < given - (256 << 10) {
            seen += answer.chunk().await.unwrap().unwrap().len();
        }
        store.kill();
        assert_eq!(files(kept.path(), false), [""; 0], "nothing half has a name");
        assert_eq!(files(kept.path(), true).len(), 1);
        store = Process::start(kept.path(), ROOM);
    }
    assert!(store.blob(&registry, &digest).await == content);
    assert_eq!(registry.asked(&digest), [0, 300_000, 800_000, 1_500_000]);
    assert_eq!(files(kept.path(), false), [digest.replace(':', "-")]);
    assert_eq!(files(kept.path(), true), [""; 0]);
}

#[tokio::test]
async fn what_rotted_of_a_beginning_is_fetched_anew() {
    let (kept, registry) = (tempdir().unwrap(), Registry::start().await);
    let content = bytes(2, 2 * LARGE);
    let digest = registry.add(content.clone());
    let (_never, held) = watch::channel(false);
    registry.mood(&digest, &[Mood::Held(LARGE, held)]);
    let store = Process::start(kept.path(), ROOM);
    let mut answer = store.ask(&registry, &digest).await;
    answer.chunk().await.unwrap().unwrap();
    store.kill();
    let [partial] = &files(kept.path(), true)[..] else { panic!("one file is on its way") };
    let path = kept.path().join(partial);
    let rotten: Vec<u8> = std::fs::read(&path).unwrap().iter().map(|byte| byte ^ 1).collect();
    std::fs::write(&path, rotten).unwrap();
    let store = Process::start(kept.path(), ROOM);
    // It shows only at the end, which nobody sees.
    assert!(store.ask(&registry, &digest).await.bytes().await.is_err());
    assert!(store.blob(&registry, &digest).await == content);
}

/// Others' files are none of ours, and no process shares the folder.
#[tokio::test]
async fn one_process_has_the_folder_and_another_passes_on() {
    let (kept, registry) = (tempdir().unwrap(), Registry::start().await);
    let digest = registry.add(bytes(3, LARGE));
    std::fs::write(kept.path().join("notes.txt"), "keep").unwrap();
    let (first, second) = (Process::start(kept.path(), ROOM), Process::start(kept.path(), ROOM));
    assert_eq!(sha256(&second.blob(&registry, &digest).await), digest);
    assert_eq!(files(kept.path(), false), [""; 0]);
    assert_eq!(second.counted("requests_total{outcome=\"relayed\"}").await, 1);
    assert_eq!(sha256(&first.blob(&registry, &digest).await), digest);
    first.kill();
    // It has the folder from now on.
    assert_eq!(sha256(&second.blob(&registry, &digest).await), digest);
    assert_eq!(registry.asked(&digest).len(), 2);
    assert!(kept.path().join("notes.txt").exists());
}
