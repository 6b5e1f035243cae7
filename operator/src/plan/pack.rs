//! Gives the site's models their places, one after another, so that no node holds more than it has.

use super::filter::{Candidate, Failed, Site, candidates};
use super::hold::{self, Kept, Verdict};
use super::score::{Above, Left, best, dominant_share, passed_over};
use super::why::Slow;
use super::{
    BetterPlace, CloudOffer, Model, ModelName, Placement, Plan, RatioKey, RatioSample, Rejected, Resources, Snapshot,
    Unplaced, Urgency, observed_percent, text,
};
use sconce_api::{BudgetPolicy, Objective, Reason, Tier, TierChoice};
use std::cmp::Reverse;

/// Most rejections that a decision carries.
pub(super) const MOST_REJECTED: usize = 8;

/// A model with the places that it might have, and the one that it gets.
pub(super) struct Task<'a> {
    pub model: &'a Model,
    candidates: Vec<Candidate<'a>>,
    failed: Vec<Failed<'a>>,
    /// Index into `candidates`.
    chosen: Option<usize>,
    /// Where it runs today, if it can go on there.
    home: Option<usize>,
    /// It stays at its home.
    pinned: bool,
    /// Why, where another place is better.
    kept: Option<Kept>,
    /// The best place for it if nothing were kept, if that is better by enough.
    better: Option<usize>,
}

impl<'a> Task<'a> {
    fn new(site: &Site<'a>, model: &'a Model) -> Self {
        let (mut candidates, failed) = candidates(site, model);
        hold::measured(site.snapshot, model, &mut candidates);
        let home = candidates.iter().position(|candidate| candidate.home);
        Self { model, candidates, failed, chosen: None, home, pinned: false, kept: None, better: None }
    }

    /// Its home and the other place that was chosen for it.
    fn would_leave(&self) -> Option<(&Candidate<'a>, &Candidate<'a>)> {
        let (home, chosen) = self.home.zip(self.chosen).filter(|(home, chosen)| home != chosen)?;
        Some((&self.candidates[home], &self.candidates[chosen]))
    }

    fn is_late(&self) -> bool {
        self.chosen().is_none_or(|chosen| chosen.too_slow.is_some())
    }

    /// Where the budget is kept.
    fn accepted(&self) -> impl Iterator<Item = (usize, &Candidate<'a>)> + Clone {
        self.candidates.iter().enumerate().filter(|(_, candidate)| candidate.too_slow.is_none())
    }

    /// The best of the places that keep the budget and have room.
    fn best_accepted(&self, left: &[Resources]) -> Option<usize> {
        let fitting = self.accepted().filter(|(_, candidate)| fits(candidate, left));
        best(fitting, self.model.objective, left)
    }

    /// Some place that keeps the budget has no room left for it: it may want to look again.
    fn gave_way(&self, left: &[Resources]) -> bool {
        let here = self.chosen();
        !self.pinned
            && self.accepted().any(|(_, candidate)| {
                !fits(candidate, left) && here.is_none_or(|here| candidate.cost_millis < here.cost_millis)
            })
    }

    fn chosen(&self) -> Option<&Candidate<'a>> {
        self.chosen.map(|index| &self.candidates[index])
    }

    /// What it takes of its node, if it has one.
    fn takes(&self) -> Option<(usize, Resources)> {
        let chosen = self.chosen()?;
        chosen.node.map(|_| (chosen.index, chosen.takes()))
    }

    fn put(&mut self, chosen: Option<usize>, left: &mut [Resources]) {
        if let Some((node, takes)) = self.takes() {
            give(left, node, takes);
        }
        self.chosen = chosen;
        if let Some((node, takes)) = self.takes() {
            take(left, node, takes);
        }
    }
}

/// What is decided for a site, before it is put into words.
pub(super) struct Packed<'a> {
    snapshot: &'a Snapshot,
    tasks: Vec<Task<'a>>,
    /// What our models leave of each node.
    left: Left,
}

