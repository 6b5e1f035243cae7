//! What is decided, served, moved, lost, and in the way.

use super::*;

#[test]
fn a_model_comes_to_the_edge_and_then_nothing_is_written() {
    let mut world = settled(scene("25ms"));
    assert_eq!(
        (stands(&world, "Placed"), stands(&world, "Serving")),
        ("True/ChosenAtEdge".into(), "False/Starting".into())
    );
    pod(&mut world, &edge(), "10.1.0.5", "a-1");
    pool_answers(&mut world);
    let world = settled(world);
    assert_eq!(stands(&world, "Ready"), "True/Ready");
    assert_eq!(endpoints(&world), ["10.1.0.5", "10.96.0.9"], "the edge first, the cloud as the fallback");
    let model = world.models.values().next().unwrap().status.clone().unwrap();
    assert_eq!(model.sites.unwrap().serving, "1/1");
    assert_eq!(model.address.as_deref(), Some("digits.vision"));
}

#[test]
fn pods_that_cannot_replace_those_that_answer_are_told() {
    let mut world = settled(scene("25ms"));
    pod(&mut world, &edge(), "10.1.0.5", "a-1");
    let labels = pod_labels(&world, &edge());
    let fails = json!({"metadata": {"name": "next", "namespace": "vision", "labels": labels},
        "spec": {"nodeName": "a-1", "containers": []},
        "status": {"initContainerStatuses": [{"name": "fetch", "image": "", "imageID": "", "ready": false, "restartCount": 1,
            "state": {"terminated": {"exitCode": 1, "message": "SignatureInvalid: by nobody"}}}]}});
    world.add_pod(Arc::new(serde_json::from_value(fails).unwrap()));
    let world = settled(world);
    assert_eq!(stands(&world, "Serving"), "True/Serving");
    assert_eq!(stands(&world, "Reconciling"), "True/SignatureInvalid");
    assert_eq!(endpoints(&world), ["10.1.0.5"]);
}

/// The router of the site's node tells what its clients waited for answers of this tier.
fn waits(world: &mut World, tier: &str, p99: &str) {
    waits_of(world, "a-1", tier, p99);
}

fn waits_of(world: &mut World, node: &str, tier: &str, p99: &str) {
    let at = (String::new(), node.to_owned());
    let mut told = world.edge_nodes[&at].as_ref().clone();
    let row = json!({"namespace": "vision", "name": "digits", "tier": tier,
        "p50": "2ms", "p99": p99, "count": 1500, "errors": 0, "rps": "5"});
    told.status.get_or_insert_default().models = vec![serde_json::from_value(row).unwrap()];
    world.edge_nodes.insert(at, Arc::new(told));
}

#[test]
fn what_clients_wait_decides_whether_the_budget_is_kept() {
    let mut world = settled(scene("25ms"));
    assert_eq!(stands(&world, "WithinBudget"), "Unknown/TooFewSamples");
    let model = |world: &World| {
        let conditions = world.models.values().next().unwrap().status.clone().unwrap().conditions;
        conditions.into_iter().find(|condition| condition.type_ == "WithinBudget").unwrap()
    };
    waits(&mut world, "Edge", "4ms");
    world = settled(world);
    assert_eq!((stands(&world, "WithinBudget").as_str(), model(&world).reason.as_str()), ("True/Within", "Within"));
    waits(&mut world, "Edge", "31ms");
    world = settled(world);
    assert_eq!(stands(&world, "WithinBudget"), "False/OverBudget");
    let told =
        "1 of 1 sites do not keep it; site-a: clients waited 31ms (p99) of 25ms; 1500 answers in the last five minutes";
    assert_eq!(model(&world).message, told);
    waits(&mut world, "Cloud", "45ms");
    world = settled(world);
    assert_eq!(stands(&world, "WithinBudget"), "Unknown/TooFewSamples", "the place that was left says nothing");
    // A second node, lost after it told this.
    node(&mut world, "a-2", json!({"tier": "edge", "zone": "site-a"}), false);
    waits_of(&mut world, "a-2", "Edge", "31ms");
    assert_eq!(stands(&settled(world), "WithinBudget"), "Unknown/TooFewSamples");
}

#[test]
fn the_edge_serves_on_until_the_cloud_answers_and_then_drains() {
    let mut world = settled(scene("25ms"));
    pod(&mut world, &edge(), "10.1.0.5", "a-1");
    world = settled(world);
    let at = ("vision".to_owned(), "digits".to_owned());
    let mut model = world.models[&at].as_ref().clone();
    model.spec.latency_budget = "500ms".into();
    world.models.insert(at, Arc::new(model));
    world = settled(world);
    assert_eq!(stands(&world, "Placed"), "True/ChosenInCloud");
    assert_eq!((endpoints(&world), stands(&world, "Serving")), (vec!["10.1.0.5".to_owned()], "True/Serving".into()));
    pool_answers(&mut world);
    world = settled(world);
    assert_eq!(endpoints(&world), ["10.96.0.9"], "no longer routed to the edge");
    let there = |world: &World| world.deployments.contains_key(&("vision".to_owned(), edge()));
    assert!(there(&world), "but it drains");
    assert_eq!(run(&world).look_at, Some(Timestamp::from_second(1010).unwrap()));
    world.now = Timestamp::from_second(1010).unwrap();
    assert!(!there(&settled(world)));
}

