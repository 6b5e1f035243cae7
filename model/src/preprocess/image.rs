//! Images as bytes: decoded, resized, cropped.

use super::PreprocessError;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use serde::{Deserialize, Serialize};
use std::io::Cursor;

/// As JPEG has it; of rows that are longer a decoder keeps more than pixels.
const LONGEST_SIDE: u32 = 65_535;
/// Of the blocks that a JPEG's pixels lie in, each of which a decoder keeps whole.
const LARGEST_BLOCK: u32 = 32;

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
    /// What decoding one takes at most for each of its pixels: three times red, green, blue and alpha.
    pub const BYTES_PER_PIXEL: u64 = 12;
    /// And beside them: for what comes with an image, such as a profile of colours, and for rows on their way.
    pub const BYTES_BESIDE: u64 = 2 << 20;

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
    /// [`PreprocessError`] if the bytes are none of these, broken, or of more than `max_pixels`; one of 16 bits counts up to twice.
    pub fn decode(encoded: &[u8], channels: usize, max_pixels: u64) -> Result<Self, PreprocessError> {
        let (mut decoder, _) = opened(encoded, max_pixels)?;
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

    /// Bytes that decoding it takes at most, read off its head.
    ///
    /// # Errors
    /// As [`Image::decode`], of what the head tells.
    pub fn memory(encoded: &[u8], max_pixels: u64) -> Result<u64, PreprocessError> {
        Ok(opened(encoded, max_pixels)?.1 * Self::BYTES_PER_PIXEL + Self::BYTES_BESIDE)
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

    /// To the bit as `image` does it, which first makes a whole image of the new height and the old width, of 16 bytes a pixel: here
    /// that is a row.
    fn resized(&self, [height, width]: [usize; 2], filter: Filter) -> Self {
        let Filter::Bilinear = filter;
        let channels = self.channels;
        if [self.height, self.width] == [height, width] {
            return self.clone();
        }
        if self.pixels.is_empty() {
            return Self { height, width, channels, pixels: vec![0; height * width * channels] };
        }
        let across: Vec<(usize, Vec<f32>)> = (0..width).map(|at| weights(self.width, width, at)).collect();
        let mut row = vec![0.0; self.width * channels];
        let mut pixels = Vec::with_capacity(height * width * channels);
        for at in 0..height {
            row.fill(0.0);
            let (first, down) = weights(self.height, height, at);
            for (weight, from) in down.iter().zip(self.pixels.chunks_exact(row.len()).skip(first)) {
                row.iter_mut().zip(from).for_each(|(sum, value)| *sum += f32::from(*value) * weight);
            }
            for (first, across) in &across {
                for channel in 0..channels {
                    let values = row[first * channels + channel..].iter().step_by(channels);
                    let sum: f32 = values.zip(across).map(|(value, weight)| value * weight).sum();
                    pixels.push(sum.round() as u8);
                }
            }
        }
        Self { height, width, channels, pixels }
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

/// A decoder that has read the head, and how many pixels the image counts as.
fn opened(encoded: &[u8], max_pixels: u64) -> Result<(impl ImageDecoder, u64), PreprocessError> {
    let format = match image::guess_format(encoded) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
        Ok(_) | Err(_) => return Err(PreprocessError::Encoded { why: starts_with(encoded) }),
    };
    if format == ImageFormat::Jpeg && !is_whole(encoded) {
        return Err(PreprocessError::Encoded { why: "the JPEG is cut off".into() });
    }
    let mut reader = ImageReader::with_format(Cursor::new(encoded), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(Image::BYTES_BESIDE);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(unread)?;
    let (width, height) = decoder.dimensions();
    if width.max(height) > LONGEST_SIDE {
        return Err(PreprocessError::Side { width, height, max: LONGEST_SIDE });
    }
    let bytes = u64::from(decoder.color_type().bytes_per_pixel()).max(4);
    let pixels = (u64::from(width) * u64::from(height) * bytes).div_ceil(4);
    if pixels > max_pixels {
        return Err(PreprocessError::Pixels { width, height, max: max_pixels.saturating_mul(4) / bytes });
    }
    let block = if format == ImageFormat::Jpeg { LARGEST_BLOCK } else { 1 };
    let [width, height] = [width, height].map(|side| u64::from(side.next_multiple_of(block)));
    Ok((decoder, pixels.max(width * height)))
}

fn unread(error: ImageError) -> PreprocessError {
    match error {
        ImageError::Limits(_) => PreprocessError::Beside { max_bytes: Image::BYTES_BESIDE },
        error => PreprocessError::Encoded { why: error.to_string() },
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

/// What a pixel of a side of another length is made of: the first pixel, and how much of it and of those after it. A triangle lies
/// over all that the new one covers.
fn weights(from: usize, to: usize, at: usize) -> (usize, Vec<f32>) {
    let ratio = from as f32 / to as f32;
    let (reach, centre) = (ratio.max(1.0), (at as f32 + 0.5) * ratio);
    let first = ((centre - reach).floor() as i64).clamp(0, from as i64 - 1);
    let end = ((centre + reach).ceil() as i64).clamp(first + 1, from as i64);
    let weight = |pixel: i64| (1.0 - ((pixel as f32 - (centre - 0.5)) / reach).abs()).max(0.0);
    let mut weights: Vec<f32> = (first..end).map(weight).collect();
    let sum: f32 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    (first as usize, weights)
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
