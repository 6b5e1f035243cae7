//! What kernels are given: values from a seed, shapes, and rows that lie in every way.

use proptest::prelude::*;
use sconce_kernels::rows::{Rows, Taps};
use sconce_kernels::{Activation, Epilogue, Image, Window};

use crate::bounds::Sum;
use crate::fences::{Canary, Fenced};

pub const ACTIVATIONS: [Activation; 3] = [Activation::None, Activation::Relu, Activation::Relu6];

/// A stream of values from a seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn floats(&mut self, len: usize, reach: f32) -> Vec<f32> {
        (0..len).map(|_| ((self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0) * reach).collect()
    }

    pub fn fenced(&mut self, len: usize) -> Fenced<f32> {
        Fenced::new(self.floats(len, 1.0))
    }

    pub fn bytes(&mut self, len: usize) -> Fenced<u8> {
        // The ends of the range show where sums of pairs would saturate.
        Fenced::new((0..len).map(|_| if self.next().is_multiple_of(4) { 255 } else { self.next() as u8 }).collect())
    }

    pub fn any(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }
}

/// Bias, residual and activation, each there or not.
pub struct Rest {
    pub bias: Option<Fenced<f32>>,
    pub residual: Option<Fenced<f32>>,
    pub activation: Activation,
}

impl Rest {
    pub fn new(random: &mut Random, channels: usize, len: usize) -> Self {
        let bias = random.any().then(|| random.fenced(channels));
        let residual = random.any().then(|| random.fenced(len));
        Self { bias, residual, activation: ACTIVATIONS[random.next() as usize % 3] }
    }

    pub fn epilogue(&self) -> Epilogue<'_> {
        Epilogue {
            bias: self.bias.as_ref().map(Fenced::inside),
            residual: self.residual.as_ref().map(Fenced::inside),
            activation: self.activation,
        }
    }

    pub fn add_to(&self, sum: &mut Sum, channel: usize, at: usize) {
        for (values, at) in [(&self.bias, channel), (&self.residual, at)] {
            if let Some(values) = values {
                sum.add(values.inside()[at], 1.0);
            }
        }
    }
}

/// Where the rows of a product lie.
#[derive(Clone, Copy, Debug)]
pub enum Layout {
    Dense { rows: usize, depth: usize },
    Strided { rows: usize, depth: usize, gap: usize },
    Convolution { batch: usize, image: Image, window: Window },
}

pub fn image() -> impl Strategy<Value = Image> {
    (1..9usize, 1..11usize, 1..37usize).prop_map(|(height, width, channels)| Image { height, width, channels })
}

/// A window that fits the image.
pub fn window(image: Image) -> impl Strategy<Value = Window> {
    ((1..5usize, 1..5usize), (1..4usize, 1..4usize), prop::array::uniform4(0..4usize)).prop_map(
        move |(kernel, stride, padding)| {
            let kernel = [kernel.0.min(image.height), kernel.1.min(image.width)];
            let padding = std::array::from_fn(|i| padding[i].min(kernel[i % 2] - 1));
            Window { kernel, stride: [stride.0, stride.1], padding }
        },
    )
}

pub fn image_and_window() -> impl Strategy<Value = (Image, Window)> {
    image().prop_flat_map(|image| (Just(image), window(image)))
}

/// Channels and columns enough for the vectors of bytes of some instruction sets, under kernels that are three wide.
pub fn wide_image_and_window() -> impl Strategy<Value = (Image, Window)> {
    let image = (1..6usize, 3..20usize, prop_oneof![28..68usize, 60..150usize]);
    let image = image.prop_map(|(height, width, channels)| Image { height, width, channels });
    image.prop_flat_map(|image| {
        (Just(image), window(image)).prop_map(|(image, mut window)| {
            window.kernel[1] = 3;
            window.padding = std::array::from_fn(|i| window.padding[i].min(window.kernel[i % 2] - 1));
            (image, window)
        })
    })
}

