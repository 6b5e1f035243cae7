//! The client against a real server with a tiny model.

#![allow(clippy::unwrap_used, reason = "in tests")]

use futures::FutureExt as _;
use prometheus_client::registry::Registry;
use sconce_edge_runtime::batch::Policy;
use sconce_edge_runtime::catalogue::{Catalogue, Control, Settings, Source, Sources};
use sconce_edge_runtime::engine::Executor;
use sconce_edge_runtime::metrics::Metrics;
use sconce_edge_runtime::server::{self, Limits, Listeners, Service};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::process::Command;

const MODEL: &str = "tiny.test";

/// Writes three images of the tiny model's size, as the client's image carries them, beside the artifact.
fn data(folder: &Path) {
    sconce_model::artifact::testing::write_tiny(folder, 7).unwrap();
    let images: Vec<u8> = [0x0803_u32, 3, 8, 8]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .chain((0..3 * 64).map(|pixel| pixel as u8))
        .collect();
    let labels: Vec<u8> = [0x0801_u32, 3].iter().flat_map(|word| word.to_be_bytes()).chain([0, 1, 2]).collect();
    std::fs::write(folder.join("images.idx3"), images).unwrap();
    std::fs::write(folder.join("labels.idx1"), labels).unwrap();
}

async fn serve(folder: &Path) -> String {
    let source = Source { version: None, folder: folder.into(), digest: None };
    let settings = Settings {
        trust: Default::default(),
        variant: "f32".into(),
        policy: Policy { max_batch_size: 4, max_queue_delay: Duration::ZERO },
        queue_size: 64,
        threads: 1,
        executor: Some(Executor::Inline),
    };
    let metrics = Metrics::new(&mut Registry::default());
    let sources = Sources::new([(MODEL.into(), source)], None).unwrap();
    let catalogue = Catalogue::start(sources, &[MODEL.into()], Control::None, settings, metrics).await.unwrap();
    let service = Service::new(catalogue);
    let listen = || TcpListener::bind("127.0.0.1:0");
    let listeners = Listeners { grpc: listen().await.unwrap(), rest: listen().await.unwrap(), tls: None };
    let address = listeners.grpc.local_addr().unwrap().to_string();
    tokio::spawn(server::serve(listeners, service, Limits::default(), std::future::pending().boxed().shared()));
    address
}

fn client(folder: &Path, router: &str, args: &[&str]) -> Command {
    let mut client = Command::new(env!("CARGO_BIN_EXE_digits-client"));
    client
        .args(args)
        .args(["--router", router, "--data", folder.to_str().unwrap()])
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    client
}

async fn json(mut client: Command) -> (Option<i32>, serde_json::Value) {
    let ran = client.output().await.unwrap();
    (ran.status.code(), serde_json::from_slice(&ran.stdout).unwrap())
}

#[tokio::test]
async fn a_run_says_what_it_measured_in_one_object() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let address = serve(folder.path()).await;
    let run = |args: &[&str]| {
        json(client(folder.path(), &address, &[&["run", "-o", "json", "--model", MODEL], args].concat()))
    };

    let (code, told) = run(&["--count", "7"]).await;
    assert_eq!(
        (code, &told["sent"], &told["failed"], &told["errors"]),
        (Some(0), &7.into(), &0.into(), &serde_json::json!([]))
    );
    assert!((0.0..=1.0).contains(&told["accuracy"].as_f64().unwrap()), "{told}");
    assert!(
        told["p99Ms"].as_f64() >= told["p50Ms"].as_f64()
            && told["requestBytes"].as_f64().unwrap() > 256.0
            && told["responseBytes"].as_f64().unwrap() > 12.0,
        "{told}"
    );

    let (code, told) = run(&["--count", "5", "--compare", MODEL]).await;
    assert_eq!(
        (code, &told["model"], &told["sent"], &told["compare"]["sent"]),
        (Some(0), &MODEL.into(), &5.into(), &5.into())
    );
    assert_eq!(told["accuracy"], told["compare"]["accuracy"]);
    assert!(told["p50Ratio"].as_f64().unwrap() > 0.0, "{told}");
    let (code, told) = run(&["--count", "5", "--compare", "other.test"]).await;
    assert_eq!((code, &told["failed"], &told["compare"]["failed"]), (Some(1), &0.into(), &5.into()));

    let (code, told) = run(&["--images", "1..3", "--shifted", "--count", "2"]).await;
    assert_eq!((code, &told["sent"]), (Some(0), &2.into()), "{told}");
    for (images, why) in [("2..4", "--images 2..4: there are 3 images"), ("2..2", "need FROM..TO, such as 0..300")] {
        let refused =
            client(folder.path(), &address, &["run", "--images", images]).stderr(Stdio::piped()).output().await;
        let said = String::from_utf8(refused.unwrap().stderr).unwrap();
        assert!(said.contains(why), "{said}");
    }

    let (code, told) = run(&["--rate", "50", "--duration", "500ms"]).await;
    let sent = told["sent"].as_u64().unwrap();
    assert!(code == Some(0) && (10..=26).contains(&sent), "{told}");
}

#[tokio::test]
async fn a_failed_request_is_told_and_ends_with_1() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let address = serve(folder.path()).await;
    let (code, told) =
        json(client(folder.path(), &address, &["run", "-o", "json", "--model", "other.test", "--count", "8"])).await;
    assert_eq!((code, &told["failed"], told["errors"].as_array().unwrap().len()), (Some(1), &8.into(), 5));
    assert!(
        told["errors"][0]
            .as_str()
            .unwrap()
            .starts_with("NotFound: Request for unknown model: no model \"other.test\" here"),
        "{told}"
    );
}

#[tokio::test]
async fn a_stream_ends_with_0_when_told_to() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let address = serve(folder.path()).await;
    let mut stream = client(folder.path(), &address, &["stream", "--rate", "20", "--every", "200ms", "--model", MODEL])
        .spawn()
        .unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(stream.stdout.take().unwrap()));
    let line = lines.next_line().await.unwrap().unwrap();
    assert!(line.starts_with("sent ") && line.contains(" failed 0 accuracy "), "{line}");
    Command::new("kill").args(["-TERM", &stream.id().unwrap().to_string()]).status().await.unwrap();
    assert_eq!(stream.wait().await.unwrap().code(), Some(0));
}
