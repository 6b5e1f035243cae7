//! What a browser can show of a sample. Pure.

use image::{GrayImage, ImageFormat, RgbImage};
use sconce_lake::npy;
use std::io::Cursor;

/// Of a side; a larger tensor is no picture that anybody labels.
const LARGEST_SIDE: usize = 2048;

#[derive(Debug, PartialEq, Eq)]
pub enum Shown {
    Itself,
    /// As a PNG, from the smallest number (black) to the largest (white).
    Drawn(Vec<u8>),
    Nothing,
}

pub fn of(media: &str, content: &[u8]) -> Shown {
    match media {
        "jpg" | "png" => Shown::Itself,
        "npy" => drawn(content).map_or(Shown::Nothing, Shown::Drawn),
        _ => Shown::Nothing,
    }
}

/// Of a tensor `(1 or 3, height, width)`, with any ones before that.
fn drawn(content: &[u8]) -> Option<Vec<u8>> {
    let tensor = npy::read(content).ok()?;
    let [before @ .., channels, height, width] = &tensor.shape[..] else { return None };
    let sides = [height, width];
    if before.iter().any(|side| *side != 1) || sides.iter().any(|side| !(1..=LARGEST_SIDE).contains(*side)) {
        return None;
    }
    let least = tensor.values.iter().copied().fold(f32::INFINITY, f32::min);
    let most = tensor.values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let bytes: Vec<u8> = tensor.values.iter().map(|x| ((x - least) / (most - least).max(1e-9) * 255.0) as u8).collect();
    let (wide, high, plane) = (u32::try_from(*width).ok()?, u32::try_from(*height).ok()?, height * width);
    let mut png = Cursor::new(Vec::new());
    match channels {
        1 => GrayImage::from_raw(wide, high, bytes)?.write_to(&mut png, ImageFormat::Png).ok()?,
        3 => {
            let pixels = (0..plane).flat_map(|at| [bytes[at], bytes[plane + at], bytes[2 * plane + at]]).collect();
            RgbImage::from_raw(wide, high, pixels)?.write_to(&mut png, ImageFormat::Png).ok()?;
        }
        _ => return None,
    }
    Some(png.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(shape: &str, values: &[f32]) -> Vec<u8> {
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
        let values: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &values].concat()
    }

    #[test]
    fn a_tensor_of_an_image_is_drawn_and_another_is_not() {
        let pixels = |content: &[u8]| match of("npy", content) {
            Shown::Drawn(png) => image::load_from_memory(&png).unwrap().into_rgb8().into_raw(),
            other => panic!("{other:?}"),
        };
        assert_eq!(pixels(&npy("1, 1, 1, 2,", &[-0.5, 2.0])), [0, 0, 0, 255, 255, 255]);
        assert_eq!(pixels(&npy("3, 1, 2,", &[0.0, 1.0, 1.0, 1.0, 0.0, 0.0])), [0, 255, 0, 255, 255, 0]);
        for (shape, values) in [("2,", &[0.0, 1.0][..]), ("2, 1, 1, 1,", &[0.0, 1.0]), ("2, 1, 1,", &[0.0, 1.0])] {
            assert_eq!(of("npy", &npy(shape, values)), Shown::Nothing, "{shape}");
        }
        assert_eq!(of("png", b"..."), Shown::Itself);
        assert_eq!(of("wav", b"RIFF"), Shown::Nothing);
    }
}
