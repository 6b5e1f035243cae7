//! By programs that others wrote: an S3 server (moto), a broker (mosquitto), and Python's readers of what has arrived.

#![cfg(feature = "strangers")]
#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;

use common::strangers::{Server, answers, bucket, interpreter, moto, untried};
use common::{Collector, access, free_port, png, until};
use image::{Rgb, RgbImage};
use sconce_lake::Lake;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

fn mosquitto_path() -> String {
    format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Whether a broker and its client are there; told if not.
fn has_mosquitto() -> bool {
    let is_there = |program: &&str| {
        let mut asking = Command::new(program);
        asking.arg("-h").env("PATH", mosquitto_path()).stdout(Stdio::null()).stderr(Stdio::null());
        asking.status().is_ok()
    };
    ["mosquitto", "mosquitto_pub"].iter().all(is_there)
        || untried::<()>("mosquitto is missing; Debian: apt-get install mosquitto mosquitto-clients").is_some()
}

fn mosquitto(port: u16, folder: &Path, more: &str) -> Server {
    let config = folder.join("mosquitto.conf");
    std::fs::write(&config, format!("listener {port} 127.0.0.1\n{more}\n")).unwrap();
    let server = Command::new("mosquitto")
        .env("PATH", mosquitto_path())
        .arg("-c")
        .arg(config)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server(server);
    until("mosquitto answers", || answers(port));
    server
}

fn publish(port: u16, topic: &str, content: &[u8], more: &[&str]) {
    let mut client = Command::new("mosquitto_pub")
        .args(more)
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-t", topic, "-s"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(content).unwrap();
    assert!(client.wait().unwrap().success());
}

/// An authority, and what it has certified for `localhost` and `127.0.0.1`: certificate and key, in PEM.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let (mut parameters, key) = (rcgen::CertificateParams::default(), rcgen::KeyPair::generate().unwrap());
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "authority");
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(parameters, key), pem }
    }

    fn certifies(&self, who: &str) -> (String, String) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, who);
        let key = rcgen::KeyPair::generate().unwrap();
        (parameters.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// The broker asks for certificates, and lets in whom its authority has certified alone.
#[test]
fn a_broker_is_heard_through_tls_and_one_of_another_authority_is_not() {
    if !has_mosquitto() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (ours, another) = (Authority::new(), Authority::new());
    let leave = |name: &str, pem: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, pem).unwrap();
        file.display().to_string()
    };
    let ((certificate, key), (our_certificate, our_key)) = (ours.certifies("broker"), ours.certifies("node-a"));
    let ca = leave("ca.pem", &ours.pem);
    let settings = format!(
        "user root\ncafile {ca}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true",
        leave("broker.pem", &certificate),
        leave("broker.key", &key)
    );
    let port = free_port();
    let _broker = mosquitto(port, folder.path(), &settings);
    let who = ["--cafile", &ca, "--cert", &leave("us.pem", &our_certificate), "--key", &leave("us.key", &our_key)];
    let datasets = json!({"vision/doors": {
        "uri": format!("file://{}", folder.path().join("lake").display()),
        "privacy": {"policy": "Raw"},
        "consent": true,
        "sources": [{"mqtt": {"broker": format!("mqtts://127.0.0.1:{port}"), "topic": "door/+/state"}}],
    }});
    let variables = [("SCONCE_MQTT_CERTIFICATE", our_certificate.as_str()), ("SCONCE_MQTT_KEY", &our_key)];
    let with = |authority: &str, name: &str| {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        Collector::start(&folder, &datasets, &[&[("SCONCE_MQTT_CA", authority)], &variables[..]].concat())
    };
    let deceived = with(&another.pem, "deceived");
    until("it is refused", || deceived.log.lock().unwrap().contains("the broker is gone"));
    assert!(!deceived.log.lock().unwrap().contains("subscribing"));
    let collector = with(&ours.pem, "trusting");
    until("the collector subscribes", || collector.log.lock().unwrap().contains("subscribing"));
    let consent = [&who[..], &["-V", "mqttv5", "-D", "PUBLISH", "user-property", "consent", "form 7"]].concat();
    until("messages come through", || {
        publish(port, "door/7/state", br#"{"open": 0}"#, &consent);
        collector.status()["datasets"]["vision/doors"]["held"] == 1
    });
    publish(port, "door/7/state", br#"{"open": 1}"#, &who);
    until("without consent it is dropped", || {
        collector.status()["datasets"]["vision/doors"]["dropped"]["NoConsent"] == 1
    });
    let log = collector.log.lock().unwrap().clone();
    assert!(!log.contains("PRIVATE KEY"), "{log}");
}

/// A session at the broker would go on to give what it once subscribed to.
#[test]
fn a_topic_that_is_narrower_now_is_all_that_is_heard() {
    if !has_mosquitto() {
        return;
    }
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let _broker = mosquitto(port, folder.path(), "allow_anonymous true");
    let collector = |topic: &str| {
        let datasets = json!({"vision/doors": {
            "uri": format!("file://{}", folder.path().join("lake").display()),
            "privacy": {"policy": "Raw"},
            "sources": [{"http": {}}, {"mqtt": {"broker": format!("mqtt://127.0.0.1:{port}"), "topic": topic}}],
        }});
        Collector::start(folder.path(), &datasets, &[])
    };
    let is_held = |collector: &Collector, topic: &str, content: &[u8], count: u64| {
        until("messages come through", || {
            publish(port, topic, content, &[]);
            collector.status()["datasets"]["vision/doors"]["held"].as_u64() >= Some(count)
        });
    };
    let wide = collector("door/#");
    is_held(&wide, "door/back", br#"{"open": 0}"#, 1);
    wide.kill();
    let narrow = collector("door/front");
    until("the collector subscribes", || narrow.log.lock().unwrap().contains("subscribing"));
    publish(port, "door/back", br#"{"open": 1}"#, &[]);
    is_held(&narrow, "door/front", br#"{"open": 2}"#, 2);
    // A session gives its messages in their order.
    let (status, told) = narrow.post("/v1/samples/vision/doors", &[], br#"{"open": 1}"#.to_vec());
    assert_eq!(status, 201, "it was heard: {told}");
}

fn read(interpreter: &Path, folder: &Path, variables: &[(&str, &str)]) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/readers/read.py");
    let output = Command::new(interpreter)
        .args([script, "lake"])
        .arg(folder)
        .envs(variables.iter().copied())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

const FORGET: &str = "SCONCE_COLLECTOR_FORGET";

/// A client of S3 is configured by the environment of its process alone: samples are forgotten in one of their own.
#[test]
fn child() {
    let Ok(ids) = std::env::var(FORGET) else { return };
    let ids: BTreeSet<String> = ids.split(' ').map(str::to_owned).collect();
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let forgetting = async {
        let lake = Lake::open("s3://lake/digits").unwrap();
        assert_eq!(lake.forget(&ids, "ann", jiff::Timestamp::now()).await.unwrap().len(), 1);
        let erased = lake.erase(|_, _| {}).await.unwrap();
        let taken: BTreeSet<String> = erased.shards.into_iter().flat_map(|shard| shard.taken).collect();
        assert_eq!(taken, ids);
        assert_eq!(lake.erase(|_, _| {}).await.unwrap(), sconce_lake::Erased::default());
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(forgetting);
}

fn forget(ids: &[String], variables: &[(&str, &str)]) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["child", "--exact", "--nocapture"]).env(FORGET, ids.join(" ")).envs(variables.iter().copied());
    assert!(child.status().unwrap().success());
}

#[test]
fn what_comes_by_http_and_mqtt_is_read_from_a_bucket_by_python_each_once() {
    let Some(interpreter) = interpreter() else { return };
    if !has_mosquitto() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (s3, broker) = (free_port(), free_port());
    let endpoint = format!("http://127.0.0.1:{s3}");
    let variables = access(&endpoint);
    let _broker = mosquitto(broker, folder.path(), "allow_anonymous true");
    let datasets = json!({"vision/digits": {
        "uri": "s3://lake/digits",
        "privacy": {"policy": "Raw"},
        "sources": [{"http": {}}, {"mqtt": {"broker": format!("mqtt://127.0.0.1:{broker}"), "topic": "door/+/state"}}],
        "upload": {"delaySeconds": 0},
    }});
    // The network is cut at first: there is no S3.
    let collector = Collector::start(folder.path(), &datasets, &variables);
    let picture = |number: u8| png(&RgbImage::from_pixel(8, 6, Rgb([number, 1, 2])));
    for number in 0..20 {
        let label = (number % 10).to_string();
        let (status, told) = collector.post(
            "/v1/samples/vision/digits",
            &[("x-sconce-label", &label), ("x-sconce-author", "ann")],
            picture(number),
        );
        assert_eq!(status, 201, "{told}");
    }
    until("the collector subscribes", || collector.log.lock().unwrap().contains("subscribing"));
    until("messages come through", || {
        // Until the broker has the subscription, what is published is lost: the same message again is the same sample.
        publish(broker, "door/7/state", br#"{"open": 0}"#, &[]);
        collector.status()["datasets"]["vision/digits"]["held"].as_u64() > Some(20)
    });
    publish(broker, "door/7/state", br#"{"open": 1}"#, &[]);
    until("both are held", || collector.status()["datasets"]["vision/digits"]["held"] == 22);
    collector.kill();
    // While nobody collects, the broker keeps what comes.
    publish(broker, "door/8/state", br#"{"open": 2}"#, &[]);
    let collector = Collector::start(folder.path(), &datasets, &variables);
    until("it is told", || collector.log.lock().unwrap().contains("not sent; it is held"));
    until("the broker has sent it", || collector.status()["datasets"]["vision/digits"]["held"] == 23);
    let _s3 = moto(&interpreter, s3);
    bucket(&interpreter, &variables);
    collector.sent("vision/digits", 23);
    let (status, _) = collector.post("/v1/samples/vision/digits", &[], picture(3));
    assert_eq!(status, 200, "a duplicate of what was sent");
    collector.post("/v1/samples/vision/digits", &[], picture(200));
    collector.sent("vision/digits", 24);

    let read = read(&interpreter, &folder.path().join("read"), &variables);
    let ids: std::collections::BTreeSet<_> = read["ids"].as_array().unwrap().iter().map(Value::to_string).collect();
    assert_eq!((ids.len(), read["ids"].as_array().unwrap().len()), (24, 24), "each once");
    assert_eq!(read["measured"], json!([r#"{"open": 0}"#, r#"{"open": 1}"#, r#"{"open": 2}"#]));
    assert_eq!(read["sources"], json!(["http", "mqtt:door/7/state", "mqtt:door/8/state"]));
    assert_eq!(read["time"], "timestamp[ms, tz=UTC]");
    assert!(read["years"][0].as_u64() > Some(2024), "{}", read["years"]);
    let pictures = read["pictures"].as_object().unwrap();
    assert_eq!(pictures.len(), 21);
    assert!(pictures.values().all(|picture| picture[0] == json!([6, 8, 3])), "{pictures:?}");
    let colours: std::collections::BTreeSet<u64> =
        pictures.values().map(|picture| picture[1].as_u64().unwrap()).collect();
    assert_eq!(colours, (0..20).chain([200]).collect());
    for (id, class) in read["classes"].as_object().unwrap() {
        assert_eq!(class, &json!(pictures[id][1].as_u64().unwrap() % 10));
        assert_eq!(read["labels"][id], json!([class.to_string(), "ann"]));
    }
    assert_eq!(read["classes"].as_object().unwrap().len(), 20);

    // What is left of shards is read as they were, and the collector goes on.
    let gone = [sconce_lake::id(&picture(7)), sconce_lake::id(br#"{"open": 1}"#)];
    forget(&gone, &variables);
    collector.post("/v1/samples/vision/digits", &[], picture(201));
    collector.sent("vision/digits", 25);
    let left = self::read(&interpreter, &folder.path().join("left"), &variables);
    let expected: Vec<&Value> =
        read["ids"].as_array().unwrap().iter().filter(|id| !gone.contains(&id.as_str().unwrap().to_owned())).collect();
    let new = json!(sconce_lake::id(&picture(201)));
    assert_eq!(left["ids"].as_array().unwrap().iter().filter(|id| **id != new).collect::<Vec<_>>(), expected);
    assert_eq!(left["measured"], json!([r#"{"open": 0}"#, r#"{"open": 2}"#]));
    assert_eq!((&left["time"], &left["sources"]), (&read["time"], &read["sources"]));
    for (of, count) in [("pictures", 21), ("classes", 19), ("labels", 19)] {
        let (left, read) = (left[of].as_object().unwrap(), read[of].as_object().unwrap());
        assert_eq!(left.len(), count, "{of}");
        assert!(left.iter().all(|(id, value)| *id == new.as_str().unwrap() || read[id] == *value), "{of}");
    }
}
