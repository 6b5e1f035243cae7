//! A headless Chromium, told what to do by its DevTools protocol: messages of JSON over two pipes, each ended by a zero byte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const NAMES: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

/// The first of these programs that is on the PATH.
pub fn program() -> Option<&'static str> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    NAMES.iter().copied().find(|name| folders.iter().any(|folder| folder.join(name).is_file()))
}

pub struct Chromium {
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    calls: u64,
    /// What the page complained of: exceptions, refused loads, broken policies.
    pub complaints: Vec<String>,
    _process: Child,
    _profile: TempDir,
}

impl Chromium {
    pub async fn start(program: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        // It reads its third file and writes its fourth.
        let mut process = Command::new("sh")
            .args(["-c", r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#, "sh", program])
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--hide-scrollbars",
            ])
            .args(["--remote-debugging-pipe", &format!("--user-data-dir={}", profile.path().display()), "about:blank"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (to, from) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let mut browser =
            Self { to, from, session: None, calls: 0, complaints: Vec::new(), _process: process, _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true})).await;
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.clone().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).await.unwrap();
        loop {
            let mut answer = self.next().await;
            if answer["id"] == self.calls {
                assert_eq!(answer["error"], Value::Null, "{method}");
                return answer["result"].take();
            }
            self.note(&answer);
        }
    }

    async fn next(&mut self) -> Value {
        let mut message = Vec::new();
        self.from.read_until(0, &mut message).await.unwrap();
        assert_eq!(message.pop(), Some(0), "Chromium ended");
        serde_json::from_slice(&message).unwrap()
    }

    fn note(&mut self, event: &Value) {
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(event["params"]["exceptionDetails"].to_string()),
            Some("Log.entryAdded") => self.complaints.push(event["params"]["entry"].to_string()),
            _ => {}
        }
    }

    /// The value of an expression; of a promise, what it keeps.
    pub async fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut result = self.call("Runtime.evaluate", params).await;
        assert_eq!(result["exceptionDetails"], Value::Null, "{expression}");
        result["result"]["value"].take()
    }

    /// Waits until an expression holds: looked at whenever the document changes.
    pub async fn until(&mut self, expression: &str) {
        let wait = format!(
            "new Promise((done) => {{
                const look = () => ({expression}) && (watcher.disconnect(), done(true));
                const watcher = new MutationObserver(look);
                watcher.observe(document, {{subtree: true, childList: true, attributes: true, characterData: true}});
                look();
            }})"
        );
        self.value(&wait).await;
    }

    /// Loads a page, and waits until it has everything.
    pub async fn load(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url})).await;
        self.until(r#"document.getElementById("live")?.textContent === "live""#).await;
        self.until(r#"document.querySelector('#totals b') !== null"#).await;
    }

    pub async fn size(&mut self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    pub async fn scheme(&mut self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    pub async fn press(&mut self, key: &str, text: &str) {
        let code = json!({"Enter": 13, "Tab": 9, "Escape": 27})[key].clone();
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "text": if kind == "keyDown" { text } else { "" }});
            if !code.is_null() {
                event["windowsVirtualKeyCode"] = code.clone();
            }
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    pub async fn picture(&mut self, file: &Path) {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        std::fs::write(file, STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()).unwrap();
    }
}
