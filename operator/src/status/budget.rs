//! Whether clients get what the budget promises: as their routers measured it, and by nothing else.

use super::placement::Outcome;
use super::{Claim, Truth};
use crate::observe::World;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use sconce_api::{Amount, DurationText, EdgeModel, ObservedModel, Reason, Tier, Waited};
use std::cmp::Reverse;
use std::sync::Arc;

const KIND: &str = "WithinBudget";

/// What clients of a site's routers waited for answers of this tier: the worst quantiles of its nodes, and all that was asked.
/// Requests that nobody answered count as errors. `None` where nobody asked.
pub fn waited(world: &World, nodes: &[Arc<Node>], model: &EdgeModel, tier: Tier) -> Option<Waited> {
    let (namespace, name) = (model.namespace().unwrap_or_default(), model.name_any());
    let statuses =
        nodes.iter().filter_map(|node| world.edge_nodes.get(&(String::new(), node.name_any()))?.status.as_ref());
    let asked = |row: &&ObservedModel| {
        row.name == name && row.namespace == namespace && row.tier.is_none_or(|answered| answered == tier)
    };
    statuses.flat_map(|status| &status.models).filter(asked).map(|row| row.waited.clone()).reduce(together)
}

fn together(one: Waited, other: Waited) -> Waited {
    let slower = |one: Option<DurationText>, other: Option<DurationText>| {
        one.into_iter().chain(other).max_by_key(DurationText::parse)
    };
    Waited {
        p50: slower(one.p50, other.p50),
        p99: slower(one.p99, other.p99),
        count: one.count.saturating_add(other.count),
        errors: one.errors.saturating_add(other.errors),
        rps: sum(&one.rps, &other.rps),
    }
}

fn sum(one: &Amount, other: &Amount) -> Amount {
    let hundredths = |amount: &Amount| (amount.0.parse::<f64>().unwrap_or(0.0) * 100.0).round() as u64;
    let all = hundredths(one).saturating_add(hundredths(other));
    let text = format!("{}.{:02}", all / 100, all % 100);
    Amount(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

/// Of one place, that has been `waited` for.
pub fn of_placement(waited: Option<&Waited>, budget: &DurationText) -> Claim {
    let few = |told: String| Claim::new(KIND, Truth::Unknown, Reason::TooFewSamples, told);
    let Some(Waited { p99, count, errors, .. }) = waited else {
        return few("nobody asked for it in the last five minutes".into());
    };
    let failed = if *errors > 0 { format!(", {errors} failed") } else { String::new() };
    let Some(p99) = p99 else {
        return few(format!("{count} answers in the last five minutes{failed}; a hundred of one node tell a p99"));
    };
    let within = p99.parse() <= budget.parse();
    let reason = if within { Reason::Within } else { Reason::OverBudget };
    let told = format!("clients waited {p99} (p99) of {budget}; {count} answers in the last five minutes{failed}");
    Claim::new(KIND, within, reason, told)
}

/// Nobody can tell, for a reason of the place's own.
pub fn untold(reason: Reason, told: impl Into<String>) -> Claim {
    Claim::new(KIND, Truth::Unknown, reason, told)
}

/// Of all sites.
pub fn of_model(outcomes: &[Outcome]) -> Claim {
    let those = |truth| outcomes.iter().filter(move |outcome| outcome.within.truth == truth);
    let (over, within) = (those(Truth::False).count(), those(Truth::True).count());
    let sites = outcomes.len();
    match those(Truth::False).min_by_key(|outcome| Reverse(&outcome.site)) {
        Some(worst) => {
            let told = format!("{over} of {sites} sites are over it; {}: {}", worst.site, worst.within.message);
            Claim::new(KIND, false, Reason::OverBudget, told)
        }
        None if within > 0 => {
            let told = format!("{within} of {sites} sites tell that they keep it, none that it does not");
            Claim::new(KIND, true, Reason::Within, told)
        }
        None => untold(Reason::TooFewSamples, "no site has had enough requests in the last five minutes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waited(p99: Option<&str>, count: i64, errors: i64, rps: &str) -> Waited {
        Waited { p50: Some("2ms".into()), p99: p99.map(Into::into), count, errors, rps: Amount(rps.into()) }
    }

    #[test]
    fn a_place_is_judged_by_what_its_clients_waited() {
        let check = |waited: Option<Waited>, truth, reason, told: &str| {
            let claim = of_placement(waited.as_ref(), &"20ms".into());
            assert_eq!((claim.truth, claim.reason, claim.message.as_str()), (truth, reason, told));
        };
        let few = Reason::TooFewSamples;
        check(None, Truth::Unknown, few, "nobody asked for it in the last five minutes");
        let told = "70 answers in the last five minutes, 3 failed; a hundred of one node tell a p99";
        check(Some(waited(None, 70, 3, "0.24")), Truth::Unknown, few, told);
        let told = "clients waited 20ms (p99) of 20ms; 1500 answers in the last five minutes";
        check(Some(waited(Some("20ms"), 1500, 0, "5")), Truth::True, Reason::Within, told);
        let told = "clients waited 21ms (p99) of 20ms; 1500 answers in the last five minutes, 7 failed";
        check(Some(waited(Some("21ms"), 1500, 7, "5")), Truth::False, Reason::OverBudget, told);
    }

    #[test]
    fn nodes_of_a_site_count_together_and_the_slowest_tells() {
        let all = together(waited(Some("900us"), 1000, 0, "3.3"), waited(Some("4ms"), 200, 2, "0.67"));
        assert_eq!(all, waited(Some("4ms"), 1200, 2, "3.97"));
        let all = together(waited(None, 10, 0, "0.03"), waited(Some("4ms"), 200, 0, "0.67"));
        assert_eq!(all, waited(Some("4ms"), 210, 0, "0.7"));
    }
}
