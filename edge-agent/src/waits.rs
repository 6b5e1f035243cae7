//! What clients waited in the last five minutes: what the router has counted between two readings. Pure.

use crate::round::{duration_text, two_digits};
use prometheus_parse::{Scrape, Value};
use sconce_api::{Amount, ObservedModel, Tier, Waited};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// What is told of.
const WINDOW: Duration = Duration::from_secs(300);
/// Below so many answers the 99th percentile is a maximum by another name, and is not told.
const P99_FROM: u64 = 100;
/// As many as the API takes, and names as long.
const MOST: usize = 64;
const LONGEST_NAME: usize = 63;

const WAITED: &str = "sconce_router_request_seconds";
const DRIFTED: &str = "sconce_router_requests_drifted_total";
const REQUESTS: &str = "sconce_router_requests_total";
/// What a client is not to blame for, by gRPC's codes.
const FAULTS: [&str; 5] = ["Unknown", "DeadlineExceeded", "Internal", "Unavailable", "DataLoss"];

/// A model as clients name it, NAME.NAMESPACE, and the tier that answered; `None` where none did.
type Series = (String, Option<Tier>);

/// Since the router's start.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counted {
    /// Seconds, and how many were answered within them; in order.
    within: Vec<(f64, u64)>,
    errors: u64,
    drifted: u64,
}

impl Counted {
    fn answered(&self) -> u64 {
        self.within.last().map_or(0, |(_, count)| *count)
    }

    /// What came after `old`.
    fn since(&self, old: Option<&Self>) -> Self {
        let Some(old) = old else { return self.clone() };
        let before = |index: usize| old.within.get(index).map_or(0, |(_, count)| *count);
        let later = self.within.iter().enumerate();
        let within = later.map(|(index, (le, count))| (*le, count.saturating_sub(before(index)))).collect();
        let [errors, drifted] =
            [(self.errors, old.errors), (self.drifted, old.drifted)].map(|(new, old)| new.saturating_sub(old));
        Self { within, errors, drifted }
    }

