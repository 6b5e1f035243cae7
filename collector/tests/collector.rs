//! From a request to a file: the program, its doors, its sources and a folder.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;

use common::{Collector, arrived, configure, files, png, until};
use image::{Rgb, RgbImage};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::mpsc;

fn digits(folder: &Path, delay_seconds: u64, rest: Value) -> Value {
    let mut dataset = json!({
        "uri": format!("file://{}", folder.join("lake").display()),
        "privacy": {"policy": "Raw"},
        "sources": [{"http": {}}],
        "upload": {"delaySeconds": delay_seconds},
    });
    dataset.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    json!({"vision/digits": dataset})
}

fn picture(number: u8) -> Vec<u8> {
    png(&RgbImage::from_pixel(8, 8, Rgb([number, 1, 2])))
}

const SAMPLES: &str = "/v1/samples/vision/digits";
const FEEDBACK: &str = "/v1/feedback/vision/digits";

#[test]
fn what_is_posted_is_answered_for_labelled_and_sent_and_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path(), &digits(folder.path(), 3600, json!({})), &[]);
    let (status, told) = collector.post(SAMPLES, &[("x-sconce-group", "till-3")], picture(1));
    assert_eq!((status, &told["outcome"]), (201, &json!("kept")));
    let (status, again) = collector.post(SAMPLES, &[], picture(1));
    assert_eq!((status, &again["outcome"], &again["id"]), (200, &json!("duplicate"), &told["id"]));
    let feedback = |id: &Value| json!({"id": id, "label": "one", "author": "ann"}).to_string().into_bytes();
    let before = Timestamp::now();
    assert_eq!(collector.post(FEEDBACK, &[], feedback(&told["id"])).0, 200);
    let after = Timestamp::now();
    let (status, unknown) = collector.post(FEEDBACK, &[], feedback(&json!("0".repeat(64))));
    assert!(status == 404 && unknown["error"].as_str().unwrap().contains("is not held here"), "{unknown}");
    assert_eq!(collector.post(FEEDBACK, &[], b"{}".to_vec()).0, 400);
    assert_eq!(collector.post("/v1/samples/vision/cats", &[], picture(1)).0, 404);
    assert_eq!(collector.post(SAMPLES, &[], vec![0; 5 << 20]).0, 413);
    collector.kill();

    // It is sent by the next process.
    let collector = Collector::start(folder.path(), &digits(folder.path(), 0, json!({})), &[]);
    collector.sent("vision/digits", 1);
    assert_eq!(collector.post(SAMPLES, &[], picture(1)).1["outcome"], "duplicate", "sent, and remembered");
    let lake = files(&folder.path().join("lake"));
    let names: Vec<_> = lake.iter().map(|(path, _)| path.extension().unwrap().to_str().unwrap()).collect();
    assert!(names.contains(&"tar") && names.contains(&"parquet") && names.len() == 2, "{names:?}");
    let tar = lake.iter().find(|(path, _)| path.extension().unwrap() == "tar").unwrap();
    let mut tar = tar::Archive::new(tar.1.as_slice());
    let entries: Vec<(String, Vec<u8>)> = tar
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            (name, content)
        })
        .collect();
    let id = told["id"].as_str().unwrap();
    assert_eq!(entries[0], (format!("{id}.png"), picture(1)));
    assert_eq!(entries[1], (format!("{id}.txt"), b"one".to_vec()));
    let known: Value = serde_json::from_slice(&entries[2].1).unwrap();
    assert_eq!((&known["group"], &known["probability"]), (&json!("till-3"), &json!(1.0)));
    let label = &known["label"];
    assert_eq!((&label["author"], &label["source"]), (&json!("ann"), &json!("feedback")));
    let time: Timestamp = label["time"].as_str().unwrap().parse().unwrap();
    assert!((before..=after).contains(&time), "said between {before} and {after}: {time}");
    let metrics = collector.metrics();
    for counted in ["sent", "labelled"] {
        let line = format!("sconce_collector_{counted}_samples_total{{dataset=\"vision/digits\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
    assert_eq!(collector.status()["datasets"]["vision/digits"]["labelled"], 1);
}

#[test]
fn a_configuration_that_changes_is_taken_up_and_under_a_bad_one_nothing_is_collected() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path(), &digits(folder.path(), 3600, json!({})), &[]);
    assert_eq!(collector.post(SAMPLES, &[], picture(1)).0, 201);
    configure(folder.path(), &digits(folder.path(), 3600, json!({"privacy": {"policy": "Masked", "mask": {}}})));
    until("the bad one is refused", || collector.log.lock().unwrap().contains("would cover nothing"));
    // What was wished cannot be told: the old policy may be looser.
    until("it is left out", || collector.post(SAMPLES, &[], picture(2)).0 == 404);
    assert!(collector.metrics().contains("sconce_collector_refused_datasets 1"), "{}", collector.metrics());
    configure(folder.path(), &digits(folder.path(), 3600, json!({})));
    until("it is collected again", || collector.post(SAMPLES, &[], picture(2)).0 == 201);
    configure(folder.path(), &digits(folder.path(), 3600, json!({"sources": []})));
    until("no samples are taken", || collector.post(SAMPLES, &[], picture(3)).0 == 403);
    assert_eq!(collector.status()["datasets"]["vision/digits"]["held"], 2, "what is held stays");
    configure(folder.path(), &digits(folder.path(), 0, json!({"sources": []})));
    collector.sent("vision/digits", 2);
    // What is held when the policy gets stricter does not leave.
    configure(folder.path(), &digits(folder.path(), 3600, json!({})));
    until("samples are taken again", || collector.post(SAMPLES, &[], picture(4)).0 == 201);
    let masked = json!({"privacy": {"policy": "Masked", "mask": {"blocks": 2}}});
    configure(folder.path(), &digits(folder.path(), 0, masked));
    until("it is dropped", || collector.status()["datasets"]["vision/digits"]["dropped"]["Forgotten"] == 1);
    assert_eq!(collector.status()["datasets"]["vision/digits"]["sent"], 2);
}

