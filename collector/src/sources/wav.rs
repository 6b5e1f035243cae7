//! A WAV file without end, cut into parts that are WAV files. Pure.

use crate::door::LARGEST;

/// More than any head: what has no sound until then is no stream of it.
const LONGEST_HEAD: usize = 64 << 10;
/// Before the sound, as we write it.
const HEAD: usize = 44;
/// Codes of formats: whole numbers; floating-point ones; and one whose extension says which.
const FORMATS: [u16; 3] = [1, 3, 0xfffe];

#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
pub enum BadWav {
    #[error("it is no WAV: {0}; have it sent as PCM in WAV, such as by ffmpeg's -f wav")]
    Head(&'static str),
    #[error(
        "{bytes} bytes of sound are more than a sample may have: take less at a time, or of fewer channels and hertz"
    )]
    Large { bytes: u64 },
}

/// What is taken of it: a part each time.
#[derive(Debug)]
pub struct Parts {
    window_seconds: u64,
    every_seconds: u64,
    /// Not used yet: the head, or the beginning of a part.
    bytes: Vec<u8>,
    format: Option<Format>,
    /// That are not wanted.
    skip: u64,
    /// Of sound, still to come.
    left: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Format {
    /// The chunk `fmt `, as it came.
    chunk: Vec<u8>,
    part: u64,
    /// From the end of a part to the next.
    between: u64,
}

impl Parts {
    pub fn new(window_seconds: u64, every_seconds: u64) -> Self {
        Self { window_seconds, every_seconds, bytes: Vec::new(), format: None, skip: 0, left: u64::MAX }
    }

    /// Takes what has come; returns the parts that are whole.
    ///
    /// # Errors
    /// [`BadWav`]: it is no sound that can be cut.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<Vec<u8>>, BadWav> {
        if self.format.is_none() {
            self.bytes.extend_from_slice(chunk);
            let Some((format, sound, left)) = self.head()? else { return Ok(Vec::new()) };
            (self.format, self.left) = (Some(format), left);
            let sound = self.bytes.split_off(sound);
            self.bytes.clear();
            return Ok(self.sound(&sound));
        }
        Ok(self.sound(chunk))
    }

    /// Whether all the sound that was announced has come.
    pub fn are_over(&self) -> bool {
        self.format.is_some() && self.left == 0
    }

    fn sound(&mut self, mut sound: &[u8]) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        let Some(format) = self.format.clone() else { return parts };
        // What comes after the sound is something else.
        sound = &sound[..sound.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))];
        self.left -= sound.len() as u64;
        while !sound.is_empty() {
            let skipped = sound.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.skip -= skipped as u64;
            sound = &sound[skipped..];
            let (taken, rest) = sound.split_at(sound.len().min(format.part as usize - self.bytes.len()));
            self.bytes.extend_from_slice(taken);
            sound = rest;
            if self.bytes.len() as u64 == format.part {
                parts.push(file(&format.chunk, &self.bytes));
                self.bytes.clear();
                self.skip = format.between;
            }
        }
        parts
    }

    /// The format, where the sound begins, and how many bytes of it there are; `None` until all of the head is here.
    fn head(&self) -> Result<Option<(Format, usize, u64)>, BadWav> {
        let bytes = &self.bytes;
        let is_like = |at: usize, word: &[u8]| bytes.iter().skip(at).zip(word).all(|(byte, other)| byte == other);
        if !is_like(0, b"RIFF") || !is_like(8, b"WAVE") {
            return Err(BadWav::Head("it does not begin with RIFF and WAVE"));
        }
        let (mut at, mut format) = (12, None);
        while let Some(chunk) = bytes.get(at..at + 8) {
            let length = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]);
            let begin = at + 8;
            if &chunk[..4] == b"data" {
                let format = format.ok_or(BadWav::Head("its sound comes before its format"))?;
                // Who sends without end cannot say how much: 0, or as much as there can be.
                let endless = matches!(length, 0 | 0x7fff_0000..);
                return Ok(Some((format, begin, if endless { u64::MAX } else { u64::from(length) })));
            }
            let end = begin + length as usize + (length % 2) as usize;
            if end > LONGEST_HEAD {
                return Err(BadWav::Head("there is no sound in its first 64 KiB"));
            }
            if &chunk[..4] == b"fmt " {
                let Some(chunk) = bytes.get(begin..begin + length as usize) else { return Ok(None) };
                format = Some(self.format(chunk)?);
            }
            at = end;
        }
        Ok(None)
    }

    fn format(&self, chunk: &[u8]) -> Result<Format, BadWav> {
        let word = |at: usize| chunk.get(at..at + 2).map(|word| u16::from_le_bytes([word[0], word[1]]));
        let [Some(code), Some(channels), Some(low), Some(high), Some(block), Some(bits)] =
            [0, 2, 4, 6, 12, 14].map(word)
        else {
            return Err(BadWav::Head("its format is cut off"));
        };
        if !FORMATS.contains(&code) {
            return Err(BadWav::Head("its sound is compressed"));
        }
        let rate = u64::from(low) | u64::from(high) << 16;
        if rate == 0 || block == 0 || u32::from(block) != u32::from(channels) * u32::from(bits.div_ceil(8)) {
            return Err(BadWav::Head("its format contradicts itself"));
        }
        let second = rate * u64::from(block);
        let part = second.saturating_mul(self.window_seconds);
        if part == 0 || part > (LARGEST - HEAD - chunk.len()) as u64 {
            return Err(BadWav::Large { bytes: part });
        }
        let between = second.saturating_mul(self.every_seconds.saturating_sub(self.window_seconds));
        Ok(Format { chunk: chunk.to_vec(), part, between })
    }
}