    /// By linear interpolation within its bucket, as Prometheus has it.
    fn quantile(&self, percent: u64) -> Option<Duration> {
        let rank = (self.answered() * percent) as f64 / 100.0;
        let at = self.within.iter().position(|(_, count)| *count > 0 && *count as f64 >= rank)?;
        let (below, fewer) = at.checked_sub(1).map_or((0.0, 0), |before| self.within[before]);
        let (above, count) = self.within[at];
        // Beyond the last bound nothing is known but that it was more.
        let seconds = if above.is_finite() {
            below + (above - below) * (rank - fewer as f64) / (count - fewer).max(1) as f64
        } else {
            below
        };
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// What a router has counted, from the text of its metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters(BTreeMap<Series, Counted>);

impl Counters {
    pub fn read(text: &str) -> Self {
        let mut counters = BTreeMap::<Series, Counted>::new();
        let lines = text.lines().filter(|line| line.contains("sconce_router_request")).map(|line| Ok(line.to_owned()));
        let samples = Scrape::parse(lines).map(|scrape| scrape.samples).unwrap_or_default();
        for sample in samples {
            let label = |name| sample.labels.get(name).unwrap_or_default();
            let tier = match label("tier") {
                "Edge" => Some(Tier::Edge),
                "Cloud" => Some(Tier::Cloud),
                _ => None,
            };
            let series = (label("model").to_owned(), tier);
            match (sample.metric.as_str(), &sample.value) {
                (WAITED, Value::Histogram(buckets)) => {
                    let mut within: Vec<_> =
                        buckets.iter().map(|bucket| (bucket.less_than, bucket.count as u64)).collect();
                    within.sort_by(|one, other| one.0.total_cmp(&other.0));
                    counters.entry(series).or_default().within = within;
                }
                (DRIFTED, Value::Untyped(count) | Value::Counter(count)) => {
                    counters.entry(series).or_default().drifted += *count as u64;
                }
                (REQUESTS, Value::Untyped(count) | Value::Counter(count)) if FAULTS.contains(&label("code")) => {
                    counters.entry(series).or_default().errors += *count as u64;
                }
                _ => {}
            }
        }
        Self(counters)
    }

    /// A counter never falls: a router that counts less has started anew.
    fn began_after(&self, old: &Self) -> bool {
        old.0.iter().any(|(series, old)| {
            let new = self.0.get(series);
            new.is_none_or(|new| new.answered() < old.answered() || new.errors < old.errors)
        })
    }
}

/// The readings of five minutes, and the one before.
#[derive(Debug, Default)]
pub struct Readings(VecDeque<(Instant, Counters)>);

impl Readings {
    pub fn push(&mut self, at: Instant, counters: Counters) {
        if self.0.back().is_some_and(|(_, last)| counters.began_after(last)) {
            self.0.clear();
        }
        self.0.push_back((at, counters));
        while self.0.get(1).is_some_and(|(second, _)| at.duration_since(*second) >= WINDOW) {
            self.0.pop_front();
        }
    }

    /// The router was not heard of, since `started` at the latest, for as long as is told of.
    pub fn is_stale(&self, started: Instant, now: Instant) -> bool {
        now.duration_since(self.0.back().map_or(started, |(last, _)| *last)) >= WINDOW
    }

    /// Whether they are of five minutes, and not of the time since a start.
    pub fn are_whole(&self) -> bool {
        let ends = self.0.front().zip(self.0.back());
        ends.is_some_and(|((from, _), (to, _))| to.duration_since(*from) >= WINDOW)
    }

    /// The busiest first; `None` until there are two readings.
    pub fn waited(&self) -> Option<Vec<ObservedModel>> {
        let ((from, old), (to, new)) = (self.0.front()?, self.0.back()?);
        let seconds = to.duration_since(*from).as_secs_f64();
        if seconds <= 0.0 {
            return None;
        }
        let mut rows: Vec<(u64, ObservedModel)> = new
            .0
            .iter()
            .filter_map(|(series, counted)| {
                let counted = counted.since(old.0.get(series));
                let requests = counted.answered() + counted.errors;
                let names = series.0.rsplit_once('.').filter(|_| requests > 0);
                // Until routes are loaded clients' inventions are counted, too.
                let (name, namespace) = names.filter(|(one, other)| one.len().max(other.len()) <= LONGEST_NAME)?;
                let (name, namespace, tier) = (name.to_owned(), namespace.to_owned(), series.1);
                let (waited, drifted) = (told(&counted, requests as f64 / seconds), whole(counted.drifted));
                Some((requests, ObservedModel { namespace, name, tier, waited, drifted }))
            })
            .collect();
        rows.sort_by_key(|(requests, _)| std::cmp::Reverse(*requests));
        Some(rows.into_iter().map(|(_, row)| row).take(MOST).collect())
    }
}

fn told(counted: &Counted, per_second: f64) -> Waited {
    let answered = counted.answered();
    Waited {
        p50: counted.quantile(50).map(duration_text),
        p99: counted.quantile(99).filter(|_| answered >= P99_FROM).map(duration_text),
        count: whole(answered),
        errors: whole(counted.errors),
        rps: rate(per_second),
    }
}

/// Two digits.
fn whole(count: u64) -> i64 {
    i64::try_from(two_digits(count)).unwrap_or(i64::MAX)
}

/// Two digits, down to a hundredth.
fn rate(per_second: f64) -> Amount {
    Amount::of_millis(10 * two_digits((per_second * 100.0).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::{EncodeLabelSet, text::encode};
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
    use prometheus_client::registry::{Registry, Unit};

    #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
    struct Place {
        model: &'static str,
        tier: &'static str,
    }

    #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
    struct Outcome {
        model: &'static str,
        tier: &'static str,
        code: &'static str,
    }

    /// As the router counts.
    struct Router {
        drifted: Family<Place, Counter>,
        requests: Family<Outcome, Counter>,
        waited: Family<Place, Histogram, fn() -> Histogram>,
    }

    impl Router {
        fn new() -> Self {
            let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(100e-6, 1.2, 75));
            Self {
                drifted: Family::default(),
                requests: Family::default(),
                waited: Family::new_with_constructor(histogram),
            }
        }

        fn answers(&self, tier: &'static str, ms: impl IntoIterator<Item = u32>) {
            let waited = self.waited.get_or_create(&Place { model: "digits.vision", tier });
            ms.into_iter().for_each(|ms| waited.observe(f64::from(ms) / 1e3));
        }

        fn refuses(&self, tier: &'static str, code: &'static str, times: u64) {
            self.requests.get_or_create(&Outcome { model: "digits.vision", tier, code }).inc_by(times);
        }

        fn counters(&self) -> Counters {
            let mut registry = Registry::default();
            registry.register_with_unit("sconce_router_request", "waits", Unit::Seconds, self.waited.clone());
            registry.register("sconce_router_requests", "requests", self.requests.clone());
            registry.register("sconce_router_requests_drifted", "drifts", self.drifted.clone());
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            Counters::read(&text)
        }
    }

    #[test]
    fn answers_of_a_model_that_drifts_are_told_for_as_long_as_they_come() {
        let (router, start, mut readings) = (Router::new(), Instant::now(), Readings::default());
        readings.push(start, router.counters());
        let drifted = router.drifted.get_or_create(&Place { model: "digits.vision", tier: "Edge" });
        for minute in 1..=12 {
            router.answers("Edge", [2; 100]);
            drifted.inc_by(if minute <= 3 { 50 } else { 0 });
            readings.push(after(start, 60 * minute), router.counters());
            let told = readings.waited().unwrap().remove(0).drifted;
            assert_eq!(told > 0, minute <= 7, "minute {minute}: {told}");
        }
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn what_lies_between_two_readings_is_told() {
        let (router, start, mut readings) = (Router::new(), Instant::now(), Readings::default());
        router.answers("Edge", [500; 1000]);
        readings.push(start, router.counters());
        assert_eq!(readings.waited(), None);
        router.answers("Edge", (1..=1000).map(|index| if index <= 980 { 3 } else { 40 }));
        router.refuses("none", "Unavailable", 7);
        router.refuses("Edge", "InvalidArgument", 90);
        readings.push(after(start, 100), router.counters());
        let waited = readings.waited().unwrap();
        let [edge, nobody] = &waited[..] else { panic!("{waited:?}") };
        assert_eq!((edge.name.as_str(), edge.namespace.as_str(), edge.tier), ("digits", "vision", Some(Tier::Edge)));
        assert_eq!((edge.waited.count, edge.waited.errors, edge.waited.rps.0.as_str()), (1000, 0, "10"));
        let ms = |text: &Option<sconce_api::DurationText>| text.as_ref().unwrap().parse().unwrap().as_secs_f64() * 1e3;
        assert!((2.2..4.2).contains(&ms(&edge.waited.p50)), "{edge:?}");
        assert!((28.0..56.0).contains(&ms(&edge.waited.p99)), "{edge:?}");
        assert_eq!((nobody.tier, nobody.waited.count, nobody.waited.errors), (None, 0, 7));
        assert_eq!((nobody.waited.p50.clone(), nobody.waited.rps.0.as_str()), (None, "0.07"));
    }

    #[test]
    fn what_is_older_than_five_minutes_is_forgotten() {
        let (router, start, mut readings) = (Router::new(), Instant::now(), Readings::default());
        readings.push(start, router.counters());
        router.answers("Cloud", [45; 200]);
        for minute in 1..=6 {
            readings.push(after(start, 60 * minute), router.counters());
            assert_eq!(readings.waited().unwrap().len(), usize::from(minute <= 5), "minute {minute}");
        }
        assert!(!readings.is_stale(start, after(start, 600)) && readings.is_stale(start, after(start, 660)));
        assert!(readings.are_whole() && Readings::default().is_stale(start, after(start, 300)));
    }

    #[test]
    fn few_answers_tell_no_tail() {
        let (router, start, mut readings) = (Router::new(), Instant::now(), Readings::default());
        readings.push(start, router.counters());
        router.answers("Edge", [2; 99]);
        readings.push(after(start, 15), router.counters());
        let waited = readings.waited().unwrap().remove(0).waited;
        assert!(waited.p50.is_some() && waited.p99.is_none(), "{waited:?}");
    }

    #[test]
    fn a_router_that_started_anew_is_counted_anew() {
        let (router, start, mut readings) = (Router::new(), Instant::now(), Readings::default());
        router.answers("Edge", [2; 500]);
        readings.push(start, router.counters());
        let anew = Router::new();
        anew.answers("Edge", [2; 300]);
        readings.push(after(start, 15), anew.counters());
        assert_eq!(readings.waited(), None);
        anew.answers("Edge", [2; 100]);
        readings.push(after(start, 30), anew.counters());
        assert_eq!(readings.waited().unwrap()[0].waited.count, 100);
    }

    #[test]
    fn what_is_no_metrics_tells_nothing() {
        for text in ["", "no metrics", "sconce_router_request", "sconce_router_requests_total{model=\"a.b\"} x"] {
            assert_eq!(Counters::read(text), Counters::default(), "{text}");
        }
    }
}
