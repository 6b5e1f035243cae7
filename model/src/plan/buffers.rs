//! Where each value lies while a batch goes through: each buffer is reused as soon as nobody will read what is in it. Pure.

use super::Step;
use super::segments::Segment;
use std::collections::BTreeMap;
use std::ops::Range;

/// A value: so many numbers of it for one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub at: usize,
    pub values: usize,
}

impl Span {
    pub(super) fn bytes(&self) -> usize {
        self.values * size_of::<f32>()
    }
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub buffer: usize,
    values: usize,
    /// Of all rows, or of one group after the other.
    of: Extent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Batch,
    Group,
}

impl Place {
    /// What these rows have of the buffer.
    pub(super) fn of(&self, rows: &Range<usize>) -> Range<usize> {
        let first = if self.of == Extent::Batch { rows.start } else { 0 };
        first * self.values..(first + rows.len()) * self.values
    }
}

/// Where a step reads, writes, and works beside.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub reads: Vec<Place>,
    pub writes: Place,
    pub work: Option<Place>,
}

/// How batches go through a plan.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub segments: Vec<Segment>,
    /// Of each step.
    pub steps: Vec<Places>,
    pub input: Place,
    pub output: Place,
    /// Of the buffers, in numbers.
    pub sizes: Vec<usize>,
}

/// By which step each value is read last; `output` is read after all steps.
pub(super) fn last_reads(steps: &[Step], output: Span) -> BTreeMap<usize, usize> {
    let mut last_reads = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        last_reads.extend(step.reads.iter().map(|read| (read.at, index)));
    }
    last_reads.insert(output.at, usize::MAX);
    last_reads
}

impl Layout {
    /// For batches of up to `rows`.
    pub(super) fn new(steps: &[Step], [input, output]: [Span; 2], rows: usize, segments: Vec<Segment>) -> Self {
        let last_reads = last_reads(steps, output);
        let mut buffers = Buffers::default();
        let input = buffers.take(Extent::Batch, input, rows);
        let mut held = BTreeMap::from([(0, input)]);
        let mut placed = Vec::with_capacity(steps.len());
        for segment in &segments {
            let mut over = Vec::new();
            for (index, step) in steps.iter().enumerate().take(segment.steps.end).skip(segment.steps.start) {
                let last_read = |value: usize| last_reads.get(&value).copied().unwrap_or(index);
                let own = if segment.steps.len() > 1 { Extent::Group } else { Extent::Batch };
                let extent = |value: usize| if last_read(value) < segment.steps.end { own } else { Extent::Batch };
                let rows = |extent: Extent| if extent == Extent::Group { segment.group } else { rows };
                let is_over = |value: usize| last_read(value) <= index;
                let before = step.reads[0].at;
                let of = extent(step.writes.at);
                // What works in place keeps its buffer, unless another step will read what was there.
                let stays = step.kernel.is_in_place() && is_over(before) && held[&before].of == of;
                let writes = if stays { held[&before] } else { buffers.take(of, step.writes, rows(of)) };
                let work = (step.work.values > 0).then(|| buffers.take(own, step.work, rows(own)));
                let reads: Vec<Place> = step.reads.iter().map(|read| held[&read.at]).collect();
                // What is read twice is freed once.
                for read in step.reads.iter().filter(|read| is_over(read.at)) {
                    over.extend(held.remove(&read.at).filter(|place| *place != writes));
                }
                over.extend(work);
                // What was of the whole batch is still needed by the groups that come.
                let is_free = |place: &mut Place| place.of == Extent::Group || index + 1 == segment.steps.end;
                over.extract_if(.., is_free).for_each(|place| buffers.free(place));
                held.insert(step.writes.at, writes);
                placed.push(Places { reads, writes, work });
            }
        }
        Self { segments, steps: placed, input, output: held[&output.at], sizes: buffers.sizes }
    }
}

#[derive(Default)]
struct Buffers {
    sizes: Vec<usize>,
    free: Vec<Place>,
}

impl Buffers {
    /// The free buffer that grows least, and among those that need not grow the smallest; or a new one.
    fn take(&mut self, of: Extent, Span { values, .. }: Span, rows: usize) -> Place {
        let size = values * rows;
        let fit = |buffer: usize| (size.saturating_sub(self.sizes[buffer]), self.sizes[buffer], buffer);
        let free = self.free.iter().enumerate().filter(|(_, place)| place.of == of);
        let best = free.min_by_key(|(_, place)| fit(place.buffer)).map(|(index, _)| index);
        let buffer = match best {
            Some(index) => self.free.swap_remove(index).buffer,
            None => {
                self.sizes.push(0);
                self.sizes.len() - 1
            }
        };
        self.sizes[buffer] = self.sizes[buffer].max(size);
        Place { buffer, values, of }
    }

    fn free(&mut self, place: Place) {
        self.free.push(place);
    }
}
