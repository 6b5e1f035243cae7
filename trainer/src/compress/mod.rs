//! Smaller forms of a trained network: f16 weights, bytes, fewer channels, a student. Choices are made on the validation split.

mod calibrate;
mod prune;
mod threshold;

use crate::answer::Answer;
use crate::base::Base;
use crate::evaluate::paired;
use crate::fit::{Epoch, FitError, Lesson, Observer, Rounding, Teacher, fit};
use crate::gate::Verdict;
use crate::manifest::{Compress, Fit, Form, Optimizer, Schedule, share};
use crate::prepared::Prepared;
use calibrate::calibrate;
use prune::prune;
use sconce_kernels::quantise::Scaling;
use sconce_model::architecture::Architecture;
use sconce_model::artifact::Paired;
use sconce_model::network::{Network, WeightsError};
use sconce_model::variant::{Variant, VariantError};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use thiserror::Error;
use threshold::settle;

#[derive(Debug, Error)]
pub enum CompressError {
    #[error("{0}")]
    Variant(#[from] VariantError),
    #[error("it cannot learn: {0}")]
    Fit(#[from] FitError),
    #[error("every layer is read by a sum, or by nobody: none can lose channels or units")]
    NothingToPrune,
    #[error("of features alone it cannot be judged: its backbone makes others")]
    FeaturesAlone,
    #[error("who is the student? Say its distill.layers")]
    NoStudent,
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// What a network is made smaller by.
pub struct Course<'a> {
    pub architecture: &'a Architecture,
    pub train: &'a Prepared,
    pub validation: &'a Prepared,
    pub fit: &'a Fit,
    pub compress: &'a Compress,
    /// What the network began from.
    pub base: Option<&'a Base>,
    /// Told what is being made.
    pub say: &'a dyn Fn(&str),
}

/// A network in the forms that were asked for.
pub struct Compressed {
    /// The trained network first.
    pub variants: Vec<Variant>,
    /// Of variants that are networks of their own.
    pub architectures: BTreeMap<String, Architecture>,
    /// Of forms that could not be made: what was learned is not given up for that.
    pub refused: Vec<Verdict>,
}

/// A smaller network, as typed and as learned.
struct Smaller {
    architecture: Architecture,
    network: Network,
}

/// # Errors
/// If the network cannot be asked.
pub fn compress(network: Network, course: &Course<'_>) -> candle_core::Result<Compressed> {
    let trained = Variant::f32(network);
    settle(&trained, course.validation)?;
    let network = &trained.network;
    let mut made = Compressed { variants: Vec::new(), architectures: BTreeMap::new(), refused: Vec::new() };
    // Each is made once, for itself and for its bytes.
    let (mut pruned, mut student) = (None, None);
    let refused = |form: &Form, why: &dyn Display| Verdict {
        variant: form.name().into(),
        passed: false,
        reason: format!("{why}: left out"),
    };
    for form in &course.compress.variants {
        if course.train.are_features() {
            made.refused.push(refused(form, &CompressError::FeaturesAlone));
            continue;
        }
        (course.say)(&format!("making {}", form.name()));
        let smaller = match form {
            Form::F16 | Form::Int8 => None,
            Form::Pruned | Form::PrunedInt8 => Some(pruned.get_or_insert_with(|| course.pruned(network))),
            Form::Distilled | Form::DistilledInt8 => Some(student.get_or_insert_with(|| course.student(network))),
        };
        let smaller = match smaller {
            Some(Err(why)) => {
                made.refused.push(refused(form, why));
                continue;
            }
            Some(Ok(smaller)) => Some(smaller),
            None => None,
        };
        let of = smaller.as_ref().map_or(network, |smaller| &smaller.network);
        let variant = match form {
            Form::F16 => Variant::f16(of).map_err(CompressError::from),
            Form::Pruned | Form::Distilled => copy(of).map(Variant::f32),
            Form::Int8 => course.int8(of, course.base),
            Form::PrunedInt8 | Form::DistilledInt8 => course.int8(of, None),
        };
        let settled = variant.and_then(|variant| {
            settle(&variant, course.validation)?;
            Ok(variant)
        });
        match settled {
            Ok(variant) => made.variants.push(Variant { name: form.name().into(), ..variant }),
            Err(why) => made.refused.push(refused(form, &why)),
        }
        if let Some(smaller) = smaller {
            made.architectures.insert(form.name().into(), smaller.architecture.clone());
        }
    }
    made.variants.insert(0, trained);
    Ok(made)
}

impl Course<'_> {
    /// Without its weakest channels and units, and trained again.
    fn pruned(&self, network: &Network) -> Result<Smaller, CompressError> {
        let weakest = share(&self.compress.prune.share).unwrap_or_default();
        let pruned = prune(self.architecture, network, weakest)?.ok_or(CompressError::NothingToPrune)?;
        let (architecture, network) = pruned;
        let epochs = self.compress.prune.epochs.unwrap_or_else(|| self.few());
        self.learn(&network, &self.again(epochs, 1.0), None, None, None)?;
        Ok(Smaller { architecture, network })
    }

    /// Another network, which learns from what this one says.
    fn student(&self, teacher: &Network) -> Result<Smaller, CompressError> {
        let (Some(architecture), Some(distill)) =
            (self.compress.student(self.architecture), self.compress.distill.as_ref())
        else {
            return Err(CompressError::NoStudent);
        };
        let graph = architecture.graph().map_err(candle_core::Error::wrap)?;
        let network = Network::initialise(Arc::new(graph), self.fit.seed)?;
        let of_teacher = share(&distill.share).unwrap_or_default();
        let teacher = Teacher { network: teacher, temperature: distill.temperature, share: of_teacher };
        self.learn(&network, &self.again(distill.epochs.unwrap_or(self.fit.epochs), 1.0), Some(teacher), None, None)?;
        Ok(Smaller { architecture, network })
    }

    /// Bytes, with ranges found on training samples. Where too much is lost on the validation split, the weights learn to be
    /// rounded; the better of both is kept. The frozen backbone of a base has the base's bytes.
    fn int8(&self, network: &Network, base: Option<&Base>) -> Result<Variant, CompressError> {
        let inputs = calibrate(network, self.train, self.fit.seed)?;
        let bytes = |network: &Network, inputs: &BTreeMap<String, Scaling>| -> Result<Variant, CompressError> {
            let mut variant = Variant::int8(network, inputs)?;
            base.map_or(Ok(()), |base| base.lend_bytes(&mut variant))?;
            Ok(variant)
        };
        let plain = bytes(network, &inputs)?;
        // Normal samples alone tell nothing of what is lost where anomalies are to be told.
        if self.validation.is_empty() || network.threshold().is_some() {
            return Ok(plain);
        }
        let before = self.validation.answers(&Variant::f32(copy(network)?).plan()?, network.graph())?;
        let lost = self.lost(&before, &plain)?;
        let most = share(&self.compress.max_accuracy_drop).unwrap_or_default();
        // Where nothing was spoilt there is nothing to be learned, however few samples say so.
        if lost.right_to_wrong == 0 || lost.drop_upper95 <= most {
            return Ok(plain);
        }
        let rounded = copy(network)?;
        self.learn(&rounded, &self.again(self.few(), 0.1), None, Some(&inputs), base.and_then(Base::learned_from))?;
        let learned = bytes(&rounded, &calibrate(&rounded, self.train, self.fit.seed)?)?;
        let is_better = self.lost(&before, &learned)?.drop_upper95 < lost.drop_upper95;
        Ok(if is_better { learned } else { plain })
    }

    /// How far the share of right answers, or what else the metric is, may have fallen, on the validation split.
    fn lost(&self, before: &[Answer], variant: &Variant) -> Result<Paired, CompressError> {
        let after = self.validation.answers(&variant.plan()?, variant.network.graph())?;
        Ok(paired("f32", before, &after))
    }

    fn few(&self) -> usize {
        self.fit.epochs.div_ceil(5)
    }

    /// The recipe, for so many epochs at a share of its rate that ends at zero.
    fn again(&self, epochs: usize, share: f32) -> Fit {
        let optimizer = match self.fit.optimizer {
            Optimizer::Adam { learning_rate } => Optimizer::Adam { learning_rate: learning_rate * share },
            Optimizer::Sgd { learning_rate, momentum, nesterov } => {
                Optimizer::Sgd { learning_rate: learning_rate * share, momentum, nesterov }
            }
        };
        let schedule = Some(Schedule::Cosine { warmup_epochs: 0 });
        Fit { epochs, optimizer, schedule, early_stopping: None, ..self.fit.clone() }
    }

    fn learn(
        &self,
        network: &Network,
        recipe: &Fit,
        teacher: Option<Teacher<'_>>,
        rounding: Option<Rounding<'_>>,
        learned_from: Option<&str>,
    ) -> Result<(), FitError> {
        let lesson = Lesson {
            network,
            train: self.train,
            validation: self.validation,
            recipe,
            checkpoints: None,
            stop: &AtomicBool::new(false),
            learned_from,
            teacher,
            rounding,
        };
        fit(&lesson, &mut Unseen).map(drop)
    }
}

/// What follows training is told of by its variants.
struct Unseen;

impl Observer for Unseen {
    fn resumed(&mut self, _: &[Epoch], _: usize, _: usize) {}
    fn batch(&mut self, _: usize, _: usize, _: usize, _: f32) {}
    fn epoch(&mut self, _: &Epoch) {}
}

/// With variables of its own.
fn copy(network: &Network) -> Result<Network, CompressError> {
    let weights: Result<BTreeMap<_, _>, candle_core::Error> =
        network.variables().iter().map(|(name, weight)| Ok((name.clone(), weight.as_tensor().copy()?))).collect();
    Ok(Network::load(network.graph().clone(), &weights?)?)
}
