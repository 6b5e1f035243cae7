//! From raw material to the input tensor: the same code for training, clients and runtime, kept in `preprocess.json`.

use crate::idx::Images;
use serde::{Deserialize, Serialize};
use thiserror::Error;

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
    /// Keeps the middle `[height, width]`.
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
    #[error("steps[{step}] centerCrop: {size:?} does not fit {got:?}; use a smaller size")]
    Crop { step: usize, size: [usize; 2], got: [usize; 2] },
    #[error("steps[{step}] {field}: {need}")]
    Value { step: usize, field: &'static str, need: &'static str },
}

impl Preprocess {
    /// A grey image, `pixels` row by row, becomes `(1, height', width')`, flat.
    ///
    /// # Errors
    /// [`PreprocessError`] if the bytes or a step do not fit.
    pub fn apply(&self, pixels: &[u8], height: usize, width: usize) -> Result<Vec<f32>, PreprocessError> {
        if self.version != 1 {
            return Err(PreprocessError::Version { got: self.version });
        }
        if height.checked_mul(width) != Some(pixels.len()) {
            return Err(PreprocessError::Bytes { got: pixels.len(), height, width });
        }
        let mut xs: Vec<f32> = pixels.iter().map(|&pixel| f32::from(pixel)).collect();
        let mut got = [height, width];
        for (step, kind) in self.steps.iter().enumerate() {
            match kind {
                &Step::CenterCrop { size } => {
                    xs = center_crop(&xs, got, size).ok_or(PreprocessError::Crop { step, size, got })?;
                    got = size;
                }
                Step::Scale { by } if by.is_finite() => xs.iter_mut().for_each(|x| *x *= by),
                Step::Scale { .. } => {
                    return Err(PreprocessError::Value { step, field: "scale.by", need: "need a finite number" });
                }
                Step::Normalize { mean, std } => {
                    let (&[mean], &[std]) = (&mean[..], &std[..]) else {
                        let need = "need one mean and one std, as the image has one channel";
                        return Err(PreprocessError::Value { step, field: "normalize", need });
                    };
                    if !mean.is_finite() || !std.is_finite() || std <= 0.0 {
                        return Err(PreprocessError::Value {
                            step,
                            field: "normalize",
                            need: "need finite numbers, std above 0",
                        });
                    }
                    xs.iter_mut().for_each(|x| *x = (*x - mean) / std);
                }
            }
        }
        Ok(xs)
    }

    /// All images, one after the other, as [`Self::apply`] does each.
    ///
    /// # Errors
    /// [`PreprocessError`] if a step does not fit the images.
    pub fn apply_all(&self, images: &Images) -> Result<Vec<f32>, PreprocessError> {
        let mut xs = Vec::new();
        for index in 0..images.count {
            xs.extend(self.apply(images.image(index), images.height, images.width)?);
        }
        Ok(xs)
    }
}

fn center_crop(xs: &[f32], got: [usize; 2], size: [usize; 2]) -> Option<Vec<f32>> {
    let top = got[0].checked_sub(size[0])? / 2;
    let left = got[1].checked_sub(size[1])? / 2;
    let rows = xs.chunks_exact(got[1].max(1)).skip(top).take(size[0]);
    Some(rows.flat_map(|row| &row[left..left + size[1]]).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(steps: serde_json::Value) -> Preprocess {
        serde_json::from_value(serde_json::json!({"version": 1, "input": "image", "steps": steps})).unwrap()
    }

    #[test]
    fn steps_follow_each_other() {
        let preprocess = read(
            serde_json::json!([{"centerCrop": {"size": [1, 2]}}, {"scale": {"by": 0.5}}, {"normalize": {"mean": [1.0], "std": [2.0]}}]),
        );
        let pixels = [0, 0, 0, 0, 2, 4, 6, 8, 0, 0, 0, 0];
        assert_eq!(preprocess.apply(&pixels, 3, 4).unwrap(), [0.5, 1.0]);
        let images = Images { count: 2, height: 3, width: 4, pixels: [pixels, pixels].concat() };
        assert_eq!(preprocess.apply_all(&images).unwrap(), [0.5, 1.0, 0.5, 1.0]);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let check =
            |steps, expected: &str| assert_eq!(read(steps).apply(&[0; 4], 2, 2).unwrap_err().to_string(), expected);
        check(
            serde_json::json!([{"centerCrop": {"size": [3, 2]}}]),
            "steps[0] centerCrop: [3, 2] does not fit [2, 2]; use a smaller size",
        );
        check(
            serde_json::json!([{"normalize": {"mean": [0.0], "std": [0.0]}}]),
            "steps[0] normalize: need finite numbers, std above 0",
        );
        assert_eq!(
            read(serde_json::json!([])).apply(&[0; 3], 2, 2).unwrap_err().to_string(),
            "3 bytes for an image of 2\u{d7}2; need 4"
        );
    }
}
