//! Steps over a few buffers: each reads some and fills another, or works in place.

use super::buffers::{Form, Layout, Pair, Place, Places};
use super::segments::Segment;
use super::{Depthwise, Expansion, Kernel, Kernels, Plan, Product, Step, Weights, Writes};
use crate::ops::{self, lend};
use candle_core::{Result, Tensor};
use sconce_kernels::conv_depthwise::expand_and_convolve;
use sconce_kernels::conv_pool::convolve_and_pool;
use sconce_kernels::depthwise::{depthwise, depthwise_i8};
use sconce_kernels::gemm::{self, Factors};
use sconce_kernels::rows::{AMPLE, Rows};
use sconce_kernels::winograd::convolve;
use sconce_kernels::{Aligned, Cpu, Epilogue, Image, IsaToken, Out, gates, pool, quantise, turn};
use std::mem::take;
use std::ops::Range;

/// So many lengths of sequences are kept, beside the longest, and so many bytes of what each needs for itself.
const LENGTHS: usize = 16;
const LENGTHS_BYTES: usize = 4 << 20;

/// Buffers of one runner. Made once, used for every batch.
#[derive(Debug)]
pub struct Scratch {
    rows: usize,
    /// Bytes of the second-level cache.
    cache: usize,
    layout: Layout,
    /// How shorter sequences go through the same buffers, the last that came last.
    lengths: Vec<(usize, Plan, Layout)>,
    buffers: Buffers,
}

#[derive(Debug)]
struct Buffers {
    floats: Vec<Aligned<f32>>,
    /// A little longer than what lies in them, so that the ends of runs are read at once.
    bytes: Vec<Aligned<u8>>,
}

/// Buffers that one step has for itself.
struct Taken {
    floats: Aligned<f32>,
    bytes: Aligned<u8>,
}

/// What a product reads.
#[derive(Clone, Copy)]
pub(super) enum Values<'a> {
    Floats(&'a [f32]),
    /// The first `len` of a buffer.
    Bytes {
        buffer: &'a [u8],
        len: usize,
    },
}

impl Scratch {
    /// For batches of up to `rows` of a plan.
    pub(super) fn new(plan: &Plan, rows: usize, cache: usize) -> Self {
        let layout = plan.layout(rows, cache);
        let mut buffers = Buffers { floats: Vec::new(), bytes: Vec::new() };
        buffers.hold(&layout);
        Self { rows, cache, layout, lengths: Vec::new(), buffers }
    }

    /// The plan of shorter sequences, and how they go through the buffers.
    fn at(&mut self, plan: &Plan, steps: usize) -> Result<()> {
        match self.lengths.iter().position(|(known, ..)| *known == steps) {
            Some(known) => self.lengths[known..].rotate_left(1),
            None => {
                let Some(other) = plan.at(steps) else {
                    candle_core::bail!("sequences of {steps} steps are too short")
                };
                let layout = other.layout(self.rows, self.cache);
                self.buffers.hold(&layout);
                self.lengths.push((steps, other, layout));
                let own =
                    |kept: &[(usize, Plan, Layout)]| kept.iter().map(|(_, plan, _)| plan.taps_bytes()).sum::<usize>();
                while self.lengths.len() > LENGTHS || self.lengths.len() > 1 && own(&self.lengths) > LENGTHS_BYTES {
                    self.lengths.remove(0);
                }
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }
}

/// Runs on inputs of one length; returns the outputs. `done` hears of each step, by its index, each time that a group went through it.
pub(super) fn run<'a>(
    plan: &Plan,
    cpu: Cpu<'_>,
    xs: &[&Tensor],
    scratch: &'a mut Scratch,
    mut done: impl FnMut(usize),
) -> Result<&'a [f32]> {
    let is_shorter = |steps: &usize| plan.lengths.is_some() && *steps != plan.input[0];
    let steps = xs.first().and_then(|xs| xs.dims().get(1).copied()).filter(is_shorter);
    steps.map_or(Ok(()), |steps| scratch.at(plan, steps))?;
    let Scratch { layout, lengths, buffers, .. } = scratch;
    let (plan, layout) = match (steps, lengths.last()) {
        (Some(_), Some((_, plan, layout))) => (plan, layout),
        _ => (plan, &*layout),
    };
    let mut values = 0;
    for xs in xs {
        values = lend(xs, |xs| Ok(buffers.fill(layout, values, xs)))?;
    }
    let rows = values / plan.input.iter().product::<usize>();
    for Segment { steps, group } in &layout.segments {
        for first in (0..rows).step_by(*group) {
            let rows = first..rows.min(first + group);
            for index in steps.clone() {
                let (step, places) = (&plan.steps[index], &layout.steps[index]);
                // What a step writes is taken out meanwhile, so that it can read the others.
                let (mut writes, mut work) = (buffers.take(&places.writes), buffers.take(&places.work));
                let ran = step.run(
                    cpu,
                    &rows,
                    places,
                    buffers,
                    writes.of(&places.writes, &rows),
                    work.of(&places.work, &rows),
                );
                buffers.put(&places.writes, writes);
                buffers.put(&places.work, work);
                ran?;
                done(index);
            }
        }
    }
    Ok(&buffers.floats[layout.output.buffer][layout.output.of(&(0..rows))])
}