/// A WAV file of a format and a sound.
fn file(format: &[u8], sound: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| (bytes as u32).to_le_bytes();
    let format_padding = vec![0; format.len() % 2];
    let padding = vec![0; sound.len() % 2];
    let all = 4 + 8 + format.len() + format_padding.len() + 8 + sound.len() + padding.len();
    let head = [b"RIFF".as_slice(), &length(all), b"WAVEfmt ", &length(format.len()), format, &format_padding].concat();
    [&head, b"data".as_slice(), &length(sound.len()), sound, &padding].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PCM of 8 bits and 10 hertz in one channel: a second is ten bytes.
    fn format(channels: u16) -> Vec<u8> {
        let words = [1_u16, channels, 10, 0, 10 * channels, 0, channels, 8];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn stream(format: &[u8], length: u32, sound: &[u8]) -> Vec<u8> {
        let list = [b"LIST".as_slice(), &3_u32.to_le_bytes(), b"abc\0"].concat();
        let head =
            [b"RIFF\xff\xff\xff\xffWAVE".as_slice(), &list, b"fmt ", &(format.len() as u32).to_le_bytes(), format];
        [&head.concat(), b"data".as_slice(), &length.to_le_bytes(), sound].concat()
    }

    #[test]
    fn parts_are_whole_files_however_the_stream_comes() {
        let sound: Vec<u8> = (0..105).collect();
        let stream = stream(&format(1), u32::MAX, &sound);
        for size in 1..stream.len() {
            let mut parts = Parts::new(2, 5);
            let found: Vec<Vec<u8>> = stream.chunks(size).flat_map(|chunk| parts.push(chunk).unwrap()).collect();
            assert_eq!(found.len(), 2, "of 0 and 5 seconds; that of 10 is not whole");
            assert_eq!((&found[0][HEAD..], &found[1][HEAD..]), (&sound[..20], &sound[50..70]), "in pieces of {size}");
            assert_eq!(crate::sample::Media::of(&found[1]), Some(crate::sample::Media::Wav));
            // Cut again it is the same.
            assert_eq!(Parts::new(2, 2).push(&found[1]).unwrap(), [found[1].clone()]);
        }
    }

    #[test]
    fn what_comes_after_the_sound_is_none() {
        let stream = stream(&format(1), 15, &[7; 40]);
        assert_eq!(Parts::new(1, 1).push(&stream).unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_cut_is_refused_in_words() {
        let check = |stream: &[u8], expected: &str| {
            let error = Parts::new(30, 30).push(stream).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(b"ID3", "does not begin with RIFF");
        check(b"RIFF\0\0\0\0AVI ", "does not begin with RIFF");
        check(&stream(&format(1)[..10], 0, &[]), "cut off");
        let mut changed = format(1);
        changed[0] = 0x55;
        check(&stream(&changed, 0, &[]), "compressed");
        let mut changed = format(1);
        changed[12] = 4;
        check(&stream(&changed, 0, &[]), "contradicts itself");
        let mut changed = format(2);
        changed[4..8].copy_from_slice(&192_000_u32.to_le_bytes());
        check(&stream(&changed, 0, &[]), "11520000 bytes of sound are more");
        check(&[b"RIFF\0\0\0\0WAVEjunk".as_slice(), &u32::MAX.to_le_bytes()].concat(), "no sound in its first");
        check(&[b"RIFF\0\0\0\0WAVEdata".as_slice(), &0_u32.to_le_bytes()].concat(), "before its format");
        assert_eq!(Parts::new(1, 1).push(b"RIFF\0\0\0\0WA"), Ok(Vec::new()), "more may come");
    }
}
