//! What a person sees and does, in a headless Chromium. Pictures are left in `target/tmp/page`.

use crate::chromium::{Chromium, program};
use crate::fleet::{How, fleet, model, placement, site, small};
use crate::served::Served;
use crate::server::hostile;
use sconce_operator::observe::World;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

/// Against a page that never comes to what is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs a test with a page and a browser, where there is a browser; elsewhere fails, or says that nothing was tried.
fn look(world: World, test: impl AsyncFnOnce(&Served, &mut Chromium)) {
    let Some(program) = program() else { return untried() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let page = Served::new(world).await;
        let mut browser = Chromium::start(program).await;
        let tried = async {
            browser.size(1600, 1000).await;
            browser.load(&format!("http://{}/", page.address)).await;
            test(&page, &mut browser).await;
            assert_eq!(browser.complaints, Vec::<String>::new());
        };
        tokio::time::timeout(PATIENCE, tried).await.expect("the page comes to what is waited for");
        page.end().await;
    });
}

fn untried() {
    static SAID: Once = Once::new();
    let told = "the page was NOT tried in a browser: there is no chromium (apt-get install chromium)";
    SAID.call_once(|| crate::untried::untried(told).unwrap());
}

fn pictures() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// 500 sites of 20 models, with a little of every trouble.
fn large() -> World {
    let mut world = World::default();
    fleet(&mut world, "shops");
    let models: Vec<_> = (1..=20).map(|i| format!("model-{i:02}")).collect();
    for name in &models {
        model(&mut world, "shops", name);
    }
    for i in 1..=500 {
        let name = format!("store-{i:04}");
        let connected = i % 97 != 0;
        site(&mut world, "shops", &name, 5 + i % 60, connected);
        for (j, model) in models.iter().enumerate() {
            let how = match (i, j) {
                _ if !connected => How::Silent,
                (113 | 402, 7) => How::Nowhere,
                (113, 9) | (240, 3) => How::Over,
                (77, 2 | 5) => How::Coming,
                _ if (i + j) % 6 == 0 => How::InCloud,
                _ => How::Fine,
            };
            placement(&mut world, &name, model, how, 900 + (i * 37 + j * 911) % 21_000);
        }
    }
    world
}

/// Names in the list, from above.
const ORDER: &str = r#"[...document.querySelectorAll(".site:not([hidden]) .name")].map((name) => name.textContent)"#;

