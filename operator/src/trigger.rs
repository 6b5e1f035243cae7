//! When a recipe's next run begins. Pure: the same recipe, runs, counts and time give the same answer.
//!
//! A run that ended Succeeded or Rejected has learned from what was labelled when it began: the cursor moves there, and what comes
//! afterwards is new. A run that Failed has learned nothing: the cursor stays, and the next one is put off, further each time.

mod cron;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use sconce_api::{EdgeTraining, EdgeTrainingStatus, Reason, RunState, TrainingRun, TrainingTrigger, labels};

/// A run that failed is followed by another after so long; one that fails after it, after twice as long.
const BACKOFF: SignedDuration = SignedDuration::from_mins(10);
/// Between runs by drift, where no cooldown is said.
const DRIFT_COOLDOWN: SignedDuration = SignedDuration::from_hours(24);
/// Clocks of a cluster are no further apart; a schedule's times are twice as far, or more.
const CLOCKS: SignedDuration = SignedDuration::from_secs(30);
/// As much of a request as is kept.
const REQUEST: usize = 63;

/// Whether a run is to begin; asked while none goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    Now,
    /// Not before then.
    At(Timestamp, Wait),
    /// When something happens.
    Waiting(Wait),
    /// The recipe has run, and nothing is asked for.
    Settled,
}

impl Due {
    fn at(time: Timestamp, reason: Reason, message: String) -> Self {
        Self::At(time, Wait { reason, message })
    }

    fn waiting(reason: Reason, message: String) -> Self {
        Self::Waiting(Wait { reason, message })
    }

    /// What is awaited.
    pub fn wait(&self) -> Option<&Wait> {
        match self {
            Self::At(_, wait) | Self::Waiting(wait) => Some(wait),
            Self::Now | Self::Settled => None,
        }
    }
}

/// What the next run waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    pub reason: Reason,
    pub message: String,
}

/// What is known when it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub recipe_hash: &'a str,
    /// The newest first; all of them are over.
    pub runs: &'a [TrainingRun],
    /// Labelled samples that are not learned from yet.
    pub new: i64,
    pub drift: &'a Drift,
    pub now: Timestamp,
}

/// What is known of the models that the recipe may mend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// One of them says something else than it said of held-out samples.
    pub drifts: bool,
    /// Which, and by whom; or why it is not known.
    pub message: String,
}

pub fn due(training: &EdgeTraining, known: &Known<'_>) -> Due {
    let newest = known.runs.first();
    let request = request(training);
    let requested = request.is_some() && newest.is_none_or(|run| run.request != request);
    let Some(trigger) = &training.spec.trigger else {
        let is_changed = newest.is_none_or(|run| run.recipe_hash != known.recipe_hash);
        return if is_changed || requested { Due::Now } else { Due::Settled };
    };
    let wanted = if requested { Due::Now } else { wanted(training, trigger, known) };
    match (wanted, newest) {
        (Due::Now, Some(newest)) => put_off(trigger, newest, requested, known).unwrap_or(Due::Now),
        (wanted, _) => wanted,
    }
}

/// By the trigger alone.
fn wanted(training: &EdgeTraining, trigger: &TrainingTrigger, known: &Known<'_>) -> Due {
    let lacks = |most: i64| (known.new < most).then(|| format!("{} of {most} new labelled samples", known.new));
    if let Some(samples) = &trigger.samples {
        return lacks(samples.new).map_or(Due::Now, |lack| Due::waiting(Reason::WaitingForSamples, lack));
    }
    if trigger.drift.is_some() {
        let Drift { drifts, message } = known.drift;
        if !drifts {
            return Due::waiting(Reason::WaitingForDrift, message.clone());
        }
        // Without anything new it would learn what it has learned.
        let lack = lacks(trigger.min_new.unwrap_or(1));
        let wait = |lack| Due::waiting(Reason::WaitingForSamples, format!("{message}: {lack}"));
        return lack.map_or(Due::Now, wait);
    }
    let Some(schedule) = &trigger.schedule else {
        let message = format!("set the annotation {} to a new value to begin a run", labels::RUN_REQUESTED);
        return Due::waiting(Reason::WaitingForRequest, message);
    };
    let created = || training.creation_timestamp().map(|time| time.0);
    // What begins on time may say that it began a moment before: the clock that says so is another one.
    let ran = known.runs.first().and_then(|run| {
        let began = began(run)?;
        if run.request.is_some() { Some(began) } else { began.checked_add(CLOCKS).ok() }
    });
    let since = ran.or_else(created).unwrap_or(known.now);
    let next = match cron::next(schedule, since) {
        Ok(next) if next > known.now => {
            return Due::at(next, Reason::WaitingForSchedule, format!("the next run is due at {next}"));
        }
        Ok(next) => next,
        Err(why) => return Due::waiting(Reason::InvalidSpec, format!("spec.trigger.schedule: {why}")),
    };
    let lack = trigger.min_new.and_then(lacks);
    lack.map_or(Due::Now, |lack| Due::waiting(Reason::WaitingForSamples, format!("due since {next}: {lack}")))
}

