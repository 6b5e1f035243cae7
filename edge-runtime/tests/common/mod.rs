//! Real servers on port 0, with a tiny model.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod process;

use futures::FutureExt as _;
use image::{ExtendedColorType, ImageEncoder as _};
use prometheus_client::registry::Registry;
use sconce_edge_runtime::batch::Policy;
use sconce_edge_runtime::catalogue::{Catalogue, Control, Settings, Source, Sources};
use sconce_edge_runtime::engine::Executor;
use sconce_edge_runtime::metrics::{Metrics, Served};
use sconce_edge_runtime::server::{self, Limits, Listeners, Service};
use sconce_edge_runtime::tls::Tls;
use sconce_edge_runtime::wire::grpc_inference_service_client::GrpcInferenceServiceClient;
use sconce_edge_runtime::wire::model_infer_request::InferInputTensor;
use sconce_edge_runtime::wire::{InferTensorContents, ModelInferRequest, raw_fp32};
use sconce_model::artifact::signature::Trust;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

pub const MODEL: &str = "tiny.test";
pub const SERVED: Served<'_> = Served { model: MODEL, version: "1", digest: "", variant: "f32", isa: "portable" };
pub const PIXELS: usize = 64;

pub const LOOPBACK: &str = "127.0.0.1:0";

/// Without a delay.
pub fn policy(max_batch_size: usize) -> Policy {
    Policy { max_batch_size, max_queue_delay: Duration::ZERO }
}

pub const LIMITS: Limits = Limits {
    max_message_bytes: 1 << 20,
    head_timeout: Duration::from_secs(5),
    body_timeout: Duration::from_secs(5),
    drain: Duration::from_secs(5),
};

/// For batches of up to 4 rows.
pub fn settings(executor: Executor) -> Settings {
    Settings {
        variant: "f32".into(),
        trust: Trust::default(),
        policy: policy(4),
        queue_size: 256,
        threads: 1,
        executor: Some(executor),
    }
}

/// A catalogue with all that there is.
pub async fn start(sources: Sources, control: Control, settings: Settings) -> Arc<Catalogue> {
    let metrics = Metrics::new(&mut Registry::default());
    let names = sources.names().unwrap();
    Catalogue::start(sources, &names, control, settings, metrics).await.unwrap()
}

/// A folder with a tiny model; seeds differ in what they answer.
pub fn tiny(seed: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    sconce_model::artifact::testing::write_tiny(folder.path(), seed).unwrap();
    folder
}

pub type Client = GrpcInferenceServiceClient<Channel>;

pub struct Server {
    /// Of gRPC.
    pub address: SocketAddr,
    pub rest: SocketAddr,
    pub stop: Option<oneshot::Sender<()>>,
    pub task: JoinHandle<anyhow::Result<()>>,
}

impl Server {
    pub async fn start(executor: Executor, max_batch_size: usize, queue_size: usize) -> Self {
        Self::start_at(executor, LOOPBACK.parse().unwrap(), max_batch_size, queue_size).await
    }

    pub async fn start_at(executor: Executor, address: SocketAddr, max_batch_size: usize, queue_size: usize) -> Self {
        Self::start_with(executor, address, policy(max_batch_size), queue_size, LIMITS).await
    }

    /// Its queue has room for one request, which waits there for others: whoever comes meanwhile finds it full.
    pub async fn soon_full(executor: Executor) -> Self {
        let policy = Policy { max_batch_size: 4, max_queue_delay: Duration::from_millis(300) };
        Self::start_with(executor, "127.0.0.1:0".parse().unwrap(), policy, 1, LIMITS).await
    }

    pub async fn start_with(
        executor: Executor,
        address: SocketAddr,
        policy: Policy,
        queue_size: usize,
        limits: Limits,
    ) -> Self {
        Self::start_by(None, executor, address, policy, queue_size, limits).await
    }

    pub async fn start_by(
        tls: Option<Tls>,
        executor: Executor,
        address: SocketAddr,
        policy: Policy,
        queue_size: usize,
        limits: Limits,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let folder = tiny(7);
        // Each server has a version of its own.
        let version = Some(listener.local_addr().unwrap().to_string());
        let source = Source { version, folder: folder.path().into(), digest: None };
        let sources = Sources::new([(MODEL.into(), source)], None).unwrap();
        let settings = Settings { policy, queue_size, ..settings(executor) };
        let catalogue = start(sources, Control::None, settings).await;
        Self::of(catalogue, listener, tls, limits).await
    }

    /// Of a folder that stays.
    pub async fn of_folder(executor: Executor, folder: &Path) -> Self {
        let source = Source { version: None, folder: folder.into(), digest: None };
        let sources = Sources::new([(MODEL.into(), source)], None).unwrap();
        let catalogue = start(sources, Control::None, settings(executor)).await;
        Self::of(catalogue, TcpListener::bind(LOOPBACK).await.unwrap(), None, LIMITS).await
    }

    /// Of a catalogue.
    pub async fn of(catalogue: Arc<Catalogue>, grpc: TcpListener, tls: Option<Tls>, limits: Limits) -> Self {
        let rest = TcpListener::bind(LOOPBACK).await.unwrap();
        let (address, rest_address) = (grpc.local_addr().unwrap(), rest.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) }.boxed().shared();
        let listeners = Listeners { grpc, rest, tls };
        let task = tokio::spawn(server::serve(listeners, Service::new(catalogue), limits, stopped));
        Self { address, rest: rest_address, stop: Some(stop), task }
    }

    pub async fn client(&self) -> Client {
        client(self.address).await
    }
}

pub async fn client(address: SocketAddr) -> Client {
    GrpcInferenceServiceClient::connect(format!("http://{address}")).await.unwrap()
}

pub fn tensor(rows: i64) -> InferInputTensor {
    InferInputTensor { name: "input".into(), datatype: "FP32".into(), shape: vec![rows, 1, 8, 8], ..Default::default() }
}

pub fn request(rows: i64) -> ModelInferRequest {
    let values: Vec<f32> = (0..rows as usize * PIXELS).map(|index| (index % 11) as f32 / 11.0).collect();
    ModelInferRequest {
        model_name: MODEL.into(),
        id: "7".into(),
        inputs: vec![tensor(rows)],
        raw_input_contents: vec![raw_fp32(&values)],
        ..Default::default()
    }
}

/// Grey pixels, encoded.
pub fn png(pixels: &[u8], width: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let height = pixels.len() as u32 / width;
    image::codecs::png::PngEncoder::new(&mut bytes).write_image(pixels, width, height, ExtendedColorType::L8).unwrap();
    bytes
}

/// Encoded images in the place of the tensor.
pub fn of_images(shape: &[i64], images: &[Vec<u8>]) -> ModelInferRequest {
    let bytes_contents = images.iter().cloned().map(Into::into).collect();
    let input = InferInputTensor {
        name: "encoded".into(),
        datatype: "BYTES".into(),
        shape: shape.into(),
        contents: Some(InferTensorContents { bytes_contents, ..Default::default() }),
        ..Default::default()
    };
    ModelInferRequest { model_name: MODEL.into(), inputs: vec![input], ..Default::default() }
}
