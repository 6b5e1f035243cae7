//! Bodies: read whole, within a size and a time, and compressed either way.

use super::trouble::Trouble;
use crate::server::Limits;
use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use std::io::{Read, Write as _};

/// Shorter answers are not worth it.
const COMPRESSED_FROM_BYTES: usize = 1024;

/// The whole body, uncompressed.
///
/// # Errors
/// [`Trouble`] if it is too large, too slow, or not compressed as its headers say.
pub(super) async fn read(headers: &HeaderMap, body: Body, limits: &Limits) -> Result<Bytes, Trouble> {
    let limit = limits.max_message_bytes;
    // What says so itself is not read at all.
    if body.size_hint().lower() > limit as u64 {
        return Err(Trouble::TooLarge { limit });
    }
    let body = tokio::time::timeout(limits.body_timeout, Limited::new(body, limit).collect()).await;
    let body = body.map_err(|_| Trouble::Slow { limit: limits.body_timeout })?;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => Trouble::TooLarge { limit },
        false => Trouble::BrokenOff { why: error.to_string() },
    })?;
    let body = body.to_bytes();
    let encoding =
        headers.get(CONTENT_ENCODING).map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
    match encoding.as_deref().unwrap_or("identity") {
        "identity" => Ok(body),
        "gzip" => inflated("gzip", GzDecoder::new(&body[..]), limit),
        // What HTTP calls deflate is zlib.
        "deflate" => inflated("deflate", ZlibDecoder::new(&body[..]), limit),
        other => Err(Trouble::Encoding { got: other.to_owned() }),
    }
}

fn inflated(encoding: &'static str, decoder: impl Read, limit: usize) -> Result<Bytes, Trouble> {
    let mut bytes = Vec::new();
    let read = decoder.take(limit as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Trouble::Compressed { encoding, why: error.to_string() })?;
    if bytes.len() > limit { Err(Trouble::TooLarge { limit }) } else { Ok(bytes.into()) }
}

/// The body as the client likes it, and its `Content-Encoding`.
pub(super) fn compressed(headers: &HeaderMap, body: Vec<u8>) -> (Vec<u8>, Option<&'static str>) {
    if body.len() < COMPRESSED_FROM_BYTES {
        return (body, None);
    }
    let level = Compression::fast();
    let smaller = match liked(headers) {
        Some("gzip") => {
            let mut to = GzEncoder::new(Vec::new(), level);
            to.write_all(&body).and_then(|()| to.finish()).map(|bytes| (bytes, Some("gzip")))
        }
        Some(_) => {
            let mut to = ZlibEncoder::new(Vec::new(), level);
            to.write_all(&body).and_then(|()| to.finish()).map(|bytes| (bytes, Some("deflate")))
        }
        None => return (body, None),
    };
    // Writing to memory does not fail.
    smaller.unwrap_or((body, None))
}

/// The first of our encodings in `Accept-Encoding` that is not refused there.
fn liked(headers: &HeaderMap) -> Option<&'static str> {
    let accepted = headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).find_map(|choice| {
        let (name, quality) = choice.split_once(';').unwrap_or((choice, ""));
        let quality = quality.trim().strip_prefix("q=").and_then(|quality| quality.parse::<f32>().ok());
        let ours = ["gzip", "deflate"].into_iter().find(|ours| name.trim().eq_ignore_ascii_case(ours))?;
        (quality != Some(0.0)).then_some(ours)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_encoding_that_both_like_is_taken() {
        let check = |value: &'static str, expected: Option<&str>| {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, http::HeaderValue::from_static(value))]);
            assert_eq!(liked(&headers), expected, "{value}");
        };
        check("gzip, deflate", Some("gzip"));
        check("br, Deflate;q=0.5", Some("deflate"));
        check("gzip;q=0, deflate", Some("deflate"));
        check("identity", None);
        check("", None);
    }
}
