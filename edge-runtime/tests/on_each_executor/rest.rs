//! One server over REST: what it answers, and what it says to those who ask wrongly.

use super::EXECUTOR;
use crate::common::{LIMITS, LOOPBACK, MODEL, PIXELS, Server, policy, request};
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder};
use sconce_edge_runtime::batch::Policy;
use sconce_edge_runtime::server::Limits;
use serde_json::{Value, json};
use std::io::Read as _;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub const INFER: &str = "/v2/models/tiny.test/infer";
pub const LENGTH: &str = "inference-header-content-length";

pub struct Reply {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(header, value)| header.eq_ignore_ascii_case(name).then_some(value))
    }

    /// Of a refusal, whose body is nothing else.
    pub fn error(&self) -> String {
        let body = self.json();
        assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
        body["error"].as_str().unwrap().to_owned()
    }
}

pub async fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "content-length") {
        head += &format!("content-length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    stream.write_all(body).await.ok();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    let end = text.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(text[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head, body: text[end + 4..].to_vec() }
}

async fn get(address: SocketAddr, path: &str) -> Reply {
    ask(address, "GET", path, &[], b"").await
}

fn values(rows: usize) -> Vec<f32> {
    (0..rows * PIXELS).map(|index| (index % 11) as f32 / 11.0).collect()
}

fn inference(rows: usize) -> Value {
    json!({"id": "7", "inputs": [{"name": "input", "datatype": "FP32", "shape": [rows, 1, 8, 8], "data": values(rows)}]})
}

#[tokio::test]
async fn the_server_and_its_model_are_told() {
    let server = Server::start(EXECUTOR, 4, 16).await;
    for (path, expected) in [
        ("/v2/health/live", json!({"live": true})),
        ("/v2/health/ready", json!({"live": true, "ready": true})),
        ("/v2/models", json!({"models": [MODEL]})),
        ("/v2/models/tiny.test/ready", json!({"name": MODEL, "ready": true})),
    ] {
        let reply = get(server.rest, path).await;
        assert_eq!((reply.status, reply.json()), (200, expected), "{path}");
    }
    let about = get(server.rest, "/v2").await.json();
    assert_eq!(about["name"], "sconce");
    assert!(about["extensions"].as_array().unwrap().contains(&json!("binary_tensor_data")), "{about}");
    let metadata = get(server.rest, "/v2/models/tiny.test").await.json();
    let version = metadata["versions"][0].as_str().unwrap();
    assert_eq!(
        metadata,
        json!({"name": MODEL, "versions": [version], "platform": "sconce_candle",
            "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 1, 8, 8]},
                {"name": "encoded", "datatype": "BYTES", "shape": [-1, 1]}],
            "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1, 3]}]})
    );
    let of_version = get(server.rest, &format!("/v2/models/tiny%2Etest/versions/{version}")).await;
    assert_eq!(of_version.json(), metadata);
    let config = get(server.rest, "/v2/models/tiny.test/config").await.json();
    assert_eq!(
        config["input"],
        json!([{"name": "input", "data_type": "TYPE_FP32", "dims": [1, 8, 8], "optional": false},
        {"name": "encoded", "data_type": "TYPE_STRING", "dims": [1], "optional": true}])
    );
    assert_eq!((&config["max_batch_size"], &config["instance_group"][0]["kind"]), (&json!(4), &json!("KIND_CPU")));
    let index = ask(server.rest, "POST", "/v2/repository/index", &[], br#"{"ready": true}"#).await.json();
    assert_eq!(index, json!([{"name": MODEL, "version": version, "state": "READY", "reason": ""}]));
    let statistics = get(server.rest, "/v2/models/stats").await.json();
    assert_eq!(statistics, get(server.rest, "/v2/models/tiny.test/stats").await.json());
    assert_eq!(statistics["model_stats"][0]["inference_count"], 0);
}

/// Flat or nested, as JSON or as bytes, compressed or not, over REST or gRPC: the answer is the same.
#[tokio::test]
async fn every_form_of_a_request_gets_the_same_answer() {
    let server = Server::start(EXECUTOR, 4, 16).await;
    let over_grpc = server.client().await.model_infer(request(2)).await.unwrap().into_inner();
    let expected: &[u8] = &over_grpc.raw_output_contents[0];
    let bytes = |data: &Value| -> Vec<u8> {
        data.as_array().unwrap().iter().flat_map(|value| (value.as_f64().unwrap() as f32).to_le_bytes()).collect()
    };

    let flat = ask(server.rest, "POST", INFER, &[], inference(2).to_string().as_bytes()).await;
    let answer = flat.json();
    assert_eq!((flat.status, flat.header("content-type")), (200, Some("application/json")));
    assert_eq!((&answer["model_name"], &answer["id"]), (&json!(MODEL), &json!("7")));
    assert_eq!((&answer["outputs"][0]["name"], &answer["outputs"][0]["shape"]), (&json!("output"), &json!([2, 3])));
    assert_eq!(bytes(&answer["outputs"][0]["data"]), expected);

    let mut nested = inference(2);
    let image = |first: usize| -> Value {
        let values = values(2);
        (0..8).map(|row| json!(values[first + row * 8..][..8])).collect()
    };
    nested["inputs"][0]["data"] = json!([[image(0)], [image(PIXELS)]]);
    let nested = ask(server.rest, "POST", INFER, &[], nested.to_string().as_bytes()).await.json();
    assert_eq!(nested["outputs"], answer["outputs"]);

    let raw: Vec<u8> = values(2).iter().flat_map(|value| value.to_le_bytes()).collect();
    let head = json!({"parameters": {"binary_data_output": true}, "inputs": [{"name": "input", "datatype": "FP32",
        "shape": [2, 1, 8, 8], "parameters": {"binary_data_size": raw.len()}}]})
    .to_string();
    let body = [head.as_bytes(), &raw].concat();
    let length = head.len().to_string();
    let binary = ask(server.rest, "POST", INFER, &[(LENGTH, &length)], &body).await;
    let split: usize = binary.header(LENGTH).unwrap().parse().unwrap();
    let told: Value = serde_json::from_slice(&binary.body[..split]).unwrap();
    assert_eq!(told["outputs"][0]["parameters"], json!({"binary_data_size": 24}));
    assert_eq!(&binary.body[split..], expected);

    // The length counts uncompressed bytes.
    let mut small = Vec::new();
    GzEncoder::new(&body[..], Compression::default()).read_to_end(&mut small).unwrap();
    let compressed = ask(server.rest, "POST", INFER, &[(LENGTH, &length), ("content-encoding", "gzip")], &small).await;
    assert_eq!(compressed.body, binary.body);

    // One tensor and nothing else: its shape follows from its size.
    let whole = ask(server.rest, "POST", INFER, &[(LENGTH, "0")], &raw).await;
    let split: usize = whole.header(LENGTH).unwrap().parse().unwrap();
    assert_eq!(&whole.body[split..], expected);
}

#[tokio::test]
async fn long_answers_are_compressed_for_those_who_like_it() {
    let server = Server::start(EXECUTOR, 128, 16).await;
    let body = inference(128).to_string();
    let plain = ask(server.rest, "POST", INFER, &[], body.as_bytes()).await;
    let compressed = ask(server.rest, "POST", INFER, &[("accept-encoding", "gzip")], body.as_bytes()).await;
    assert_eq!((plain.header("content-encoding"), compressed.header("content-encoding")), (None, Some("gzip")));
    let mut whole = Vec::new();
    GzDecoder::new(&compressed.body[..]).read_to_end(&mut whole).unwrap();
    assert_eq!(whole, plain.body);
}

#[tokio::test]
async fn outputs_are_chosen_by_name_class_and_form() {
    let server = Server::start(EXECUTOR, 4, 16).await;
    let mut asked = inference(1);
    asked["outputs"] = json!([{"name": "output", "parameters": {"classification": 9}}]);
    let classes = ask(server.rest, "POST", INFER, &[], asked.to_string().as_bytes()).await.json();
    let output = &classes["outputs"][0];
    assert_eq!((&output["datatype"], &output["shape"]), (&json!("BYTES"), &json!([1, 3])));
    let best = output["data"][0].as_str().unwrap();
    let [_, index, label] = best.split(':').collect::<Vec<_>>()[..] else { panic!("{best}") };
    assert_eq!(["a", "b", "c"][index.parse::<usize>().unwrap()], label);

    asked["outputs"][0]["parameters"]["binary_data"] = json!(true);
    let binary = ask(server.rest, "POST", INFER, &[], asked.to_string().as_bytes()).await;
    let split: usize = binary.header(LENGTH).unwrap().parse().unwrap();
    let first = &binary.body[split..];
    assert_eq!(u32::from_le_bytes(first[..4].try_into().unwrap()) as usize, best.len());
    assert_eq!(&first[4..4 + best.len()], best.as_bytes());
}

/// Every malformed request gets its status, a sentence that says what was expected, and harms nobody else.
#[tokio::test]
async fn malformed_requests_are_told_what_was_expected() {
    let server = Server::start(EXECUTOR, 4, 16).await;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut request = inference(1);
        change(&mut request);
        request.to_string().into_bytes()
    };
    let input = |key: &'static str, value: Value| with(&|request| request["inputs"][0][key] = value.clone());
    let binary = |size: Value| {
        with(&|request| {
            let input = request["inputs"][0].as_object_mut().unwrap();
            input.remove("data");
            input.insert("parameters".into(), json!({"binary_data_size": size}));
        })
    };
    let text = String::from_utf8(inference(1).to_string().into_bytes()).unwrap();
    let shape = |shape: Value| input("shape", shape);
    let cases = [
        (with(&|r| r["inputs"] = json!([])), None, 400, "0 inputs; the model takes one, \"input\""),
        (input("name", json!("x")), None, 400, "input \"x\"; the model takes \"input\""),
        (input("datatype", json!("INT8")), None, 400, "has datatype \"INT8\"; the model takes FP32"),
        (
            shape(json!([1, 8, 8])),
            None,
            400,
            "has shape [1, 8, 8]; the model takes [-1, 1, 8, 8], the first being 1 to 4",
        ),
        (shape(json!([-1, 1, 8, 8])), None, 400, "has shape [-1, 1, 8, 8]"),
        (shape(json!([i64::MAX, i64::MAX, 8, 8])), None, 400, "the first being 1 to 4"),
        (shape(json!([u64::MAX, 1, 8, 8])), None, 400, "invalid value: integer `18446744073709551615`, expected i64"),
        (shape(json!([1.5, 1, 8, 8])), None, 400, "invalid type: floating point `1.5`, expected i64"),
        (shape(json!([2, 1, 8, 8])), None, 400, "has 64 numbers; shape [2, 1, 8, 8] needs 128"),
        (input("data", json!([[1.0, 2.0]])), None, 400, "is nested as [1, 2]; send it flat, or nested as its shape"),
        (input("data", json!(["1"])), None, 400, "holds strings; an FP32 tensor is sent as numbers"),
        (input("data", json!([null])), None, 400, "invalid type: null, expected a number"),
        (text.replacen("[0.0", "[NaN", 1).into_bytes(), None, 400, "expected value at line 1"),
        (text.replacen("[0.0", "[1e99", 1).into_bytes(), None, 400, "has inf at 0; numbers must be finite"),
        (text.as_bytes()[..text.len() - 3].to_vec(), None, 400, "EOF while parsing"),
        (b"".to_vec(), None, 400, "this is no inference request in JSON: EOF"),
        (b"{}".to_vec(), None, 400, "missing field `inputs`"),
        (text.replacen("\"id\"", "\"id\":\"1\",\"id\"", 1).into_bytes(), None, 400, "duplicate field `id`"),
        (with(&|r| r["inputs"] = json!([r["inputs"][0], r["inputs"][0]])), None, 400, "\"input\" is given twice"),
        (with(&|r| r["outputs"] = json!([{"name": "output"}, {"name": "output"}])), None, 400, "is given twice"),
        (
            with(&|r| r["outputs"] = json!([{"name": "x"}])),
            None,
            400,
            "\"x\" was asked for; the model gives \"output\"",
        ),
        (with(&|r| r["parameters"] = json!({"timeout": "1s"})), None, 400, "\"timeout\" is \"1s\"; a whole number"),
        (with(&|r| r["parameters"] = json!({"timeout": 1})), None, 503, "for longer than its timeout"),
        (input("parameters", json!({"shared_memory_region": "a"})), None, 501, "shared memory is not served here"),
        (input("parameters", json!({"binary_data_size": 256})), None, 400, "both binary_data_size and data are set"),
        (binary(json!(256)), None, 400, "has binary_data_size 256; 0 bytes are left for it"),
        (binary(json!(-1)), None, 400, "\"binary_data_size\" is -1; a whole number from 0 is needed"),
        ([binary(json!(4)), vec![0; 4]].concat(), Some(4), 400, "has 4 bytes; shape [1, 1, 8, 8] of FP32 needs 256"),
        ([binary(json!(4)), vec![0; 9]].concat(), Some(9), 400, "5 bytes follow the binary data of the inputs"),
        ([text.as_bytes(), &[0]].concat(), Some(1), 400, "1 bytes follow the binary data of the inputs"),
    ];
    for (body, behind, status, expected) in cases {
        let length = (body.len() - behind.unwrap_or_default()).to_string();
        let headers: &[_] = if behind.is_some() { &[(LENGTH, length.as_str())] } else { &[] };
        let reply = ask(server.rest, "POST", INFER, headers, &body).await;
        let error = reply.error();
        assert!(
            reply.status == status && error.contains(expected),
            "{} {error}, not {status} {expected}",
            reply.status
        );
    }
    let whole = text.as_bytes();
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [u8], u16, &'a str);
    let cases: [Case; 14] = [
        ("POST", "/v2/models/other/infer", &[], whole, 404, "no model \"other\" here; this server has \"tiny.test\""),
        ("POST", "/v2/models/tiny.test/versions/v9/infer", &[], whole, 404, "no version \"v9\" of \"tiny.test\" here"),
        ("GET", "/v2/models/other", &[], b"", 404, "no model \"other\" here"),
        ("GET", "/v2/models/other/ready", &[], b"", 404, "no model \"other\" here"),
        ("GET", "/v3", &[], b"", 404, "no /v3 here"),
        ("POST", "/v2/logging", &[], br#"{"log_info": false}"#, 403, "clients cannot change the log here"),
        ("GET", "/v2/systemsharedmemory/status", &[], b"", 501, "belongs to an extension that is not served here"),
        ("GET", INFER, &[], b"", 405, "cannot be asked by GET; infer, index, load and unload are asked by POST"),
        ("POST", INFER, &[(LENGTH, "9999")], whole, 400, "Inference-Header-Content-Length is 9999; the body has"),
        (
            "POST",
            INFER,
            &[(LENGTH, "-1")],
            whole,
            400,
            "Inference-Header-Content-Length is \"-1\"; the number of bytes",
        ),
        ("POST", INFER, &[(LENGTH, "0")], &[0; 300], 400, "has 300 bytes; shape [1, 1, 8, 8] of FP32 needs 256"),
        (
            "POST",
            INFER,
            &[("content-encoding", "br")],
            whole,
            415,
            "Content-Encoding \"br\"; gzip, deflate and identity",
        ),
        ("POST", INFER, &[("content-encoding", "gzip")], whole, 400, "the body is no gzip"),
        (
            "POST",
            "/v2/repository/models/x/load",
            &[],
            b"{}",
            403,
            "clients cannot load models here; start the server with --model-control-mode explicit",
        ),
    ];
    for (method, path, headers, body, status, expected) in cases {
        let reply = ask(server.rest, method, path, headers, body).await;
        let error = reply.error();
        assert!(reply.status == status && error.contains(expected), "{method} {path}: {} {error}", reply.status);
    }
    let well = ask(server.rest, "POST", INFER, &[], whole).await;
    assert_eq!(well.status, 200, "{}", String::from_utf8_lossy(&well.body));
}

#[tokio::test]
async fn large_bodies_are_refused_before_they_are_read_and_bombs_before_they_are_large() {
    let server = Server::start(EXECUTOR, 4, 16).await;
    let expected = "the body is larger than 1048576 bytes, uncompressed";
    let told = ask(server.rest, "POST", INFER, &[("content-length", "1048577")], b"").await;
    assert!(told.status == 413 && told.error().contains(expected), "{}", told.head);
    let mut bomb = Vec::new();
    GzEncoder::new(std::io::repeat(b' ').take(64 << 20), Compression::fast()).read_to_end(&mut bomb).unwrap();
    assert!(bomb.len() < 1 << 20);
    let bomb = ask(server.rest, "POST", INFER, &[("content-encoding", "gzip")], &bomb).await;
    assert!(bomb.status == 413 && bomb.error().contains(expected), "{}", bomb.head);
}

/// They may hold a connection for so long, and no longer.
#[tokio::test]
async fn slow_clients_are_told_or_left() {
    let short = Duration::from_millis(100);
    let limits = Limits { head_timeout: short, body_timeout: short, ..LIMITS };
    let server = Server::start_with(EXECUTOR, LOOPBACK.parse().unwrap(), policy(4), 16, limits).await;
    let body = ask(server.rest, "POST", INFER, &[("content-length", "100")], b"{").await;
    assert!(body.status == 408 && body.error() == "the body was not there within 100ms", "{}", body.head);
    let mut head = TcpStream::connect(server.rest).await.unwrap();
    head.write_all(b"GET /v2 HTTP/1.1\r\nhost: ").await.unwrap();
    let mut said = Vec::new();
    // The server ends it.
    head.read_to_end(&mut said).await.unwrap();
}

/// The queue has one place, and less than a batch waits there for an hour: another gets it when the client is gone.
#[tokio::test]
async fn a_client_that_is_gone_is_work_dropped_over_either_wire() {
    let waits = Policy { max_queue_delay: Duration::from_secs(3600), ..policy(4) };
    let server = Server::start_with(EXECUTOR, LOOPBACK.parse().unwrap(), waits, 1, LIMITS).await;
    let rest = server.rest;
    let status = async move |rows: usize| {
        let body = inference(rows).to_string();
        ask(rest, "POST", INFER, &[], body.as_bytes()).await.status
    };
    // A whole batch runs at once, if there is a place for it; who finds none asks again.
    let until_taken = async || while status(4).await == 200 {};
    let until_free = async || while status(4).await == 503 {};

    let over_rest = tokio::spawn(async move { while status(1).await == 503 {} });
    until_taken().await;
    over_rest.abort();
    until_free().await;

    let mut client = server.client().await;
    let over_grpc = tokio::spawn(async move { while client.model_infer(request(1)).await.is_err() {} });
    until_taken().await;
    over_grpc.abort();
    until_free().await;
}

#[tokio::test]
async fn told_to_stop_it_ends_idle_connections_and_streams() {
    let mut server = Server::start(EXECUTOR, 4, 16).await;
    let mut idle = TcpStream::connect(server.rest).await.unwrap();
    idle.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    assert!(idle.read(&mut [0; 1024]).await.unwrap() > 0);
    let mut client = server.client().await;
    let mut stream = client.model_stream_infer(futures::stream::pending()).await.unwrap().into_inner();
    let began = std::time::Instant::now();
    server.stop.take().unwrap().send(()).unwrap();
    assert!(stream.message().await.unwrap().is_none());
    drop((stream, client));
    server.task.await.unwrap().unwrap();
    assert_eq!(idle.read(&mut [0; 1024]).await.unwrap(), 0);
    assert!(began.elapsed() < LIMITS.drain / 2, "it took {:?}", began.elapsed());
}
