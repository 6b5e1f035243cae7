//! The binary as Kubernetes runs it: ports, signals, exit codes, last words.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;

use common::process::{Process, tiny};
use common::{MODEL, client, request};
use sconce_edge_runtime::wire::log_settings_request::SettingValue;
use sconce_edge_runtime::wire::log_settings_request::setting_value::ParameterChoice;
use sconce_edge_runtime::wire::{LogSettingsRequest, ModelInferRequest};
use sconce_model::digest::sha256;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

fn routes(folder: &Path, backends: &[(&str, SocketAddr)]) {
    let backends: Vec<_> =
        backends.iter().map(|(tier, address)| serde_json::json!({"tier": tier, "address": address})).collect();
    let text = serde_json::json!({"schema": 1, "models": {MODEL: {"backends": backends}}}).to_string();
    std::fs::write(folder.join("new"), text).unwrap();
    std::fs::rename(folder.join("new"), folder.join("routes.json")).unwrap();
}

async fn metrics(address: SocketAddr) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_counts_and_ends_with_0_when_told_to() {
    let model = tiny();
    let mut server = Process::serve(model.path());
    let mut asking = client(server.grpc).await;
    asking.model_infer(request(2)).await.unwrap();
    let mut wrong = request(1);
    wrong.model_version = "sha256-0123456789ab".into();
    assert_eq!(asking.model_infer(wrong).await.unwrap_err().code(), Code::NotFound);
    let text = metrics(server.metrics).await;
    for expected in [
        "sconce_requests_total{model=\"tiny.test\",version=\"1\",code=\"Ok\"} 1",
        "sconce_requests_total{code=\"NotFound\"} 1",
        "sconce_refused_total{reason=\"unknown_model\"} 1",
        "sconce_batch_size_sum{model=\"tiny.test\",version=\"1\"} 2",
        "sconce_request_seconds_count{model=\"tiny.test\",version=\"1\",stage=\"infer\"} 1",
        "sconce_model_info{model=\"tiny.test\",version=\"1\"",
        "isa=\"",
        "nv_inference_request_success{model=\"tiny.test\",version=\"1\"} 1",
        "nv_inference_request_failure{model=\"tiny.test\",version=\"1\"} 0",
        "nv_inference_count{model=\"tiny.test\",version=\"1\"} 2",
        "nv_inference_exec_count{model=\"tiny.test\",version=\"1\"} 1",
        "nv_inference_queue_duration_us{model=\"tiny.test\",version=\"1\"} ",
        "nv_inference_compute_infer_duration_us{model=\"tiny.test\",version=\"1\"} ",
        "nv_inference_request_duration_us{model=\"tiny.test\",version=\"1\"} ",
        "process_resident_memory_bytes ",
        "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    // What the allocator reads, and nothing else sets.
    let environment = std::fs::read(format!("/proc/{}/environ", server.child.id())).unwrap();
    let expected = b"MIMALLOC_ALLOW_THP=0";
    assert!(environment.split(|byte| *byte == 0).any(|variable| variable == expected));
    assert_eq!(server.terminate(), Some(0));
}

/// The node loses one of two servers without a word, while it is asked: no client hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_fails_no_request() {
    let (model, folder) = (tiny(), tempfile::tempdir().unwrap());
    let (mut edge, cloud) = (Process::serve(model.path()), Process::serve(model.path()));
    routes(folder.path(), &[("Edge", edge.grpc), ("Cloud", cloud.grpc)]);
    let mut router = Process::start(&["route", "--routes", folder.path().join("routes.json").to_str().unwrap()]);
    let asking = client(router.grpc).await;
    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let askers: Vec<_> = (0..8)
        .map(|_| {
            let (mut asking, over, answered) = (asking.clone(), over.clone(), answered.clone());
            tokio::spawn(async move {
                let mut slowest = Duration::ZERO;
                while !over.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    asking.model_infer(request(1)).await?;
                    slowest = slowest.max(began.elapsed());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, tonic::Status>(slowest)
            })
        })
        .collect();
    let enough = async |count: usize| {
        let goal = answered.load(Ordering::Relaxed) + count;
        let enough = async {
            while answered.load(Ordering::Relaxed) < goal {
                tokio::task::yield_now().await;
            }
        };
        // Askers that failed answer no more: they tell why, below.
        tokio::time::timeout(Duration::from_secs(10), enough).await.ok();
    };
    enough(200).await;
    edge.child.kill().unwrap();
    enough(400).await;
    over.store(true, Ordering::Relaxed);
    for asker in askers {
        let slowest = asker.await.unwrap().unwrap();
        assert!(slowest < Duration::from_secs(1), "the slowest in {slowest:?}");
    }
    let text = metrics(router.metrics).await;
    assert!(text.contains("sconce_router_requests_total{model=\"tiny.test\",tier=\"Cloud\",code=\"Ok\"}"), "{text}");
    assert!(text.contains("sconce_router_request_seconds_count{model=\"tiny.test\",tier=\"Edge\"}"), "{text}");
    assert_eq!(router.terminate(), Some(0));
}

