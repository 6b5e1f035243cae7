//! What is told, and when.

use super::*;
use crate::profiles::Standing;
use crate::window::P99_FROM;
use k8s_openapi::jiff::Timestamp;
use sconce_api::Waited;

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

fn link(p50_ms: u64, p99_ms: u64, samples: usize) -> Link {
    let round_trip = Summary {
        p50: Duration::from_millis(p50_ms),
        p99: (samples >= P99_FROM).then_some(Duration::from_millis(p99_ms)),
        samples,
    };
    Link { round_trip: Some(round_trip), contact: None }
}

/// Nothing else is known yet.
fn measured<'a>(hardware: &'a Hardware, link: &'a Link) -> Measured<'a> {
    const SILENT: &Link = &Link { round_trip: None, contact: None };
    Measured { hardware, link, local: SILENT, uplink: None, usage: None, profiles: None, waits: None }
}

/// Of a router that says nothing yet.
fn next(
    old: Option<&EdgeNodeStatus>,
    hardware: &Hardware,
    link: &Link,
    cloud: Cloud,
    last_write: Option<Duration>,
    clock: Time,
) -> Option<EdgeNodeStatus> {
    super::next(old, measured(hardware, link), cloud, last_write, clock)
}

fn clock(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

fn first(link: &Link, cloud: Cloud) -> EdgeNodeStatus {
    next(None, &hardware(), link, cloud, None, clock(7)).unwrap()
}

#[test]
fn the_hardware_is_told_while_the_link_is_probed() {
    let probing = first(&link(22, 0, 480), Cloud::Probing);
    assert_eq!((&probing.hardware, &probing.link), (&Some(hardware()), &None));
    assert_eq!((probing.conditions[0].status.as_str(), probing.conditions[0].reason.as_str()), ("False", "Probing"));

    let just_now = Some(Duration::from_secs(1));
    let probed = next(Some(&probing), &hardware(), &link(22, 41, 500), Cloud::Answers, just_now, clock(8)).unwrap();
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
            uplink: None,
        }),
        local_round_trip: None,
        usage: None,
        profiles: Vec::new(),
        models: Vec::new(),
        collect: Vec::new(),
        conditions: vec![Condition {
            type_: "Ready".into(),
            status: "True".into(),
            reason: "Ready".into(),
            message: "hardware and link are measured".into(),
            observed_generation: None,
            last_transition_time: clock(8),
        }],
    };
    assert_eq!(probed, expected);
}

#[test]
fn the_cloud_is_probed_then_answers_until_it_is_silent() {
    let started = Instant::now();
    let after = |seconds| started + Duration::from_secs(seconds);
    let at = |contact, link: Link, now| Cloud::of(&Link { contact, ..link }, started, after(now));
    assert_eq!(at(None, Link::default(), 29), Cloud::Probing);
    assert_eq!(at(None, Link::default(), 30), Cloud::Silent);
    assert_eq!(at(Some(after(90)), link(200, 0, 480), 91), Cloud::Probing);
    assert_eq!(at(Some(after(90)), link(200, 210, 500), 91), Cloud::Answers);
    assert_eq!(at(Some(after(90)), link(200, 210, 500), 120), Cloud::Silent);
}

#[test]
fn jitter_is_no_change() {
    let old = first(&link(20, 40, 4096), Cloud::Answers);
    let write = |p50, p99, samples| {
        next(Some(&old), &hardware(), &link(p50, p99, samples), Cloud::Answers, None, clock(8)).is_some()
    };
    assert!(!write(20, 40, 4096));
    assert!(!write(24, 49, 4096));
    assert!(write(25, 40, 4096));
    assert!(write(20, 50, 4096));
    assert!(write(20, 30, 4096));
    assert!(!write(90, 0, 480), "what was measured before stands until enough is measured anew");
}

