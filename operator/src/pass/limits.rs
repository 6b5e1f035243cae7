//! How much of a fleet may change at once: moves by the minute, and losses of a place or a pool by ten. Pure.

use crate::plan::{ModelName, Urgency};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sconce_api::FleetRemovals;
use std::collections::BTreeSet;

const MINUTE: SignedDuration = SignedDuration::from_secs(60);
const WINDOW: SignedDuration = SignedDuration::from_mins(10);

/// So many may always go: a person oversees them, and a share of a small fleet is less than one.
const ALWAYS: usize = 5;

/// A model at a site.
pub type At = (String, ModelName);

/// Who has to wait, and until when.
#[derive(Debug, Default, PartialEq)]
pub struct Capped {
    pub held: BTreeSet<At>,
    pub until: Option<Timestamp>,
}

/// Of all that would move those that have to wait, since `most` a minute may: the others of the last minute count. First go
/// those that can serve no longer where they are.
pub fn cap(mut movers: Vec<(Urgency, At)>, mut lately: Vec<Timestamp>, most: usize, now: Timestamp) -> Capped {
    lately.retain(|moved| now.duration_since(*moved) < MINUTE);
    movers.sort();
    let may = most.saturating_sub(lately.len());
    if movers.len() <= may {
        return Capped::default();
    }
    let held = movers.split_off(may).into_iter().map(|(_, at)| at).collect();
    let first = lately.into_iter().min().unwrap_or(now);
    Capped { held, until: first.checked_add(MINUTE).ok() }
}

/// What the brake is asked.
pub struct Losses<'a> {
    /// Placements that would lose their place now, and models that would lose their last pool.
    pub now_lost: usize,
    /// Placements that have one, and models that have a pool.
    pub placed: usize,
    /// Thousandths of a percent.
    pub share_millis: u64,
    /// What was lost before.
    pub before: Option<&'a FleetRemovals>,
    /// Of `sconce.dev/confirm-removals`.
    pub confirmed: Option<i64>,
    pub now: Timestamp,
}

/// What it answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Brake {
    /// Nothing loses its place: why, and what to do.
    pub held: Option<String>,
    pub until: Option<Timestamp>,
    /// For the next time.
    pub removals: Option<FleetRemovals>,
}

