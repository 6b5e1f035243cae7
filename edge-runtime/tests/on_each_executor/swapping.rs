//! Several models and versions in one server, loaded beside each other and swapped while they are asked.

use super::EXECUTOR;
use super::rest::ask;
use crate::common::{Client, LIMITS, LOOPBACK, MODEL, Server, request, settings, start};
use prometheus_client::registry::Registry;
use sconce_edge_runtime::catalogue::{Catalogue, Control, Sources};
use sconce_edge_runtime::metrics::Metrics;
use sconce_edge_runtime::wire::model_repository_parameter::ParameterChoice;
use sconce_edge_runtime::wire::repository_index_response::ModelIndex;
use sconce_edge_runtime::wire::{
    ModelInferRequest, ModelMetadataRequest, ModelReadyRequest, ModelRepositoryParameter, ModelStatisticsRequest,
    RepositoryIndexRequest, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
};
use sconce_model::artifact::testing::{write_square, write_tiny};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// With the tiny model in these versions, each of a seed that is its number.
fn repository(versions: &[u64]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    versions.iter().for_each(|version| write_version(folder.path(), *version));
    folder
}

fn write_version(repository: &Path, version: u64) {
    write_tiny(&repository.join(MODEL).join(version.to_string()), version).unwrap();
}

async fn server(repository: &Path, control: Control) -> Server {
    let sources = Sources::new([], Some(repository.into())).unwrap();
    of(start(sources, control, settings(EXECUTOR)).await).await
}

async fn of(catalogue: Arc<Catalogue>) -> Server {
    Server::of(catalogue, TcpListener::bind(LOOPBACK).await.unwrap(), None, LIMITS).await
}

fn load(name: &str) -> RepositoryModelLoadRequest {
    RepositoryModelLoadRequest { model_name: name.into(), ..Default::default() }
}

fn unload(name: &str) -> RepositoryModelUnloadRequest {
    RepositoryModelUnloadRequest { model_name: name.into(), ..Default::default() }
}

fn version(version: &str) -> ModelInferRequest {
    ModelInferRequest { model_version: version.into(), ..request(1) }
}

/// The version that answered, and its answer.
async fn answer(client: &mut Client, request: ModelInferRequest) -> Result<(String, Vec<u8>), Status> {
    let answer = client.model_infer(request).await?.into_inner();
    Ok((answer.model_version, answer.raw_output_contents[0].to_vec()))
}

async fn index(client: &mut Client) -> Vec<(String, String, String, String)> {
    let index = client.repository_index(RepositoryIndexRequest::default()).await.unwrap().into_inner();
    index.models.into_iter().map(|ModelIndex { name, version, state, reason }| (name, version, state, reason)).collect()
}

fn indexed(version: &str, state: &str, reason: &str) -> (String, String, String, String) {
    (MODEL.into(), version.into(), state.into(), reason.into())
}

/// Each answer is one version's, whole; and once a version is loaded, none is of the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_swaps_under_load_lose_no_request() {
    let folder = repository(&[1]);
    let server = server(folder.path(), Control::Explicit).await;
    let mut client = server.client().await;
    let over = Arc::new(AtomicBool::new(false));
    let askers = (0..4).map(|_| {
        let (mut client, over) = (client.clone(), over.clone());
        tokio::spawn(async move {
            let mut answers = Vec::new();
            while !over.load(Ordering::Relaxed) {
                answers.push(answer(&mut client, request(1)).await?);
            }
            Ok::<_, Status>(answers)
        })
    });
    let askers: Vec<_> = askers.collect();
    let mut expected: BTreeMap<_, _> = [answer(&mut client, version("1")).await.unwrap()].into();
    for version in 2..=51 {
        write_version(folder.path(), version);
        std::fs::remove_dir_all(folder.path().join(MODEL).join((version - 1).to_string())).unwrap();
        client.repository_model_load(load(MODEL)).await.unwrap();
        let (answered, output) = answer(&mut client, request(1)).await.unwrap();
        assert_eq!(answered, version.to_string());
        expected.insert(answered, output);
    }
    over.store(true, Ordering::Relaxed);
    let mut answered = BTreeMap::new();
    for asker in askers {
        for (version, output) in asker.await.unwrap().unwrap() {
            assert_eq!(output, expected[&version], "of version {version}");
            *answered.entry(version).or_insert(0) += 1;
        }
    }
    assert!(answered.len() > 2, "nobody asked meanwhile: {answered:?}");
    assert_eq!(index(&mut client).await, [indexed("51", "READY", "")]);
}

