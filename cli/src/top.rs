//! What clients wait now, by site and model, beside what was decided.

use crate::explain::time;
use crate::print::{BAD, STRONG, columns, styled};
use crate::routers::{Counts, Routers};
use kube::ResourceExt as _;
use sconce_api::{EdgePlacement, labels};
use sconce_operator::observe::World;
use sconce_operator::plan::text;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Top {
    seconds: f64,
    rows: Vec<Row>,
    /// Nodes whose routers said nothing: what their clients wait is not in the rows.
    silent: BTreeMap<String, String>,
}

/// One model at one site. What nobody has asked has no times.
#[derive(Serialize, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Row {
    site: String,
    model: String,
    tier: Option<String>,
    variant: Option<String>,
    requests_per_second: f64,
    errors_per_second: f64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
    budget_us: Option<u64>,
    predicted_p99: Option<String>,
}

/// Of what the routers counted between two moments.
pub fn top(world: &World, site: Option<&str>, before: &Routers, after: &Routers, over: Duration) -> Top {
    let mut counted: BTreeMap<(String, String), Counts> = BTreeMap::new();
    let mut silent = BTreeMap::new();
    for (node, now) in after {
        let Some(here) = site_of(world, node).filter(|here| site.is_none_or(|site| site == here)) else { continue };
        match (now, before.get(node)) {
            (Ok(now), Some(Ok(then))) => {
                for (model, counts) in now {
                    let new = counts.since(then.get(model).unwrap_or(&Counts::default()));
                    counted.entry((here.clone(), model.clone())).or_default().add(&new);
                }
            }
            (Err(why), _) | (_, Some(Err(why))) => drop(silent.insert(node.clone(), why.clone())),
            (Ok(_), None) => drop(silent.insert(node.clone(), "its router has just started".into())),
        }
    }
    let seconds = over.as_secs_f64();
    let placements =
        world.placements.values().filter(|placement| site.is_none_or(|site| placement.spec.site_ref.name == site));
    let mut rows: Vec<_> = placements.map(|placement| row(placement, &counted, seconds)).collect();
    rows.sort_by(|one, other| (&one.site, &one.model).cmp(&(&other.site, &other.model)));
    Top { seconds, rows, silent }
}

/// The site of an edge node; clients in the cloud have no site.
fn site_of(world: &World, node: &str) -> Option<String> {
    world.edge_nodes.get(&(String::new(), node.to_owned()))?.labels().get(labels::SITE).cloned()
}

fn row(placement: &EdgePlacement, counted: &BTreeMap<(String, String), Counts>, seconds: f64) -> Row {
    let status = placement.status.clone().unwrap_or_default();
    let (namespace, name) = (placement.namespace().unwrap_or_default(), &placement.spec.model_ref.name);
    let site = placement.spec.site_ref.name.clone();
    let counts = counted.get(&(site.clone(), format!("{name}.{namespace}"))).cloned().unwrap_or_default();
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Row {
        site,
        model: format!("{namespace}/{name}"),
        tier: status.decision.as_ref().map(|decision| decision.tier.to_string().to_lowercase()),
        variant: status.decision.map(|decision| decision.variant),
        requests_per_second: counts.requests / seconds,
        errors_per_second: counts.errors / seconds,
        p50_us: counts.quantile(0.5).map(micros),
        p99_us: counts.quantile(0.99).map(micros),
        budget_us: status.budget.and_then(|budget| budget.parse()).map(micros),
        predicted_p99: status.predicted.map(|predicted| time(&predicted.p99)),
    }
}

impl Display for Top {
    /// `{:#}` has more columns.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            writeln!(f, "there is no EdgePlacement")?;
        } else {
            let mut head = vec!["SITE", "MODEL", "REQUESTS/S", "P50", "P99", "BUDGET", "TIER", "VARIANT"];
            if f.alternate() {
                head.extend(["ERRORS/S", "PREDICTED-P99"]);
            }
            let mut lines = vec![head.into_iter().map(|title| styled(STRONG, title)).collect()];
            lines.extend(self.rows.iter().map(|row| row.cells(f.alternate())));
            f.write_str(&columns(&lines))?;
        }
        for (node, why) in &self.silent {
            writeln!(f, "{} {node} is not counted: {why}", styled(BAD, "?"))?;
        }
        Ok(())
    }
}