#[test]
fn what_clients_wait_is_told_when_it_moves() {
    let (hardware, link) = (hardware(), link(20, 40, 500));
    let row = |p99: &str, count| ObservedModel {
        namespace: "vision".into(),
        name: "digits".into(),
        tier: Some(sconce_api::Tier::Edge),
        waited: Waited { p50: Some("2ms".into()), p99: Some(p99.into()), count, errors: 0, rps: "5".into() },
        drifted: 0,
    };
    let write = |old: &EdgeNodeStatus, rows: Option<Vec<ObservedModel>>, is_whole| {
        let waits = rows.map(|rows| crate::router::Waited { rows, is_whole });
        let measured = Measured { waits, ..measured(&hardware, &link) };
        super::next(Some(old), measured, Cloud::Answers, None, clock(8))
    };
    let first = write(&first(&link, Cloud::Answers), Some(vec![row("4ms", 1500)]), false).unwrap();
    assert_eq!(first.models.len(), 1);
    assert_eq!(write(&first, Some(vec![row("5900us", 1300)]), true), None);
    assert!(write(&first, Some(vec![row("6ms", 1500)]), true).is_some());
    assert!(write(&first, Some(vec![row("4ms", 1000)]), true).is_some());
    assert_eq!(write(&first, Some(vec![row("4ms", 75)]), false), None, "since a start: not yet five minutes");
    assert!(write(&first, Some(vec![row("4ms", 2500)]), false).is_some(), "but already more");
    assert_eq!(write(&first, None, false), None, "a restarted agent goes on from what was told");
    assert_eq!(write(&first, Some(Vec::new()), true).unwrap().models, []);
}

#[test]
fn an_uplink_is_told_once_it_is_measured_and_then_stays() {
    let (hardware, link) = (hardware(), link(20, 40, 500));
    let write = |old: &EdgeNodeStatus, uplink| {
        let measured = Measured { uplink, ..measured(&hardware, &link) };
        super::next(Some(old), measured, Cloud::Answers, None, clock(8))
    };
    let uplink = |status: &EdgeNodeStatus| status.link.as_ref().and_then(|link| link.uplink.clone());
    let old = first(&link, Cloud::Answers);
    assert_eq!((uplink(&old), write(&old, None)), (None, None));
    let told = write(&old, Some(9_440_000)).unwrap();
    assert_eq!(uplink(&told), Some("9400k".into()));
    assert_eq!((write(&told, Some(10_900_000)), write(&told, None)), (None, None));
    assert_eq!(uplink(&write(&told, Some(2_000_000)).unwrap()), Some("2M".into()));
}

fn profile(variant: &str) -> NodeProfile {
    let batch = sconce_api::BatchTime { size: 1, p50: "1ms".into(), p99: "2ms".into(), samples: Some(90) };
    let digest = format!("sha256:{}", "a".repeat(64));
    NodeProfile { digest, variant: variant.into(), threads: 1, batches: vec![batch] }
}

#[test]
fn profiles_are_told_at_once_when_all_are_measured_and_are_void_on_another_class() {
    let (hardware, link) = (hardware(), link(20, 40, 500));
    let just_now = Some(Duration::from_secs(1));
    let write = |old: &EdgeNodeStatus, hardware: &Hardware, profiles: Option<&Profiles>| {
        let measured = Measured { profiles, ..measured(hardware, &link) };
        super::next(Some(old), measured, Cloud::Answers, just_now, clock(8))
    };
    let standing = |measured, failure: Option<&str>| Standing {
        asked: 2,
        measured,
        failed: usize::from(failure.is_some()),
        failure: failure.map(Into::into),
    };
    let known = |rows: &[NodeProfile], standing| Profiles { rows: rows.to_vec(), standing, ..Profiles::default() };
    let says = |status: &EdgeNodeStatus| {
        let profiled = condition(&status.conditions, "Profiled").unwrap();
        format!("{}/{}: {}", profiled.status, profiled.reason, profiled.message)
    };
    let first = first(&link, Cloud::Answers);
    let begun = write(&first, &hardware, Some(&known(&[], standing(0, None)))).unwrap();
    assert_eq!(says(&begun), "False/Profiling: 0 of 2 variants that may run here are measured");
    assert_eq!(write(&begun, &hardware, Some(&known(&[profile("f32")], standing(1, None)))), None, "soon all are");
    let both = [profile("f32"), profile("int8")];
    let done = write(&begun, &hardware, Some(&known(&both, standing(2, None)))).unwrap();
    assert_eq!((says(&done).as_str(), done.profiles.len()), ("True/Profiled: 2 variants are measured", 2));
    assert_eq!(write(&done, &hardware, None), None, "a restarted agent goes on from what was told");

    let failed = known(&both[..1], standing(1, Some("int8 of r/m: the node is too busy")));
    let said = says(&write(&begun, &hardware, Some(&failed)).unwrap());
    assert_eq!(
        said,
        "False/ProfileFailed: 1 of 2 variants cannot be measured, their estimates stand: int8 of r/m: the node is too busy"
    );
    let other = Hardware { class: "amd64-avx2-4".into(), cores: 4, ..hardware.clone() };
    let again = super::next(Some(&done), measured(&other, &link), Cloud::Answers, None, clock(9)).unwrap();
    assert_eq!(again.profiles, []);
}