#[tokio::test]
async fn what_cannot_be_loaded_changes_nothing_and_says_why() {
    let folder = repository(&[1]);
    let server = server(folder.path(), Control::Explicit).await;
    let mut client = server.client().await;
    let before = answer(&mut client, request(1)).await.unwrap();
    let weights = folder.path().join(MODEL).join("1/weights/f32/head.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &whole[..whole.len() - 1]).unwrap();
    write_version(folder.path(), 2);
    std::fs::write(folder.path().join(MODEL).join("2/config.json"), "{").unwrap();

    let refused = client.repository_model_load(load(MODEL)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().ends_with("(loading \"tiny.test\")"), "{refused}");
    assert_eq!(answer(&mut client, request(1)).await.unwrap(), before);
    let [first, second] = &index(&mut client).await[..] else { panic!("two are known") };
    assert_eq!((first.1.as_str(), first.2.as_str()), ("1", "READY"));
    assert!(first.3.contains("head.safetensors") && refused.message().starts_with(&first.3), "{first:?} {refused}");
    assert_eq!((second.1.as_str(), second.2.as_str()), ("2", "UNAVAILABLE"));
    assert!(second.3.contains("config.json"), "{second:?}");
    let refused = answer(&mut client, version("2")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains(&second.3)), (Code::Unavailable, true), "{refused}");

    // Repaired, and of other shapes: those who send the old ones are told.
    std::fs::write(&weights, whole).unwrap();
    std::fs::remove_dir_all(folder.path().join(MODEL).join("2")).unwrap();
    write_square(&folder.path().join(MODEL).join("2"), 2, 6).unwrap();
    client.repository_model_load(load(MODEL)).await.unwrap();
    assert_eq!(index(&mut client).await, [indexed("1", "READY", ""), indexed("2", "READY", "")]);
    assert_eq!(answer(&mut client, version("1")).await.unwrap(), before);
    let told = answer(&mut client, request(1)).await.unwrap_err();
    assert!(told.message().contains("has shape [1, 1, 8, 8]; the model takes [-1, 1, 6, 6]"), "{told}");
}

