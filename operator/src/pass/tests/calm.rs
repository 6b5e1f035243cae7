//! What keeps a fleet calm: gains that have to last, moves by the minute, a brake on losses; and what holds elsewhere.

use super::*;
use crate::observe::written_ratios;
use crate::pass::plans;
use crate::plan::{RatioKey, Ratios};
use sconce_api::{EdgePlacementStatus, condition};

fn fleet(world: &mut World, change: impl FnOnce(&mut Value)) {
    let mut fleet = serde_json::to_value(world.fleets.values().next().unwrap().as_ref()).unwrap();
    change(&mut fleet);
    put(&mut world.fleets, fleet);
}

fn later(mut world: World, seconds: i64) -> World {
    world.now = Timestamp::from_second(world.now.as_second() + seconds).unwrap();
    world
}

fn status(world: &World, site: &str) -> EdgePlacementStatus {
    world.placements[&("vision".to_owned(), names::placement("digits", site))].status.clone().unwrap()
}

fn reason(world: &World, site: &str) -> String {
    condition(&status(world, site).conditions, "Placed").unwrap().reason.clone()
}

fn stalled(world: &World) -> Option<String> {
    let status = world.fleets.values().next().unwrap().status.clone().unwrap();
    condition(&status.conditions, "Stalled").map(|stalled| format!("{}: {}", stalled.reason, stalled.message))
}

/// `count` sites of one node each, the first of them site-a.
fn sites(world: &mut World, count: usize) -> Vec<String> {
    let name = |index: usize| format!("site-{}", char::from(b'a' + index as u8));
    for index in 1..count {
        node(world, &format!("{}-1", name(index)), json!({"tier": "edge", "zone": name(index)}), true);
    }
    (0..count).map(name).collect()
}

#[test]
fn a_better_place_is_remembered_over_a_restart_and_taken_when_it_is_due() {
    let mut world = scene("25ms");
    fleet(&mut world, |fleet| fleet["spec"]["stability"] = json!({"settle": "5m"}));
    world = settled(world);
    change(&mut world, |model| model["spec"]["latencyBudget"] = json!("500ms"));
    world = settled(world);
    assert_eq!(reason(&world, "site-a"), "KeptByStability");
    let decision = status(&world, "site-a").decision.unwrap();
    let better = decision.better.unwrap();
    assert_eq!((better.candidate.as_str(), better.since.0.as_second()), ("cloud/f32", 1_000));
    assert_eq!(run(&world).look_at, Some(Timestamp::from_second(1_300).unwrap()));
    // Nothing else is kept anywhere.
    world = settled(later(world, 299));
    assert_eq!(reason(&world, "site-a"), "KeptByStability");
    world = settled(later(world, 1));
    let decision = status(&world, "site-a").decision.unwrap();
    assert_eq!((reason(&world, "site-a").as_str(), decision.since.0.as_second()), ("ChosenInCloud", 1_300));
    let left = decision.left.unwrap();
    assert_eq!((left.tier, left.node.as_deref(), decision.better), (sconce_api::Tier::Edge, Some("a-1"), None));
}

fn waits(world: &mut World, tier: &str, p99: &str) {
    let at = (String::new(), "a-1".to_owned());
    let mut told = world.edge_nodes[&at].as_ref().clone();
    let row = json!({"namespace": "vision", "name": "digits", "tier": tier,
        "p50": "2ms", "p99": p99, "count": 1500, "errors": 0, "rps": "5"});
    told.status.get_or_insert_default().models = vec![serde_json::from_value(row).unwrap()];
    world.edge_nodes.insert(at, Arc::new(told));
}

#[test]
fn a_budget_that_is_missed_for_long_enough_moves_the_model() {
    let mut world = scene("150ms");
    fleet(&mut world, |fleet| fleet["spec"]["stability"] = json!({"settle": "1m"}));
    world = settled(world);
    assert_eq!(reason(&world, "site-a"), "ChosenInCloud");
    waits(&mut world, "Cloud", "160ms");
    world = settled(world);
    assert_eq!(
        (stands(&world, "WithinBudget").as_str(), reason(&world, "site-a").as_str()),
        ("False/OverBudget", "ChosenInCloud")
    );
    assert_eq!(run(&world).look_at, Some(Timestamp::from_second(1_060).unwrap()));
    let samples = run(&world).ratio_samples;
    assert_eq!((samples.len(), samples[0].percent > 100), (1, true));
    world = settled(later(world, 60));
    assert_eq!(status(&world, "site-a").decision.unwrap().tier, sconce_api::Tier::Edge);
    // What was left is no better for four minutes, whatever was predicted of it.
    waits(&mut world, "Edge", "4ms");
    world = settled(later(world, 239));
    assert_eq!(reason(&world, "site-a"), "KeptByStability");
    assert_eq!(reason(&settled(later(world, 1)), "site-a"), "ChosenInCloud");
}

