//! From a tensor to an answer, and to either wire.

mod grpc;
mod rest;

pub use grpc::{grpc, log};
pub use rest::rest;

use crate::decode::Signature;
use crate::request::{Answered, Values, Wanted};
use candle_core::Tensor;

/// What the model gave for one request.
#[derive(Debug)]
pub struct Output {
    /// `(rows, ..output)`.
    pub ys: Tensor,
}

/// Who answers, as the protocol wants to know.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Of the model.
    pub name: String,
    /// Of the model; any string.
    pub version: String,
}

impl Output {
    /// Row by row.
    ///
    /// # Errors
    /// If the tensor is no `f32`.
    pub fn rows(&self) -> candle_core::Result<Vec<Vec<f32>>> {
        self.ys.flatten_from(1)?.to_vec2()
    }
}

/// The output in the form that each of `wanted` has.
///
/// # Errors
/// If the tensor is no `f32`: the model's fault, not the request's.
pub fn answered(output: &Output, wanted: Vec<Wanted>, signature: &Signature) -> candle_core::Result<Vec<Answered>> {
    let numbers: Vec<f32> = output.ys.flatten_all()?.to_vec1()?;
    let dims = output.ys.dims();
    let rows = dims.first().copied().unwrap_or(1);
    let each = wanted.into_iter().map(|Wanted { name, classes, form }| match classes {
        None => Answered {
            name,
            shape: dims.iter().map(|&size| size as i64).collect(),
            values: Values::Fp32(numbers.clone()),
            form,
        },
        Some(classes) => {
            let of_row = numbers.len() / rows.max(1);
            let best = numbers.chunks(of_row.max(1)).flat_map(|row| best(row, classes, &signature.labels));
            let shape = vec![rows as i64, classes.min(of_row) as i64];
            Answered { name, shape, values: Values::Bytes(best.map(Into::into).collect()), form }
        }
    });
    Ok(each.collect())
}

/// The so many best classes, as `score:index:label`, the best first; among equals that with the lower index.
fn best(scores: &[f32], classes: usize, labels: &[String]) -> Vec<String> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order.truncate(classes);
    let shown = |index: usize| match labels.get(index) {
        Some(label) => format!("{:.6}:{index}:{label}", scores[index]),
        None => format!("{:.6}:{index}", scores[index]),
    };
    order.into_iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_classes_come_first_and_equals_in_their_order() {
        let labels = ["a", "b"].map(String::from);
        assert_eq!(best(&[0.25, 0.5, 0.25], 5, &labels), ["0.500000:1:b", "0.250000:0:a", "0.250000:2"]);
        assert_eq!(best(&[0.25, 0.75], 1, &[]), ["0.750000:1"]);
    }
}
