//! What a store knows in memory: a fold over its records, the same whether they are written now or read again. Pure.

use super::record::{Checkpoint, Record, Seen};
use crate::sample::{Id, Label, Rank, Sample};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Where a sample's frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub segment: u64,
    pub offset: usize,
    pub length: usize,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub place: Place,
    pub rank: Rank,
    pub lived: u64,
    serial: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub number: u64,
    pub ids: Vec<Id>,
}

#[derive(Default)]
pub struct State {
    pub store: String,
    pub next_shard: u64,
    pub uri: Option<String>,
    pub planned: Option<Planned>,
    entries: HashMap<Id, Entry>,
    /// By rank, the oldest first. Those of a planned shard are in none.
    order: BTreeMap<(Rank, u64, u64), Id>,
    labels: HashMap<Id, Label>,
    live: BTreeMap<u64, u64>,
    seen: VecDeque<Seen>,
    seen_set: HashSet<Seen>,
    serial: u64,
}

/// How many samples that were sent are remembered: who sends one again, does so soon.
pub const REMEMBERED: usize = 16_384;

impl State {
    pub fn named(store: &str) -> Self {
        Self { store: store.to_owned(), ..Self::default() }
    }

    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { store: self.store.clone(), next_shard: self.next_shard, uri: self.uri.clone() }
    }

    /// Takes what a record says; `place` is where its frame is.
    pub fn apply(&mut self, record: &Record<'_>, place: Place) {
        match record {
            Record::Checkpoint(checkpoint) => {
                self.store.clone_from(&checkpoint.store);
                self.next_shard = self.next_shard.max(checkpoint.next_shard);
                if self.uri != checkpoint.uri {
                    // What was sent, was sent elsewhere.
                    if self.uri.is_some() {
                        self.seen.clear();
                        self.seen_set.clear();
                    }
                    self.uri.clone_from(&checkpoint.uri);
                }
            }
            Record::Seen(seen) => seen.iter().for_each(|seen| self.remember(*seen)),
            Record::Sample(held, _) => self.keep(&held.sample, held.lived, place),
            Record::Label(id, label) => self.label(id, label),
            Record::Gone(_, ids) => {
                ids.iter().for_each(|id| self.forget(id));
                // A shard that loses a sample is no shard any more.
                if let Some(planned) = self.planned.take_if(|planned| planned.ids.iter().any(|id| ids.contains(id))) {
                    planned.ids.iter().for_each(|id| self.order(id));
                }
            }
            Record::Shard(number, ids) => {
                self.next_shard = self.next_shard.max(number + 1);
                for id in ids {
                    if let Some(entry) = self.entries.get(id) {
                        self.order.remove(&(entry.rank, entry.lived, entry.serial));
                    }
                }
                self.planned = Some(Planned { number: *number, ids: ids.clone() });
            }
            Record::Sent(number) => {
                if let Some(planned) = self.planned.take_if(|planned| planned.number == *number) {
                    for id in &planned.ids {
                        self.forget(id);
                        self.remember(seen(id));
                    }
                }
            }
        }
    }

    fn keep(&mut self, sample: &Sample, lived: u64, place: Place) {
        let id = sample.id;
        let label = self.labels.remove(&id);
        let is_planned = self.is_planned(&id);
        // A sample that was carried from an old segment stands at its new place.
        self.forget(&id);
        let rank = if label.is_some() { Rank::Labelled } else { sample.rank() };
        self.labels.extend(label.map(|label| (id, label)));
        self.serial += 1;
        self.entries.insert(id, Entry { place, rank, lived, serial: self.serial });
        *self.live.entry(place.segment).or_default() += place.length as u64;
        if !is_planned {
            self.order(&id);
        }
    }

    fn order(&mut self, id: &Id) {
        if let Some(entry) = self.entries.get(id) {
            self.order.insert((entry.rank, entry.lived, entry.serial), *id);
        }
    }

    fn label(&mut self, id: &Id, label: &Label) {
        if let Some(entry) = self.entries.get_mut(id) {
            let was = self.order.remove(&(entry.rank, entry.lived, entry.serial)).is_some();
            entry.rank = Rank::Labelled;
            self.labels.insert(*id, label.clone());
            if was {
                self.order(id);
            }
        }
    }

    fn forget(&mut self, id: &Id) {
        self.labels.remove(id);
        if let Some(entry) = self.entries.remove(id) {
            self.order.remove(&(entry.rank, entry.lived, entry.serial));
            if let Some(live) = self.live.get_mut(&entry.place.segment) {
                *live = live.saturating_sub(entry.place.length as u64);
            }
        }
    }

    fn remember(&mut self, seen: Seen) {
        if self.seen_set.insert(seen) {
            self.seen.push_back(seen);
        }
        if self.seen.len() > REMEMBERED
            && let Some(oldest) = self.seen.pop_front()
        {
            self.seen_set.remove(&oldest);
        }
    }

    pub fn knows(&self, id: &Id) -> bool {
        self.entries.contains_key(id) || self.seen_set.contains(&seen(id))
    }

    pub fn get(&self, id: &Id) -> Option<&Entry> {
        self.entries.get(id)
    }

    pub fn labelled(&self, id: &Id) -> Option<&Label> {
        self.labels.get(id)
    }

    pub fn is_planned(&self, id: &Id) -> bool {
        self.planned.as_ref().is_some_and(|planned| planned.ids.contains(id))
    }

    /// How many samples are held.
    pub fn held(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Bytes of frames that are held.
    pub fn live(&self) -> u64 {
        self.live.values().sum()
    }

    pub fn live_in(&self, segment: u64) -> u64 {
        self.live.get(&segment).copied().unwrap_or(0)
    }

    pub fn removed(&mut self, segment: u64) {
        self.live.remove(&segment);
    }

    /// Those that may go for one of `rank`, the first to go first.
    pub fn victims(&self, rank: Rank) -> impl Iterator<Item = (Id, &Entry)> {
        let may_go = self.order.iter().take_while(move |((other, ..), _)| *other <= rank);
        may_go.filter_map(|(_, id)| Some((*id, self.entries.get(id)?)))
    }

    /// In the order of their coming.
    pub fn oldest(&self) -> Vec<(Id, &Entry)> {
        let mut ids: Vec<_> = self.entries.iter().map(|(id, entry)| (*id, entry)).collect();
        ids.sort_by_key(|(_, entry)| (entry.lived, entry.serial));
        ids
    }

    /// In the order of their places.
    pub fn in_segment(&self, segment: u64) -> Vec<(Id, Place)> {
        let here = self.entries.iter().filter(|(_, entry)| entry.place.segment == segment);
        let mut here: Vec<_> = here.map(|(id, entry)| (*id, entry.place)).collect();
        here.sort_by_key(|(_, place)| place.offset);
        here
    }

    pub fn seen(&self, most: usize) -> Vec<Seen> {
        self.seen.iter().skip(self.seen.len().saturating_sub(most)).copied().collect()
    }
}

fn seen(id: &Id) -> Seen {
    let mut seen = Seen::default();
    seen.copy_from_slice(&id.0[..16]);
    seen
}
