//! Runs the operator behind a proxy of the API server and kills it (SIGKILL) right after its n-th write, whose answer it
//! never sees, or when its own standard input ends. Prints how many writes it has made.
//!
//! Leases and events do not count: they are no part of what the operator makes.

use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use clap::Parser;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Notify};

/// Runs a program behind a proxy of the API server and kills it after its n-th write.
#[derive(Parser)]
struct Args {
    /// Kill after so many writes, or when standard input ends; without it, only then.
    #[arg(long)]
    writes: Option<usize>,
    /// Credentials for the API server.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Where the API server answers from here.
    #[arg(long)]
    server: String,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

struct Proxy {
    client: Client,
    limit: Option<usize>,
    /// Writes that the API server accepted. Held during a write: they go one by one, so that no write follows the last.
    done: Mutex<usize>,
    enough: Notify,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider was installed first"))?;
    let mut kubeconfig = Kubeconfig::read_from(&args.kubeconfig)?;
    for cluster in kubeconfig.clusters.iter_mut().flat_map(|named| &mut named.cluster) {
        cluster.server = Some(args.server.clone());
    }
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.read_timeout = None;
    let proxy = Arc::new(Proxy {
        client: Client::try_from(config)?,
        limit: args.writes,
        done: Mutex::new(0),
        enough: Notify::new(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let way = tempfile::NamedTempFile::new()?;
    let here = kubeconfig_of(&format!("http://{}", listener.local_addr()?));
    std::fs::write(way.path(), serde_json::to_vec(&here)?)?;
    let router = Router::new().fallback(forward).with_state(Arc::clone(&proxy));
    tokio::spawn(axum::serve(listener, router).into_future());

    let (program, arguments) = args.command.split_first().context("no program")?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env("KUBECONFIG", way.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    tokio::select! {
        () = proxy.enough.notified() => {}
        _ = end_of_input() => {}
        ended = child.wait() => bail!("{program} ended by itself: {}", ended?),
    }
    child.kill().await?;
    println!("{}", proxy.done.lock().await);
    // Not by returning: a read of standard input would hold the runtime up.
    std::process::exit(0)
}

async fn end_of_input() {
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await;
}

fn kubeconfig_of(server: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
        "clusters": [{"name": "proxy", "cluster": {"server": server}}],
        "users": [{"name": "proxy", "user": {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
    })
}

async fn forward(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let counts = !matches!(parts.method, Method::GET | Method::HEAD)
        && !["/leases", "/events"].iter().any(|uncounted| parts.uri.path().contains(uncounted));
    let bytes = match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => bytes,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let mut request = axum::http::Request::new(kube::client::Body::from(bytes.to_vec()));
    *request.method_mut() = parts.method;
    *request.uri_mut() = parts.uri;
    for name in ["accept", "content-type"] {
        if let Some(value) = parts.headers.get(name) {
            request.headers_mut().insert(axum::http::HeaderName::from_static(name), value.clone());
        }
    }
    if !counts {
        return proxy.send(request).await;
    }
    let mut done = proxy.done.lock().await;
    if proxy.limit == Some(*done) {
        drop(done);
        // It is dead already and does not know: nothing more of it reaches the API server.
        return std::future::pending().await;
    }
    let response = proxy.send(request).await;
    if response.status().is_success() {
        *done += 1;
        if proxy.limit == Some(*done) {
            proxy.enough.notify_one();
            drop(done);
            return std::future::pending().await;
        }
    }
    response
}

impl Proxy {
    async fn send(&self, request: axum::http::Request<kube::client::Body>) -> Response {
        match self.client.send(request).await {
            Ok(response) => response.map(Body::new),
            Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
        }
    }
}
