//! Which places may serve a model. The first filter that fails is the reason.

use super::predict::{Load, Service};
use super::why::{Failure, Slow};
use super::{
    AS_PREDICTED, CloudOffer, Home, Model, Node, Prediction, Resources, Room, Snapshot, Speed, Variant, predict, text,
};
use sconce_api::{Reason, Tier, TierChoice};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt::{Display, from_fn};
use std::ops::Deref;
use std::rc::Rc;

/// A place × variant that serves the model if it must: every filter of hardware and accuracy is passed.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    /// `None` = the cloud pool.
    pub node: Option<&'a Node>,
    /// The node's index at the site.
    pub index: usize,
    /// It is where the model runs today.
    pub home: bool,
    /// What the model's variants do on each kind of node, and in the cloud: all that it has, since one list is made faster than many
    /// things.
    offers: Rc<Vec<Offer<'a>>>,
    /// Its own among them.
    at: usize,
}

/// What a variant does on nodes that are equal, or in the cloud.
#[derive(Clone, Debug)]
pub(super) struct Offer<'a> {
    pub variant: &'a Variant,
    pub replicas: u64,
    pub request: Resources,
    /// What all its pods take of a node.
    pub takes: Room,
    pub prediction: Prediction,
    /// What predictions of the class, variant and tier have to be multiplied with, in percent.
    pub percent: u64,
    /// How busy the peak keeps a replica.
    busy_ppm: u64,
    pub cost_millis: u64,
    /// `None` = accepted: the budget is kept.
    pub too_slow: Option<Slow>,
    /// Of a node whose agent has not reported yet nothing is known but the least that it would take.
    is_known: bool,
}

impl<'a> Deref for Candidate<'a> {
    type Target = Offer<'a>;

    fn deref(&self) -> &Self::Target {
        &self.offers[self.at]
    }
}

impl Offer<'_> {
    /// The p99 that clients are to expect: as predicted, corrected by what was measured.
    pub fn expected_us(&self) -> u64 {
        match self.percent {
            AS_PREDICTED => self.prediction.p99_us,
            percent => predict::ratio(self.prediction.p99_us, percent, AS_PREDICTED),
        }
    }

    /// The smallest budget that it is accepted for.
    pub fn least_budget_us(&self) -> u64 {
        predict::ratio(predict::least_budget_us(&self.prediction), self.percent, AS_PREDICTED)
    }

    /// `4.2 ms`, and by how much that is corrected.
    pub fn p99(&self) -> impl Display {
        let (expected, corrected) = (text::time(self.expected_us()), text::corrected(self.percent));
        from_fn(move |f| write!(f, "{expected}{corrected}"))
    }
}

impl<'a> Candidate<'a> {
    /// The same with another correction of its prediction.
    pub fn corrected(&mut self, model: &Model, percent: u64) {
        let too_slow = Slow::of(model, &self.prediction, self.busy_ppm, percent);
        self.differs(percent, too_slow);
    }

    /// Its clients tell, whatever was predicted.
    pub fn judged(&mut self, too_slow: Option<Slow>) {
        self.differs(self.percent, too_slow);
    }

    /// From here on it has an offer of its own, unless that is as it was.
    fn differs(&mut self, percent: u64, too_slow: Option<Slow>) {
        if (percent, too_slow) != (self.percent, self.too_slow) {
            let offer = Offer { percent, too_slow, ..Offer::clone(self) };
            (self.offers, self.at) = (Rc::new(vec![offer]), 0);
        }
    }

    /// Whether it is the same offer as the other's.
    pub fn is_as(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.offers, &other.offers) && self.at == other.at
    }

    pub fn name(&self) -> String {
        name(self.node, &self.variant.name)
    }

    pub fn tier(&self) -> Tier {
        if self.node.is_some() { Tier::Edge } else { Tier::Cloud }
    }
}

/// A place that fails a filter, with one variant or with any.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed<'a> {
    pub node: Option<&'a Node>,
    /// `None` = whatever the variant.
    pub variant: Option<&'a Variant>,
    pub failure: Failure<'a>,
}

impl<'a> Failed<'a> {
    pub fn name(&self) -> String {
        name(self.node, self.variant_name())
    }

    fn variant_name(&self) -> &'a str {
        self.variant.map_or("*", |variant| &variant.name)
    }

    /// The nearest first: the later the filter, the nearer it was; nodes before the cloud, then by name.
    pub fn order(&self) -> (Reverse<Reason>, bool, &'a str, Option<&'a str>) {
        let node = self.node.map(|node| node.name.as_str());
        (Reverse(self.failure.reason()), node.is_none(), self.variant_name(), node)
    }
}

