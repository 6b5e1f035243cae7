//! The protocol's messages over REST. Numbers are read straight into one list: no tree of JSON values is built.

#![warn(clippy::all)]

use crate::request::Parameter;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// The body of `…/infer`, or its head where binary data follows.
#[derive(Debug, Deserialize)]
pub struct InferRequest {
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub parameters: Parameters,
    pub inputs: Vec<InputTensor>,
    #[serde(default)]
    pub outputs: Vec<RequestedOutput>,
}

#[derive(Debug, Deserialize)]
pub struct InputTensor {
    pub name: String,
    pub datatype: String,
    pub shape: Vec<i64>,
    #[serde(default)]
    pub parameters: Parameters,
    pub data: Option<Data>,
}

#[derive(Debug, Deserialize)]
pub struct RequestedOutput {
    pub name: String,
    #[serde(default)]
    pub parameters: Parameters,
}

/// The body of `/v2/repository/index`.
#[derive(Debug, Default, Deserialize)]
pub struct IndexRequest {
    /// Only models that are ready.
    #[serde(default)]
    pub ready: bool,
}

/// The body of `/v2/repository/models/NAME/load`, and of `unload`.
#[derive(Debug, Default, Deserialize)]
pub struct ControlRequest {
    #[serde(default)]
    pub parameters: Parameters,
}

#[derive(Debug, Serialize)]
pub struct InferResponse<'a> {
    pub model_name: &'a str,
    pub model_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Made<'a>>,
    pub outputs: Vec<OutputTensor<'a>>,
}

/// Of an answer of features: digest of what made them.
#[derive(Debug, Serialize)]
pub struct Made<'a> {
    pub backbone: &'a str,
}

#[derive(Debug, Serialize)]
pub struct OutputTensor<'a> {
    pub name: &'a str,
    pub datatype: &'a str,
    pub shape: &'a [i64],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<BinarySize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Elements<'a>>,
}

#[derive(Debug, Serialize)]
pub struct BinarySize {
    pub binary_data_size: usize,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Elements<'a> {
    Fp32(&'a [f32]),
    Int32(&'a [i32]),
    Bytes(Vec<&'a str>),
}

/// Free parameters; more than [`Parameters::LIMIT`] are refused.
#[derive(Debug, Default)]
pub struct Parameters(pub BTreeMap<String, Parameter>);

impl Parameters {
    const LIMIT: usize = 64;
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Parameters;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {} parameters", Parameters::LIMIT)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
                let mut parameters = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, _>()? {
                    if parameters.len() == Parameters::LIMIT {
                        return Err(A::Error::invalid_length(parameters.len() + 1, &self));
                    }
                    if parameters.contains_key(&name) {
                        return Err(A::Error::custom(format!("parameter \"{name}\" is given twice")));
                    }
                    parameters.insert(name, value);
                }
                Ok(Parameters(parameters))
            }
        }
        from.deserialize_map(Each)
    }
}

impl Serialize for Parameter {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Parameter::Bool(value) => to.serialize_bool(*value),
            Parameter::Int(value) => to.serialize_i64(*value),
            Parameter::Uint(value) => to.serialize_u64(*value),
            Parameter::Float(value) => to.serialize_f64(*value),
            Parameter::Text(value) => to.serialize_str(value),
        }
    }
}