/// Where they were they served nobody: the limit spared no client, and cost them a minute.
#[test]
fn what_must_stay_at_its_site_comes_home_at_once() {
    let mut world = scene("500ms");
    let sites = sites(&mut world, 4);
    fleet(&mut world, |fleet| fleet["spec"]["limits"] = json!({"maxMovesPerMinute": 1}));
    let dataset = |policy: &str| {
        json!({"metadata": {"name": "seen", "namespace": "vision"}, "spec": {"fleetRef": {"name": "shops"},
        "uri": "s3://lake/seen", "kind": "Image", "privacy": {"policy": policy}}})
    };
    put(&mut world.datasets, dataset("Raw"));
    change(&mut world, |model| model["spec"]["collect"] = json!({"datasetRef": {"name": "seen"}, "share": "1%"}));
    world = settled(world);
    let told = |world: &World| sites.iter().map(|site| reason(world, site)).collect::<Vec<_>>();
    assert_eq!(told(&world), ["ChosenInCloud"; 4]);
    put(&mut world.datasets, dataset("Masked"));
    assert_eq!(told(&settled(later(world, 60))), ["ChosenAtEdge"; 4]);
}

#[test]
fn so_many_move_within_a_minute_as_may() {
    let mut world = scene("25ms");
    let sites = sites(&mut world, 4);
    fleet(&mut world, |fleet| fleet["spec"]["limits"] = json!({"maxMovesPerMinute": 3}));
    world = settled(world);
    change(&mut world, |model| model["spec"]["latencyBudget"] = json!("500ms"));
    world = settled(world);
    let told = |world: &World| sites.iter().map(|site| reason(world, site)).collect::<Vec<_>>();
    assert_eq!(told(&world), ["ChosenInCloud", "ChosenInCloud", "ChosenInCloud", "MovesCapped"]);
    assert!(world.deployments.contains_key(&("vision".to_owned(), names::placement("digits", "site-d"))));
    assert_eq!(run(&world).look_at, Some(Timestamp::from_second(1_060).unwrap()));
    assert_eq!(told(&settled(later(world, 60)))[3], "ChosenInCloud");
}

#[test]
fn a_wrong_selector_empties_no_fleet_until_a_person_confirms_it() {
    let mut world = scene("25ms");
    let sites = sites(&mut world, 8);
    world = settled(world);
    let before = (world.deployments.len(), world.placements.len());
    fleet(&mut world, |fleet| fleet["spec"]["sites"]["nodeSelector"] = json!({"matchLabels": {"tier": "egde"}}));
    let held = settled(world.clone());
    assert_eq!((held.deployments.len(), held.placements.len()), before);
    assert!(sites.iter().all(|site| reason(&held, site) == "MassChangeHeld"));
    let told = stalled(&held).unwrap();
    assert!(told.starts_with("MassChangeHeld: 8 of 9 placements and pools would be lost"), "{told}");
    // As does one that no site is selected by any more.
    let mut none = held.clone();
    change(&mut none, |model| model["spec"]["sites"] = json!({"matchLabels": {"region": "none"}}));
    assert_eq!(settled(none).placements.len(), 8);
    // A mistake that is undone leaves nothing behind.
    let mut undone = held.clone();
    fleet(&mut undone, |fleet| fleet["spec"]["sites"]["nodeSelector"] = json!({"matchLabels": {"tier": "edge"}}));
    let undone = settled(undone);
    assert_eq!((stalled(&undone), reason(&undone, "site-a").as_str()), (None, "ChosenAtEdge"));
    let mut confirmed = held;
    fleet(&mut confirmed, |fleet| fleet["metadata"]["annotations"] = json!({"sconce.dev/confirm-removals": "8"}));
    let confirmed = settled(confirmed);
    assert!(sites.iter().all(|site| reason(&confirmed, site) != "MassChangeHeld"));
    assert_eq!(stalled(&confirmed), None);
}

