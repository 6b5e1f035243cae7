//! What people hold as it is: a model, or a site; and a site that only the cloud serves.

use super::*;
use Reason::*;

#[test]
fn a_suspended_model_stays_where_it_is_and_comes_nowhere_new() {
    let suspended = || Model { suspended: true, ..model("digits") };
    // Its budget would move it to the edge.
    let at_home = site_a().home("digits", Tier::Cloud, None).model(suspended()).model(model("other"));
    let plan = plan_site(&at_home);
    let kept = plan.placement("digits");
    assert_eq!((plan.place("digits"), kept.reason), ("cloud/f32".into(), Suspended));
    assert_eq!(kept.message, "digits is suspended: cloud/f32 is kept as it is");
    assert_eq!(plan.place("other"), "edge/f32 on site-a-1");
    let plan = plan_site(&site_a().model(suspended()));
    let unplaced = plan.unplaced("digits");
    assert_eq!(unplaced.reason, NoCandidate);
    assert_eq!(reasons(&unplaced.rejected), [("edge/* on site-a-1", Suspended), ("cloud/*", Suspended)]);
}

#[test]
fn a_paused_site_keeps_all_it_has_and_takes_nothing_new() {
    let paused = Snapshot { paused: true, ..site_a() };
    let plan = plan_site(&paused.home("digits", Tier::Cloud, None).model(model("digits")).model(model("new")));
    assert_eq!((plan.place("digits"), plan.placement("digits").reason), ("cloud/f32".into(), SitePaused));
    assert_eq!(plan.unplaced("new").rejected[0].reason, SitePaused);
    assert_eq!(plan.placement("digits").message, "site-a is paused: cloud/f32 is kept as it is");
}

#[test]
fn a_site_that_only_the_cloud_serves_has_nothing_on_its_nodes() {
    let rebuilt = Snapshot { cloud_only: true, ..site_b() };
    let plan = plan_site(&rebuilt.home("digits", Tier::Edge, Some("site-b-1")).model(model("digits").rate(50)));
    assert_eq!(plan.place("digits"), "cloud/f32");
    let rejected = &plan.placement("digits").rejected[0];
    assert_eq!((rejected.reason, rejected.message.as_str()), (TierExcluded, "the site's serve is CloudOnly"));
}

/// It has its pod there: another model of that size does not fit.
#[test]
fn what_a_held_model_takes_of_its_node_no_other_gets() {
    let held = || model("held").memory(2_000);
    let plan = |held: Model| {
        let site = site_a().home("held", Tier::Edge, Some("site-a-1"));
        plan_site(&site.model(held).model(model("new").memory(2_000).tier(TierChoice::Edge)))
    };
    let full = plan(Model { suspended: true, ..held() });
    assert_eq!((full.place("held"), full.unplaced("new").reason), ("edge/f32 on site-a-1".into(), NoCandidate));
    assert_eq!(reasons(&full.unplaced("new").rejected)[0], ("edge/f32 on site-a-1", InsufficientMemory));
    let small = plan(Model { suspended: true, ..held().memory(100) });
    assert_eq!(small.place("new"), "edge/f32 on site-a-1");
}
