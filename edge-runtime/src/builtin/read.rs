//! Inputs of the built-in models, checked: every byte, once.

use super::{Builtin, MAX_BATCH_SIZE, MAX_COLUMNS};
use crate::decode::{DecodeError, Strings, elements, once};
use crate::request::{Contents, Given};
use bytes::Bytes;

/// What an input's elements are read by: of the input so called, in this shape, so many.
type Reader<T> = fn(&'static str, &[i64], usize, Contents) -> Result<Vec<T>, DecodeError>;

impl Builtin {
    /// Exactly the inputs of these names, whatever their order; all are of the same shape.
    pub(super) fn read<T, const N: usize>(
        self,
        names: [&'static str; N],
        inputs: Vec<Given>,
        read: Reader<T>,
    ) -> Result<(Vec<i64>, [Vec<T>; N]), DecodeError> {
        once("input", inputs.iter().map(|input| input.name.as_str()))?;
        if let Some(other) = inputs.iter().find(|input| !names.contains(&input.name.as_str())) {
            return Err(DecodeError::Name { got: other.name.clone(), name: names.join("\" and \"") });
        }
        let mut inputs = inputs;
        let mut shape: Option<Vec<i64>> = None;
        let mut all = names.map(|_| Vec::new());
        for (name, values) in names.into_iter().zip(&mut all) {
            let Some(at) = inputs.iter().position(|input| input.name == name) else {
                return Err(DecodeError::Missing { name: name.into() });
            };
            let Given { datatype, shape: got, contents, .. } = inputs.swap_remove(at);
            if datatype != self.datatype() {
                return Err(DecodeError::Datatype { name: name.into(), got: datatype, need: self.datatype().into() });
            }
            let of_this = shape.clone().unwrap_or_else(|| self.shape().into());
            let Some(need) = count(&got, &of_this) else {
                return Err(DecodeError::Shape { name: name.into(), got, need: of_this, max: MAX_BATCH_SIZE });
            };
            if let Some(&columns) = got.last().filter(|columns| **columns > MAX_COLUMNS) {
                return Err(DecodeError::Columns { name, got: columns, max: MAX_COLUMNS });
            }
            *values = read(name, &got, need, contents)?;
            shape = Some(got);
        }
        Ok((shape.unwrap_or_default(), all))
    }
}

/// Elements of a tensor of this shape; `None` if it is not as `need` says, -1 being any size, and at most so many rows.
fn count(shape: &[i64], need: &[i64]) -> Option<usize> {
    let sizes: Vec<usize> = shape.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<_>>()?;
    let fits = shape.len() == need.len() && shape.iter().zip(need).all(|(size, need)| *need == -1 || size == need);
    let rows = *sizes.first()?;
    let elements = sizes.iter().try_fold(1_usize, |product, &size| product.checked_mul(size))?;
    (fits && (1..=MAX_BATCH_SIZE).contains(&rows)).then_some(elements)
}

/// Of `INT32`.
pub(super) fn integers(
    name: &'static str,
    shape: &[i64],
    need: usize,
    contents: Contents,
) -> Result<Vec<i32>, DecodeError> {
    let no = |got: &str| Err(DecodeError::NoInteger { name: name.into(), got: got.into() });
    let values: Vec<i32> = match contents {
        Contents::Raw(bytes) if bytes.len() != need * 4 => {
            let (name, got, shape) = (name.into(), bytes.len(), shape.into());
            return Err(DecodeError::Bytes { name, got, shape, datatype: "INT32", need: need * 4 });
        }
        Contents::Raw(bytes) => {
            bytes.chunks_exact(4).map(|word| i32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
        }
        Contents::Integers(values) => values,
        Contents::Doubles(values) => match values.iter().find(|value| f64::from(**value as i32) != **value) {
            Some(value) => return no(&value.to_string()),
            None => values.into_iter().map(|value| value as i32).collect(),
        },
        Contents::Numbers(values) if values.is_empty() => Vec::new(),
        Contents::Numbers(_) => return no("fp32_contents"),
        Contents::Elements(_) => return no("bytes_contents"),
        Contents::Strings(_) => return no("strings"),
        Contents::Other(field) => return no(field),
    };
    if values.len() != need {
        return Err(DecodeError::Elements { name: name.into(), got: values.len(), shape: shape.into(), need });
    }
    Ok(values)
}

/// Of `BYTES`.
pub(super) fn texts(
    name: &'static str,
    shape: &[i64],
    need: usize,
    contents: Contents,
) -> Result<Vec<Bytes>, DecodeError> {
    elements(name, (shape, need), contents, Strings::Text)
}

/// Whole numbers of 32 bits, each of them written as one of `BYTES`.
pub(super) fn decimals(
    name: &'static str,
    shape: &[i64],
    need: usize,
    contents: Contents,
) -> Result<Vec<i32>, DecodeError> {
    let read = |(index, text): (usize, Bytes)| {
        let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
        let got = || String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
        number.ok_or_else(|| DecodeError::NoDecimal { name, index, got: got() })
    };
    texts(name, shape, need, contents)?.into_iter().enumerate().map(read).collect()
}
