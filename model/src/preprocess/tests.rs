use super::*;
use ::image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use ::image::imageops::{FilterType, resize};
use ::image::{ExtendedColorType, GrayImage, ImageEncoder as _, RgbImage};
use proptest::prelude::*;

const ENOUGH: u64 = 1 << 20;

fn read(steps: serde_json::Value) -> Preprocess {
    serde_json::from_value(serde_json::json!({"version": 1, "input": "image", "steps": steps})).unwrap()
}

fn grey(pixels: &[u8], height: usize, width: usize) -> Image {
    Image::grey(pixels, height, width).unwrap()
}

fn png(pixels: &[u8], height: u32, width: u32, colour: ExtendedColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(pixels, width, height, colour).unwrap();
    bytes
}

fn jpeg(pixels: &[u8], height: u32, width: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90).write_image(pixels, width, height, ExtendedColorType::L8).unwrap();
    bytes
}

#[test]
fn steps_follow_each_other() {
    let preprocess = read(
        serde_json::json!([{"centerCrop": {"size": [1, 2]}}, {"scale": {"by": 0.5}}, {"normalize": {"mean": [1.0], "std": [2.0]}}]),
    );
    let pixels = [0, 0, 0, 0, 2, 4, 6, 8, 0, 0, 0, 0];
    assert_eq!(preprocess.apply(grey(&pixels, 3, 4)).unwrap(), [0.5, 1.0]);
    let images = Images { count: 2, height: 3, width: 4, pixels: [pixels, pixels].concat() };
    assert_eq!(preprocess.apply_all(&images).unwrap(), [0.5, 1.0, 0.5, 1.0]);
}

#[test]
fn channels_come_to_lie_one_after_the_other() {
    let preprocess =
        read(serde_json::json!([{"decode": {"channels": 3}}, {"normalize": {"mean": [0, 0, 1], "std": [1, 2, 1]}}]));
    let encoded = png(&[1, 2, 3, 4, 6, 8], 1, 2, ExtendedColorType::Rgb8);
    assert_eq!(preprocess.encoded(&encoded, &[3, 1, 2], ENOUGH).unwrap(), [1.0, 4.0, 1.0, 3.0, 2.0, 7.0]);
}

#[test]
fn colours_become_grey_and_what_shines_through_black() {
    let red = png(&[255, 0, 0, 255, 255, 255, 255, 51], 1, 2, ExtendedColorType::Rgba8);
    assert_eq!(Image::decode(&red, 1, ENOUGH).unwrap().pixels, [76, 51]);
    let deep = png(&[0x80, 0x80, 0xff, 0xff], 1, 2, ExtendedColorType::L16);
    assert_eq!(Image::decode(&deep, 3, ENOUGH).unwrap().pixels, [128, 128, 128, 255, 255, 255]);
}

#[test]
fn an_image_is_turned_as_its_exif_says() {
    let plain = jpeg(&[[0; 8], [255; 8]].concat().repeat(4), 8, 8);
    // APP1 with one entry: orientation 6, to be turned by 90 degrees.
    let exif = b"\xff\xe1\x00\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let turned = [&plain[..2], exif, &plain[2..]].concat();
    let (plain, turned) = (Image::decode(&plain, 1, ENOUGH).unwrap(), Image::decode(&turned, 1, ENOUGH).unwrap());
    let at = |image: &Image, row: usize, column: usize| image.pixels[row * 8 + column];
    for (row, column) in [(0, 0), (0, 7), (3, 5), (7, 1)] {
        assert_eq!(at(&turned, row, column), at(&plain, 7 - column, row), "{row}, {column}");
    }
}