impl<'de> Deserialize<'de> for Parameter {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct One;
        impl Visitor<'_> for One {
            type Value = Parameter;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a parameter: true, false, a number or a string")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Parameter, E> {
                Ok(Parameter::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Parameter, E> {
                Ok(Parameter::Int(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Parameter, E> {
                Ok(Parameter::Uint(value))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Parameter, E> {
                Ok(Parameter::Float(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Parameter, E> {
                Ok(Parameter::Text(value.to_owned()))
            }
        }
        from.deserialize_any(One)
    }
}

/// The elements of a tensor, flat or nested.
#[derive(Debug, Default, PartialEq)]
pub struct Data {
    /// Exact for every type of 32 bits.
    pub values: Vec<f64>,
    /// Where strings are the elements.
    pub texts: Vec<String>,
    /// How many elements a list has, by depth: one size if the data is flat, the shape if it is nested.
    pub sizes: Vec<usize>,
    /// What was there that is no element of a tensor, or of two kinds.
    pub other: Option<&'static str>,
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut data = Data::default();
        let mut reading = Reading { sizes: Vec::new(), leaves: None };
        List { data: &mut data, reading: &mut reading, depth: 0 }.deserialize(from)?;
        data.sizes = reading.sizes.into_iter().map(Option::unwrap_or_default).collect();
        Ok(data)
    }
}

/// What has been seen of the nesting.
struct Reading {
    sizes: Vec<Option<usize>>,
    /// At which depth the elements are.
    leaves: Option<usize>,
}

/// A list at a depth, or an element where one is.
struct List<'a> {
    data: &'a mut Data,
    reading: &'a mut Reading,
    depth: usize,
}

impl List<'_> {
    fn element<E: Error>(self, seen: Unexpected<'_>, take: impl FnOnce(&mut Data)) -> Result<(), E> {
        if self.depth == 0 || *self.reading.leaves.get_or_insert(self.depth) != self.depth {
            return Err(E::invalid_type(seen, &self));
        }
        take(self.data);
        if !self.data.values.is_empty() && !self.data.texts.is_empty() {
            self.data.other = Some("both numbers and strings");
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reading.leaves {
            _ if self.depth == 0 => "a list of numbers, flat or nested as the shape says",
            Some(leaves) if leaves == self.depth => "a number, as beside it",
            Some(_) => "a list, as beside it",
            None => "a number",
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let List { data, reading, depth } = self;
        if reading.leaves == Some(depth) {
            return Err(A::Error::invalid_type(Unexpected::Seq, &List { data, reading, depth }));
        }
        if reading.sizes.len() == depth {
            reading.sizes.push(None);
        }
        let mut size = 0;
        while list.next_element_seed(List { data, reading, depth: depth + 1 })?.is_some() {
            size += 1;
        }
        match *reading.sizes[depth].get_or_insert(size) {
            expected if expected == size => Ok(()),
            expected => Err(A::Error::custom(format!("a list of {size} beside one of {expected}"))),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.element(Unexpected::Float(value), |data| data.values.push(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.element(Unexpected::Signed(value), |data| data.values.push(value as f64))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.element(Unexpected::Unsigned(value), |data| data.values.push(value as f64))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.element(Unexpected::Bool(value), |data| data.other = Some("true and false"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.element(Unexpected::Str(value), |data| data.texts.push(value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_flat_or_nested_evenly() {
        let read = |text: &str| {
            serde_json::from_str::<Data>(text)
                .map(|data| (data.values, data.sizes, data.other))
                .map_err(|error| error.to_string())
        };
        let check = |text: &str, values: &[f64], sizes: &[usize]| {
            assert_eq!(read(text), Ok((values.to_vec(), sizes.to_vec(), None)), "{text}");
        };
        check("[1, 2.5, -3e2]", &[1.0, 2.5, -300.0], &[3]);
        check("[[1, 2], [3, 4], [5, 6]]", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[3, 2]);
        check("[[[1]], [[2]]]", &[1.0, 2.0], &[2, 1, 1]);
        check("[]", &[], &[0]);
        assert_eq!(read("[true]").unwrap().2, Some("true and false"));
        assert_eq!(read("[\"a\", 1]").unwrap().2, Some("both numbers and strings"));
        assert_eq!(serde_json::from_str::<Data>("[\"a\", \"b\"]").unwrap().texts, ["a", "b"]);
        for (text, expected) in [
            ("[[1, 2], [3]]", "a list of 1 beside one of 2"),
            ("[[1, 2], 3]", "invalid type: integer `3`, expected a list, as beside it"),
            ("[1, [2]]", "invalid type: sequence, expected a number, as beside it"),
            ("1", "expected a list of numbers, flat or nested as the shape says"),
            ("[null]", "invalid type: null, expected a number"),
            ("[NaN]", "expected value at line 1 column 2"),
            ("[1, 2", "EOF while parsing a list"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(read(&deep).unwrap_err().contains("recursion limit"));
    }

    #[test]
    fn parameters_are_plain_and_few() {
        let read = |text: &str| serde_json::from_str::<Parameters>(text).map_err(|error| error.to_string());
        let parameters = read(r#"{"a": 1, "b": -1, "c": true, "d": "e"}"#).unwrap().0;
        assert_eq!((&parameters["a"], &parameters["b"]), (&Parameter::Uint(1), &Parameter::Int(-1)));
        assert!(read(r#"{"a": [1]}"#).unwrap_err().contains("expected a parameter: true, false, a number or a string"));
        assert!(read(r#"{"a": 1, "a": 2}"#).unwrap_err().contains("parameter \"a\" is given twice"));
        let many = (0..65).map(|index| format!("\"{index}\": 1")).collect::<Vec<_>>().join(", ");
        assert!(read(&format!("{{{many}}}")).unwrap_err().contains("invalid length 65, expected at most 64"));
    }
}
