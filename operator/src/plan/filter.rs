//! Which places may serve a model. The first filter that fails is the reason; what it says has what, number, limit,
//! basis and, where it can be computed, the next step.

use super::predict::{Load, Service};
use super::{CloudOffer, Home, Model, Node, Prediction, Rejected, Resources, Snapshot, Speed, Variant, predict, text};
use sconce_api::{Basis, Reason, Tier, TierChoice};

/// A place × variant that serves the model if it must: every filter of hardware and accuracy is passed.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    /// `None` = the cloud pool.
    pub node: Option<&'a Node>,
    pub variant: &'a Variant,
    pub replicas: u64,
    pub request: Resources,
    pub prediction: Prediction,
    pub cost_millis: u64,
    /// `None` = accepted: the budget is kept.
    pub too_slow: Option<(Reason, String)>,
    /// It is where the model runs today.
    pub home: bool,
}

impl Candidate<'_> {
    pub fn name(&self) -> String {
        name(self.node, &self.variant.name)
    }

    pub fn tier(&self) -> Tier {
        if self.node.is_some() { Tier::Edge } else { Tier::Cloud }
    }

    /// What all its pods take of the node.
    pub fn takes(&self) -> Resources {
        Resources {
            cpu_millis: self.request.cpu_millis.saturating_mul(self.replicas),
            memory_bytes: self.request.memory_bytes.saturating_mul(self.replicas),
        }
    }

    pub fn rejected(&self, reason: Reason, message: &str) -> Rejected {
        Rejected { candidate: self.name(), reason, message: text::short(message, text::REJECTION) }
    }
}

fn name(node: Option<&Node>, variant: &str) -> String {
    let tier = if node.is_some() { Tier::Edge } else { Tier::Cloud };
    text::place(tier, node.map(|node| node.name.as_str()), variant)
}

/// What our models may take of a node.
pub(super) fn room(node: &Node, max_share_millis: u64) -> Resources {
    let share =
        |amount: u64| u64::try_from(u128::from(amount) * u128::from(max_share_millis) / 100_000).unwrap_or(amount);
    Resources {
        cpu_millis: share(node.allocatable.cpu_millis).saturating_sub(node.requested.cpu_millis),
        memory_bytes: share(node.allocatable.memory_bytes).saturating_sub(node.requested.memory_bytes),
    }
}

/// All places × variants of a model: those that could serve it, and the others with their first reason.
pub(super) fn candidates<'a>(snapshot: &'a Snapshot, model: &'a Model) -> (Vec<Candidate<'a>>, Vec<Rejected>) {
    let mut passed = Vec::new();
    let mut rejected = Vec::new();
    for node in &snapshot.nodes {
        sort(edge(snapshot, model, node), Some(node), &mut passed, &mut rejected);
    }
    sort(cloud(snapshot, model), None, &mut passed, &mut rejected);
    // In the order of names, whatever the order of the snapshot.
    passed.sort_by_key(Candidate::name);
    (passed, rejected)
}

type Failure = (Reason, String);
type Verdicts<'a> = Result<Vec<(&'a Variant, Result<Candidate<'a>, Failure>)>, Failure>;

/// `Err` is a failure of the place, whatever the variant.
fn sort<'a>(
    verdicts: Verdicts<'a>,
    node: Option<&Node>,
    passed: &mut Vec<Candidate<'a>>,
    rejected: &mut Vec<Rejected>,
) {
    let mut reject = |variant: &str, (reason, message): Failure| {
        let message = text::short(&message, text::REJECTION);
        rejected.push(Rejected { candidate: name(node, variant), reason, message });
    };
    match verdicts {
        Err(failure) => reject("*", failure),
        Ok(verdicts) => {
            for (variant, verdict) in verdicts {
                match verdict {
                    Ok(candidate) => passed.push(candidate),
                    Err(failure) => reject(&variant.name, failure),
                }
            }
        }
    }
}

