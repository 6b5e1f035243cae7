//! `spec.compress`: the forms that a trained network is served in, beside its own.

use super::{Fault, share};
use sconce_model::architecture::{Architecture, Layer};
use sconce_model::graph::Graph;
use sconce_model::variant::quantisable;
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Compress {
    /// Beside f32.
    pub variants: Vec<Form>,
    /// A variant that may have lost more of the right answers than this, with 95 % confidence, is left out.
    #[serde(default = "half_a_point")]
    pub max_accuracy_drop: String,
    #[serde(default)]
    pub prune: Prune,
    /// The student that the variants `distilled` are made of.
    #[serde(default)]
    pub distill: Option<Distill>,
}

impl Default for Compress {
    fn default() -> Self {
        Self { variants: Vec::new(), max_accuracy_drop: half_a_point(), prune: Prune::default(), distill: None }
    }
}

fn half_a_point() -> String {
    "0.5%".into()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    F16,
    Int8,
    /// A smaller network: without the weakest channels and units.
    Pruned,
    #[serde(rename = "pruned-int8")]
    PrunedInt8,
    /// A network of its own, which learned from the trained one.
    Distilled,
    #[serde(rename = "distilled-int8")]
    DistilledInt8,
}

impl Form {
    /// The variant's.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Pruned => "pruned",
            Self::PrunedInt8 => "pruned-int8",
            Self::Distilled => "distilled",
            Self::DistilledInt8 => "distilled-int8",
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Prune {
    /// Of the channels and units of each layer that can lose some.
    pub share: String,
    /// To learn again what was lost; a fifth of `fit.epochs` if not said.
    pub epochs: Option<usize>,
}

impl Default for Prune {
    fn default() -> Self {
        Self { share: "50%".into(), epochs: None }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Distill {
    /// The student's, which reads what its teacher reads.
    pub layers: Vec<Layer>,
    /// What the answers of both are softened by.
    #[serde(default = "four")]
    pub temperature: f64,
    /// Of the loss, that the teacher's answers have; the labels have the rest.
    #[serde(default = "most")]
    pub share: String,
    /// As many as `fit.epochs` if not said.
    #[serde(default)]
    pub epochs: Option<usize>,
}

fn four() -> f64 {
    4.0
}

fn most() -> String {
    "70%".into()
}

impl Compress {
    /// The student of a network.
    pub fn student(&self, teacher: &Architecture) -> Option<Architecture> {
        let layers = self.distill.as_ref()?.layers.clone();
        Some(Architecture { layers, ..teacher.clone() })
    }

    /// # Errors
    /// The first field whose value means nothing, and what it needs.
    pub(super) fn check(&self, trained: &Architecture) -> Result<(), Fault> {
        let fault = |field: &str, why: String| Err(Fault::new(format!("spec.compress.{field}"), why));
        let Self { variants, max_accuracy_drop, prune, distill } = self;
        if variants.iter().enumerate().any(|(index, form)| variants[..index].contains(form)) {
            return fault("variants", "a variant is named twice".into());
        }
        if share(max_accuracy_drop).is_none() {
            return fault("maxAccuracyDrop", format!("{max_accuracy_drop}; need a percentage, such as 0.5%"));
        }
        if !share(&prune.share).is_some_and(|share| share > 0.0 && share < 1.0) {
            return fault("prune.share", format!("{}; need a percentage above 0%, below 100%", prune.share));
        }
        let of_student = distill.as_ref().and_then(|distill| distill.epochs);
        for (field, epochs) in [("prune.epochs", prune.epochs), ("distill.epochs", of_student)] {
            if epochs.is_some_and(|epochs| !(1..=10_000).contains(&epochs)) {
                return fault(field, format!("{}; need 1 to 10,000", epochs.unwrap_or_default()));
            }
        }
        let asked = |forms: &[Form]| variants.iter().find(|form| forms.contains(form));
        if let (Some(form), None) = (asked(&[Form::Distilled, Form::DistilledInt8]), distill) {
            return fault("variants", format!("{}: who is the student? Say its distill.layers", form.name()));
        }
        let graph = trained.graph().map_err(|error| Fault::new("spec.architecture", error.to_string()))?;
        if asked(&[Form::Int8, Form::PrunedInt8]).is_some() && quantisable(&graph).next().is_none() {
            let why = "int8: only the last layer computes products, and it stays f32; leave int8 out";
            return fault("variants", why.into());
        }
        let Some((student, Distill { temperature, share: of_teacher, .. })) =
            self.student(trained).zip(distill.as_ref())
        else {
            return Ok(());
        };
        if !(1.0..=1000.0).contains(temperature) {
            return fault("distill.temperature", format!("{temperature}; need 1 to 1,000"));
        }
        if super::share(of_teacher).is_none() {
            return fault("distill.share", format!("{of_teacher}; need a percentage, such as 70%"));
        }
        let in_student = |why: String| Fault::new("spec.compress.distill.layers", why);
        let student = student.graph().map_err(|error| in_student(error.to_string()))?;
        if asked(&[Form::DistilledInt8]).is_some() && quantisable(&student).next().is_none() {
            let why = "only its last layer computes products, and it stays f32; leave distilled-int8 out";
            return Err(in_student(why.into()));
        }
        student.trainable().map_err(|error| in_student(error.to_string()))?;
        if (student.units(), student.classifies()) != (graph.units(), graph.classifies()) {
            let why = format!("{} outputs, the teacher has {}; end as it does", student.units(), graph.units());
            return Err(in_student(why));
        }
        let shortest = |graph: &Graph| graph.lengths().map(|lengths| *lengths.start());
        if let (Some(own), Some(teachers)) = (shortest(&student), shortest(&graph))
            && own > teachers
        {
            let why =
                format!("sequences from {own} steps on, the teacher takes {teachers}; make windows shorter, or pad");
            return Err(in_student(why));
        }
        Ok(())
    }
}
