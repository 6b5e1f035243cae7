//! The way in, the same for every source: by lot, then by policy, and only then to the queue.

use crate::clock::Now;
use crate::config::Dataset;
use crate::counts::Drop;
use crate::keeper::Keeper;
use crate::privacy::{Left, Measured, Privacy, Refusal, Statistics};
use crate::sample::{Answer, Id, Kind, Label, Media, Sample, Why};
use crate::store::Outcome;
use bytes::Bytes;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Source of what is told over all samples.
pub const STATISTICS: &str = "statistics";

/// What a source has taken.
#[derive(Clone, Debug)]
pub struct Taken {
    pub content: Bytes,
    /// Such as `http` or `mqtt:door/7/image`.
    pub source: String,
    /// Which mask covers it.
    pub camera: String,
    /// Absent = the camera's hour.
    pub group: Option<String>,
    pub label: Option<Label>,
    /// What the sender says of consent: by whom, or where that is written down.
    pub consent: Option<String>,
    pub chosen: Chosen,
}

/// How it was chosen.
#[derive(Clone, Debug)]
pub enum Chosen {
    /// Not yet: by lot, with this probability.
    Share(f64),
    /// By whoever saw the model's answer.
    Answered { answer: Answer, why: Why, probability: f64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Took {
    Stored(Id, Outcome),
    /// By lot.
    NotChosen,
    /// It counts in the statistics.
    Counted,
    Refused(Refusal),
}

impl Took {
    /// Whether the same may be taken a little later: there was no room, and there may be.
    pub fn is_worth_another_try(&self) -> bool {
        matches!(self, Self::Stored(_, Outcome::Dropped(Drop::Busy | Drop::DiskFull | Drop::Full)))
    }
}

pub struct Intake {
    pub keeper: Keeper,
    privacy: Privacy,
    /// Whether a sample needs a mark of it.
    consent: bool,
    kind: Option<Kind>,
    statistics: Mutex<Statistics>,
}

impl Intake {
    /// As a dataset has it.
    pub fn new(keeper: Keeper, dataset: &Dataset) -> Self {
        let Dataset { privacy, consent, kind, .. } = dataset;
        Self { keeper, privacy: privacy.clone(), consent: *consent, kind: *kind, statistics: Mutex::default() }
    }

    pub async fn take(&self, taken: Taken) -> Took {
        let Taken { content, source, camera, group, label, consent, chosen } = taken;
        let (answer, why, probability) = match chosen {
            Chosen::Share(share) if !is_chosen(&content, share) => return Took::NotChosen,
            Chosen::Share(share) => (None, Why::Uniform, share),
            Chosen::Answered { answer, why, probability } => (Some(answer), why, probability),
        };
        let consent = consent.filter(|said| !said.trim().is_empty());
        if self.consent && consent.is_none() {
            return self.refuse(Refusal::NoConsent).await;
        }
        if let (Some(kind), Some(media)) = (self.kind, Media::of(&content))
            && !kind.holds(media)
        {
            return self.refuse(Refusal::Strange(kind, media.extension())).await;
        }
        let (privacy, seen) = (self.privacy.clone(), content.clone());
        let (on, backbone) = (camera.clone(), answer.as_ref().and_then(|answer| answer.backbone.clone()));
        let left = looked_into(&self.privacy, move || privacy.enforce(&on, seen, backbone.as_deref())).await;
        let left = left.unwrap_or_else(|error| Err(Refusal::Image(error.to_string())));
        let (content, media, redactions) = match left {
            Ok(Left::Content { content, media, redactions }) => (content, media, redactions),
            Ok(Left::Nothing) => {
                let measured = looked_into(&self.privacy, move || Measured::of(&content)).await;
                return match measured {
                    Ok(measured) => {
                        let mut statistics = self.statistics.lock().unwrap_or_else(PoisonError::into_inner);
                        statistics.add(measured, answer.as_ref());
                        Took::Counted
                    }
                    Err(error) => self.refuse(Refusal::Image(error.to_string())).await,
                };
            }
            Err(refusal) => return self.refuse(refusal).await,
        };
        let now = Now::read();
        let sample = Sample {
            id: Id::of(&content),
            media,
            group: group.unwrap_or_else(|| format!("{camera}/{}", now.wall.strftime("%Y-%m-%dT%H"))),
            source,
            taken: now,
            why,
            probability,
            answer: self.privacy.answer(answer),
            label,
            consent,
            policy: self.privacy.name().into(),
            mask: self.privacy.mask(),
            redactions,
        };
        Took::Stored(sample.id, self.keeper.keep(sample, content).await)
    }

    async fn refuse(&self, refusal: Refusal) -> Took {
        self.keeper.refuse(refusal.why()).await;
        Took::Refused(refusal)
    }

    /// Keeps the statistics of the time since the last call, as one sample; those of too few samples wait.
    pub async fn tell_statistics(&self) {
        let now = Now::read();
        let told = {
            let mut statistics = self.statistics.lock().unwrap_or_else(PoisonError::into_inner);
            let told = statistics.told(now.wall);
            if told.is_some() {
                *statistics = std::mem::take(&mut *statistics).rest();
            }
            told
        };
        let Some(content) = told.map(Bytes::from) else { return };
        let sample = Sample {
            id: Id::of(&content),
            media: Media::Json,
            source: STATISTICS.into(),
            group: String::new(),
            taken: now,
            why: Why::Uniform,
            probability: 1.0,
            answer: None,
            label: None,
            consent: None,
            policy: self.privacy.name().into(),
            mask: None,
            redactions: vec!["every sample".into()],
        };
        self.keeper.keep(sample, content).await;
    }
}

/// One at a time is decoded, of all datasets: a picture is some kilobytes on its way, and many mebibytes while it is looked into.
static DECODING: Semaphore = Semaphore::const_new(1);

/// Looks into a sample off the reactor: a picture takes milliseconds.
async fn looked_into<T: Send + 'static>(
    privacy: &Privacy,
    look: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    // Nobody closes it. The permit goes with the work: that goes on when nobody waits for it any more.
    let turn =
        if matches!(privacy, Privacy::Raw | Privacy::FeaturesOnly) { None } else { DECODING.acquire().await.ok() };
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        look()
    })
    .await
}

/// By a lot that the content itself draws: one that comes again is drawn alike.
fn is_chosen(content: &[u8], share: f64) -> bool {
    let id = Id::of(content).0;
    // The last bytes: stores look samples up by the first.
    let lot = u64::from_be_bytes([id[24], id[25], id[26], id[27], id[28], id[29], id[30], id[31]]);
    share >= 1.0 || (lot as f64) < share * u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_for_good_is_not_tried_again() {
        let is_tried = |why| Took::Stored(Id([0; 32]), Outcome::Dropped(why)).is_worth_another_try();
        let tried: Vec<_> = Drop::ALL.into_iter().filter(|why| is_tried(*why)).collect();
        assert_eq!(tried, [Drop::Full, Drop::DiskFull, Drop::Busy]);
        assert!(!Took::Stored(Id([0; 32]), Outcome::Duplicate).is_worth_another_try());
    }

    #[test]
    fn lots_are_drawn_with_their_probability() {
        let chosen = |share| (0_u32..20_000).filter(|number| is_chosen(&number.to_le_bytes(), share)).count();
        assert_eq!((chosen(0.0), chosen(1.0)), (0, 20_000));
        // Five standard deviations.
        assert!((1788..=2212).contains(&chosen(0.1)), "{}", chosen(0.1));
    }
}
