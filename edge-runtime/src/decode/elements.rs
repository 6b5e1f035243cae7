//! Elements of `BYTES`.

use super::DecodeError;
use crate::request::Contents;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf as _, Bytes};

/// What strings of JSON are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strings {
    /// The elements, as they stand.
    Text,
    /// What is no text, and can be written in JSON in no other way.
    Base64,
}

impl Strings {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "strings",
            Self::Base64 => "base64",
        }
    }

    fn read(self, text: String) -> Result<Bytes, String> {
        match self {
            Self::Text => Ok(text.into()),
            Self::Base64 => match BASE64_STANDARD.decode(text) {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) => Err(format!("strings that are no base64 ({error})")),
            },
        }
    }
}

/// As many as `shape` needs.
///
/// # Errors
/// [`DecodeError`] says what was expected.
pub fn elements(
    name: &'static str,
    (shape, need): (&[i64], usize),
    contents: Contents,
    strings: Strings,
) -> Result<Vec<Bytes>, DecodeError> {
    let no = |got| DecodeError::NoBytes { name, got, strings: strings.name() };
    let counted = |elements: Vec<Bytes>| (elements.len(), elements);
    let (got, elements) = match contents {
        Contents::Raw(bytes) => {
            let whole = bytes.len();
            parted(bytes, need).ok_or(DecodeError::Lengths { name, bytes: whole })?
        }
        Contents::Elements(elements) => counted(elements),
        Contents::Strings(texts) => {
            counted(texts.into_iter().map(|text| strings.read(text)).collect::<Result<_, _>>().map_err(no)?)
        }
        Contents::Numbers(values) if values.is_empty() => counted(Vec::new()),
        Contents::Doubles(values) if values.is_empty() => counted(Vec::new()),
        Contents::Numbers(_) | Contents::Integers(_) | Contents::Doubles(_) => return Err(no("numbers".into())),
        Contents::Other(field) => return Err(no(field.into())),
    };
    if got == need { Ok(elements) } else { Err(DecodeError::Count { name, got, shape: shape.into(), need }) }
}

/// Raw contents: before each element its length, 32 bits, little-endian. How many there are, and the first of them, at most `most`:
/// a small request may hold many empty ones. `None` if the lengths do not add up.
fn parted(mut raw: Bytes, most: usize) -> Option<(usize, Vec<Bytes>)> {
    let (mut count, mut elements) = (0, Vec::new());
    while !raw.is_empty() {
        let length = raw.try_get_u32_le().ok()? as usize;
        if length > raw.len() {
            return None;
        }
        let element = raw.split_to(length);
        if count < most {
            elements.push(element);
        }
        count += 1;
    }
    Some((count, elements))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strings_of_json_are_texts_or_base64() {
        let read = |text: &str, strings| elements("x", (&[1], 1), Contents::Strings(vec![text.into()]), strings);
        assert_eq!(read("aGk=", Strings::Text).unwrap(), ["aGk="]);
        assert_eq!(read("aGk=", Strings::Base64).unwrap(), ["hi"]);
        assert_eq!(
            read("?", Strings::Base64).unwrap_err().to_string(),
            "input \"x\" has strings that are no base64 (Invalid symbol 63, offset 0.) as elements; BYTES are sent raw, as \
             bytes_contents, or in JSON as base64"
        );
    }

    proptest! {
        #[test]
        fn raw_elements_are_read_as_they_were_written(texts in prop::collection::vec(any::<Vec<u8>>(), 0..5)) {
            let texts: Vec<Bytes> = texts.into_iter().map(Bytes::from).collect();
            let raw = crate::wire::raw_bytes(&texts);
            prop_assert_eq!(parted(raw.clone(), 3).unwrap(), (texts.len(), texts[..texts.len().min(3)].to_vec()));
            prop_assert_eq!(parted(raw, texts.len()).unwrap(), (texts.len(), texts));
        }

        #[test]
        fn any_raw_bytes_are_refused_or_parted(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            let whole = raw.len();
            if let Some((_, parts)) = parted(raw.into(), usize::MAX) {
                prop_assert_eq!(parts.iter().map(|part| part.len() + 4).sum::<usize>(), whole);
            }
        }
    }
}
