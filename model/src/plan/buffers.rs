//! Which buffer holds which value: each is reused as soon as nobody will read what is in it. Pure.

use super::{INPUT, Step};
use std::collections::BTreeMap;

/// A value before, a buffer after [`assign`]: so many numbers of it for one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub at: usize,
    pub values: usize,
}

/// Puts buffers in the place of values, each of which one step writes; returns their sizes, in numbers for one input.
/// The input is in the first; `output` is read after all steps.
pub(super) fn assign(steps: &mut [Step], input: Span, output: &mut Span) -> Vec<usize> {
    let mut last_read = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        last_read.extend(step.reads.iter().map(|read| (read.at, index)));
    }
    last_read.insert(output.at, usize::MAX);
    let mut buffers = Buffers { sizes: vec![input.values], free: Vec::new() };
    let mut held = BTreeMap::from([(input.at, INPUT)]);
    for (index, step) in steps.iter_mut().enumerate() {
        let is_over = |value: usize| last_read.get(&value).is_none_or(|last| *last <= index);
        let written = step.writes.at;
        let before = step.reads[0].at;
        // What works in place keeps its buffer, unless another step will read what was there.
        let stays = step.kernel.is_in_place() && is_over(before);
        let buffer = if stays { held[&before] } else { buffers.take(step.writes.values) };
        let work = (step.work.values > 0).then(|| buffers.take(step.work.values));
        let over: Vec<usize> = step.reads.iter().map(|read| read.at).filter(|value| is_over(*value)).collect();
        for read in &mut step.reads {
            read.at = held[&read.at];
        }
        for value in over {
            // What is read twice is freed once.
            if let Some(freed) = held.remove(&value)
                && freed != buffer
            {
                buffers.free.push(freed);
            }
        }
        if let Some(work) = work {
            step.work.at = work;
            buffers.free.push(work);
        }
        step.writes.at = buffer;
        held.insert(written, buffer);
    }
    output.at = held[&output.at];
    buffers.sizes
}

struct Buffers {
    sizes: Vec<usize>,
    free: Vec<usize>,
}

impl Buffers {
    /// The free buffer that grows least, and among those that need not grow the smallest; or a new one.
    fn take(&mut self, values: usize) -> usize {
        let fit = |buffer: &usize| (values.saturating_sub(self.sizes[*buffer]), self.sizes[*buffer], *buffer);
        let Some(best) = self.free.iter().copied().min_by_key(fit) else {
            self.sizes.push(values);
            return self.sizes.len() - 1;
        };
        self.free.retain(|buffer| *buffer != best);
        self.sizes[best] = self.sizes[best].max(values);
        best
    }
}