fn name(node: Option<&Node>, variant: &str) -> String {
    let tier = if node.is_some() { Tier::Edge } else { Tier::Cloud };
    text::place(tier, node.map(|node| node.name.as_str()), variant)
}

/// All of a node, as a share in thousandths of a percent.
const WHOLE: u64 = 100_000;

/// What our models may take of a node.
pub(super) fn room(node: &Node, max_share_millis: u64) -> Room {
    let share = |amount: u64| {
        u64::try_from(u128::from(amount) * u128::from(max_share_millis) / u128::from(WHOLE)).unwrap_or(amount)
    };
    let Resources { cpu_millis, memory_bytes } = node.allocatable;
    let ours = Resources { cpu_millis: share(cpu_millis), memory_bytes: share(memory_bytes) };
    let Resources { cpu_millis, memory_bytes } = ours.less(node.requested);
    Room { cpu_millis, memory_bytes, store_bytes: node.store_bytes }
}

/// What is the same for all models of a site.
pub(super) struct Site<'a> {
    pub snapshot: &'a Snapshot,
    /// What our models may take of each node, in the order of the snapshot.
    pub rooms: Vec<Room>,
    /// In the order of names.
    nodes: Vec<SiteNode<'a>>,
    /// How many kinds of nodes there are.
    kinds: usize,
}

#[derive(Clone, Copy)]
struct SiteNode<'a> {
    node: &'a Node,
    index: usize,
    /// Nodes that compute alike are of a kind, counted from 0.
    kind: usize,
}

impl<'a> Site<'a> {
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let mut kinds: Vec<(&Option<Speed>, u64)> = Vec::new();
        let mut site_node = |(index, node): (usize, &'a Node)| {
            let computes = (&node.speed, node.busy_millis);
            let kind = kinds.iter().position(|kind| *kind == computes).unwrap_or(kinds.len());
            if kind == kinds.len() {
                kinds.push(computes);
            }
            SiteNode { node, index, kind }
        };
        let rooms = snapshot.nodes.iter().map(|node| room(node, snapshot.max_share_millis)).collect();
        let mut nodes: Vec<_> = snapshot.nodes.iter().enumerate().map(&mut site_node).collect();
        nodes.sort_by_key(|node| &node.node.name);
        let kinds = kinds.len();
        Self { snapshot, rooms, nodes, kinds }
    }

    /// Less room on a node: a model that is kept there has it.
    pub fn take(&mut self, node: &str, taken: Room) {
        if let Some(index) = self.snapshot.nodes.iter().position(|other| other.name == node) {
            self.rooms[index] = self.rooms[index].less(taken);
        }
    }
}

