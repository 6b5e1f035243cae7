//! What is predicted is what clients then wait.

use crate::suite::{bed, exact, examples};
use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use sconce_api::{Basis, DurationText, EdgePlacement, Tier};
use sconce_e2e::{Bed, ClientRun, NAMESPACE, serves_from};
use std::time::Duration;

/// The sites' nodes, and where the example's own model runs there.
const SITES: [(&str, &str, Tier); 2] = [("site-a", "site-a-1", Tier::Edge), ("site-b", "site-b-1", Tier::Cloud)];
/// More of them, by the tier that they are held in, and whether only the most exact variant is good enough: so each way that a
/// request can take is taken at each site.
const HELD: [(&str, Tier, bool); 4] = [
    ("near", Tier::Edge, false),
    ("near-exact", Tier::Edge, true),
    ("far", Tier::Cloud, false),
    ("far-exact", Tier::Cloud, true),
];
/// How long is asked, in seconds: enough for halves. A p99 is worth reading after 300: those of the first second, who wait for
/// connections to open and widen, are then less than one in a hundred.
const SECONDS: &str = "SCONCE_E2E_ASKED_SECONDS";
const ENOUGH: u64 = 60;
const A_SECOND: u64 = 10;

/// All parts of a prediction are measured, and what clients wait, p99, is near it. How near is told: the aim is 0.7 to 1.5 at nine of
/// ten (`SCONCE_E2E_ASKED_SECONDS=300`); on two cores, otherwise idle, it was four to seven. Too long (1.6 to 2.0) are tails that probes
/// met while models started. Asserted is what holds on any machine: half of the requests, at the edge and in the cloud, take about as
/// long as the parts together. Without the way to the model and back it was 0.15 at the edge.
#[tokio::test]
async fn clients_wait_as_long_as_predicted() -> Result<()> {
    let bed = bed().await?;
    hold(&bed).await?;
    let compared = compare(&bed).await;
    let names = HELD.map(|(name, ..)| name);
    bed.kubectl().args(["delete", "em", "-n", NAMESPACE, "--wait=true"]).args(names).output().await?;
    let ratios = compared?;
    for tier in [Tier::Edge, Tier::Cloud] {
        let of_tier = ratios.iter().filter(|(of, _)| *of == tier).map(|(_, ratio)| *ratio);
        let median = median(of_tier.collect());
        ensure!((0.3..=3.3).contains(&median), "{tier}: p50 {median:.2} by the median: {ratios:.2?}");
    }
    Ok(())
}

fn median(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// What was predicted over what clients wait, p50, of each placement.
async fn compare(bed: &Bed) -> Result<Vec<(Tier, f64)>> {
    let asked = SITES.into_iter().flat_map(|(site, node, own)| {
        let held = HELD.into_iter().map(|(model, tier, _)| (model, tier));
        held.chain([("digits", own)]).map(move |(model, tier)| (model, site, node, tier))
    });
    let asked: Vec<_> = asked.collect();
    // One after another: what is measured for one is there for the others.
    for (model, site, _, tier) in &asked {
        let ready = |ep: &EdgePlacement| serves_from(ep, *tier) && is_measured(ep);
        bed.until_placement(model, site, &format!("served from {tier}, all measured"), ready).await?;
    }
    // The first requests open connections, at a far site for as long as several round trips, which no prediction counts.
    let ask = |run: ClientRun| {
        try_join_all(asked.iter().map(|(model, _, node, _)| {
            let run = ClientRun { model: format!("{model}.{NAMESPACE}"), ..run.clone() };
            async move { bed.ask(node, &run).await }
        }))
    };
    ask(ClientRun::default().count(10)).await?;
    let seconds = std::env::var(SECONDS).map_or(Ok(ENOUGH), |seconds| seconds.parse()).context(SECONDS)?;
    let answers = ask(ClientRun::default().rate(A_SECOND).duration(&format!("{seconds}s"))).await?;
    ensure!(answers.iter().all(|one| one.failed == 0), "{answers:#?}");

    // Whoever was told of fewer is told again, a quarter more.
    let enough = seconds * A_SECOND * 11 / 15;
    let told = |ep: &EdgePlacement| {
        ep.status
            .as_ref()
            .and_then(|status| status.observed.as_ref())
            .is_some_and(|waited| waited.count.unsigned_abs() >= enough)
    };
    let told = asked.iter().map(|(model, site, ..)| bed.until_placement(model, site, "what clients waited", told));
    let (mut ratios, mut within) = (Vec::new(), 0);
    println!(
        "{:<12} {:<8} {:<12} {:>10} {:>10}  ratio, and of the p50",
        "model", "site", "place", "predicted", "observed"
    );
    for ((model, site, _, tier), placement) in asked.iter().zip(try_join_all(told).await?) {
        let (place, predicted, observed) = compared(&placement).with_context(|| format!("of {model} at {site}"))?;
        let [p50, p99] = [0, 1].map(|at| predicted[at].div_duration_f64(observed[at]));
        let [predicted, observed] = [predicted[1], observed[1]];
        println!("{model:<12} {site:<8} {place:<12} {predicted:>10.2?} {observed:>10.2?}  {p99:.2}, {p50:.2}");
        within += usize::from((0.7..=1.5).contains(&p99));
        ratios.push((*tier, p50));
    }
    println!("{within} of {} within 0.7 to 1.5", ratios.len());
    Ok(ratios)
}

/// Models beside the example's own, each held in a tier.
async fn hold(bed: &Bed) -> Result<()> {
    bed.publish(exact()?.path(), "models/exact:1.0.0").await?;
    let own = std::fs::read_to_string(examples("model.yaml"))?;
    for (name, tier, is_exact) in HELD {
        let model = own
            .replace("name: digits,", &format!("name: {name},"))
            .replace("tier: Auto", &format!("tier: {tier}"))
            .replace("latencyBudget: 25ms", "latencyBudget: 3s");
        let model = if is_exact { model.replace("models/digits:", "models/exact:") } else { model };
        bed.apply_text(&model).await?;
    }
    Ok(())
}

fn is_measured(placement: &EdgePlacement) -> bool {
    let predicted = placement.status.as_ref().and_then(|status| status.predicted.as_ref());
    predicted.is_some_and(|predicted| predicted.basis == Basis::Measured)
}

/// The place, and p50 and p99: as predicted for it, and as clients waited. The parts' p50 are added up.
fn compared(placement: &EdgePlacement) -> Option<(String, [Duration; 2], [Duration; 2])> {
    let status = placement.status.as_ref()?;
    let decision = status.decision.as_ref()?;
    let time = |text: &DurationText| text.parse().filter(|time| !time.is_zero());
    let (predicted, observed) = (status.predicted.as_ref()?, status.observed.as_ref()?);
    let parts = [&predicted.link, &predicted.transfer, &predicted.queue, &predicted.compute];
    let half = parts.iter().map(|part| part.p50.parse()).sum::<Option<Duration>>()?;
    let place = format!("{}/{}", decision.tier, decision.variant);
    Some((place, [half, time(&predicted.p99)?], [time(observed.p50.as_ref()?)?, time(observed.p99.as_ref()?)?]))
}
