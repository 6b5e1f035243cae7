//! What the client's images show: the people who label know it. Of a sample they see the tensor alone.

use anyhow::{Context as _, Result};
use sconce_lake::labels;
use sconce_model::idx;
use sconce_model::preprocess::{Image, Preprocess};
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of the tensor, at the end of its file → number of the image, and the digit.
pub struct Truth(BTreeMap<Vec<u8>, (usize, u8)>);

impl Truth {
    /// The images as they look when it is brighter.
    pub fn read(held_out: &Path, brighter: u8) -> Result<Self> {
        let read = |file: &str| std::fs::read(held_out.join(file)).with_context(|| format!("{file} of the client"));
        let images = idx::read_images(&read("images.idx3")?)?;
        let digits = idx::read_labels(&read("labels.idx1")?)?;
        let preprocess: Preprocess = serde_json::from_slice(&read("preprocess.json")?)?;
        let tensor = |number: usize| -> Result<Vec<u8>> {
            let pixels: Vec<u8> = images.image(number).iter().map(|pixel| pixel.saturating_add(brighter)).collect();
            let tensor = preprocess.apply(Image::grey(&pixels, images.height, images.width)?)?;
            Ok(tensor.iter().flat_map(|value| value.to_le_bytes()).collect())
        };
        let known = digits.iter().enumerate().map(|(number, digit)| Ok((tensor(number)?, (number, *digit))));
        Ok(Self(known.collect::<Result<_>>()?))
    }

    /// The samples of an export that show images in this light: id, number of the image, digit.
    pub fn shown(&self, export: &Path) -> Result<Vec<(String, usize, u8)>> {
        let mut shown = Vec::new();
        for given in labels::read("labels.csv", &std::fs::read(export.join("labels.csv"))?)? {
            let file = std::fs::read(export.join(format!("files/{}.npy", given.id)))?;
            let found = self.0.iter().find(|(tensor, _)| file.ends_with(tensor));
            shown.extend(found.map(|(_, (number, digit))| (given.id, *number, *digit)));
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
