//! What is suspended, or whose site is paused.

use super::*;

#[test]
fn a_suspended_model_stays_as_it_is_whatever_is_asked_of_it() {
    let mut world = settled(scene("25ms"));
    pod(&mut world, &edge(), "10.1.0.5", "a-1");
    world = settled(world);
    let before = (world.deployments.clone(), world.services.clone(), world.versions.clone());
    change(&mut world, |model| {
        model["spec"]["suspend"] = json!(true);
        model["spec"]["latencyBudget"] = json!("400ms");
        model["spec"]["model"]["uri"] = json!("oci://r:5000/m/numbers:2");
    });
    assert!(run(&world).to_resolve.is_empty());
    let mut world = settled(world);
    assert_eq!((world.deployments.clone(), world.services.clone(), world.versions.clone()), before);
    assert_eq!((stands(&world, "Placed"), stands(&world, "Ready")), ("True/Suspended".into(), "True/Ready".into()));
    assert_eq!(endpoints(&world)[0], "10.1.0.5");
    assert!(world.placements.values().next().unwrap().status.as_ref().unwrap().predicted.is_some());
    let model = world.models.values().next().unwrap().status.clone().unwrap();
    let resolved = model.conditions.into_iter().find(|condition| condition.type_ == "Resolved").unwrap();
    assert_eq!(resolved.message, format!("{URI} is {}", names::version("digits", DIGEST)));
    // A version that was deleted is read again as what is served.
    world.versions.clear();
    assert_eq!(run(&world).to_resolve[0].1.uri, format!("oci://r:5000/m/digits@{DIGEST}"));
}

#[test]
fn a_suspended_model_keeps_its_pool_as_it_is() {
    let mut world = settled(scene("500ms"));
    pool_answers(&mut world);
    world = settled(world);
    let before = (world.deployments.clone(), world.services.clone(), world.disruption_budgets.clone());
    change(&mut world, |model| {
        model["spec"]["suspend"] = json!(true);
        model["spec"]["load"] = json!({"requestsPerSecond": 5_000});
        model["spec"]["serving"] = json!({"maxBatchSize": 64});
        model["spec"]["hardware"] = json!({"require": [{"key": "tier", "operator": "Exists"}]});
    });
    world = settled(world);
    assert_eq!((world.deployments.clone(), world.services.clone(), world.disruption_budgets.clone()), before);
    assert_eq!((stands(&world, "Placed"), stands(&world, "Ready")), ("True/Suspended".into(), "True/Ready".into()));
    change(&mut world, |model| model["spec"]["suspend"] = json!(false));
    assert_ne!(settled(world).deployments, before.0);
}

#[test]
fn what_was_deleted_of_a_suspended_model_is_said_to_be_gone() {
    let mut world = settled(scene("25ms"));
    change(&mut world, |model| model["spec"]["suspend"] = json!(true));
    world.deployments.remove(&("vision".to_owned(), edge()));
    world = settled(world);
    let status = world.placements.values().next().unwrap().status.clone().unwrap();
    let serving = status.conditions.iter().find(|condition| condition.type_ == "Serving").unwrap();
    let told = format!("the Deployment {} is gone, and nothing makes it again: digits is suspended", edge());
    assert_eq!((serving.reason.as_str(), serving.message.as_str()), ("Suspended", told.as_str()));
    assert!(status.conditions.iter().all(|condition| condition.type_ != "Reconciling"));
    change(&mut world, |model| model["spec"]["suspend"] = json!(false));
    assert!(settled(world).deployments.contains_key(&("vision".to_owned(), edge())));
}

#[test]
fn a_move_that_has_begun_ends_though_the_model_is_suspended() {
    for in_the_drain in [false, true] {
        let mut world = settled(scene("25ms"));
        pod(&mut world, &edge(), "10.1.0.5", "a-1");
        world = settled(world);
        change(&mut world, |model| model["spec"]["latencyBudget"] = json!("500ms"));
        world = settled(world);
        if in_the_drain {
            pool_answers(&mut world);
            world = settled(world);
        }
        change(&mut world, |model| model["spec"]["suspend"] = json!(true));
        world = settled(world);
        assert_eq!(stands(&world, "Placed"), "True/Suspended");
        assert_eq!(endpoints(&world), [if in_the_drain { "10.96.0.9" } else { "10.1.0.5" }]);
        pool_answers(&mut world);
        world = settled(world);
        world.now = Timestamp::from_second(1010).unwrap();
        world = settled(world);
        assert!(!world.deployments.contains_key(&("vision".to_owned(), edge())));
        assert_eq!((endpoints(&world), stands(&world, "Ready")), (vec!["10.96.0.9".to_owned()], "True/Ready".into()));
        let status = world.placements.values().next().unwrap().status.clone().unwrap();
        assert!(status.conditions.iter().all(|condition| condition.type_ != "Reconciling"));
    }
}

fn pauses(world: &mut World, paused: bool) {
    let mut site = world.sites.values().next().unwrap().as_ref().clone();
    site.spec.paused = paused;
    world.sites.insert(key(&site), Arc::new(site));
}

#[test]
fn a_paused_site_stays_with_the_pool_that_it_has() {
    let mut world = settled(scene("500ms"));
    let pool = pool_answers(&mut world);
    world = settled(world);
    pauses(&mut world, true);
    is_updated(&mut world);
    world = settled(world);
    answers(&mut world, NEWER, "10.96.0.10");
    world = settled(world);
    assert_eq!((endpoints(&world), is_leaving(&world, &pool)), (vec!["10.96.0.9".to_owned()], Some(false)));
    assert_eq!((stands(&world, "Placed"), stands(&world, "Ready")), ("True/SitePaused".into(), "True/Ready".into()));
    pauses(&mut world, false);
    world = settled(world);
    assert_eq!((endpoints(&world), is_leaving(&world, &pool)), (vec!["10.96.0.10".to_owned()], Some(true)));
}
