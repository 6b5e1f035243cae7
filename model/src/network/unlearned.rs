//! Whether the first gradients reach every weight that is to learn, and no other: one without is never moved, and nobody would notice.

use super::Network;
use crate::ops::values;
use candle_core::Result;
use candle_core::backprop::GradStore;
use std::collections::BTreeSet;

/// A weight whose gradient says that training does not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlearned {
    pub variable: String,
    /// What it has, such as `no gradient`.
    pub fault: &'static str,
}

impl Network {
    /// The first weight that has no gradient, one of zeros or one that is not finite; or has one though its layer is frozen.
    ///
    /// # Errors
    /// None but candle's own.
    pub fn unlearned(&self, gradients: &GradStore, frozen: &BTreeSet<String>) -> Result<Option<Unlearned>> {
        let is_frozen = |name: &str| name.rsplit_once('.').is_some_and(|(node, _)| frozen.contains(node));
        for (name, variable) in self.weights() {
            let fault = match (gradients.get(variable.as_tensor()), is_frozen(name)) {
                (Some(_), true) => Some("a gradient, though it is frozen,"),
                (None, true) => None,
                (None, false) => Some("no gradient"),
                (Some(gradient), false) => {
                    let gradient = values(gradient)?;
                    if !gradient.iter().all(|g| g.is_finite()) {
                        Some("a gradient that is not finite")
                    } else if gradient.iter().all(|g| *g == 0.0) {
                        Some("a gradient of zeros")
                    } else {
                        None
                    }
                }
            };
            if let Some(fault) = fault {
                return Ok(Some(Unlearned { variable: name.clone(), fault }));
            }
        }
        Ok(None)
    }
}
