//! Out to people and in again, in a folder; and the count, by a scripted API server.

#[path = "../../../lake/tests/common/mod.rs"]
mod written;

use super::count::Counter;
use super::import::{check, keep};
use super::{Contents, export, forget};
use crate::args::Order;
use axum::http::{Method, StatusCode};
use jiff::Timestamp;
use kube::{Client, Config};
use sconce_lake::Lake;
use sconce_lake::labels::{Given, read};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use written::{answered, labelled, sample, uri, write};

const SEVEN: &[u8] = b"\x89PNG seven";
const EIGHT: &[u8] = b"\x89PNG eight";
const NINE: &[u8] = b"\x89PNG nine";

fn id(content: &[u8]) -> String {
    sconce_lake::id(content)
}

/// Three samples of two nodes, one of them seen by both; the newest was labelled by a device.
fn lake(folder: &Path) {
    let of = |content: &[u8], second, margin| answered(sample(content, "door", second), 7, margin);
    let seven = (of(SEVEN, 10, 0.5), SEVEN.to_vec());
    write(folder, "node-a", 1, &[seven.clone(), (of(EIGHT, 20, 0.25), EIGHT.to_vec())]);
    let nine = (labelled(sample(NINE, "door", 30), "9", "http"), NINE.to_vec());
    write(folder, "node-b", 1, &[seven, nine]);
}

async fn contents(folder: &Path) -> Contents {
    Contents::of(Lake::open(&uri(folder)).unwrap()).await.unwrap()
}

