//! Offers and pools.

use super::*;
use Reason::*;

fn cnn() -> FleetModel {
    FleetModel {
        name: name("digits"),
        version: "digits-0123456789-r1".into(),
        tier: TierChoice::Auto,
        data_stays: None,
        has_pool: false,
        require: Vec::new(),
        peak_factor_millis: 150_000,
        max_batch_size: 16,
        variants: vec![f32()],
        cloud_load: BTreeMap::new(),
        accuracy_floor_millis: Some(97_000),
    }
}

fn plan(nodes: impl Into<Vec<Node>>, model: FleetModel) -> FleetPlan {
    plan_fleet(&FleetSnapshot { cloud_nodes: nodes.into(), reserve_millis: 0, models: vec![model] })
}

#[test]
fn the_offer_is_the_slowest_class_that_a_pod_may_land_on() {
    let nodes = || [node("a").gflops(100), node("b").gflops(40).label("disk", "ssd"), node("c").gflops(20).down()];
    assert_eq!(plan(nodes(), cnn()).offers[&name("digits")], CloudOffer::Pool(speed(40)));
    let require = vec![Requirement { key: "disk".into(), operator: Operator::DoesNotExist, values: Vec::new() }];
    let picky = FleetModel { require, ..cnn() };
    assert_eq!(plan(nodes(), picky).offers[&name("digits")], CloudOffer::Pool(speed(100)));
}

#[test]
fn no_offer_says_why() {
    let check = |nodes: &[Node], model: FleetModel, reason: Reason, message: &str, pools: usize| {
        let plan = plan(nodes, model);
        let expected = CloudOffer::None { reason, message: message.into() };
        assert_eq!(plan.offers[&name("digits")], expected);
        assert_eq!(plan.pools.len(), pools, "{message}");
    };
    let picky = |pairs: &[(&str, &str)]| FleetModel {
        require: pairs
            .iter()
            .map(|(key, value)| Requirement {
                key: (*key).into(),
                operator: Operator::In,
                values: vec![(*value).into()],
            })
            .collect(),
        ..cnn()
    };
    let edge = FleetModel { tier: TierChoice::Edge, ..cnn() };
    check(&[node("a")], edge, TierExcluded, "placement.tier is Edge", 0);
    let private = FleetModel { data_stays: Some(DataStays::Always("the dataset seen is Masked".into())), ..cnn() };
    check(&[node("a")], private, DataMustStay, "the dataset seen is Masked", 0);
    let unknown = FleetModel { data_stays: Some(DataStays::Unknown("there is no dataset seen".into())), ..cnn() };
    check(&[node("a")], unknown, DataMustStay, "there is no dataset seen", 0);
    check(&[], cnn(), NoNodes, "the fleet has no cloud node", 0);
    check(&[node("a").down()], cnn(), NodeNotReady, "no cloud node is Ready", 1);
    check(&[node("a").leaving()], cnn(), NodeLeaving, "every cloud node is cordoned or about to leave", 1);
    let camera = picky(&[("sconce.dev/camera", "v2")]);
    check(&[node("a")], camera, HardwareMismatch, "no cloud node has sconce.dev/camera In [v2]", 0);
    let split = [node("a").label("x", "1"), node("b").label("y", "1")];
    let both = picky(&[("x", "1"), ("y", "1")]);
    check(&split, both, HardwareMismatch, "no cloud node has x In [1] and y In [1] together", 0);
    let unmeasured = [node("a").without_speed()];
    check(&unmeasured, cnn(), NoProfile, "no agent of a cloud node has reported its speed yet", 0);
}

#[test]
fn a_pool_keeps_one_replica_for_the_routers_fallback() {
    let plan = plan([node("a")], cnn());
    let request = Resources { cpu_millis: 50, memory_bytes: 27 * MIB };
    let version = "digits-0123456789-r1".into();
    assert_eq!(plan.pools, [Pool { model: name("digits"), version, variant: "f32".into(), replicas: 1, request }]);
}

#[test]
fn the_memory_of_a_pool_is_for_its_largest_batch() {
    let variants = vec![Variant { memory_bytes: 20 * MIB, scratch_bytes: MIB, ..f32() }];
    let pools = plan([node("a")], FleetModel { max_batch_size: 256, variants, ..cnn() }).pools;
    assert_eq!(pools[0].request.memory_bytes, 284 * MIB);
}

#[test]
fn a_pool_grows_with_the_sites_that_it_serves() {
    let check = |sites: u64, replicas: u64, cpu_millis: u64| {
        let model = FleetModel { cloud_load: [("f32".into(), 100 * sites)].into(), ..cnn() };
        let pool = &plan([node("a")], model).pools[0];
        assert_eq!((pool.replicas, pool.request.cpu_millis), (replicas, cpu_millis), "{sites} sites");
    };
    // 71.2 us each: 100 req/s with a peak of 150 % take 1.5 % of a replica that is to be 70 % busy.
    check(1, 1, 50);
    check(60, 1, 800);
    check(70, 2, 400);
    check(3_000, 46, 800);
}

#[test]
fn the_fallback_is_the_most_accurate_variant_above_the_floor() {
    let variant = |name: &str, accuracy| Variant { name: name.into(), accuracy_millis: accuracy, ..f32() };
    let variants = vec![
        variant("f16", Some(97_900)),
        variant("f32", Some(98_000)),
        variant("int8", Some(97_100)),
        variant("x", None),
    ];
    let model = FleetModel { variants, cloud_load: [("int8".into(), 20)].into(), ..cnn() };
    let pools = plan([node("a")], model.clone()).pools;
    assert_eq!(pools.iter().map(|pool| pool.variant.as_str()).collect::<Vec<_>>(), ["f32", "int8"]);
    let none = FleetModel { accuracy_floor_millis: Some(99_000), cloud_load: BTreeMap::new(), ..model };
    assert_eq!(plan([node("a")], none).pools, []);
}