#[test]
fn a_small_fleet_is_seen_whole_in_light_and_dark_on_desk_and_phone() {
    look(small(), async |_, browser| {
        assert_eq!(browser.value(ORDER).await, json!(["site-a", "site-b"]));
        browser.until(r#"document.querySelectorAll(".placement").length === 6"#).await;
        browser.value(r#"document.querySelector(".placement button").click()"#).await;
        browser.until(r#"document.querySelectorAll(".details table").length === 2"#).await;
        pictures_of(browser, "small").await;
    });
}

#[test]
fn ten_thousand_placements_are_listed_the_worst_first() {
    look(large(), async |_, browser| {
        browser.until(r#"document.querySelectorAll(".site").length === 500"#).await;
        let order = browser.value(ORDER).await;
        let silent = [97, 194, 291, 388, 485].map(|i| format!("store-{i:04}"));
        let first = [
            &["store-0113".into(), "store-0402".into()],
            &silent[..],
            &["store-0240".into(), "store-0077".into(), "store-0001".into()],
        ];
        let listed: Vec<String> = serde_json::from_value(order).unwrap();
        assert_eq!(listed[..10], first.concat());
        let totals = r#"Object.fromEntries([...document.querySelectorAll(".total")].map((total) => [total.lastChild.textContent, total.firstChild.textContent]))"#;
        let totals = browser.value(totals).await;
        assert_eq!(totals["connected"], "495/500");
        assert_eq!(
            [&totals["✕ down"], &totals["? silent"], &totals["▲ over"], &totals["… coming"]],
            ["2", "100", "2", "2"]
        );
        let elements = browser.value("document.querySelectorAll('*').length").await;
        assert!(elements.as_u64().unwrap() < 12_000, "placements are drawn when their site is opened: {elements}");
        browser.value(r#"document.querySelector("summary").click()"#).await;
        browser.until(r#"document.querySelectorAll(".placement").length === 20"#).await;
        pictures_of(browser, "large").await;
    });
}

/// In every form; and nothing is wider than the window.
async fn pictures_of(browser: &mut Chromium, name: &str) {
    for (device, width, height) in [("desk", 1600, 1000), ("phone", 360, 780)] {
        browser.size(width, height).await;
        for scheme in ["light", "dark"] {
            browser.scheme(scheme).await;
            let widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]";
            let widths = browser.value(widths).await;
            assert_eq!(widths, json!([width, width]), "{name} {device} {scheme}");
            browser.picture(&pictures().join(format!("{name}-{device}-{scheme}.png"))).await;
        }
    }
}

#[test]
fn hostile_names_are_read_and_not_run() {
    look(hostile(), async |_, browser| {
        browser.value(r#"document.querySelector(".placement button").click()"#).await;
        browser.until(r#"document.querySelector(".details table") !== null"#).await;
        let seen = r#"[document.title, document.querySelectorAll("img, li script").length, document.querySelector(".model").textContent]"#;
        let seen = browser.value(seen).await;
        assert_eq!(seen, json!(["Sconce", 0, format!("vision/{}", crate::server::HOSTILE)]));
        browser.picture(&pictures().join("hostile.png")).await;
    });
}

#[test]
fn a_change_is_drawn_into_what_is_there() {
    look(small(), async |page, browser| {
        browser.until(r#"document.querySelectorAll(".placement").length === 6"#).await;
        let shown =
            r#"[...document.querySelectorAll(".placement")].find((one) => one.textContent.includes("site-b-gw"))"#;
        browser.value(&format!("({shown}).marked = true; void 0")).await;
        browser.value(&format!("({shown}).querySelector('button').focus()")).await;
        page.change(|world| placement(world, "site-b", "anomaly", How::Over, 9_000));
        browser.until(&format!(r#"({shown}).dataset.state === "over""#)).await;
        let kept = format!(r#"[({shown}).marked, document.activeElement.closest(".placement") === {shown}]"#);
        assert_eq!(browser.value(&kept).await, json!([true, true]));
        // Both sites are over now, site-b with one and site-a with one: by name.
        assert_eq!(browser.value(ORDER).await, json!(["site-a", "site-b"]));
        page.change(|world| placement(world, "site-b", "digits", How::Nowhere, 0));
        browser.until(r#"document.querySelector(".name").textContent === "site-b""#).await;
        assert_eq!(browser.value(&kept).await, json!([true, true]));
    });
}

#[test]
fn all_is_done_with_the_keyboard_too() {
    look(small(), async |_, browser| {
        browser.until(r#"document.querySelectorAll(".placement").length === 6"#).await;
        browser.press("/", "/").await;
        assert_eq!(browser.value("document.activeElement.id").await, "filter");
        for letter in ["i", "s", ":", "c", "l", "o", "u", "d"] {
            browser.press(letter, letter).await;
        }
        assert_eq!(browser.value(ORDER).await, json!(["site-b"]));
        let shown = r#"document.querySelectorAll(".site:not([hidden]) .placement:not([hidden])").length"#;
        assert_eq!(browser.value(shown).await, 2);
        assert_eq!(browser.value("location.hash").await, "#is%3Acloud");
        tab_until(browser, "document.activeElement.closest('.placement') !== null").await;
        browser.press("Enter", "\r").await;
        browser.until(r#"document.querySelector(".details:not([hidden]) table") !== null"#).await;
        browser.press("/", "/").await;
        browser.press("Escape", "").await;
        assert_eq!(browser.value(ORDER).await, json!(["site-a", "site-b"]));
    });
}

async fn tab_until(browser: &mut Chromium, reached: &str) {
    for _ in 0..60 {
        browser.press("Tab", "").await;
        if browser.value(reached).await == true {
            return;
        }
    }
    panic!("the tabulator does not come there: {reached}");
}

#[test]
fn the_page_says_when_the_operator_is_gone() {
    let runtime_gone =
        |complaint: &String| complaint.contains("ERR_CONNECTION_REFUSED") || complaint.contains("ERR_INCOMPLETE");
    look(small(), async |page, browser| {
        page.stop();
        browser.until(r#"document.getElementById("live").textContent === "no contact to the operator""#).await;
        assert_eq!(browser.value(ORDER).await, Value::from(vec!["site-a", "site-b"]), "what was seen last stays");
        browser.complaints.retain(|complaint| !runtime_gone(complaint));
    });
}
