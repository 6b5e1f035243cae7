//! The hall: watches wake it; it observes, decides, writes, and sleeps.

use crate::apply::{Applier, News};
use crate::health::Pulse;
use crate::learn::Learned;
use crate::logs::{self, Reading, Readings};
use crate::metrics::{Metrics, ResultLabel};
use crate::observe::{Key, Stores, observe, written_ratios};
use crate::pass::{Input, Steps, pass};
use crate::registry::{Ask, Outcome, Registries, Resolution, Resolutions, patience, run_of};
use crate::render::Settings;
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::Client;
use kube_runtime::events::{Event, EventType, Recorder, Reporter};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Changes come in swarms: one pass for all of a swarm.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Of a fleet that takes long to decide, more changes are gathered: so many times as long as that took.
const GATHER: u32 = 3;
const LONGEST_GATHER: Duration = Duration::from_secs(5);
/// Signs of life while nothing happens.
const BEAT: Duration = Duration::from_secs(10);
/// Events that are written at a time.
const TOLD_AT_ONCE: usize = 16;
/// Nothing should have been missed; if it was, it is found within the hour.
const RESYNC: Duration = Duration::from_secs(3600);

pub struct Controller {
    pub client: Client,
    pub stores: Stores,
    /// That the stores changed.
    pub news: watch::Receiver<()>,
    pub metrics: Metrics,
    pub registries: Registries,
    pub settings: Settings,
    pub drain: Duration,
    pub pulse: Pulse,
    pub identity: String,
}

type Told = (Key, Option<sconce_api::TrainingProgress>);
type Answer = (Key, Ask, Result<crate::artifact::Artifact, crate::artifact::Failure>);

impl Controller {
    /// Runs until told to stop; a pass that has begun is finished.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut applier = Applier::new(self.client.clone(), self.metrics.clone(), self.pulse.clone());
        let reporter = Reporter { controller: "sconce-operator".into(), instance: Some(self.identity.clone()) };
        let recorder = Recorder::new(self.client.clone(), reporter);
        let mut resolutions = Resolutions::new();
        let mut learned: Option<Learned> = None;
        let (asked, mut answers) = mpsc::unbounded_channel::<Answer>();
        let mut readings = Readings::new();
        let (read, mut told) = mpsc::unbounded_channel::<Told>();
        loop {
            while let Ok(answer) = answers.try_recv() {
                self.note(&mut resolutions, answer);
            }
            let started = Instant::now();
            let now = Timestamp::now();
            // What is new by now is seen now.
            self.news.mark_unchanged();
            let mut world = observe(&self.stores, now);
            let learned = learned.get_or_insert_with(|| Learned::remembered(&written_ratios(&world.fleets), world.now));
            world.ratios = Arc::new(learned.ratios());
            let is_run = |key: &Key| run_of(key).is_some_and(|job| world.jobs.contains_key(&job));
            resolutions.retain(|key, _| world.models.contains_key(key) || is_run(key));
            readings.retain(|key, _| world.training_pods.contains_key(key));
            let mut steps = pass(&Input {
                world: &world,
                resolutions: &resolutions,
                readings: &readings,
                refusals: &applier.refusals,
                settings: &self.settings,
                drain: self.drain,
                clock: started,
            });
            let gather = (started.elapsed() * GATHER).clamp(DEBOUNCE, LONGEST_GATHER);
            let look_at = steps.look_at;
            learned.learn(std::mem::take(&mut steps.ratio_samples), now);
            self.metrics.tell_ratios(learned);
            for pod in std::mem::take(&mut steps.to_read) {
                self.read(&mut readings, pod, world.now, read.clone());
            }
            // What changes meanwhile would be held twice.
            drop(world);
            self.carry_out(steps, &mut applier, &recorder, &mut resolutions, &asked).await;
            let result = if applier.retry_at().is_none() { "success" } else { "error" };
            self.metrics.reconciles.get_or_create(&ResultLabel { result }).inc();
            self.metrics.passes.observe(started.elapsed().as_secs_f64());
            tracing::debug!(took = ?started.elapsed(), look_at = ?look_at.map(|at| at.to_string()), "passed");
            let wake = wake_at(look_at, now, &applier, &resolutions, started);
            let gather = loop {
                self.pulse.beat();
                tokio::select! {
                    () = stop.cancelled() => return,
                    Ok(()) = self.news.changed() => break gather,
                    () = tokio::time::sleep_until(wake.into()) => break DEBOUNCE,
                    Some(answer) = answers.recv() => {
                        self.note(&mut resolutions, answer);
                        break DEBOUNCE;
                    }
                    Some((pod, progress)) = told.recv() => {
                        let news = readings.get_mut(&pod).filter(|reading| progress.is_some() && reading.progress != progress);
                        if let Some(reading) = news {
                            reading.progress = progress;
                            break DEBOUNCE;
                        }
                    }
                    () = tokio::time::sleep(BEAT) => {}
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(gather) => {}
            }
        }
    }