fn given(rows: &[(&[u8], &str)]) -> Vec<Given> {
    let text: String = rows.iter().map(|(content, label)| format!("{},{label}\n", id(content))).collect();
    read("labels.csv", format!("id,label\n{text}").as_bytes()).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn a_data_set_on_a_claim_is_read_where_that_is_mounted() {
    let place = |uri: &str, at: Option<&str>| super::place(uri.into(), at.map(Into::into));
    assert_eq!(place("s3://lake/digits", None).unwrap(), "s3://lake/digits");
    assert_eq!(place("pvc://lake/digits", Some("/mnt/lake/digits")).unwrap(), "file:///mnt/lake/digits");
    let told = |uri, at| place(uri, at).unwrap_err().to_string();
    let needed = "it lies on a claim, pvc://lake/digits: name that folder, where the claim is mounted here, with --at";
    assert_eq!(told("pvc://lake/digits", None), needed);
    assert_eq!(
        told("s3://lake/digits", Some("/mnt")),
        "it lies at s3://lake/digits, which is no claim: leave --at out"
    );
}

#[tokio::test]
async fn an_export_is_looked_at_filled_in_and_imported() {
    let folder = tempfile::tempdir().unwrap();
    let (lake_folder, out) = (folder.path().join("lake"), folder.path().join("out"));
    lake(&lake_folder);
    let wish = export::Wish { by: Some(Order::Margin), limit: Some(5), unlabelled: true };
    let told = export::export(&contents(&lake_folder).await, &wish, &out).await.unwrap();
    assert_eq!((told.samples, told.of, told.labelled), (2, 3, 0));
    let table = std::fs::read_to_string(out.join("labels.csv")).unwrap();
    let expected = format!(
        "id,label,by,at,prediction,score,file\n{eight},,,,7,0.6250,files/{eight}.png\n{seven},,,,7,0.7500,files/{seven}.png\n",
        eight = id(EIGHT),
        seven = id(SEVEN),
    );
    assert_eq!(table, expected, "least sure first");
    assert_eq!(std::fs::read(out.join(format!("files/{}.png", id(SEVEN)))).unwrap(), SEVEN);
    let page = std::fs::read_to_string(out.join("index.html")).unwrap();
    assert!(page.contains(&format!("src=\"files/{}.png\"", id(EIGHT))), "{page}");
    let error = export::check(&out).unwrap_err().to_string();
    assert!(error.ends_with("is not empty: name another folder"), "{error}");

    let filled = table.replacen(",,,,7,0.6250", ",8,,,7,0.6250", 1);
    let checked = check(&contents(&lake_folder).await, read("f", filled.as_bytes()).unwrap(), "ann", at(100)).unwrap();
    assert_eq!((checked.labels.len(), checked.fresh, checked.empty), (1, 1, 1));
    let told = keep(&Lake::open(&uri(&lake_folder)).unwrap(), checked, at(100)).await.unwrap();
    let kept = std::fs::read_to_string(lake_folder.join(told.object.unwrap())).unwrap();
    assert_eq!(kept, format!("id,label,by,at\n{},8,ann,1970-01-01T00:01:40Z\n", id(EIGHT)));
    let wish = export::Wish { by: None, limit: None, unlabelled: false };
    let told = export::export(&contents(&lake_folder).await, &wish, &folder.path().join("all")).await.unwrap();
    assert_eq!((told.samples, told.labelled), (3, 2));
    let table = std::fs::read_to_string(folder.path().join("all/labels.csv")).unwrap();
    let first = table.lines().nth(1).unwrap();
    assert!(first.starts_with(&format!("{},9,http,1970-01-01T00:00:30Z,,,", id(NINE))), "the newest first: {first}");
}

#[tokio::test]
async fn what_is_known_unknown_or_disputed_is_told() {
    let folder = tempfile::tempdir().unwrap();
    lake(folder.path());
    let strange = b"elsewhere";
    let rows = given(&[(SEVEN, "7"), (EIGHT, ""), (NINE, "4"), (strange, "1"), (SEVEN, "7")]);
    let checked = check(&contents(folder.path()).await, rows, "ann", at(100)).unwrap();
    let told = keep(&Lake::open(&uri(folder.path())).unwrap(), checked, at(100)).await.unwrap();
    assert_eq!((told.kept, told.fresh, told.empty, &told.unknown[..]), (2, 1, 1, &[id(strange)][..]));
    let text = told.to_string();
    assert!(text.contains(&format!("  {}: http said 9, now it is 4\n", id(NINE))), "{text}");
    assert!(text.contains(&format!("  {} is not in the data set\n", id(strange))), "{text}");

    // The same again says nothing new; who corrects himself disputes with nobody.
    let again = given(&[(SEVEN, "7"), (NINE, "4")]);
    let checked = check(&contents(folder.path()).await, again, "ann", at(200)).unwrap();
    assert_eq!((checked.unchanged, checked.labels.len()), (2, 0));
    let told = keep(&Lake::open(&uri(folder.path())).unwrap(), checked, at(200)).await.unwrap();
    assert_eq!(told.object, None);
    let checked = check(&contents(folder.path()).await, given(&[(SEVEN, "1")]), "ann", at(300)).unwrap();
    assert_eq!((checked.labels.len(), checked.fresh, checked.conflicts.len()), (1, 0, 0));
    let twice = check(&contents(folder.path()).await, given(&[(SEVEN, "1"), (SEVEN, "2")]), "ann", at(300));
    let error = twice.unwrap_err().to_string();
    assert_eq!(error, format!("lines 2 and 3 say that {} is \"1\" and \"2\": leave one", id(SEVEN)));
}

#[tokio::test]
async fn a_sample_is_forgotten_wherever_it_is_and_what_is_nowhere_is_told() {
    let folder = tempfile::tempdir().unwrap();
    lake(folder.path());
    let open = Lake::open(&uri(folder.path())).unwrap();
    let checked = check(&contents(folder.path()).await, given(&[(SEVEN, "7"), (EIGHT, "8")]), "ann", at(100)).unwrap();
    let table = keep(&open, checked, at(100)).await.unwrap().object.unwrap();
    let strange = b"elsewhere";
    let ids = || [id(SEVEN), id(strange)].into();
    let told = forget::forget(&open, ids(), "ann", at(200)).await.unwrap();
    let expected = format!(
        "node-a-store-00000001: 1 sample taken out, 1 left\n\
        node-b-store-00000001: 1 sample taken out, 1 left\n\
        {table}: 1 label taken out, 1 left\n\
        {} is in no shard\n\
        1 sample of 2 found; 2 shards and 1 table of labels changed\n\
        nobody reads them from now on, by {}\n",
        id(strange),
        told.objects[0],
    );
    let text = told.to_string();
    assert!(text.starts_with(&expected), "{text}");
    let tombstones = std::fs::read_to_string(folder.path().join(&told.objects[0])).unwrap();
    assert!(tombstones.contains(&format!("{},ann,1970-01-01T00:03:20Z\n", id(strange))), "a node may hold it");
    let wish = export::Wish { by: None, limit: None, unlabelled: false };
    let exported = export::export(&contents(folder.path()).await, &wish, &folder.path().join("out")).await.unwrap();
    assert_eq!((exported.samples, exported.of, exported.labelled), (2, 2, 2));

    let again = forget::forget(&open, ids(), "bob", at(300)).await.unwrap();
    assert_eq!((again.objects.len(), again.shards.len(), again.labels.len(), again.absent.len()), (0, 0, 0, 2));
    assert!(
        again
            .to_string()
            .contains("\n0 samples of 2 found; 0 shards and 0 tables of labels changed\nnobody has read them since"),
        "{again}"
    );
    let rest = [id(EIGHT), id(NINE)].into();
    let told = forget::forget(&open, rest, "ann", at(400)).await.unwrap().to_string();
    assert!(
        told.starts_with("node-a-store-00000001: 1 sample taken out, 0 left; nothing is left: deleted\n"),
        "{told}"
    );
    let error = Contents::of(Lake::open(&uri(folder.path())).unwrap()).await.err().unwrap().to_string();
    assert_eq!(error, "no sample has arrived there yet: there is no manifest");
}

#[tokio::test]
async fn what_could_not_be_erased_is_hidden_and_the_same_again_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    lake(folder.path());
    let open = Lake::open(&uri(folder.path())).unwrap();
    let tar = std::fs::read_dir(folder.path().join("shards")).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&tar).unwrap();
    std::fs::write(&tar, &whole[..700]).unwrap();
    let error = forget::forget(&open, [id(SEVEN)].into(), "ann", at(100)).await.unwrap_err();
    let error = format!("{error:#}");
    let told = "no reader sees the samples any more, but not all is erased: give the same command again: shards/";
    assert!(error.starts_with(told) && error.contains("no tar, or cut off"), "{error}");
    assert!(contents(folder.path()).await.rows().all(|row| row.id != id(SEVEN)));
    std::fs::write(&tar, whole).unwrap();
    let told = forget::forget(&open, [id(SEVEN)].into(), "ann", at(200)).await.unwrap();
    assert!(told.absent.is_empty() && !told.shards.is_empty(), "{told}");
}