#[test]
fn what_is_said_otherwise_of_some_sites_holds_there_alone() {
    let mut world = scene("25ms");
    sites(&mut world, 2);
    world = settled(world);
    let mut site = world.sites[&(String::new(), "site-b".to_owned())].as_ref().clone();
    site.labels_mut().insert("stage".into(), "pilot".into());
    world.sites.insert(key(&site), Arc::new(site));
    let pilots = json!({"matchLabels": {"stage": "pilot"}});
    change(&mut world, |model| {
        model["spec"]["overrides"] = json!([
            {"name": "pilots", "sites": pilots, "latencyBudget": "500ms", "load": {"requestsPerSecond": 3}},
            {"name": "never", "sites": pilots, "placement": {"tier": "Edge"}},
        ]);
    });
    world = settled(world);
    assert_eq!(
        (reason(&world, "site-a").as_str(), reason(&world, "site-b").as_str()),
        ("ChosenAtEdge", "ChosenInCloud")
    );
    let b = status(&world, "site-b");
    assert_eq!((b.overridden_by.as_deref(), b.budget), (Some("pilots"), Some("500ms".into())));
    assert!(condition(&b.conditions, "Placed").unwrap().message.contains("of 500 ms by override pilots"));
    let model = world.models.values().next().unwrap().status.clone().unwrap();
    let overridden = condition(&model.conditions, "Overridden").unwrap();
    assert_eq!((overridden.status.as_str(), overridden.reason.as_str()), ("False", "OverrideUnused"));
    assert_eq!(overridden.message, "never applies nowhere: earlier ones apply at all 1 sites that it selects");
}

/// A neighbour takes the node's CPU, and later gives it back.
#[test]
fn a_busy_node_is_left_at_once_and_returned_to_after_four_times_settle() {
    let mut world = scene("150ms");
    fleet(&mut world, |fleet| fleet["spec"]["stability"] = json!({"settle": "1m"}));
    change(&mut world, |model| model["spec"]["placement"] = json!({"objective": "Latency"}));
    let version = world.versions.values_mut().next().unwrap();
    Arc::make_mut(version).status.as_mut().unwrap().variants[0].flops = 85_000_000;
    let busy = |world: &mut World, cores: &str| {
        let told = world.edge_nodes.get_mut(&(String::new(), "a-1".to_owned())).unwrap();
        let usage = json!({"cpuBusyP95": cores, "memoryUsed": "1Gi"});
        Arc::make_mut(told).status.as_mut().unwrap().usage = Some(serde_json::from_value(usage).unwrap());
    };
    world = settled(world);
    assert_eq!(reason(&world, "site-a"), "ChosenAtEdge");
    busy(&mut world, "18");
    world = settled(world);
    assert_eq!(reason(&world, "site-a"), "ChosenInCloud");
    busy(&mut world, "100m");
    world = settled(later(world, 10));
    assert_eq!(reason(&world, "site-a"), "KeptByStability");
    let placed = condition(&status(&world, "site-a").conditions, "Placed").unwrap().message.clone();
    assert!(placed.ends_with("and was left less than 4 min ago, four times settle"), "{placed}");
    world = settled(later(world, 229));
    assert_eq!(reason(&world, "site-a"), "KeptByStability");
    assert_eq!(reason(&settled(later(world, 1)), "site-a"), "ChosenAtEdge");
}

/// Every 20 s all of a fleet's models are wished elsewhere, and nothing has to last.
#[test]
fn however_wishes_change_no_minute_has_more_moves_than_may() {
    let mut world = scene("25ms");
    let sites = sites(&mut world, 6);
    fleet(&mut world, |fleet| fleet["spec"]["limits"] = json!({"maxMovesPerMinute": 2}));
    world = settled(world);
    let home = |world: &World, site: &String| status(world, site).decision.unwrap().tier;
    let mut moved = Vec::new();
    for step in 0..30 {
        let before: Vec<_> = sites.iter().map(|site| home(&world, site)).collect();
        change(&mut world, |model| {
            model["spec"]["latencyBudget"] = json!(if step % 2 == 0 { "500ms" } else { "25ms" });
        });
        world = settled(later(world, 20));
        let moves = sites.iter().zip(before).filter(|(site, before)| home(&world, site) != *before).count();
        moved.extend(std::iter::repeat_n(world.now.as_second(), moves));
    }
    assert!(moved.len() >= 12, "what may move does: {moved:?}");
    assert!(moved.windows(3).all(|three| three[2] - three[0] >= 60), "{moved:?}");
}

#[test]
fn who_leaves_a_node_that_is_gone_altogether_waits_for_nobody() {
    let mut world = scene("150ms");
    let sites = sites(&mut world, 8);
    change(&mut world, |model| model["spec"]["placement"] = json!({"objective": "Latency"}));
    world = settled(world);
    assert!(sites.iter().all(|site| reason(&world, site) == "ChosenAtEdge"));
    world.nodes.retain(|(_, name), _| name == "cloud-1");
    world = settled(world);
    assert_eq!(stalled(&world), None);
    assert!(sites.iter().all(|site| reason(&world, site) == "ChosenInCloud"));
}