#[test]
fn what_is_not_of_the_datasets_kind_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path(), &digits(folder.path(), 3600, json!({"kind": "Image"})), &[]);
    assert_eq!(collector.post(SAMPLES, &[], picture(1)).0, 201);
    let (status, told) = collector.post(SAMPLES, &[], b"{\"open\": 1}".to_vec());
    assert_eq!((status, &told["reason"]), (422, &json!("Strange")));
    assert!(told["error"].as_str().unwrap().contains("of the kind Image, and this is json"), "{told}");
    assert_eq!(collector.status()["datasets"]["vision/digits"]["dropped"]["Strange"], 1);
}

#[test]
fn without_consent_nothing_is_kept_where_it_is_needed_and_what_is_held_without_goes() {
    let folder = tempfile::tempdir().unwrap();
    let (inbox, signed) = (folder.path().join("inbox"), folder.path().join("inbox/signed"));
    std::fs::create_dir_all(&signed).unwrap();
    let sources = json!([{"http": {}}, {"directory": {"path": inbox}}]);
    let collector = Collector::start(folder.path(), &digits(folder.path(), 3600, json!({"sources": sources})), &[]);
    assert_eq!(collector.post(SAMPLES, &[], picture(1)).0, 201);
    let consent = [("x-sconce-consent", "form 12, 2026-11-03")];
    assert_eq!(collector.post(SAMPLES, &consent, picture(2)).0, 201);
    let needed = |delay| digits(folder.path(), delay, json!({"sources": sources, "consent": true}));
    configure(folder.path(), &needed(3600));
    let count = |what: &str| collector.status()["datasets"]["vision/digits"]["dropped"][what].clone();
    until("what is held without is dropped", || count("Forgotten") == 1);
    let (status, told) = collector.post(SAMPLES, &[("x-sconce-consent", " ")], picture(3));
    assert_eq!((status, &told["reason"], count("NoConsent")), (422, &json!("NoConsent"), json!(1)), "{told}");
    let said = json!({"model": "a.b", "why": "Uniform", "probability": 1.0}).to_string();
    let answer = |headers: &[(&str, &str)], number| {
        let headers = [&[("x-sconce-answer", said.as_str())], headers].concat();
        collector.post("/v1/answers/vision/digits", &headers, picture(number)).0
    };
    assert_eq!((answer(&[], 4), answer(&consent, 4)), (422, 201), "of a model's requests, too");
    std::fs::write(signed.join(".consent"), "form 13\n").unwrap();
    std::fs::write(signed.join("a.png"), picture(5)).unwrap();
    std::fs::write(inbox.join("b.png"), picture(6)).unwrap();
    until("that of a folder holds for its files", || !signed.join("a.png").exists());
    until("another file is put aside", || inbox.join(".refused/b.png").exists() && signed.join(".consent").exists());
    assert_eq!(count("NoConsent"), 3);
    configure(folder.path(), &needed(0));
    collector.sent("vision/digits", 3);
    let lake = files(&folder.path().join("lake"));
    let holds =
        |words: &str| lake.iter().any(|(_, content)| content.windows(words.len()).any(|at| at == words.as_bytes()));
    assert!(holds("form 12, 2026-11-03") && holds("form 13"), "it goes along");
}

