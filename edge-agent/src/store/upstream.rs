//! Asks a registry, as nobody: without a name, and so only for what it gives to anybody.

use super::Refusal;
use super::asked::{Asked, Kind};
use super::metrics::Metrics;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, HeaderValue, RANGE, WWW_AUTHENTICATE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use sconce_registry::{Challenge, is_plain};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// Of artifacts, as they are published.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Of a manifest: a registry need not take larger ones either.
const MOST_MANIFEST: u64 = 4 << 20;
/// Of the answer that has a token in it.
const MOST_TOKEN: usize = 64 << 10;
/// Tokens that are remembered.
const MOST_TOKENS: usize = 256;
const MOST_REDIRECTS: usize = 5;
const CONNECT: Duration = Duration::from_secs(5);
/// So long a registry may say nothing.
const SILENT: Duration = Duration::from_secs(10);
/// Until it begins to give what was asked for, tokens and redirects included: pods wait a little longer.
const BEGIN: Duration = Duration::from_secs(12);

pub struct Upstream {
    client: Client,
    /// Those without TLS, beside those on loopback addresses.
    insecure: Vec<String>,
    /// By registry and repository.
    tokens: Mutex<BTreeMap<(String, String), HeaderValue>>,
    metrics: Metrics,
}

/// An answer that has begun.
pub struct Opened {
    response: Response,
    /// Where it begins.
    pub first: u64,
    /// Of the whole.
    pub size: u64,
    metrics: Metrics,
}

impl Upstream {
    /// # Errors
    /// If there is no TLS here.
    pub fn new(insecure: Vec<String>, metrics: Metrics) -> Result<Self, reqwest::Error> {
        let redirects = Policy::custom(|attempt| {
            let downgraded = attempt.previous().last().is_some_and(|from| from.scheme() == "https")
                && attempt.url().scheme() != "https";
            match attempt.previous().len() {
                _ if downgraded => attempt.error("it leads away from TLS"),
                ..=MOST_REDIRECTS => attempt.follow(),
                _ => attempt.error("it leads on and on"),
            }
        });
        let client = Client::builder().redirect(redirects).connect_timeout(CONNECT).read_timeout(SILENT);
        let client = client.user_agent(concat!("sconce-agent/", env!("CARGO_PKG_VERSION"))).build()?;
        Ok(Self { client, insecure, tokens: Mutex::default(), metrics })
    }

    /// Begins to fetch it, from a byte on if the registry can; else from the start.
    ///
    /// # Errors
    /// [`Refusal`], as the registry means it, or if it does not answer.
    pub async fn open(&self, asked: &Asked, from: u64) -> Result<Opened, Refusal> {
        let silent = |_| Refusal::Unreachable { why: format!("no answer in {BEGIN:?}") };
        timeout(BEGIN, self.opened(asked, from)).await.map_err(silent)?
    }