impl Buffers {
    /// What a layout needs.
    fn hold(&mut self, layout: &Layout) {
        fn grow<T: Copy + Default>(buffers: &mut Vec<Aligned<T>>, sizes: impl Iterator<Item = usize>) {
            for (index, size) in sizes.enumerate() {
                match buffers.get_mut(index) {
                    Some(buffer) if buffer.len() >= size => {}
                    Some(buffer) => *buffer = Aligned::zeros(size),
                    None => buffers.push(Aligned::zeros(size)),
                }
            }
        }
        grow(&mut self.floats, layout.sizes.floats.iter().copied());
        grow(&mut self.bytes, layout.sizes.bytes.iter().map(|size| size + AMPLE));
    }

    /// Takes the rows of an input, behind the `filled` values that are there; returns how many there are now.
    fn fill(&mut self, layout: &Layout, filled: usize, xs: &[f32]) -> usize {
        let end = filled + xs.len();
        self.floats[layout.input.buffer][filled..end].copy_from_slice(xs);
        end
    }

    fn take(&mut self, places: &Pair<Option<Place>>) -> Taken {
        let floats = places.floats.map(|place| take(&mut self.floats[place.buffer]));
        let bytes = places.bytes.map(|place| take(&mut self.bytes[place.buffer]));
        Taken { floats: floats.unwrap_or_default(), bytes: bytes.unwrap_or_default() }
    }

    fn put(&mut self, places: &Pair<Option<Place>>, taken: Taken) {
        if let Some(place) = places.floats {
            self.floats[place.buffer] = taken.floats;
        }
        if let Some(place) = places.bytes {
            self.bytes[place.buffer] = taken.bytes;
        }
    }

    fn floats(&self, place: Place, rows: &Range<usize>) -> &[f32] {
        &self.floats[place.buffer][place.of(rows)]
    }

    fn values(&self, place: Place, rows: &Range<usize>) -> Values<'_> {
        let range = place.of(rows);
        match place.form {
            Form::Floats => Values::Floats(&self.floats[place.buffer][range]),
            Form::Bytes => Values::Bytes { buffer: &self.bytes[place.buffer][range.start..], len: range.len() },
        }
    }
}

impl Taken {
    /// What these rows have of the buffers; nothing of one that is not there.
    fn of(&mut self, places: &Pair<Option<Place>>, rows: &Range<usize>) -> (&mut [f32], &mut [u8]) {
        let floats = places.floats.map_or(0..0, |place| place.of(rows));
        let bytes = places.bytes.map_or(0..0, |place| place.of(rows));
        (&mut self.floats[floats], &mut self.bytes[bytes])
    }
}