/// A selector of cloud nodes that selects none took every fallback at once.
#[test]
fn a_selector_that_selects_no_cloud_node_takes_no_pool_and_pools_that_are_given_up_wait_for_a_person() {
    let mut world = scene("25ms");
    let (model, version) =
        (world.models.values().next().unwrap().clone(), world.versions.values().next().unwrap().clone());
    for index in 1..8 {
        let name = format!("digits-{index}");
        let mut model = model.as_ref().clone();
        model.metadata.name = Some(name.clone());
        model.metadata.uid = Some(name.clone());
        model.status.as_mut().unwrap().desired.as_mut().unwrap().version = names::version(&name, DIGEST);
        world.models.insert(key(&model), Arc::new(model));
        let mut version = version.as_ref().clone();
        version.metadata.name = Some(names::version(&name, DIGEST));
        version.spec.model_ref.name = name;
        world.versions.insert(key(&version), Arc::new(version));
    }
    world = settled(world);
    let cloud = |world: &mut World, tier: &str| {
        fleet(world, |fleet| fleet["spec"]["cloud"] = json!({"nodeSelector": {"matchLabels": {"tier": tier}}}));
    };
    let leaving = |world: &World| world.deployments.values().filter(|live| live.retires_at().is_some()).count();
    assert_eq!((world.services.len(), world.placements.len()), (8, 8));
    cloud(&mut world, "clod");
    let mut world = settled(world);
    assert_eq!((stalled(&world), leaving(&world)), (None, 0));
    fleet(&mut world, |fleet| fleet["spec"]["cloud"] = json!(null));
    let mut held = settled(world);
    assert_eq!(leaving(&held), 0);
    let told = stalled(&held).unwrap();
    assert!(told.starts_with("MassChangeHeld: 8 of 16 placements and pools would be lost"), "{told}");
    let mut undone = held.clone();
    cloud(&mut undone, "cloud");
    let undone = settled(undone);
    assert_eq!((stalled(&undone), leaving(&undone)), (None, 0));
    fleet(&mut held, |fleet| fleet["metadata"]["annotations"] = json!({"sconce.dev/confirm-removals": "8"}));
    assert_eq!(leaving(&settled(held)), 8);
}

#[test]
fn what_was_learned_is_written_and_a_new_leader_plans_the_same() {
    let mut world = scene("25ms");
    let mut ratios = Ratios::default();
    ratios.put(RatioKey { class: "amd64-avx2-2".into(), variant: "f32".into(), tier: sconce_api::Tier::Edge }, 80);
    world.ratios = Arc::new(ratios);
    world = settled(world);
    let next = World { ratios: Arc::new(written_ratios(&world.fleets)), ..world.clone() };
    assert_eq!(next.ratios, world.ratios);
    let steps = run(&next);
    assert!(steps.objects.is_empty() && steps.statuses.is_empty(), "{steps:#?}");
    // Who forgot it plans otherwise, and writes that.
    let forgetful = World { ratios: Arc::default(), ..world.clone() };
    assert_ne!(plans(&forgetful).unwrap(), plans(&world).unwrap());
    assert_eq!(plans(&next).unwrap(), plans(&world).unwrap());
    assert!(!run(&forgetful).statuses.is_empty());
}

fn surges(world: &World, surge: u32, unavailable: u32) -> bool {
    let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
    edge_has(world, &json!({"spec": {"strategy": {"rollingUpdate": rolling}}}))
}

#[test]
fn a_full_node_updates_without_a_surge_and_who_leaves_a_node_is_followed_first() {
    let allocates = |world: &mut World, name: &str, memory: &str| {
        let node = world.nodes.get_mut(&(String::new(), name.to_owned())).unwrap();
        let status = Arc::make_mut(node).status.as_mut().unwrap();
        status.allocatable.as_mut().unwrap().get_mut("memory").unwrap().0 = memory.into();
    };
    let mut world = scene("25ms");
    allocates(&mut world, "a-1", "60Mi");
    world = settled(world);
    assert!(surges(&world, 0, 1));
    // Its node leaves, and there is another as full.
    pod(&mut world, &edge(), "10.0.0.1", "a-1");
    node(&mut world, "a-2", json!({"tier": "edge", "zone": "site-a"}), true);
    allocates(&mut world, "a-2", "60Mi");
    Arc::make_mut(world.nodes.get_mut(&(String::new(), "a-1".to_owned())).unwrap())
        .spec
        .get_or_insert_default()
        .unschedulable = Some(true);
    world = settled(world);
    assert_eq!(status(&world, "site-a").decision.unwrap().nodes, ["a-2"]);
    assert!(surges(&world, 1, 0), "the old pod serves until the new one does");
    world.model_pods.clear();
    let steps = run(&settled(world));
    assert!(steps.objects.is_empty(), "that there is no room now is no roll-out: {steps:#?}");
}
