//! Masks: zones of a camera's picture that are blacked out, and a grid so coarse that nobody is known. Pure.

use super::Refusal;
use super::picture::decode;
use crate::sample::Media;
use bytes::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize, thumbnail};
use image::{ImageFormat, Rgb, RgbImage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Cursor;

const QUALITY: u8 = 90;

/// In percent of the picture's width and height, as it is seen: turned as the camera says beside it (EXIF).
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    pub x: u8,
    pub y: u8,
    pub width: u8,
    pub height: u8,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Mask {
    /// Blacked out, by camera; `*` is every camera that is not named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub zones: BTreeMap<String, Vec<Zone>>,
    /// The picture becomes so many blocks wide, and as many high as that makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<u32>,
}

impl Mask {
    /// The image anew, without what is covered; with it goes all that a camera writes beside the picture.
    ///
    /// # Errors
    /// [`Refusal`] if it cannot be covered.
    pub fn cover(&self, camera: &str, content: &[u8], media: Media) -> Result<(Bytes, Vec<String>), Refusal> {
        let zones = match self.zones.get(camera).or_else(|| self.zones.get("*")) {
            Some(zones) => zones.as_slice(),
            // Coarse blocks cover everything.
            None if self.blocks.is_some() => &[],
            None => return Err(Refusal::NoZones(camera.to_owned())),
        };
        let unread = |error: image::ImageError| Refusal::Image(error.to_string());
        let mut picture = decode(content, media).map_err(Refusal::Image)?;
        let mut redactions = Vec::new();
        zones.iter().for_each(|zone| black_out(&mut picture, *zone));
        if !zones.is_empty() {
            redactions.push(format!("{} zones blacked out", zones.len()));
        }
        if let Some(blocks) = self.blocks {
            picture = coarse(&picture, blocks);
            redactions.push(format!("{blocks} blocks wide"));
        }
        let mut bytes = Vec::new();
        let encoded = match media {
            Media::Jpg => picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, QUALITY)),
            _ => picture.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png),
        };
        encoded.map_err(unread)?;
        Ok((bytes.into(), redactions))
    }
}

/// Every pixel that the zone touches.
fn black_out(picture: &mut RgbImage, zone: Zone) {
    let span = |from: u8, length: u8, whole: u32| {
        let whole = u64::from(whole);
        let start = u64::from(from) * whole / 100;
        let end = ((u64::from(from) + u64::from(length)) * whole).div_ceil(100).min(whole);
        start as u32..end as u32
    };
    let columns = span(zone.x, zone.width, picture.width());
    for y in span(zone.y, zone.height, picture.height()) {
        columns.clone().for_each(|x| picture.put_pixel(x, y, Rgb([0; 3])));
    }
}

/// The mean of each block, at the size that it had.
fn coarse(picture: &RgbImage, blocks: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    let rows = (u64::from(blocks) * u64::from(height)).div_ceil(u64::from(width.max(1))).max(1) as u32;
    let small = thumbnail(picture, blocks.clamp(1, width), rows.min(height));
    resize(&small, width, height, FilterType::Nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(picture: &RgbImage) -> Vec<u8> {
        let mut bytes = Vec::new();
        picture.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
        bytes
    }

    /// A white picture, and what a camera writes beside it.
    fn jpeg(exif: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let white = RgbImage::from_pixel(32, 16, Rgb([255; 3]));
        white.write_with_encoder(JpegEncoder::new(&mut bytes)).unwrap();
        bytes.splice(2..2, [b"\xff\xe1\0", &[exif.len() as u8 + 8][..], b"Exif\0\0", exif].concat());
        bytes
    }

    fn covered(mask: &Mask, camera: &str, picture: &RgbImage) -> Result<RgbImage, Refusal> {
        let (bytes, _) = mask.cover(camera, &png(picture), Media::Png)?;
        Ok(decode(&bytes, Media::Png).unwrap())
    }

    #[test]
    fn a_zone_is_black_and_the_rest_is_as_it_was() {
        let picture = RgbImage::from_fn(10, 10, |x, y| Rgb([x as u8 + 1, y as u8 + 1, 9]));
        let zone = Zone { x: 15, y: 50, width: 20, height: 50 };
        let mask = Mask { zones: [("door".into(), vec![zone])].into(), blocks: None };
        let left = covered(&mask, "door", &picture).unwrap();
        for (x, y, pixel) in left.enumerate_pixels() {
            let is_inside = (1..4).contains(&x) && y >= 5;
            let expected = if is_inside { Rgb([0; 3]) } else { *picture.get_pixel(x, y) };
            assert_eq!(*pixel, expected, "at {x}, {y}");
        }
        assert_eq!(covered(&mask, "yard", &picture), Err(Refusal::NoZones("yard".into())));
    }

    /// Zones are drawn on what people see, and a camera that hangs on its side writes beside the picture how it is to be turned.
    #[test]
    fn a_zone_lies_where_it_is_seen() {
        // Orientation (0x0112) 6: a quarter turn to the right.
        let bytes = jpeg(b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0");
        let upper = Zone { x: 0, y: 0, width: 100, height: 50 };
        let mask = Mask { zones: [("*".into(), vec![upper])].into(), blocks: None };
        let (left, _) = mask.cover("door", &bytes, Media::Jpg).unwrap();
        let left = decode(&left, Media::Jpg).unwrap();
        assert_eq!(left.dimensions(), (16, 32));
        assert!(left.get_pixel(8, 8).0[0] < 32 && left.get_pixel(8, 24).0[0] > 223);
    }

    /// Such as the whole picture once more, small and uncovered.
    #[test]
    fn what_stands_beside_a_picture_stays_behind() {
        let has_canary = |bytes: &[u8]| bytes.windows(6).any(|at| at == b"canary");
        let bytes = jpeg(b"II*\0\x08\0\0\0\0\0\0\0\0\0canary");
        let (left, _) = Mask { blocks: Some(4), ..Mask::default() }.cover("door", &bytes, Media::Jpg).unwrap();
        assert_eq!((has_canary(&bytes), has_canary(&left)), (true, false));
    }

    #[test]
    fn blocks_leave_no_detail() {
        let picture = RgbImage::from_fn(64, 32, |x, y| Rgb([if (x + y) % 2 == 0 { 255 } else { 0 }; 3]));
        let left = covered(&Mask { blocks: Some(4), ..Mask::default() }, "any", &picture).unwrap();
        assert_eq!(left.dimensions(), (64, 32));
        let colours: std::collections::BTreeSet<_> = left.pixels().map(|pixel| pixel.0).collect();
        assert!(colours.len() <= 8 && colours.iter().all(|colour| (120..136).contains(&colour[0])), "{colours:?}");
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let mask = Mask { blocks: Some(4), ..Mask::default() };
        assert!(matches!(mask.cover("any", &[0xff, 0xd8, 0xff], Media::Jpg), Err(Refusal::Image(_))));
    }
}