/// All places × variants of a model: those that could serve it, in the order of their names, and the others with their
/// first failure.
pub(super) fn candidates<'a>(site: &Site<'a>, model: &'a Model) -> (Vec<Candidate<'a>>, Vec<Failed<'a>>) {
    let snapshot = site.snapshot;
    let most = |places: usize| model.variants.len() * (places + 1);
    let mut offers = Vec::with_capacity(most(site.kinds));
    // Each with its offer's place among them.
    let (mut passed, mut failed) = (Vec::with_capacity(most(site.nodes.len())), Vec::new());
    let mut variants = Vec::with_capacity(model.variants.len());
    for variant in &model.variants {
        variants.push((variant, accurate_enough(model, variant).err()));
    }
    variants.sort_by_key(|(variant, _)| &variant.name);
    let home = snapshot.current.get(&model.name);
    let is_home = |node, variant| home.is_some_and(|home| is_home(home, node, variant));
    match cloud(snapshot, model) {
        Err(failure) => failed.push(Failed { node: None, variant: None, failure }),
        Ok(speed) => {
            for &(variant, failure) in &variants {
                match failure.map_or_else(|| in_cloud(snapshot, model, speed, variant), Err) {
                    Err(failure) => failed.push(Failed { node: None, variant: Some(variant), failure }),
                    Ok(offer) => {
                        passed.push((None, offers.len(), is_home(None, variant)));
                        offers.push(offer);
                    }
                }
            }
        }
    }
    // Mostly all are.
    let closed = failed.len();
    for place in &site.nodes {
        if let Err(failure) = edge(snapshot, model, place.node) {
            failed.push(Failed { node: Some(place.node), variant: None, failure });
        }
    }
    let open = match &failed[closed..] {
        [] => Cow::Borrowed(&site.nodes[..]),
        closed => {
            // Both are in the same order.
            let mut closed = closed.iter().filter_map(|failed| failed.node).peekable();
            let is_open = |place: &&SiteNode<'a>| closed.next_if(|node| std::ptr::eq(*node, place.node)).is_none();
            Cow::Owned(site.nodes.iter().filter(is_open).cloned().collect())
        }
    };
    // What the variant does on each kind of node.
    let mut of_kind: Vec<Option<usize>> = vec![None; site.kinds];
    for &(variant, failure) in &variants {
        of_kind.fill(None);
        for place in &*open {
            let SiteNode { node, index, kind } = *place;
            let mut fail = |failure| failed.push(Failed { node: Some(node), variant: Some(variant), failure });
            if let Some(failure) = failure {
                fail(failure);
                continue;
            }
            let is_own = !variant.node_profiles.is_empty() && variant.node_profiles.contains_key(&node.name);
            let at = match of_kind[kind] {
                Some(at) if !is_own => at,
                _ => {
                    offers.push(on_node(snapshot, model, node, variant));
                    let at = offers.len() - 1;
                    if !is_own {
                        of_kind[kind] = Some(at);
                    }
                    at
                }
            };
            let offer = &offers[at];
            match lacks_room(node, offer, site.rooms[index], false) {
                Some(failure) => fail(exceeds_share(node, offer, snapshot.max_share_millis).unwrap_or(failure)),
                None if !offer.is_known => fail(Failure::NoSpeedOfNode { node: &node.name }),
                None => passed.push((Some(place), at, is_home(Some(node), variant))),
            }
        }
    }
    let offers = Rc::new(offers);
    let candidate = |(place, at, home): (Option<&SiteNode<'a>>, usize, bool)| {
        let (node, index) = place.map_or((None, usize::MAX), |place| (Some(place.node), place.index));
        Candidate { node, index, home, offers: Rc::clone(&offers), at }
    };
    let passed = passed.into_iter().map(candidate).collect();
    (passed, failed)
}

/// Whether everything stays as it is, and by whose wish.
pub(super) fn held(snapshot: &Snapshot, model: &Model) -> Option<Reason> {
    if model.suspended {
        return Some(Reason::Suspended);
    }
    snapshot.paused.then_some(Reason::SitePaused)
}

/// The filters of a node, whatever the variant.
fn edge<'a>(snapshot: &Snapshot, model: &'a Model, node: &'a Node) -> Result<(), Failure<'a>> {
    let name = &node.name;
    if let Some(reason) = held(snapshot, model) {
        return Err(Failure::Held { reason });
    }
    if snapshot.cloud_only {
        return Err(Failure::Excluded { what: "the site's serve is CloudOnly" });
    }
    if model.tier == TierChoice::Cloud {
        return Err(Failure::Excluded { what: "placement.tier is Cloud" });
    }
    if !node.ready {
        return Err(Failure::NotReady { node: name });
    }
    if node.leaving {
        return Err(Failure::Leaving { node: name });
    }
    match text::lacking(&model.require, node) {
        Some(requirement) => Err(Failure::Lacks { node: name, requirement }),
        None => Ok(()),
    }
}

fn on_node<'a>(snapshot: &Snapshot, model: &Model, node: &Node, variant: &'a Variant) -> Offer<'a> {
    let known = Service::on_node(variant, node);
    let service = known.unwrap_or(Service::least());
    let load = Load::from(model);
    let (replicas, busy_ppm) = load.replicas(&service, predict::MOST_REPLICAS);
    let request = predict::request(&load, variant, load.request_ns(&service, replicas), replicas);
    let prediction = predict::at_edge(&load, snapshot.local, &service, busy_ppm);
    let class = node.speed.as_ref().map_or("", |speed| &speed.class);
    let percent = snapshot.ratios.percent(Tier::Edge, class, &variant.name);
    Offer {
        variant,
        replicas,
        request,
        takes: predict::takes(request, variant, replicas),
        too_slow: Slow::of(model, &prediction, busy_ppm, percent),
        percent,
        busy_ppm,
        prediction,
        cost_millis: predict::cost::edge(request, replicas, &snapshot.prices),
        is_known: known.is_some(),
    }
}

