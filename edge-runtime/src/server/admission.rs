//! Refuses before it is read what would find the queue full: to read it takes longer than to run a small model.

use super::{Limits, Service};
use crate::wire::MODEL_INFER;
use futures::future::{Either, Ready, ready};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;

/// In front of the protocol's service.
#[derive(Clone)]
pub(super) struct Admission<S> {
    pub service: Arc<Service>,
    pub limits: Limits,
    pub inner: S,
}

impl<S: NamedService> NamedService for Admission<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> tower::Service<http::Request<Body>> for Admission<S>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<S::Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() == MODEL_INFER
            && let Err(refusal) = self.service.admit()
        {
            if !request.body().is_end_stream() {
                let (body, stopping) = (request.into_body(), self.service.stopping());
                let gone = tokio::time::timeout(self.limits.body_timeout, let_go(body, self.limits.max_message_bytes));
                tokio::spawn(futures::future::select(Box::pin(gone), Box::pin(stopping)));
            }
            return Either::Left(ready(Ok(Status::from(refusal).into_http())));
        }
        Either::Right(self.inner.call(request))
    }
}

/// Lets a body pass by. Dropped, it would have the stream reset, and what comes after that counts as the client's fault, which
/// in the end costs it the connection.
pub(crate) async fn let_go(mut body: Body, limit: usize) {
    let mut passed = 0;
    while passed <= limit
        && let Some(Ok(frame)) = body.frame().await
    {
        passed += frame.data_ref().map_or(0, |data| data.len());
    }
}
