//! Which steps a batch takes in groups: as few bytes as can be shall pass beyond the second-level cache. Pure.

use super::Step;
use super::buffers::{Span, last_reads};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What no second-level cache holds of one row is in the third-level one, and read faster by so much than what a batch left in
/// memory. About: 2 is as good for MobileNetV2, worse for ResNet-18.
const NEARER: usize = 4;

/// Steps that a group of a batch goes through, all of them, before the next group does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub steps: Range<usize>,
    /// Rows in a group.
    pub group: usize,
}

/// Each step alone, for the whole batch.
pub(super) fn alone(steps: Range<usize>, rows: usize) -> Vec<Segment> {
    steps.map(|step| Segment { steps: step..step + 1, group: rows }).collect()
}

/// The cheapest split of batches of `rows` where the second-level cache has `cache` bytes.
pub(super) fn split(steps: &[Step], output: Span, rows: usize, cache: usize) -> Vec<Segment> {
    let last_reads = last_reads(steps, output);
    // For each number of steps, from none on: what the first so many cost at least, and the last segment of them.
    let mut best = vec![(0, Segment { steps: 0..0, group: rows })];
    for end in 1..=steps.len() {
        let mut cost = Cost::new(&last_reads, rows, cache);
        let segment = |first: usize| {
            cost.take(&steps[first], end);
            let segment = Segment { steps: first..end, group: cost.group() };
            (best[first].0 + cost.bytes(), segment)
        };
        // Of the same cost, the longest.
        let cheapest = (0..end).rev().map(segment).min_by_key(|(bytes, segment)| (*bytes, segment.steps.start));
        best.extend(cheapest);
    }
    let mut segments = Vec::new();
    let mut end = steps.len();
    while end > 0 {
        let segment = best[end].1.clone();
        end = segment.steps.start;
        segments.push(segment);
    }
    segments.reverse();
    // What takes the whole batch at once keeps nothing in the cache: its steps are as well alone.
    let each = |segment: Segment| if segment.group < rows { vec![segment] } else { alone(segment.steps, rows) };
    segments.into_iter().flat_map(each).collect()
}

/// What a segment costs, which grows at its beginning.
struct Cost<'a> {
    rows: usize,
    /// What of the cache is for activations; weights pass through the rest.
    cache: usize,
    last_reads: &'a BTreeMap<Span, usize>,
    steps: usize,
    /// Bytes of all weights.
    weights: usize,
    /// The most that one step reads and writes, for one row.
    largest: usize,
    /// What was written before the segment, for one row.
    comes: BTreeSet<Span>,
    /// What is read behind it.
    leaves: usize,
    /// What steps read and write that no cache holds, not even for one row.
    spills: usize,
}

impl<'a> Cost<'a> {
    fn new(last_reads: &'a BTreeMap<Span, usize>, rows: usize, cache: usize) -> Self {
        let comes = BTreeSet::new();
        Self { rows, cache: cache / 4 * 3, last_reads, steps: 0, weights: 0, largest: 0, comes, leaves: 0, spills: 0 }
    }

    /// One more step, before those that are there.
    fn take(&mut self, step: &Step, end: usize) {
        let reads: BTreeSet<Span> = step.reads.iter().copied().collect();
        let touched = reads.iter().copied().chain(step.writes.spans()).chain([step.work.floats, step.work.bytes]);
        let activations = touched.map(|span| span.size()).sum::<usize>();
        self.steps += 1;
        self.weights += step.weight_bytes();
        self.largest = self.largest.max(activations);
        self.spills += if activations > self.cache { activations } else { 0 };
        self.comes.extend(reads);
        for span in step.writes.spans() {
            self.comes.remove(&span);
            if self.last_reads.get(&span).is_some_and(|last| *last >= end) {
                self.leaves += span.size();
            }
        }
    }

    /// Rows that go through together: all if the step is alone, for then nothing is kept in the cache.
    fn group(&self) -> usize {
        let fit = (self.cache / self.largest.max(1)).max(1);
        if self.steps == 1 { self.rows } else { fit.min(self.rows) }
    }

    /// That pass beyond the cache for a batch.
    fn bytes(&self) -> usize {
        let crossing = self.comes.iter().map(Span::size).sum::<usize>() + self.leaves;
        let spills = if self.steps == 1 { 0 } else { self.spills / NEARER };
        self.weights * self.rows.div_ceil(self.group()) + (crossing + spills) * self.rows
    }
}
