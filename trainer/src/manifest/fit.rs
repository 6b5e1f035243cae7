//! `spec.fit`: how a network is trained.

use super::{Fault, share};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fit {
    pub epochs: usize,
    pub batch_size: usize,
    pub optimizer: Optimizer,
    pub seed: u64,
    /// Share of the training split that choices are made on.
    pub validation: String,
    pub init: Init,
    /// How the learning rate changes. Absent: it does not.
    pub schedule: Option<Schedule>,
    pub loss: Loss,
    /// Absent: a sample of any class counts the same.
    pub class_weights: Option<ClassWeights>,
    /// The norm of all gradients together is at most this.
    pub clip_norm: Option<f32>,
    pub early_stopping: Option<EarlyStopping>,
    pub augment: Vec<Augment>,
    pub checkpoint: Checkpoint,
}

impl Default for Fit {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch_size: 32,
            optimizer: Optimizer::default(),
            seed: 0,
            validation: "10%".into(),
            init: Init::default(),
            schedule: None,
            loss: Loss::default(),
            class_weights: None,
            clip_norm: None,
            early_stopping: None,
            augment: Vec::new(),
            checkpoint: Checkpoint::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Optimizer {
    #[serde(rename_all = "camelCase")]
    Adam {
        #[serde(default = "rate_of_adam")]
        learning_rate: f32,
    },
    #[serde(rename_all = "camelCase")]
    Sgd {
        #[serde(default = "rate_of_sgd")]
        learning_rate: f32,
        #[serde(default)]
        momentum: f32,
        #[serde(default)]
        nesterov: bool,
    },
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Adam { learning_rate: rate_of_adam() }
    }
}

impl Optimizer {
    pub fn learning_rate(self) -> f32 {
        let (Self::Adam { learning_rate } | Self::Sgd { learning_rate, .. }) = self;
        learning_rate
    }
}

fn rate_of_adam() -> f32 {
    0.001
}

fn rate_of_sgd() -> f32 {
    0.01
}

