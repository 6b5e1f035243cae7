//! The doors of one model: the Open Inference Protocol, health and reflection over gRPC.

use crate::deadline::deadline;
use crate::decode::{DecodeError, Signature, decode};
use crate::encode::{Identity, encode};
use crate::engine::{Engine, EngineError};
use crate::metrics::Metrics;
use crate::wire::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use crate::wire::model_metadata_response::TensorMetadata;
use crate::wire::{
    DESCRIPTORS, ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    ModelReadyResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse,
    ServerReadyRequest, ServerReadyResponse,
};
use sconce_model::artifact::TensorSpec;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// What one process serves.
pub struct Service {
    pub engine: Engine,
    pub signature: Signature,
    pub identity: Identity,
    pub metrics: Arc<Metrics>,
}

/// Serves until `stop`, then says so to those who watch its health, finishes what it has begun, and returns.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    service: Service,
    max_message_bytes: usize,
    drain: Duration,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let name = service.identity.name.clone();
    for name in ["", name.as_str()] {
        health.set_service_status(name, tonic_health::ServingStatus::Serving).await;
    }
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let inference = GrpcInferenceServiceServer::new(service)
        .max_decoding_message_size(max_message_bytes)
        .max_encoding_message_size(max_message_bytes);
    let (draining, drained) = tokio::sync::oneshot::channel();
    let server = Server::builder()
        // Room for one large tensor without waiting for round trips.
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(inference)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async {
            drained.await.ok();
        });
    let watch = async {
        stop.await;
        tracing::info!(drain = ?drain, "draining");
        for name in ["", name.as_str()] {
            health.set_service_status(name, tonic_health::ServingStatus::NotServing).await;
        }
        draining.send(()).ok();
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        served = server => served?,
        () = watch => tracing::warn!("still busy after the drain: leaving"),
    }
    Ok(())
}

impl Service {
    // The status is tonic's, and large; it is made once a request.
    #[allow(clippy::result_large_err)]
    fn named(&self, name: &str, version: &str) -> Result<(), Status> {
        let Identity { name: served, version: current } = &self.identity;
        if name != served {
            return Err(Status::not_found(format!("no model \"{name}\" here; this server has \"{served}\"")));
        }
        if !version.is_empty() && version != current {
            return Err(Status::not_found(format!(
                "no version \"{version}\" of \"{served}\" here; this server has \"{current}\""
            )));
        }
        Ok(())
    }

    async fn infer(&self, request: Request<ModelInferRequest>, began: Instant) -> Result<ModelInferResponse, Status> {
        let (name, version) = (&request.get_ref().model_name, &request.get_ref().model_version);
        self.named(name, version).inspect_err(|_| self.metrics.refused("unknown_model"))?;
        let timeout = request.metadata().get("grpc-timeout").and_then(|header| header.to_str().ok());
        let deadline = deadline(timeout, began);
        let input = decode(request.into_inner(), &self.signature).inspect_err(|_| self.metrics.refused("malformed"))?;
        self.metrics.stage("decode", began.elapsed());
        let output = self.engine.submit(&input, deadline).await.inspect_err(|error| self.count(error))?;
        let encoding = Instant::now();
        let response = encode(&output, input.id, input.raw, &self.identity, &self.signature);
        self.metrics.stage("encode", encoding.elapsed());
        response.map_err(|error| Status::internal(format!("the answer is no tensor of the model's: {error}")))
    }

    fn count(&self, error: &EngineError) {
        match error {
            EngineError::QueueFull { .. } => self.metrics.refused("queue_full"),
            EngineError::Late => self.metrics.refused("deadline"),
            EngineError::Closed => self.metrics.refused("closed"),
            EngineError::Failed { .. } => {}
        }
    }
}

impl From<DecodeError> for Status {
    fn from(error: DecodeError) -> Self {
        Status::invalid_argument(error.to_string())
    }
}

impl From<EngineError> for Status {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::QueueFull { .. } | EngineError::Closed => Status::unavailable(error.to_string()),
            EngineError::Late => Status::deadline_exceeded(error.to_string()),
            EngineError::Failed { .. } => Status::internal(error.to_string()),
        }
    }
}

fn described(tensor: &TensorSpec) -> TensorMetadata {
    TensorMetadata { name: tensor.name.clone(), datatype: tensor.datatype.clone(), shape: tensor.shape.clone() }
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: true }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        let (name, version) = ("sconce".into(), env!("CARGO_PKG_VERSION").into());
        Ok(Response::new(ServerMetadataResponse { name, version, extensions: Vec::new() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        self.named(&request.get_ref().name, &request.get_ref().version)?;
        Ok(Response::new(ModelReadyResponse { ready: true }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        self.named(&request.get_ref().name, &request.get_ref().version)?;
        Ok(Response::new(ModelMetadataResponse {
            name: self.identity.name.clone(),
            versions: vec![self.identity.version.clone()],
            platform: "sconce_candle".into(),
            inputs: vec![described(&self.signature.input)],
            outputs: vec![described(&self.signature.output)],
            properties: Default::default(),
        }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let began = Instant::now();
        let answer = self.infer(request, began).await;
        self.metrics.stage("total", began.elapsed());
        self.metrics.answered(answer.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok));
        answer.map(Response::new)
    }
}
