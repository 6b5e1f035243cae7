//! From raw material to the input tensor: the same code for training, clients and runtime, kept in `preprocess.json`.

mod image;
#[cfg(test)]
mod tests;

pub use image::{Filter, Fit, Image};

use crate::idx::Images;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Of a side that images are resized to.
const LARGEST_SIDE: usize = 4096;

/// `preprocess.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Preprocess {
    pub version: u32,
    pub input: Material,
    pub steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Material {
    Image,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Step {
    /// First, where images have another number of channels than 1 (grey): 3 (red, green, blue).
    Decode { channels: usize },
    /// To `[height, width]`, of bytes.
    Resize {
        size: [usize; 2],
        #[serde(default)]
        filter: Filter,
        #[serde(default)]
        fit: Fit,
    },
    /// Keeps the middle `[height, width]`, of bytes.
    CenterCrop { size: [usize; 2] },
    /// Multiplies every value.
    Scale { by: f32 },
    /// Subtracts the channel's mean and divides by its standard deviation.
    Normalize { mean: Vec<f32>, std: Vec<f32> },
}

#[derive(Debug, Error, PartialEq)]
pub enum PreprocessError {
    #[error("preprocess version {got}; this build knows 1: use a newer build")]
    Version { got: u32 },
    #[error("{got} bytes for an image of {height}\u{d7}{width}; need {}", height * width)]
    Bytes { got: usize, height: usize, width: usize },
    #[error("it is no PNG or JPEG that can be read: {why}")]
    Encoded { why: String },
    #[error("it has {height}\u{d7}{width} pixels, at most {max} are taken; send a smaller one")]
    Pixels { width: u32, height: u32, max: u64 },
    #[error("it has {height}\u{d7}{width} pixels, sides of at most {max} are taken; send a smaller one")]
    Side { width: u32, height: u32, max: u32 },
    #[error(
        "a row of it, or what comes with it such as a colour profile, takes more than {} MiB; scale it down, or leave that out",
        max_bytes >> 20
    )]
    Beside { max_bytes: u64 },
    #[error("it has {got} channels, the steps are for {need}")]
    Channels { got: usize, need: usize },
    #[error("steps[{step}] centerCrop: {size:?} does not fit {got:?}; use a smaller size")]
    Crop { step: usize, size: [usize; 2], got: [usize; 2] },
    #[error("steps[{step}] {field}: {need}")]
    Value { step: usize, field: &'static str, need: &'static str },
    #[error("an image of {from:?} becomes {got:?}, the input is {need:?}; {remedy}")]
    Input { from: [usize; 2], got: [usize; 3], need: Vec<usize>, remedy: &'static str },
}

impl Preprocess {
    /// # Errors
    /// [`PreprocessError`] names the step that nothing could go through, or that is not in its place.
    pub fn check(&self) -> Result<(), PreprocessError> {
        if self.version != 1 {
            return Err(PreprocessError::Version { got: self.version });
        }
        let channels = self.channels();
        let mut numbers = false;
        for (step, kind) in self.steps.iter().enumerate() {
            let fault = |field, need| Err(PreprocessError::Value { step, field, need });
            match kind {
                Step::Decode { .. } if step > 0 => return fault("decode", "comes first"),
                Step::Decode { channels: 1 | 3 } => {}
                Step::Decode { .. } => return fault("decode.channels", "need 1 (grey) or 3 (red, green, blue)"),
                Step::Resize { .. } | Step::CenterCrop { .. } if numbers => {
                    return fault("size", "resize and centerCrop come before scale and normalize");
                }
                Step::Resize { size, .. } | Step::CenterCrop { size } => {
                    if !size.iter().all(|side| (1..=LARGEST_SIDE).contains(side)) {
                        return fault("size", "need sides of 1 to 4096");
                    }
                }
                Step::Scale { by } if !by.is_finite() => return fault("scale.by", "need a finite number"),
                Step::Scale { .. } => numbers = true,
                Step::Normalize { mean, std } => {
                    if mean.len() != channels || std.len() != channels {
                        return fault("normalize", "need one mean and one std for each channel");
                    }
                    if !mean.iter().chain(std).all(|value| value.is_finite()) || std.iter().any(|std| *std <= 0.0) {
                        return fault("normalize", "need finite numbers, std above 0");
                    }
                    numbers = true;
                }
            }
        }
        Ok(())
    }