impl Step {
    /// For these rows of the batch.
    fn run(
        &self,
        cpu: Cpu<'_>,
        rows: &Range<usize>,
        places: &Places,
        buffers: &Buffers,
        (ys, bytes): (&mut [f32], &mut [u8]),
        (work, work_bytes): (&mut [f32], &mut [u8]),
    ) -> Result<()> {
        let read = |index: usize| buffers.floats(places.reads[index], rows);
        let values = || buffers.values(places.reads[0], rows);
        let residual = || (self.reads.len() > 1).then(|| read(1));
        if self.kernel.is_in_place() && Some(places.reads[0]) != places.writes.floats {
            ys.copy_from_slice(read(0));
        }
        match &*self.kernel {
            // Not `max` and `min`, which would hide a NaN.
            Kernel::Clamp(most) => ys.iter_mut().for_each(|y| *y = y.clamp(0.0, *most)),
            Kernel::Map(function) => gates::map(cpu.isa, *function, ys),
            Kernel::Softmax(width) => gates::softmax(cpu.isa, *width, ys),
            Kernel::MultiplyAdd { scale, shift } => {
                for ys in ys.chunks_exact_mut(scale.len()) {
                    ys.iter_mut().zip(scale.iter().zip(shift)).for_each(|(y, (scale, shift))| *y = *y * scale + shift);
                }
            }
            Kernel::Add => {
                ys.copy_from_slice(read(0));
                for index in 1..self.reads.len() {
                    ys.iter_mut().zip(read(index)).for_each(|(y, x)| *y += x);
                }
            }
            Kernel::ChannelsLast { image, padding } => channels_last(cpu.isa, *image, *padding, read(0), ys),
            Kernel::ChannelsFirst(image) => transpose(image.height * image.width, image.channels, read(0), ys),
            Kernel::Quantise(scaling) => quantise::quantise(cpu.isa, read(0), *scaling, bytes),
            Kernel::Product(product) => product.run(cpu, values(), residual(), work, self.writes.out(ys, bytes)),
            Kernel::Depthwise(convolution) => convolution.run(cpu, values(), residual(), self.writes.out(ys, bytes)),
            Kernel::Expansion(both) => both.run(cpu, values(), work, self.writes.out(ys, bytes)),
            Kernel::Pool { pool, window, image } => {
                pool::pool(cpu, *pool, window, *image, read(0), self.writes.out(ys, bytes));
            }
            Kernel::GlobalAverage(image) => pool::global_average(cpu, *image, read(0), self.writes.out(ys, bytes)),
            Kernel::Recurrence(recurrence) => recurrence.run(cpu, rows.len(), read(0), (work, work_bytes), ys),
            Kernel::Anomaly { threshold } => {
                anomaly(*threshold, self.reads[0].values, [read(0), read(1)], ys.as_chunks_mut().0)
            }
            Kernel::Activate(activation) => ops::apply(*activation, ys)?,
            Kernel::Fallback(fallback) => {
                let xs: Vec<&[f32]> = (0..self.reads.len()).map(read).collect();
                fallback.run(rows.len(), &xs, ys)?;
            }
        }
        Ok(())
    }
}

impl Writes {
    fn out<'a>(&self, ys: &'a mut [f32], bytes: &'a mut [u8]) -> Out<'a> {
        match (self.floats, self.bytes) {
            (_, None) => ys.into(),
            (None, Some((_, scaling))) => Out::bytes(bytes, scaling),
            (Some(_), Some((_, scaling))) => Out::both(ys, bytes, scaling),
        }
    }
}

impl Product {
    /// `work` is for the lines that are pooled, or for tiles.
    pub(super) fn run(&self, cpu: Cpu<'_>, xs: Values<'_>, residual: Option<&[f32]>, work: &mut [f32], out: Out<'_>) {
        let (bias, activation) = (self.bias.as_deref(), self.activation);
        if let (Weights::Tiles(tiles), Values::Floats(xs)) = (&self.weights, xs) {
            return convolve(cpu, tiles, xs, Epilogue { bias, activation, residual }, work, out);
        }
        let factors = self.factors(xs);
        match &self.pooled {
            Some(pooled) => convolve_and_pool(cpu, factors, bias, activation, pooled, work, out),
            None => gemm::multiply(cpu, factors, Epilogue { bias, activation, residual }, out),
        }
    }

