//! The binary, really running.

use super::MODEL;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// No program that a test waits for takes near so long.
const LIMIT: Duration = Duration::from_mins(5);

pub struct Process {
    pub child: Child,
    pub grpc: SocketAddr,
    /// Of a server.
    pub rest: Option<SocketAddr>,
    pub metrics: SocketAddr,
}

impl Process {
    /// Started, and listening: its log says where.
    pub fn start(args: &[&str]) -> Self {
        Self::start_with(args, &[])
    }

    /// With these variables in its environment.
    pub fn start_with(args: &[&str], variables: &[(&str, &str)]) -> Self {
        let ports = ["--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log-format", "json"];
        let mut child = Command::new(env!("CARGO_BIN_EXE_edge-runtime"))
            .args(args)
            .args(ports)
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let fields = log
            .by_ref()
            .find_map(|line| {
                let fields = serde_json::from_str::<serde_json::Value>(&line).ok()?["fields"].clone();
                fields["grpc"].is_string().then_some(fields)
            })
            .unwrap();
        std::thread::spawn(move || log.for_each(drop));
        let address = |name: &str| fields[name].as_str().map(|address| address.parse().unwrap());
        let (grpc, rest, metrics) = (address("grpc").unwrap(), address("rest"), address("metrics").unwrap());
        Self { child, grpc, rest, metrics }
    }

    pub fn serve(folder: &Path) -> Self {
        Self::start(&[
            "serve",
            "--model",
            folder.to_str().unwrap(),
            "--name",
            MODEL,
            "--max-batch-size",
            "4",
            "--threads",
            "1",
            "--rest",
            "127.0.0.1:0",
        ])
    }

    /// The exit code; idle clients do not hold it up.
    pub fn terminate(&mut self) -> Option<i32> {
        let began = Instant::now();
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        let code = self.child.wait().unwrap().code();
        assert!(began.elapsed() < Duration::from_secs(5), "it took {:?} to end", began.elapsed());
        code
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What a program says until it ends. One that does not is killed, with those that it has started, and what it said is told.
pub fn output(command: &mut Command) -> Output {
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = piped.process_group(0).spawn().unwrap();
    let group = format!("-{}", child.id());
    let (ended, end) = channel::<()>();
    let watch = std::thread::spawn(move || {
        let late = end.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout);
        if late {
            Command::new("kill").args(["-KILL", "--", &group]).status().unwrap();
        }
        late
    });
    let output = child.wait_with_output().unwrap();
    drop(ended);
    let late = watch.join().unwrap();
    let [told, errors] = [&output.stdout, &output.stderr].map(|told| String::from_utf8_lossy(told));
    assert!(!late, "it did not end within {LIMIT:?}; it said: {told}{errors}");
    output
}

pub fn tiny() -> tempfile::TempDir {
    super::tiny(7)
}
