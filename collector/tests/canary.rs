//! Privacy, held against canaries: a pattern in pictures, words in sound and in what is beside pictures, a number and words in
//! measurements. All that leaves the process is searched, and its disk: the policy is enforced before anything is queued.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;

use common::{Collector, files, microphone, png, statistics, until};
use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;

/// In sound, in a file's comment, in texts: bytes that nothing else says.
const WORDS: &str = "canary-7f3a9c-do-not-tell";
const NUMBER: &str = "31415.926535";
/// In pictures.
const COLOURS: [[u8; 3]; 4] = [[251, 3, 127], [2, 249, 61], [199, 30, 250], [9, 130, 243]];

/// The canary sits at the lower right; the rest is a street.
fn picture(number: u8) -> Vec<u8> {
    let picture = RgbImage::from_fn(64, 48, |x, y| {
        let is_canary = x >= 40 && y >= 30;
        if is_canary { Rgb(COLOURS[((x + 2 * y) % 4) as usize]) } else { Rgb([number, 100 + x as u8, 90]) }
    });
    let mut bytes = png(&picture);
    // A comment before the last chunk, as cameras write them.
    let content = [b"tEXtComment\0".as_slice(), WORDS.as_bytes()].concat();
    let mut hasher = crc(&content).to_be_bytes().to_vec();
    let mut chunk = ((content.len() - 4) as u32).to_be_bytes().to_vec();
    chunk.extend(content);
    chunk.append(&mut hasher);
    let end = bytes.len() - 12;
    bytes.splice(end..end, chunk);
    bytes
}

/// As PNG has it.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

fn sound(number: u8) -> Vec<u8> {
    [b"RIFF\xff\0\0\0WAVEfmt ".as_slice(), &[number; 32], WORDS.as_bytes()].concat()
}

fn measurement(number: u8) -> Vec<u8> {
    format!(r#"{{"speed": {NUMBER}, "count": {number}, "plate": "{WORDS}"}}"#).into_bytes()
}

/// Which canaries are in some bytes.
fn canaries(bytes: &[u8]) -> BTreeSet<&'static str> {
    let contains = |words: &str| bytes.windows(words.len()).any(|window| window == words.as_bytes());
    let mut found = BTreeSet::new();
    if contains(WORDS) {
        found.insert("words");
    }
    if contains(NUMBER) {
        found.insert("number");
    }
    let signature = b"\x89PNG\r\n\x1a\n";
    for at in (0..bytes.len()).filter(|at| bytes[*at..].starts_with(signature)) {
        let mut reader = image::ImageReader::new(std::io::Cursor::new(&bytes[at..]));
        reader.set_format(image::ImageFormat::Png);
        let Ok(picture) = reader.decode() else { continue };
        let pixels = picture.into_rgb8();
        // One of its pixels alone is enough.
        if pixels.pixels().any(|pixel| COLOURS.contains(&pixel.0)) {
            found.insert("picture");
        }
    }
    found
}

fn street(folder: &Path, privacy: &Value, source: Value) -> Collector {
    let datasets = json!({"vision/street": {
        "uri": format!("file://{}", folder.join("lake").display()),
        "privacy": privacy,
        "sources": [source],
        "upload": {"delaySeconds": 0},
    }});
    Collector::start(folder, &datasets, &[("SCONCE_STATISTICS_SECONDS", "1")])
}

/// What a run gives away.
struct Away {
    /// By answers, metrics, status and logs, and on the disk: what was queued, and what has arrived.
    found: BTreeSet<&'static str>,
    /// By what has arrived alone.
    arrived: BTreeSet<&'static str>,
}

