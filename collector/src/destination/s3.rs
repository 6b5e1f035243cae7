//! An S3 bucket, by credentials and endpoint as the AWS tools read them from the environment.

use super::{Destination, DestinationError, Listed, Pace, Put};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use http_body_util::{BodyExt as _, Limited};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutMode, RetryConfig};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a byte going out, or an answer once all is out: more than what the buffers on the way hold takes on a slow link. How long
/// all of a body takes is bounded by no time: it is paced.
const SILENCE: Duration = Duration::from_secs(120);
/// The largest answer: an error, a page of names, or tombstones.
const LARGEST_ANSWER: usize = 1 << 20;

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

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }
}

#[async_trait]
impl Destination for S3 {
    async fn put(&self, name: &str, content: Bytes) -> Result<Put, DestinationError> {
        match self.bucket.put_opts(&self.path(name), content.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(Put::Done),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Put::Exists),
            Err(error) => Err(error.into()),
        }
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, DestinationError> {
        let found = self.bucket.list_with_delimiter(Some(&self.path(folder))).await?.objects;
        let listed = |object: ObjectMeta| {
            let name = object.location.filename()?.to_owned();
            let version = format!("{} {} {}", object.size, object.last_modified, object.e_tag.unwrap_or_default());
            Some(Listed { name, version })
        };
        Ok(found.into_iter().filter_map(listed).collect())
    }

    async fn get(&self, name: &str) -> Result<Bytes, DestinationError> {
        Ok(self.bucket.get(&self.path(name)).await?.bytes().await?)
    }
}

#[derive(Debug)]
struct Connector {
    pace: Pace,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).build();
        let client = client.map_err(|error| Error::Generic { store: "S3", source: error.into() })?;
        Ok(HttpClient::new(Paced { client, pace: self.pace.clone(), silence: SILENCE }))
    }
}

/// Sends bodies slice by slice, as fast as it may.
#[derive(Debug)]
struct Paced {
    client: reqwest::Client,
    pace: Pace,
    silence: Duration,
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
        let (waits, waiting) = watch::channel(Some(Instant::now()));
        // Who only asks sends no body, not one without end, which S3 refuses.
        if body.content_length() > 0 {
            let slices = body.into_data_stream();
            let slices = slices.map_ok(move |chunk| pace.stream(chunk).map(Ok::<Bytes, HttpError>)).try_flatten();
            *request.body_mut() = Some(reqwest::Body::wrap_stream(timed(slices, waits)));
        }
        tokio::select! {
            answer = self.client.execute(request) => {
                let (head, body) = http::Response::<reqwest::Body>::from(answer.map_err(told)?).into_parts();
                let body = timeout(self.silence, Limited::new(body, LARGEST_ANSWER).collect()).await;
                let body = body.map_err(|_| silent(self.silence))?;
                let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, Unread(error)))?;
                Ok(HttpResponse::from_parts(head, HttpResponseBody::from(body.to_bytes())))
            }
            () = silence(waiting, self.silence) => Err(silent(self.silence)),
        }
    }
}

/// The same, telling since when the other side is waited for: not while a slice waits until it may go.
fn timed<S: Stream + Send + 'static>(
    slices: S,
    waits: watch::Sender<Option<Instant>>,
) -> impl Stream<Item = S::Item> + Send {
    stream::unfold((Box::pin(slices), waits), async |(mut slices, waits)| {
        waits.send_replace(None);
        let slice = slices.next().await;
        waits.send_replace(Some(Instant::now()));
        Some((slice?, (slices, waits)))
    })
}

/// Completes when the other side was waited for so long, whether for a slice to go or, after the last, for an answer.
async fn silence(mut waiting: watch::Receiver<Option<Instant>>, most: Duration) {
    let mut is_sending = true;
    loop {
        let since = *waiting.borrow_and_update();
        let until = async {
            match since {
                Some(since) => sleep_until(since + most).await,
                None if is_sending => std::future::pending().await,
                None => sleep(most).await,
            }
        };
        tokio::select! {
            () = until => return,
            changed = waiting.changed(), if is_sending => is_sending = changed.is_ok(),
        }
    }
}

#[derive(thiserror::Error, Debug)]
#[error("the other side takes nothing, or says nothing, for {0:?}")]
struct Silent(Duration);

#[derive(thiserror::Error, Debug)]
#[error("cannot read the answer: {0}")]
struct Unread(Box<dyn std::error::Error + Send + Sync>);

fn silent(most: Duration) -> HttpError {
    HttpError::new(HttpErrorKind::Timeout, Silent(most))
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

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::client::HttpRequestBody;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    const BODY: usize = 80 << 10;

    async fn put(listener: &TcpListener, pace: Pace, silence: Duration) -> Result<HttpResponse, HttpError> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let paced = Paced { client: reqwest::Client::new(), pace, silence };
        let body = HttpRequestBody::from(vec![7; BODY]);
        let request = http::Request::put(format!("http://{}/shard", listener.local_addr().unwrap()));
        paced.call(request.header("content-length", BODY).body(body).unwrap()).await
    }

    /// A shard that took longer than the wait for its answer was cut off, and sent again for ever.
    #[tokio::test]
    async fn a_body_may_take_longer_than_its_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Five slices, each half of the silence after the other.
        let sent = put(&listener, Pace::new(Some(16 << 10)), Duration::from_secs(2));
        let answered = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut read, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
            while read.iter().filter(|byte| **byte == 7).count() < BODY {
                let bytes = stream.read(&mut buffer).await.unwrap();
                assert!(bytes > 0, "cut off after {} bytes", read.len());
                read.extend_from_slice(&buffer[..bytes]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        };
        let (sent, ()) = tokio::join!(sent, answered);
        assert_eq!(sent.unwrap().status(), 200);
    }

    #[tokio::test]
    async fn who_says_nothing_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sent = put(&listener, Pace::default(), Duration::from_millis(100)).await;
        assert_eq!(sent.unwrap_err().kind(), HttpErrorKind::Timeout);
    }
}
