//! From a request to a tensor: every byte is checked here, once, whichever wire brought it.

mod elements;
mod grpc;
mod images;
mod rest;
#[cfg(test)]
mod tests;

pub use elements::{Strings, elements};
pub use grpc::{grpc, log};
pub use images::{Images, max_pixels, memory_at_once};
pub use rest::{image, rest, split, whole};

use crate::request::{Contents, Given, Parameter, Wanted};
use bytes::Bytes;
use candle_core::{Device, Tensor};
use sconce_model::artifact::TensorSpec;
use sconce_model::drift::Moments;
use sconce_model::ops::lend;
use sconce_model::preprocess::PreprocessError;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// The input that takes a model's raw material, where it has any, in the place of its tensor.
pub const ENCODED: &str = "encoded";

/// The output that is asked for alone, and is in no description of a model: what its backbone makes of the input.
pub const FEATURES: &str = "features";

/// What a model takes and gives.
#[derive(Clone, Debug)]
pub struct Signature {
    /// With the batch, -1, in front; so is the output. Behind it -1 is the time of sequences of any of the `lengths`.
    pub input: TensorSpec,
    /// Steps of a sequence; none if the shape says how many.
    pub lengths: Option<RangeInclusive<usize>>,
    /// The input names words, from 0 on, and so many are known; `None`: it is of numbers.
    pub words: Option<usize>,
    /// One row for each row of the input.
    pub output: TensorSpec,
    /// How encoded images become the input; `None`: they are not taken.
    pub images: Option<Arc<Images>>,
    /// Names of the classes, in the order of the output; empty if it has none.
    pub labels: Vec<String>,
    /// Rows of one request, at most.
    pub max_batch_size: usize,
}

impl Signature {
    /// The tensor, and where they are taken the encoded images that may be sent instead.
    pub fn inputs(&self) -> impl Iterator<Item = TensorSpec> {
        let encoded = || TensorSpec { name: ENCODED.into(), datatype: "BYTES".into(), shape: vec![-1, 1] };
        std::iter::once(self.input.clone()).chain(self.images.as_ref().map(|_| encoded()))
    }

    /// More bytes than a request that the model takes can have, as JSON too, with room for names and parameters.
    pub fn largest_request(&self) -> usize {
        const PER_NUMBER: usize = 32;
        const BESIDE: usize = 1 << 16;
        const IMAGES: usize = 16 << 20;
        let longest = self.lengths.as_ref().map_or(1, |lengths| *lengths.end());
        let row = self.input.shape.iter().skip(1).map(|&size| usize::try_from(size).unwrap_or(longest));
        let numbers = row.fold(self.max_batch_size, usize::saturating_mul);
        let tensor = numbers.saturating_mul(PER_NUMBER).saturating_add(BESIDE);
        if self.images.is_some() { tensor.max(IMAGES) } else { tensor }
    }
}

/// What has been checked: the input, or what becomes one.
#[derive(Debug)]
pub enum Checked {
    /// To be given to the model.
    Tensor(Input),
    /// One encoded image for each row, and how they become the input.
    Images(Arc<Images>, Vec<Bytes>),
}

/// Inputs that have been checked.
#[derive(Clone, Debug)]
pub struct Input {
    /// `(rows, ..input)`.
    pub xs: Tensor,
    /// At least 1.
    pub rows: usize,
}

impl Input {
    /// What is kept of each row where it is told whether inputs drift.
    ///
    /// # Errors
    /// If the tensor is no `f32`.
    pub fn moments(&self) -> candle_core::Result<Vec<Moments>> {
        let size = self.xs.elem_count() / self.rows.max(1);
        lend(&self.xs, |values| Ok(values.chunks_exact(size.max(1)).map(Moments::of).collect()))
    }
}

