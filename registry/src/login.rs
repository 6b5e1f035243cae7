//! A credential is exchanged for what a registry wants to see, as OCI's distribution API has it.

use crate::challenge::Challenge;
use crate::keyring::{Credential, is_printable};
use crate::plain::{is_at, may_be_plain};
use crate::registry::RegistryError;
use oci_client::secrets::RegistryAuth;
use reqwest::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use std::time::Duration;

const CONNECT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(15);
/// Seconds that a token lives: by the specification no fewer, and none is used for longer.
const LIFE: (u64, u64) = (60, 86_400);
/// Of the answer that has a token in it.
const MOST_TOKEN: usize = 64 << 10;

/// What is to be opened.
pub struct Wish<'a> {
    /// `HOST[:PORT]`, as it is connected to.
    pub registry: &'a str,
    pub repository: &'a str,
    /// Its tag, or digest.
    pub version: &'a str,
    pub plain: bool,
    pub may_push: bool,
    /// Those that may be spoken to without TLS.
    pub insecure: &'a [String],
    /// Where the credential is from, for messages.
    pub origin: &'a str,
}

/// What lets in, and for how long.
pub struct Pass {
    pub auth: RegistryAuth,
    pub life: Option<Duration>,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// # Errors
/// [`RegistryError`] if nobody answers, or says no.
pub async fn login(wish: &Wish<'_>, credential: Credential) -> Result<Pass, RegistryError> {
    if let Credential::Token(token) = credential {
        return Ok(Pass { auth: RegistryAuth::Bearer(token), life: None });
    }
    // A redirection would lead a password, or the question for it, to another.
    let client = Client::builder().redirect(Policy::none()).connect_timeout(CONNECT).timeout(PATIENCE);
    let client = client.user_agent(concat!("sconce/", env!("CARGO_PKG_VERSION"))).build();
    let client = client.map_err(|error| RegistryError::Client { why: error.to_string() })?;
    let (mut challenge, mut closed) = (None, None);
    for question in wish.questions(&client) {
        if challenge.is_none() {
            let answer = question.send().await.map_err(|error| unreachable(wish.registry, error))?;
            let told = answer.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
            challenge = Challenge::of(told);
            match answer.status() {
                _ if challenge.is_some() => {}
                status if status.is_success() || status == StatusCode::NOT_FOUND => {}
                status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => closed = Some(status),
                status => return Err(silent(wish.registry, status)),
            }
        }
    }
    if let (None, Some(status)) = (&challenge, closed) {
        return Err(wish.refused(format!("it answers {status}, and not what it wants to see")));
    }
    match (challenge, credential) {
        // Nobody has asked for it.
        (None, _) => Ok(Pass { auth: RegistryAuth::Anonymous, life: None }),
        (Some(Challenge::Basic), Credential::Password { username, password }) => {
            Ok(Pass { auth: RegistryAuth::Basic(username, password), life: None })
        }
        (Some(Challenge::Basic), _) => {
            let why = "it asks for a name and a password, and there is a token of identity".into();
            Err(wish.refused(why))
        }
        (Some(Challenge::Bearer { realm, service }), credential) => {
            token(&client, wish, &realm, service.as_deref(), credential).await
        }
    }
}

async fn token(
    client: &Client,
    wish: &Wish<'_>,
    realm: &str,
    service: Option<&str>,
    credential: Credential,
) -> Result<Pass, RegistryError> {
    let strange = || wish.refused("it names nobody who gives tokens".into());
    let mut url = Url::parse(realm).map_err(|_| strange())?;
    let host = url.host_str().ok_or_else(strange)?;
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    // The registry itself is spoken to without TLS already.
    let is_itself = wish.plain && is_at(&url, wish.registry);
    if url.scheme() != "https" && !(url.scheme() == "http" && (may_be_plain(&url, wish.insecure) || is_itself)) {
        return Err(RegistryError::Plain { registry: wish.registry.into(), host });
    }
    let actions = if wish.may_push { "pull,push" } else { "pull" };
    let scope = format!("repository:{}:{actions}", wish.repository);
    let mut fields: Vec<(&str, &str)> = service.map(|service| ("service", service)).into_iter().collect();
    fields.push(("scope", &scope));
    let request = match &credential {
        Credential::Password { username, password } => {
            url.query_pairs_mut().extend_pairs(fields);
            client.get(url).basic_auth(username, Some(password))
        }
        Credential::Identity(secret) | Credential::Token(secret) => {
            fields.extend([("grant_type", "refresh_token"), ("client_id", "sconce"), ("refresh_token", secret)]);
            client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form(&fields))
        }
    };
    let response = request.send().await.map_err(|error| unreachable(&host, error))?;
    match response.status() {
        StatusCode::OK => {}
        status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
            return Err(wish.refused(format!("{host} gives no token: {status}")));
        }
        status => return Err(silent(&host, status)),
    }
    let body = body(response).await.map_err(|error| unreachable(&host, error))?;
    let answer: Option<Answer> = serde_json::from_slice(&body).ok();
    let life = answer.as_ref().and_then(|answer| answer.expires_in).unwrap_or_default().clamp(LIFE.0, LIFE.1);
    let token = answer.and_then(|answer| answer.token.or(answer.access_token)).filter(|token| !token.is_empty());
    // As a header it has to be printable.
    let token = token.filter(|token| is_printable(token));
    let token = token.ok_or_else(|| RegistryError::Unreachable { who: host, why: "its answer has no token".into() })?;
    Ok(Pass { auth: RegistryAuth::Bearer(token), life: Some(Duration::from_secs(life)) })
}

/// What is larger than any token is none.
async fn body(mut response: Response) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > MOST_TOKEN {
            return Ok(Vec::new());
        }
    }
    Ok(body)
}

/// As a form is sent.
fn form(fields: &[(&str, &str)]) -> String {
    let mut url = Url::parse("http://form").expect("an address");
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}

impl Wish<'_> {
    /// What a registry is asked as nobody, to hear what it wants to see. Where some repositories are open to all, it may not say so
    /// before it is asked for one that is not.
    fn questions(&self, client: &Client) -> [RequestBuilder; 2] {
        let scheme = if self.plain { "http" } else { "https" };
        let base = format!("{scheme}://{}/v2/", self.registry);
        let repository = format!("{base}{}", self.repository);
        let asked = match self.may_push {
            true => client.post(format!("{repository}/blobs/uploads/")),
            false => client.head(format!("{repository}/manifests/{}", self.version)),
        };
        [client.get(base), asked]
    }

    fn refused(&self, why: String) -> RegistryError {
        RegistryError::Refused { registry: self.registry.into(), origin: self.origin.into(), why }
    }
}

/// It may say more another time.
fn silent(who: &str, status: StatusCode) -> RegistryError {
    RegistryError::Unreachable { who: who.into(), why: format!("it answers {status}") }
}

/// The innermost cause says most; an address may have more in it than is anybody's business.
fn unreachable(who: &str, error: reqwest::Error) -> RegistryError {
    let error = error.without_url();
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let mut why = causes.map(ToString::to_string).last().unwrap_or_default();
    // As rustls says it.
    if why.contains("InvalidContentType") {
        why += ": it does not speak TLS; name it with --insecure-registry, if that is meant";
    }
    RegistryError::Unreachable { who: who.into(), why }
}