    /// Of weights that are not in tiles.
    fn factors<'a>(&'a self, xs: Values<'a>) -> Factors<'a> {
        match (&self.weights, xs, &self.taps) {
            (Weights::Float { packed, padding }, Values::Floats(xs), Some(taps)) => {
                Factors::Floats(Rows::indirect(xs, taps, padding), packed)
            }
            (Weights::Float { packed, .. }, Values::Floats(xs), None) => {
                Factors::Floats(Rows::dense(xs, packed.depth()), packed)
            }
            (Weights::Bytes { packed, padding, input }, Values::Bytes { buffer, len }, Some(taps)) => {
                Factors::Bytes(Rows::ample(buffer, len, taps, padding), *input, packed)
            }
            (Weights::Bytes { packed, input, .. }, Values::Bytes { buffer, len }, None) => {
                Factors::Bytes(Rows::dense(&buffer[..len], packed.depth()), *input, packed)
            }
            _ => unreachable!("a product reads what its weights are"),
        }
    }
}

impl Expansion {
    fn run(&self, cpu: Cpu<'_>, xs: Values<'_>, work: &mut [f32], out: Out<'_>) {
        let Self { product, depthwise: Depthwise { weights, bias, activation, .. }, expanded } = self;
        let Kernels::Floats(weights) = weights else { unreachable!("an expansion is of numbers") };
        let of_product = Epilogue { bias: product.bias.as_deref(), activation: product.activation, residual: None };
        let epilogue = Epilogue { bias: bias.as_deref(), activation: *activation, residual: None };
        expand_and_convolve(cpu, product.factors(xs), expanded, weights, [of_product, epilogue], work, out);
    }
}

impl Depthwise {
    fn run(&self, cpu: Cpu<'_>, xs: Values<'_>, residual: Option<&[f32]>, out: Out<'_>) {
        let Self { window, image, weights, bias, activation } = self;
        let epilogue = Epilogue { bias: bias.as_deref(), activation: *activation, residual };
        match (xs, weights) {
            (Values::Floats(xs), Kernels::Floats(weights)) => {
                depthwise(cpu, window, *image, xs, weights, epilogue, out)
            }
            (Values::Bytes { buffer, len }, Kernels::Bytes(weights)) => {
                depthwise_i8(cpu, window, *image, &buffer[..len], weights, epilogue, out);
            }
            _ => unreachable!("a convolution reads what its weights are"),
        }
    }
}

/// Of each row of `values` numbers how likely it is normal, and how likely an anomaly.
fn anomaly(threshold: f32, values: usize, [ys, xs]: [&[f32]; 2], said: &mut [[f32; 2]]) {
    let threshold = f64::from(threshold);
    for ((ys, xs), said) in ys.chunks_exact(values).zip(xs.chunks_exact(values)).zip(said) {
        let squares: f64 = ys.iter().zip(xs).map(|(y, x)| f64::from(y - x).powi(2)).sum();
        let normal = threshold / (threshold + squares / values as f64);
        *said = [normal as f32, (1.0 - normal) as f32];
    }
}

/// Of each image, with zeros around it.
fn channels_last(isa: IsaToken, image: Image, [top, left, bottom, right]: [usize; 4], xs: &[f32], ys: &mut [f32]) {
    let Image { height, width, channels } = image;
    if image.is_empty() {
        return;
    }
    let line = (left + width + right) * channels;
    for (xs, ys) in xs.chunks_exact(image.len()).zip(ys.chunks_exact_mut((top + height + bottom) * line)) {
        if [top, left, bottom, right] != [0; 4] {
            ys.fill(0.0);
        }
        for (y, ys) in ys.chunks_exact_mut(line).skip(top).take(height).enumerate() {
            let of_channel = |channel: usize| &xs[(channel * height + y) * width..][..width];
            let ys = &mut ys[left * channels..][..width * channels];
            if channels == 3 {
                turn::pixels(isa, [0, 1, 2].map(of_channel), ys);
                continue;
            }
            for channel in 0..channels {
                let ys = ys.iter_mut().skip(channel).step_by(channels);
                ys.zip(of_channel(channel)).for_each(|(y, x)| *y = *x);
            }
        }
    }
}

/// Of each `(rows, columns)`.
fn transpose(rows: usize, columns: usize, xs: &[f32], ys: &mut [f32]) {
    for (xs, ys) in xs.chunks_exact(rows * columns).zip(ys.chunks_exact_mut(rows * columns)) {
        for (column, ys) in ys.chunks_exact_mut(rows).enumerate() {
            for (row, y) in ys.iter_mut().enumerate() {
                *y = xs[row * columns + column];
            }
        }
    }
}