/// Who reads, and then writes onto what another has written meanwhile, is told so and begins again.
#[tokio::test]
async fn labels_are_counted_onto_what_others_have_counted() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let state = Arc::new(Mutex::new((1_u64, 40_u64, Vec::<Value>::new())));
    let seen = state.clone();
    let answer = move |method: Method, uri: axum::http::Uri, body: String| {
        let mut state = seen.lock().unwrap();
        let object = |version: u64, imported: u64| {
            json!({"apiVersion": "sconce.dev/v1alpha1", "kind": "EdgeDataset",
                "metadata": {"name": "digits", "namespace": "vision", "resourceVersion": version.to_string()},
                "spec": {"uri": "s3://lake/digits"}, "status": {"imported": imported}})
        };
        if method == Method::GET {
            let found = object(state.0, state.1);
            // After the first reading somebody else counts two.
            if state.2.is_empty() && state.1 == 40 {
                state.0 = 2;
                state.1 = 42;
            }
            return (StatusCode::OK, found.to_string());
        }
        assert!(uri.path().ends_with("/namespaces/vision/edgedatasets/digits/status"), "{uri}");
        let patch: Value = serde_json::from_str(&body).unwrap();
        state.2.push(patch.clone());
        let version = state.0.to_string();
        if patch["metadata"]["resourceVersion"] != json!(version) {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict",
                "code": 409, "message": "the object has been modified"});
            return (StatusCode::CONFLICT, status.to_string());
        }
        state.1 = patch["status"]["imported"].as_u64().unwrap();
        (StatusCode::OK, object(3, state.1).to_string())
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let router = axum::Router::new().fallback(move |method, uri, body| std::future::ready(answer(method, uri, body)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let counter = Counter::new(Client::try_from(Config::new(uri)).unwrap(), "vision", "digits");
    counter.add(5).await.unwrap();
    let state = state.lock().unwrap();
    assert_eq!((state.1, state.2.len()), (47, 2));
    assert_eq!(state.2[0]["status"], json!({"imported": 45}), "onto what had been read");
}
