//! Reads the model's name off a request without decoding its tensors: field 1 of every message that names a model.

use thiserror::Error;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum PeekError {
    #[error("compressed requests are not routed; send them uncompressed")]
    Compressed,
    #[error("the request is no gRPC message")]
    Frame,
}

/// `frame` is a gRPC frame: a flag, four bytes of length, the message. A message without a name has the empty one.
///
/// # Errors
/// [`PeekError`] if it is no such frame.
pub fn model_name(frame: &[u8]) -> Result<&str, PeekError> {
    let (header, mut message) = frame.split_at_checked(5).ok_or(PeekError::Frame)?;
    if header[0] != 0 {
        return Err(PeekError::Compressed);
    }
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    message = message.get(..length).ok_or(PeekError::Frame)?;
    let mut name = "";
    while !message.is_empty() {
        let key = varint(&mut message).ok_or(PeekError::Frame)?;
        let length = match key & 7 {
            0 => varint(&mut message).map(|_| 0),
            1 => Some(8),
            2 => varint(&mut message).and_then(|length| usize::try_from(length).ok()),
            5 => Some(4),
            _ => None,
        };
        let (value, rest) = length.and_then(|length| message.split_at_checked(length)).ok_or(PeekError::Frame)?;
        message = rest;
        if key == (1 << 3 | 2) {
            name = std::str::from_utf8(value).map_err(|_| PeekError::Frame)?;
            // Clients write fields in their order: behind the name come only tensors.
            return Ok(name);
        }
    }
    Ok(name)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ModelInferRequest, ModelReadyRequest};

    fn frame(message: &impl prost::Message) -> Vec<u8> {
        let body = message.encode_to_vec();
        [&[0][..], &(body.len() as u32).to_be_bytes(), &body].concat()
    }

    #[test]
    fn the_name_is_found_and_nonsense_is_refused() {
        let request = ModelInferRequest {
            model_name: "digits.vision".into(),
            id: "7".into(),
            raw_input_contents: vec![vec![1; 300].into()],
            ..Default::default()
        };
        assert_eq!(model_name(&frame(&request)), Ok("digits.vision"));
        assert_eq!(model_name(&frame(&ModelReadyRequest { name: "a.b".into(), ..Default::default() })), Ok("a.b"));
        assert_eq!(model_name(&frame(&ModelInferRequest { id: "7".into(), ..Default::default() })), Ok(""));
        assert_eq!(model_name(&[1, 0, 0, 0, 0]), Err(PeekError::Compressed));
        for nonsense in [&[][..], &[0, 0, 0, 0, 9, 1], &[0, 0, 0, 0, 2, 0x0a, 0x7f], &[0, 0, 0, 0, 1, 0xff]] {
            assert_eq!(model_name(nonsense), Err(PeekError::Frame), "{nonsense:?}");
        }
    }
}
