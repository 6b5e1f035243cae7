//! The door of gRPC: inference, health and reflection.

use super::accept::Io;
use super::admission::Admission;
use super::{Limits, Refusal, Service};
use crate::catalogue::{Model, Models, Settings};
use crate::deadline::deadline;
use crate::decode;
use crate::encode;
use crate::spans;
use crate::wire::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use crate::wire::http2;
use crate::wire::{
    BACKBONE, DESCRIPTORS, LogSettingsRequest, LogSettingsResponse, ModelConfigRequest, ModelConfigResponse,
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse, ModelStreamInferResponse,
    RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest, RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse,
    ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, Streaming};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Serves until the service stops; what has begun is finished.
///
/// # Errors
/// If HTTP/2 cannot be served.
pub(super) async fn serve(
    incoming: impl Stream<Item = Io>,
    service: Arc<Service>,
    limits: Limits,
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let mut told = Told { models: service.catalogue.watch(), health, names: BTreeSet::new() };
    told.now().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let stopping = service.stopping();
    let drain = async move {
        tokio::select! {
            () = stopping => {}
            () = told.changes() => {}
        }
        told.stopped().await;
    };
    // Answers are not compressed: many clients offer to read that without wanting it, and they are small. They are as large as the
    // model makes them: once it has computed one there is nothing to save.
    let inference = GrpcInferenceServiceServer::new(Door(service.clone()))
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
        .max_decoding_message_size(limits.max_message_bytes);
    // As many as can wait and run, and as many that are told that they cannot: what a client asks beyond that waits with the
    // client, and takes no memory here. Streams that last, and other models, have their room in the least.
    let Settings { policy, queue_size, .. } = service.catalogue.settings();
    let streams = u32::try_from(2 * (queue_size + policy.max_batch_size)).unwrap_or(u32::MAX).max(http2::STREAMS);
    let inference = spans::door(Admission { service, limits, inner: inference });
    http2::server(streams)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        // What many clients ask by still, gRPC's own for Python among them.
        .add_service(reflection().build_v1alpha()?)
        .add_service(inference)
        .serve_with_incoming_shutdown(incoming.map(Ok::<_, Infallible>), drain)
        .await?;
    Ok(())
}

/// What those who watch its health are told: of the server under no name, and of each model under its own.
struct Told {
    models: watch::Receiver<Models<Arc<Model>>>,
    health: HealthReporter,
    /// That have been told.
    names: BTreeSet<String>,
}

impl Told {
    async fn now(&mut self) {
        let mut serving: BTreeSet<String> = self.models.borrow_and_update().names().map(str::to_owned).collect();
        serving.insert(String::new());
        self.names.extend(serving.iter().cloned());
        for name in &self.names {
            let status = if serving.contains(name) { ServingStatus::Serving } else { ServingStatus::NotServing };
            self.health.set_service_status(name, status).await;
        }
    }

    /// Tells whatever changes; the catalogue outlives it.
    async fn changes(&mut self) {
        while self.models.changed().await.is_ok() {
            self.now().await;
        }
    }

    async fn stopped(&self) {
        for name in &self.names {
            self.health.set_service_status(name, ServingStatus::NotServing).await;
        }
    }
}

/// Said with an answer: what the model says of late is spread otherwise than it was on held-out samples. Routers count it.
pub const DRIFTS: &str = "sconce-drifts";

/// Said with features: the model was not asked. Routers count no such answer, and collect none.
pub const BESIDE: &str = "sconce-beside";

struct Door(Arc<Service>);

fn deadline_of(metadata: &MetadataMap, arrived: Instant) -> Option<Instant> {
    deadline(metadata.get("grpc-timeout").and_then(|header| header.to_str().ok()), arrived)
}

impl Service {
    async fn infer_message(
        &self,
        mut message: ModelInferRequest,
        arrived: Instant,
        deadline: Option<Instant>,
    ) -> Result<(ModelInferResponse, bool), Refusal> {
        let (name, version) = (std::mem::take(&mut message.model_name), std::mem::take(&mut message.model_version));
        let model = self.asked(&name, &version)?;
        let answer = self.infer(&model, (arrived, deadline), || decode::grpc(message)).await?;
        let drifts = answer.drifts;
        Ok((encode::grpc(answer), drifts))
    }

    /// Answers in the order of the requests; as many as make a batch are under way at once. One that is refused is told so in
    /// its place, and the stream goes on.
    fn infer_each(
        self: Arc<Self>,
        messages: impl Stream<Item = Result<ModelInferRequest, Status>> + Send + 'static,
        deadline: Option<Instant>,
    ) -> BoxStream<'static, Result<ModelStreamInferResponse, Status>> {
        let (at_once, stopping) = (self.catalogue.settings().policy.max_batch_size, self.stopping());
        let answers = messages.take_until(stopping).map(move |message| {
            let service = self.clone();
            async move {
                let message = message?;
                let id = message.id.clone();
                Ok(match service.infer_message(message, Instant::now(), deadline).await {
                    Ok((answer, _)) => {
                        ModelStreamInferResponse { error_message: String::new(), infer_response: Some(answer) }
                    }
                    Err(refusal) => ModelStreamInferResponse {
                        error_message: refusal.to_string(),
                        infer_response: Some(ModelInferResponse { id, ..Default::default() }),
                    },
                })
            }
        });
        answers.buffered(at_once).boxed()
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Door {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.0.is_ready() }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(self.0.server_metadata()))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.into_inner();
        Ok(Response::new(self.0.model_ready(&name, &version)?))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        Ok(Response::new(self.0.model_metadata(&name, &version)?))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let arrived = Instant::now();
        let deadline = deadline_of(request.metadata(), arrived);
        let (answer, drifts) = self.0.infer_message(request.into_inner(), arrived, deadline).await?;
        let is_beside = answer.parameters.contains_key(BACKBONE);
        let mut answer = Response::new(answer);
        if is_beside {
            answer.metadata_mut().insert(BESIDE, MetadataValue::from_static("true"));
        }
        if drifts {
            answer.metadata_mut().insert(DRIFTS, MetadataValue::from_static("true"));
        }
        Ok(answer)
    }

    type ModelStreamInferStream = BoxStream<'static, Result<ModelStreamInferResponse, Status>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        // The deadline of the whole stream.
        let deadline = deadline_of(request.metadata(), Instant::now());
        Ok(Response::new(self.0.clone().infer_each(request.into_inner(), deadline)))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let ModelConfigRequest { name, version } = request.into_inner();
        Ok(Response::new(ModelConfigResponse { config: Some(self.0.model_config(&name, &version)?) }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let ModelStatisticsRequest { name, version } = request.into_inner();
        Ok(Response::new(self.0.model_statistics(&name, &version)?))
    }

    async fn log_settings(
        &self,
        request: Request<LogSettingsRequest>,
    ) -> Result<Response<LogSettingsResponse>, Status> {
        Ok(Response::new(encode::log(self.0.log(&decode::log(request.into_inner()))?)))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        Ok(Response::new(self.0.index(request.get_ref().ready).await?))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        let RepositoryModelLoadRequest { model_name, parameters, .. } = request.get_ref();
        self.0.load(model_name, parameters.keys()).await?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        let RepositoryModelUnloadRequest { model_name, parameters, .. } = request.get_ref();
        self.0.unload(model_name, parameters.keys()).await?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }
}
