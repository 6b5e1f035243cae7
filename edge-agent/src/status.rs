//! What the EdgeNode's status says, and when that is worth a write. Pure.

use crate::link::Link;
use crate::round::{duration_text, moved, two_digits};
use crate::window::P99_FROM;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use sconce_api::{Basis, DurationText, EdgeNodeStatus, Hardware, NodeLink, Reason, RoundTrip};
use std::time::Duration;
use tokio::time::Instant;

/// Without an answer for this long, the cloud tier counts as not reached.
const CONTACT: Duration = Duration::from_secs(30);
/// Between two writes, except the first and those that change Ready.
const APART: Duration = Duration::from_secs(60);

/// Whether the first status may be told: 500 probes are done, or the cloud tier has been silent for 30 s.
pub fn complete(link: &Link, started: Instant, now: Instant) -> bool {
    let silent = now.duration_since(link.contact.unwrap_or(started)) >= CONTACT;
    silent || link.round_trip.is_some_and(|round_trip| round_trip.samples >= P99_FROM)
}

/// The status to write over `old`, or `None` if nothing has changed by enough, or the last write was just now.
pub fn next(
    old: Option<&EdgeNodeStatus>,
    hardware: &Hardware,
    link: &Link,
    written: Option<Instant>,
    now: Instant,
    clock: Time,
) -> Option<EdgeNodeStatus> {
    let old_ready = old.and_then(|old| old.conditions.iter().find(|condition| condition.type_ == "Ready"));
    let measured = link.round_trip.map(|round_trip| NodeLink {
        round_trip: RoundTrip {
            p50: duration_text(round_trip.p50),
            p99: round_trip.p99.map(duration_text),
            samples: two_digits(round_trip.samples as u64) as i64,
            basis: Basis::Measured,
        },
    });
    let contact = link.contact.is_some_and(|contact| now.duration_since(contact) < CONTACT);
    let new = EdgeNodeStatus {
        observed_generation: None,
        hardware: Some(hardware.clone()),
        // Not reached since this start: what was measured before stays.
        link: measured.or_else(|| old.and_then(|old| old.link.clone())),
        conditions: vec![ready(contact, old_ready, clock)],
    };
    let ready_changed = old_ready.is_none_or(|ready| ready.status != new.conditions[0].status);
    let due = written.is_none_or(|written| now.duration_since(written) >= APART);
    let changed = old.is_none_or(|old| {
        hardware_changed(old.hardware.as_ref(), hardware) || link_moved(old.link.as_ref(), new.link.as_ref())
    });
    (ready_changed || (changed && due)).then_some(new)
}

fn ready(contact: bool, old: Option<&Condition>, clock: Time) -> Condition {
    let (status, reason, message) = if contact {
        ("True", Reason::Ready, "hardware and link are measured")
    } else {
        ("False", Reason::NoContact, "the Service sconce-cloud does not answer; the link is as it was last measured")
    };
    let since = old.filter(|old| old.status == status).map(|old| old.last_transition_time.clone());
    Condition {
        type_: "Ready".into(),
        status: status.into(),
        reason: reason.to_string(),
        message: message.into(),
        observed_generation: None,
        last_transition_time: since.unwrap_or(clock),
    }
}

/// The speed of a core jitters from start to start; all else is as it is.
fn hardware_changed(old: Option<&Hardware>, new: &Hardware) -> bool {
    old.is_none_or(|old| {
        let same_speed = Hardware { gflops: old.gflops, ..new.clone() };
        *old != same_speed || moved(old.gflops.max(0) as u64, new.gflops.max(0) as u64)
    })
}

