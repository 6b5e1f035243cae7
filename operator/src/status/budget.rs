//! Whether clients get what the budget promises: as their routers measured it, and by nothing else.

use super::placement::Outcome;
use super::{Claim, Truth};
use crate::observe::{World, is_ready};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use sconce_api::{Amount, DurationText, EdgeModel, Reason, Tier, Waited};
use std::sync::Arc;

const KIND: &str = "WithinBudget";

/// What clients of a site's routers waited in the last five minutes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// For answers of the decided tier: the worst quantiles of its nodes, and all that was asked. Requests that nobody answered
    /// count as errors. `None` where there was none.
    pub here: Option<Waited>,
    /// Answers of the other tier: of the place that was left, or of the fallback.
    pub elsewhere: i64,
}

/// As the nodes tell that are Ready: what others told last may be long ago.
pub fn observed(world: &World, nodes: &[Arc<Node>], model: &EdgeModel, tier: Tier) -> Observed {
    let (namespace, name) = (model.namespace().unwrap_or_default(), model.name_any());
    let status = |node: &Arc<Node>| world.edge_nodes.get(&(String::new(), node.name_any()))?.status.as_ref();
    let rows = nodes.iter().filter(|node| is_ready(node)).filter_map(status).flat_map(|status| &status.models);
    let asked = rows.filter(|row| row.name == name && row.namespace == namespace);
    let (here, elsewhere): (Vec<_>, Vec<_>) = asked.partition(|row| row.tier.is_none_or(|answered| answered == tier));
    Observed {
        here: here.into_iter().map(|row| row.waited.clone()).reduce(together),
        elsewhere: elsewhere.into_iter().map(|row| row.waited.count).fold(0, i64::saturating_add),
    }
}

fn together(one: Waited, other: Waited) -> Waited {
    let slower = |one: Option<DurationText>, other: Option<DurationText>| {
        one.into_iter().chain(other).max_by_key(DurationText::parse)
    };
    let millis = |rate: &Amount| rate.millis().unwrap_or(0);
    Waited {
        p50: slower(one.p50, other.p50),
        p99: slower(one.p99, other.p99),
        count: one.count.saturating_add(other.count),
        errors: one.errors.saturating_add(other.errors),
        rps: Amount::of_millis(millis(&one.rps).saturating_add(millis(&other.rps))),
    }
}

/// Requests from which on failures tell something.
const ENOUGH: i64 = 100;

/// Of one place.
pub fn of_placement(Observed { here, elsewhere }: &Observed, tier: Tier, budget: &DurationText) -> Claim {
    let few = |told: String| Claim::new(KIND, Truth::Unknown, Reason::TooFewSamples, told);
    let Some(Waited { p99, count, errors, .. }) = here else {
        return few(match elsewhere {
            0 => "nobody asked for it in the last five minutes".into(),
            _ => format!("in the last five minutes all {elsewhere} answers came from elsewhere than its {tier} place"),
        });
    };
    let failed = if *errors > 0 { format!(", {errors} failed") } else { String::new() };
    let asked = count.saturating_add(*errors);
    if asked >= ENOUGH && errors.saturating_mul(100) > asked {
        let told = format!("{errors} of {asked} requests failed in the last five minutes");
        return Claim::new(KIND, false, Reason::Failing, told);
    }
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

/// Of all sites. How many tell changes all the time, and is not said.
pub fn of_model(outcomes: &[Outcome]) -> Claim {
    let those = |truth| outcomes.iter().filter(move |outcome| outcome.within.truth == truth);
    match (those(Truth::False).next(), those(Truth::True).next()) {
        (Some(one), _) => {
            let (over, sites) = (those(Truth::False).count(), outcomes.len());
            let told = format!("{over} of {sites} sites do not keep it; {}: {}", one.site, one.within.message);
            Claim::new(KIND, false, one.within.reason, told)
        }
        (None, Some(_)) => Claim::new(KIND, true, Reason::Within, "every site that has had enough requests keeps it"),
        (None, None) => untold(Reason::TooFewSamples, "no site has had enough requests in the last five minutes"),
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
            let claim = of_placement(&Observed { here: waited, elsewhere: 0 }, Tier::Edge, &"20ms".into());
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
        let told = "20 of 1520 requests failed in the last five minutes";
        check(Some(waited(Some("2ms"), 1500, 20, "5")), Truth::False, Reason::Failing, told);
        check(
            Some(waited(None, 0, 99, "0.33")),
            Truth::Unknown,
            few,
            "0 answers in the last five minutes, 99 failed; a hundred of one node tell a p99",
        );
        let elsewhere = of_placement(&Observed { here: None, elsewhere: 70 }, Tier::Edge, &"20ms".into());
        let told = "in the last five minutes all 70 answers came from elsewhere than its Edge place";
        assert_eq!((elsewhere.reason, elsewhere.message.as_str()), (few, told));
    }

    #[test]
    fn nodes_of_a_site_count_together_and_the_slowest_tells() {
        let all = together(waited(Some("900us"), 1000, 0, "3.3"), waited(Some("4ms"), 200, 2, "0.67"));
        assert_eq!(all, waited(Some("4ms"), 1200, 2, "3.97"));
        let all = together(waited(None, 10, 0, "0.03"), waited(Some("4ms"), 200, 0, "0.67"));
        assert_eq!(all, waited(Some("4ms"), 210, 0, "0.7"));
    }
}
