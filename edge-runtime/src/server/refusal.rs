//! Why a request gets no answer, and the one table of what each wire calls that.

use crate::catalogue::{CatalogueError, FeaturesError, SourceError, Unserved};
use crate::decode::DecodeError;
use crate::engine::EngineError;
use crate::logs::LogsError;
use http::StatusCode;
use thiserror::Error;
use tonic::{Code, Status};

/// What a client is told instead of an answer.
#[derive(Debug, Error)]
pub enum Refusal {
    #[error(transparent)]
    Unserved(#[from] Unserved),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Features(FeaturesError),
    #[error("the answer cannot be written: {why}")]
    Encode { why: String },
    #[error("the server is shutting down")]
    Draining,
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    #[error(transparent)]
    Logs(#[from] LogsError),
    #[error("{verb} takes no parameter \"{name}\"; a model is what its artifact says")]
    Parameter { verb: &'static str, name: String },
}

impl Refusal {
    /// What gRPC calls it.
    pub fn code(&self) -> Code {
        match self {
            Refusal::Unserved(Unserved::Model { .. } | Unserved::Version { .. })
            | Refusal::Catalogue(
                CatalogueError::Unknown { .. } | CatalogueError::Source(SourceError::Unknown { .. }),
            ) => Code::NotFound,
            Refusal::Decode(DecodeError::SharedMemory) => Code::Unimplemented,
            Refusal::Logs(LogsError::Denied) => Code::PermissionDenied,
            Refusal::Logs(LogsError::Failed { .. }) => Code::Internal,
            Refusal::Decode(_) | Refusal::Parameter { .. } | Refusal::Logs(_) => Code::InvalidArgument,
            Refusal::Engine(EngineError::QueueFull { .. } | EngineError::Expired | EngineError::Closed)
            | Refusal::Unserved(Unserved::Unavailable { .. })
            | Refusal::Draining => Code::Unavailable,
            Refusal::Engine(EngineError::Late) => Code::DeadlineExceeded,
            Refusal::Catalogue(CatalogueError::Denied { .. }) => Code::PermissionDenied,
            Refusal::Catalogue(CatalogueError::Source(_) | CatalogueError::Failed { .. })
            | Refusal::Features(FeaturesError::NoBackbone) => Code::FailedPrecondition,
            Refusal::Engine(EngineError::Failed { .. })
            | Refusal::Features(_)
            | Refusal::Encode { .. }
            | Refusal::Catalogue(CatalogueError::Thread(_) | CatalogueError::Panicked) => Code::Internal,
        }
    }

    /// What HTTP calls it.
    pub fn status(&self) -> StatusCode {
        match self.code() {
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::InvalidArgument | Code::FailedPrecondition => StatusCode::BAD_REQUEST,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What it is counted as; `None` where the model was asked.
    pub(super) fn counted(&self) -> Option<&'static str> {
        match self {
            Refusal::Unserved(Unserved::Model { .. } | Unserved::Version { .. }) => Some("unknown_model"),
            Refusal::Unserved(Unserved::Unavailable { .. }) => Some("unavailable"),
            Refusal::Decode(_) => Some("malformed"),
            Refusal::Engine(EngineError::QueueFull { .. }) => Some("queue_full"),
            Refusal::Engine(EngineError::Late) => Some("deadline"),
            Refusal::Engine(EngineError::Expired) => Some("timeout"),
            Refusal::Engine(EngineError::Closed) | Refusal::Draining => Some("closed"),
            Refusal::Engine(EngineError::Failed { .. })
            | Refusal::Features(_)
            | Refusal::Encode { .. }
            | Refusal::Catalogue(_)
            | Refusal::Logs(_)
            | Refusal::Parameter { .. } => None,
        }
    }
}

impl From<FeaturesError> for Refusal {
    fn from(error: FeaturesError) -> Self {
        match error {
            FeaturesError::Engine(error) => Refusal::Engine(error),
            other => Refusal::Features(other),
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Status::new(refusal.code(), shortened(refusal.to_string()))
    }
}

/// What clients sent stands in what they are told, and over gRPC that is a header: a long one would end the connection, which
/// they share with others.
pub(crate) fn shortened(mut told: String) -> String {
    const MOST: usize = 1024;
    if told.len() > MOST {
        told.truncate(told.floor_char_boundary(MOST));
        told.push('…');
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_short_whatever_was_asked() {
        let asked = "ä".repeat(100_000);
        let status = Status::from(Refusal::from(Unserved::Model { asked, known: "\"tiny\"".into() }));
        assert!(status.message().len() < 1100 && status.message().ends_with('…'), "{}", status.message().len());
        assert_eq!(shortened("short".into()), "short");
    }
}