#[test]
fn files_that_come_into_a_folder_are_samples_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let inbox = folder.path().join("inbox");
    std::fs::create_dir_all(inbox.join("seven")).unwrap();
    std::fs::write(inbox.join("a.png"), picture(1)).unwrap();
    let sources = json!({"sources": [{"directory": {"path": inbox}}]});
    let collector = Collector::start(folder.path(), &digits(folder.path(), 3600, sources.clone()), &[]);
    // The lake counts in milliseconds.
    let before = Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap();
    std::fs::write(inbox.join("seven/b.png"), picture(2)).unwrap();
    std::fs::write(inbox.join("note.exe"), b"MZ\x90").unwrap();
    until("both are held", || collector.status()["datasets"]["vision/digits"]["held"] == 2);
    until("they are gone", || !inbox.join("a.png").exists() && !inbox.join("seven/b.png").exists());
    until("what is no sample is put aside", || inbox.join(".refused/note.exe").exists());
    until("that is counted", || collector.status()["datasets"]["vision/digits"]["dropped"]["Private"] == 1);
    let after = Timestamp::now();
    configure(folder.path(), &digits(folder.path(), 0, sources));
    collector.sent("vision/digits", 2);
    let arrived = arrived(&folder.path().join("lake"));
    let labels: Vec<_> = arrived.iter().filter_map(|(row, _)| row.label.as_ref()).collect();
    let [label] = labels[..] else { panic!("of the folder with a name alone: {labels:?}") };
    assert_eq!((label.value.as_str(), label.by.as_str()), ("seven", "folder"));
    assert!((before..=after).contains(&label.at), "seen between {before} and {after}: {}", label.at);
}

/// A camera of 64 pictures a connection, which tells of each connection.
fn camera() -> (String, mpsc::Receiver<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/stream", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        while let Ok((mut stream, _)) = listener.accept() {
            tell.send(()).ok();
            let _ = stream.read(&mut [0; 1024]);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n";
            let mut sent = stream.write_all(head.as_bytes());
            for number in (0_u8..=255).step_by(4) {
                let mut jpeg = Vec::new();
                let image = image::DynamicImage::ImageRgb8(RgbImage::from_pixel(16, 16, Rgb([number, 9, 9])));
                image.write_to(&mut std::io::Cursor::new(&mut jpeg), image::ImageFormat::Jpeg).unwrap();
                sent = sent
                    .and_then(|()| stream.write_all(b"--b\r\nContent-Type: image/jpeg\r\n\r\n"))
                    .and_then(|()| stream.write_all(&jpeg));
            }
            drop(sent);
        }
    });
    (url, told)
}

#[test]
fn a_camera_is_looked_at_as_often_as_it_is_asked_for() {
    for (every_seconds, expected) in [(0, 33..=64), (3600, 1..=1)] {
        let folder = tempfile::tempdir().unwrap();
        let (url, connected) = camera();
        let sources = json!({"sources": [{"mjpeg": {"url": url, "everySeconds": every_seconds}}]});
        let collector = Collector::start(folder.path(), &digits(folder.path(), 3600, sources), &[]);
        connected.recv().unwrap();
        // Who connects again has read to the end.
        connected.recv().unwrap();
        let held = || collector.status()["datasets"]["vision/digits"]["held"].as_u64().unwrap();
        until("pictures are held", || held() >= *expected.start());
        assert!(expected.contains(&held()), "every {every_seconds} s: {}", held());
    }
}
