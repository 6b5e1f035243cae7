//! Why something is not given, and how OCI's distribution API says so.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// Who asked goes to the registry itself then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("need /v2/REPOSITORY/manifests/DIGEST or /v2/REPOSITORY/blobs/DIGEST")]
    Path,
    #[error("the repository's name is none")]
    Name,
    #[error("need sha256: and 64 hexadecimal digits: what a tag stands for only the registry knows")]
    Tag,
    #[error("need ns=HOST:PORT once: the registry that this is the mirror of")]
    Registry,
    #[error("the registry does not have it")]
    Missing,
    #[error(
        "the registry gives it to nobody without a name and a password, and this store has none: ask the registry itself"
    )]
    Forbidden,
    #[error("the registry cannot be asked: {why}")]
    Unreachable { why: String },
    #[error("the registry gave {got} instead")]
    Digest { got: String },
    #[error("what was kept of it has rotted; it is gone, and the next who asks has it from the registry")]
    Rotten,
    #[error("too many ask at once")]
    Busy,
    #[error("the disk does not take it: {why}")]
    Disk { why: String },
    #[error("there is no room to keep it")]
    NoRoom,
    #[error("nobody waited for it any more")]
    Abandoned,
}

impl Refusal {
    /// With the code that the API has for it.
    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Path => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
            Self::Name => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Self::Tag => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Self::Registry => (StatusCode::BAD_REQUEST, "UNSUPPORTED"),
            Self::Missing => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "DENIED"),
            Self::Unreachable { .. } | Self::Digest { .. } => (StatusCode::BAD_GATEWAY, "UNSUPPORTED"),
            Self::Rotten | Self::Busy | Self::Disk { .. } | Self::NoRoom | Self::Abandoned => {
                (StatusCode::SERVICE_UNAVAILABLE, "TOOMANYREQUESTS")
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code) = self.status();
        // What another server said or did is for our log, and not for whoever names a server to ask.
        let message = match &self {
            Self::Unreachable { .. } | Self::Digest { .. } => "the registry does not give it".into(),
            told => told.to_string(),
        };
        let body = serde_json::json!({"errors": [{"code": code, "message": message}]});
        (status, [("content-type", "application/json")], body.to_string()).into_response()
    }
}
