//! What a server does of what it can do, when it is asked for more.

use super::percentiles;
use super::server::{Side, TURN};
use crate::process;
use crate::wire::ModelInferRequest;
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tonic::{Code, Status};

/// A turn that measures what it can do, and a longer one that offers so many times as much, again and again.
///
/// # Errors
/// If an answer is an error that is no refusal.
pub(super) async fn run(
    side: &mut Side,
    request: &ModelInferRequest,
    (in_flight, factor): (usize, f64),
    length: Duration,
) -> Result<Value> {
    side.turn(request, in_flight).await?;
    side.begin().await?;
    let mut offered = Offered::default();
    let (began, own) = (Instant::now(), process::cpu());
    while began.elapsed() < length {
        side.turn(request, in_flight).await?;
        offered.turn(side, request, factor * side.capacity()).await?;
    }
    let busy = (process::cpu() - own).div_duration_f64(began.elapsed());
    Ok(offered.told(side.capacity(), busy))
}

#[derive(Default)]
struct Offered {
    sent: usize,
    /// Time in which it was sent, and time until the last of it was answered.
    sending: Duration,
    lasted: Duration,
    /// What each waited, in milliseconds, by what it was told.
    waited: BTreeMap<&'static str, Vec<f64>>,
}

impl Offered {
    async fn turn(&mut self, side: &Side, request: &ModelInferRequest, per_second: f64) -> Result<()> {
        let began = Instant::now();
        let (mut asking, mut sent) = (JoinSet::new(), 0);
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut clients = side.clients().iter().cycle();
        while began.elapsed() < TURN * 10 {
            tick.tick().await;
            let due = (began.elapsed().as_secs_f64() * per_second) as usize;
            for mut client in clients.by_ref().take(due.saturating_sub(sent)).cloned() {
                let request = request.clone();
                asking.spawn(async move {
                    let sent = Instant::now();
                    let answer = client.model_infer(request).await;
                    (sent.elapsed(), answer.err())
                });
            }
            sent = sent.max(due);
        }
        self.sending += began.elapsed();
        while let Some(asked) = asking.join_next().await {
            let (waited, error) = asked?;
            self.waited.entry(told(error)?).or_default().push(waited.as_secs_f64() * 1e3);
        }
        self.lasted += began.elapsed();
        self.sent += sent;
        Ok(())
    }

    fn told(mut self, capacity: f64, busy: f64) -> Value {
        let mut answered = self.waited.remove(ANSWERED).unwrap_or_default();
        let goodput = answered.len() as f64 / self.lasted.as_secs_f64();
        let mut report = json!({
            "capacityPerSecond": capacity,
            "offeredPerSecond": self.sent as f64 / self.sending.as_secs_f64(),
            "answeredPerSecond": goodput,
            "goodputRatio": goodput / capacity,
            "refused": {},
            "benchCpus": busy,
        });
        if !answered.is_empty() {
            report["answered"] = percentiles(&mut answered);
        }
        for (code, mut waited) in self.waited {
            let count = waited.len();
            report["refused"][code] = percentiles(&mut waited);
            report["refused"][code]["requests"] = json!(count);
        }
        report
    }
}

const ANSWERED: &str = "answered";

fn told(error: Option<Status>) -> Result<&'static str> {
    Ok(match error {
        None => ANSWERED,
        Some(status) => match status.code() {
            Code::Unavailable => "unavailable",
            Code::ResourceExhausted => "resourceExhausted",
            Code::DeadlineExceeded => "deadlineExceeded",
            _ => bail!(status),
        },
    })
}