/// Ends a run, and searches all that it has told and written.
fn gives_away(folder: &Path, collector: Collector, told: &str) -> Away {
    let taps = [collector.metrics(), collector.status().to_string(), collector.log.lock().unwrap().clone()];
    collector.kill();
    assert!(taps.iter().all(|tap| tap.contains("vision/street")), "each tells of the dataset: {taps:#?}");
    let told = told.to_owned() + &taps.concat();
    let (mut found, mut arrived) = (canaries(told.as_bytes()), BTreeSet::new());
    for (path, content) in files(folder) {
        if !path.ends_with("collect.json") {
            let here = canaries(&content);
            if path.starts_with(folder.join("lake")) {
                arrived.extend(&here);
            }
            found.extend(here);
        }
    }
    Away { found, arrived }
}

/// Posts every kind of sample, and asks a model; returns what it was told.
fn posted(collector: &Collector) -> String {
    let answer = json!({"model": "street.vision", "tier": "Edge", "prediction": 3, "score": 0.5, "margin": 0.1,
        "why": "Hard", "probability": 1.0})
    .to_string();
    let mut told = String::new();
    for number in 0..6 {
        for content in [picture(number), sound(number), measurement(number)] {
            told += &collector.post("/v1/samples/vision/street", &[("x-sconce-camera", "door")], content).1.to_string();
        }
        told += &collector
            .post("/v1/answers/vision/street", &[("x-sconce-answer", &answer)], picture(100 + number))
            .1
            .to_string();
    }
    told
}

/// What a run under a policy gives away, and what it has counted.
fn run(privacy: Value) -> (Away, Value) {
    let folder = tempfile::tempdir().unwrap();
    let collector = street(folder.path(), &privacy, json!({"http": {}}));
    let told = posted(&collector);
    until("all that is held is sent", || {
        let status = &collector.status()["datasets"]["vision/street"];
        status["held"] == 0 && status["kept"] == status["sent"]
    });
    let status = collector.status()["datasets"]["vision/street"].clone();
    (gives_away(folder.path(), collector, &told), status)
}

/// What a microphone under a policy gives away, once so many seconds were heard and `is_enough` was counted.
fn heard(privacy: Value, least: u64, is_enough: impl Fn(&Value) -> bool) -> Away {
    let (url, seconds) = microphone(WORDS);
    let folder = tempfile::tempdir().unwrap();
    let source = json!({"microphone": {"url": url, "windowSeconds": 2, "everySeconds": 3}});
    let collector = street(folder.path(), &privacy, source);
    until("enough is heard", || {
        seconds.load(Ordering::Relaxed) >= least && is_enough(&collector.status()["datasets"]["vision/street"])
    });
    gives_away(folder.path(), collector, "")
}

#[test]
fn sound_of_a_microphone_leaves_under_no_policy_but_raw() {
    let is_sent = |status: &Value| status["sent"].as_u64() > Some(3);
    let raw = heard(json!({"policy": "Raw"}), 0, is_sent);
    assert_eq!(
        (raw.found, raw.arrived),
        (BTreeSet::from(["words"]), BTreeSet::from(["words"])),
        "the search is proved"
    );
    let is_refused = |status: &Value| status["dropped"]["Private"].as_u64() > Some(3);
    assert_eq!(heard(json!({"policy": "Masked", "mask": {"blocks": 4}}), 0, is_refused).found, BTreeSet::new());
    // More than lies in the sockets.
    let is_told = |status: &Value| status["sent"].as_u64() > Some(0);
    assert_eq!(heard(json!({"policy": "StatisticsOnly"}), 3_000, is_told).found, BTreeSet::new());
}

#[test]
fn without_a_policy_every_canary_is_found() {
    let (away, status) = run(json!({"policy": "Raw"}));
    let all = BTreeSet::from(["words", "number", "picture"]);
    assert_eq!((&away.found, &away.arrived), (&all, &all), "the search itself is proved");
    assert_eq!(status["sent"], 24);
}

#[test]
fn a_mask_lets_no_canary_through() {
    let zone = json!({"x": 60, "y": 60, "width": 40, "height": 40});
    let zones = json!({"door": [zone], "*": [zone]});
    let (away, status) = run(json!({"policy": "Masked", "mask": {"zones": zones}}));
    assert_eq!(away.found, BTreeSet::new());
    // Pictures are covered; sound and measurements cannot be, and are refused.
    assert_eq!((&status["sent"], &status["dropped"]["Private"]), (&json!(12), &json!(12)));
}

