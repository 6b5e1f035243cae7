//! Why a request gets no answer, and the one table of what each wire calls that.

use crate::decode::DecodeError;
use crate::engine::EngineError;
use http::StatusCode;
use thiserror::Error;
use tonic::{Code, Status};

/// What a client is told instead of an answer.
#[derive(Debug, Error)]
pub enum Refusal {
    #[error("no model \"{asked}\" here; this server has \"{served}\"")]
    Model { asked: String, served: String },
    #[error("no version \"{asked}\" of \"{model}\" here; this server has \"{served}\"")]
    Version { asked: String, model: String, served: String },
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the answer cannot be written: {why}")]
    Encode { why: String },
    #[error("the server is shutting down")]
    Draining,
    #[error("this server serves one model, \"{served}\", and cannot {verb} \"{asked}\": start a server for each model")]
    OneModel { verb: &'static str, asked: String, served: String },
}

impl Refusal {
    /// What gRPC calls it.
    pub fn code(&self) -> Code {
        match self {
            Refusal::Model { .. } | Refusal::Version { .. } => Code::NotFound,
            Refusal::Decode(DecodeError::SharedMemory) | Refusal::OneModel { .. } => Code::Unimplemented,
            Refusal::Decode(_) => Code::InvalidArgument,
            Refusal::Engine(EngineError::QueueFull { .. } | EngineError::Expired | EngineError::Closed)
            | Refusal::Draining => Code::Unavailable,
            Refusal::Engine(EngineError::Late) => Code::DeadlineExceeded,
            Refusal::Engine(EngineError::Failed { .. }) | Refusal::Encode { .. } => Code::Internal,
        }
    }

    /// What HTTP calls it.
    pub fn status(&self) -> StatusCode {
        match self.code() {
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What it is counted as; `None` where the model was asked.
    pub(super) fn counted(&self) -> Option<&'static str> {
        match self {
            Refusal::Model { .. } | Refusal::Version { .. } => Some("unknown_model"),
            Refusal::Decode(_) => Some("malformed"),
            Refusal::Engine(EngineError::QueueFull { .. }) => Some("queue_full"),
            Refusal::Engine(EngineError::Late) => Some("deadline"),
            Refusal::Engine(EngineError::Expired) => Some("timeout"),
            Refusal::Engine(EngineError::Closed) | Refusal::Draining => Some("closed"),
            Refusal::OneModel { .. } => Some("unsupported"),
            Refusal::Engine(EngineError::Failed { .. }) | Refusal::Encode { .. } => None,
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
pub(super) fn shortened(mut told: String) -> String {
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
        let status = Status::from(Refusal::Model { asked, served: "tiny".into() });
        assert!(status.message().len() < 1100 && status.message().ends_with('…'), "{}", status.message().len());
        assert_eq!(shortened("short".into()), "short");
    }
}