fn edge<'a>(snapshot: &'a Snapshot, model: &'a Model, node: &'a Node) -> Verdicts<'a> {
    if model.tier == TierChoice::Cloud {
        return Err((Reason::TierExcluded, "placement.tier is Cloud".into()));
    }
    if !node.ready {
        return Err((Reason::NodeNotReady, format!("{} is not Ready", node.name)));
    }
    if node.leaving {
        return Err((Reason::NodeLeaving, format!("{} is cordoned or about to leave", node.name)));
    }
    if let Some(requirement) = text::lacking(&model.require, node) {
        return Err((Reason::HardwareMismatch, format!("{} lacks {}", node.name, text::requirement(requirement))));
    }
    let verdict = |variant| edge_variant(snapshot, model, node, variant);
    Ok(model.variants.iter().map(|variant| (variant, verdict(variant))).collect())
}

fn edge_variant<'a>(
    snapshot: &Snapshot,
    model: &Model,
    node: &'a Node,
    variant: &'a Variant,
) -> Result<Candidate<'a>, Failure> {
    accurate_enough(model, variant)?;
    let known = Service::on_node(variant, node, 0);
    // Without a speed the least that it would take.
    let service = known.unwrap_or(Service::least());
    let load = Load::from(model);
    let replicas = load.replicas(&service, predict::MOST_REPLICAS);
    let request = predict::request(model, variant, &service, replicas);
    let busy_ppm = load.busy_ppm(&service, replicas);
    let mut candidate = Candidate {
        node: Some(node),
        variant,
        replicas,
        request,
        prediction: predict::at_edge(model, snapshot.local, &service, busy_ppm),
        cost_millis: predict::cost::edge(request, replicas, &snapshot.prices),
        too_slow: None,
        home: is_home(snapshot, model, Some(node), variant),
    };
    if let Some(failure) = lacks_room(&candidate, room(node, snapshot.max_share_millis), "") {
        return Err(failure);
    }
    if known.is_none() {
        return Err((Reason::NoProfile, format!("the agent of {} has not reported its speed yet", node.name)));
    }
    candidate.too_slow = too_slow(model, &snapshot.link, &candidate, busy_ppm);
    Ok(candidate)
}

fn cloud<'a>(snapshot: &'a Snapshot, model: &'a Model) -> Verdicts<'a> {
    if model.tier == TierChoice::Edge {
        return Err((Reason::TierExcluded, "placement.tier is Edge".into()));
    }
    let speed = match &model.cloud {
        CloudOffer::None { reason, message } => return Err((*reason, message.clone())),
        CloudOffer::Pool(speed) => speed,
    };
    let verdict = |variant| cloud_variant(snapshot, model, speed, variant);
    Ok(model.variants.iter().map(|variant| (variant, verdict(variant))).collect())
}

fn cloud_variant<'a>(
    snapshot: &Snapshot,
    model: &Model,
    speed: &Speed,
    variant: &'a Variant,
) -> Result<Candidate<'a>, Failure> {
    accurate_enough(model, variant)?;
    let Some(service) = Service::in_cloud(variant, speed) else {
        return Err((Reason::NoProfile, format!("no speed is known of class {}", speed.class)));
    };
    let load = Load::from(model);
    let replicas = load.replicas(&service, u64::MAX);
    let busy_ppm = load.busy_ppm(&service, replicas);
    let request = predict::request(model, variant, &service, replicas);
    let mut candidate = Candidate {
        node: None,
        variant,
        replicas: 1,
        request,
        prediction: predict::in_cloud(model, &snapshot.link, &service, busy_ppm),
        cost_millis: predict::cost::cloud(model, &service, replicas, request.memory_bytes, &snapshot.prices),
        too_slow: None,
        home: is_home(snapshot, model, None, variant),
    };
    candidate.too_slow = too_slow(model, &snapshot.link, &candidate, busy_ppm);
    Ok(candidate)
}

fn is_home(snapshot: &Snapshot, model: &Model, node: Option<&Node>, variant: &Variant) -> bool {
    snapshot.current.get(&model.name).is_some_and(|Home { tier, node: home, variant: current, .. }| {
        let here = match tier {
            Tier::Edge => node.is_some() && home.as_deref() == node.map(|node| node.name.as_str()),
            Tier::Cloud => node.is_none(),
        };
        here && *current == variant.name
    })
}

