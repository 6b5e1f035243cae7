//! When to run how many: pure, with time as an argument.
//!
//! Without a delay a batch never waits while the engine is idle: what is there, runs. While it is busy the queue fills, and the
//! next batch takes all of it, up to the limit. A delay trades latency for larger batches, but never a deadline. Late requests
//! are dropped before they cost compute. The more urgent run first, equals in the order in which they came: nothing else bounds
//! how long the less urgent wait but their own timeouts.

use std::time::{Duration, Instant};

/// How urgent a request can be: from 1, the most urgent, to this.
pub const LEVELS: u8 = 3;
/// How urgent a request is that does not say it.
pub const DEFAULT_LEVEL: u8 = 2;

/// The level of a request that asks for `priority`: 0 is the default, beyond the last is the last.
pub fn level(priority: u64) -> u8 {
    match u8::try_from(priority) {
        Ok(0) => DEFAULT_LEVEL,
        Ok(level) => level.min(LEVELS),
        Err(_) => LEVELS,
    }
}

/// How many of the queue stay before a newcomer of this level. `levels` are those of the queue, from its head; it is in order.
pub fn place(levels: impl DoubleEndedIterator<Item = u8> + ExactSizeIterator, level: u8) -> usize {
    levels.len() - levels.rev().take_while(|other| *other > level).count()
}

/// A request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// What it adds to a batch.
    pub rows: usize,
    /// When it came into the queue.
    pub arrived: Instant,
    /// When its client waits no longer.
    pub deadline: Option<Instant>,
    /// Until when it may wait in the queue.
    pub expires: Option<Instant>,
    /// Nobody waits for the answer any more.
    pub abandoned: bool,
}

/// What is decided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Rows that run at once, at most.
    pub max_batch_size: usize,
    /// How long the oldest request may wait for others to join it.
    pub max_queue_delay: Duration,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Requests to take from the head of the queue, in order: each runs, or is dropped.
    Take(Vec<Fate>),
    /// Ask again when somebody arrives, and then at the latest.
    Wait(Instant),
    /// Ask again when somebody arrives, or when the engine is free.
    Idle,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is part of the batch.
    Run,
    /// Its deadline has passed.
    Late,
    /// It has waited for longer than it may.
    Expired,
    /// Nobody waits for the answer.
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
            Waiting { expires: Some(expires), .. } if expires <= now => Fate::Expired,
            Waiting { rows: more, .. } if rows > 0 && rows + more > policy.max_batch_size => {
                full = true;
                break;
            }
            Waiting { rows: more, arrived, deadline, expires, .. } => {
                rows += more;
                let patience = arrived.checked_add(policy.max_queue_delay).unwrap_or(now);
                // A deadline within the delay: how long the model needs is not known here, so it does not wait at all.
                let within = |limit: Option<Instant>| limit.is_some_and(|limit| limit <= patience);
                let patience = if within(deadline) || within(expires) { now } else { patience };
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
                expires: None,
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
        let one = Waiting { rows: 1, arrived: at(now, -1), deadline: None, expires: None, abandoned: false };
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
        check(&[Waiting { expires: Some(at(now, 1)), ..one }], false, Decision::Take(vec![Fate::Run]));
        check(&[Waiting { abandoned: true, ..one }], false, Decision::Take(vec![Fate::Abandoned]));
    }

    #[test]
    fn what_has_waited_for_longer_than_it_may_is_dropped_before_it_costs_compute() {
        let now = Instant::now();
        let policy = Policy { max_batch_size: 2, max_queue_delay: Duration::ZERO };
        let one = Waiting { rows: 1, arrived: at(now, -9), deadline: None, expires: None, abandoned: false };
        let may_wait = |ms: i64| Waiting { expires: Some(at(one.arrived, ms)), ..one };
        let queue = [may_wait(8), one, may_wait(9), may_wait(10), one];
        let expected = vec![Fate::Expired, Fate::Run, Fate::Expired, Fate::Run];
        assert_eq!(next(queue, false, &policy, now), Decision::Take(expected));
        assert_eq!(next(queue, true, &policy, now), Decision::Idle);
        // A moment earlier one of them was in time.
        let expected = vec![Fate::Expired, Fate::Run, Fate::Run];
        assert_eq!(next(queue, false, &policy, at(now, -1)), Decision::Take(expected));
        // Whose client is gone hears nothing; a deadline says more than a timeout.
        let late = Waiting { deadline: Some(now), ..may_wait(1) };
        let gone = Waiting { abandoned: true, ..may_wait(1) };
        assert_eq!(next([late, gone], false, &policy, now), Decision::Take(vec![Fate::Late, Fate::Abandoned]));
    }

    #[test]
    fn the_more_urgent_go_before_the_less_urgent_and_behind_their_equals() {
        let check = |queue: &[u8], priority: u64, expected: usize| {
            assert_eq!(place(queue.iter().copied(), level(priority)), expected, "{queue:?} {priority}");
        };
        check(&[], 1, 0);
        check(&[1, 1, 2, 2, 3], 1, 2);
        check(&[1, 1, 2, 2, 3], 2, 4);
        check(&[1, 1, 2, 2, 3], 0, 4);
        check(&[1, 1, 2, 2, 3], 3, 5);
        check(&[2, 3], u64::MAX, 2);
        assert_eq!([0, 1, 2, 3, 4, 300].map(level), [2, 1, 2, 3, 3, 3]);
    }
}
