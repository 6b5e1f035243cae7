//! Conditions: whether hardware and link are measured, and the variants that may run here.

use super::Cloud;
use crate::profiles::{Profiles, Standing};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use sconce_api::Reason;

/// As long as a condition's message may be, and half of it.
const MESSAGE: usize = 512;

pub fn ready(cloud: Cloud, old: Option<&Condition>, clock: Time) -> Condition {
    let (status, reason, message) = match (cloud, old) {
        // After a restart the last numbers stand, and so does what they meant.
        (Cloud::Probing, Some(old)) if old.reason != Reason::NoContact.as_str() => return old.clone(),
        (Cloud::Probing, _) => ("False", Reason::Probing, "500 probes to the Service sconce-cloud are under way"),
        (Cloud::Answers, _) => ("True", Reason::Ready, "hardware and link are measured"),
        (Cloud::Silent, _) => (
            "False",
            Reason::NoContact,
            "the Service sconce-cloud does not answer; the link is as it was last measured",
        ),
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

/// Nothing, where nothing may run here.
pub fn profiled(profiles: Option<&Profiles>, old: Option<&Condition>, clock: Time) -> Option<Condition> {
    let Some(profiles) = profiles else { return old.cloned() };
    let Standing { asked, measured, failed, failure } = &profiles.standing;
    let (status, reason, message) = match failure {
        _ if *asked == 0 => return None,
        _ if !profiles.standing.is_done() => {
            ("False", Reason::Profiling, format!("{measured} of {asked} variants that may run here are measured"))
        }
        Some(failure) => (
            "False",
            Reason::ProfileFailed,
            format!("{failed} of {asked} variants cannot be measured, their estimates stand: {failure}"),
        ),
        None => ("True", Reason::Profiled, format!("{measured} variants are measured")),
    };
    let since = old.filter(|old| old.status == status).map(|old| old.last_transition_time.clone());
    Some(Condition {
        type_: "Profiled".into(),
        status: status.into(),
        reason: reason.to_string(),
        message: message.chars().take(MESSAGE).collect(),
        observed_generation: None,
        last_transition_time: since.unwrap_or(clock),
    })
}
