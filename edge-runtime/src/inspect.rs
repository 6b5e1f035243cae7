//! Tells what an artifact is, and how it would run here.

use crate::load::{LoadError, open};
use sconce_kernels::IsaToken;
use sconce_model::artifact::signature::Trust;
use sconce_model::artifact::{DataSet, Paired, TensorSpec, VariantEntry};
use sconce_model::preprocess::Preprocess;
use serde::Serialize;
use std::fmt;
use std::path::Path;

/// An artifact, as it is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    task: String,
    labels: Vec<String>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    preprocess: Preprocess,
    /// `None` where there is no manifest to verify it against.
    verified: Option<Manifest>,
    /// What the variants were evaluated on.
    dataset: Option<DataSet>,
    /// The instruction set that kernels would use here.
    isa: &'static str,
    variants: Vec<Variant>,
}

/// What the files were verified against.
#[derive(Debug, Serialize)]
struct Manifest {
    digest: String,
    files: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Variant {
    #[serde(flatten)]
    entry: VariantEntry,
    evaluation: Option<Evaluation>,
    /// Its passes over the activations; `None` where files of it are not there.
    steps: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct Evaluation {
    metric: String,
    value: f64,
    wilson95: (f64, f64),
    /// Beside the variant that training made.
    paired: Option<Paired>,
}

/// Verifies, reads and compiles all that is there.
///
/// # Errors
/// As `serve` has them.
pub fn inspect(folder: &Path, digest: Option<&str>) -> Result<Report, LoadError> {
    let opened = open(folder, digest, &Trust::default())?;
    let artifact = &opened.artifact;
    let variant = |entry: &VariantEntry| -> Result<Variant, LoadError> {
        let measured = artifact.evaluation().and_then(|evaluation| evaluation.variants.get(&entry.name));
        let evaluation = measured.map(|measured| Evaluation {
            metric: measured.metric.clone(),
            value: measured.value,
            wilson95: measured.wilson95,
            paired: measured.paired.clone(),
        });
        let plan = opened.has(entry).then(|| opened.plan(&entry.name)).transpose()?;
        let steps = plan.map(|plan| plan.steps().iter().map(ToString::to_string).collect());
        Ok(Variant { entry: entry.clone(), evaluation, steps })
    };
    let variants = artifact.variants().iter().map(variant).collect::<Result<_, _>>()?;
    let config = artifact.config().clone();
    let verified = opened.verified.as_ref();
    Ok(Report {
        task: config.task,
        labels: config.labels,
        inputs: config.inputs,
        outputs: config.outputs,
        preprocess: artifact.preprocess().clone(),
        verified: verified.map(|verified| Manifest { digest: verified.digest.clone(), files: verified.files.len() }),
        dataset: artifact.evaluation().map(|evaluation| evaluation.dataset.clone()),
        isa: IsaToken::detect()?.name(),
        variants,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |what: &str, told: &dyn fmt::Display| writeln!(f, "{what:<14}{told}");
        line("task", &self.task)?;
        if !self.labels.is_empty() {
            line("labels", &self.labels.join(", "))?;
        }
        for (what, tensors) in [("input", &self.inputs), ("output", &self.outputs)] {
            for tensor in tensors {
                line(what, &format_args!("{} {} {:?}", tensor.name, tensor.datatype, tensor.shape))?;
            }
        }
        for step in &self.preprocess.steps {
            line("preprocess", &serde_json::to_string(step).map_err(|_| fmt::Error)?)?;
        }
        match &self.verified {
            Some(Manifest { digest, files }) => line("verified", &format_args!("{files} files, by {digest}"))?,
            None => line("verified", &"no: there is no manifest")?,
        }
        if let Some(dataset) = &self.dataset {
            line("evaluated on", &format_args!("{} samples of {}", dataset.n, dataset.name))?;
        }
        line("runs on", &self.isa)?;
        self.variants.iter().try_for_each(|variant| write!(f, "\n{variant}"))
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VariantEntry { name, arithmetic, bytes, memory_bytes, flops, .. } = &self.entry;
        writeln!(f, "variant {name}: {arithmetic}, {bytes} bytes, {memory_bytes} bytes of memory, {flops} FLOPs")?;
        if let Some(Evaluation { metric, value, wilson95: (low, high), paired }) = &self.evaluation {
            write!(f, "  {metric} {value:.4}, 95 % interval {low:.4} to {high:.4}")?;
            if let Some(Paired { against, drop_upper95, .. }) = paired {
                write!(f, ", at most {drop_upper95:.4} below {against}")?;
            }
            writeln!(f)?;
        }
        match &self.steps {
            Some(steps) => steps.iter().try_for_each(|step| writeln!(f, "  {step}")),
            None => writeln!(f, "  its files are not here"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sconce_model::artifact::testing::write_tiny;

    #[test]
    fn an_artifact_is_told_for_people_and_for_programs() {
        let folder = tempfile::tempdir().unwrap();
        write_tiny(folder.path(), 7).unwrap();
        let report = inspect(folder.path(), None).unwrap();
        let text = report.to_string();
        for line in [
            "task          classification\nlabels        a, b, c\ninput         input FP32 [-1, 1, 8, 8]\n",
            "preprocess    {\"scale\":{\"by\":0.003921569}}\nverified      no: there is no manifest\n",
            "variant f32: f32, ",
            "  accuracy 0.9900, 95 % interval 0.9800 to 0.9950\n  conv2d_1 + max_pool2d_1: convolution + bias + relu + max pool, ",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["variants"][0]["name"], &json["inputs"][0]["datatype"]), (&"f32".into(), &"FP32".into()));
        assert_eq!(json["isa"], IsaToken::detect().unwrap().name());

        std::fs::remove_file(folder.path().join("weights/f32/head.safetensors")).unwrap();
        assert!(inspect(folder.path(), None).unwrap().to_string().contains("\n  its files are not here\n"));
        std::fs::write(folder.path().join("weights/f32/head.safetensors"), "none").unwrap();
        let error = inspect(folder.path(), None).unwrap_err().to_string();
        assert!(error.starts_with("weights/f32/head.safetensors is broken: "), "{error}");
    }
}
