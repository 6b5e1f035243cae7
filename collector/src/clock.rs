//! Time as samples see it. Wall clocks jump: what is held ages by the time that has passed, not by what a clock says. Pure but
//! for [`Now::read`].

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment by both clocks.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Now {
    pub wall: Timestamp,
    /// The kernel's name for the time since this boot began.
    pub boot: String,
    /// Milliseconds since then, asleep or awake.
    pub since_boot: u64,
}

impl Now {
    pub fn read() -> Self {
        let since = clock_gettime(ClockId::Boottime);
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            wall: Timestamp::now(),
            boot: boot.trim().to_owned(),
            since_boot: since.tv_sec.unsigned_abs() * 1000 + since.tv_nsec.unsigned_abs() / 1_000_000,
        }
    }
}

/// So many milliseconds pass from one boot to the next, at most: a board without a battery that has met its time server only then
/// would else age all that it holds by years.
const ACROSS_BOOTS: u64 = 3_600_000;

/// A moment, and how long the store had lived then, in milliseconds: the clock by which samples age.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    pub lived: u64,
    #[serde(flatten)]
    pub now: Now,
}

impl Mark {
    pub fn first(now: Now) -> Self {
        Self { lived: 0, now }
    }

    /// The mark at a later moment. Within a boot, what has passed is measured. Across boots only the wall clock tells, and one
    /// that goes backwards tells nothing, and none tells more than [`ACROSS_BOOTS`].
    pub fn at(&self, now: &Now) -> Self {
        let passed = if self.now.boot == now.boot {
            now.since_boot.saturating_sub(self.now.since_boot)
        } else {
            let passed = now.wall.as_millisecond().saturating_sub(self.now.wall.as_millisecond());
            u64::try_from(passed).unwrap_or(0).min(ACROSS_BOOTS)
        };
        Self { lived: self.lived.saturating_add(passed), now: now.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(boot: &str, wall: i64, since_boot: u64) -> Now {
        Now { wall: Timestamp::from_second(wall).unwrap(), boot: boot.into(), since_boot }
    }

    #[test]
    fn a_wall_clock_that_jumps_ages_nothing() {
        let mark = Mark { lived: 5_000, now: now("a", 1_000_000, 70_000) };
        let day = 86_400;
        for wall in [1_000_000 - day, 1_000_000, 1_000_000 + day] {
            assert_eq!(mark.at(&now("a", wall, 71_500)).lived, 6_500);
        }
        assert_eq!(mark.at(&now("a", 1_000_000, 0)).lived, 5_000, "a clock that stands still");
    }

    #[test]
    fn across_boots_the_wall_clock_tells_what_has_passed() {
        let mark = Mark { lived: 5_000, now: now("a", 1_000_000, 70_000) };
        assert_eq!(mark.at(&now("b", 1_000_060, 10)).lived, 65_000);
        assert_eq!(mark.at(&now("b", 0, 10)).lived, 5_000, "a board without a battery starts in 1970");
        assert_eq!(mark.at(&now("b", 30_000_000, 10)).lived, 3_605_000, "and is then told what year it is");
    }
}
