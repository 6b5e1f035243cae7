//! When to run how many: pure, with time as an argument.
//!
//! Without a delay a batch never waits while the engine is idle: what is there, runs. While it is busy the queue fills, and the
//! next batch takes all of it, up to the limit. A delay trades latency for larger batches, but never a deadline. Late requests
//! are dropped before they cost compute.

use std::time::{Duration, Instant};

/// A request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub rows: usize,
    pub arrived: Instant,
    pub deadline: Option<Instant>,
    /// Nobody waits for the answer any more.
    pub abandoned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub max_batch_size: usize,
    /// How long the oldest request may wait for others to join it.
    pub max_queue_delay: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Requests to take from the head of the queue, in order: each runs, or is dropped.
    Take(Vec<Fate>),
    /// Ask again when somebody arrives, and then at the latest.
    Wait(Instant),
    /// Ask again when somebody arrives, or when the engine is free.
    Idle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Run,
    Late,
    Abandoned,
}

/// What becomes of the requests at the head of the queue.
pub fn next(queue: impl IntoIterator<Item = Waiting>, busy: bool, policy: &Policy, now: Instant) -> Decision {
    if busy {
        return Decision::Idle;
    }
    let mut take = Vec::new();
    let mut rows = 0;
    // When the batch has to run although others might join it.
    let mut until: Option<Instant> = None;
    let mut full = false;
    for waiting in queue {
        let fate = match waiting {
            Waiting { abandoned: true, .. } => Fate::Abandoned,
            Waiting { deadline: Some(deadline), .. } if deadline <= now => Fate::Late,
            Waiting { rows: more, .. } if rows > 0 && rows + more > policy.max_batch_size => {
                full = true;
                break;
            }
            Waiting { rows: more, arrived, deadline, .. } => {
                rows += more;
                let patience = arrived + policy.max_queue_delay;
                // A deadline within the delay: how long the model needs is not known here, so it does not wait at all.
                let patience = if deadline.is_some_and(|deadline| deadline <= patience) { now } else { patience };
                until = Some(until.map_or(patience, |until| until.min(patience)));
                Fate::Run
            }
        };
        take.push(fate);
    }
    match until {
        _ if take.is_empty() => Decision::Idle,
        Some(until) if !full && rows < policy.max_batch_size && until > now => Decision::Wait(until),
        _ => Decision::Take(take),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: i64) -> Instant {
        let distance = Duration::from_millis(ms.unsigned_abs());
        if ms < 0 { start - distance } else { start + distance }
    }

    #[test]
    fn what_waits_runs_up_to_the_limit_and_late_work_is_dropped() {
        let now = Instant::now();
        let policy = Policy { max_batch_size: 4, max_queue_delay: Duration::ZERO };
        let check = |queue: &[(usize, Option<i64>, bool)], expected: &[Fate]| {
            let queue = queue.iter().map(|&(rows, left, abandoned)| Waiting {
                rows,
                arrived: now,
                deadline: left.map(|ms| at(now, ms)),
                abandoned,
            });
            assert_eq!(next(queue, false, &policy, now), Decision::Take(expected.to_vec()));
        };
        use Fate::{Abandoned, Late, Run};
        check(&[(1, None, false)], &[Run]);
        check(&[(1, None, false); 6], &[Run; 4]);
        check(&[(3, None, false), (2, None, false), (1, None, false)], &[Run]);
        check(
            &[(1, Some(-1), false), (1, Some(5), false), (1, Some(5), true), (3, None, false)],
            &[Late, Run, Abandoned, Run],
        );
        check(&[(1, Some(0), false)], &[Late]);
    }

    #[test]
    fn a_delay_waits_for_others_but_not_for_long_and_not_over_a_deadline() {
        let now = Instant::now();
        let policy = Policy { max_batch_size: 4, max_queue_delay: Duration::from_millis(2) };
        let one = Waiting { rows: 1, arrived: at(now, -1), deadline: None, abandoned: false };
        let check = |queue: &[Waiting], busy: bool, expected: Decision| {
            assert_eq!(next(queue.iter().copied(), busy, &policy, now), expected, "{queue:?}");
        };
        check(&[], false, Decision::Idle);
        check(&[one; 6], true, Decision::Idle);
        check(&[one, Waiting { arrived: now, ..one }], false, Decision::Wait(at(now, 1)));
        check(&[one; 4], false, Decision::Take(vec![Fate::Run; 4]));
        check(&[one, Waiting { rows: 4, ..one }], false, Decision::Take(vec![Fate::Run]));
        check(&[Waiting { arrived: at(now, -2), ..one }], false, Decision::Take(vec![Fate::Run]));
        check(&[Waiting { deadline: Some(at(now, 1)), ..one }], false, Decision::Take(vec![Fate::Run]));
        check(&[Waiting { deadline: Some(at(now, 9)), ..one }], false, Decision::Wait(at(now, 1)));
        check(&[Waiting { abandoned: true, ..one }], false, Decision::Take(vec![Fate::Abandoned]));
    }
}
