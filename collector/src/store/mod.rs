//! The store of one dataset: segments on disk, and what they say in memory. A sample that was answered for is on the disk.
//!
//! Every change is a batch of records that is committed at once; what was told of a batch that was not committed, was not told.
//! Whatever is read again after a crash is folded as it was when it was written, so that there is no second index to differ.

mod files;
mod record;
mod room;
mod state;

pub use files::{Allocate, allocate};
pub use state::Planned;

use crate::clock::{Mark, Now};
use crate::counts::{Counts, Drop};
use crate::intake::STATISTICS;
use crate::privacy::Privacy;
use crate::sample::{Id, Label, Rank, Sample};
use crate::segment;
use bytes::Bytes;
use files::Files;
use record::{Checkpoint, Commit, Held, Record, append_commit, read_commit};
use state::{Place, State};
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

/// The largest segment; a smaller buffer has smaller ones.
const SEGMENT: u64 = 16 << 20;
const LEAST_SEGMENT: u64 = 256 << 10;
/// What is known of a sample takes at most so many bytes.
pub const KNOWN: u64 = 4096;
/// Samples that one store holds: what is known of each takes 200 bytes of memory.
const MOST_SAMPLES: u64 = 200_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// On the disk.
    pub max_bytes: u64,
    pub max_age: Duration,
}

/// A shard that is planned: its name is the store's and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    pub store: String,
    pub number: u64,
    pub ids: Vec<Id>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Kept,
    /// It is held, or was sent, already.
    Duplicate,
    Dropped(Drop),
}