/// Whose first weights are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Init {
    /// Glorot's, with biases of zero.
    #[default]
    Keras,
    /// Uniform in ±1/√inputs, biases too.
    Torch,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Schedule {
    /// Up in a straight line during the first epochs, then down to zero along half a cosine.
    #[serde(rename_all = "camelCase")]
    Cosine {
        #[serde(default)]
        warmup_epochs: usize,
    },
    /// Multiplied by `factor` after each so many epochs.
    #[serde(rename_all = "camelCase")]
    Step { every_epochs: usize, factor: f32 },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Loss {
    /// Share of the target that all classes have in common.
    pub label_smoothing: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClassWeights {
    /// All classes count the same, however few samples one has.
    Balanced,
}

/// Ends training once the validation has not improved for so many epochs; the best epoch is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EarlyStopping {
    #[serde(default)]
    pub metric: Metric,
    pub patience: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Metric {
    #[default]
    Accuracy,
    Loss,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Checkpoint {
    pub every_epochs: usize,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { every_epochs: 1 }
    }
}

/// What is done, by chance, to an image each time that it is learned from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Augment {
    /// By up to so many pixels, in both directions.
    Shift { pixels: usize },
    /// By up to so many degrees, either way.
    Rotate { degrees: f32 },
    /// Larger or smaller by up to this share.
    Scale { by: f32 },
    /// Every second one.
    Flip {
        #[serde(default)]
        axis: Axis,
    },
    /// A square of up to so many pixels a side becomes black.
    Erase { pixels: usize },
    /// Brighter or darker by up to this share.
    Brightness { by: f32 },
    /// Added to each value: normal, with this standard deviation, where white is 1.
    Noise { std: f32 },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Axis {
    /// Left becomes right.
    #[default]
    Horizontal,
    /// Above becomes below.
    Vertical,
}

impl Fit {
    /// # Errors
    /// The first field whose value means nothing, and what it needs.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let need = |holds: bool, field: &str, got: &dyn std::fmt::Display, need: &str| {
            if holds { Ok(()) } else { Err(Fault::new(format!("spec.fit.{field}"), format!("{got}; need {need}"))) }
        };
        need((1..=10_000).contains(&self.epochs), "epochs", &self.epochs, "1 to 10,000")?;
        need((1..=4_096).contains(&self.batch_size), "batchSize", &self.batch_size, "1 to 4,096")?;
        let (kind, momentum, nesterov) = match self.optimizer {
            Optimizer::Adam { .. } => ("adam", 0.0, false),
            Optimizer::Sgd { momentum, nesterov, .. } => ("sgd", momentum, nesterov),
        };
        let rate = self.optimizer.learning_rate();
        let field = format!("optimizer.{kind}.learningRate");
        need(rate > 0.0 && rate <= 1.0, &field, &rate, "above 0, at most 1")?;
        need((0.0..1.0).contains(&momentum), "optimizer.sgd.momentum", &momentum, "0 or more, below 1")?;
        need(!nesterov || momentum > 0.0, "optimizer.sgd.nesterov", &nesterov, "a momentum above 0 with it")?;
        let validation = share(&self.validation).filter(|share| *share < 1.0);
        let percentage = "a percentage below 100%, such as 10%";
        need(validation.is_some(), "validation", &self.validation, percentage)?;
        match self.schedule {
            Some(Schedule::Cosine { warmup_epochs }) => {
                let fewer = format!("fewer than the {} epochs", self.epochs);
                need(warmup_epochs < self.epochs, "schedule.cosine.warmupEpochs", &warmup_epochs, &fewer)?;
            }
            Some(Schedule::Step { every_epochs, factor }) => {
                need(every_epochs > 0, "schedule.step.everyEpochs", &every_epochs, "1 or more")?;
                need(factor > 0.0 && factor <= 1.0, "schedule.step.factor", &factor, "above 0, at most 1")?;
            }
            None => {}
        }
        let smoothing = self.loss.label_smoothing;
        need((0.0..1.0).contains(&smoothing), "loss.labelSmoothing", &smoothing, "0 or more, below 1")?;
        let clip = self.clip_norm.unwrap_or(1.0);
        need(clip > 0.0 && clip.is_finite(), "clipNorm", &clip, "a number above 0")?;
        if let Some(EarlyStopping { patience, .. }) = self.early_stopping {
            need(patience > 0, "earlyStopping.patience", &patience, "1 or more epochs")?;
            let why = "more than 0% for earlyStopping to look at";
            need(validation.is_some_and(|share| share > 0.0), "validation", &self.validation, why)?;
        }
        let every = self.checkpoint.every_epochs;
        need(every > 0, "checkpoint.everyEpochs", &every, "1 or more")?;
        for (index, augment) in self.augment.iter().enumerate() {
            let (field, got, most, holds) = augment.bounds();
            need(holds, &format!("augment[{index}].{field}"), &got, most)?;
        }
        Ok(())
    }
}

impl Augment {
    /// The field, its value, what it needs, and whether it has that.
    fn bounds(&self) -> (&'static str, f32, &'static str, bool) {
        let pixels = |field, pixels: usize| (field, pixels as f32, "1 to 1,024", (1..=1_024).contains(&pixels));
        let of_one = |field, by: f32| (field, by, "above 0, below 1", by > 0.0 && by < 1.0);
        match *self {
            Self::Shift { pixels: by } => pixels("shift.pixels", by),
            Self::Erase { pixels: by } => pixels("erase.pixels", by),
            Self::Rotate { degrees } => {
                ("rotate.degrees", degrees, "above 0, at most 180", degrees > 0.0 && degrees <= 180.0)
            }
            Self::Scale { by } => of_one("scale.by", by),
            Self::Brightness { by } => of_one("brightness.by", by),
            Self::Noise { std } => of_one("noise.std", std),
            Self::Flip { .. } => ("flip", 0.0, "", true),
        }
    }
}