/// Lines of which a ring holds few.
pub fn tall_image_and_window() -> impl Strategy<Value = (Image, Window)> {
    let image = (8..12usize, Just(24usize), Just(640usize));
    let image = image.prop_map(|(height, width, channels)| Image { height, width, channels });
    image.prop_flat_map(|image| (Just(image), window(image)))
}

/// As the first layer of a small network has it.
pub fn one_channel() -> impl Strategy<Value = (Image, Window)> {
    let window = Window { kernel: [3, 3], stride: [1, 1], padding: [0; 4] };
    (4..9usize, 4..11usize).prop_map(move |(height, width)| (Image { height, width, channels: 1 }, window))
}

pub fn layout() -> impl Strategy<Value = Layout> {
    let (rows, depth) = (0..40usize, 1..100usize);
    prop_oneof![
        (rows.clone(), depth.clone()).prop_map(|(rows, depth)| Layout::Dense { rows, depth }),
        (rows, depth, 0..9usize).prop_map(|(rows, depth, gap)| Layout::Strided { rows, depth, gap }),
        (0..3usize, image_and_window()).prop_map(|(batch, (image, window))| Layout::Convolution {
            batch,
            image,
            window
        }),
    ]
}

/// Values laid out, and the same rows one after the other.
pub struct Laid<T> {
    pub values: Fenced<T>,
    pub taps: Option<Taps>,
    pub zero: Fenced<T>,
    pub rows: Vec<Vec<T>>,
}

impl<T: Canary> Laid<T> {
    pub fn new(layout: &Layout, zero: T, values: impl FnOnce(usize) -> Fenced<T>) -> Self {
        match *layout {
            Layout::Dense { rows, depth } => {
                let values = values(rows * depth);
                let rows = values.inside().chunks(depth).map(<[T]>::to_vec).collect();
                Self { values, taps: None, zero: Fenced::new(vec![]), rows }
            }
            Layout::Strided { rows, depth, gap } => {
                let mut values = values((rows * (depth + gap)).saturating_sub(gap));
                for row in values.inside_mut().chunks_mut(depth + gap) {
                    let end = depth.min(row.len());
                    row[end..].fill(T::CANARY);
                }
                let rows = values.inside().chunks(depth + gap).map(|row| row[..depth].to_vec()).collect();
                Self { values, taps: None, zero: Fenced::new(vec![]), rows }
            }
            Layout::Convolution { batch, image, window } => {
                let values = values(batch * image.len());
                let taps = Taps::convolution(image, &window);
                let rows =
                    values.inside().chunks(image.len()).flat_map(|xs| patches(xs, image, &window, zero)).collect();
                Self { values, zero: Fenced::new(vec![zero; taps.depth()]), taps: Some(taps), rows }
            }
        }
    }

    pub fn rows(&self, layout: &Layout) -> Rows<'_, T> {
        match (*layout, &self.taps) {
            (Layout::Strided { rows, depth, gap }, _) => Rows::strided(self.values.inside(), rows, depth, depth + gap),
            (_, Some(taps)) => Rows::indirect(self.values.inside(), taps, self.zero.inside()),
            (Layout::Dense { depth, .. }, _) => Rows::dense(self.values.inside(), depth),
            (Layout::Convolution { .. }, None) => unreachable!("a convolution has taps"),
        }
    }
}

/// The values under each place of the window, padding included.
pub fn patches<T: Copy>(xs: &[T], image: Image, window: &Window, zero: T) -> Vec<Vec<T>> {
    let output = window.output(image);
    let mut rows = Vec::new();
    for at in 0..output.height * output.width {
        let mut row = Vec::new();
        for tap in 0..window.kernel[0] * window.kernel[1] {
            let y = (at / output.width * window.stride[0] + tap / window.kernel[1]).checked_sub(window.padding[0]);
            let x = (at % output.width * window.stride[1] + tap % window.kernel[1]).checked_sub(window.padding[1]);
            for channel in 0..image.channels {
                row.push(match (y, x) {
                    (Some(y), Some(x)) if y < image.height && x < image.width => {
                        xs[(y * image.width + x) * image.channels + channel]
                    }
                    _ => zero,
                });
            }
        }
        rows.push(row);
    }
    rows
}
