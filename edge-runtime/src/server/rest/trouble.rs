//! What goes wrong over HTTP: refusals, and what only HTTP knows. The body is always `{"error": "…"}`.

use crate::server::Refusal;
use crate::server::refusal::shortened;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;
use std::time::Duration;
use thiserror::Error;

#[derive(Debug, Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("no {path} here; the paths are those of the Open Inference Protocol, such as /v2/models/NAME/infer")]
    Path { path: String },
    #[error("{path} belongs to an extension that is not served here; GET /v2 lists those that are")]
    Unserved { path: String },
    #[error("{path} cannot be asked by {method}; infer, index, load and unload are asked by POST, all else by GET")]
    Method { method: String, path: String },
    #[error("the body is larger than {limit} bytes, uncompressed; this server takes no more")]
    TooLarge { limit: usize },
    #[error("the body was not there within {limit:?}")]
    Slow { limit: Duration },
    #[error("the body broke off: {why}")]
    BrokenOff { why: String },
    #[error("Content-Encoding {got:?}; gzip, deflate and identity are read here")]
    Encoding { got: String },
    #[error("the body is no {encoding}: {why}")]
    Compressed { encoding: &'static str, why: String },
    #[error("the body is no JSON of this request: {why}")]
    Json { why: String },
}

impl Trouble {
    fn status(&self) -> StatusCode {
        match self {
            Trouble::Refused(refusal) => refusal.status(),
            Trouble::Path { .. } => StatusCode::NOT_FOUND,
            Trouble::Unserved { .. } => StatusCode::NOT_IMPLEMENTED,
            Trouble::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Trouble::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Trouble::Slow { .. } => StatusCode::REQUEST_TIMEOUT,
            Trouble::Encoding { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Trouble::BrokenOff { .. } | Trouble::Compressed { .. } | Trouble::Json { .. } => StatusCode::BAD_REQUEST,
        }
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        super::reply(self.status(), &json!({"error": shortened(self.to_string())}))
    }
}