    async fn carry_out(
        &self,
        steps: Steps,
        applier: &mut Applier,
        recorder: &Recorder,
        resolutions: &mut Resolutions,
        asked: &mpsc::UnboundedSender<Answer>,
    ) {
        for panicked in &steps.panics {
            self.metrics.panics.inc();
            tracing::error!(what = panicked, "a decision panicked; what it concerns stays as it is");
        }
        for (key, ask) in steps.to_resolve {
            self.ask(resolutions, key, ask, asked.clone());
        }
        applier.all(steps.objects).await;
        let news = applier.all(steps.statuses).await;
        futures::stream::iter(news).for_each_concurrent(TOLD_AT_ONCE, |news| tell(recorder, news)).await;
        applier.all(steps.farewells).await;
        applier.end();
    }

    /// Off the loop, so that a registry that does not answer holds up nobody.
    fn ask(&self, resolutions: &mut Resolutions, key: Key, ask: Ask, asked: mpsc::UnboundedSender<Answer>) {
        let earlier = resolutions.remove(&key).filter(|earlier| earlier.ask == ask).map(|earlier| earlier.outcome);
        let (failed, attempts) = match earlier {
            Some(Outcome::Failed { failure, attempts, .. }) => (Some(failure), attempts),
            _ => (None, 0),
        };
        let outcome = Outcome::Asking { failed, attempts };
        resolutions.insert(key.clone(), Resolution { ask: ask.clone(), outcome });
        let (registries, client) = (self.registries.clone(), self.client.clone());
        tokio::spawn(async move {
            let answer = registries.ask(&client, &key.0, &ask).await;
            // Nobody listens once the process is ending.
            asked.send((key, ask, answer)).ok();
        });
    }

    /// Off the loop, as registries are asked.
    fn read(&self, readings: &mut Readings, pod: Key, now: Timestamp, read: mpsc::UnboundedSender<Told>) {
        readings.entry(pod.clone()).or_insert(Reading { at: now, progress: None }).at = now;
        let client = self.client.clone();
        tokio::spawn(async move {
            let progress = logs::read(client, &pod).await;
            read.send((pod, progress)).ok();
        });
    }

    fn note(&self, resolutions: &mut Resolutions, (key, ask, answer): Answer) {
        let Some(resolution) = resolutions.get_mut(&key).filter(|resolution| resolution.ask == ask) else { return };
        let uri = ask.uri;
        let attempts = match resolution.outcome {
            Outcome::Asking { attempts, .. } => attempts + 1,
            _ => return,
        };
        let result = if answer.is_ok() { "ok" } else { "error" };
        self.metrics.resolutions.get_or_create(&ResultLabel { result }).inc();
        resolution.outcome = match answer {
            Ok(artifact) => {
                tracing::info!(uri, digest = artifact.digest, "resolved");
                Outcome::Found(Box::new(artifact))
            }
            Err(failure) => {
                tracing::warn!(uri, reason = %failure.reason, attempts, "{failure}");
                Outcome::Failed { failure, attempts, retry_at: Instant::now() + patience(attempts) }
            }
        };
    }
}

/// The earliest of: a Deployment's end, a failed write, a registry's next chance, the hour.
fn wake_at(
    look_at: Option<Timestamp>,
    now: Timestamp,
    applier: &Applier,
    resolutions: &Resolutions,
    passed: Instant,
) -> Instant {
    let clock = Instant::now();
    let due = look_at.map(|at| {
        let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
        // The world's time is in whole seconds.
        clock + wait + Duration::from_millis(1000 - u64::try_from(now.subsec_millisecond()).unwrap_or(0).min(999))
    });
    let retries = resolutions.values().filter_map(|resolution| match resolution.outcome {
        // What was due at the pass and is not asked for again, nobody wants.
        Outcome::Failed { retry_at, .. } => Some(retry_at).filter(|retry_at| *retry_at > passed),
        _ => None,
    });
    let all = [due, applier.retry_at()].into_iter().flatten().chain(retries);
    all.min().unwrap_or(clock + RESYNC).min(clock + RESYNC)
}

async fn tell(recorder: &Recorder, news: News) {
    let event = Event {
        type_: if news.good { EventType::Normal } else { EventType::Warning },
        reason: news.reason,
        note: Some(news.note),
        action: news.action.into(),
        secondary: None,
    };
    let published = tokio::time::timeout(Duration::from_secs(5), recorder.publish(&event, &news.about)).await;
    if let Ok(Err(error)) = published {
        tracing::debug!(%error, "an event was not written");
    }
}
