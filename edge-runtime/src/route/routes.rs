//! The routes file: which backends answer for a model, in order of preference. The node's agent writes it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    pub schema: u32,
    /// By the name that clients send, `NAME.NAMESPACE`.
    pub models: BTreeMap<String, Route>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The preferred tier first; backends of one tier are equal.
    pub backends: Vec<Address>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// `Edge` or `Cloud`: a name for metrics, and what a fail-over changes.
    pub tier: String,
    /// `IP:PORT`.
    pub address: std::net::SocketAddr,
}

#[derive(Debug, Error)]
pub enum RoutesError {
    #[error("no routes: {0}")]
    Json(#[from] serde_json::Error),
    #[error("routes have schema {got}; this router knows 1: use a newer one")]
    Schema { got: u32 },
}

/// # Errors
/// [`RoutesError`]; the router then goes on with what it had.
pub fn parse(bytes: &[u8]) -> Result<Routes, RoutesError> {
    let routes: Routes = serde_json::from_slice(bytes)?;
    if routes.schema == 1 { Ok(routes) } else { Err(RoutesError::Schema { got: routes.schema }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_writes_is_read_and_other_things_are_refused() {
        let text = br#"{"schema":1,"models":{"digits.vision":{"backends":[{"tier":"Edge","address":"10.244.2.5:8001"},{"tier":"Cloud","address":"10.96.3.4:8001"}]},"none.vision":{"backends":[]}}}"#;
        let routes = parse(text).unwrap();
        assert_eq!(routes.models["digits.vision"].backends[1].tier, "Cloud");
        assert!(routes.models["none.vision"].backends.is_empty());
        assert_eq!(
            parse(br#"{"schema":2,"models":{}}"#).unwrap_err().to_string(),
            "routes have schema 2; this router knows 1: use a newer one"
        );
        assert!(parse(&text[..40]).is_err());
    }
}