/// A quarter is a change; so is a number that was not there.
fn link_moved(old: Option<&NodeLink>, new: Option<&NodeLink>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return old != new };
    let (old, new) = (&old.round_trip, &new.round_trip);
    let micros = |text: &DurationText| text.parse().map_or(0, |duration| duration.as_micros() as u64);
    let p99 = match (&old.p99, &new.p99) {
        (Some(old), Some(new)) => moved(micros(old), micros(new)),
        (old, new) => old != new,
    };
    p99 || moved(micros(&old.p50), micros(&new.p50)) || moved(old.samples as u64, new.samples as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Summary;
    use k8s_openapi::jiff::Timestamp;

    const STARTED: Duration = Duration::from_secs(1000);

    fn hardware() -> Hardware {
        Hardware {
            class: "amd64-avx2-2".into(),
            architecture: "amd64".into(),
            isa: vec!["avx2".into()],
            gflops: 60,
            cpu_model: "a processor".into(),
            cores: 2,
            memory: "3900Mi".into(),
        }
    }

    fn link(p50_ms: u64, p99_ms: u64, samples: usize, contact: Instant) -> Link {
        let round_trip = Summary {
            p50: Duration::from_millis(p50_ms),
            p99: (samples >= P99_FROM).then_some(Duration::from_millis(p99_ms)),
            samples,
        };
        Link { round_trip: Some(round_trip), contact: Some(contact) }
    }

    fn clock(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn the_first_status_says_all_that_was_measured() {
        let now = Instant::now();
        let status = next(None, &hardware(), &link(22, 41, 500, now), None, now, clock(7)).unwrap();
        let expected = EdgeNodeStatus {
            observed_generation: None,
            hardware: Some(hardware()),
            link: Some(NodeLink {
                round_trip: RoundTrip {
                    p50: "22ms".into(),
                    p99: Some("41ms".into()),
                    samples: 500,
                    basis: Basis::Measured,
                },
            }),
            conditions: vec![Condition {
                type_: "Ready".into(),
                status: "True".into(),
                reason: "Ready".into(),
                message: "hardware and link are measured".into(),
                observed_generation: None,
                last_transition_time: clock(7),
            }],
        };
        assert_eq!(status, expected);
    }

    #[test]
    fn the_first_status_waits_for_the_first_burst_or_for_silence() {
        let started = Instant::now();
        let after = |seconds| started + Duration::from_secs(seconds);
        assert!(!complete(&Link::default(), started, after(29)));
        assert!(complete(&Link::default(), started, after(30)));
        assert!(!complete(&link(200, 0, 480, after(90)), started, after(91)));
        assert!(complete(&link(200, 210, 500, after(90)), started, after(91)));
        assert!(complete(&link(200, 0, 480, after(90)), started, after(120)));
    }

    #[test]
    fn jitter_is_no_change() {
        let now = Instant::now() + STARTED;
        let old = next(None, &hardware(), &link(20, 40, 4096, now), None, now, clock(7)).unwrap();
        let write = |p50, p99, samples| {
            next(Some(&old), &hardware(), &link(p50, p99, samples, now), None, now, clock(8)).is_some()
        };
        assert!(!write(20, 40, 4096));
        assert!(!write(24, 49, 4096));
        assert!(write(25, 40, 4096));
        assert!(write(20, 50, 4096));
        assert!(write(20, 30, 4096));
        assert!(write(20, 40, 480), "p99 is not told any more");
    }

    #[test]
    fn a_core_is_not_timed_alike_twice() {
        let now = Instant::now() + STARTED;
        let link = link(20, 40, 500, now);
        let old = next(None, &hardware(), &link, None, now, clock(7)).unwrap();
        let write = |new: Hardware| next(Some(&old), &new, &link, None, now, clock(8)).is_some();
        assert!(!write(Hardware { gflops: 70, ..hardware() }));
        assert!(write(Hardware { gflops: 75, ..hardware() }));
        assert!(write(Hardware { cores: 4, ..hardware() }));
    }

    #[test]
    fn writes_are_a_minute_apart_unless_ready_changes() {
        let now = Instant::now() + STARTED;
        let old = next(None, &hardware(), &link(20, 40, 500, now), None, now, clock(7)).unwrap();
        let written = |seconds| Some(now - Duration::from_secs(seconds));
        let slower = link(60, 90, 500, now);
        assert_eq!(next(Some(&old), &hardware(), &slower, written(59), now, clock(8)), None);
        assert!(next(Some(&old), &hardware(), &slower, written(60), now, clock(8)).is_some());

        let silent = link(20, 40, 500, now - CONTACT);
        let lost = next(Some(&old), &hardware(), &silent, written(1), now, clock(9)).unwrap();
        assert_eq!(lost.link, old.link);
        assert_eq!(
            (lost.conditions[0].reason.as_str(), &lost.conditions[0].last_transition_time),
            ("NoContact", &clock(9))
        );
    }

    #[test]
    fn a_restarted_agent_without_contact_keeps_the_last_link_and_since_when() {
        let now = Instant::now() + STARTED;
        let old = next(None, &hardware(), &link(20, 40, 500, now), None, now, clock(7)).unwrap();
        let lost = next(Some(&old), &hardware(), &Link::default(), None, now, clock(9)).unwrap();
        assert_eq!(lost.link, old.link);
        assert_eq!(next(Some(&lost), &hardware(), &Link::default(), None, now, clock(10)), None);
        let faster = Hardware { gflops: 80, ..hardware() };
        let again = next(Some(&lost), &faster, &Link::default(), None, now, clock(11)).unwrap();
        assert_eq!(again.conditions, lost.conditions);
    }
}
