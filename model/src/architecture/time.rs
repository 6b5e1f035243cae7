//! Sequences of any length: which nodes have their time, and whether two have the same one, however long a sequence is. Pure.

use super::infer::Place;
use super::{ArchitectureError as Error, Kind, Padding};
use crate::graph::{Node, Op};

/// How many steps there are of a sequence of `n`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Time {
    /// One after the other: so many more, of that a share, and one.
    windows: Vec<(i64, i64)>,
    /// So many more in the end.
    more: i64,
}

impl Time {
    fn through(&self, (reach, stride, padding): (usize, usize, usize)) -> Self {
        let mut time = self.clone();
        let more = time.more + padding as i64 - reach as i64;
        time.more = match stride {
            1 => more + 1,
            _ => {
                time.windows.push((more, stride as i64));
                1
            }
        };
        time
    }
}

/// The time of what a node gives, by those of what it reads; none where it gives no sequence of any length.
pub(super) fn after(place: &Place, node: &Node, read: &[Option<&Time>]) -> Result<Option<Time>, Error> {
    let Some(time) = read.iter().copied().flatten().next() else { return Ok(None) };
    let over = |kind, advice| Err(Error::OverTime { index: place.index, name: place.name.clone(), kind, advice });
    match &node.op {
        Op::Flatten => over("flatten", "use globalAvgPool, or returnSequences: false"),
        Op::Reshape => over("reshape", "use globalAvgPool, or returnSequences: false, before it"),
        Op::Concat { axis: 0 } => over("concat", "side by side are features, with axis: 1"),
        Op::Concat { .. } if read.iter().any(|other| *other != Some(time)) => {
            over("concat", "what it reads has other times than the first; pad all alike")
        }
        Op::Add { .. } if read.iter().any(|other| *other != Some(time)) => {
            over("add", "what it reads has other times than the first; pad all alike")
        }
        _ if node.keeps_time() => {
            Ok(Some(node.windows().map_or_else(|| time.clone(), |windows| time.through(windows))))
        }
        _ => Ok(None),
    }
}

/// What `same` adds depends on the length, unless each step is the beginning of a window.
pub(super) fn is_padded_alike(place: &Place, kind: &Kind, node: &Node) -> Result<(), Error> {
    let padding = match kind {
        Kind::Conv1d(conv) => conv.padding,
        Kind::MaxPool1d(pool) => pool.padding,
        _ => return Ok(()),
    };
    match (padding, node.windows()) {
        (Padding::Same, Some((_, 2.., _))) => Err(place.value(
            "padding",
            "same",
            "valid, causal or a number, for over time -1 same adds another one to each length",
        )),
        _ => Ok(()),
    }
}
