//! What a model is collected for decides whether its requests may leave their site.

use super::*;
use sconce_api::condition;

fn dataset(world: &mut World, policy: &str) {
    put(
        &mut world.datasets,
        json!({"metadata": {"name": "seen", "namespace": "vision"}, "spec": {"fleetRef": {"name": "shops"},
        "uri": "s3://lake/seen", "kind": "Image", "privacy": {"policy": policy}}}),
    );
}

fn is_collected(world: &mut World) {
    change(world, |model| model["spec"]["collect"] = json!({"datasetRef": {"name": "seen"}, "share": "1%"}));
}

/// Why the cloud does not serve site-a.
fn closed(world: &World) -> Option<String> {
    let status = world.placements[&("vision".to_owned(), edge())].status.clone().unwrap();
    let cloud = status.rejected.into_iter().find(|rejected| rejected.candidate.starts_with("cloud/"))?;
    Some(format!("{}: {}", cloud.reason, cloud.message))
}

const MISSING: &str = "DataMustStay: the dataset seen that it is collected for is not found, or cannot be read";

/// Such a model was placed as if nothing were private.
#[test]
fn while_its_dataset_is_not_there_a_new_model_stays_at_the_edge() {
    let mut world = scene("500ms");
    is_collected(&mut world);
    world = settled(world);
    assert_eq!((stands(&world, "Placed"), closed(&world).as_deref()), ("True/ChosenAtEdge".into(), Some(MISSING)));
    assert!(world.services.is_empty(), "not even as the fallback: {:?}", world.services.keys());
    dataset(&mut world, "Masked");
    world = settled(world);
    let told = "DataMustStay: the dataset seen that it is collected for is Masked";
    assert_eq!((stands(&world, "Placed"), closed(&world).as_deref()), ("True/ChosenAtEdge".into(), Some(told)));
    dataset(&mut world, "Raw");
    assert_eq!(stands(&settled(world), "Placed"), "True/ChosenInCloud");
}

/// Somebody says first that a model is collected, and a moment later for what.
#[test]
fn what_the_cloud_serves_when_its_dataset_is_not_there_yet_is_not_moved() {
    let mut world = settled(scene("500ms"));
    pool_answers(&mut world);
    world = settled(world);
    is_collected(&mut world);
    world = settled(world);
    assert_eq!(
        (stands(&world, "Placed").as_str(), endpoints(&world)),
        ("True/ChosenInCloud", vec!["10.96.0.9".into()])
    );
    dataset(&mut world, "Raw");
    let placement = world.placements.clone();
    assert_eq!(settled(world.clone()).placements, placement);
    dataset(&mut world, "Masked");
    assert_eq!(stands(&settled(world), "Placed"), "True/ChosenAtEdge");
}

/// What was told went on as long as no pod answered at the edge.
#[test]
fn what_must_stay_leaves_no_more_though_nobody_answers_at_the_edge() {
    let masked = |mut world: World| {
        let pool = pool_answers(&mut world);
        is_collected(&mut world);
        dataset(&mut world, "Raw");
        world = settled(world);
        assert!(endpoints(&world).contains(&"10.96.0.9".into()));
        dataset(&mut world, "Masked");
        (settled(world), pool)
    };
    let is_shut = |world: &World, pool: &str| {
        assert_eq!((endpoints(world), is_leaving(world, pool)), (vec![], Some(true)));
    };
    // Served by the cloud.
    let (mut world, pool) = masked(settled(scene("500ms")));
    is_shut(&world, &pool);
    assert_eq!(stands(&world, "Placed"), "True/ChosenAtEdge");
    pod(&mut world, &edge(), "10.1.0.5", "a-1");
    assert_eq!(endpoints(&settled(world)), ["10.1.0.5"]);
    // With the cloud as the fallback.
    let (world, pool) = masked(settled(scene("25ms")));
    is_shut(&world, &pool);
}

/// Neither may what is kept as it is.
#[test]
fn what_must_stay_does_not_leave_a_model_that_is_held_in_the_cloud() {
    let mut served = settled(scene("500ms"));
    let pool = pool_answers(&mut served);
    is_collected(&mut served);
    dataset(&mut served, "Raw");
    let served = settled(served);
    assert_eq!(endpoints(&served), ["10.96.0.9"]);

    let mut world = served.clone();
    change(&mut world, |model| model["spec"]["suspend"] = json!(true));
    dataset(&mut world, "Masked");
    world = settled(world);
    assert_eq!((endpoints(&world), is_leaving(&world, &pool)), (vec![], Some(true)));
    let held = ("True/Suspended".to_owned(), "False/DataMustStay".to_owned());
    assert_eq!((stands(&world, "Placed"), stands(&world, "Serving")), held);

    // Without contact.
    let mut world = served;
    node(&mut world, "a-1", json!({"tier": "edge", "zone": "site-a"}), false);
    dataset(&mut world, "Masked");
    world = settled(world);
    assert_eq!((endpoints(&world), is_leaving(&world, &pool)), (vec![], Some(true)));
    assert_eq!(stands(&world, "Placed"), "True/KeptUnreachable");
}

#[test]
fn an_edge_keeps_the_fallback_that_it_has_and_gets_none_while_its_dataset_is_not_there() {
    let mut world = settled(scene("25ms"));
    pod(&mut world, &edge(), "10.1.0.5", "a-1");
    pool_answers(&mut world);
    world = settled(world);
    is_collected(&mut world);
    node(&mut world, "b-1", json!({"tier": "edge", "zone": "site-b"}), true);
    world = settled(world);
    let other = names::placement("digits", "site-b");
    pod(&mut world, &other, "10.1.0.6", "b-1");
    world = settled(world);
    assert_eq!(endpoints(&world), ["10.1.0.5", "10.96.0.9"]);
    let told = |world: &World| {
        let status = world.placements[&("vision".to_owned(), other.clone())].status.clone().unwrap();
        let serving = condition(&status.conditions, "Serving").unwrap().status.clone();
        (serving, status.endpoints.into_iter().map(|endpoint| endpoint.address).collect::<Vec<_>>())
    };
    assert_eq!(told(&world), ("True".into(), vec!["10.1.0.6".to_owned()]));
    // Private after all, and then the dataset is deleted: what was closed stays closed.
    dataset(&mut world, "Masked");
    world = settled(world);
    assert_eq!(endpoints(&world), ["10.1.0.5"]);
    world.datasets.clear();
    world = settled(world);
    assert_eq!(endpoints(&world), ["10.1.0.5"]);
    dataset(&mut world, "Raw");
    world = settled(world);
    pool_answers(&mut world);
    assert_eq!(endpoints(&settled(world)), ["10.1.0.5", "10.96.0.9"]);
}