fn accurate_enough(model: &Model, variant: &Variant) -> Result<(), Failure> {
    match (model.accuracy_floor_millis, variant.accuracy_millis) {
        (Some(floor), Some(accuracy)) if accuracy < floor => Err((
            Reason::BelowAccuracyFloor,
            format!("{} has {}, floor {}", variant.name, text::percent(accuracy), text::percent(floor)),
        )),
        (Some(floor), None) => Err((
            Reason::AccuracyUnknown,
            format!("{} was never evaluated, floor {}", variant.name, text::percent(floor)),
        )),
        _ => Ok(()),
    }
}

/// Why the candidate does not fit into what is left of its node; the cloud has room for all. `after` ends the sentence.
pub(super) fn lacks_room(candidate: &Candidate<'_>, left: Resources, after: &str) -> Option<Failure> {
    let node = candidate.node?;
    let takes = candidate.takes();
    let failure = |reason, needs: String, has: String| {
        Some((reason, format!("needs {needs}, {} has {has} left{after}", node.name)))
    };
    if takes.memory_bytes > left.memory_bytes {
        let (needs, has) = (text::mebibytes_up(takes.memory_bytes), text::mebibytes_down(left.memory_bytes));
        return failure(Reason::InsufficientMemory, needs, has);
    }
    if takes.cpu_millis > left.cpu_millis {
        return failure(Reason::InsufficientCpu, format!("{} m", takes.cpu_millis), format!("{} m", left.cpu_millis));
    }
    None
}

/// The first of the budget's filters that fails. The candidate still serves where nothing is faster.
fn too_slow(model: &Model, link: &super::Link, candidate: &Candidate<'_>, busy_ppm: u64) -> Option<Failure> {
    let Prediction { link: round_trip, transfer, queue, compute, p99_us, bound_us, basis } = candidate.prediction;
    let budget = model.budget_us;
    let least = predict::least_budget_us(&candidate.prediction);
    let advice = format!("would fit from a budget of {}", text::time(text::two_digits_up(least)));
    let failure = |reason, what: String| Some((reason, format!("{what}; {advice}")));
    if round_trip.p99_us > budget {
        let basis = match round_trip.basis {
            Basis::Measured => format!("Measured, {} probes", text::count(text::two_digits(link.samples))),
            basis => basis.to_string(),
        };
        let what = format!(
            "round trip p99 {} alone exceeds the budget of {} ({basis})",
            text::time(round_trip.p99_us),
            text::time(budget)
        );
        return failure(Reason::LinkTooSlow, what);
    }
    if transfer.p99_us >= budget {
        let what = format!(
            "{} at {} takes {} of {} ({})",
            text::bytes(model.request_bytes.saturating_add(model.response_bytes)),
            text::rate(link.uplink_bits_per_second),
            text::time(transfer.p99_us),
            text::time(budget),
            transfer.basis
        );
        return failure(Reason::TransferTooSlow, what);
    }
    if compute.p99_us > budget {
        let what = format!(
            "computing p99 {} alone exceeds the budget of {} ({})",
            text::time(compute.p99_us),
            text::time(budget),
            compute.basis
        );
        return failure(Reason::ServiceTooSlow, what);
    }
    if busy_ppm > predict::BUSY_LIMIT_PPM {
        let what = format!(
            "{} replicas would be {} busy at a peak of {} of {} req/s, limit 70% ({})",
            candidate.replicas,
            text::percent(text::two_digits(busy_ppm / 10)),
            text::percent(model.peak_factor_millis),
            text::count(model.requests_per_second),
            compute.basis
        );
        return Some((Reason::Overloaded, what));
    }
    (least > budget).then(|| {
        let (sum, margin) = match basis {
            Basis::Measured => (format!("p99 {}", text::time(p99_us)), "a tenth"),
            _ => (format!("bound {}", text::time(bound_us)), "half"),
        };
        let what = format!(
            "{sum} (link {}, transfer {}, queue {}, compute {}; {basis}) with a margin of {margin} exceeds the budget \
             of {}",
            text::time(round_trip.p99_us),
            text::time(transfer.p99_us),
            text::time(queue.p99_us),
            text::time(compute.p99_us),
            text::time(budget)
        );
        (Reason::OverBudget, format!("{what}; {advice}"))
    })
}
