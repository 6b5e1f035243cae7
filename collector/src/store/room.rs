//! Room: what goes when there is too much, and how old segments are given back.

use super::record::Record;
use super::state::Place;
use super::{KNOWN, MOST_SAMPLES, Outcome, Store, StoreError};
use crate::clock::Now;
use crate::counts::Drop;
use crate::sample::{Id, Rank, Sample};
use bytes::Bytes;
use std::collections::HashSet;

/// Of each segment, for what is not a sample: on a full disk, what was sent can still be told.
pub(super) const RESERVE: u64 = 64 << 10;
/// The clock by which samples age is written so often: a node that starts each night would else never see them grow old.
const MARKED: u64 = 600_000;
/// Samples that are carried to a new segment in one batch.
const CARRIED_BYTES: usize = 1 << 20;

impl Store {
    /// Samples may take three quarters of what segments hold of them: the rest is of samples that are gone.
    fn most_live(&self) -> u64 {
        let held = u128::from(self.limits.max_bytes) * u128::from(self.filled()) / u128::from(self.files.size);
        held as u64 / 4 * 3
    }

    /// What a segment holds of samples: without its head, and what is left free for what is no sample.
    fn filled(&self) -> u64 {
        self.files.size.saturating_sub(self.most_head() + RESERVE).max(1)
    }

    /// Drops what is worth less than samples of `rank`, the least first, until they have room; false if there is too little such.
    pub(super) fn make_room(&mut self, bytes: u64, samples: u64, rank: Rank, now: &Now) -> Result<bool, StoreError> {
        let over = (self.state.live() + bytes).saturating_sub(self.most_live());
        let too_many = (self.state.held() + samples).saturating_sub(MOST_SAMPLES);
        if over == 0 && too_many == 0 {
            return Ok(true);
        }
        // A slice at once: each time costs a write.
        let (slice, some) = (over + self.files.size / 8, too_many + MOST_SAMPLES / 1000);
        let (mut freed, mut victims) = (0, Vec::new());
        for (id, entry) in self.state.victims(rank) {
            let is_enough = |of_bytes, of_samples: u64| {
                (over == 0 || freed >= of_bytes) && (too_many == 0 || victims.len() as u64 >= of_samples)
            };
            if is_enough(slice, some) || (entry.rank > Rank::Easy && is_enough(over, too_many)) {
                break;
            }
            freed += entry.place.length as u64;
            victims.push(id);
        }
        if freed < over || (victims.len() as u64) < too_many {
            return Ok(false);
        }
        self.gone(Drop::Full, victims, now)?;
        Ok(true)
    }

    /// Makes room for those samples that are to be kept, the highest rank first: each takes room from none that is worth more. What
    /// finds none is not kept.
    pub(super) fn find_room(&mut self, samples: &[(Sample, Bytes)], outcomes: &mut [Outcome], now: &Now) {
        let (mut bytes, mut number) = (0, 0);
        for rank in [Rank::Labelled, Rank::Hard, Rank::Easy] {
            let is_wanted = |at: &usize| outcomes[*at] == Outcome::Kept && samples[*at].0.rank() == rank;
            let wanted: Vec<usize> = (0..outcomes.len()).filter(is_wanted).collect();
            if wanted.is_empty() {
                continue;
            }
            let more_bytes: u64 = wanted.iter().map(|&at| samples[at].1.len() as u64 + KNOWN).sum();
            let more = wanted.len() as u64;
            let why = match self.make_room(bytes + more_bytes, number + more, rank, now) {
                Ok(true) => {
                    (bytes, number) = (bytes + more_bytes, number + more);
                    continue;
                }
                Ok(false) => Drop::Full,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "samples are dropped");
                    Drop::DiskFull
                }
            };
            wanted.iter().for_each(|&at| outcomes[at] = Outcome::Dropped(why));
            self.refused(why, more);
        }
    }

    pub(super) fn gone(&mut self, why: Drop, ids: Vec<Id>, now: &Now) -> Result<(), StoreError> {
        // What is told of a segment's worth of samples goes in its reserve.
        for ids in ids.chunks((RESERVE / 128) as usize) {
            let mut counts = self.counts.clone();
            counts.drop(why, ids.len() as u64);
            self.commit(&[Record::Gone(why, ids.to_vec())], counts, now, 0)?;
        }
        Ok(())
    }

    /// Drops what has been held for too long; not of a planned shard, which may have arrived already: it is sent as it was planned.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn expire(&mut self, now: &Now) -> Result<(), StoreError> {
        let lived = self.mark.at(now).lived;
        let max_age = self.limits.max_age.as_millis() as u64;
        let is_old = |lived_then: u64| lived.saturating_sub(lived_then) > max_age;
        let old = self.state.oldest().into_iter().take_while(|(_, entry)| is_old(entry.lived));
        let planned: HashSet<Id> = self.state.planned.iter().flat_map(|planned| planned.ids.iter().copied()).collect();
        let old: Vec<Id> = old.map(|(id, _)| id).filter(|id| !planned.contains(id)).collect();
        if !old.is_empty() {
            self.gone(Drop::Expired, old, now)?;
            self.tidy(now);
        } else if self.state.held() > 0 && lived.saturating_sub(self.marked) > MARKED {
            // A disk that does not take it is asked again as late.
            self.marked = lived;
            self.commit(&[], self.counts.clone(), now, RESERVE)?;
            self.tidy(now);
        }
        Ok(())
    }

    /// Gives old segments back, as far as that can be done now. What is carried goes to a segment that is not carried again.
    pub(super) fn tidy(&mut self, now: &Now) {
        let kept = self.files.newest();
        while let Some(oldest) = self.files.oldest() {
            let tidied = if self.state.live_in(oldest) == 0 {
                self.files.remove(oldest).map_err(StoreError::from)
            } else if oldest < kept
                && self.files.bytes() + self.files.size > self.limits.max_bytes
                && self.is_worth_carrying()
            {
                self.carry(oldest, now)
            } else {
                break;
            };
            if let Err(error) = tidied {
                tracing::warn!(segment = oldest, error = &error as &dyn std::error::Error, "an old segment stays");
                break;
            }
            if self.state.live_in(oldest) == 0 {
                self.state.removed(oldest);
            }
        }
    }

    /// Whether all that is held would take a segment less if it were written anew.
    fn is_worth_carrying(&self) -> bool {
        let anew = self.state.live().div_ceil(self.filled()) * self.files.size;
        self.files.bytes() >= anew + self.files.size
    }

    /// Writes what an old segment still holds anew, so that nothing is left in it.
    fn carry(&mut self, segment: u64, now: &Now) -> Result<(), StoreError> {
        let mut ids: &[(Id, Place)] = &self.state.in_segment(segment);
        let most = CARRIED_BYTES.min(self.files.size as usize / 16);
        while !ids.is_empty() {
            let (mut batch, mut lost, mut bytes, mut taken) = (Vec::new(), Vec::new(), 0, 0);
            for (id, place) in ids {
                if taken > 0 && bytes + place.length > most {
                    break;
                }
                match self.held(id) {
                    Ok(Some(held)) => {
                        bytes += place.length;
                        batch.push(held);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        tracing::error!(error = &error as &dyn std::error::Error, "a sample is lost");
                        lost.push(*id);
                    }
                }
                taken += 1;
            }
            ids = &ids[taken..];
            let records: Vec<_> = batch.iter().map(|(held, payload)| Record::Sample(held.clone(), payload)).collect();
            self.commit(&records, self.counts.clone(), now, 0)?;
            self.gone(Drop::Corrupt, lost, now)?;
        }
        Ok(())
    }
}