/// `taken` is what models that are kept take of their nodes.
pub(super) fn pack<'a, 'k>(
    snapshot: &'a Snapshot,
    models: &[&'a Model],
    taken: impl Iterator<Item = (&'k str, Resources)>,
) -> Packed<'a> {
    let mut site = Site::new(snapshot);
    taken.for_each(|(node, taken)| site.take(node, taken));
    let mut tasks: Vec<Task<'_>> = models.iter().map(|model| Task::new(&site, model)).collect();
    tasks.sort_by_cached_key(|task| order(task, &site.rooms));
    let left = fill(snapshot, &mut tasks, &site.rooms);
    let left = keep(snapshot, &mut tasks, &site.rooms).unwrap_or(left);
    Packed { snapshot, tasks, left }
}

/// Gives every model its place, those that stay first; returns what is left of the nodes.
fn fill(snapshot: &Snapshot, tasks: &mut [Task<'_>], rooms: &[Resources]) -> Left {
    let mut left = rooms.to_vec();
    for task in tasks.iter_mut() {
        task.chosen = None;
        for (index, candidate) in task.candidates.iter_mut().enumerate() {
            candidate.home = task.home == Some(index);
        }
        if let Some(home) = task.home.filter(|home| task.pinned && fits(&task.candidates[*home], &left)) {
            task.put(Some(home), &mut left);
        }
    }
    // Who keeps the budget comes first; what is left goes to those who cannot.
    if settle(tasks, &mut left) {
        rest(tasks, &mut left);
    }
    for task in tasks.iter_mut().filter(|task| task.chosen.is_none()) {
        let may_exceed = may_exceed(snapshot, task);
        // Whose clients wait too long is not sent away to have no place at all.
        let is_missed = |candidate: &Candidate<'_>| matches!(candidate.too_slow, Some(Slow::Missed { .. }));
        let is_left = |candidate: &Candidate<'_>| matches!(candidate.too_slow, Some(Slow::Left { .. }));
        let may_serve = |candidate: &Candidate<'_>| is_missed(candidate) || may_exceed && !is_left(candidate);
        let any =
            task.candidates.iter().enumerate().filter(|(_, candidate)| may_serve(candidate) && fits(candidate, &left));
        let fastest = best(any, Objective::Latency, &left);
        task.put(fastest, &mut left);
    }
    left
}

/// Fills the site anew with the homes that are not to be left, if there are such.
fn keep(snapshot: &Snapshot, tasks: &mut [Task<'_>], rooms: &[Resources]) -> Option<Left> {
    let mut left = pin_unripe(snapshot, tasks, rooms, true);
    let late = tasks.iter().filter(|task| task.is_late()).count();
    let pushed: Vec<usize> = (0..tasks.len()).filter(|index| is_pushed(snapshot, &tasks[*index])).collect();
    if pushed.is_empty() {
        return left;
    }
    let pin = |tasks: &mut [Task<'_>], pinned| {
        pushed.iter().for_each(|index| tasks[*index].pinned = pinned);
        let filled = fill(snapshot, tasks, rooms);
        pin_unripe(snapshot, tasks, rooms, false).or(Some(filled))
    };
    left = pin(tasks, true).or(left);
    // They give way only where somebody would else have no place.
    if tasks.iter().filter(|task| task.is_late()).count() > late {
        left = pin(tasks, false);
    }
    left
}

/// Keeps those at home whose other place is not better by enough, or not for long enough, until there are no more.
fn pin_unripe(snapshot: &Snapshot, tasks: &mut [Task<'_>], rooms: &[Resources], first: bool) -> Option<Left> {
    let (mut left, mut first) = (None, first);
    loop {
        let mut more = false;
        for task in tasks.iter_mut().filter(|task| !task.pinned) {
            let Some((home, chosen)) = task.would_leave() else { continue };
            let verdict = hold::judge(snapshot, task, home, chosen);
            let is_better = match &verdict {
                Verdict::Go { urgent } => !urgent,
                Verdict::Keep(kept) => kept.better,
                Verdict::Pushed => false,
            };
            if first && is_better {
                task.better = task.chosen;
            }
            if let Verdict::Keep(kept) = verdict {
                (task.pinned, task.kept, more) = (true, Some(kept), true);
            }
        }
        first = false;
        if !more {
            return left;
        }
        left = Some(fill(snapshot, tasks, rooms));
    }
}

fn is_pushed(snapshot: &Snapshot, task: &Task<'_>) -> bool {
    let pushed = |(home, chosen)| matches!(hold::judge(snapshot, task, home, chosen), Verdict::Pushed);
    !task.pinned && task.would_leave().is_some_and(pushed)
}

impl Packed<'_> {
    /// How many models have a place.
    pub fn placed(&self) -> usize {
        self.tasks.iter().filter(|task| task.chosen.is_some()).count()
    }

    pub fn in_words(mut self, plan: &mut Plan) {
        for task in &self.tasks {
            let above = more_important(&self.tasks, task.model.priority);
            match task.chosen() {
                Some(chosen) => plan.placements.push(placement(self.snapshot, task, chosen, &mut self.left, &above)),
                None => plan.unplaced.push(unplaced(self.snapshot, task, &self.left, &above)),
            }
        }
    }
}

/// What those take that are more important than `priority`, by node.
fn more_important<'a>(tasks: &[Task<'a>], priority: i32) -> Vec<Above<'a>> {
    let mut all: Vec<Above<'a>> = Vec::new();
    // The most important come first.
    for task in tasks.iter().filter(|task| task.model.priority > priority) {
        let Some((node, takes)) = task.takes() else { continue };
        match all.iter_mut().find(|above| above.node == node) {
            Some(above) => above.takes = above.takes.plus(takes),
            None => all.push(Above { node, takes, by: &task.model.name, priority: task.model.priority }),
        }
    }
    all
}

