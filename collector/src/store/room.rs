//! Room: what goes when there is too much, and how old segments are given back.

use super::record::Record;
use super::{MOST_SAMPLES, Store, StoreError};
use crate::clock::Now;
use crate::counts::Drop;
use crate::sample::{Id, Rank};

/// Of each segment, for what is not a sample: on a full disk, what was sent can still be told.
pub(super) const RESERVE: u64 = 64 << 10;
/// Samples that are carried to a new segment in one batch.
const CARRIED_BYTES: usize = 1 << 20;

impl Store {
    /// Samples may take three quarters of the disk that the store may: the rest is what old segments hold of samples that are gone.
    fn most_live(&self) -> u64 {
        self.limits.max_bytes / 4 * 3
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

    pub(super) fn gone(&mut self, why: Drop, ids: Vec<Id>, now: &Now) -> Result<(), StoreError> {
        // What is told of a segment's worth of samples goes in its reserve.
        for ids in ids.chunks((RESERVE / 128) as usize) {
            let mut counts = self.counts.clone();
            counts.drop(why, ids.len() as u64);
            self.commit(&[Record::Gone(why, ids.to_vec())], counts, now, 0)?;
        }
        Ok(())
    }

    /// Drops what has been held for too long, a planned shard too.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn expire(&mut self, now: &Now) -> Result<(), StoreError> {
        let lived = self.mark.at(now).lived;
        let max_age = self.limits.max_age.as_millis() as u64;
        let is_old = |lived_then: u64| lived.saturating_sub(lived_then) > max_age;
        let old = self.state.oldest().into_iter().take_while(|(_, entry)| is_old(entry.lived));
        let old: Vec<Id> = old.map(|(id, _)| id).collect();
        if !old.is_empty() {
            self.gone(Drop::Expired, old, now)?;
            self.tidy(now);
        }
        Ok(())
    }

    /// Gives old segments back, as far as that can be done now.
    pub(super) fn tidy(&mut self, now: &Now) {
        while let Some(oldest) = self.files.oldest() {
            let tidied = if self.state.live_in(oldest) == 0 {
                self.files.remove(oldest).map_err(StoreError::from)
            } else if self.files.bytes() + self.files.size > self.limits.max_bytes {
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

    /// Writes what an old segment still holds anew, so that nothing is left in it.
    fn carry(&mut self, segment: u64, now: &Now) -> Result<(), StoreError> {
        let mut ids: &[(Id, _)] = &self.state.in_segment(segment);
        while !ids.is_empty() {
            let (mut batch, mut lost, mut bytes, mut taken) = (Vec::new(), Vec::new(), 0, 0);
            for (id, _) in ids {
                if bytes >= CARRIED_BYTES {
                    break;
                }
                match self.held(id) {
                    Ok(Some(held)) => {
                        bytes += held.1.len();
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