/// What is wrong with a request: each says what was expected, and what was found.
#[derive(Debug, Error, PartialEq)]
pub enum DecodeError {
    #[error("{got} inputs; the model takes one, \"{name}\"")]
    Inputs { got: usize, name: String },
    #[error("input \"{got}\"; the model takes \"{name}\"")]
    Name { got: String, name: String },
    #[error("output \"{got}\" was asked for; the model gives \"{name}\"")]
    Output { got: String, name: String },
    #[error("{what} \"{name}\" is given twice; once is enough")]
    Twice { what: &'static str, name: String },
    #[error("input \"{name}\" has datatype {got:?}; the model takes {need}")]
    Datatype { name: String, got: String, need: String },
    #[error("input \"{name}\" has shape {got:?}; the model takes {need:?}, the first being 1 to {max}")]
    Shape { name: String, got: Vec<i64>, need: Vec<i64>, max: usize },
    #[error(
        "input \"{name}\" has sequences of {got} steps; the model takes {least} to {most}: send shorter parts, or fill up"
    )]
    Steps { name: String, got: i64, least: usize, most: usize },
    #[error("input \"{name}\" has {got} columns; the model takes {max} at most: send fewer in a row")]
    Columns { name: &'static str, got: i64, max: i64 },
    #[error("input \"{name}\": both {raw} and {typed} are set; the protocol allows one of them")]
    Both { name: String, raw: &'static str, typed: &'static str },
    #[error("{got} raw_input_contents for {need} inputs; send one for each")]
    RawCount { got: usize, need: usize },
    #[error("input \"{name}\" has {got} bytes; shape {shape:?} of {datatype} needs {need}")]
    Bytes { name: String, got: usize, shape: Vec<i64>, datatype: &'static str, need: usize },
    #[error("input \"{name}\" has {got} numbers; shape {shape:?} needs {need}")]
    Elements { name: String, got: usize, shape: Vec<i64>, need: usize },
    #[error("input \"{name}\" is nested as {got:?}; send it flat, or nested as its shape {shape:?}")]
    Nested { name: String, got: Vec<usize>, shape: Vec<i64> },
    #[error("input \"{name}\" has neither data nor binary_data_size")]
    Missing { name: String },
    #[error("input \"{name}\" holds {field}; an FP32 tensor is sent as numbers of 32 bits, or raw")]
    Field { name: String, field: &'static str },
    #[error("input \"{name}\" has {got}; an INT32 tensor is sent as whole numbers of 32 bits, or raw")]
    NoInteger { name: String, got: String },
    #[error("a body without JSON is one input, and the model takes more; send JSON that says how long each is")]
    Whole,
    #[error("input \"{name}\" has {value} at {index}; numbers must be finite")]
    NotFinite { name: String, index: usize, value: f32 },
    #[error("input \"{name}\" has {value} at {index}; the model knows words by whole numbers from 0 to {most}")]
    Word { name: String, index: usize, value: f32, most: usize },
    #[error("input \"{name}\" makes no tensor: {why}")]
    Tensor { name: String, why: String },
    #[error("input \"{name}\" has {got} elements; shape {shape:?} needs {need}")]
    Count { name: &'static str, got: usize, shape: Vec<i64>, need: usize },
    #[error("input \"{name}\": the lengths before its elements, 32 bits each, do not add up to its {bytes} bytes")]
    Lengths { name: &'static str, bytes: usize },
    #[error("input \"{name}\" has {got} as elements; BYTES are sent raw, as bytes_contents, or in JSON as {strings}")]
    NoBytes { name: &'static str, got: String, strings: &'static str },
    #[error("input \"{name}\" has {got:?} at {index}; whole numbers of 32 bits are needed, in decimal")]
    NoDecimal { name: &'static str, index: usize, got: String },
    #[error("input \"{name}\" at {index}: {fault}")]
    Image { name: &'static str, index: usize, fault: PreprocessError },
    #[error("parameter \"{name}\" is {got}; {need} is needed")]
    Parameter { name: &'static str, got: String, need: &'static str },
    #[error("shared memory is not served here; send the tensors with the request")]
    SharedMemory,
    #[error("this is no inference request in JSON: {why}")]
    Json { why: String },
    #[error("Inference-Header-Content-Length is {got:?}; the number of bytes before the binary data is needed")]
    HeaderLength { got: String },
    #[error("Inference-Header-Content-Length is {got}; the body has {body} bytes")]
    HeaderBeyond { got: usize, body: usize },
    #[error("input \"{name}\" has binary_data_size {need}; {left} bytes are left for it")]
    BinaryShort { name: String, need: u64, left: usize },
    #[error("{left} bytes follow the binary data of the inputs; no input says that they are its")]
    BinaryLeft { left: usize },
}

/// Checks what is asked against what the model takes and gives.
///
/// # Errors
/// [`DecodeError`] says what was expected.
pub fn check(inputs: Vec<Given>, outputs: &[Wanted], signature: &Signature) -> Result<Checked, DecodeError> {
    let spec = &signature.input;
    let name = || spec.name.clone();
    if let Some(other) = outputs.iter().find(|output| output.name != signature.output.name) {
        return Err(DecodeError::Output { got: other.name.clone(), name: signature.output.name.clone() });
    }
    once("output", outputs.iter().map(|output| output.name.as_str()))?;
    once("input", inputs.iter().map(|input| input.name.as_str()))?;
    let got = inputs.len();
    let Ok([input]) = <[Given; 1]>::try_from(inputs) else {
        return Err(DecodeError::Inputs { got, name: name() });
    };
    if let Some(images) = signature.images.as_ref().filter(|_| input.name == ENCODED) {
        return Ok(Checked::Images(images.clone(), images::check(input, signature.max_batch_size)?));
    }
    if input.name != spec.name {
        return Err(DecodeError::Name { got: input.name, name: name() });
    }
    if input.datatype != spec.datatype {
        return Err(DecodeError::Datatype { name: name(), got: input.datatype, need: spec.datatype.clone() });
    }
    if let (Some(lengths), &[_, got, ..]) = (&signature.lengths, &input.shape[..])
        && !usize::try_from(got).is_ok_and(|steps| lengths.contains(&steps))
    {
        return Err(DecodeError::Steps { name: name(), got, least: *lengths.start(), most: *lengths.end() });
    }
    let Some((rows, elements)) = rows_and_elements(&input.shape, signature) else {
        let (need, max) = (spec.shape.clone(), signature.max_batch_size);
        return Err(DecodeError::Shape { name: name(), got: input.shape, need, max });
    };
    let shape: Vec<usize> = input.shape.iter().map(|&size| size as usize).collect();
    let values: Vec<f32> = match input.contents {
        Contents::Raw(bytes) => {
            let need = elements * size_of::<f32>();
            if bytes.len() != need {
                let (got, datatype) = (bytes.len(), "FP32");
                return Err(DecodeError::Bytes { name: name(), got, shape: input.shape, datatype, need });
            }
            bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
        }
        Contents::Numbers(values) => values,
        Contents::Doubles(values) => values.into_iter().map(|value| value as f32).collect(),
        Contents::Integers(_) => return Err(DecodeError::Field { name: name(), field: "int_contents" }),
        Contents::Elements(_) => return Err(DecodeError::Field { name: name(), field: "bytes_contents" }),
        Contents::Strings(_) => return Err(DecodeError::Field { name: name(), field: "strings" }),
        Contents::Other(field) => return Err(DecodeError::Field { name: name(), field }),
    };
    if values.len() != elements {
        let got = values.len();
        return Err(DecodeError::Elements { name: name(), got, shape: input.shape, need: elements });
    }
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(DecodeError::NotFinite { name: name(), index, value: values[index] });
    }
    if let Some(words) = signature.words {
        let is_word = |value: &f32| value.fract() == 0.0 && *value >= 0.0 && (*value as usize) < words;
        if let Some(index) = values.iter().position(|value| !is_word(value)) {
            let most = words.saturating_sub(1);
            return Err(DecodeError::Word { name: name(), index, value: values[index], most });
        }
    }
    let xs = Tensor::from_vec(values, shape, &Device::Cpu)
        .map_err(|error| DecodeError::Tensor { name: name(), why: error.to_string() })?;
    Ok(Checked::Tensor(Input { xs, rows }))
}

pub(crate) fn once<'a>(what: &'static str, names: impl ExactSizeIterator<Item = &'a str>) -> Result<(), DecodeError> {
    if names.len() < 2 {
        return Ok(());
    }
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(DecodeError::Twice { what, name: name.to_owned() });
        }
    }
    Ok(())
}

/// `None` if the shape is not the model's.
fn rows_and_elements(shape: &[i64], signature: &Signature) -> Option<(usize, usize)> {
    let (&rows, rest) = shape.split_first()?;
    let rows = usize::try_from(rows).ok().filter(|rows| (1..=signature.max_batch_size).contains(rows))?;
    let need = signature.input.shape.get(1..)?;
    // Which times are taken has been looked at.
    let fits = |(got, need): (&i64, &i64)| got == need || (*need < 0 && signature.lengths.is_some());
    if rest.len() != need.len() || !rest.iter().zip(need).all(fits) {
        return None;
    }
    let elements = rest.iter().try_fold(rows, |product, &size| product.checked_mul(usize::try_from(size).ok()?))?;
    Some((rows, elements))
}

/// Looks a parameter up by its name.
type Find<'a> = &'a dyn Fn(&str) -> Option<Parameter>;

fn whole_number(find: Find<'_>, name: &'static str, least: u64) -> Result<Option<u64>, DecodeError> {
    let need = if least == 0 { "a whole number from 0" } else { "a whole number from 1" };
    let number = match find(name) {
        None => return Ok(None),
        Some(Parameter::Uint(number)) => Some(number),
        Some(Parameter::Int(number)) => u64::try_from(number).ok(),
        Some(_) => None,
    };
    match number.filter(|number| *number >= least) {
        Some(number) => Ok(Some(number)),
        None => Err(DecodeError::Parameter { name, got: find(name).map(shown).unwrap_or_default(), need }),
    }
}

fn flag(find: Find<'_>, name: &'static str) -> Result<Option<bool>, DecodeError> {
    match find(name) {
        None => Ok(None),
        Some(Parameter::Bool(flag)) => Ok(Some(flag)),
        Some(other) => Err(DecodeError::Parameter { name, got: shown(other), need: "true or false" }),
    }
}

fn shown(parameter: Parameter) -> String {
    match parameter {
        Parameter::Bool(value) => value.to_string(),
        Parameter::Int(value) => value.to_string(),
        Parameter::Uint(value) => value.to_string(),
        Parameter::Float(value) => value.to_string(),
        Parameter::Text(value) => format!("{value:?}"),
    }
}

/// The parameters of a request that decide when it runs: `priority`, and `timeout` in microseconds, 0 being none.
fn schedule(find: Find<'_>) -> Result<(u64, Option<Duration>), DecodeError> {
    let timeout = whole_number(find, "timeout", 0)?.filter(|micros| *micros > 0).map(Duration::from_micros);
    Ok((whole_number(find, "priority", 0)?.unwrap_or_default(), timeout))
}

fn classes(find: Find<'_>) -> Result<Option<usize>, DecodeError> {
    let classes = whole_number(find, "classification", 1)?;
    Ok(classes.map(|classes| usize::try_from(classes).unwrap_or(usize::MAX)))
}

fn no_shared_memory(find: Find<'_>) -> Result<(), DecodeError> {
    if find("shared_memory_region").is_some() { Err(DecodeError::SharedMemory) } else { Ok(()) }
}
