//! IDX, the format of MNIST: big-endian magic, sizes, then bytes.

use thiserror::Error;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum IdxError {
    #[error("not an IDX file of {what}: it begins with {got:02x?}, need {need:02x?}; is it still compressed?")]
    Magic { what: &'static str, got: Vec<u8>, need: [u8; 4] },
    #[error("cut off: its header promises {need} bytes, it has {got}; download or copy it again")]
    CutOff { need: u64, got: u64 },
    #[error("{got} bytes beyond the {need} that its header promises; is it two files in one?")]
    Trailing { need: u64, got: u64 },
}

/// Grey images, all of one size, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    pub count: usize,
    pub height: usize,
    pub width: usize,
    pub pixels: Vec<u8>,
}

impl Images {
    pub fn image(&self, index: usize) -> &[u8] {
        let size = self.height * self.width;
        &self.pixels[index * size..(index + 1) * size]
    }
}

/// # Errors
/// [`IdxError`] if the bytes are no images, cut off, or too many.
pub fn read_images(bytes: &[u8]) -> Result<Images, IdxError> {
    let ([count, height, width], pixels) = read(bytes, "images", [0, 0, 8, 3])?;
    Ok(Images { count, height, width, pixels: pixels.to_vec() })
}

/// # Errors
/// [`IdxError`] if the bytes are no labels, cut off, or too many.
pub fn read_labels(bytes: &[u8]) -> Result<Vec<u8>, IdxError> {
    let ([_], labels) = read::<1>(bytes, "labels", [0, 0, 8, 1])?;
    Ok(labels.to_vec())
}

fn read<'a, const N: usize>(
    bytes: &'a [u8],
    what: &'static str,
    magic: [u8; 4],
) -> Result<([usize; N], &'a [u8]), IdxError> {
    if !bytes.starts_with(&magic) {
        return Err(IdxError::Magic { what, got: bytes[..bytes.len().min(4)].to_vec(), need: magic });
    }
    let header = 4 + 4 * N;
    let got = bytes.len() as u64;
    if bytes.len() < header {
        return Err(IdxError::CutOff { need: header as u64, got });
    }
    let mut sizes = [0; N];
    for (size, word) in sizes.iter_mut().zip(bytes[4..header].chunks_exact(4)) {
        *size = word.iter().fold(0, |size, byte| size << 8 | usize::from(*byte));
    }
    let data = sizes.iter().fold(1_u64, |product, &size| product.saturating_mul(size as u64));
    let need = data.saturating_add(header as u64);
    match got.cmp(&need) {
        std::cmp::Ordering::Less => Err(IdxError::CutOff { need, got }),
        std::cmp::Ordering::Greater => Err(IdxError::Trailing { need, got: got - need }),
        std::cmp::Ordering::Equal => Ok((sizes, &bytes[header..])),
    }
}

pub fn write_images(images: &Images) -> Vec<u8> {
    write([0, 0, 8, 3], &[images.count, images.height, images.width], &images.pixels)
}

pub fn write_labels(labels: &[u8]) -> Vec<u8> {
    write([0, 0, 8, 1], &[labels.len()], labels)
}

fn write(magic: [u8; 4], sizes: &[usize], data: &[u8]) -> Vec<u8> {
    let sizes = sizes.iter().flat_map(|&size| (size as u32).to_be_bytes());
    magic.into_iter().chain(sizes).chain(data.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let images = Images { count: 2, height: 2, width: 3, pixels: (0..12).collect() };
        assert_eq!(read_images(&write_images(&images)).unwrap(), images);
        assert_eq!(images.image(1), [6, 7, 8, 9, 10, 11]);
        assert_eq!(read_labels(&write_labels(&[3, 1])).unwrap(), [3, 1]);
    }

    #[test]
    fn other_and_broken_files_are_told_apart() {
        let good = write_labels(&[3, 1]);
        let check = |bytes: &[u8], expected: &str| assert_eq!(read_labels(bytes).unwrap_err().to_string(), expected);
        check(
            &[0x1f, 0x8b, 8, 0],
            "not an IDX file of labels: it begins with [1f, 8b, 08, 00], need [00, 00, 08, 01]; is it still compressed?",
        );
        check(&good[..9], "cut off: its header promises 10 bytes, it has 9; download or copy it again");
        check(&good[..6], "cut off: its header promises 8 bytes, it has 6; download or copy it again");
        check(&[&good[..], &[0]].concat(), "1 bytes beyond the 10 that its header promises; is it two files in one?");
        let huge = [&[0, 0, 8, 3][..], &[0xff; 12]].concat();
        assert!(matches!(read_images(&huge), Err(IdxError::CutOff { .. })));
    }
}