#[test]
fn each_fit_keeps_what_it_says() {
    let halves = grey(&[0, 0, 0, 0, 200, 200, 200, 200], 2, 4).resize([2, 2], Fit::Stretch, Filter::Bilinear);
    assert_eq!(halves.pixels, [0, 0, 200, 200]);
    let wide = grey(&[9, 100, 100, 9].repeat(2), 2, 4);
    assert_eq!(wide.resize([2, 2], Fit::Cover, Filter::Bilinear).pixels, [100; 4]);
    let even = grey(&[100; 8], 2, 4);
    let boxed = even.resize([4, 4], Fit::Contain, Filter::Bilinear);
    assert_eq!(boxed.pixels, [[0; 4], [100; 4], [100; 4], [0; 4]].concat());
}

/// A PNG of zeros is small, whatever it becomes: 4096×4096 of 16 bits took 192 MiB where 48 were reckoned with.
#[test]
fn pixels_of_16_bits_count_as_more() {
    let check = |bytes: usize, colour, counts: u64, most: u64| {
        let encoded = png(&vec![0; 100 * bytes], 10, 10, colour);
        let memory = counts * Image::BYTES_PER_PIXEL + Image::BYTES_BESIDE;
        assert_eq!(Image::memory(&encoded, counts), Ok(memory));
        assert_eq!(Image::decode(&encoded, 3, counts).unwrap().pixels, [0; 300]);
        let refused = PreprocessError::Pixels { width: 10, height: 10, max: most };
        assert_eq!(Image::decode(&encoded, 3, counts - 1), Err(refused));
    };
    check(1, ExtendedColorType::L8, 100, 99);
    check(3, ExtendedColorType::Rgb8, 100, 99);
    check(4, ExtendedColorType::Rgba8, 100, 99);
    check(2, ExtendedColorType::L16, 100, 99);
    check(6, ExtendedColorType::Rgb16, 150, 99);
    check(8, ExtendedColorType::Rgba16, 200, 99);
    let long = png(&[0; 65_536], 1, 65_536, ExtendedColorType::L8);
    let told = Image::decode(&long, 1, ENOUGH).unwrap_err().to_string();
    assert_eq!(told, "it has 1\u{d7}65536 pixels, sides of at most 65535 are taken; send a smaller one");
}

#[test]
fn what_does_not_fit_is_said() {
    let check = |steps, expected: &str| {
        assert_eq!(read(steps).apply(grey(&[0; 4], 2, 2)).unwrap_err().to_string(), expected);
    };
    check(
        serde_json::json!([{"centerCrop": {"size": [3, 2]}}]),
        "steps[0] centerCrop: [3, 2] does not fit [2, 2]; use a smaller size",
    );
    check(
        serde_json::json!([{"normalize": {"mean": [0.0], "std": [0.0]}}]),
        "steps[0] normalize: need finite numbers, std above 0",
    );
    check(
        serde_json::json!([{"normalize": {"mean": [0.0, 0.0], "std": [1.0]}}]),
        "steps[0] normalize: need one mean and one std for each channel",
    );
    check(
        serde_json::json!([{"scale": {"by": 2}}, {"centerCrop": {"size": [1, 1]}}]),
        "steps[1] size: resize and centerCrop come before scale and normalize",
    );
    check(serde_json::json!([{"resize": {"size": [9999, 1]}}]), "steps[0] size: need sides of 1 to 4096");
    check(serde_json::json!([{"scale": {"by": 1}}, {"decode": {"channels": 3}}]), "steps[1] decode: comes first");
    check(serde_json::json!([{"decode": {"channels": 3}}]), "it has 1 channels, the steps are for 3");
    assert_eq!(Image::grey(&[0; 3], 2, 2).unwrap_err().to_string(), "3 bytes for an image of 2\u{d7}2; need 4");
}