#[test]
fn a_site_without_contact_keeps_all_that_it_has() {
    let mut world = settled(scene("25ms"));
    pod(&mut world, &edge(), "10.1.0.5", "a-1");
    world = settled(world);
    let before = world.deployments.clone();
    node(&mut world, "a-1", json!({"tier": "edge", "zone": "site-a"}), false);
    world.model_pods.clear();
    let world = settled(world);
    assert_eq!(world.deployments, before);
    assert_eq!(endpoints(&world), ["10.1.0.5"]);
    assert_eq!(
        (stands(&world, "Placed"), stands(&world, "Serving")),
        ("True/KeptUnreachable".into(), "Unknown/NoContact".into())
    );
}

/// Seen on a real cluster: for six seconds after a cut healed the serving pod was routed to no longer.
#[test]
fn a_pod_that_served_through_a_cut_is_routed_to_at_once() {
    let mut world = settled(scene("25ms"));
    pod(&mut world, &edge(), "10.1.0.5", "a-1");
    world = settled(world);
    let at = ("vision".to_owned(), edge());
    let mut silent = world.model_pods[&at][0].as_ref().clone();
    (silent.is_ready, silent.answers_on_its_node) = (false, true);
    world.model_pods.insert(at, vec![Arc::new(silent)]);
    let world = settled(world);
    assert_eq!((endpoints(&world), stands(&world, "Ready")), (vec!["10.1.0.5".to_owned()], "True/Ready".into()));
}

#[test]
fn without_its_fleet_a_model_says_so_and_nothing_of_it_goes() {
    let mut world = settled(scene("25ms"));
    world.fleets.clear();
    let steps = run(&world);
    assert_eq!((steps.objects, steps.farewells), (Vec::new(), Vec::new()));
    let world = settled(world);
    let model = world.models.values().next().unwrap().status.clone().unwrap();
    let stalled = model.conditions.iter().find(|condition| condition.type_ == "Stalled").unwrap();
    assert_eq!(stalled.message, "there is no EdgeFleet shops (there is none)");
}

/// Of two sites the one with contact decides whether the model serves.
#[test]
fn sites_without_contact_are_counted_and_not_failed() {
    let mut world = scene("25ms");
    node(&mut world, "b-1", json!({"tier": "edge", "zone": "site-b"}), true);
    world = settled(world);
    let other = names::placement("digits", "site-b");
    pod(&mut world, &edge(), "10.1.0.5", "a-1");
    pod(&mut world, &other, "10.1.0.6", "b-1");
    world = settled(world);
    node(&mut world, "b-1", json!({"tier": "edge", "zone": "site-b"}), false);
    let model = settled(world).models.values().next().unwrap().status.clone().unwrap();
    let sites = model.sites.unwrap();
    assert_eq!((sites.serving.as_str(), sites.offline), ("1/2", 1));
    let said: Vec<_> = model.conditions.iter().map(|said| format!("{}={}", said.type_, said.status)).collect();
    assert_eq!(said, ["Ready=True", "Resolved=True", "Placed=True", "Serving=True", "WithinBudget=Unknown"]);
}

#[test]
fn what_is_in_the_way_is_said_and_then_nothing_is_written() {
    let world = settled(scene("25ms"));
    let refusal = Refusal { reason: Reason::NameConflict, message: "a Deployment that is not ours".into() };
    let refusals = Refusals::from([((Kind::Deployment, ("vision".to_owned(), edge())), refusal)]);
    let world = carried_out(world.clone(), &run_refused(&world, &refusals));
    assert_eq!(stands(&world, "Serving"), "False/NameConflict");
    assert_eq!(run_refused(&world, &refusals).statuses, []);
}

/// Its routers cannot be told of the new version's pool.
#[test]
fn a_pool_stays_while_a_site_without_contact_is_routed_to_it() {
    let mut world = settled(scene("500ms"));
    let pool = pool_answers(&mut world);
    world = settled(world);
    assert_eq!(endpoints(&world), ["10.96.0.9"]);
    node(&mut world, "a-1", json!({"tier": "edge", "zone": "site-a"}), false);
    is_updated(&mut world);
    world = settled(world);
    answers(&mut world, NEWER, "10.96.0.10");
    world = settled(world);
    assert_eq!(is_leaving(&world, &pool), Some(false));
    node(&mut world, "a-1", json!({"tier": "edge", "zone": "site-a"}), true);
    world = settled(world);
    assert_eq!((endpoints(&world), is_leaving(&world, &pool)), (vec!["10.96.0.10".to_owned()], Some(true)));
}

#[test]
fn pods_that_a_quota_refuses_are_said_to_be() {
    let mut world = settled(scene("25ms"));
    let at = ("vision".to_owned(), edge());
    let mut live = world.deployments[&at].as_ref().clone();
    live.refused = Some("exceeded quota: q".into());
    world.deployments.insert(at.clone(), Arc::new(live));
    let placement = settled(world).placements[&at].status.clone().unwrap();
    let serving = placement.conditions.iter().find(|condition| condition.type_ == "Serving").unwrap();
    assert_eq!((serving.status.as_str(), serving.message.as_str()), ("False", "exceeded quota: q"));
}
