//! The images that the client carries, preprocessed with the model's own code.

use crate::shift;
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
    /// Those in `only`; `shifted`, as they look once the site's world has.
    pub fn read(folder: &Path, only: Option<Range<usize>>, shifted: bool) -> Result<Self> {
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
            let plain = images.image(index);
            let pixels = if shifted { shift::shifted(plain, images.width, index) } else { plain.to_vec() };
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

#[cfg(test)]
mod tests {
    use super::*;
    use sconce_model::idx::{Images, write_images, write_labels};
    use sconce_model::preprocess::{Material, Step};

    #[test]
    fn a_shifted_image_is_brighter_and_noisier_and_its_strokes_are_thicker() {
        // Ink in the middle of the second row, and at its end.
        let mut pixels = [0; 5 * 4];
        (pixels[7], pixels[9]) = (140, 140);
        let shifted = shift::shifted(&pixels, 5, 3);
        let ink = [2, 4, 6, 7, 8, 9, 12, 14];
        for (at, pixel) in shifted.iter().enumerate() {
            let clean: u8 = if ink.contains(&at) { 220 } else { 80 };
            assert!(pixel.abs_diff(clean) <= 30, "{at}: {pixel}");
        }
        assert!(shifted.iter().any(|pixel| pixel.abs_diff(80).min(pixel.abs_diff(220)) > 5), "no noise: {shifted:?}");
        assert_eq!(shifted, shift::shifted(&pixels, 5, 3));
        assert_ne!(shifted, shift::shifted(&pixels, 5, 4));
        assert_eq!(shift::shifted(&[255; 4], 2, 0), [255; 4], "nothing is brighter than white");
    }

    #[test]
    fn a_part_of_the_images_looks_as_it_does_in_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let images = Images { count: 3, height: 2, width: 2, pixels: (0..12).collect() };
        let preprocess = Preprocess { version: 1, input: Material::Image, steps: vec![Step::Scale { by: 0.5 }] };
        let put = |file: &str, bytes: Vec<u8>| std::fs::write(folder.path().join(file), bytes).unwrap();
        put("images.idx3", write_images(&images));
        put("labels.idx1", write_labels(&[0, 1, 2]));
        put("preprocess.json", serde_json::to_vec(&preprocess).unwrap());
        let read = |only, shifted| Samples::read(folder.path(), only, shifted).unwrap().images;
        let (plain, shifted) = (read(None, false), read(None, true));
        assert_eq!(plain[1], [2.0, 2.5, 3.0, 3.5]);
        assert!(plain.iter().zip(&shifted).all(|(plain, shifted)| plain != shifted), "{shifted:?}");
        assert_eq!((read(Some(1..3), false), read(Some(1..3), true)), (plain[1..].to_vec(), shifted[1..].to_vec()));
    }
}
