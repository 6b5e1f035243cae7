//! What clients waited in the last five minutes, by site and model, beside what was decided.

use crate::explain::time;
use crate::print::{BAD, STRONG, columns, styled};
use anyhow::{Result, bail};
use kube::ResourceExt as _;
use sconce_api::{Basis, DurationText, EdgePlacement, Tier, Waited, condition};
use sconce_operator::observe::World;
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

#[derive(Serialize, Debug)]
pub struct Top(Vec<Row>);

/// One model at one site. What nobody has asked has no times.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Row {
    site: String,
    model: String,
    tier: Option<Tier>,
    variant: Option<String>,
    observed: Option<Waited>,
    budget: Option<DurationText>,
    predicted_p99: Option<DurationText>,
    /// What the prediction rests on.
    basis: Option<Basis>,
    /// `None` where it is not known.
    within_budget: Option<bool>,
}

/// # Errors
/// If there is no such site.
pub fn top(world: &World, site: Option<&str>) -> Result<Top> {
    if let Some(site) = site.filter(|site| !world.sites.contains_key(&(String::new(), (*site).to_owned()))) {
        bail!("there is no EdgeSite {site} (kubectl get es lists them)");
    }
    let placements = world.placements.values();
    let mut rows: Vec<Row> = placements
        .filter(|placement| site.is_none_or(|site| placement.spec.site_ref.name == site))
        .map(|placement| row(placement))
        .collect();
    rows.sort_by(|one, other| (&one.site, &one.model).cmp(&(&other.site, &other.model)));
    Ok(Top(rows))
}

fn row(placement: &EdgePlacement) -> Row {
    let status = placement.status.clone().unwrap_or_default();
    let within = condition(&status.conditions, "WithinBudget").map(|within| within.status.as_str());
    Row {
        site: placement.spec.site_ref.name.clone(),
        model: format!("{}/{}", placement.namespace().unwrap_or_default(), placement.spec.model_ref.name),
        tier: status.decision.as_ref().map(|decision| decision.tier),
        within_budget: within.and_then(|within| within.to_lowercase().parse().ok()),
        variant: status.decision.map(|decision| decision.variant),
        observed: status.observed,
        budget: status.budget,
        basis: status.predicted.as_ref().map(|predicted| predicted.basis),
        predicted_p99: status.predicted.map(|predicted| predicted.p99),
    }
}

impl Display for Top {
    /// `{:#}` has more columns.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(rows) = self;
        if rows.is_empty() {
            return writeln!(f, "there is no EdgePlacement");
        }
        let mut head = vec!["SITE", "MODEL", "REQUESTS/S", "P50", "P99", "BUDGET", "TIER", "VARIANT"];
        if f.alternate() {
            head.extend(["ANSWERS", "ERRORS", "PREDICTED-P99", "BASIS"]);
        }
        let mut lines = vec![head.into_iter().map(|title| styled(STRONG, title)).collect()];
        lines.extend(rows.iter().map(|row| row.cells(f.alternate())));
        f.write_str(&columns(&lines))
    }
}

impl Row {
    fn cells(&self, wide: bool) -> Vec<String> {
        let none = || "-".to_owned();
        let observed = self.observed.as_ref();
        let waited = |of: fn(&Waited) -> Option<&DurationText>| observed.and_then(of).map_or_else(none, time);
        let p99 = waited(|waited| waited.p99.as_ref());
        let mut cells = vec![
            self.site.clone(),
            self.model.clone(),
            observed.map_or_else(|| "0".into(), |waited| waited.rps.0.clone()),
            waited(|waited| waited.p50.as_ref()),
            if self.within_budget == Some(false) { styled(BAD, p99) } else { p99 },
            self.budget.as_ref().map_or_else(none, time),
            self.tier.map_or_else(|| styled(BAD, "nowhere"), |tier| tier.to_string().to_lowercase()),
            self.variant.clone().unwrap_or_else(none),
        ];
        if wide {
            let count = |of: fn(&Waited) -> i64| observed.map_or(0, of).to_string();
            let predicted = self.predicted_p99.as_ref().map_or_else(none, time);
            let basis = self.basis.map_or_else(none, |basis| basis.to_string().to_lowercase());
            cells.extend([count(|waited| waited.count), count(|waited| waited.errors), predicted, basis]);
        }
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{condition, items, objects_of, plain};
    use serde_json::json;

    #[test]
    fn what_clients_wait_is_told_by_site_and_model() {
        let mut items = items();
        let said = |items: &[serde_json::Value]| top(&objects_of(items.to_vec()).world(), Some("site-a")).unwrap();
        assert_eq!(
            plain(said(&items)),
            "\
SITE     MODEL           REQUESTS/S   P50   P99   BUDGET   TIER   VARIANT
site-a   vision/digits   0            -     -     25 ms    edge   f32
"
        );
        let placement = items.iter_mut().find(|item| item["kind"] == "EdgePlacement").unwrap();
        placement["status"]["observed"] =
            json!({"p50": "1500us", "p99": "31ms", "count": 6600, "errors": 7, "rps": "22"});
        placement["status"]["conditions"] = json!([condition("WithinBudget", "False", "OverBudget", "too slow")]);
        let over = said(&items);
        assert_eq!(
            plain(format!("{over:#}")),
            "\
SITE     MODEL           REQUESTS/S   P50      P99     BUDGET   TIER   VARIANT   ANSWERS   ERRORS   PREDICTED-P99   BASIS
site-a   vision/digits   22           1.5 ms   31 ms   25 ms    edge   f32       6600      7        0.82 ms         estimated
"
        );
        assert_eq!(serde_json::to_value(&over).unwrap()[0]["withinBudget"], false);
        let error = top(&objects_of(items).world(), Some("site-z")).unwrap_err();
        assert_eq!(error.to_string(), "there is no EdgeSite site-z (kubectl get es lists them)");
    }
}
