//! Pictures as they are looked into: none so large that it takes the memory of all the rest. Pure.

use crate::sample::Media;
use image::{DynamicImage, ImageDecoder as _, ImageError, ImageFormat, ImageReader, Limits, RgbImage};
use std::io::Cursor;

const LARGEST_SIDE: u32 = 8192;
/// What a picture takes while it is decoded, or covered: enough for 3840 × 2160 of a camera.
const LARGEST: u64 = 72 << 20;
/// Of each pixel, beside its bytes: a progressive JPEG before it is whole, or the picture in blocks.
const BESIDE: u64 = 6;

/// As it is looked at: a camera that was turned says so beside the picture.
///
/// # Errors
/// In words, if the bytes are no picture, or one that is too large: known before it is decoded.
pub fn decode(content: &[u8], media: Media) -> Result<RgbImage, String> {
    let told = |error: ImageError| error.to_string();
    let format = if media == Media::Jpg { ImageFormat::Jpeg } else { ImageFormat::Png };
    let mut reader = ImageReader::with_format(Cursor::new(content), format);
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(LARGEST_SIDE), Some(LARGEST_SIDE));
    limits.max_alloc = Some(LARGEST);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(told)?;
    let (width, height) = decoder.dimensions();
    let takes = decoder.total_bytes() + u64::from(width) * u64::from(height) * BESIDE;
    if takes > LARGEST {
        return Err(format!(
            "{width} × {height} pixels take {} MiB, of {} that a picture may: let the camera send smaller ones",
            takes >> 20,
            LARGEST >> 20
        ));
    }
    let turned = decoder.orientation().map_err(told)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(told)?;
    picture.apply_orientation(turned);
    Ok(picture.into_rgb8())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::GrayImage;

    /// A few kilobytes that become more than a small machine has.
    #[test]
    fn a_picture_that_takes_too_much_memory_is_not_decoded() {
        let decoded = |width, height| {
            let mut bytes = Vec::new();
            GrayImage::new(width, height).write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
            decode(&bytes, Media::Png).map(|picture| picture.dimensions())
        };
        assert_eq!(decoded(3840, 2160), Ok((3840, 2160)));
        let error = decoded(4096, 4096).unwrap_err();
        assert!(error.contains("112 MiB, of 72"), "{error}");
        assert!(decoded(9000, 1).is_err());
    }
}
