//! When to run how many: pure, with time as an argument.
//!
//! A batch never waits while the engine is idle: what is there, runs. While it is busy the queue fills, and the next batch takes
//! all of it, up to the limit. Late requests are dropped before they cost compute.

use std::time::Instant;

/// A request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub rows: usize,
    pub deadline: Option<Instant>,
    /// Nobody waits for the answer any more.
    pub abandoned: bool,
}

/// What becomes of the requests at the head of the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Requests to take from the head of the queue, in order: each runs, or is dropped.
    pub take: Vec<Fate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Run,
    Late,
    Abandoned,
}

/// Asked by an idle engine.
pub fn next(queue: impl IntoIterator<Item = Waiting>, max_batch_size: usize, now: Instant) -> Decision {
    let mut rows = 0;
    let mut take = Vec::new();
    for waiting in queue {
        let fate = match waiting {
            Waiting { abandoned: true, .. } => Fate::Abandoned,
            Waiting { deadline: Some(deadline), .. } if deadline <= now => Fate::Late,
            Waiting { rows: more, .. } if rows > 0 && rows + more > max_batch_size => break,
            Waiting { rows: more, .. } => {
                rows += more;
                Fate::Run
            }
        };
        take.push(fate);
    }
    Decision { take }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_waits_runs_up_to_the_limit_and_late_work_is_dropped() {
        let now = Instant::now();
        let check = |queue: &[(usize, Option<i64>, bool)], expected: &[Fate]| {
            let queue = queue.iter().map(|&(rows, left, abandoned)| {
                let deadline = left.map(|ms| {
                    if ms < 0 {
                        now - Duration::from_millis(ms.unsigned_abs())
                    } else {
                        now + Duration::from_millis(ms as u64)
                    }
                });
                Waiting { rows, deadline, abandoned }
            });
            assert_eq!(next(queue, 4, now).take, expected);
        };
        use Fate::{Abandoned, Late, Run};
        check(&[], &[]);
        check(&[(1, None, false)], &[Run]);
        check(&[(1, None, false); 6], &[Run; 4]);
        check(&[(3, None, false), (2, None, false), (1, None, false)], &[Run]);
        check(
            &[(1, Some(-1), false), (1, Some(5), false), (1, Some(5), true), (3, None, false)],
            &[Late, Run, Abandoned, Run],
        );
        check(&[(1, Some(0), false)], &[Late]);
    }
}
