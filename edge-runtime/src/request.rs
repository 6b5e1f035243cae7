//! A request for inference and its answer, whichever wire they came by: no tensors, no transport.

use bytes::Bytes;
use std::time::Duration;

/// As asked; nothing is checked against the model yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Comes back with the answer.
    pub id: String,
    pub inputs: Vec<Given>,
    /// Empty: all that the model gives, in the form below.
    pub outputs: Vec<Wanted>,
    pub form: Form,
    /// As the protocol numbers it: 1 is the most urgent, 0 is what was not said.
    pub priority: u64,
    /// How long it may wait in the queue.
    pub timeout: Option<Duration>,
}

/// An input as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    pub name: String,
    pub datatype: String,
    pub shape: Vec<i64>,
    pub contents: Contents,
}

/// The elements of an input, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub enum Contents {
    /// Little-endian.
    Raw(Bytes),
    Numbers(Vec<f32>),
    /// What no number is sent in, as its wire names it.
    Other(&'static str),
}

/// An output that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    /// So many best classes of each row, as `score:index:label`, instead of the numbers.
    pub classes: Option<usize>,
    pub form: Form,
}

/// How the elements of an output are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As bytes beside the message.
    Raw,
    /// In the message.
    Typed,
}

/// What the model says to one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub model: String,
    pub version: String,
    pub id: String,
    pub outputs: Vec<Answered>,
}

/// One output of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    pub name: String,
    /// `(rows, ..)`.
    pub shape: Vec<i64>,
    pub values: Values,
    pub form: Form,
}

/// The elements of an output, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    Fp32(Vec<f32>),
    Bytes(Vec<String>),
}

impl Values {
    /// The protocol's name of their type.
    pub fn datatype(&self) -> &'static str {
        match self {
            Values::Fp32(_) => "FP32",
            Values::Bytes(_) => "BYTES",
        }
    }

    /// As raw contents.
    pub fn raw(&self) -> Bytes {
        match self {
            Values::Fp32(values) => crate::wire::raw_fp32(values),
            Values::Bytes(texts) => crate::wire::raw_bytes(texts),
        }
    }
}

/// The value of a free parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
}
