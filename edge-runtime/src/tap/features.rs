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
    Features(Channel, Box<Asking>),
}

/// What is asked for features.
pub(super) struct Asking {
    pub(super) request: ModelInferRequest,
    /// Of the model that has answered: another one's features are not those of the answer.
    pub(super) version: String,
}

/// More than a node's router asks at a time; those that are gone do not stay for ever.
const MOST: usize = 64;

/// Connections of the tap's own, one for each server: it takes no place of a client's.
#[derive(Default)]
pub(super) struct Servers(BTreeMap<SocketAddr, Channel>);

impl Servers {
    pub(super) fn channel(&mut self, address: SocketAddr) -> Channel {
        if self.0.len() == MOST && !self.0.contains_key(&address) {
            self.0.clear();
        }
        let connected = || {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address makes a URI");
            endpoint.connect_timeout(PATIENCE).connect_lazy()
        };
        self.0.entry(address).or_insert_with(connected).clone()
    }
}

/// What the model's backbone makes of a request. Nothing of it is logged: only of which kind the refusal was.
pub(super) async fn made(server: Channel, model: &str, Asking { request, version }: Asking) -> Option<Features> {
    let mut server = GrpcInferenceServiceClient::new(server);
    match timeout(PATIENCE, server.model_infer(request)).await {
        Ok(Ok(answer)) => features(answer.get_ref()).filter(|made| made.version == version),
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
