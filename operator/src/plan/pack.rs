//! Gives the site's models their places, one after another, so that no node holds more than it has.

use super::filter::{self, Candidate, Failed, Site, candidates};
use super::hold::{self, Kept, Verdict};
use super::score::{Left, best, dominant_share};
use super::why::Slow;
use super::{Model, ModelName, Room, Snapshot};
use sconce_api::{BudgetPolicy, Objective};
use std::cmp::Reverse;

/// A model with the places that it might have, and the one that it gets.
pub(super) struct Task<'a> {
    pub model: &'a Model,
    pub candidates: Vec<Candidate<'a>>,
    pub failed: Vec<Failed<'a>>,
    /// Index into `candidates`.
    pub chosen: Option<usize>,
    /// Where it runs today, if it can go on there.
    pub home: Option<usize>,
    /// It stays at its home.
    pinned: bool,
    /// Why, where another place is better.
    pub kept: Option<Kept>,
    /// The best place for it if nothing were kept, if that is better by enough.
    pub better: Option<usize>,
}

impl<'a> Task<'a> {
    fn new(site: &Site<'a>, model: &'a Model) -> Self {
        let (mut candidates, failed) = candidates(site, model);
        hold::measured(site.snapshot, model, &mut candidates);
        let home = candidates.iter().position(|candidate| candidate.home);
        Self { model, candidates, failed, chosen: None, home, pinned: false, kept: None, better: None }
    }

    /// Its home and the other place that was chosen for it.
    pub fn would_leave(&self) -> Option<(&Candidate<'a>, &Candidate<'a>)> {
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
    fn best_accepted(&self, left: &[Room]) -> Option<usize> {
        let fitting = self.accepted().filter(|(_, candidate)| fits(candidate, left));
        best(fitting, self.model.objective, left)
    }

    /// Some place that keeps the budget has no room left for it: it may want to look again.
    fn gave_way(&self, left: &[Room]) -> bool {
        let here = self.chosen();
        !self.pinned
            && self.accepted().any(|(_, candidate)| {
                !fits(candidate, left) && here.is_none_or(|here| candidate.cost_millis < here.cost_millis)
            })
    }

    pub fn chosen(&self) -> Option<&Candidate<'a>> {
        self.chosen.map(|index| &self.candidates[index])
    }

    /// What it takes of its node, if it has one.
    pub fn takes(&self) -> Option<(usize, Room)> {
        let chosen = self.chosen()?;
        chosen.node.map(|_| (chosen.index, chosen.takes))
    }

    fn put(&mut self, chosen: Option<usize>, left: &mut [Room]) {
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
    pub snapshot: &'a Snapshot,
    pub tasks: Vec<Task<'a>>,
    /// What our models leave of each node.
    pub left: Left,
}

/// `taken` is what models that are kept take of their nodes.
pub(super) fn pack<'a, 'k>(
    snapshot: &'a Snapshot,
    models: &[&'a Model],
    taken: impl Iterator<Item = (&'k str, Room)>,
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
fn fill(snapshot: &Snapshot, tasks: &mut [Task<'_>], rooms: &[Room]) -> Left {
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
    // Who serves late where it is makes no room for who would be as late there: else they would take turns.
    let mut late: Vec<_> = tasks.iter_mut().filter(|task| task.chosen.is_none()).collect();
    late.sort_by_key(|task| (Reverse(task.model.priority), task.home.is_none()));
    for task in late {
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
fn keep(snapshot: &Snapshot, tasks: &mut [Task<'_>], rooms: &[Room]) -> Option<Left> {
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
fn pin_unripe(snapshot: &Snapshot, tasks: &mut [Task<'_>], rooms: &[Room], first: bool) -> Option<Left> {
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
}

/// Gives the models their places; whether there was too little room for all wishes.
fn settle(tasks: &mut [Task<'_>], left: &mut [Room]) -> bool {
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
fn rest(tasks: &mut [Task<'_>], left: &mut [Room]) {
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
fn place(tasks: &mut [Task<'_>], left: &mut [Room]) {
    for task in tasks.iter_mut().filter(|task| task.chosen.is_none()) {
        let best = task.best_accepted(left);
        task.put(best, left);
    }
}

/// Gives a model without a place that of another, no more important one, which has another place that keeps its budget.
fn repair(tasks: &mut [Task<'_>], left: &mut [Room]) {
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
fn best_swap(tasks: &[Task<'_>], index: usize, left: &[Room]) -> Option<(usize, usize, usize)> {
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
            take(&mut without, theirs_node, candidate.takes);
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
fn improve(tasks: &mut [Task<'_>], left: &mut [Room]) {
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
fn order<'a>(task: &Task<'a>, whole: &[Room]) -> (Reverse<i32>, usize, Reverse<u64>, &'a ModelName) {
    let here = |candidate: &&Candidate<'_>| candidate.index < whole.len();
    let mut largest = 0;
    let mut before: Option<(&Candidate<'_>, Room)> = None;
    for candidate in task.candidates.iter().filter(here) {
        let room = whole[candidate.index];
        // Nodes that compute alike mostly have the same room.
        if before.is_none_or(|(before, of)| of != room || before.takes != candidate.takes) {
            largest = largest.max(dominant_share(candidate.takes, room));
        }
        before = Some((candidate, room));
    }
    (Reverse(task.model.priority), task.accepted().count(), Reverse(largest), &task.model.name)
}

pub(super) fn give(left: &mut [Room], node: usize, takes: Room) {
    if let Some(room) = left.get_mut(node) {
        room.cpu_millis += takes.cpu_millis;
        room.memory_bytes += takes.memory_bytes;
        room.store_bytes += takes.store_bytes;
    }
}

pub(super) fn take(left: &mut [Room], node: usize, takes: Room) {
    if let Some(room) = left.get_mut(node) {
        room.cpu_millis -= takes.cpu_millis;
        room.memory_bytes -= takes.memory_bytes;
        room.store_bytes -= takes.store_bytes;
    }
}

fn fits(candidate: &Candidate<'_>, left: &[Room]) -> bool {
    left.get(candidate.index).is_none_or(|left| filter::fits(candidate.takes, *left))
}

/// Whether the model may be served late. Not for a site without contact: nobody there could see it.
pub(super) fn may_exceed(snapshot: &Snapshot, task: &Task<'_>) -> bool {
    task.model.budget_policy == BudgetPolicy::Prefer && !super::unreachable(snapshot)
}
