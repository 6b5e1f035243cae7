//! Which replica leads: the election of client-go over one Lease.
//!
//! Expiry is judged by this machine's own clock since the holder's last sign, never by comparing clocks. A lease is advice:
//! every write of ours is also safe under two short leaders.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

pub const NAME: &str = "sconce-operator";
const TTL: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);
const CALL: Duration = Duration::from_secs(5);

#[derive(thiserror::Error, Debug)]
pub enum LeaseError {
    #[error("the lease could not be renewed for {RENEW_DEADLINE:?}")]
    Deadline,
    #[error("the lease was taken by {holder}")]
    Taken { holder: String },
}

#[derive(thiserror::Error, Debug)]
enum StepError {
    #[error("no answer within {CALL:?}")]
    Timeout,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Leading,
    Following,
}

pub struct Candidate {
    api: Api<Lease>,
    id: String,
    /// Holder and time of its last renewal, and when we saw them change.
    observed: Option<(String, Timestamp, Instant)>,
}

impl Candidate {
    pub fn new(api: Api<Lease>, id: String) -> Self {
        Self { api, id, observed: None }
    }

    /// Waits until this replica leads. `false` = told to stop before.
    pub async fn acquire(&mut self, stop: &CancellationToken) -> bool {
        loop {
            match self.step().await {
                Ok(Turn::Leading) => return true,
                Ok(Turn::Following) => {}
                Err(error) => tracing::warn!(%error, "asking for the lease"),
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Renews until told to stop.
    ///
    /// # Errors
    /// [`LeaseError`] once this replica no longer leads: the process must end.
    pub async fn hold(&mut self, stop: &CancellationToken) -> Result<(), LeaseError> {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(RETRY) => {}
            }
            match self.step().await {
                Ok(Turn::Leading) => renewed = Instant::now(),
                // A conflict may be our own earlier write whose answer was lost: asked again until the deadline.
                Ok(Turn::Following) => {
                    if let Some((holder, ..)) = &self.observed
                        && *holder != self.id
                    {
                        return Err(LeaseError::Taken { holder: holder.clone() });
                    }
                }
                Err(error) => tracing::warn!(%error, "renewing the lease"),
            }
            if renewed.elapsed() > RENEW_DEADLINE {
                return Err(LeaseError::Deadline);
            }
        }
    }

    /// Gives the lease back, so that another replica need not wait for its end.
    pub async fn release(&mut self) {
        let Ok(Ok(Some(mut lease))) = tokio::time::timeout(CALL, self.api.get_opt(NAME)).await else { return };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.id) {
            return;
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        if let Err(error) = self.api.replace(NAME, &PostParams::default(), &lease).await {
            tracing::warn!(%error, "releasing the lease");
        }
    }

    async fn step(&mut self) -> Result<Turn, StepError> {
        Ok(tokio::time::timeout(CALL, self.turn()).await.map_err(|_| StepError::Timeout)??)
    }

    async fn turn(&mut self) -> kube::Result<Turn> {
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = self.api.get_opt(NAME).await? else {
            return outcome(self.api.create(&PostParams::default(), &self.fresh(now)).await);
        };
        let spec = lease.spec.get_or_insert_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let renewed = spec.renew_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        if self.observed.as_ref().is_none_or(|(seen, at, _)| *seen != holder || *at != renewed) {
            self.observed = Some((holder.clone(), renewed, Instant::now()));
        }
        let theirs = Duration::from_secs(spec.lease_duration_seconds.unwrap_or(0).max(0).unsigned_abs().into());
        let fresh = self.observed.as_ref().is_some_and(|(.., since)| since.elapsed() < TTL.max(theirs));
        if !holder.is_empty() && holder != self.id && fresh {
            return Ok(Turn::Following);
        }
        if holder != self.id {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + 1);
        }
        spec.holder_identity = Some(self.id.clone());
        spec.renew_time = Some(now);
        spec.lease_duration_seconds = Some(TTL.as_secs() as i32);
        outcome(self.api.replace(NAME, &PostParams::default(), &lease).await)
    }

    fn fresh(&self, now: MicroTime) -> Lease {
        Lease {
            metadata: ObjectMeta { name: Some(NAME.into()), ..Default::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.id.clone()),
                lease_duration_seconds: Some(TTL.as_secs() as i32),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(0),
                ..Default::default()
            }),
        }
    }
}

/// A conflict means that another replica was faster.
fn outcome(result: kube::Result<Lease>) -> kube::Result<Turn> {
    match result {
        Ok(_) => Ok(Turn::Leading),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(Turn::Following),
        Err(error) => Err(error),
    }
}