#[test]
fn a_camera_without_a_zone_is_refused() {
    let zones = json!({"yard": [{"x": 0, "y": 0, "width": 1, "height": 1}]});
    let (away, status) = run(json!({"policy": "Masked", "mask": {"zones": zones}}));
    assert_eq!((away.found, &status["dropped"]["Private"]), (BTreeSet::new(), &json!(24)));
}

#[test]
fn coarse_blocks_let_no_canary_through() {
    let (away, status) = run(json!({"policy": "Masked", "mask": {"blocks": 4}}));
    assert_eq!((away.found, &status["sent"]), (BTreeSet::new(), &json!(12)));
}

/// The mean of a number that all samples have was that number, and nothing had ever been told where it was searched.
#[test]
fn statistics_let_no_canary_through() {
    let folder = tempfile::tempdir().unwrap();
    let collector = street(folder.path(), &json!({"policy": "StatisticsOnly"}), json!({"http": {}}));
    let (lake, mut told) = (folder.path().join("lake"), String::new());
    let mut arrived = Vec::new();
    until("enough is told at once", || {
        told += &posted(&collector);
        arrived = statistics(&lake);
        arrived.iter().any(|told| !told["fields"]["speed"].is_null() && !told["brightness"].is_null())
    });
    let counted =
        |told: &Value| told["fields"]["speed"].as_object().into_iter().flatten().all(|(key, _)| key == "count");
    assert!(arrived.iter().all(counted), "all have this number: how many, and not which: {arrived:?}");
    assert_eq!(gives_away(folder.path(), collector, &told).found, BTreeSet::new());
}

/// Whatever else is handed over is dropped, by a router that knows no features, or hands over what it should not.
#[test]
fn under_features_only_nothing_but_features_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let datasets = json!({"vision/street": {
        "uri": format!("file://{}", folder.path().join("lake").display()),
        "privacy": {"policy": "FeaturesOnly"},
        "upload": {"delaySeconds": 0},
    }});
    let collector = Collector::start(folder.path(), &datasets, &[]);
    let answer = |more: Value| {
        let mut answer = json!({"model": "street.vision", "tier": "Edge", "prediction": 3, "score": 0.5, "margin": 0.1,
            "why": "Uniform", "probability": 1.0});
        answer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        answer.to_string()
    };
    let tensor = |words: &str| [b"\x93NUMPY\x01\x00", words.as_bytes()].concat();
    let digest = format!("sha256:{}", "7f".repeat(32));
    let by = |digest: &str| json!({"backbone": digest});
    let mut told = String::new();
    for (backbone, content) in [
        (json!({}), picture(1)),
        (json!({}), tensor(WORDS)),
        (by(&digest), picture(2)),
        (by(&digest), measurement(3)),
        (by(&format!("{digest} {WORDS}")), tensor("features")),
        (json!({}), Vec::new()),
    ] {
        let headers = [("x-sconce-answer", &*answer(backbone))];
        let (status, said) = collector.post("/v1/answers/vision/street", &headers, content);
        assert_eq!((status, &said["reason"]), (422, &json!("NoFeatures")), "{said}");
        told += &said.to_string();
    }
    let (status, said) = collector.post("/v1/samples/vision/street", &[], picture(4));
    assert_eq!(status, 403, "nobody posts what no model has seen: {said}");
    let headers = [("x-sconce-answer", &*answer(by(&digest)))];
    assert_eq!(collector.post("/v1/answers/vision/street", &headers, tensor("features")).0, 201);
    collector.sent("vision/street", 1);
    let status = collector.status()["datasets"]["vision/street"].clone();
    assert_eq!((&status["kept"], &status["dropped"]), (&json!(1), &json!({"NoFeatures": 6})));
    assert_eq!(gives_away(folder.path(), collector, &told).found, BTreeSet::new());
}