impl Row {
    fn cells(&self, wide: bool) -> Vec<String> {
        let none = || "-".to_owned();
        let time = |us: Option<u64>| us.map_or_else(none, text::time);
        let late = self.p99_us.zip(self.budget_us).is_some_and(|(p99, budget)| p99 > budget);
        let p99 = time(self.p99_us);
        let mut cells = vec![
            self.site.clone(),
            self.model.clone(),
            format!("{:.1}", self.requests_per_second),
            time(self.p50_us),
            if late { styled(BAD, p99) } else { p99 },
            time(self.budget_us),
            self.tier.clone().unwrap_or_else(|| styled(BAD, "nowhere")),
            self.variant.clone().unwrap_or_else(none),
        ];
        if wide {
            cells.extend([format!("{:.1}", self.errors_per_second), self.predicted_p99.clone().unwrap_or_else(none)]);
        }
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routers::read;
    use crate::tests::{items, objects_of, plain};
    use serde_json::json;

    /// What a router tells, of one model, `fast` of whose requests took 1 to 2 ms and `slow` of them 8 to 16 ms.
    fn told_by_router(fast: u32, slow: u32, failed: u32) -> String {
        let (model, all) = ("model=\"digits.vision\"", fast + slow);
        let bucket = |le: &str, count: u32| {
            format!("sconce_router_request_seconds_bucket{{le=\"{le}\",{model},tier=\"Edge\"}} {count}\n")
        };
        let buckets = [
            bucket("0.001", 0),
            bucket("0.002", fast),
            bucket("0.008", fast),
            bucket("0.016", all),
            bucket("+Inf", all),
        ];
        let total = |code: &str, count: u32| {
            format!("sconce_router_requests_total{{{model},tier=\"Edge\",code=\"{code}\"}} {count}\n")
        };
        format!(
            "# TYPE sconce_router_requests counter\n{}{}{}sconce_router_failovers_total 3\n# EOF\n",
            buckets.concat(),
            total("Ok", all),
            total("Unavailable", failed)
        )
    }

    #[test]
    fn what_clients_wait_is_told_by_site_and_model() {
        let mut items = items();
        let edge =
            items.iter().position(|item| item["kind"] == "EdgeNode" && item["metadata"]["name"] == "edge-a").unwrap();
        items[edge]["metadata"]["labels"] = json!({"sconce.dev/site": "site-a", "sconce.dev/tier": "edge"});
        let world = objects_of(items).world();
        let routers = |text: String| -> Routers {
            // The cloud's clients are of no site.
            [("edge-a".into(), Ok(read(&text))), ("cloud-1".into(), Ok(read(&told_by_router(7, 7, 7))))].into()
        };
        let before = routers(told_by_router(1000, 0, 0));
        let said = |after: &Routers| top(&world, None, &before, after, Duration::from_secs(5));
        let some = said(&routers(told_by_router(1098, 2, 10)));
        assert_eq!(
            plain(&some),
            "\
SITE     MODEL           REQUESTS/S   P50      P99     BUDGET   TIER   VARIANT
site-a   vision/digits   22.0         1.5 ms   12 ms   25 ms    edge   f32
"
        );
        let wide = anstream::adapter::strip_str(&format!("{some:#}")).to_string();
        assert!(wide.contains("ERRORS/S   PREDICTED-P99\n") && wide.contains("f32       2.0        0.82 ms"), "{wide}");
        // Who has asked nothing, and a router that started anew and counts from nothing.
        assert!(
            plain(said(&before)).contains("vision/digits   0.0          -     -     25 ms"),
            "{}",
            plain(said(&before))
        );
        assert!(plain(said(&routers(told_by_router(50, 0, 0)))).contains("   10.0   "));
        // A site without contact.
        let gone = [("edge-a".to_owned(), Err("no answer within 5s".to_owned()))].into();
        assert!(
            plain(said(&gone)).ends_with("? edge-a is not counted: no answer within 5s\n"),
            "{}",
            plain(said(&gone))
        );
        // Beyond the largest bound nothing is known but that.
        let slow = read(
            "sconce_router_request_seconds_bucket{le=\"2.0\",model=\"m\"} 1\nsconce_router_request_seconds_bucket{le=\"+Inf\",model=\"m\"} 9\n",
        );
        assert_eq!(slow["m"].quantile(0.99), Some(Duration::from_secs(2)));
    }
}