/// The filters of the cloud, whatever the variant; its speed.
fn cloud<'a>(snapshot: &Snapshot, model: &'a Model) -> Result<&'a Speed, Failure<'a>> {
    if let Some(reason) = held(snapshot, model) {
        return Err(Failure::Held { reason });
    }
    if model.tier == TierChoice::Edge {
        return Err(Failure::Excluded { what: "placement.tier is Edge" });
    }
    let is_there = || snapshot.current.get(&model.name).is_some_and(|home| home.tier == Tier::Cloud);
    if let Some(message) = model.cloud_closed.as_ref().filter(|_| !is_there()) {
        return Err(Failure::NoOffer { reason: Reason::DataMustStay, message });
    }
    match &model.cloud {
        CloudOffer::None { reason, message } => Err(Failure::NoOffer { reason: *reason, message }),
        CloudOffer::Pool(speed) => Ok(speed),
    }
}

fn in_cloud<'a>(
    snapshot: &Snapshot,
    model: &Model,
    speed: &'a Speed,
    variant: &'a Variant,
) -> Result<Offer<'a>, Failure<'a>> {
    let Some(service) = Service::in_cloud(variant, speed) else {
        return Err(Failure::NoSpeedOfClass { class: &speed.class });
    };
    let load = Load::from(model);
    let (replicas, busy_ppm) = load.replicas(&service, u64::MAX);
    let request_ns = load.request_ns(&service, replicas);
    let request = predict::request(&load, variant, request_ns, replicas);
    let prediction = predict::in_cloud(model, &snapshot.link, &service, busy_ppm);
    let percent = snapshot.ratios.percent(Tier::Cloud, &speed.class, &variant.name);
    Ok(Offer {
        variant,
        replicas: 1,
        request,
        takes: predict::takes(request, variant, 1),
        too_slow: Slow::of(model, &prediction, busy_ppm, percent),
        percent,
        busy_ppm,
        prediction,
        cost_millis: predict::cost::cloud(model, request_ns, request.memory_bytes, &snapshot.prices),
        is_known: true,
    })
}

fn is_home(home: &Home, node: Option<&Node>, variant: &Variant) -> bool {
    let here = match home.tier {
        Tier::Edge => node.is_some() && home.node.as_deref() == node.map(|node| node.name.as_str()),
        Tier::Cloud => node.is_none(),
    };
    here && home.variant == variant.name
}

fn accurate_enough<'a>(model: &Model, variant: &'a Variant) -> Result<(), Failure<'a>> {
    match (model.accuracy_floor_millis, variant.accuracy_millis) {
        (Some(floor_millis), Some(accuracy_millis)) if accuracy_millis < floor_millis => {
            Err(Failure::BelowFloor { variant: &variant.name, accuracy_millis, floor_millis })
        }
        (Some(floor_millis), None) => Err(Failure::NotEvaluated { variant: &variant.name, floor_millis }),
        _ => Ok(()),
    }
}

/// It does not fit into our share of the node, and would into all that others leave of it. Of the disk all is ours.
fn exceeds_share<'a>(node: &'a Node, offer: &Offer<'_>, share_millis: u64) -> Option<Failure<'a>> {
    let has = room(node, share_millis);
    let needs = Room { store_bytes: 0, ..offer.takes };
    let exceeds = !fits(needs, has) && fits(needs, room(node, WHOLE));
    exceeds.then_some(Failure::NoShare { node: &node.name, share_millis, needs, has })
}

pub(super) fn fits(takes: Room, left: Room) -> bool {
    takes.cpu_millis <= left.cpu_millis
        && takes.memory_bytes <= left.memory_bytes
        && takes.store_bytes <= left.store_bytes
}

/// Why it does not fit into what is left of the node, `others` models being there.
pub(super) fn lacks_room<'a>(node: &'a Node, offer: &Offer<'_>, left: Room, others: bool) -> Option<Failure<'a>> {
    let node = &node.name;
    let Room { cpu_millis, memory_bytes, store_bytes } = offer.takes;
    if memory_bytes > left.memory_bytes {
        return Some(Failure::NoMemory { node, needs: memory_bytes, has: left.memory_bytes, others });
    }
    if cpu_millis > left.cpu_millis {
        return Some(Failure::NoCpu { node, needs: cpu_millis, has: left.cpu_millis, others });
    }
    let lacks_store = store_bytes > left.store_bytes;
    lacks_store.then_some(Failure::NoStore { node, needs: store_bytes, has: left.store_bytes, others })
}