/// Whether so much may go. Counted from the most that there was within ten minutes, so that neither many small losses nor a
/// restart of the operator get around it.
pub fn brake(Losses { now_lost, placed, share_millis, before, confirmed, now }: Losses<'_>) -> Brake {
    let ends = |removals: &FleetRemovals| removals.since.0.checked_add(WINDOW).unwrap_or(Timestamp::MAX);
    let window = before.filter(|before| ends(before) > now);
    let most = window.and_then(|window| usize::try_from(window.placed).ok()).unwrap_or(0).max(placed);
    let lost = most - placed.saturating_sub(now_lost);
    let allowed = (most as u64).saturating_mul(share_millis).div_ceil(100_000).max(ALWAYS as u64);
    // Counts are small enough for either integer.
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    // One that was used counts on while what it was given for goes on.
    let is_used_now = |window: &FleetRemovals| window.confirmed_since.as_ref() == Some(&window.since);
    let is_fresh = window.is_some_and(is_used_now) || before.and_then(|before| before.confirmed) != confirmed;
    let by_person = confirmed.filter(|confirmed| is_fresh && *confirmed >= count(lost));
    // A confirmation that was taken back may be given again.
    let used = before.and_then(|before| before.confirmed).filter(|used| confirmed == Some(*used));
    let kept = before.map(|before| FleetRemovals { confirmed: used, ..before.clone() });
    if now_lost == 0 {
        return Brake { removals: kept, ..Brake::default() };
    }
    if lost as u64 > allowed && by_person.is_none() {
        let told = format!(
            "{now_lost} of {placed} placements and pools would be lost, {lost} within ten minutes; at most {allowed} may \
             without being confirmed: undo the change, or annotate the EdgeFleet with {}=\"{lost}\"{}",
            sconce_api::labels::CONFIRM_REMOVALS,
            if confirmed.is_some() && !is_fresh { " after removing what is there, which was used before" } else { "" },
        );
        return Brake { held: Some(told), until: window.map(ends), removals: kept };
    }
    let since = window.map_or(Time(now), |window| window.since.clone());
    let is_needed = lost as u64 > allowed;
    let before = before.and_then(|before| before.confirmed_since.clone()).filter(|_| used.is_some());
    let removals = FleetRemovals {
        placed: count(most),
        confirmed: by_person.filter(|_| is_needed).or(used),
        confirmed_since: if is_needed { Some(since.clone()) } else { before },
        since,
    };
    Brake { held: None, until: None, removals: Some(removals) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn model(name: &str) -> At {
        ("site".into(), ModelName { namespace: "n".into(), name: name.into() })
    }

    #[test]
    fn those_that_cannot_serve_move_first_and_the_others_once_a_minute_has_passed() {
        let movers =
            || vec![(Urgency::Better, model("a")), (Urgency::Infeasible, model("b")), (Urgency::Better, model("c"))];
        assert_eq!(cap(movers(), vec![], 3, at(100)), Capped::default());
        let capped = cap(movers(), vec![], 1, at(100));
        assert_eq!(capped, Capped { held: [model("a"), model("c")].into(), until: Some(at(160)) });
        let capped = cap(movers(), vec![at(70), at(40), at(39)], 3, at(99));
        assert_eq!(capped, Capped { held: [model("a"), model("c")].into(), until: Some(at(100)) });
        assert_eq!(cap(movers(), vec![at(70), at(40)], 3, at(130)), Capped::default());
    }

    proptest::proptest! {
        #[test]
        fn no_minute_has_more_moves_than_may(
            urgent in proptest::collection::vec(proptest::bool::ANY, 0..40),
            lately in proptest::collection::vec(0..200_i64, 0..40),
            most in 1..30_usize,
        ) {
            let urgency = |urgent: &bool| if *urgent { Urgency::Infeasible } else { Urgency::Better };
            let movers: Vec<_> =
                urgent.iter().enumerate().map(|(index, one)| (urgency(one), model(&index.to_string()))).collect();
            let last_minute = lately.iter().filter(|second| **second > 140).count();
            let capped = cap(movers.clone(), lately.iter().map(|second| at(*second)).collect(), most, at(200));
            let moving: Vec<_> = movers.iter().filter(|(_, at)| !capped.held.contains(at)).collect();
            proptest::prop_assert_eq!(moving.len(), movers.len().min(most.saturating_sub(last_minute)));
            proptest::prop_assert_eq!(capped.until.is_some(), moving.len() < movers.len());
            let is_urgent_held = movers.iter().any(|(urgency, at)| *urgency == Urgency::Infeasible && capped.held.contains(at));
            let is_other_moving = moving.iter().any(|(urgency, _)| *urgency == Urgency::Better);
            proptest::prop_assert!(!(is_urgent_held && is_other_moving));
        }
    }

    fn losses(now_lost: usize, placed: usize) -> Losses<'static> {
        Losses { now_lost, placed, share_millis: 20_000, before: None, confirmed: None, now: at(1_000) }
    }

    fn removals(since: i64, placed: i64, confirmed: Option<i64>) -> FleetRemovals {
        FleetRemovals { since: Time(at(since)), placed, confirmed, confirmed_since: confirmed.map(|_| Time(at(since))) }
    }

    #[test]
    fn a_mass_of_losses_waits_for_a_person_and_a_few_do_not() {
        assert_eq!(brake(losses(0, 100)), Brake::default());
        assert_eq!(brake(losses(5, 6)).removals, Some(removals(1_000, 6, None)));
        assert_eq!(brake(losses(20, 100)).held, None);
        let held = brake(losses(21, 100));
        assert_eq!(
            held.held.as_deref(),
            Some(
                "21 of 100 placements and pools would be lost, 21 within ten minutes; at most 20 may without being confirmed: \
                 undo the change, or annotate the EdgeFleet with sconce.dev/confirm-removals=\"21\""
            )
        );
        assert_eq!((held.until, held.removals), (None, None));
    }

    #[test]
    fn many_small_losses_within_ten_minutes_are_one() {
        let before = removals(900, 100, None);
        let again = |now| brake(Losses { before: Some(&before), now: at(now), ..losses(15, 85) });
        let held = again(1_000);
        assert!(held.held.is_some_and(|told| told.contains("30 within ten minutes")));
        assert_eq!(held.until, Some(at(1_500)));
        assert_eq!(again(1_500).removals, Some(removals(1_500, 85, None)));
    }

    #[test]
    fn a_confirmation_counts_once() {
        let confirmed = |before: Option<&FleetRemovals>, now_lost, placed, count, now| {
            // Lives as long as the test.
            let before = before.cloned().map(|before| &*Box::leak(Box::new(before)));
            brake(Losses { before, confirmed: count, now: at(now), ..losses(now_lost, placed) })
        };
        assert!(confirmed(None, 60, 100, Some(59), 1_000).held.is_some());
        let first = confirmed(None, 60, 100, Some(60), 1_000).removals.unwrap();
        assert_eq!(first, removals(1_000, 100, Some(60)));
        // While it is carried out.
        assert_eq!(confirmed(Some(&first), 20, 60, Some(60), 1_001).held, None);
        let late = confirmed(Some(&first), 20, 40, Some(60), 1_700);
        assert!(late.held.unwrap().ends_with("after removing what is there, which was used before"));
        // A few that may go anyway open a window, in which the old confirmation counts no more than before.
        let few = confirmed(Some(&first), 3, 40, Some(60), 1_700).removals.unwrap();
        assert!(confirmed(Some(&few), 30, 37, Some(60), 1_760).held.is_some());
        // Taken back, and given again.
        let taken = confirmed(Some(&first), 0, 40, None, 1_700).removals.unwrap();
        assert_eq!(taken.confirmed, None);
        assert_eq!(confirmed(Some(&taken), 20, 40, Some(60), 1_700).held, None);
    }
}
