//! What is started: ours, and those of others around the same weights in ONNX Runtime.

use std::path::{Path, PathBuf};

/// As it is asked for.
pub const MODEL: &str = "digits";

/// One of others.
pub struct Peer {
    pub name: &'static str,
    pub key: &'static str,
    pub requirements: &'static str,
    script: &'static str,
    /// Microseconds for which the first of a batch may wait for others, where that can be said.
    delay: Option<&'static str>,
}

pub const PEERS: [Peer; 4] = [
    Peer {
        name: "KServe SDK",
        key: "kserve",
        requirements: include_str!("peers/kserve.txt"),
        script: "serve_kserve.py",
        delay: None,
    },
    Peer {
        name: "MLServer",
        key: "mlserver",
        requirements: include_str!("peers/mlserver.txt"),
        script: "serve_mlserver.py",
        delay: None,
    },
    Peer {
        name: "PyTriton",
        key: "pytriton",
        requirements: include_str!("peers/pytriton.txt"),
        script: "serve_pytriton.py",
        delay: Some("0"),
    },
    Peer {
        name: "PyTriton, batches wait 0.5 ms",
        key: "pytriton",
        requirements: include_str!("peers/pytriton.txt"),
        script: "serve_pytriton.py",
        delay: Some("500"),
    },
];

impl Peer {
    pub fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/against_public_servers/peers").join(name)
    }
}

pub struct Server {
    pub name: String,
    pub program: PathBuf,
    args: Vec<String>,
}

impl Server {
    pub fn ours(name: &str, program: &Path, artifact: &Path, variant: &str) -> Self {
        let artifact = artifact.display().to_string();
        let model = ["serve", "--model", &artifact, "--name", MODEL, "--variant", variant, "--threads", "1"];
        let ports = ["--grpc", "127.0.0.1:GRPC", "--rest", "127.0.0.1:REST", "--metrics", "127.0.0.1:METRICS"];
        let args = model.into_iter().chain(ports).map(str::to_owned).collect();
        Self { name: name.into(), program: program.into(), args }
    }

    pub fn public(peer: &Peer, python: &Path, onnx: &Path) -> Self {
        let (script, onnx) = (Peer::file(peer.script).display().to_string(), onnx.display().to_string());
        let args = [script.as_str(), &onnx, MODEL, "GRPC", "REST", "METRICS"].into_iter().chain(peer.delay);
        let args = args.map(str::to_owned).collect();
        Self { name: peer.name.into(), program: python.into(), args }
    }

    /// What it is told, once its ports are known.
    pub fn args(&self, [grpc, rest, metrics]: [u16; 3]) -> impl Iterator<Item = String> {
        let ports = [("GRPC", grpc), ("REST", rest), ("METRICS", metrics)];
        self.args.iter().map(move |arg| match ports.iter().find(|(name, _)| arg.ends_with(name)) {
            Some((name, port)) => arg.replace(name, &port.to_string()),
            None => arg.clone(),
        })
    }
}
