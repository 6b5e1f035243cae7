//! Where each value lies while a batch goes through: each buffer is reused as soon as nobody will read what is in it. Pure.

use super::Step;
use super::segments::Segment;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What a value consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    Floats,
    Bytes,
}

/// A value: so many numbers of it for one row. What is there in both forms is two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    /// Number of the step that writes it, from 1 on; 0 is the input.
    pub at: usize,
    pub form: Form,
    pub values: usize,
}

impl Span {
    pub(super) fn floats(at: usize, values: usize) -> Self {
        Self { at, form: Form::Floats, values }
    }

    pub(super) fn bytes(at: usize, values: usize) -> Self {
        Self { at, form: Form::Bytes, values }
    }

    /// In memory.
    pub(super) fn size(&self) -> usize {
        if self.form == Form::Floats { self.values * size_of::<f32>() } else { self.values }
    }
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Among those of its form.
    pub buffer: usize,
    values: usize,
    pub form: Form,
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

/// Of each form.
#[derive(Clone, Debug, Default)]
pub(super) struct Pair<T> {
    pub floats: T,
    pub bytes: T,
}

/// Where a step reads, writes, and works beside.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub reads: Vec<Place>,
    pub writes: Pair<Option<Place>>,
    pub work: Pair<Option<Place>>,
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
    pub sizes: Pair<Vec<usize>>,
}

/// By which step each value is read last; `output` is read after all steps.
pub(super) fn last_reads(steps: &[Step], output: Span) -> BTreeMap<Span, usize> {
    let mut last_reads = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        last_reads.extend(step.reads.iter().map(|read| (*read, index)));
    }
    last_reads.insert(output, usize::MAX);
    last_reads
}

impl Layout {
    /// For batches of up to `rows`.
    pub(super) fn new(steps: &[Step], [input, output]: [Span; 2], rows: usize, segments: Vec<Segment>) -> Self {
        let mut places = Placing { last_reads: last_reads(steps, output), rows, ..Placing::default() };
        let input_place = places.take(Extent::Batch, rows, input);
        places.held.insert(input, input_place);
        let mut placed = Vec::with_capacity(steps.len());
        for segment in &segments {
            placed.extend(segment.steps.clone().map(|index| places.step(index, &steps[index], segment)));
            places.end();
        }
        let Placing { held, sizes, .. } = places;
        Self { segments, steps: placed, input: input_place, output: held[&output], sizes }
    }

    /// Bytes of all buffers.
    pub(super) fn size(&self) -> usize {
        self.sizes.floats.iter().sum::<usize>() * size_of::<f32>() + self.sizes.bytes.iter().sum::<usize>()
    }
}

#[derive(Default)]
struct Placing {
    last_reads: BTreeMap<Span, usize>,
    rows: usize,
    sizes: Pair<Vec<usize>>,
    free: Vec<Place>,
    /// Where values are that will be read.
    held: BTreeMap<Span, Place>,
    /// Places of the whole batch that nobody reads any more but groups that come.
    over: Vec<Place>,
}

impl Placing {
    fn step(&mut self, index: usize, step: &Step, segment: &Segment) -> Places {
        let own = if segment.steps.len() > 1 { Extent::Group } else { Extent::Batch };
        let before = self.held[&step.reads[0]];
        // What works in place keeps its buffer, unless another step will read what was there.
        let stays = step.kernel.is_in_place() && self.last_read(&step.reads[0]) <= index;
        let mut write = |span: Span| {
            let of = if self.last_read(&span) < segment.steps.end { own } else { Extent::Batch };
            if stays && before.of == of { before } else { self.take(of, segment.group, span) }
        };
        let writes =
            Pair { floats: step.writes.floats.map(&mut write), bytes: step.writes.bytes.map(|(span, _)| write(span)) };
        let mut work = |span: Span| (span.values > 0).then(|| self.take(own, segment.group, span));
        let work = Pair { floats: work(step.work.floats), bytes: work(step.work.bytes) };
        let reads = step.reads.iter().map(|read| self.held[read]).collect();
        for read in step.reads.iter().filter(|read| self.last_read(read) <= index).collect::<BTreeSet<_>>() {
            let place = self.held.remove(read).filter(|place| Some(*place) != writes.floats);
            place.into_iter().for_each(|place| self.leave(place));
        }
        [work.floats, work.bytes].into_iter().flatten().for_each(|place| self.leave(place));
        self.held.extend(step.writes.floats.zip(writes.floats));
        self.held.extend(step.writes.bytes.map(|(span, _)| span).zip(writes.bytes));
        Places { reads, writes, work }
    }

    /// 0 of what nobody reads.
    fn last_read(&self, value: &Span) -> usize {
        self.last_reads.get(value).copied().unwrap_or_default()
    }

    fn leave(&mut self, place: Place) {
        // What is of the whole batch is still read by the groups that come.
        let left = if place.of == Extent::Batch { &mut self.over } else { &mut self.free };
        left.push(place);
    }

    /// Of a segment.
    fn end(&mut self) {
        self.free.append(&mut self.over);
    }

    /// The free buffer that grows least, and among those that need not grow the smallest; or a new one.
    fn take(&mut self, of: Extent, group: usize, Span { form, values, .. }: Span) -> Place {
        let size = values * if of == Extent::Group { group } else { self.rows };
        let sizes = if form == Form::Floats { &mut self.sizes.floats } else { &mut self.sizes.bytes };
        let fit = |buffer: usize| (size.saturating_sub(sizes[buffer]), sizes[buffer], buffer);
        let free = self.free.iter().enumerate().filter(|(_, place)| (place.of, place.form) == (of, form));
        let best = free.min_by_key(|(_, place)| fit(place.buffer)).map(|(index, _)| index);
        let buffer = best.map_or(sizes.len(), |index| self.free.swap_remove(index).buffer);
        if buffer == sizes.len() {
            sizes.push(0);
        }
        sizes[buffer] = sizes[buffer].max(size);
        Place { buffer, values, form, of }
    }
}
