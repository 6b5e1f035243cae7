//! Files that become tensors as they are: those of NumPy, measurements as JSON, sound as WAV. Pure.

use hound::{SampleFormat, WavReader, WavSpec};
use sconce_lake::npy::Tensor;
use serde_json::Value;

/// Numbers, rows of them, rows of rows: of `[[1, 2], [3, 4]]` the shape is `[2, 2]`. Numbers with names are a row, in the order of the names.
///
/// # Errors
/// In words, what it is not.
pub fn of_json(content: &[u8]) -> Result<Tensor, String> {
    let value: Value = serde_json::from_slice(content).map_err(|error| format!("it is no JSON: {error}"))?;
    let mut values = Vec::new();
    let shape = gathered(&value, &mut values)?;
    Ok(Tensor { shape, values })
}

/// Its shape; the numbers go behind the others.
fn gathered(value: &Value, values: &mut Vec<f32>) -> Result<Vec<usize>, String> {
    match value {
        Value::Number(number) => {
            values.push(number.as_f64().unwrap_or(f64::NAN) as f32);
            Ok(vec![])
        }
        Value::Array(rows) => {
            if let Some(other) = rows.iter().find(|row| names(row) != names(&rows[0])) {
                return Err(format!("a row has {:?}, another {:?}", names(&rows[0]), names(other)));
            }
            rowed(rows.iter(), values)
        }
        Value::Object(row) => rowed(names(value).iter().map(|name| &row[*name]), values),
        other => Err(format!("it holds {other}, which is no number")),
    }
}

fn rowed<'a>(rows: impl ExactSizeIterator<Item = &'a Value>, values: &mut Vec<f32>) -> Result<Vec<usize>, String> {
    let count = rows.len();
    let mut shape: Option<Vec<usize>> = None;
    for row in rows {
        let of_row = gathered(row, values)?;
        match &shape {
            Some(first) if *first != of_row => return Err(format!("a row is {first:?}, another {of_row:?}")),
            _ => shape = Some(of_row),
        }
    }
    Ok([vec![count], shape.unwrap_or_default()].concat())
}

/// In their order; none of what has no names.
fn names(value: &Value) -> Vec<&String> {
    let mut names: Vec<&String> = value.as_object().into_iter().flat_map(|row| row.keys()).collect();
    names.sort();
    names
}

/// Amplitudes within ±1, `[time, channels]`.
///
/// # Errors
/// In words, what it is not.
pub fn of_wav(content: &[u8]) -> Result<Tensor, String> {
    let told = |error: hound::Error| format!("it is no WAV that can be read: {error}");
    let mut reader = WavReader::new(content).map_err(told)?;
    let WavSpec { channels, bits_per_sample, sample_format, .. } = reader.spec();
    let values: Result<Vec<f32>, hound::Error> = match sample_format {
        SampleFormat::Float => reader.samples::<f32>().collect(),
        SampleFormat::Int => {
            let full = (1_u64 << (bits_per_sample.max(1) - 1)) as f32;
            reader.samples::<i32>().map(|sample| Ok(sample? as f32 / full)).collect()
        }
    };
    let values = values.map_err(told)?;
    let channels = usize::from(channels.max(1));
    Ok(Tensor { shape: vec![values.len() / channels, channels], values })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hound::{Sample, WavWriter};
    use std::io::Cursor;

    #[test]
    fn measurements_are_rows_of_numbers() {
        let check = |text: &str, shape: &[usize], values: &[f32]| {
            let expected = Tensor { shape: shape.into(), values: values.into() };
            assert_eq!(of_json(text.as_bytes()), Ok(expected), "{text}");
        };
        check("[1, 2.5, -3e2]", &[3], &[1.0, 2.5, -300.0]);
        check("[[1, 2], [3, 4], [5, 6]]", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        check(r#"{"z": 1, "a": 2}"#, &[2], &[2.0, 1.0]);
        check(r#"[{"z": 1, "a": 2}, {"a": 3, "z": 4}]"#, &[2, 2], &[2.0, 1.0, 3.0, 4.0]);
        check("[]", &[0], &[]);
        let check = |text: &str, expected: &str| assert_eq!(of_json(text.as_bytes()).unwrap_err(), expected, "{text}");
        check("[1, null]", "it holds null, which is no number");
        check(r#"["12"]"#, "it holds \"12\", which is no number");
        check("[[1, 2], [3]]", "a row is [2], another [1]");
        check(r#"[{"a": 1}, {"b": 1}]"#, r#"a row has ["a"], another ["b"]"#);
        check("[1", "it is no JSON: EOF while parsing a list at line 1 column 2");
    }

    fn wav<S: Sample + Copy>(
        channels: u16,
        bits_per_sample: u16,
        sample_format: SampleFormat,
        samples: &[S],
    ) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let spec = WavSpec { channels, sample_rate: 8000, bits_per_sample, sample_format };
        let mut writer = WavWriter::new(&mut bytes, spec).unwrap();
        samples.iter().for_each(|sample| writer.write_sample(*sample).unwrap());
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    #[test]
    fn sound_is_amplitudes_in_the_order_of_time() {
        let whole = wav(2, 16, SampleFormat::Int, &[0_i16, 16_384, -32_768, 8_192]);
        assert_eq!(of_wav(&whole), Ok(Tensor { shape: vec![2, 2], values: vec![0.0, 0.5, -1.0, 0.25] }));
        let floats = wav(1, 32, SampleFormat::Float, &[0.75_f32]);
        assert_eq!(of_wav(&floats), Ok(Tensor { shape: vec![1, 1], values: vec![0.75] }));
        for bytes in [&whole[..20], &whole[..whole.len() - 1], b"RIFF"] {
            assert!(of_wav(bytes).unwrap_err().starts_with("it is no WAV that can be read: "));
        }
    }
}