    /// Of the images.
    pub fn channels(&self) -> usize {
        match self.steps.first() {
            Some(Step::Decode { channels }) => *channels,
            _ => 1,
        }
    }

    /// An image becomes `(channels, height', width')`, flat.
    ///
    /// # Errors
    /// [`PreprocessError`] if the image or a step do not fit.
    pub fn apply(&self, image: Image) -> Result<Vec<f32>, PreprocessError> {
        Ok(self.numbers(self.shaped(image)?))
    }

    /// PNG or JPEG of at most `max_pixels` becomes the input of a network, flat.
    ///
    /// # Errors
    /// [`PreprocessError`] if the bytes are no such image, or do not become an `input`.
    pub fn encoded(&self, encoded: &[u8], input: &[usize], max_pixels: u64) -> Result<Vec<f32>, PreprocessError> {
        let image = Image::decode(encoded, self.channels(), max_pixels)?;
        let from = [image.height, image.width];
        let shaped = self.shaped(image)?;
        let got = [shaped.channels, shaped.height, shaped.width];
        if got != input {
            let sized = self.steps.iter().any(|step| matches!(step, Step::Resize { .. } | Step::CenterCrop { .. }));
            let remedy = if sized { "the model's steps do not fit it" } else { "send one of that size" };
            return Err(PreprocessError::Input { from, got, need: input.to_vec(), remedy });
        }
        Ok(self.numbers(shaped))
    }

    /// All images, one after the other, as [`Self::apply`] does each.
    ///
    /// # Errors
    /// [`PreprocessError`] if a step does not fit the images.
    pub fn apply_all(&self, images: &Images) -> Result<Vec<f32>, PreprocessError> {
        let mut xs = Vec::new();
        for index in 0..images.count {
            xs.extend(self.apply(Image::grey(images.image(index), images.height, images.width)?)?);
        }
        Ok(xs)
    }

    /// What becomes of a pixel all of whose channels are `value`, for each channel; the steps have been checked.
    pub fn pixel(&self, value: u8) -> Vec<f32> {
        let channels = self.channels();
        self.numbers(Image { height: 1, width: 1, channels, pixels: vec![value; channels] })
    }

    /// What steps on bytes make of it.
    fn shaped(&self, mut image: Image) -> Result<Image, PreprocessError> {
        self.check()?;
        if image.channels != self.channels() {
            return Err(PreprocessError::Channels { got: image.channels, need: self.channels() });
        }
        for (step, kind) in self.steps.iter().enumerate() {
            match *kind {
                Step::Resize { size, filter, fit } => image = image.resize(size, fit, filter),
                Step::CenterCrop { size } => {
                    let got = [image.height, image.width];
                    image = image.center_crop(size).ok_or(PreprocessError::Crop { step, size, got })?;
                }
                Step::Decode { .. } | Step::Scale { .. } | Step::Normalize { .. } => {}
            }
        }
        Ok(image)
    }

    /// `(channels, height, width)`, flat; the steps have been checked.
    fn numbers(&self, image: Image) -> Vec<f32> {
        let Image { channels, pixels, .. } = image;
        let mut xs: Vec<f32> = Vec::with_capacity(pixels.len());
        for channel in 0..channels {
            let begun = xs.len();
            xs.extend(pixels.iter().skip(channel).step_by(channels).map(|&pixel| f32::from(pixel)));
            for step in &self.steps {
                match step {
                    Step::Scale { by } => xs[begun..].iter_mut().for_each(|x| *x *= by),
                    Step::Normalize { mean, std } => {
                        xs[begun..].iter_mut().for_each(|x| *x = (*x - mean[channel]) / std[channel]);
                    }
                    Step::Decode { .. } | Step::Resize { .. } | Step::CenterCrop { .. } => {}
                }
            }
        }
        xs
    }
}
