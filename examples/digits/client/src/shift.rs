//! What a camera sees once its site's world has shifted: all is brighter and noisier, and strokes are thicker. Pure: who labels the
//! pictures can tell what was asked.

use sconce_model::network::{generator, unit};

/// Added to each pixel of 0 to 255; and by chance up to so much, more or less.
const BRIGHTER: f32 = 80.0;
const NOISE: f32 = 30.0;

/// The image of this number, grey and row by row, as it looks then.
pub fn shifted(pixels: &[u8], width: usize, number: usize) -> Vec<u8> {
    let mut generator = generator(number as u64, "shift");
    let look = |at| {
        let noise = NOISE * (2.0 * unit(&mut generator) - 1.0);
        // What is beyond black or white is cut off.
        (f32::from(thicker(pixels, width, at)) + BRIGHTER + noise) as u8
    };
    (0..pixels.len()).map(look).collect()
}

/// The brightest of a pixel and the four beside it.
fn thicker(pixels: &[u8], width: usize, at: usize) -> u8 {
    let column = at % width;
    let (left, right) = ((column > 0).then(|| at - 1), (column + 1 < width).then_some(at + 1));
    let near = [Some(at), left, right, at.checked_sub(width), Some(at + width)];
    near.into_iter().flatten().filter_map(|at| pixels.get(at).copied()).max().unwrap_or_default()
}
