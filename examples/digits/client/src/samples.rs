//! The images that the client carries, preprocessed with the model's own code.

use anyhow::{Context as _, Result, ensure};
use sconce_model::idx;
use sconce_model::preprocess::{Image, Preprocess};
use std::ops::Range;
use std::path::Path;

pub struct Samples {
    /// Each `(1, height, width)`, flat.
    pub images: Vec<Vec<f32>>,
    pub labels: Vec<u8>,
    /// Of one request: `[1, 1, height, width]`.
    pub shape: Vec<i64>,
}

impl Samples {
    /// Those in `only`, as they look in a light that is brighter by so many levels.
    pub fn read(folder: &Path, only: Option<Range<usize>>, brighter: u8) -> Result<Self> {
        let read = |file: &str| {
            std::fs::read(folder.join(file)).with_context(|| format!("cannot read {}", folder.join(file).display()))
        };
        let images = idx::read_images(&read("images.idx3")?).context("images.idx3")?;
        let labels = idx::read_labels(&read("labels.idx1")?).context("labels.idx1")?;
        ensure!(
            images.count == labels.len() && !labels.is_empty(),
            "{} images but {} labels",
            images.count,
            labels.len()
        );
        let preprocess: Preprocess = serde_json::from_slice(&read("preprocess.json")?).context("preprocess.json")?;
        let only = only.unwrap_or(0..images.count);
        ensure!(only.end <= images.count, "--images {only:?}: there are {} images", images.count);
        let apply = |index| {
            let pixels: Vec<u8> = images.image(index).iter().map(|pixel| pixel.saturating_add(brighter)).collect();
            preprocess.apply(Image::grey(&pixels, images.height, images.width)?)
        };
        let prepared = only.clone().map(apply).collect::<Result<Vec<_>, _>>()?;
        let labels = labels[only].to_vec();
        // Cropping leaves a square of what it was given.
        let side = (prepared[0].len() as f64).sqrt() as i64;
        let (height, width) = if prepared[0].len() == images.pixels.len() / images.count {
            (images.height as i64, images.width as i64)
        } else {
            (side, side)
        };
        Ok(Self { images: prepared, labels, shape: vec![1, 1, height, width] })
    }
}
