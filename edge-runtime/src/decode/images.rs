//! Encoded images, in the place of the tensor that they become.

use super::{DecodeError, ENCODED, Input, Strings, elements};
use crate::request::Given;
use bytes::Bytes;
use candle_core::{Device, Tensor};
use sconce_model::preprocess::{Image, Preprocess};

/// Of one image.
const MAX_PIXELS: u64 = 16 << 20;

/// Bytes that all images take that are decoded at once, in a process that may have so much memory: half of it. A model has the other
/// half, as the operator reckons.
pub fn memory_at_once(memory_limit: Option<u64>) -> u64 {
    memory_limit.map_or(u64::MAX, |limit| limit / 2)
}

/// Of one image, where so much memory is for all.
pub fn max_pixels(at_once: u64) -> u64 {
    (at_once.saturating_sub(Image::BYTES_BESIDE) / Image::BYTES_PER_PIXEL).min(MAX_PIXELS)
}

/// How encoded images become the input of a model: as its `preprocess.json` says, by the code that prepared them for training.
#[derive(Debug)]
pub struct Images {
    preprocess: Preprocess,
    /// Of one row: `[channels, height, width]`.
    input: Vec<usize>,
    max_pixels: u64,
}

impl Images {
    /// `None` where no image becomes an `input`.
    pub fn new(preprocess: &Preprocess, input: &[usize], max_pixels: u64) -> Option<Self> {
        let takes =
            preprocess.check().is_ok() && matches!(input, [channels, _, _] if *channels == preprocess.channels());
        takes.then(|| Self { preprocess: preprocess.clone(), input: input.into(), max_pixels })
    }

    /// Bytes that decoding takes at most, of the largest by their heads: they are decoded one after the other.
    ///
    /// # Errors
    /// [`DecodeError`] names the image that is none, or too large.
    pub fn memory(&self, images: &[Bytes]) -> Result<u64, DecodeError> {
        let mut each = images.iter().enumerate().map(|(index, image)| {
            Image::memory(image, self.max_pixels).map_err(|fault| DecodeError::Image { name: ENCODED, index, fault })
        });
        each.try_fold(0, |most, bytes| Ok(most.max(bytes?)))
    }

    /// As many rows as images. It may take milliseconds for each.
    ///
    /// # Errors
    /// [`DecodeError`] names the image, and what is wrong with it.
    pub fn tensor(&self, images: &[Bytes]) -> Result<Input, DecodeError> {
        let mut xs = Vec::new();
        for (index, image) in images.iter().enumerate() {
            let image = self.preprocess.encoded(image, &self.input, self.max_pixels);
            xs.extend(image.map_err(|fault| DecodeError::Image { name: ENCODED, index, fault })?);
        }
        let rows = images.len();
        let shape: Vec<usize> = std::iter::once(rows).chain(self.input.iter().copied()).collect();
        let xs = Tensor::from_vec(xs, shape, &Device::Cpu)
            .map_err(|error| DecodeError::Tensor { name: ENCODED.into(), why: error.to_string() })?;
        Ok(Input { xs, rows })
    }
}

/// One image for each row, still encoded.
///
/// # Errors
/// [`DecodeError`] says what was expected.
pub(super) fn check(input: Given, max_batch_size: usize) -> Result<Vec<Bytes>, DecodeError> {
    let Given { datatype, shape, contents, .. } = input;
    if datatype != "BYTES" {
        return Err(DecodeError::Datatype { name: ENCODED.into(), got: datatype, need: "BYTES".into() });
    }
    let rows = match shape[..] {
        [rows] | [rows, 1] => usize::try_from(rows).ok().filter(|rows| (1..=max_batch_size).contains(rows)),
        _ => None,
    };
    let Some(need) = rows else {
        return Err(DecodeError::Shape { name: ENCODED.into(), got: shape, need: vec![-1, 1], max: max_batch_size });
    };
    elements(ENCODED, (&shape, need), contents, Strings::Base64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Contents;

    fn given(shape: &[i64], contents: Contents) -> Given {
        Given { name: ENCODED.into(), datatype: "BYTES".into(), shape: shape.into(), contents }
    }

    /// Nobody asked what a process may take: a PNG of 130 KB ended one of 96 MiB.
    #[test]
    fn images_have_half_of_the_memory_and_all_of_them_together() {
        let check = |mebibytes: Option<u64>, together: u64, one: u64| {
            let at_once = memory_at_once(mebibytes.map(|size| size << 20));
            assert_eq!((at_once, max_pixels(at_once)), (together, one), "{mebibytes:?} MiB");
        };
        check(Some(0), 0, 0);
        check(Some(96), 48 << 20, 4_019_541);
        check(Some(512), 256 << 20, 16 << 20);
        check(None, u64::MAX, 16 << 20);
    }

    #[test]
    fn what_is_no_row_of_bytes_is_said() {
        let told = |shape: &[i64], contents| check(given(shape, contents), 4).unwrap_err().to_string();
        let one = || Contents::Elements(vec![Bytes::from_static(b"a")]);
        assert_eq!(check(given(&[1], one()), 4).unwrap(), check(given(&[1, 1], one()), 4).unwrap());
        assert_eq!(told(&[2], one()), "input \"encoded\" has 1 elements; shape [2] needs 2");
        let shape = "input \"encoded\" has shape [5, 1]; the model takes [-1, 1], the first being 1 to 4";
        assert_eq!(told(&[5, 1], one()), shape);
        assert_eq!(
            told(&[1], Contents::Raw(Bytes::from_static(&[2, 0, 0, 0, 7]))),
            "input \"encoded\": the lengths before its elements, 32 bits each, do not add up to its 5 bytes"
        );
    }
}
