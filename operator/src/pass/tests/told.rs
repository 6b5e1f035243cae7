//! What is told as events.

use super::*;
use crate::pass::news;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use sconce_api::EdgeModel;

#[test]
fn what_is_well_from_the_start_is_no_news() {
    let model: EdgeModel = serde_json::from_value(json!({"metadata": {"name": "digits"},
        "spec": {"fleetRef": {"name": "shops"}, "model": {"uri": URI}, "latencyBudget": "25ms"}}))
    .unwrap();
    let is = |status: &str, reason: &str| {
        vec![Condition {
            type_: "Placed".into(),
            status: status.into(),
            reason: reason.into(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }]
    };
    let told = |old: &[Condition], new: &[Condition]| news(&model, &["Placed"], old, new).len();
    assert_eq!(told(&[], &is("True", "ChosenAtEdge")), 0);
    assert_eq!(told(&[], &is("False", "InsufficientMemory")), 1);
    assert_eq!(told(&is("False", "InsufficientMemory"), &is("True", "ChosenAtEdge")), 1);
    assert_eq!(told(&is("True", "ChosenInCloud"), &is("True", "ChosenAtEdge")), 1);
    assert_eq!(told(&is("True", "ChosenAtEdge"), &is("True", "ChosenAtEdge")), 0);
}
