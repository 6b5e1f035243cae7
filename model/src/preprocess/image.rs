//! Images as bytes: decoded, resized, cropped.

use super::PreprocessError;
use image::imageops::{FilterType, resize};
use image::{DynamicImage, ImageBuffer, ImageDecoder as _, ImageFormat, ImageReader, Limits, Luma, Pixel, Rgb};
use serde::{Deserialize, Serialize};
use std::io::Cursor;

/// `(height, width, channels)`, row by row; the channels are grey, or red, green and blue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub pixels: Vec<u8>,
}

/// How an image of another aspect fills a size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fit {
    /// All of the size; what is over at two sides is cut off.
    #[default]
    Cover,
    /// All of the image; two sides are filled up with black.
    Contain,
    /// All of both: the aspect is lost.
    Stretch,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Filter {
    /// Over all pixels that a new one covers (antialiased), as Pillow does it.
    #[default]
    Bilinear,
}

impl Image {
    /// # Errors
    /// [`PreprocessError::Bytes`] if there is another number of pixels.
    pub fn grey(pixels: &[u8], height: usize, width: usize) -> Result<Self, PreprocessError> {
        if height.checked_mul(width) != Some(pixels.len()) {
            return Err(PreprocessError::Bytes { got: pixels.len(), height, width });
        }
        Ok(Self { height, width, channels: 1, pixels: pixels.to_vec() })
    }

    /// PNG or JPEG, upright as its EXIF says, of 1 channel or 3. What shines through is black.
    ///
    /// # Errors
    /// [`PreprocessError`] if the bytes are none of these, broken, or of more than `max_pixels`.
    pub fn decode(encoded: &[u8], channels: usize, max_pixels: u64) -> Result<Self, PreprocessError> {
        let unread = |error: image::ImageError| PreprocessError::Encoded { why: error.to_string() };
        let mut reader = ImageReader::new(Cursor::new(encoded));
        match image::guess_format(encoded) {
            Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => reader.set_format(format),
            Ok(_) | Err(_) => return Err(PreprocessError::Encoded { why: starts_with(encoded) }),
        }
        if encoded.starts_with(&[0xff, 0xd8]) && !is_whole(encoded) {
            return Err(PreprocessError::Encoded { why: "the JPEG is cut off".into() });
        }
        // Of the largest pixel that there is, and as much again to work with.
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(max_pixels.saturating_mul(16));
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(unread)?;
        let (width, height) = decoder.dimensions();
        if u64::from(width) * u64::from(height) > max_pixels {
            return Err(PreprocessError::Pixels { width, height, max: max_pixels });
        }
        let orientation = decoder.orientation().map_err(unread)?;
        let mut decoded = DynamicImage::from_decoder(decoder).map_err(unread)?;
        decoded.apply_orientation(orientation);
        let (width, height) = (decoded.width() as usize, decoded.height() as usize);
        let pixels = match (decoded, channels) {
            (DynamicImage::ImageLuma8(grey), 1) => grey.into_raw(),
            (DynamicImage::ImageRgb8(colours), 3) => colours.into_raw(),
            (other, 1) => other.into_rgba8().pixels().map(|pixel| luma(over_black(pixel.0))).collect(),
            (other, _) => other.into_rgba8().pixels().flat_map(|pixel| over_black(pixel.0)).collect(),
        };
        Ok(Self { height, width, channels, pixels })
    }

    /// To a size that has pixels.
    pub(super) fn resize(&self, size: [usize; 2], fit: Fit, filter: Filter) -> Self {
        match fit {
            Fit::Cover => {
                self.center_crop(inside([self.height, self.width], size)).unwrap_or_default().resized(size, filter)
            }
            Fit::Stretch => self.resized(size, filter),
            Fit::Contain => self.resized(inside(size, [self.height, self.width]), filter).padded(size),
        }
    }

    fn resized(&self, [height, width]: [usize; 2], filter: Filter) -> Self {
        let Filter::Bilinear = filter;
        let (from, to) = ((self.width as u32, self.height as u32), (width as u32, height as u32));
        let pixels = if self.channels == 1 {
            scaled::<Luma<u8>>(&self.pixels, from, to)
        } else {
            scaled::<Rgb<u8>>(&self.pixels, from, to)
        };
        Self { height, width, channels: self.channels, pixels }
    }

    fn padded(&self, [height, width]: [usize; 2]) -> Self {
        let (top, left) = ((height - self.height) / 2, (width - self.width) / 2);
        let mut pixels = vec![0; height * width * self.channels];
        let rows = pixels.chunks_exact_mut(width * self.channels).skip(top);
        for (to, from) in rows.zip(self.pixels.chunks_exact(self.width * self.channels)) {
            to[left * self.channels..][..from.len()].copy_from_slice(from);
        }
        Self { height, width, channels: self.channels, pixels }
    }

    /// The middle; `None` if the size is beyond the image.
    pub(super) fn center_crop(&self, [height, width]: [usize; 2]) -> Option<Self> {
        let top = self.height.checked_sub(height)? / 2;
        let left = self.width.checked_sub(width)? / 2;
        let rows = self.pixels.chunks_exact((self.width * self.channels).max(1)).skip(top).take(height);
        let pixels = rows.flat_map(|row| &row[left * self.channels..][..width * self.channels]).copied().collect();
        Some(Self { height, width, channels: self.channels, pixels })
    }
}

/// Whether a JPEG's last scan ends: inside one, no other marker looks like its end. The decoder would fill up with grey.
fn is_whole(jpeg: &[u8]) -> bool {
    let last = |marker: [u8; 2]| jpeg.windows(2).rposition(|at| at == marker);
    last([0xff, 0xd9]) > last([0xff, 0xda])
}

/// The largest size inside one, of at least a pixel, that has the aspect of another.
fn inside([height, width]: [usize; 2], [high, wide]: [usize; 2]) -> [usize; 2] {
    let scaled = |side: usize, by: usize, of: usize| ((side * by + of / 2) / of.max(1)).max(1);
    if height * wide > width * high { [scaled(high, width, wide), width] } else { [height, scaled(wide, height, high)] }
}

/// Sizes are `(width, height)`; no pixels from none.
fn scaled<P: Pixel<Subpixel = u8> + 'static>(pixels: &[u8], from: (u32, u32), (width, height): (u32, u32)) -> Vec<u8> {
    let image = ImageBuffer::<P, _>::from_raw(from.0, from.1, pixels);
    image.map(|image| resize(&image, width, height, FilterType::Triangle).into_raw()).unwrap_or_default()
}

fn over_black([red, green, blue, alpha]: [u8; 4]) -> [u8; 3] {
    [red, green, blue].map(|value| ((u16::from(value) * u16::from(alpha) + 127) / 255) as u8)
}

/// ITU-R BT.601, as Pillow and JPEG weigh it.
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue) + 0x8000) >> 16) as u8
}

fn starts_with(encoded: &[u8]) -> String {
    format!("{} bytes that begin with {:02x?}", encoded.len(), &encoded[..encoded.len().min(4)])
}
