//! A request for inference and its answer, whichever wire they came by: no tensors, no transport.

use bytes::Bytes;
use std::time::Duration;

/// As asked; nothing is checked against the model yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Comes back with the answer.
    pub id: String,
    /// In the order in which they were sent.
    pub inputs: Vec<Given>,
    /// Empty: all that the model gives, in the form below.
    pub outputs: Vec<Wanted>,
    /// Of outputs that do not say another.
    pub form: Form,
    /// As the protocol numbers it: 1 is the most urgent, 0 is what was not said.
    pub priority: u64,
    /// How long it may wait in the queue.
    pub timeout: Option<Duration>,
}

/// An input as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// As the model calls it.
    pub name: String,
    /// As the protocol writes it: `FP32`.
    pub datatype: String,
    /// `(rows, ..)`; anything may stand here.
    pub shape: Vec<i64>,
    /// Its elements.
    pub contents: Contents,
}

/// The elements of an input, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub enum Contents {
    /// Little-endian.
    Raw(Bytes),
    /// As the message holds them.
    Numbers(Vec<f32>),
    /// As the message holds them.
    Integers(Vec<i32>),
    /// As JSON holds them: of whichever type the input has.
    Doubles(Vec<f64>),
    /// Elements of `BYTES`, each whole.
    Elements(Vec<Bytes>),
    /// Elements of `BYTES` as JSON holds them; whether they are base64, the input says.
    Strings(Vec<String>),
    /// What no number is sent in, as its wire names it.
    Other(&'static str),
}

/// An output that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// As the model calls it.
    pub name: String,
    /// So many best classes of each row, as `score:index:label`, instead of the numbers.
    pub classes: Option<usize>,
    /// How it is written.
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
    /// Who answers.
    pub model: String,
    /// Of the model.
    pub version: String,
    /// The request's.
    pub id: String,
    /// In the order in which they were asked for.
    pub outputs: Vec<Answered>,
    /// What the model says of late is spread otherwise than it was on held-out samples.
    pub drifts: bool,
    /// Digest of what made the features, where they were asked for.
    pub backbone: Option<String>,
}

/// One output of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// As the model calls it.
    pub name: String,
    /// `(rows, ..)`.
    pub shape: Vec<i64>,
    /// Its elements.
    pub values: Values,
    /// How it is written.
    pub form: Form,
}

/// The elements of an output, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Numbers of the model.
    Fp32(Vec<f32>),
    /// Whole numbers.
    Int32(Vec<i32>),
    /// Mostly texts, such as classes.
    Bytes(Vec<Bytes>),
}

impl Values {
    /// The protocol's name of their type.
    pub fn datatype(&self) -> &'static str {
        match self {
            Values::Fp32(_) => "FP32",
            Values::Int32(_) => "INT32",
            Values::Bytes(_) => "BYTES",
        }
    }

    /// As raw contents.
    pub fn raw(&self) -> Bytes {
        match self {
            Values::Fp32(values) => crate::wire::raw_fp32(values),
            Values::Int32(values) => crate::wire::raw_int32(values),
            Values::Bytes(elements) => crate::wire::raw_bytes(elements),
        }
    }
}

/// The value of a free parameter, as its wire could tell it.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
}
