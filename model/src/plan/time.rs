//! A plan for shorter sequences: the same steps with the same weights, over other numbers of rows. Pure.

use super::buffers::Span;
use super::recurrent::Recurrence;
use super::{Kernel, Plan, Product, Step, Writes};
use sconce_kernels::rows::Taps;
use sconce_kernels::{Image, Window};
use std::sync::Arc;

/// Of a value, the steps that it has in the plan, and those that it shall have.
pub(super) type Steps = (usize, usize);

impl Plan {
    /// For sequences of so many steps. None if a window does not fit.
    pub(super) fn at(&self, steps: usize) -> Option<Self> {
        // Of the input and of what each step writes; none of what is no sequence.
        let mut known: Vec<Option<Steps>> = vec![Some((self.input[0], steps))];
        let mut shorter = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let read = known[step.reads[0].at];
            let (kernel, steps) = match read {
                Some(read) => step.kernel.at(read)?,
                None => (None, None),
            };
            known.push(steps);
            let span = |span: &Span| scaled(*span, known[span.at]);
            let writes = Writes {
                floats: step.writes.floats.as_ref().map(span),
                bytes: step.writes.bytes.as_ref().map(|(bytes, scaling)| (span(bytes), *scaling)),
            };
            shorter.push(Step {
                nodes: step.nodes.clone(),
                kernel: kernel.map_or_else(|| step.kernel.clone(), Arc::new),
                reads: step.reads.iter().map(span).collect(),
                writes,
                work: step.work.clone(),
            });
        }
        let ends = self.ends.map(|end| scaled(end, known[end.at]));
        let input = std::iter::once(steps).chain(self.input[1..].iter().copied()).collect();
        Some(Self { input, output: self.output.clone(), lengths: None, steps: shorter, ends })
    }
}

fn scaled(span: Span, steps: Option<Steps>) -> Span {
    steps.map_or(span, |(before, after)| Span { values: span.values / before * after, ..span })
}

impl Kernel {
    /// The kernel for other steps, where it depends on them, and the steps of what it leaves, if that is a sequence.
    fn at(&self, read: Steps) -> Option<(Option<Self>, Option<Steps>)> {
        let (_, steps) = read;
        Some(match self {
            Self::Product(product) => match &product.over {
                None => (None, Some(read)),
                Some((image, window)) => {
                    let before = window.output(*image).height;
                    let (image, after) = fits(*image, window, steps)?;
                    let product = Product {
                        taps: Some(Taps::convolution(image, window)),
                        over: Some((image, *window)),
                        weights: product.weights.clone(),
                        bias: product.bias.clone(),
                        activation: product.activation,
                        pooled: None,
                    };
                    (Some(Self::Product(product)), Some((before, after)))
                }
            },
            Self::Recurrence(Recurrence { cell, units, directions, every, .. }) => {
                let (cell, units, every) = (*cell, *units, *every);
                let shorter = Recurrence { cell, units, time: steps, directions: directions.clone(), every };
                (Some(Self::Recurrence(shorter)), every.then_some(read))
            }
            Self::Pool { pool, window, image } => {
                let before = window.output(*image).height;
                let (image, after) = fits(*image, window, steps)?;
                (Some(Self::Pool { pool: *pool, window: *window, image }), Some((before, after)))
            }
            Self::GlobalAverage(image) => (Some(Self::GlobalAverage(Image { height: steps, ..*image })), None),
            Self::Fallback(fallback) => {
                let (shorter, after) = fallback.at(read)?;
                (Some(Self::Fallback(Box::new(shorter))), after)
            }
            _ => (None, Some(read)),
        })
    }
}

/// A sequence of so many steps as an image of one column, and how many windows fit.
fn fits(image: Image, window: &Window, steps: usize) -> Option<(Image, usize)> {
    let image = Image { height: steps, ..image };
    let reach = steps + window.padding[0] + window.padding[2];
    (reach >= window.kernel[0]).then(|| (image, window.output(image).height))
}
