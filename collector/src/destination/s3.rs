//! An S3 bucket, by credentials and endpoint as the AWS tools read them from the environment.

use super::{Destination, DestinationError, Pace, Put};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http_body_util::BodyExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::path::Path;
use object_store::{Error, ObjectStore as _, PutMode, RetryConfig};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of an answer, once all was sent.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

pub struct S3 {
    bucket: AmazonS3,
    prefix: Path,
}

impl S3 {
    /// `place` is `BUCKET/PREFIX`.
    ///
    /// # Errors
    /// If the environment configures no client.
    pub fn new(place: &str, pace: Pace) -> Result<Self, DestinationError> {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        // Who calls tries again, with a memory of what is planned.
        let retry = RetryConfig { max_retries: 1, ..RetryConfig::default() };
        let bucket = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_retry(retry)
            .with_http_connector(Connector { pace })
            .build()?;
        Ok(Self { bucket, prefix: Path::from(prefix) })
    }
}

#[async_trait]
impl Destination for S3 {
    async fn put(&self, name: &str, content: Bytes) -> Result<Put, DestinationError> {
        let path = name.split('/').fold(self.prefix.clone(), |path, part| path.join(part));
        match self.bucket.put_opts(&path, content.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(Put::Done),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Put::Exists),
            Err(error) => Err(error.into()),
        }
    }
}

#[derive(Debug)]
struct Connector {
    pace: Pace,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT).build();
        let client = client.map_err(|error| Error::Generic { store: "S3", source: error.into() })?;
        Ok(HttpClient::new(Paced { client, pace: self.pace.clone() }))
    }
}

/// Sends bodies slice by slice, as fast as it may.
#[derive(Debug)]
struct Paced {
    client: reqwest::Client,
    pace: Pace,
}

#[async_trait]
impl HttpService for Paced {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let url = head.uri.to_string().parse();
        let url = url.map_err(|error| HttpError::new(HttpErrorKind::Request, error))?;
        let mut request = reqwest::Request::new(head.method, url);
        *request.headers_mut() = head.headers;
        let pace = self.pace.clone();
        let slices =
            body.into_data_stream().map_ok(move |chunk| pace.stream(chunk).map(Ok::<Bytes, HttpError>)).try_flatten();
        *request.body_mut() = Some(reqwest::Body::wrap_stream(slices));
        let answer = self.client.execute(request).await.map_err(told)?;
        let (head, body) = http::Response::<reqwest::Body>::from(answer).into_parts();
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body.map_err(told))))
    }
}

fn told(error: reqwest::Error) -> HttpError {
    let kind = if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_timeout() {
        HttpErrorKind::Timeout
    } else {
        HttpErrorKind::Interrupted
    };
    // The client of S3 names the address, where that is no secret.
    HttpError::new(kind, error.without_url())
}