#[tokio::test]
async fn every_version_is_served_and_the_newest_to_those_who_name_none() {
    let folder = repository(&[2, 9, 10]);
    let server = server(folder.path(), Control::None).await;
    let mut client = server.client().await;
    for (asked, expected) in [("", "10"), ("10", "10"), ("9", "9"), ("2", "2")] {
        assert_eq!(answer(&mut client, version(asked)).await.unwrap().0, expected);
    }
    let unknown = answer(&mut client, version("3")).await.unwrap_err();
    assert_eq!(
        (unknown.code(), unknown.message()),
        (Code::NotFound, "no version \"3\" of \"tiny.test\" here; this server has \"2\", \"9\", \"10\"")
    );
    let (name, version) = (MODEL.to_owned(), "9".to_owned());
    let asked = ModelMetadataRequest { name: name.clone(), version: version.clone() };
    assert_eq!(client.model_metadata(asked).await.unwrap().into_inner().versions, ["2", "9", "10"]);
    let mut counted = async |name: &str, version: &str| -> Vec<(String, u64)> {
        let asked = ModelStatisticsRequest { name: name.into(), version: version.into() };
        let models = client.model_statistics(asked).await.unwrap().into_inner().model_stats;
        models.into_iter().map(|model| (model.version, model.inference_count)).collect()
    };
    let all = [("2".to_owned(), 1), ("9".to_owned(), 1), ("10".to_owned(), 2)];
    assert_eq!(counted("", "").await, all);
    assert_eq!(counted(&name, "").await, all);
    assert_eq!(counted(&name, &version).await, all[1..2]);
    let reply = ask(server.rest, "GET", "/v2/models/tiny.test/versions/9/stats", &[], b"").await.json();
    assert_eq!((&reply["model_stats"][0]["version"], reply["model_stats"].as_array().unwrap().len()), (&json!("9"), 1));
    let reply = ask(server.rest, "GET", "/v2/models/tiny.test/versions/2/ready", &[], b"").await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn models_come_and_go_where_that_is_allowed() {
    let folder = repository(&[1]);
    let sources = Sources::new([], Some(folder.path().into())).unwrap();
    let metrics = Metrics::new(&mut Registry::default());
    let catalogue = Catalogue::start(sources, &[], Control::Explicit, settings(EXECUTOR), metrics).await.unwrap();
    let server = of(catalogue).await;
    let mut client = server.client().await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let mut health = HealthClient::new(channel.connect_lazy());
    let mut status = async || {
        let asked = HealthCheckRequest { service: MODEL.into() };
        health.check(asked).await.map(|answer| answer.into_inner().status).map_err(|status| status.code())
    };
    let ready = ModelReadyRequest { name: MODEL.into(), version: String::new() };

    assert_eq!(index(&mut client).await, [indexed("", "UNAVAILABLE", "not loaded")]);
    assert_eq!(client.model_ready(ready.clone()).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(status().await, Err(Code::NotFound));
    client.repository_model_load(load(MODEL)).await.unwrap();
    answer(&mut client, request(1)).await.unwrap();
    // Health is told right after.
    while status().await != Ok(ServingStatus::Serving as i32) {}
    client.repository_model_unload(unload(MODEL)).await.unwrap();
    while status().await != Ok(ServingStatus::NotServing as i32) {}
    assert!(!client.model_ready(ready).await.unwrap().into_inner().ready);
    assert_eq!(index(&mut client).await, [indexed("1", "UNAVAILABLE", "unloaded")]);
    let refused = answer(&mut client, request(1)).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unavailable, "\"tiny.test\" is not served at the moment: unloaded")
    );

    let post = async |path: &str, body: &[u8]| ask(server.rest, "POST", path, &[], body).await;
    assert_eq!(ask(server.rest, "GET", "/v2/models", &[], b"").await.json(), json!({"models": []}));
    let refused = ask(server.rest, "GET", "/v2/models/tiny.test/ready", &[], b"").await;
    assert_eq!((refused.status, refused.error().contains("unloaded")), (503, true));
    assert_eq!(post("/v2/repository/index", br#"{"ready": true}"#).await.json(), json!([]));
    assert_eq!(post("/v2/repository/models/tiny.test/load", b"{}").await.status, 200);
    answer(&mut client, request(1)).await.unwrap();
    let dependents = br#"{"parameters": {"unload_dependents": false}}"#;
    assert_eq!(post("/v2/repository/models/tiny.test/unload", dependents).await.status, 200);
    for (path, body, status, expected) in [
        ("tiny.test/load", &br#"{"parameters": {"config": "{}"}}"#[..], 400, "load takes no parameter \"config\""),
        ("tiny.test/load", b"{", 400, "the body is no JSON of this request: EOF"),
        ("other/load", b"", 404, "no model \"other\" to load; there are \"tiny.test\""),
        ("..%2Fother/load", b"", 404, "no model \"../other\" to load"),
        ("other/unload", b"", 404, "no model \"other\" here to unload"),
    ] {
        let reply = post(&format!("/v2/repository/models/{path}"), body).await;
        let told = (reply.status, reply.error());
        assert!(told.0 == status && told.1.contains(expected), "{path}: {told:?}");
    }
    let told = post("/v2/logging", br#"{"log_colour": true}"#).await;
    assert!(told.status == 400 && told.error().contains("\"log_colour\" is no setting of the log"), "{}", told.error());
    let parameter = ModelRepositoryParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
    let strange = RepositoryModelLoadRequest { parameters: [("x".into(), parameter)].into(), ..load(MODEL) };
    assert_eq!(client.repository_model_load(strange).await.unwrap_err().code(), Code::InvalidArgument);
}

/// What was resolved before a model is unloaded is answered by it.
#[tokio::test]
async fn a_request_is_answered_by_the_model_that_it_found() {
    let folder = repository(&[1]);
    let server = server(folder.path(), Control::Explicit).await;
    let mut client = server.client().await;
    let body = json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": vec![0.5; 64]}]});
    let body = body.to_string();
    let (head, tail) = body.split_at(10);
    let mut slow = tokio::net::TcpStream::connect(server.rest).await.unwrap();
    let begun = format!(
        "POST /v2/models/tiny.test/infer HTTP/1.1\r\nhost: test\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    slow.write_all(begun.as_bytes()).await.unwrap();
    // The server says so when it begins to read the body: the model is found by then.
    let mut said = [0; 25];
    slow.read_exact(&mut said).await.unwrap();
    assert!(said.starts_with(b"HTTP/1.1 100 Continue"), "{}", String::from_utf8_lossy(&said));
    slow.write_all(head.as_bytes()).await.unwrap();
    client.repository_model_unload(unload(MODEL)).await.unwrap();
    assert_eq!(answer(&mut client, request(1)).await.unwrap_err().code(), Code::Unavailable);
    slow.write_all(tail.as_bytes()).await.unwrap();
    let mut told = String::new();
    slow.read_to_string(&mut told).await.unwrap();
    assert!(told.starts_with("HTTP/1.1 200 OK") && told.contains("\"model_version\":\"1\""), "{told}");
}

#[tokio::test]
async fn a_version_that_is_gone_is_counted_no_more() {
    let folder = repository(&[1, 2]);
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let sources = Sources::new([], Some(folder.path().into())).unwrap();
    let settings = settings(EXECUTOR);
    let catalogue = Catalogue::start(sources, &[MODEL.into()], Control::Explicit, settings, metrics).await.unwrap();
    let server = of(catalogue.clone()).await;
    let mut client = server.client().await;
    for asked in ["1", "2", "2"] {
        answer(&mut client, version(asked)).await.unwrap();
    }
    // What clients ask for and is not here makes no label.
    answer(&mut client, version("made-up")).await.unwrap_err();
    let told = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    };
    let before = told();
    assert!(before.contains("version=\"1\",code=\"Ok\"} 1\n") && before.contains("version=\"2\",code=\"Ok\"} 2\n"));
    assert!(before.contains("sconce_refused_total{reason=\"unknown_model\"} 1\n") && !before.contains("made-up"));
    std::fs::remove_dir_all(folder.path().join(MODEL).join("1")).unwrap();
    catalogue.load(MODEL).await.unwrap();
    // Its owners end first.
    while told().contains("version=\"1\"") {
        tokio::task::yield_now().await;
    }
    assert!(told().contains("version=\"2\",code=\"Ok\"} 2\n"), "{}", told());
}