#[test]
fn what_is_no_image_is_said() {
    let check = |encoded: &[u8], max_pixels, expected: &str| {
        let error = read(serde_json::json!([])).encoded(encoded, &[1, 2, 2], max_pixels).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    };
    check(b"GIF89a", ENOUGH, "it is no PNG or JPEG that can be read: 6 bytes that begin with [47, 49, 46, 38]");
    check(b"", ENOUGH, "it is no PNG or JPEG that can be read: 0 bytes");
    let whole = png(&[0; 6], 2, 3, ExtendedColorType::L8);
    check(&whole[..40], ENOUGH, "it is no PNG or JPEG that can be read: ");
    let scanned = jpeg(&[7; 64 * 64], 64, 64);
    check(&scanned[..scanned.len() - 9], ENOUGH, "it is no PNG or JPEG that can be read: the JPEG is cut off");
    let beside = "a row of it, or what comes with it such as a colour profile, takes more than 2 MiB; scale it down, or leave that out";
    check(&png(&vec![0; 4 << 20], 1, 4 << 20, ExtendedColorType::L8), ENOUGH, beside);
    check(&whole, 5, "it has 2\u{d7}3 pixels, at most 5 are taken; send a smaller one");
    check(&whole, ENOUGH, "an image of [2, 3] becomes [1, 2, 3], the input is [1, 2, 2]; send one of that size");
}

proptest! {
    /// Models were trained on what `image` makes.
    #[test]
    fn an_image_is_resized_to_the_bit_as_the_crate_of_decoders_does_it(
        from in (1..40_usize, 1..40_usize), to in (1..40_usize, 1..40_usize), colours: bool, seed in 1..1000_usize,
    ) {
        let channels = if colours { 3 } else { 1 };
        let pixels: Vec<u8> = (0..from.0 * from.1 * channels).map(|at| (at * seed * 31 % 251 + at % 5) as u8).collect();
        let image = Image { height: from.0, width: from.1, channels, pixels: pixels.clone() };
        let ours = image.resize([to.0, to.1], Fit::Stretch, Filter::Bilinear);
        let (filter, size) = (FilterType::Triangle, (to.1 as u32, to.0 as u32));
        let theirs = if colours {
            resize(&RgbImage::from_raw(from.1 as u32, from.0 as u32, pixels).unwrap(), size.0, size.1, filter).into_raw()
        } else {
            resize(&GrayImage::from_raw(from.1 as u32, from.0 as u32, pixels).unwrap(), size.0, size.1, filter).into_raw()
        };
        prop_assert_eq!((ours.height, ours.width, ours.pixels), (to.0, to.1, theirs));
    }

    /// What training saw as pixels is what the runtime makes of a PNG of them, to the bit.
    #[test]
    fn a_png_is_its_pixels(pixels in prop::collection::vec(any::<u8>(), 30 * 20)) {
        let steps = serde_json::json!([
            {"resize": {"size": [24, 24]}}, {"centerCrop": {"size": [20, 16]}}, {"scale": {"by": 0.003921569}},
            {"normalize": {"mean": [0.1307], "std": [0.3081]}}
        ]);
        let bits = |xs: Vec<f32>| xs.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let trained = read(steps.clone()).apply(grey(&pixels, 30, 20)).unwrap();
        let served = read(steps).encoded(&png(&pixels, 30, 20, ExtendedColorType::L8), &[1, 20, 16], ENOUGH).unwrap();
        prop_assert_eq!(bits(trained), bits(served));
    }

    /// Broken images are refused, or decoded within the limit: nothing else.
    #[test]
    fn spoilt_images_are_refused_or_small(
        of_jpeg: bool, spoils in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut in any::<prop::sample::Index>(),
    ) {
        let pixels: Vec<u8> = (0..24 * 24).map(|index| (index * 7 % 256) as u8).collect();
        let mut bytes = if of_jpeg { jpeg(&pixels, 24, 24) } else { png(&pixels, 24, 24, ExtendedColorType::L8) };
        for (index, value) in spoils {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() * 2).max(8));
        if let Ok(image) = Image::decode(&bytes, 3, 4096) {
            prop_assert!(image.height * image.width <= 4096 && image.pixels.len() == image.height * image.width * 3);
        }
    }
}
