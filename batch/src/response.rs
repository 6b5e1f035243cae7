//! What a client waits for a model that serves by [`next`](crate::next), by load: looked up, between grid points
//! interpolated. Integers only, so that whoever plans by it has no ties by rounding.
//!
//! The table is made by `tests/table.rs`, which simulates the policy. One model serves alone; requests of one row come
//! independently of each other (Poisson); a batch of b takes S(b) = (a + c·b)·X, X log-normal with median 1.

use crate::table::RESPONSES;

/// One, in millionths.
pub const UNIT: u64 = 1_000_000;

/// Largest batches of the table.
pub const SIZES: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Shares of a single request's service time that a larger batch does not take again: a / (a + c), in millionths.
pub const GAINS: [u64; 6] = [0, 250_000, 500_000, 750_000, 900_000, 1_000_000];

/// How busy the model is when all its batches are full, in millionths: λ·S(B)/B.
pub const BUSY: [u64; 10] = [0, 20_000, 50_000, 100_000, 200_000, 300_000, 400_000, 500_000, 600_000, 700_000];

/// The p99 of a service time over its median, in millionths.
pub const TAILS: [u64; 4] = [1_000_000, 1_500_000, 2_000_000, 3_000_000];

/// Whom a response is asked for. Shares as in [`GAINS`], [`BUSY`] and [`TAILS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub max_batch_size: u64,
    pub gain: u64,
    pub busy: u64,
    pub tail: u64,
}

/// From a request's arrival until its batch is done, in millionths of the median service time of a single request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    pub p50: u64,
    pub p99: u64,
}

/// The response under a load. Beyond the table's ends its ends count: the caller looks after a model that is too busy, and
/// says how busy it is with the batch size of the table, [`Load::size`].
pub fn response(load: Load) -> Response {
    let size = SIZES.iter().rposition(|size| *size <= load.max_batch_size).unwrap_or(0);
    let gain = Between::new(&GAINS, load.gain);
    let busy = Between::new(&BUSY, load.busy);
    let tail = Between::new(&TAILS, load.tail);
    let of = |part: fn(&(u32, u32)) -> u32| {
        gain.mix(|g| busy.mix(|b| tail.mix(|t| u64::from(part(&RESPONSES[index(size, g, b, t)])))))
    };
    // The table is in thousandths.
    Response { p50: of(|pair| pair.0) * 1_000, p99: of(|pair| pair.1) * 1_000 }
}

impl Load {
    /// The table's largest batch that the policy may make. Where batches gain little a larger one waits longer: between two sizes
    /// of the table, as 31 that counts as 16, the response is told up to 1.6 times too short.
    pub fn size(max_batch_size: u64) -> u64 {
        SIZES.into_iter().rfind(|size| *size <= max_batch_size).unwrap_or(1)
    }
}

fn index(size: usize, gain: usize, busy: usize, tail: usize) -> usize {
    ((size * GAINS.len() + gain) * BUSY.len() + busy) * TAILS.len() + tail
}

/// A value between two points of an axis.
struct Between {
    below: usize,
    /// Of the way to the next point, in thousandths.
    way: u64,
}

impl Between {
    fn new(axis: &[u64], value: u64) -> Self {
        let below = axis.iter().rposition(|point| *point <= value).unwrap_or(0);
        let way = match axis.get(below + 1) {
            Some(above) => (value.saturating_sub(axis[below]) * 1_000).div_ceil(above - axis[below]),
            None => 0,
        };
        Self { below, way }
    }

    fn mix(&self, at: impl Fn(usize) -> u64) -> u64 {
        match self.way {
            0 => at(self.below),
            way => (at(self.below) * (1_000 - way) + at(self.below + 1) * way).div_ceil(1_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load { max_batch_size: 1, gain: 0, busy: 0, tail: UNIT };

    #[test]
    fn who_is_alone_waits_for_nobody() {
        for tail in TAILS {
            let Response { p50, p99 } = response(Load { tail, ..LOAD });
            assert!(p50.abs_diff(UNIT) < 10_000 && p99.abs_diff(tail) < tail / 20, "{tail}: {p50} {p99}");
        }
    }

    #[test]
    fn between_two_points_the_response_is_between_theirs() {
        let at = |busy| response(Load { busy, tail: 1_250_000, ..LOAD }).p99;
        assert!(at(200_000) < at(250_000) && at(250_000) < at(300_000));
        assert_eq!(at(700_000), at(u64::MAX));
    }

    #[test]
    fn a_size_between_two_of_the_table_counts_as_the_smaller() {
        assert_eq!([0, 1, 3, 16, 17, 256].map(Load::size), [1, 1, 2, 16, 16, 64]);
    }
}
