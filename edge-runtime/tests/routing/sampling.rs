//! What of a model's answers comes to the collector, through a real router.

use super::{Router, Server, collector, request};
use sconce_edge_runtime::engine::Executor;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

const ASKED: usize = 400;

/// What is said of the samples that come of so many answers, which are all alike.
async fn taken(wish: Value) -> Vec<Value> {
    let (address, mut samples) = collector().await;
    let (server, router) = (Server::start(Executor::Inline, 4, 64).await, Router::start_beside(address).await);
    router.taps(&wish);
    router.routes(&[("Edge", server.address)]);
    let mut client = router.client().await;
    let mut ask = async || drop(client.model_infer(request(1)).await.unwrap());
    // Until the router has read what is collected, answers go by.
    loop {
        ask().await;
        if timeout(Duration::from_millis(50), samples.recv()).await.is_ok() {
            break;
        }
    }
    for _ in 0..ASKED {
        ask().await;
    }
    let mut taken = Vec::new();
    while let Ok(Some((said, _))) = timeout(Duration::from_secs(1), samples.recv()).await {
        taken.push(said);
    }
    taken
}

/// Each sample tells how likely one like it is taken, so that whoever learns from them can set that right.
#[tokio::test]
async fn a_share_comes_by_lot_and_all_that_the_model_is_unsure_of() {
    let dataset = "vision/digits";
    let all = taken(json!({"dataset": dataset, "share": 1})).await;
    let margin = all[0]["margin"].as_f64().unwrap();
    assert!(margin > 0.0 && all.len() >= ASKED, "{margin}, {}", all.len());
    let is = |why: &'static str, probability: f64| {
        move |said: &Value| said["why"] == why && said["probability"] == probability
    };
    assert!(all.iter().all(is("Uniform", 1.0)), "{all:?}");

    let by_lot = taken(json!({"dataset": dataset, "share": 0.25, "marginBelow": margin / 2.0})).await;
    assert!(by_lot.iter().all(is("Uniform", 0.25)), "{by_lot:?}");
    // Five standard deviations.
    assert!((57..=143).contains(&by_lot.len()), "{} of {ASKED}", by_lot.len());

    let unsure = taken(json!({"dataset": dataset, "share": 0.25, "marginBelow": margin * 2.0})).await;
    assert!(unsure.len() >= ASKED, "{} of {ASKED}", unsure.len());
    assert!(unsure.iter().all(|said| is("Hard", 1.0)(said) || is("Uniform", 1.0)(said)), "{unsure:?}");
    let hard = unsure.iter().filter(|said| is("Hard", 1.0)(said)).count();
    assert!((257..=343).contains(&hard), "{hard} of {ASKED}");
}