/// A run that is due begins later if the last one began a short time ago, or failed. Who asks for it need not wait for what failed.
fn put_off(trigger: &TrainingTrigger, newest: &TrainingRun, requested: bool, known: &Known<'_>) -> Option<Due> {
    let after = |time: Timestamp, wait: SignedDuration| time.checked_add(wait).unwrap_or(Timestamp::MAX);
    let cooldown = trigger.cooldown.as_ref().and_then(|text| SignedDuration::try_from(text.parse()?).ok());
    // What drifts goes on drifting until something newer is served. Who asks need not wait for what nobody has said.
    let cooldown = cooldown.or(trigger.drift.as_ref().filter(|_| !requested).map(|_| DRIFT_COOLDOWN));
    let cool = cooldown.zip(began(newest)).map(|(cooldown, began)| after(began, cooldown));
    let failures = known.runs.iter().take_while(|run| run.state == RunState::Failed).count();
    let in_vain = failures > 0 && !requested && newest.recipe_hash == known.recipe_hash;
    let ended = newest.completion_time.as_ref().filter(|_| in_vain).map(|time| time.0);
    let again = ended.map(|ended| after(ended, BACKOFF * (1 << (failures.clamp(1, 7) - 1))));
    let (cool, again) = (cool.filter(|time| *time > known.now), again.filter(|time| *time > known.now));
    if again > cool {
        let tried = if failures == 1 {
            "the last run has failed".into()
        } else {
            format!("{failures} runs in a row have failed")
        };
        return again.map(|again| Due::at(again, Reason::BackingOff, format!("{tried}: the next is tried at {again}")));
    }
    let why = |cool| format!("a run is due, and begins at {cool}: trigger.cooldown after {} began", newest.name);
    cool.map(|cool| Due::at(cool, Reason::CoolingDown, why(cool)))
}

/// When it began; of one that never did, when it ended.
fn began(run: &TrainingRun) -> Option<Timestamp> {
    run.start_time.as_ref().or(run.completion_time.as_ref()).map(|time| time.0)
}

/// What a person asks for, by annotation; each value begins one run.
pub fn request(training: &EdgeTraining) -> Option<String> {
    let asked = training.annotations().get(labels::RUN_REQUESTED)?;
    Some(asked.chars().take(REQUEST).collect())
}

/// Where the cursor stands now. `old` is what was said before, `runs` the newest first, `labelled` what the EdgeDataset has, where that
/// is known: nodes that are gone take their counts along, and the cursor comes down with them, since else the next round would
/// never come.
pub fn cursor(old: Option<&EdgeTrainingStatus>, runs: &[TrainingRun], labelled: Option<i64>) -> Option<i64> {
    let has_learned = |run: &&TrainingRun| matches!(run.state, RunState::Succeeded | RunState::Rejected);
    let was_over = |run: &TrainingRun| {
        let mut told = old.into_iter().flat_map(|old| &old.runs);
        told.any(|old| old.name == run.name && old.state.is_over())
    };
    let newest = runs.iter().find(has_learned).filter(|run| !was_over(run));
    let moved = newest.and_then(|run| Some(run.dataset.as_ref()?.samples));
    let cursor = moved.or_else(|| old?.cursor)?;
    Some(labelled.map_or(cursor, |labelled| cursor.min(labelled)))
}

#[cfg(test)]
mod tests;
