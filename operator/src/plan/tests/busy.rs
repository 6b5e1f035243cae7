//! Profiles are taken on an idle node; who else computes there slows what is placed.

use super::*;

fn measured(name: &str, p50_ms: u64, memory_mib: u64) -> Variant {
    let time = BatchTime { size: 1, p50_ns: p50_ms * 1_000_000, p99_ns: p50_ms * 1_200_000 };
    let profile = |time| Profile { threads: 1, batches: vec![time] };
    let cloud = BatchTime { size: 1, p50_ns: 1_000_000, p99_ns: 1_200_000 };
    Variant {
        name: name.into(),
        memory_bytes: memory_mib * MIB,
        class_profiles: [("cloud".into(), profile(cloud))].into(),
        node_profiles: [("site-a-1".into(), profile(time))].into(),
        ..f32()
    }
}

/// A site 2 ms from the cloud, whose uplink is dear: what can stays at the edge. Others keep so many cores of two busy.
fn place(busy_millis: u64, variants: &[Variant]) -> Plan {
    let mut model = model("detect").budget_ms(12).rate(1).variants(variants);
    model.cloud = CloudOffer::Pool(Speed { class: "cloud".into(), gflops: 50, cores: 8 });
    let gateway = Node { busy_millis, ..node("site-a-1") };
    let link = Link { uplink_basis: Basis::Measured, keeps_window: true, ..link(1_900, 2_000) };
    let prices = Prices { uplink_gib: 5_000, ..prices() };
    let local = Term { p50_us: 200, p99_us: 400, basis: Basis::Measured };
    plan_site(&Snapshot { link, prices, local, ..site("site-a", [gateway]) }.model(model))
}

#[test]
fn where_others_keep_the_node_busy_a_quicker_variant_serves() {
    let variants = [measured("f32", 8, 10), measured("int8", 5, 30)];
    assert_eq!(place(0, &variants).place("detect"), "edge/f32 on site-a-1");
    assert_eq!(place(1_000, &variants).place("detect"), "edge/f32 on site-a-1", "one core is left");
    let busy = place(1_500, &variants);
    assert_eq!(busy.place("detect"), "edge/int8 on site-a-1");
    let why = &busy.placement("detect").rejected[0];
    assert_eq!((why.candidate.as_str(), why.reason), ("edge/f32 on site-a-1", Reason::ServiceTooSlow));
    assert!(why.message.starts_with("computing p99 13 ms alone exceeds the budget of 12 ms (Measured)"), "{why:?}");
}

#[test]
fn where_no_variant_is_quick_enough_beside_them_the_cloud_serves() {
    let variants = [measured("f32", 8, 10)];
    assert_eq!(place(0, &variants).place("detect"), "edge/f32 on site-a-1");
    assert_eq!(place(1_500, &variants).place("detect"), "cloud/f32");
}