#[test]
fn the_last_words_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("last-words");
    // As Kubernetes makes it.
    std::fs::write(&log, "").unwrap();
    let run = |args: &[&str]| {
        let ended = Command::new(env!("CARGO_BIN_EXE_edge-runtime"))
            .args(args)
            .args(["--termination-log", log.to_str().unwrap()])
            .output()
            .unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap(), std::fs::read_to_string(&log).unwrap())
    };
    let to = folder.path().join("models");
    let digest = sha256(b"{}");
    let (code, told, last) = run(&[
        "fetch",
        "--from",
        "oci://127.0.0.1:1/vision/tiny",
        "--digest",
        &digest,
        "--to",
        to.to_str().unwrap(),
        "--patience",
        "300ms",
    ]);
    assert_eq!((code, told.lines().last().unwrap()), (Some(1), last.as_str()));
    assert!(last.starts_with("RegistryUnreachable: cannot fetch "), "{last}");

    let model = tiny();
    std::fs::write(model.path().join("manifest.json"), "{}").unwrap();
    let (code, told, last) =
        run(&["serve", "--model", model.path().to_str().unwrap(), "--name", MODEL, "--digest", &sha256(b"another")]);
    assert_eq!((code, told.lines().last().unwrap()), (Some(1), last.as_str()));
    assert!(last.starts_with("DigestMismatch: manifest.json is sha256:"), "{last}");

    let repository = folder.path().to_str().unwrap();
    let (code, _, last) = run(&["serve", "--model-repository", repository, "--load-model", "a"]);
    assert_eq!(code, Some(1));
    assert!(last.ends_with("it needs --model-control-mode explicit"), "{last}");
    let (_, _, last) = run(&["serve", "--model-repository", &format!("{repository}/none")]);
    assert!(last.starts_with("cannot read ") && last.contains("none"), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bench_reports_both_ways() {
    let (model, folder) = (tiny(), tempfile::tempdir().unwrap());
    let server = Process::serve(model.path());
    routes(folder.path(), &[("Edge", server.grpc)]);
    let router = Process::start(&["route", "--routes", folder.path().join("routes.json").to_str().unwrap()]);
    let (direct, routed) = (server.grpc.to_string(), router.grpc.to_string());
    let bench = |more: &[&str]| {
        let mut bench = Command::new(env!("CARGO_BIN_EXE_edge-runtime"));
        bench.args(["bench", "--target", &direct, "--peer", &routed, "--model", MODEL, "--seconds", "1"]);
        bench.args(more).output().unwrap()
    };
    let report: serde_json::Value = serde_json::from_slice(&bench(&[]).stdout).unwrap();
    assert!(
        report["target"]["p50Ms"].as_f64().unwrap() > 0.0 && report["p50AddedMs"].is_f64() && report["cpu"].is_string(),
        "{report}"
    );
    assert!(report["target"]["cpuUsPerRequest"].is_null(), "nobody was asked: {report}");

    let (of_server, of_router) = (server.metrics.to_string(), router.metrics.to_string());
    let cost = ["--in-flight", "8", "--target-metrics", &of_server, "--peer-metrics", &of_router];
    let report: serde_json::Value = serde_json::from_slice(&bench(&cost).stdout).unwrap();
    for side in ["target", "peer"] {
        let figure = |name: &str| report[side][name].as_f64().unwrap();
        assert!(figure("cpuUsPerRequest") > 1.0 && figure("requestsPerSecond") > 1.0, "{report}");
    }
    assert!(report["cpuRatio"].is_f64(), "{report}");

    let (server_pid, router_pid) = (server.child.id().to_string(), router.child.id().to_string());
    let report = bench(&["--in-flight", "8", "--target-pid", &server_pid, "--peer-pid", &router_pid]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    for side in ["target", "peer"] {
        let figure = |name: &str| report[side][name].as_f64().unwrap();
        assert!(figure("cpuUsPerRequest") > 1.0 && figure("memoryBytes") > 1e6, "{report}");
    }

    let mut overloaded = Command::new(env!("CARGO_BIN_EXE_edge-runtime"));
    overloaded.args(["bench", "--target", &direct, "--model", MODEL, "--seconds", "1", "--in-flight", "4"]);
    let report = overloaded.args(["--rows", "4", "--overload", "2"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let figure = |name: &str| report[name].as_f64().unwrap();
    assert!(figure("offeredPerSecond") > 0.0 && figure("goodputRatio") > 0.0, "{report}");
    assert!(report["answered"]["p99Ms"].is_f64() && report["refused"].is_object(), "{report}");

    let rest = server.rest.unwrap().to_string();
    let ended = bench(&["--target-metrics", &rest]);
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success() && ended.stdout.is_empty(), "{told}");
    assert_eq!(told.trim_end(), format!("{rest} tells no process_cpu_seconds_total: is it a server's --metrics?"));
}

/// The flags of several models, and what the bench makes of swaps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_models_are_served_and_swapped_while_they_are_asked() {
    let (alone, repository) = (tiny(), tempfile::tempdir().unwrap());
    for (name, version) in [(MODEL, "1"), (MODEL, "2"), ("later", "1")] {
        sconce_model::artifact::testing::write_tiny(&repository.path().join(name).join(version), 3).unwrap();
    }
    let folder = format!("alone={}", alone.path().display());
    let repository = repository.path().to_str().unwrap();
    let mut args = vec!["serve", "--model", &folder, "--model-repository", repository, "--rest", "127.0.0.1:0"];
    args.extend(["--model-control-mode", "explicit", "--load-model", MODEL]);
    let mut server = Process::start(&args);
    let mut asking = client(server.grpc).await;
    let mut answered = async |name: &str| {
        let asked = ModelInferRequest { model_name: name.into(), ..request(1) };
        asking.model_infer(asked).await.map(|answer| answer.into_inner().model_version)
    };
    assert_eq!(answered("alone").await.unwrap(), "1");
    assert_eq!(answered(MODEL).await.unwrap(), "2");
    assert_eq!(answered("later").await.unwrap_err().code(), Code::NotFound);
    // Really changed, or this would be an error.
    let verbose = SettingValue { parameter_choice: Some(ParameterChoice::Uint32Param(1)) };
    let settings = [("log_verbose_level".to_owned(), verbose)].into();
    let told = client(server.grpc).await.log_settings(LogSettingsRequest { settings }).await.unwrap().into_inner();
    assert!(format!("{:?}", told.settings["log_verbose_level"]).contains("Uint32Param(1)"), "{told:?}");
    let (target, metrics) = (server.grpc.to_string(), server.metrics.to_string());
    let bench = |model: &str| {
        let mut bench = Command::new(env!("CARGO_BIN_EXE_edge-runtime"));
        bench.args(["bench", "--target", &target, "--target-metrics", &metrics, "--in-flight", "4", "--swaps", "20"]);
        bench.args(["--model", model]).output().unwrap()
    };
    let report = bench("later");
    assert!(String::from_utf8_lossy(&report.stderr).contains("entity was not found"), "{report:?}");
    let report = bench(MODEL);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!((&report["swaps"], &report["failed"]), (&20.into(), &0.into()), "{report}");
    assert!(report["requests"].as_u64().unwrap() > 0 && report["residentRatio"].is_f64(), "{report}");
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn the_bench_of_a_model_tells_each_variant_and_batch_size() {
    let model = tiny();
    let bench = |more: &[&str]| {
        let mut bench = Command::new(env!("CARGO_BIN_EXE_edge-runtime"));
        bench.args(["bench", "--model", model.path().to_str().unwrap(), "--seconds", "1", "--threads", "1"]);
        bench.args(more).output().unwrap()
    };
    let report: serde_json::Value = serde_json::from_slice(&bench(&[]).stdout).unwrap();
    let variants = report["variants"].as_array().unwrap();
    let told = |of: &str| variants.iter().map(|variant| variant[of].clone()).collect::<Vec<_>>();
    assert_eq!(
        (told("variant"), told("threads")),
        (vec!["f32".into(), "f16".into(), "int8".into()], vec![1.into(); 3])
    );
    for variant in variants {
        let batches = variant["batches"].as_array().unwrap();
        let sizes: Vec<_> = batches.iter().map(|batch| batch["batchSize"].as_u64().unwrap()).collect();
        assert_eq!(sizes, [1, 2, 4, 8, 16]);
        for batch in batches {
            let figure = |name: &str| batch[name].as_f64().unwrap();
            assert!(0.0 < figure("p50Ms") && figure("p50Ms") <= figure("p99Ms") && figure("samples") >= 1.0);
        }
    }
    assert!(report["cpu"].is_string() && report["isa"].is_string(), "{report}");

    let told = String::from_utf8(bench(&["--variant", "bf16"]).stderr).unwrap();
    assert_eq!(told.trim_end(), "no variant \"bf16\"; the artifact has f32, f16, int8");
    let told = String::from_utf8(bench(&["--in-flight", "2"]).stderr).unwrap();
    assert!(told.contains("'--threads <THREADS>' cannot be used with '--in-flight <N>'"), "{told}");
}
