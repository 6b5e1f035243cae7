//! What a frozen backbone makes of each sample, asked once: a head alone then learns from that, epoch after epoch.

use super::{FitError, Lesson};
use crate::prepared::Prepared;
use sconce_model::network::Network;
use sconce_model::plan::Plan;
use sconce_model::variant::Arithmetic;

/// Of all features together. More is computed anew each time: memory is what a trainer has little of.
const MOST_BYTES: usize = 256 << 20;

pub(super) struct Features {
    /// With the weights of the whole network.
    pub head: Network,
    pub train: Prepared,
    pub validation: Prepared,
}

impl Features {
    /// None where they would differ from epoch to epoch, by chance, by rounding, or for another reader; or take too much.
    pub fn of(lesson: &Lesson<'_>) -> Result<Option<Self>, FitError> {
        let Lesson { network, train, validation, recipe, learned_from, teacher, rounding, .. } = *lesson;
        let changes = !recipe.augment.is_empty() || teacher.is_some() || rounding.is_some();
        let Some(from) = learned_from.filter(|_| !changes) else { return Ok(None) };
        let Some((backbone, head)) = network.split(from) else { return Ok(None) };
        if head.graph().any_time {
            return Ok(None);
        }
        let of_one: usize = head.graph().input.iter().product();
        let bytes = (train.len() + validation.len()).saturating_mul(of_one * size_of::<f32>());
        if bytes > MOST_BYTES {
            return Ok(None);
        }
        let plan = Plan::compile(&backbone, &Arithmetic::F32)?;
        Ok(Some(Self { train: train.through(&plan)?, validation: validation.through(&plan)?, head }))
    }
}
