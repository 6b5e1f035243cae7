//! Bytes of a segment: frames, each with its length and CRC-32C, in batches that end with a commit. What was not committed was
//! never there. Pure.

/// Length and checksum.
const HEAD: usize = 8;

/// A frame: what is written at once, and read again or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: u8,
    pub body: &'a [u8],
    /// Where it begins in the segment.
    pub offset: usize,
}

/// Appends a frame; its body is what `parts` are together.
pub fn append(bytes: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let start = bytes.len();
    let length: usize = parts.iter().map(|part| part.len()).sum();
    // A segment is 16 MiB at most, and a frame is less.
    bytes.extend((length as u32 + 1).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.push(kind);
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    let checksum = checksum(&bytes[start + HEAD..]);
    bytes[start + 4..start + HEAD].copy_from_slice(&checksum.to_le_bytes());
}

/// How many bytes a frame of such a body takes.
pub fn length(body: usize) -> usize {
    HEAD + 1 + body
}

/// The frame at an offset; `None` where there is none that is whole.
pub fn frame(bytes: &[u8], offset: usize) -> Option<Frame<'_>> {
    let (head, rest) = bytes.get(offset..)?.split_at_checked(HEAD)?;
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let content = rest.get(..number(0) as usize)?;
    let (&kind, body) = content.split_first()?;
    (checksum(content) == number(4)).then_some(Frame { kind, body, offset })
}

/// What was written at once: frames, and the commit that ends them.
type Batch<'a> = (Vec<Frame<'a>>, &'a [u8]);

/// The batches that are whole, each without its commit but with that one's body; and where they end.
pub fn batches(bytes: &[u8], commit: u8) -> (Vec<Batch<'_>>, usize) {
    let (mut batches, mut batch, mut end, mut offset) = (Vec::new(), Vec::new(), 0, 0);
    while let Some(frame) = frame(bytes, offset) {
        offset += length(frame.body.len());
        if frame.kind == commit {
            batches.push((std::mem::take(&mut batch), frame.body));
            end = offset;
        } else {
            batch.push(frame);
        }
    }
    (batches, end)
}

fn checksum(content: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, content) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COMMIT: u8 = 9;

    fn written(batches: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for batch in batches {
            batch.iter().for_each(|body| append(&mut bytes, 1, &[body]));
            append(&mut bytes, COMMIT, &[]);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let (batches, _) = batches(bytes, COMMIT);
        batches.into_iter().map(|(batch, _)| batch.into_iter().map(|frame| frame.body.to_vec()).collect()).collect()
    }

    #[test]
    fn the_checksum_is_crc_32c() {
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn what_is_cut_or_broken_ends_with_a_whole_batch(
            written_batches in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4), 0..5),
            cut in any::<prop::sample::Index>(),
            flipped in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = written(&written_batches);
            prop_assert_eq!(read(&bytes), written_batches.clone());
            let keep = cut.index(bytes.len() + 1);
            // As on a disk: the rest was allocated, and is zero.
            bytes[keep..].fill(0);
            if let Some(flipped) = flipped.filter(|_| keep > 0) {
                bytes[flipped.index(keep)] ^= 0x40;
            }
            let read = read(&bytes);
            prop_assert!(written_batches.starts_with(&read), "{:?}", read);
        }
    }
}
