//! Which node belongs to which fleet and site. A node that two fleets select belongs to the older one.

use super::World;
use crate::names;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use sconce_api::{EdgeFleet, EdgeSite};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone)]
pub struct FleetView {
    pub fleet: Arc<EdgeFleet>,
    /// By the name of the EdgeSite, registered or not yet.
    pub sites: BTreeMap<String, SiteView>,
    pub cloud: Vec<Arc<Node>>,
    /// Edge nodes that an older fleet has.
    pub contested: Vec<String>,
}

#[derive(Clone)]
pub struct SiteView {
    /// Value of the fleet's site label.
    pub key: String,
    pub object: Option<Arc<EdgeSite>>,
    pub nodes: Vec<Arc<Node>>,
}

impl SiteView {
    /// Labels of the EdgeSite, which is registered for them.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        const NONE: &BTreeMap<String, String> = &BTreeMap::new();
        self.object.as_ref().map_or(NONE, |site| site.labels())
    }

    /// Nodes, but none Ready: nothing is known of what it does.
    pub fn is_unreachable(&self) -> bool {
        !self.nodes.is_empty() && !self.nodes.iter().any(|node| is_ready(node))
    }
}

pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Fleets, the oldest first.
pub fn survey(world: &World) -> Vec<FleetView> {
    let mut fleets: Vec<_> =
        world.fleets.values().filter(|fleet| fleet.metadata.deletion_timestamp.is_none()).cloned().collect();
    fleets.sort_by_key(|fleet| (fleet.creation_timestamp().map(|time| time.0), fleet.name_any()));
    let mut views: Vec<_> = fleets.iter().map(|fleet| registered(world, fleet)).collect();
    for node in world.nodes.values() {
        assign(world, &mut views, node);
    }
    views
}

/// The fleet with the sites that it already has.
fn registered(world: &World, fleet: &Arc<EdgeFleet>) -> FleetView {
    let name = fleet.name_any();
    let sites = world
        .sites
        .values()
        .filter(|site| site.spec.fleet_ref.name == name && site.metadata.deletion_timestamp.is_none())
        .map(|site| {
            let key = site.spec.key.clone().unwrap_or_else(|| site.name_any());
            (site.name_any(), SiteView { key, object: Some(Arc::clone(site)), nodes: Vec::new() })
        })
        .collect();
    FleetView { fleet: Arc::clone(fleet), sites, cloud: Vec::new(), contested: Vec::new() }
}

fn assign(world: &World, views: &mut [FleetView], node: &Arc<Node>) {
    let labels = node.labels();
    let mut taken = false;
    for view in views.iter_mut() {
        let spec = &view.fleet.spec;
        let site = labels.get(&spec.sites.site_label).filter(|_| spec.sites.node_selector.matches(labels));
        let Some(site) = site.filter(|site| !site.is_empty()) else { continue };
        if taken {
            view.contested.push(node.name_any());
            continue;
        }
        taken = true;
        let name = site_name(world, view, site);
        let entry = view.sites.entry(name);
        let unregistered = || SiteView { key: site.clone(), object: None, nodes: Vec::new() };
        entry.or_insert_with(unregistered).nodes.push(Arc::clone(node));
    }
    if taken {
        return;
    }
    for view in views {
        if view.fleet.spec.cloud.as_ref().is_some_and(|cloud| cloud.node_selector.matches(labels)) {
            view.cloud.push(Arc::clone(node));
        }
    }
}

/// The site that has the label's value already, else a name for a new one.
fn site_name(world: &World, view: &FleetView, value: &str) -> String {
    if let Some((name, _)) = view.sites.iter().find(|(_, site)| site.key == value) {
        return name.clone();
    }
    let fleet = view.fleet.name_any();
    let taken = |name: &str| world.sites.contains_key(&(String::new(), name.to_owned()));
    match names::site(value) {
        name if name == value && !taken(&name) => name,
        _ => names::site_hashed(value, &fleet),
    }
}