/// Gives the models their places; whether there was too little room for all wishes.
fn settle(tasks: &mut [Task<'_>], left: &mut [Resources]) -> bool {
    place(tasks, left);
    let crowded = tasks.iter().any(|task| task.gave_way(left));
    if crowded {
        repair(tasks, left);
        improve(tasks, left);
        // There may be room now for who had none.
        place(tasks, left);
    }
    crowded
}

/// Settles anew from where everyone would be then, so that the next plan changes nothing.
fn rest(tasks: &mut [Task<'_>], left: &mut [Resources]) {
    for _ in 0..ROUNDS {
        let before: Vec<_> = tasks.iter().map(|task| task.chosen).collect();
        for task in tasks.iter_mut().filter(|task| !task.pinned && task.chosen.is_some()) {
            for (index, candidate) in task.candidates.iter_mut().enumerate() {
                candidate.home = task.chosen == Some(index);
            }
            task.put(None, left);
        }
        settle(tasks, left);
        if tasks.iter().map(|task| task.chosen).eq(before) {
            break;
        }
    }
}

/// Gives each model without a place the best that has room, in their order.
fn place(tasks: &mut [Task<'_>], left: &mut [Resources]) {
    for task in tasks.iter_mut().filter(|task| task.chosen.is_none()) {
        let best = task.best_accepted(left);
        task.put(best, left);
    }
}

/// Gives a model without a place that of another, no more important one, which has another place that keeps its budget.
fn repair(tasks: &mut [Task<'_>], left: &mut [Resources]) {
    for index in 0..tasks.len() {
        if tasks[index].chosen.is_none()
            && let Some(swap) = best_swap(tasks, index, left)
        {
            let (other, theirs, ours) = swap;
            tasks[other].put(Some(theirs), left);
            tasks[index].put(Some(ours), left);
        }
    }
}

/// The other's index, its new place and ours: the cheapest that fits.
fn best_swap(tasks: &[Task<'_>], index: usize, left: &[Resources]) -> Option<(usize, usize, usize)> {
    let task = &tasks[index];
    let mut swaps = Vec::new();
    for (ours, candidate) in task.accepted() {
        for (other, pushed) in tasks.iter().enumerate() {
            let Some((theirs_node, takes)) = pushed.takes().filter(|_| !pushed.pinned) else { continue };
            if theirs_node != candidate.index || pushed.model.priority > task.model.priority {
                continue;
            }
            // As if the other were gone and we were there.
            let mut without = left.to_vec();
            give(&mut without, theirs_node, takes);
            if !fits(candidate, &without) {
                continue;
            }
            take(&mut without, theirs_node, candidate.takes());
            let Some(theirs) = pushed.best_accepted(&without) else { continue };
            let cost = candidate.cost_millis.saturating_add(pushed.candidates[theirs].cost_millis);
            swaps.push((cost, other, theirs, ours));
        }
    }
    swaps.into_iter().min().map(|(_, other, theirs, ours)| (other, theirs, ours))
}

/// Most rounds of [`improve`]: each makes the site cheaper, and the second rarely finds anything.
const ROUNDS: usize = 2;

/// Lets every model look again, now that all have a place: what a repair left free, and what two would rather exchange.
fn improve(tasks: &mut [Task<'_>], left: &mut [Resources]) {
    for _ in 0..ROUNDS {
        let mut changed = false;
        for task in tasks.iter_mut().filter(|task| !task.pinned) {
            let Some(before) = task.chosen else { continue };
            task.put(None, left);
            let best = task.best_accepted(left).unwrap_or(before);
            changed |= best != before;
            task.put(Some(best), left);
        }
        if !changed {
            break;
        }
    }
}

/// The more important first, then fewest accepted places, then the largest share of a node, then the name.
fn order<'a>(task: &Task<'a>, whole: &[Resources]) -> (Reverse<i32>, usize, Reverse<u64>, &'a ModelName) {
    let share =
        |candidate: &Candidate<'_>| whole.get(candidate.index).map(|node| dominant_share(candidate.takes(), *node));
    let largest = task.candidates.iter().filter_map(share).max().unwrap_or(0);
    (Reverse(task.model.priority), task.accepted().count(), Reverse(largest), &task.model.name)
}

fn give(left: &mut [Resources], node: usize, takes: Resources) {
    if let Some(room) = left.get_mut(node) {
        room.cpu_millis += takes.cpu_millis;
        room.memory_bytes += takes.memory_bytes;
    }
}

fn take(left: &mut [Resources], node: usize, takes: Resources) {
    if let Some(room) = left.get_mut(node) {
        room.cpu_millis -= takes.cpu_millis;
        room.memory_bytes -= takes.memory_bytes;
    }
}

fn fits(candidate: &Candidate<'_>, left: &[Resources]) -> bool {
    let takes = candidate.takes();
    left.get(candidate.index)
        .is_none_or(|left| takes.cpu_millis <= left.cpu_millis && takes.memory_bytes <= left.memory_bytes)
}

/// Whether the model may be served late. Not for a site without contact: nobody there could see it.
fn may_exceed(snapshot: &Snapshot, task: &Task<'_>) -> bool {
    task.model.budget_policy == BudgetPolicy::Prefer && !super::unreachable(snapshot)
}

fn placement(
    snapshot: &Snapshot,
    task: &Task<'_>,
    chosen: &Candidate<'_>,
    left: &mut [Resources],
    above: &[Above<'_>],
) -> Placement {
    let Task { model, candidates, failed, .. } = task;
    // Reasons speak of the room that the others leave this model.
    let own = task.takes();
    if let Some((node, takes)) = own {
        give(left, node, takes);
    }
    let others = passed_over(snapshot, model, candidates, Some(chosen), left, above);
    if let Some((node, takes)) = own {
        take(left, node, takes);
    }
    let kept = task.kept.as_ref().filter(|_| task.chosen == task.home);
    let (reason, because) = match (&chosen.too_slow, kept, chosen.tier()) {
        (None, Some(kept), _) => (Reason::KeptByStability, format!("; held: {}", kept.why)),
        (None, None, Tier::Edge) => (Reason::ChosenAtEdge, String::new()),
        (None, None, Tier::Cloud) => (Reason::ChosenInCloud, String::new()),
        (Some(slow), ..) => {
            let message = slow.message(model, &snapshot.link, chosen);
            (Reason::BestEffort, format!("; {}: {message}", slow.reason()))
        }
    };
    let prediction = &chosen.prediction;
    let by = model.overridden_by.as_ref().map_or_else(String::new, |name| format!(" by override {name}"));
    let message = format!(
        "{} at {}: p99 {}, bound {} of {}{by} (link {}, transfer {}, queue {}, compute {}; {}), {}{because}",
        chosen.name(),
        snapshot.site,
        chosen.p99(),
        text::time(prediction.bound_us),
        text::time(model.budget_us),
        text::time(prediction.link.p99_us),
        text::time(prediction.transfer.p99_us),
        text::time(prediction.queue.p99_us),
        text::time(prediction.compute.p99_us),
        prediction.basis,
        text::cost(chosen.cost_millis),
    );
    Placement {
        model: model.name.clone(),
        version: model.version.clone(),
        digest: model.digest.clone(),
        tier: chosen.tier(),
        node: chosen.node.map(|node| node.name.clone()),
        variant: chosen.variant.name.clone(),
        replicas: chosen.replicas,
        request: chosen.request,
        reason,
        message: text::short(&message, text::CONDITION),
        predicted: Some(chosen.prediction.clone()),
        budget_us: model.budget_us,
        cost_millis: Some(chosen.cost_millis),
        rejected: ranked(others, failed),
        better_place: kept.and(task.better).map(|better| better_place(snapshot, task, better)),
        due: due(snapshot, task),
        moves: moves(snapshot, task, chosen),
        ratio: told(snapshot, task, chosen),
    }
}

fn better_place(snapshot: &Snapshot, task: &Task<'_>, better: usize) -> BetterPlace {
    let since = hold::history(snapshot, &task.model.name).and_then(|history| history.better_since);
    BetterPlace { candidate: task.candidates[better].name(), since: since.unwrap_or(snapshot.stability.now) }
}

/// The next time at which something that was kept may move.
fn due(snapshot: &Snapshot, task: &Task<'_>) -> Option<i64> {
    let stability = &snapshot.stability;
    let history = hold::history(snapshot, &task.model.name);
    let missed = history.and_then(|history| history.missed_since).map(|since| stability.settled_at(since));
    let is_left = |candidate: &Candidate<'_>| matches!(candidate.too_slow, Some(Slow::Left { .. }));
    let returns =
        history.filter(|_| task.candidates.iter().any(is_left)).map(|history| stability.returns_at(history.since));
    let kept = task.kept.as_ref().and_then(|kept| kept.due);
    [missed, returns, kept].into_iter().flatten().filter(|at| stability.is_ahead(*at)).min()
}

/// Whether it leaves a home for the place that was chosen, and how urgently.
fn moves(snapshot: &Snapshot, task: &Task<'_>, chosen: &Candidate<'_>) -> Option<Urgency> {
    let node = chosen.node.map(|node| node.name.as_str());
    let home = snapshot.current.get(&task.model.name)?;
    if hold::is_at(home, chosen.tier(), node, &chosen.variant.name) {
        return None;
    }
    let verdict = task.would_leave().map(|(home, chosen)| hold::judge(snapshot, task, home, chosen));
    Some(if matches!(verdict, Some(Verdict::Go { urgent: false })) { Urgency::Better } else { Urgency::Infeasible })
}

/// What the clients of a home that stays tell of its prediction.
fn told(snapshot: &Snapshot, task: &Task<'_>, chosen: &Candidate<'_>) -> Option<RatioSample> {
    task.chosen.filter(|chosen| task.home == Some(*chosen))?;
    let measured_us = hold::history(snapshot, &task.model.name)?.measured_p99_us?;
    let class = match (chosen.node, &task.model.cloud) {
        (Some(node), _) => node.speed.as_ref()?.class.clone(),
        (None, CloudOffer::Pool(speed)) => speed.class.clone(),
        (None, CloudOffer::None { .. }) => return None,
    };
    let key = RatioKey { class, variant: chosen.variant.name.clone(), tier: chosen.tier() };
    Some(RatioSample { key, percent: observed_percent(measured_us, chosen.prediction.p99_us) })
}

fn unplaced(snapshot: &Snapshot, task: &Task<'_>, left: &[Resources], above: &[Above<'_>]) -> Unplaced {
    let Task { model, candidates, failed, .. } = task;
    let would_serve = candidates.iter().any(|candidate| candidate.too_slow.is_none() || may_exceed(snapshot, task));
    let reason = if would_serve {
        Reason::NoCapacity
    } else if snapshot.nodes.is_empty() && model.tier != TierChoice::Cloud {
        Reason::NoNodes
    } else {
        Reason::NoCandidate
    };
    let rejected = ranked(passed_over(snapshot, model, candidates, None, left, above), failed);
    let start = match reason {
        Reason::NoCapacity => format!("{} is full for {}", snapshot.site, model.name.name),
        Reason::NoNodes => format!("no place for {} at {}: the site has no node", model.name.name, snapshot.site),
        _ => format!("no place for {} at {}", model.name.name, snapshot.site),
    };
    let message = sentence(&start, &rejected, model.variants.is_empty());
    Unplaced {
        model: model.name.clone(),
        version: model.version.clone(),
        budget_us: model.budget_us,
        reason,
        message,
        rejected,
    }
}

/// Appends each distinct rejection, as many as a condition has room for.
fn sentence(start: &str, rejected: &[Rejected], no_variant: bool) -> String {
    let mut parts: Vec<String> = Vec::new();
    if no_variant {
        parts.push("the version has no variant".into());
    }
    for Rejected { reason, message, .. } in rejected {
        let part = format!("{reason}: {message}");
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    let message = if parts.is_empty() { start.to_owned() } else { format!("{start}: {}", parts.join("; ")) };
    text::short(&message, text::CONDITION)
}

/// The others first, then what failed earlier filters. At most 8.
fn ranked(mut others: Vec<Rejected>, failed: &[Failed<'_>]) -> Vec<Rejected> {
    let mut failed: Vec<_> = failed.iter().collect();
    failed.sort_by_key(|failed| failed.order());
    let told = |failed: &Failed<'_>| Rejected {
        candidate: failed.name(),
        reason: failed.failure.reason(),
        message: text::short(&failed.failure.message(), text::REJECTION),
    };
    let room = MOST_REJECTED.saturating_sub(others.len());
    others.extend(failed.into_iter().take(room).map(told));
    others
}