#[derive(thiserror::Error, Debug)]
pub enum StoreError {
    #[error("cannot open the store {folder}")]
    Open { folder: std::path::PathBuf, source: std::io::Error },
    #[error("cannot write to the store; is the disk full or broken?")]
    Write(#[from] std::io::Error),
    #[error("cannot encode a record")]
    Encode(#[from] serde_json::Error),
    #[error("cannot read a sample that is held: {0}")]
    Read(String),
}

pub struct Store {
    files: Files,
    limits: Limits,
    state: State,
    counts: Counts,
    mark: Mark,
    /// How long the store had lived, as the disk has it.
    marked: u64,
    /// What is taken under a looser one is not kept, however late it comes.
    privacy: Privacy,
    consent: bool,
}

impl Store {
    /// Opens a store, and takes up what the last process left.
    ///
    /// # Errors
    /// If the folder cannot be used. Segments that are broken are no error: what they held is counted as lost.
    pub fn open(folder: &Path, limits: Limits, now: &Now, allocate: Allocate) -> Result<Self, StoreError> {
        let size = (limits.max_bytes / 16).clamp(LEAST_SEGMENT, SEGMENT);
        let opened = |source| StoreError::Open { folder: folder.to_owned(), source };
        let files = Files::open(folder, size, allocate).map_err(opened)?;
        let name = Id::of(format!("{}{}{}", now.boot, now.wall.as_nanosecond(), folder.display()).as_bytes());
        let state = State::named(&name.to_string()[..12]);
        let (counts, mark) = (Counts::default(), Mark::first(now.clone()));
        let mut store = Self { files, limits, state, counts, mark, marked: 0, privacy: Privacy::Raw, consent: false };
        for number in store.files.numbers() {
            let end = store.replay(number).map_err(opened)?;
            store.files.seal(number, end).map_err(opened)?;
        }
        let lost = store.counts.held().saturating_sub(store.state.held());
        store.counts.drop(Drop::Corrupt, lost);
        (store.marked, store.mark) = (store.mark.lived, store.mark.at(now));
        Ok(store)
    }

    /// Reads a segment; returns where its last batch ends.
    fn replay(&mut self, segment: u64) -> std::io::Result<u64> {
        let bytes = self.files.read(segment)?;
        let (batches, end) = segment::batches(&bytes, record::COMMIT);
        for (frames, commit) in batches {
            for frame in frames {
                let place = Place { segment, offset: frame.offset, length: segment::length(frame.body.len()) };
                match Record::read(frame) {
                    Ok(record) => self.state.apply(&record, place),
                    Err(error) => tracing::error!(segment, offset = frame.offset, %error, "a record is left out"),
                }
            }
            match read_commit(commit) {
                Ok(Commit { counts, mark }) => (self.counts, self.mark) = (counts, mark),
                Err(error) => tracing::error!(segment, %error, "counts are left out"),
            }
        }
        Ok(end as u64)
    }

    /// Makes records so, with the counts that go with them.
    fn commit(&mut self, records: &[Record<'_>], counts: Counts, now: &Now, left: u64) -> Result<(), StoreError> {
        let commit = Commit { counts, mark: self.mark.at(now) };
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for record in records {
            let offset = bytes.len();
            record.append(&mut bytes)?;
            places.push((offset, bytes.len() - offset));
        }
        append_commit(&mut bytes, &commit)?;
        let mut head = Vec::new();
        if !self.files.fits(bytes.len(), left) {
            self.checkpoint().iter().try_for_each(|record| record.append(&mut head))?;
            self.files.rotate()?;
        }
        let Some((segment, start)) = self.files.end() else {
            return Err(std::io::Error::other("no segment is begun").into());
        };
        let start = start + head.len();
        head.extend(bytes);
        self.files.write(&head)?;
        for (record, (offset, length)) in records.iter().zip(places) {
            self.state.apply(record, Place { segment, offset: start + offset, length });
        }
        (self.counts, self.mark) = (commit.counts, commit.mark);
        self.marked = self.mark.lived;
        Ok(())
    }

    /// How many samples that were sent a segment's head names, at most.
    fn most_seen(&self) -> usize {
        ((self.files.size / 64) as usize).min(state::REMEMBERED)
    }

    /// How many samples a shard has, at most.
    fn most_planned(&self) -> usize {
        (self.files.size / 2048) as usize
    }

    /// Bytes that a segment's head takes, at most.
    fn most_head(&self) -> u64 {
        (self.most_seen() * size_of::<record::Seen>() + self.most_planned() * size_of::<Id>()) as u64 + 2048
    }

    fn checkpoint(&self) -> Vec<Record<'static>> {
        let checkpoint = self.state.checkpoint();
        let seen = self.state.seen(self.most_seen());
        let planned = self.state.planned.as_ref().map(|planned| Record::Shard(planned.number, planned.ids.clone()));
        [Record::Checkpoint(checkpoint), Record::Seen(seen)].into_iter().chain(planned).collect()
    }

    /// Other limits from now on: what a smaller buffer does not hold is dropped, but for what is on its way. Segments stay as large
    /// as they were.
    ///
    /// # Errors
    /// If the disk does not take it; it is met with the next samples.
    pub fn limit(&mut self, limits: Limits, now: &Now) -> Result<(), StoreError> {
        self.limits = limits;
        self.make_room(0, 0, Rank::Labelled, now)?;
        self.tidy(now);
        Ok(())
    }

    /// Keeps samples, as far as there is room; each is told what became of it once that is on the disk.
    pub fn add(&mut self, samples: &[(Sample, Bytes)], now: &Now) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(samples.len());
        let mut rest = samples;
        while !rest.is_empty() {
            let (outcome, taken) = self.add_some(rest, now);
            outcomes.extend(outcome);
            rest = &rest[taken..];
        }
        outcomes
    }

    /// As many as go in one batch.
    fn add_some(&mut self, samples: &[(Sample, Bytes)], now: &Now) -> (Vec<Outcome>, usize) {
        let most = self.files.size / 4;
        let lived = self.mark.at(now).lived;
        let (mut outcomes, mut bytes) = (Vec::new(), 0);
        let mut fresh = HashSet::new();
        for (sample, payload) in samples {
            // What is known of a sample is bounded where it comes in.
            let length = payload.len() as u64 + KNOWN;
            if bytes + length > most && bytes > 0 {
                break;
            }
            outcomes.push(if length > most {
                Outcome::Dropped(Drop::TooLarge)
            } else if !self.allows(sample) {
                Outcome::Dropped(Drop::Private)
            } else if self.state.knows(&sample.id) || !fresh.insert(sample.id) {
                Outcome::Duplicate
            } else {
                bytes += length;
                Outcome::Kept
            });
        }
        let taken = outcomes.len();
        let count = |outcome| outcomes.iter().filter(|other| **other == outcome).count() as u64;
        self.counts.duplicates += count(Outcome::Duplicate);
        for why in [Drop::TooLarge, Drop::Private] {
            self.counts.drop(why, count(Outcome::Dropped(why)));
        }
        self.find_room(&samples[..taken], &mut outcomes, now);
        let kept = samples.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == Outcome::Kept);
        let records: Vec<_> = kept
            .map(|((sample, payload), _)| Record::Sample(Held { lived, sample: sample.clone() }, payload))
            .collect();
        if !records.is_empty() {
            let counts = Counts { kept: self.counts.kept + records.len() as u64, ..self.counts.clone() };
            if let Err(error) = self.commit(&records, counts, now, room::RESERVE) {
                tracing::warn!(error = &error as &dyn std::error::Error, "samples are dropped");
                let is_kept = |outcome: &&mut Outcome| **outcome == Outcome::Kept;
                outcomes.iter_mut().filter(is_kept).for_each(|outcome| *outcome = Outcome::Dropped(Drop::DiskFull));
                self.refused(Drop::DiskFull, records.len() as u64);
            }
        }
        let again = samples.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == Outcome::Duplicate);
        again.for_each(|((sample, _), _)| self.label_again(sample, now));
        self.tidy(now);
        (outcomes, taken)
    }

    /// Who sends a sample once more, now with a label, labels the one that is held; who has labelled it before counts.
    fn label_again(&mut self, sample: &Sample, now: &Now) {
        let Some(label) = &sample.label else { return };
        if self.state.get(&sample.id).is_some_and(|entry| entry.rank == Rank::Labelled) {
            return;
        }
        match self.label(sample.id, label.clone(), now) {
            Ok(true) => {}
            Ok(false) => tracing::info!(
                id = %sample.id,
                "a label comes when the sample is on its way: if it has none, label it where it has arrived"
            ),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "a label is lost"),
        }
    }

    /// Counts samples that never came so far; the disk has it with the next batch.
    pub fn refused(&mut self, why: Drop, samples: u64) {
        if why.was_kept() {
            self.counts.kept += samples;
        }
        self.counts.drop(why, samples);
    }

    /// Labels a sample; false if it is not held, or already on its way.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn label(&mut self, id: Id, label: Label, now: &Now) -> Result<bool, StoreError> {
        if self.state.get(&id).is_none() || self.state.is_planned(&id) {
            return Ok(false);
        }
        self.commit(&[Record::Label(id, label)], self.counts.clone(), now, 0)?;
        Ok(true)
    }

    /// The shard that is to be sent: the one that was planned, else the oldest samples up to so many bytes.
    ///
    /// # Errors
    /// If the disk does not take the plan.
    pub fn plan(&mut self, most_bytes: u64, now: &Now) -> Result<Option<Shard>, StoreError> {
        if self.state.planned.is_none() {
            let most = self.most_planned();
            let mut bytes = 0;
            let within = |(_, entry): &(Id, &state::Entry)| {
                bytes += entry.place.length as u64;
                bytes <= most_bytes || bytes == entry.place.length as u64
            };
            let ids: Vec<Id> =
                self.state.oldest().into_iter().take(most).take_while(within).map(|(id, _)| id).collect();
            if ids.is_empty() {
                return Ok(None);
            }
            let number = self.state.next_shard;
            self.commit(&[Record::Shard(number, ids)], self.counts.clone(), now, 0)?;
        }
        let store = self.state.store.clone();
        Ok(self.state.planned.clone().map(|Planned { number, ids }| Shard { store, number, ids }))
    }

    /// A shard was sent, in so many bytes: what it held is let go.
    ///
    /// # Errors
    /// If the disk does not take it; the shard is then sent again, under the same name.
    pub fn sent(&mut self, number: u64, bytes: u64, now: &Now) -> Result<(), StoreError> {
        let Some(planned) = self.state.planned.as_ref().filter(|planned| planned.number == number) else {
            return Ok(());
        };
        let mut counts = self.counts.clone();
        counts.sent += planned.ids.len() as u64;
        // From the plan on no label comes: what is labelled now, was sent so.
        let is_labelled = |id: &&Id| self.state.get(id).is_some_and(|entry| entry.rank == Rank::Labelled);
        counts.labelled += planned.ids.iter().filter(is_labelled).count() as u64;
        counts.sent_bytes += bytes;
        self.commit(&[Record::Sent(number)], counts, now, 0)?;
        self.tidy(now);
        Ok(())
    }

    /// A sample that is held.
    ///
    /// # Errors
    /// If the disk has lost it.
    pub fn read(&self, id: &Id) -> Result<Option<(Sample, Bytes)>, StoreError> {
        Ok(self.held(id)?.map(|(held, payload)| (held.sample, payload)))
    }

    fn held(&self, id: &Id) -> Result<Option<(Held, Bytes)>, StoreError> {
        let Some(entry) = self.state.get(id) else { return Ok(None) };
        let Place { segment, offset, length } = entry.place;
        let bytes = self.files.read_at(segment, offset, length)?;
        let frame =
            segment::frame(&bytes, 0).ok_or_else(|| StoreError::Read(format!("{id}: its checksum is wrong")))?;
        match Record::read(frame).map_err(|error| StoreError::Read(format!("{id}: {error}")))? {
            Record::Sample(mut held, payload) => {
                if let Some(label) = self.state.labelled(id) {
                    held.sample.label = Some(label.clone());
                }
                Ok(Some((held, Bytes::copy_from_slice(payload))))
            }
            _ => Err(StoreError::Read(format!("{id}: there is another record in its place"))),
        }
    }

    /// Drops what is held of these, on somebody's wish. A planned shard goes on under its number without them: it may have arrived
    /// with them, and was then rewritten there under its name.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn forget(&mut self, ids: &HashSet<Id>, now: &Now) -> Result<(), StoreError> {
        let is_gone = |id: &Id| ids.contains(id) && self.state.get(id).is_some();
        if let Some(Planned { number, ids: planned }) = self.state.planned.clone() {
            let (gone, rest): (Vec<Id>, Vec<Id>) = planned.into_iter().partition(is_gone);
            if !gone.is_empty() && !rest.is_empty() {
                let mut counts = self.counts.clone();
                counts.drop(Drop::Forgotten, gone.len() as u64);
                // At once: between the two there would be no plan, and the next has another number.
                let records = [Record::Gone(Drop::Forgotten, gone), Record::Shard(number, rest)];
                self.commit(&records, counts, now, 0)?;
            }
        }
        let mut gone: Vec<Id> = ids.iter().filter(|id| self.state.get(id).is_some()).copied().collect();
        gone.sort_unstable();
        self.gone(Drop::Forgotten, gone, now)?;
        self.tidy(now);
        Ok(())
    }

    fn allows(&self, sample: &Sample) -> bool {
        // What is told over all samples is nobody's.
        let is_agreed = !self.consent || sample.consent.is_some() || sample.source == STATISTICS;
        is_agreed && self.privacy.allows(&sample.policy, sample.mask.as_deref())
    }

    /// Another policy from now on: drops what is held of a looser one, of another mask, without the consent that is needed now, or
    /// of one that cannot be read, and keeps no
    /// more of it, though it be on its way here already. Returns how many samples are dropped.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn tighten(&mut self, privacy: Privacy, consent: bool, now: &Now) -> Result<u64, StoreError> {
        (self.privacy, self.consent) = (privacy, consent);
        let (mut looser, mut lost) = (Vec::new(), Vec::new());
        for id in self.ids() {
            match self.read(&id) {
                Ok(Some((sample, _))) if self.allows(&sample) => {}
                Ok(_) => looser.push(id),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "a sample is lost");
                    lost.push(id);
                }
            }
        }
        let samples = (looser.len() + lost.len()) as u64;
        self.gone(Drop::Forgotten, looser, now)?;
        self.gone(Drop::Corrupt, lost, now)?;
        Ok(samples)
    }

    /// Where samples go from now on. What is held for another place is dropped, since nobody agreed that it goes here, and what
    /// arrived there has not arrived here. Returns how many are dropped.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn bound_for(&mut self, uri: &str, now: &Now) -> Result<u64, StoreError> {
        let Some(before) = &self.state.uri else {
            // A new store, or one of a version that did not note it: the next segment begins with it.
            self.state.uri = Some(uri.to_owned());
            return Ok(0);
        };
        if before == uri {
            return Ok(0);
        }
        let elsewhere = self.ids();
        let samples = elsewhere.len() as u64;
        self.gone(Drop::Forgotten, elsewhere, now)?;
        let checkpoint = Checkpoint { uri: Some(uri.to_owned()), ..self.state.checkpoint() };
        self.commit(&[Record::Checkpoint(checkpoint)], self.counts.clone(), now, 0)?;
        Ok(samples)
    }

    /// Drops a sample that cannot be read any more.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn lost(&mut self, id: Id, now: &Now) -> Result<(), StoreError> {
        self.gone(Drop::Corrupt, vec![id], now)
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Samples, and bytes of them, that are held.
    pub fn holds(&self) -> (u64, u64) {
        (self.state.held(), self.state.live())
    }

    /// The ids of all that are held, the oldest first.
    pub fn ids(&self) -> Vec<Id> {
        self.state.oldest().into_iter().map(|(id, _)| id).collect()
    }

    /// How long the oldest has been held.
    pub fn oldest_age(&self, now: &Now) -> Option<Duration> {
        let lived = self.mark.at(now).lived;
        let (_, entry) = self.state.oldest().into_iter().next()?;
        Some(Duration::from_millis(lived.saturating_sub(entry.lived)))
    }
}
