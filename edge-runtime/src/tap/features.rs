//! Whom features are asked of: the server that has answered, which has seen the request already.

use super::PATIENCE;
use super::content::{Features, features};
use crate::wire::ModelInferRequest;
use crate::wire::grpc_inference_service_client::GrpcInferenceServiceClient;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

/// What the collector is handed of a request.
pub(super) enum Content {
    /// Of the request.
    Own(Bytes),
    /// What this server makes of it.
    Features(Channel, Box<ModelInferRequest>),
}

/// Connections of the tap's own, one for each model: it takes no place of a client's.
#[derive(Default)]
pub(super) struct Servers(BTreeMap<String, (SocketAddr, Channel)>);

impl Servers {
    pub(super) fn channel(&mut self, model: &str, address: SocketAddr) -> Channel {
        match self.0.get(model) {
            Some((known, channel)) if *known == address => channel.clone(),
            _ => {
                let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address makes a URI");
                let channel = endpoint.connect_timeout(PATIENCE).connect_lazy();
                self.0.insert(model.to_owned(), (address, channel.clone()));
                channel
            }
        }
    }
}

/// What the model's backbone makes of a request. Nothing of it is logged: only of which kind the refusal was.
pub(super) async fn made(server: Channel, model: &str, request: ModelInferRequest) -> Option<Features> {
    let mut server = GrpcInferenceServiceClient::new(server);
    match timeout(PATIENCE, server.model_infer(request)).await {
        Ok(Ok(answer)) => features(answer.get_ref()),
        Ok(Err(status)) => {
            tracing::debug!(model, code = ?status.code(), "no features");
            None
        }
        Err(_) => {
            tracing::debug!(model, "no features in time");
            None
        }
    }
}