    async fn opened(&self, asked: &Asked, from: u64) -> Result<Opened, Refusal> {
        let response = self.answer(asked, from).await?;
        // There is less than there was to go on with.
        let response = match response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => self.answer(asked, 0).await?,
            _ => response,
        };
        let status = response.status();
        let unreachable = |why: String| Refusal::Unreachable { why };
        let (first, size) = match status {
            StatusCode::OK => (0, response.content_length()),
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get(CONTENT_RANGE).and_then(|range| content_range(range.to_str().ok()?));
                let (first, size) = range.ok_or_else(|| unreachable("it does not say what part it gives".into()))?;
                (first, Some(size))
            }
            StatusCode::NOT_FOUND => return Err(Refusal::Missing),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(Refusal::Forbidden),
            other => return Err(unreachable(format!("it answers {other}"))),
        };
        let size = size.ok_or_else(|| unreachable("it does not say how much it gives".into()))?;
        if first > from {
            return Err(unreachable("it gives another part than it was asked for".into()));
        }
        if asked.kind == Kind::Manifest && size > MOST_MANIFEST {
            return Err(unreachable(format!("the manifest has {size} bytes, and none has more than {MOST_MANIFEST}")));
        }
        Ok(Opened { response, first, size, metrics: self.metrics.clone() })
    }

    /// With a token for everybody, where the registry wants one.
    async fn answer(&self, asked: &Asked, from: u64) -> Result<Response, Refusal> {
        let place = (asked.registry.clone(), asked.repository.clone());
        let known = self.tokens().get(&place).cloned();
        let response = self.send(asked, from, known).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let Some(Challenge::Bearer { realm, service }) = Challenge::of(challenges) else {
            return Err(Refusal::Forbidden);
        };
        let token = self.token(asked, &realm, service.as_deref()).await?;
        {
            let mut tokens = self.tokens();
            if tokens.len() >= MOST_TOKENS {
                tokens.clear();
            }
            tokens.insert(place, token.clone());
        }
        self.send(asked, from, Some(token)).await
    }

    async fn send(&self, asked: &Asked, from: u64, token: Option<HeaderValue>) -> Result<Response, Refusal> {
        let mut request = self.client.get(self.url(asked));
        if asked.kind == Kind::Manifest {
            request = request.header(ACCEPT, MANIFEST_TYPE);
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        request.send().await.map_err(told)
    }

    fn url(&self, Asked { registry, repository, kind, digest }: &Asked) -> String {
        let scheme = if is_plain(registry, &self.insecure) { "http" } else { "https" };
        // Under its name there are web pages.
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        format!("{scheme}://{host}/v2/{repository}/{}/{digest}", kind.path())
    }

    /// What the registry's own service gives to who has no name.
    async fn token(&self, asked: &Asked, realm: &str, service: Option<&str>) -> Result<HeaderValue, Refusal> {
        let realm = Url::parse(realm).ok();
        let may_be_plain = is_plain(&asked.registry, &self.insecure);
        let realm = realm.filter(|realm| realm.scheme() == "https" || (may_be_plain && realm.scheme() == "http"));
        let mut realm = realm.ok_or(Refusal::Forbidden)?;
        let scope = format!("repository:{}:pull", asked.repository);
        realm.query_pairs_mut().extend_pairs(service.map(|service| ("service", service)));
        realm.query_pairs_mut().append_pair("scope", &scope);
        let mut response = self.client.get(realm).send().await.map_err(told)?;
        if !response.status().is_success() {
            return Err(Refusal::Forbidden);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(told)? {
            body.extend_from_slice(&chunk);
            if body.len() > MOST_TOKEN {
                return Err(Refusal::Forbidden);
            }
        }
        let body: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&body).map_err(|_| Refusal::Forbidden)?;
        let token = body.get("token").or(body.get("access_token")).and_then(|token| token.as_str());
        let header = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
        header.ok_or(Refusal::Forbidden)
    }

    fn tokens(&self) -> MutexGuard<'_, BTreeMap<(String, String), HeaderValue>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opened {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// If the connection ends, or nothing comes for [`SILENT`].
    pub async fn chunk(&mut self) -> Result<Option<axum::body::Bytes>, Refusal> {
        let chunk = self.response.chunk().await.map_err(told)?;
        self.metrics.fetched(chunk.as_ref().map_or(0, |chunk| chunk.len()));
        Ok(chunk)
    }
}

/// The error with its causes, without the address: clients say little at the top.
fn told(error: reqwest::Error) -> Refusal {
    let error = error.without_url();
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    Refusal::Unreachable { why: causes.map(ToString::to_string).collect::<Vec<_>>().join(": ") }
}

/// First byte and size of the whole, of `bytes 5-9/10`.
fn content_range(text: &str) -> Option<(u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, size.parse().ok()?);
    (first <= last && last.checked_add(1)? == size).then_some((first, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_told_by_its_bytes() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 10)));
        assert_eq!(content_range("bytes 0-0/1"), Some((0, 1)));
        for bad in
            ["bytes 5-8/10", "bytes 9-5/10", "bytes */10", "bytes 5-9/*", "5-9/10", "bytes 0-18446744073709551615/0"]
        {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
