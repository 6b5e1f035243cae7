//! What the client's images show: the people who label know it. Of a sample they see the tensor alone, or the picture.

use super::shift;
use anyhow::{Context as _, Result};
use image::{GrayImage, ImageFormat};
use sconce_lake::labels;
use sconce_model::idx;
use sconce_model::preprocess::{Image, Preprocess};
use std::io::Cursor;
use std::path::Path;

/// An image as it looks once the site's world has shifted.
struct Known {
    digit: u8,
    /// As a file.
    picture: Vec<u8>,
    /// Its bytes, as they are at the end of a tensor's file.
    tensor: Vec<u8>,
}

/// By the numbers that the client gives them.
pub struct Truth(Vec<Known>);

impl Truth {
    pub fn read(held_out: &Path) -> Result<Self> {
        let read = |file: &str| std::fs::read(held_out.join(file)).with_context(|| format!("{file} of the client"));
        let images = idx::read_images(&read("images.idx3")?)?;
        let digits = idx::read_labels(&read("labels.idx1")?)?;
        let preprocess: Preprocess = serde_json::from_slice(&read("preprocess.json")?)?;
        let (high, wide) = (images.height, images.width);
        let known = digits.iter().enumerate().map(|(number, digit)| {
            let pixels = shift::shifted(images.image(number), wide, number);
            let tensor = preprocess.apply(Image::grey(&pixels, high, wide)?)?;
            let tensor = tensor.iter().flat_map(|value| value.to_le_bytes()).collect();
            let picture = GrayImage::from_raw(wide.try_into()?, high.try_into()?, pixels).context("a byte for each")?;
            let mut png = Cursor::new(vec![]);
            picture.write_to(&mut png, ImageFormat::Png)?;
            Ok(Known { digit: *digit, picture: png.into_inner(), tensor })
        });
        Ok(Self(known.collect::<Result<_>>()?))
    }

    /// As a PNG.
    pub fn picture(&self, number: usize) -> &[u8] {
        &self.0[number].picture
    }

    /// The samples of an export that show images: id, number of the image, digit.
    pub fn shown(&self, export: &Path) -> Result<Vec<(String, usize, u8)>> {
        let mut shown = Vec::new();
        for given in labels::read("labels.csv", &std::fs::read(export.join("labels.csv"))?)? {
            let file = |extension: &str| export.join(format!("files/{}.{extension}", given.id));
            // Beside a tensor stands a picture that was drawn of it.
            let file =
                std::fs::read(Some(file("npy")).filter(|tensor| tensor.exists()).unwrap_or_else(|| file("png")))?;
            let is_of = |known: &Known| file == known.picture || file.ends_with(&known.tensor);
            let number = self.0.iter().position(is_of);
            shown.extend(number.map(|number| (given.id, number, self.0[number].digit)));
        }
        Ok(shown)
    }
}

/// A table of labels, as it is given back.
pub fn table<'a>(file: &Path, rows: impl Iterator<Item = (&'a String, u8)>) -> Result<()> {
    let rows = rows.map(|(id, label)| [id.clone(), label.to_string()]);
    std::fs::write(file, labels::table(&["id", "label"], rows))?;
    Ok(())
}

/// A digit that has nothing to do with what is seen.
pub fn lot(image: usize, digit: u8) -> u8 {
    let drawn = (image as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    ((drawn + u64::from(digit)) % 10) as u8
}
