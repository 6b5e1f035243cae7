//! The taps file: of which models samples are taken, which ones, and for which dataset. The node's agent writes it.

use crate::watch::Changes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Taps {
    pub schema: u32,
    /// By the name that clients send, `NAME.NAMESPACE`.
    pub models: BTreeMap<String, Wish>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wish {
    /// `NAMESPACE/NAME`.
    pub dataset: String,
    /// By lot, from 0 to 1.
    #[serde(default)]
    pub share: f64,
    /// Answers whose best score is less than this before the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin_below: Option<f64>,
    /// So many answers of each class and day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_class_per_day: Option<u32>,
    /// What the model's backbone makes of a request is handed over, and the request is not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub features: bool,
}

#[derive(Debug, Error)]
pub enum TapsError {
    #[error("no taps: {0}")]
    Json(#[from] serde_json::Error),
    #[error("taps have schema {got}; this router knows 1: use a newer one")]
    Schema { got: u32 },
}

/// # Errors
/// [`TapsError`]; the router then goes on with what it had.
pub fn parse(bytes: &[u8]) -> Result<Taps, TapsError> {
    let taps: Taps = serde_json::from_slice(bytes)?;
    if taps.schema == 1 { Ok(taps) } else { Err(TapsError::Schema { got: taps.schema }) }
}

/// Reads the file now and whenever it changes, until what comes with the wishes is dropped.
pub fn watch(file: Option<&Path>) -> anyhow::Result<(watch::Receiver<Arc<Taps>>, JoinSet<()>)> {
    let (wishes, receiver) = watch::channel(Arc::new(Taps::default()));
    let mut reading = JoinSet::new();
    let Some(file) = file.map(Path::to_owned) else { return Ok((receiver, reading)) };
    let mut changes = Changes::near([file.as_path()])?;
    read(&file, &wishes);
    reading.spawn(async move {
        loop {
            changes.next().await;
            read(&file, &wishes);
        }
    });
    Ok((receiver, reading))
}

fn read(file: &Path, wishes: &watch::Sender<Arc<Taps>>) {
    let taps = match std::fs::read(file) {
        Ok(bytes) => parse(&bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => return tracing::warn!(file = %file.display(), %error, "cannot read taps: keeping what is known"),
    };
    match taps {
        Ok(taps) => drop(wishes.send_if_modified(|known| {
            let is_new = **known != taps;
            if is_new {
                tracing::info!(models = taps.models.len(), "taps");
                *known = Arc::new(taps.clone());
            }
            is_new
        })),
        Err(error) => tracing::warn!(file = %file.display(), %error, "bad taps: keeping what is known"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_writes_is_read_and_other_things_are_refused() {
        let text = br#"{"schema":1,"models":{"digits.vision":{"dataset":"vision/digits","share":0.01,"marginBelow":0.3,"perClassPerDay":50,"features":true}}}"#;
        let expected = Wish {
            dataset: "vision/digits".into(),
            share: 0.01,
            margin_below: Some(0.3),
            per_class_per_day: Some(50),
            features: true,
        };
        assert_eq!(parse(text).unwrap().models["digits.vision"], expected);
        assert!(matches!(parse(br#"{"schema":2,"models":{}}"#), Err(TapsError::Schema { got: 2 })));
        assert!(parse(&text[..40]).is_err());
    }
}
