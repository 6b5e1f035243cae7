//! Places follow what is measured, and no more often than they may.

use crate::suite::{bed, measure_anew, pace};
use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::runtime::{WatchStreamExt as _, watcher};
use sconce_api::{Decision, EdgePlacement, Tier};
use sconce_e2e::{Answers, Bed, ClientRun, NAMESPACE, placement_name, stands};
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

const SITE: &str = "site-b";
const NODE: &str = "site-b-1";
const SETTLE: i64 = 30;
/// Each way; the same as site-a's, so that the cloud is too far.
const SLOW: &[&str] = &["--delay", "130ms"];

/// Site-b's link slows, is well again, and then flaps, while its clients ask.
#[tokio::test]
async fn a_slow_link_moves_a_model_for_a_while_and_a_flapping_one_no_more_often_than_may() -> Result<()> {
    let bed = bed().await?;
    pace(&bed, json!({"settle": format!("{SETTLE}s"), "minGain": "15%"}), json!({"maxMovesPerMinute": 1})).await?;
    let decisions = RefCell::new(Vec::new());
    let (answers, steps) = asked_during(&bed, async {
        tokio::select! {
            ended = follow(&bed, &decisions) => ended,
            done = slow_well_and_flapping(&bed) => done,
        }
    })
    .await;
    // What the flapping left in the agent's window is nothing to the scenarios that follow.
    bed.link(NODE, &[]).await?;
    measure_anew(&bed, NODE).await?;
    steps?;

    let failed: u64 = answers.iter().map(|answers| answers.failed).sum();
    let sent: u64 = answers.iter().map(|answers| answers.sent).sum();
    let errors: Vec<_> = answers.iter().flat_map(|answers| &answers.errors).collect();
    println!("{sent} requests, {failed} failed");
    assert_eq!(failed, 0, "{errors:?}");
    assert!(sent >= 2_000, "only {sent} requests");

    // The first is where it was before.
    let moves = decisions.into_inner();
    let told: Vec<_> = moves.iter().map(|one| format!("{} {} since {}", one.tier, one.variant, one.since.0)).collect();
    println!("{told:#?}");
    assert!(moves.len() >= 3 && moves[1].tier == Tier::Edge && moves[2].tier == Tier::Cloud, "{told:?}");
    let apart = |pair: &[Decision]| pair[1].since.0.as_second() - pair[0].since.0.as_second();
    assert!(apart(&moves[1..3]) >= 4 * SETTLE, "it was back before four times settle had passed: {told:?}");
    assert!(moves.windows(2).skip(1).all(|pair| apart(pair) >= 60), "two moves within a minute: {told:?}");
    Ok(())
}

async fn slow_well_and_flapping(bed: &Bed) -> Result<()> {
    let began = Instant::now();
    bed.link(NODE, SLOW).await?;
    let edge = bed.until_served("digits", SITE, Tier::Edge).await?;
    println!("served from the edge {:?} after the link slowed", began.elapsed());
    let left = decision(&edge)?.left.context("it left a place")?;
    assert_eq!((left.tier, left.node), (Tier::Cloud, None));

    bed.link(NODE, &[]).await?;
    let is_held = |ep: &EdgePlacement| stands(ep, "Placed") == "True/KeptByStability";
    let held = bed.until_placement("digits", SITE, "kept, though the cloud is better", is_held).await?;
    let explain = bed.sconce()?.args(["explain", "digits", "-n", NAMESPACE, "--site", SITE]).output().await?;
    println!("{explain}");
    let better = decision(&held)?.better.context("a place is better")?;
    assert!(better.candidate.starts_with("cloud/"), "{better:?}");
    bed.until_served("digits", SITE, Tier::Cloud).await?;
    println!("back in the cloud {:?} after the link slowed", began.elapsed());

    // What flaps takes its time: this is what is done to the link, nothing is waited for.
    for shape in [SLOW, &[]].into_iter().cycle().take(10) {
        bed.link(NODE, shape).await?;
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    Ok(())
}

fn decision(placement: &EdgePlacement) -> Result<Decision> {
    placement.status.as_ref().and_then(|status| status.decision.clone()).context("it was decided")
}

/// Notes each decision of another place.
async fn follow(bed: &Bed, decisions: &RefCell<Vec<Decision>>) -> Result<()> {
    let only = watcher::Config::default().fields(&format!("metadata.name={}", placement_name("digits", SITE)));
    let mut seen = watcher(bed.placements(), only).default_backoff().applied_objects().boxed();
    while let Some(placement) = seen.try_next().await? {
        let Ok(decision) = decision(&placement) else { continue };
        let mut decisions = decisions.borrow_mut();
        if decisions.last().is_none_or(|last: &Decision| last.since != decision.since) {
            decisions.push(decision);
        }
    }
    bail!("the watch ended")
}

/// Asks at the site, again and again, until something is done.
async fn asked_during(bed: &Bed, what: impl Future<Output = Result<()>>) -> (Vec<Answers>, Result<()>) {
    let (answers, is_done) = (RefCell::new(Vec::new()), Cell::new(false));
    let what = async {
        let done = what.await;
        is_done.set(true);
        done
    };
    let asking = async {
        while !is_done.get() {
            let run = ClientRun::of("digits.vision").rate(20).duration("10s");
            let told = bed.ask(NODE, &run).await?;
            answers.borrow_mut().push(told);
        }
        Ok(())
    };
    let (done, asked) = tokio::join!(what, asking);
    (answers.into_inner(), done.and(asked))
}