#[test]
fn what_others_take_is_told_when_it_moves() {
    let (hardware, link) = (hardware(), link(20, 40, 500));
    let usage = |cpu: &str, memory: &str| Some(NodeUsage { cpu_busy_p95: cpu.into(), memory_used: memory.into() });
    let write = |old: &EdgeNodeStatus, usage| {
        let measured = Measured { usage, ..measured(&hardware, &link) };
        super::next(Some(old), measured, Cloud::Answers, None, clock(8))
    };
    let told = write(&first(&link, Cloud::Answers), usage("200m", "1200Mi")).unwrap();
    assert_eq!(write(&told, usage("290m", "1400Mi")), None, "a tenth of a core is the least");
    assert_eq!(write(&told, None), None);
    assert!(write(&told, usage("300m", "1200Mi")).is_some() && write(&told, usage("200m", "1500Mi")).is_some());
}

#[test]
fn a_core_is_not_timed_alike_twice() {
    let link = link(20, 40, 500);
    let old = first(&link, Cloud::Answers);
    let write = |new: Hardware| next(Some(&old), &new, &link, Cloud::Answers, None, clock(8)).is_some();
    assert!(!write(Hardware { gflops: 70, ..hardware() }));
    assert!(write(Hardware { gflops: 75, ..hardware() }));
    assert!(write(Hardware { cores: 4, ..hardware() }));
}

#[test]
fn writes_are_a_minute_apart_unless_ready_changes() {
    let old = first(&link(20, 40, 500), Cloud::Answers);
    let slower = |seconds| {
        let ago = Some(Duration::from_secs(seconds));
        next(Some(&old), &hardware(), &link(60, 90, 500), Cloud::Answers, ago, clock(8))
    };
    assert_eq!(slower(59), None);
    assert!(slower(60).is_some());

    let just_now = Some(Duration::from_secs(1));
    let lost = next(Some(&old), &hardware(), &link(20, 40, 500), Cloud::Silent, just_now, clock(9)).unwrap();
    assert_eq!(lost.link, old.link);
    let ready = &lost.conditions[0];
    assert_eq!((ready.reason.as_str(), &ready.last_transition_time), ("NoContact", &clock(9)));
}

#[test]
fn a_restarted_agent_goes_on_from_what_was_told() {
    let old = first(&link(20, 40, 500), Cloud::Answers);
    let restarted = |told: &EdgeNodeStatus, hardware: Hardware, cloud| {
        next(Some(told), &hardware, &Link::default(), cloud, None, clock(9))
    };
    assert_eq!(restarted(&old, hardware(), Cloud::Probing), None);
    let lost = restarted(&old, hardware(), Cloud::Silent).unwrap();
    assert_eq!(lost.link, old.link);
    let probing = Condition { reason: "Probing".into(), ..lost.conditions[0].clone() };
    let again = ready(Cloud::Probing, lost.conditions.first(), clock(10));
    assert_eq!((again.reason, again.last_transition_time), (probing.reason, probing.last_transition_time));
    let faster = Hardware { gflops: 80, ..hardware() };
    let again = restarted(&lost, faster, Cloud::Silent).unwrap();
    assert_eq!(again.conditions, lost.conditions, "since when it is so does not change");
}
