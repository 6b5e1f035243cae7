//! Make before break: a replaced Deployment goes once its successor answers and routers had time to hear of it.
//! Pure: what is wanted, what is there, and the time.

use jiff::Timestamp;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its successor does not answer yet: it serves on.
    Keep,
    /// Its successor answers: it goes at this time, and is routed to no longer.
    Announce(Timestamp),
    Wait(Timestamp),
    Delete,
    /// Its successor fell silent meanwhile: it stays after all.
    Revive,
}

impl Fate {
    /// Whether routers may still send to it.
    pub fn is_listed(self) -> bool {
        matches!(self, Self::Keep | Self::Revive)
    }

    /// When something is to be done.
    pub fn due(self) -> Option<Timestamp> {
        match self {
            Self::Announce(at) | Self::Wait(at) => Some(at),
            Self::Keep | Self::Delete | Self::Revive => None,
        }
    }
}

/// The fate of a Deployment that is not wanted any more. `announced` is its annotation.
pub fn fate(announced: Option<&str>, replaced: bool, now: Timestamp, drain: Duration) -> Fate {
    let announced = announced.and_then(|text| text.parse::<Timestamp>().ok());
    match (announced, replaced) {
        (None, false) => Fate::Keep,
        (Some(_), false) => Fate::Revive,
        (None, true) => Fate::Announce(now.saturating_add(drain).unwrap_or(Timestamp::MAX)),
        (Some(at), true) if at <= now => Fate::Delete,
        (Some(at), true) => Fate::Wait(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_place_goes_after_its_successor_answered_and_the_drain_passed() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let drain = Duration::from_secs(10);
        assert_eq!(fate(None, false, at(100), drain), Fate::Keep);
        assert_eq!(fate(None, true, at(100), drain), Fate::Announce(at(110)));
        let announced = at(110).to_string();
        assert_eq!(fate(Some(&announced), true, at(105), drain), Fate::Wait(at(110)));
        assert_eq!(fate(Some(&announced), true, at(110), drain), Fate::Delete);
        assert_eq!(fate(Some(&announced), false, at(120), drain), Fate::Revive);
        assert_eq!(fate(Some("soon"), true, at(100), drain), Fate::Announce(at(110)));
    }
}
